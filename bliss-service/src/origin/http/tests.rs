use crate::test_support::{Answer, DIMENSION, Kept, Running, Server, answer, http_origin, rows};

#[tokio::test(flavor = "multi_thread")]
async fn s1_every_way_in_which_a_server_can_fail_leaves_the_last_good() {
    let body = rows(&[1.0, 2.0]);
    let server = Server::start(answer("200 OK", "", body.as_bytes())).await;
    let dir = tempfile::tempdir().unwrap();
    let options = "timeout = \"500ms\"\nmax_bytes = 10000\nheaders = { X-Token = \"t1\" }\n";
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", options));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("the first rows", |r| r.status("/origins/0/state") == "accepted").await;
    assert!(server.requests.lock().unwrap()[0].contains("x-token: t1"));

    let half = |head: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        [head.as_bytes(), &body.as_bytes()[..body.len() / 2]].concat()
    };
    let sized = format!("Content-Length: {}\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n40\r\n".to_owned();
    let gzip = format!("Content-Encoding: gzip\r\n{sized}");
    let large = "x".repeat(20_000);
    for (bad, reason, message) in [
        (answer("500 Oh", "", b"{}"), "unavailable", "found 500"),
        (answer("204 No Content", "", b""), "unavailable", "found 204"),
        (answer("304 Not Modified", "", b""), "unavailable", "found 304"),
        (Answer::Hang(vec![]), "unavailable", "no whole answer within 500ms"),
        (Answer::Hang(half(&sized)), "unavailable", "no whole answer within 500ms"),
        (Answer::Bytes(half(&sized)), "unavailable", "broke off"),
        (Answer::Bytes(half(&chunked)), "unavailable", "broke off"),
        (Answer::Bytes(half(&gzip)), "unavailable", "broke off or cannot be decompressed"),
        (Answer::Bytes(b"SSH-2.0-x\r\n".to_vec()), "unavailable", "the request failed"),
        (Answer::Bytes(vec![]), "unavailable", "the request failed"),
        (answer("200 OK", "", &body.as_bytes()[..body.len() - 9]), "undecodable", "line 2"),
        (answer("200 OK", "", b"<html>"), "undecodable", "line 1"),
        (answer("200 OK", "", large.as_bytes()), "too_large", "max_bytes"),
        (answer("200 OK", "", b""), "too_few_rows", "min_rows"),
    ] {
        server.set(bad.clone());
        running.until_refused(0, reason, message).await;
        let refusal = running.status("/origins/0/last_refusal").to_string();
        assert!(!refusal.contains("secret"), "{refusal}");
        let before = running.kept.publications();
        let asked = server.requests();
        running.until("another try", |_| server.requests() > asked).await;
        assert_eq!(running.kept.publications(), before, "{bad:?}");
        assert_eq!(running.kept.last().0, 2);
    }
    server.set(answer("200 OK", "", rows(&[5.0]).as_bytes()));
    running.until("good rows again", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last(), (1, vec![5.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{DIMENSION}{}", http_origin(port, "ip", ""));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until_refused(0, "unavailable", "cannot connect: Connection refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_tags_spare_the_body_and_keep_what_was_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(answer("200 OK", "ETag: \"one\"\r\n", rows(&[1.0]).as_bytes())).await;
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", ""));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("the first rows", |r| r.status("/origins/0/state") == "accepted").await;

    server.set(Answer::Bytes(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec()));
    let asked = server.requests();
    running.until("two more requests", |_| server.requests() > asked + 2).await;
    assert!(server.requests.lock().unwrap().last().unwrap().contains("if-none-match: \"one\""));
    assert_eq!(running.status("/origins/0/state"), "accepted");
    assert_eq!(running.kept.publications(), 1);

    // A bad body stays refused while the server says that it has not changed.
    server.set(answer("200 OK", "ETag: \"two\"\r\n", b"{"));
    running.until_refused(0, "undecodable", "line 1").await;
    server.set(Answer::Bytes(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec()));
    let asked = server.requests();
    running.until("two more requests", |_| server.requests() > asked + 2).await;
    assert!(server.requests.lock().unwrap().last().unwrap().contains("if-none-match: \"two\""));
    assert_eq!(running.status("/origins/0/state"), "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_understood_and_its_content_is_limited() {
    // `rows(&[4.0])`, compressed by another program.
    let compressed: &[u8] = include_bytes!("testdata/rows.jsonl.gz");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(answer("200 OK", "Content-Encoding: gzip\r\n", compressed)).await;
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", "max_bytes = 1000\n"));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("rows", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last(), (1, vec![4.0]));
    assert!(server.requests.lock().unwrap()[0].contains("accept-encoding: gzip"));
    // 100,000 spaces in 130 bytes.
    server.set(answer("200 OK", "Content-Encoding: gzip\r\n", include_bytes!("testdata/bomb.gz")));
    running.until_refused(0, "too_large", "max_bytes").await;
}
