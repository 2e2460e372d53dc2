//! `blissctl demo`: the whole chain, with libblissffi in another process.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use common::scorer;
use serde_json::Value;

mod common;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blissctl"))
        .args(["demo", "--json", "--scorer"])
        .arg(scorer())
        .args(arguments)
        .output()
        .unwrap()
}

/// The object on the last line.
fn figures(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn assert_complete(figures: &Value) {
    let number = |name: &str| figures[name].as_u64().unwrap();
    let unscored: u64 = figures["unscored"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(number("requests"), number("scored") + unscored);
    for ns in ["fetch_ns", "score_ns"] {
        for percentile in ["p50", "p99", "p999"] {
            assert!(figures[ns][percentile].as_u64().unwrap() > 0, "{ns} {percentile}");
        }
    }
}

#[test]
fn made_up_traffic_is_scored_whole_and_nothing_is_left_behind() {
    let folder = |path: &str| -> Vec<_> {
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("bliss-demo-")).collect()
    };
    let before = folder("/dev/shm");
    let figures = figures(&demo(&[]));
    assert_complete(&figures);
    assert_eq!(figures["unscored"], serde_json::json!({}));
    assert_eq!(figures["malformed"], 0);
    assert_eq!(figures["publications"], 900, "one per second of fifteen minutes");
    assert!(figures["auc"].as_f64().unwrap() > 0.9, "{figures}");
    // Demos of other tests have theirs for a moment.
    let left = || folder("/dev/shm").into_iter().filter(|name| !before.contains(name)).collect::<Vec<_>>();
    for _ in 0..1500 {
        if left().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("left behind: {:?}", left());
}

#[test]
fn the_real_log_is_scored_whole() {
    let Some(folder) = std::env::var_os("BLISS_TEST_DATA") else {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: BLISS_TEST_DATA does not name a folder with access.log");
        return;
    };
    let log = Path::new(&folder).join("access.log");
    let figures = figures(&demo(&["--log", log.to_str().unwrap()]));
    assert_complete(&figures);
    assert_eq!(figures["requests"], 5000);
    assert_eq!(figures["unscored"], serde_json::json!({}));
    assert!(figures["auc"].as_f64().unwrap() > 0.8, "{figures}");
    assert_eq!(
        (&figures["from"], &figures["to"]),
        (&"2015-05-17T10:05:00Z".into(), &"2015-05-19T03:05:59Z".into())
    );
}

#[test]
fn broken_lines_are_counted_and_wrong_files_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let line = r#"192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0""#;
    std::fs::write(path("some.log"), format!("{line}\nnonsense\n\n{line}\n")).unwrap();
    let output = demo(&["--log", &path("some.log")]);
    let figures = figures(&output);
    assert_complete(&figures);
    assert_eq!((&figures["requests"], &figures["malformed"]), (&2.into(), &1.into()));
    assert_eq!(figures["auc"], Value::Null, "one kind only");
    assert!(String::from_utf8_lossy(&output.stderr).contains("some.log:2:"));

    std::fs::write(path("empty.log"), "nonsense\n").unwrap();
    std::fs::write(path("cut.cbm"), b"CBM1\x10").unwrap();
    for (arguments, named) in [
        (["--log", &path("absent.log")].as_slice(), "absent.log"),
        (&["--log", &path("empty.log")], "empty.log: no line"),
        (&["--log", &path("some.log"), "--model", &path("cut.cbm")], "cut.cbm"),
    ] {
        let output = demo(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(named), "{error}");
    }
}
