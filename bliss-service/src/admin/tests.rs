use std::path::Path;

use super::*;
use crate::config::Config;
use bliss_store::{Publication, PublishMethod};

async fn serve(state: Arc<State>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router(state)).into_future());
    format!("http://{address}")
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
