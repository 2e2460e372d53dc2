use std::fs;
use std::sync::atomic::Ordering;

use crate::test_support::{Kept, Running};

mod problems;
mod restart;

/// A line of now.
fn line(ip: u8) -> String {
    line_of(ip, 0)
}

/// A line of so many seconds ago.
fn line_of(ip: u8, seconds_ago: i64) -> String {
    let time = (jiff::Timestamp::now().as_millisecond() - seconds_ago * 1000) as f64 / 1000.0;
    format!(
        "{{\"msec\":{time},\"remote_addr\":\"192.0.2.{ip}\",\"status\":200,\"request\":\"GET / HTTP/1.1\"}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_becomes_features_within_an_interval() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\ndimensions = [\"ip\"]\nwindows = true\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until_refused(0, "unavailable", "access.log: No such file").await;
    assert_eq!(running.kept.publications(), 0, "a log that is not there takes nothing away");

    fs::write(dir.path().join("access.log"), line(1) + "broken\n").unwrap();
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
    let text =
        "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\nmode = \"replay\"\nwindows = true\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until("the end", |r| r.status("/origins/0/state") == "finished").await;
    assert_eq!(running.kept.last().1[0], 2.0);
    let broken = running.status("/origins/0/first_malformed_line").to_string();
    assert!(broken.contains("line 2"), "{broken}");
}
