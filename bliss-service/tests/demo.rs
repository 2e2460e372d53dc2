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

/// Nobody knows who sent the requests of a log.
fn assert_no_labels(figures: &Value) {
    assert!(figures.get("auc").is_none() && figures.get("groups").is_none(), "{figures}");
    assert!(!figures["clients"].as_array().unwrap().is_empty(), "{figures}");
}

#[test]
fn the_table_says_what_is_known_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("some.log");
    let line = r#"192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0""#;
    std::fs::write(&log, format!("{line}\n")).unwrap();
    let text = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blissctl"));
        let output = command.args(["demo", "--scorer"]).arg(scorer()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let real = text(&["--log", log.to_str().unwrap()]);
    assert!(real.contains("Nobody has labelled this log") && !real.contains("AUC"), "{real}");
    assert!(real.lines().any(|line| line.contains("192.0.2.1") && line.ends_with("curl/8.0")), "{real}");
    let made_up = text(&[]);
    let has_line = |start: &str| made_up.lines().any(|line| line.trim_start().starts_with(start));
    for group in
        ["people", "crawlers", "monitors", "scrapers", "scanners", "password guessers", "all but people"]
    {
        assert!(has_line(group), "{group} in {made_up}");
    }
    for text in [real, made_up] {
        assert!(text.contains("before it blocks anybody"), "{text}");
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
    let groups = figures["groups"].as_array().unwrap();
    let names: Vec<_> = groups.iter().map(|group| group["group"].as_str().unwrap()).collect();
    assert_eq!(names, ["people", "crawlers", "monitors", "scrapers", "scanners", "password guessers"]);
    let sum: u64 = groups.iter().map(|group| group["requests"].as_u64().unwrap()).sum();
    assert_eq!(figures["requests"], sum, "every request is somebody's");
    for group in groups {
        assert!(group["median_score"].as_u64().unwrap() > 0 && group["addresses"].as_u64().unwrap() > 0);
        assert!((0.0..=1.0).contains(&group["share_below_30"].as_f64().unwrap()), "{group}");
        assert_eq!(group["group"] == "people", group.get("auc").is_none(), "people are not told from people");
    }
    assert!((0.0..=1.0).contains(&figures["auc"].as_f64().unwrap()), "{figures}");
    assert_eq!(figures.get("clients"), None);
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
    assert_no_labels(&figures);
    let clients = figures["clients"].as_array().unwrap();
    assert_eq!(
        (clients.len(), &clients[0]["requests"], &clients[0]["ip"]),
        (20, &266.into(), &"75.97.9.59".into())
    );
    let sizes: Vec<_> = clients.iter().map(|client| client["requests"].as_u64().unwrap()).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
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
    assert_no_labels(&figures);
    let client = &figures["clients"][0];
    assert_eq!((&client["ip"], &client["user_agent"]), (&"192.0.2.1".into(), &"curl/8.0".into()));
    assert_eq!((&client["requests"], &client["scored"]), (&2.into(), &2.into()));
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
