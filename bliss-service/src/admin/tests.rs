use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Config;
use bliss_store::{Publication, PublishMethod};

async fn serve(state: Arc<State>) -> String {
    serve_with(state, Limits::default(), CancellationToken::new()).await
}

async fn serve_with(state: Arc<State>, limits: Limits, stop: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(super::serve(listener, router(state, &["bliss.example".into()]), limits, stop));
    format!("http://{address}")
}

fn state() -> Arc<State> {
    let config = Config::parse(Path::new("/x/bliss.toml"), "directory = \"d\"\n").unwrap();
    Arc::new(State::new(&config))
}

async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// What comes until the connection ends, by whatever.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

/// Whether the server has not closed it, as far as is known by now.
fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn request(method: &str, url: String) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.request(method.parse().unwrap(), url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn get(url: String) -> (u16, String) {
    request("GET", url).await
}

#[tokio::test]
async fn s9_pages_report_and_nothing_changes_state() {
    let text = "directory = \"d\"\n[[origin.access_log]]\nname = \"log\"\npath = \"l\"\n";
    let config = Config::parse(Path::new("/x/bliss.toml"), text).unwrap();
    let state = Arc::new(State::new(&config));
    let base = serve(state.clone()).await;
    assert_eq!(get(format!("{base}/healthz")).await, (200, "ok\n".into()));
    let (status, reason) = get(format!("{base}/readyz")).await;
    assert_eq!(status, 503);
    assert!(reason.contains("waiting for: log"), "{reason}");

    let published = Publication { generation: 3, bytes: 0, fresh_file: false, method: PublishMethod::Built };
    state.published(&published, &[5, 6, 7, 8], Duration::ZERO);
    assert_eq!(get(format!("{base}/readyz")).await, (200, "ready\n".into()));
    let (_, status) = get(format!("{base}/status")).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["features"]["generation"], 3);
    assert_eq!(status["features"]["dimensions"][1]["name"], "subnet");
    assert_eq!(status["features"]["dimensions"][1]["rows"], 6);
    assert_eq!(status["features"]["dimensions"][1]["origin"], "log");
    assert_eq!(status["origins"][0]["state"], "waiting");
    let (_, metrics) = get(format!("{base}/metrics")).await;
    assert!(metrics.contains("bliss_features_generation 3"), "{metrics}");
    assert_eq!(get(format!("{base}/other")).await.0, 404);
    // No page takes anything but GET and HEAD, and the listener is on loopback unless it is configured otherwise.
    for page in ["healthz", "readyz", "status", "metrics"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(request(method, format!("{base}/{page}")).await.0, 405, "{method} /{page}");
        }
    }
    assert!(config.listen.ip().is_loopback());
}

#[tokio::test]
async fn s9_idle_connections_keep_nobody_out() {
    // Nothing but the number of connections may close one here.
    let limits = Limits { head: Duration::from_secs(3600), ..Limits::default() };
    let base = serve_with(state(), limits, CancellationToken::new()).await;
    let mut idle = vec![];
    for n in 0..300 {
        let mut stream = connect(&base).await;
        if n % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").await.unwrap();
        }
        idle.push(stream);
        if n % 100 == 99 {
            let asked = tokio::time::timeout(Duration::from_secs(5), get(format!("{base}/healthz"))).await;
            assert_eq!(asked.unwrap(), (200, "ok\n".into()));
        }
    }
    let mut open = idle.len();
    for _ in 0..300 {
        open = idle.iter().filter(|stream| is_open(stream)).count();
        if open <= limits.connections {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((1..=limits.connections).contains(&open), "{open} connections are open");
}

#[tokio::test]
async fn s9_slow_requests_and_answers_are_ended() {
    let limits =
        Limits { connections: 4, head: Duration::from_millis(400), answer: Duration::from_millis(400) };
    let base = serve_with(state(), limits, CancellationToken::new()).await;
    // Nothing, a part of a head, and a head that comes by bytes.
    for drip in [
        &b""[..],
        b"GET /status HTT",
        b"GET /status HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let mut stream = connect(&base).await;
        let began = Instant::now();
        for byte in drip {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rest(&mut stream).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?} for {} bytes", drip.len());
    }
    // A head that is too long is refused, not kept.
    let mut stream = connect(&base).await;
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let _ = stream.write_all(long.as_bytes()).await;
    assert!(!rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(get(format!("{base}/healthz")).await.0, 200);
}

#[tokio::test]
async fn s9_requests_for_other_names_are_refused() {
    let base = serve(state()).await;
    let cases = [
        ("GET /healthz HTTP/1.1", "Host: 127.0.0.1\r\n", 200),
        ("GET /healthz HTTP/1.1", "Host: localhost:9180\r\n", 200),
        ("GET /healthz HTTP/1.1", "Host: bliss.example\r\n", 200),
        ("GET /healthz HTTP/1.0", "", 200),
        ("GET http://localhost/healthz HTTP/1.1", "Host: localhost\r\n", 200),
        ("GET /healthz HTTP/1.1", "Host: evil.example\r\n", 421),
        ("GET /status HTTP/1.1", "Host: evil.example:9180\r\n", 421),
        ("GET /none HTTP/1.1", "Host: evil.example\r\n", 421),
        ("GET /healthz HTTP/1.1", "Host: localhost\r\nHost: evil.example\r\n", 421),
        ("GET http://evil.example/healthz HTTP/1.1", "Host: localhost\r\n", 421),
    ];
    for (line, headers, status) in cases {
        let mut stream = connect(&base).await;
        stream.write_all(format!("{line}\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{line} {headers}: {answer}");
        if status == 421 {
            assert!(answer.contains("evil.example") && answer.contains("admin.hosts"), "{answer}");
        }
    }
}

#[tokio::test]
async fn s9_stopping_waits_for_nobody_who_asked_nothing() {
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let pages = router(state(), &[]);
    let served = tokio::spawn(super::serve(listener, pages, Limits::default(), stop.clone()));
    let mut idle = connect(&base).await;
    assert_eq!(get(format!("{base}/healthz")).await.0, 200);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(2), served).await.unwrap().unwrap();
    assert_eq!(rest(&mut idle).await, "");
}
