use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::test_support::{Answer, DIMENSION, Kept, Running, Server, answer, rows};

/// The clock of a file's fingerprint must not matter to a test: replaced by renaming, never rewritten.
fn replace(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    let new = directory.join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, directory.join(name)).unwrap();
}

fn file_origin(name: &str, path: &str, dimension: &str) -> String {
    format!(
        "[[origin.file]]\nname = \"{name}\"\npath = \"{path}\"\ndimensions = [\"{dimension}\"]\ninterval = \"20ms\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_file_is_published_and_a_bad_one_leaves_the_last_good() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{DIMENSION}{}", file_origin("f", "rows.jsonl", "ip"));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until_refused(0, "unavailable", "rows.jsonl: No such file").await;
    assert_eq!(running.kept.publications(), 0);

    replace(dir.path(), "rows.jsonl", rows(&[1.0, 2.0]));
    running.until("the first rows", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last(), (2, vec![1.0, 2.0]));

    for (bad, reason, message) in [
        (rows(&[1.0, 101.0]), "out_of_range", "line 2"),
        (rows(&[1.0]).replace("\"x\"", "\"y\""), "unknown_feature", "line 1"),
        (rows(&[1.0]).replace(":1}", ":NaN}"), "not_finite", "line 1"),
        (String::new(), "too_few_rows", "min_rows"),
    ] {
        let before = running.kept.publications();
        replace(dir.path(), "rows.jsonl", &bad);
        running.until_refused(0, reason, message).await;
        assert_eq!(running.kept.publications(), before, "{reason}");
        assert_eq!(running.status("/origins/0/state"), "refused");
    }
    replace(dir.path(), "rows.jsonl", rows(&[3.0]));
    running.until("good rows again", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last(), (1, vec![3.0]));
    let metrics = running.state.metrics.encode().unwrap();
    assert!(metrics.contains("bliss_origin_refused{origin=\"f\"} 0"), "{metrics}");
    assert!(metrics.contains("bliss_origin_refusals_total{origin=\"f\",reason=\"not_finite\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_published_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "rows.jsonl", rows(&[1.0]));
    let kept = Kept::default();
    kept.failing.store(true, Ordering::Relaxed);
    let text = format!("{DIMENSION}{}", file_origin("f", "rows.jsonl", "ip"));
    let running = Running::start(dir.path(), &text, kept);
    running.until_refused(0, "unpublished", "no room").await;
    running.kept.failing.store(false, Ordering::Relaxed);
    running.until("publication", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last().0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_hanging_server_and_a_file_that_is_a_pipe_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "good.jsonl", rows(&[1.0]));
    let pipe = std::ffi::CString::new(dir.path().join("pipe.jsonl").to_str().unwrap()).unwrap();
    // SAFETY:
    // - `pipe` is a C string that lives through the call, which keeps no pointer
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let server = Server::start(Answer::Hang(vec![])).await;
    let text = format!(
        "{DIMENSION}{}{}{}{}{}",
        DIMENSION.replace("\"ip\"\n", "\"b\"\n"),
        DIMENSION.replace("\"ip\"\n", "\"c\"\n"),
        file_origin("good", "good.jsonl", "ip"),
        file_origin("pipe", "pipe.jsonl", "b"),
        http_origin(server.port, "c", "timeout = \"300ms\"\n"),
    );
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("the good one", |r| r.status("/origins/0/state") == "accepted").await;
    running.until_refused(1, "unavailable", "not a regular file").await;
    running.until_refused(2, "unavailable", "no whole answer within 300ms").await;
}

fn http_origin(port: u16, dimension: &str, options: &str) -> String {
    format!(
        "[[origin.http]]\nname = \"h\"\nurl = \"http://127.0.0.1:{port}/rows.jsonl?token=secret\"\n\
         dimensions = [\"{dimension}\"]\ninterval = \"30ms\"\nretry_min = \"20ms\"\nretry_max = \"50ms\"\n{options}"
    )
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_becomes_features_within_an_interval() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\ndimensions = [\"ip\"]\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until_refused(0, "unavailable", "access.log: No such file").await;
    assert_eq!(running.kept.publications(), 0, "a log that is not there takes nothing away");

    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
    let line = format!(
        "{{\"msec\":{now},\"remote_addr\":\"192.0.2.1\",\"status\":200,\"request\":\"GET / HTTP/1.1\"}}\nbroken\n"
    );
    fs::write(dir.path().join("access.log"), line).unwrap();
    running.until("a row", |r| r.kept.publications() > 0 && r.kept.last().0 == 1).await;
    assert_eq!(running.kept.last().1[0], 1.0, "requests_1m");
    running.until("the state", |r| r.status("/origins/0/state") == "accepted").await;
    let broken = running.status("/origins/0/first_malformed_line").to_string();
    assert!(broken.contains("address"), "{broken}");
    let metrics = running.state.metrics.encode().unwrap();
    assert!(metrics.contains("bliss_access_log_malformed_lines_total{origin=\"log\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_failed_is_restated_whole() {
    let dir = tempfile::tempdir().unwrap();
    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
    let line = |ip: u8| {
        format!(
            "{{\"msec\":{now},\"remote_addr\":\"192.0.2.{ip}\",\"status\":200,\"request\":\"GET / HTTP/1.1\"}}\n"
        )
    };
    fs::write(dir.path().join("access.log"), line(1) + &line(2)).unwrap();
    let kept = Kept::default();
    kept.failing.store(true, Ordering::Relaxed);
    let text = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\ndimensions = [\"ip\"]\n";
    let running = Running::start(dir.path(), text, kept);
    running.until_refused(0, "unpublished", "no room").await;
    running.kept.failing.store(false, Ordering::Relaxed);
    running.until("both rows", |r| r.kept.publications() > 0).await;
    let first = running.kept.changes.lock().unwrap()[0].clone();
    assert!(matches!(
        &first.dimensions[0].1,
        bliss_core::build::DimensionChange::Replace(rows) if rows.len() == 2
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_log_comes_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let line = |second| {
        format!("192.0.2.1 - - [17/May/2015:10:05:{second:02} +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"x\"\n")
    };
    fs::write(dir.path().join("access.log"), line(3) + "broken\n" + &line(1)).unwrap();
    let text = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\nmode = \"replay\"\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until("the end", |r| r.status("/origins/0/state") == "finished").await;
    assert_eq!(running.kept.last().1[0], 2.0);
    let broken = running.status("/origins/0/first_malformed_line").to_string();
    assert!(broken.contains("line 2"), "{broken}");
}
