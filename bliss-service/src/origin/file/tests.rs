use std::path::Path;
use std::sync::atomic::Ordering;

use crate::test_support::{Answer, DIMENSION, Kept, Running, Server, file_origin, http_origin, rows};

/// The clock of a file's fingerprint must not matter to a test: replaced by renaming, never rewritten.
fn replace(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    let new = directory.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join(name)).unwrap();
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

/// The rows of a generator that writes times in milliseconds, anew each time: one refusal, however often it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_whose_text_holds_a_changing_value_is_one_refusal() {
    type Text = fn(u64) -> String;
    let changing: [(&str, Text); 6] = [
        ("undecodable", |n| rows(&[1.0]).replace(":7,", &format!(":{},", 1_764_160_401_123 + n))),
        ("undecodable", |n| rows(&[1.0]).replace(":7,", &format!(":7.{n},"))),
        ("undecodable", |n| rows(&[1.0]).replace(":1}", &format!(":\"text {n}\"}}"))),
        ("out_of_range", |n| rows(&[101.5 + n as f32])),
        ("out_of_range", |n| {
            rows(&vec![1.0; n as usize]) + &rows(&[200.0]).replace("192.0.2.0", "198.51.100.1")
        }),
        ("not_finite", |n| rows(&[1.0]).replace(":1}", &format!(":1e{}}}", 40 + n))),
    ];
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{DIMENSION}{}", file_origin("f", "rows.jsonl", "ip"));
    let running = Running::start(dir.path(), &text, Kept::default());
    for (reason, text) in changing {
        replace(dir.path(), "rows.jsonl", rows(&[1.0]));
        running.until("good rows", |r| r.status("/origins/0/state") == "accepted").await;
        replace(dir.path(), "rows.jsonl", text(0));
        running.until("a refusal", |r| r.status("/origins/0/state") == "refused").await;
        let first = running.status("/origins/0/last_refusal");
        assert_eq!(first["reason"], reason, "{first}");
        let mut last = first.clone();
        for n in 1..5 {
            replace(dir.path(), "rows.jsonl", text(n));
            running
                .until("the next text", |r| r.status("/origins/0/last_refusal")["message"] != last["message"])
                .await;
            let now = running.status("/origins/0/last_refusal");
            assert_eq!(now["since"], first["since"], "{now} is {first}");
            assert!(now["times"].as_u64() > last["times"].as_u64(), "{now}");
            last = now;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_shrinks_or_is_empty_of_values_is_published_and_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<f32> = (0..40).map(|x| x as f32).collect();
    let text = format!("{DIMENSION}{}warn_shrink = 0.25\n", file_origin("f", "rows.jsonl", "ip"));
    let running = Running::start(dir.path(), &text, Kept::default());
    let no_features = rows(&many).replace(",\"features\":{\"x\":", ",\"features\":{},\"was\":{\"x\":");
    let no_features: String =
        no_features.lines().map(|l| format!("{}}}\n", l.split(",\"was\"").next().unwrap())).collect();
    for (text, kind) in [
        (rows(&many), None),
        (rows(&many[..30]), None),
        (rows(&many[..22]), Some("shrunk")),
        (rows(&many), None),
        (rows(&[0.0; 40]), Some("all_zero")),
        (no_features, Some("no_features")),
        (rows(&many), None),
    ] {
        let before = running.kept.publications();
        replace(dir.path(), "rows.jsonl", text);
        running.until("publication", |r| r.kept.publications() > before).await;
        running
            .until(&format!("{kind:?}"), |r| {
                let warnings = r.status("/origins/0/warnings");
                let kinds: Vec<_> = warnings.as_array().unwrap().iter().map(|w| w["kind"].as_str()).collect();
                kinds == kind.map(Some).into_iter().collect::<Vec<_>>()
            })
            .await;
        assert_eq!(running.status("/origins/0/state"), "accepted");
    }
}
