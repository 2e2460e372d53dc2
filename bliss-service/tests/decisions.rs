//! The log of decisions of a running daemon: what was not let through, and why.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Daemon, directory};

mod common;

fn write(log: &Path, ip: &str, status: u16, more: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut file = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    writeln!(
        file,
        "{{\"msec\":{}.{:03},\"remote_addr\":\"{ip}\",\"request_method\":\"GET\",\"request_uri\":\"/login\",\"status\":{status},\
         \"http_referer\":\"-\",\"http_user_agent\":\"curl/8\"{more}}}",
        now / 1000,
        now % 1000
    )
    .unwrap();
}

fn ctl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_blissctl")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn a_request_that_was_blocked_is_explained() {
    let dir = directory();
    let log = dir.path().join("access.log");
    write(&log, "192.0.2.1", 200, "");
    let config = "[[origin.access_log]]\nname = \"traffic\"\npath = \"access.log\"\n";
    let mut daemon = Daemon::start(dir.path(), config);
    daemon.until("features and models", |daemon| {
        let status = daemon.status();
        status["features"]["generation"].is_u64() && status["models_generation"].is_u64()
    });
    let decided = ",\"bliss_request_id\":\"5f1e\",\"bliss_action\":\"block\",\"bliss_rule\":\"robots\",\"bliss_score\":\"7\"";
    write(&log, "192.0.2.7", 403, decided);
    write(&log, "192.0.2.8", 200, ",\"bliss_request_id\":\"5f1f\",\"bliss_action\":\"allow\"");

    let config = dir.path().join("bliss.toml");
    let config = config.to_str().unwrap();
    daemon.until("the decision", |daemon| {
        daemon.get("/metrics").is_some_and(|(_, text)| text.contains("\nbliss_decisions_written_total 1\n"))
    });
    let (succeeded, text) = ctl(&["explain", "5f1e", "--config", config]);
    assert!(succeeded, "{text}");
    for part in [
        "192.0.2.7  GET /login\n",
        "block by rule robots, answered with 403",
        "score 7 by",
        "request.no_referrer",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let (succeeded, text) = ctl(&["decisions", "--config", config]);
    assert!(succeeded && text.starts_with("1 decisions from ") && text.contains("192.0.2.7"), "{text}");
    let (_, json) = ctl(&["decisions", "--json", "--rule", "robots", "--config", config]);
    let decision: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(decision["score"], 7);
    assert!(decision["explanation"]["inputs"].as_array().is_some_and(|inputs| inputs.len() == 5), "{json}");
    // What was let through is not in it.
    let (succeeded, text) = ctl(&["explain", "5f1f", "--config", config]);
    assert!(!succeeded && text.contains("none of the 1 decisions"), "{text}");
}
