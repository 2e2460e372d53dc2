use std::collections::HashMap;
use std::fs;

use super::*;

fn export(log: &Path, config: Option<&Path>) -> (Exported, Vec<HashMap<String, String>>) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("rows.csv");
    let options = Options {
        log: vec![log.to_owned()],
        rewrite: None,
        out: out.clone(),
        config: config.map(Path::to_owned),
        list: Vec::new(),
        interval_seconds: 1,
    };
    let exported = run(&options).unwrap();
    let mut reader = csv::Reader::from_path(out).unwrap();
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows = reader.records().map(|record| {
        header.iter().cloned().zip(record.unwrap().iter().map(str::to_owned)).collect::<HashMap<_, _>>()
    });
    (exported, rows.collect())
}

fn line(second: u32, ip: &str, agent: &str) -> String {
    format!("{ip} - - [17/May/2015:10:05:{second:02} +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"{agent}\"\n")
}

#[test]
fn d1_rows_hold_what_was_published_before_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let lines = [
        line(3, "192.0.2.1", "a"),
        line(1, "192.0.2.1", "a"),
        "broken\n".to_owned(),
        line(1, "192.0.2.1", "b, \\x22quoted\\x22"),
        line(4, "192.0.2.2", "-"),
    ];
    fs::write(&log, lines.concat()).unwrap();
    let (exported, rows) = export(&log, None);
    assert_eq!((exported.log.requests, exported.log.malformed, rows.len()), (4, 1, 4));
    let column = |name: &str| rows.iter().map(|row| row[name].as_str()).collect::<Vec<_>>();
    assert_eq!(column("line"), ["2", "4", "1", "5"]);
    assert_eq!(column("time")[0], "1431857101");
    assert_eq!(column("user_agent")[1], "b, \"quoted\"");
    assert_eq!(column("ip.status"), ["missing", "missing", "fresh", "missing"]);
    assert_eq!(column("ip.requests_1m"), ["0", "0", "2", "0"]);
    assert_eq!(column("ip.unique_user_agents_1m"), ["0", "0", "2", "0"]);
    assert_eq!(column("ip.seconds_between_requests_1m"), ["60", "60", "0", "60"]);
    assert_eq!(column("subnet.requests_5m"), ["0", "0", "2", "3"]);
    assert_eq!(column("subnet.unique_ips_5m"), ["0", "0", "1", "1"]);
    assert_eq!(column("ip_user_agent.requests_1h"), ["0", "0", "1", "0"]);
    assert_eq!(column("user_agent.status"), ["missing", "missing", "fresh", "absent"]);
    // What is remembered is of earlier intervals too.
    assert_eq!(column("ip.requests_session"), ["0", "0", "2", "0"]);
    assert_eq!(column("user_agent.asset_share_h7d"), ["-1", "-1", "0", "-1"]);
    assert_eq!(column("subnet16.unique_ips_7d"), ["0", "0", "1", "1"]);
    assert_eq!(column("path.unique_ips_7d"), ["0", "0", "1", "1"]);
    assert_eq!(rows[0].len(), 11 + 15 + 7 + 132 + 28 + 1);
}

#[test]
fn several_files_are_one_log_and_agents_can_be_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let mut old =
        flate2::write::GzEncoder::new(fs::File::create(file("old.gz")).unwrap(), Default::default());
    std::io::Write::write_all(&mut old, (line(1, "192.0.2.1", "robot") + "\n\n").as_bytes()).unwrap();
    old.finish().unwrap();
    let new = [line(2, "192.0.2.1", "robot"), line(3, "192.0.2.1", "robot"), line(4, "192.0.2.2", "a")];
    fs::write(file("new"), new.concat()).unwrap();
    // Of the first file the lines are 1 to 3.
    fs::write(file("rewrite.csv"), "line,user_agent,referrer\n1,\\x4DASK,\n4,robot,http://r.example/\n5,,\n")
        .unwrap();
    let options = Options {
        log: vec![file("old.gz"), file("new")],
        out: file("rows.csv"),
        config: None,
        list: Vec::new(),
        rewrite: Some(file("rewrite.csv")),
        interval_seconds: 1,
    };
    run(&options).unwrap();
    let mut rows = csv::Reader::from_path(file("rows.csv")).unwrap();
    let rows: Vec<std::collections::HashMap<String, String>> =
        rows.deserialize().map(Result::unwrap).collect();
    let column = |name: &str| rows.iter().map(|row| row[name].as_str()).collect::<Vec<_>>();
    assert_eq!(column("line"), ["1", "4", "6"]);
    assert_eq!(column("user_agent"), ["MASK", "robot", "a"]);
    assert_eq!(column("referrer")[1], "http://r.example/");
    assert_eq!(column("ip.requests_1m"), ["0", "1", "0"]);
    assert_eq!(column("user_agent.requests_1m"), ["0", "0", "0"]);
    assert_eq!(column("subnet.requests_1m"), ["0", "1", "2"], "the line that is left out counts nowhere");

    fs::write(file("rewrite.csv"), "user_agent\nx\n").unwrap();
    let error = format!("{:#}", run(&options).unwrap_err());
    assert!(
        error.contains("--rewrite: ") && error.contains("expected the columns line and user_agent"),
        "{error}"
    );
}

#[test]
fn dimensions_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, line(1, "192.0.2.1", "a") + &line(2, "192.0.2.1", "a")).unwrap();
    let config = dir.path().join("bliss.toml");
    let text = r#"
        directory = "unused"
        [[dimension]]
        name = "reputation"
        key = ["ip"]
        features = [{ name = "score" }]
        [[dimension]]
        name = "path"
        key = ["path", "method"]
        features = [{ name = "requests_5m", default = -1 }]
        [[origin.file]]
        name = "reputation"
        path = "r.csv"
        dimensions = ["reputation"]
        [[origin.access_log]]
        name = "log"
        path = "unused"
        dimensions = ["path"]
    "#;
    fs::write(&config, text).unwrap();
    let (_, rows) = export(&log, Some(&config));
    let column = |name: &str| rows.iter().map(|row| row[name].as_str()).collect::<Vec<_>>();
    assert_eq!(column("path.requests_5m"), ["-1", "1"]);
    assert!(!rows[0].contains_key("reputation.score"), "no log has it");
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let options = |log: &str, out: &str| Options {
        log: vec![dir.path().join(log)],
        rewrite: None,
        out: dir.path().join(out),
        config: None,
        list: Vec::new(),
        interval_seconds: 1,
    };
    let error = |log, out| format!("{:#}", run(&options(log, out)).unwrap_err());
    assert!(error("none", "out").contains("--log"), "{}", error("none", "out"));
    fs::write(dir.path().join("log"), line(1, "192.0.2.1", "a")).unwrap();
    assert!(error("log", "no/out").contains("--out"), "{}", error("log", "no/out"));
}

#[test]
fn the_real_log_is_exported_whole() {
    let Some(path) = crate::test_support::real_log("the_real_log_is_exported_whole") else { return };
    let (exported, rows) = export(&path, None);
    assert_eq!((rows.len(), exported.log.malformed), (5000, 0));
    let fresh = rows.iter().filter(|row| row["ip.status"] == "fresh").count();
    assert!(fresh > 1000, "{fresh}");
    assert!(rows.iter().all(|row| row["ip.status"] != "stale"));
}

#[test]
fn bytes_that_are_no_utf8_come_back_from_a_strict_reader() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let at = "[25/Nov/2026:10:00:00 +0000]";
    let lines = [
        format!(r#"192.0.2.1 - - {at} "GET /p HTTP/1.1" 200 12 "-" "F\xFAtbol/1.0""#).into_bytes(),
        format!(r#"192.0.2.2 - - {at} "GET /caf\xE9 HTTP/1.1" 200 12 "-" "UA""#).into_bytes(),
        format!(r#"192.0.2.3 - - {at} "GET /p HTTP/1.1" 200 12 "-" "ok""#).into_bytes(),
        [format!(r#"192.0.2.4 - - {at} "GET /raw"#).as_bytes(), b"\xff HTTP/1.1\" 200 12 \"-\" \"\xc3(\""]
            .concat(),
    ];
    fs::write(&log, lines.map(|line| [line, b"\n".to_vec()].concat()).concat()).unwrap();
    // `export` reads UTF-8 or fails.
    let (_, rows) = export(&log, None);
    let column = |name: &str| rows.iter().map(|row| text::unescape(&row[name])).collect::<Vec<_>>();
    let agents: [&[u8]; 4] = [b"F\xfatbol/1.0", b"UA", b"ok", b"\xc3("];
    let paths: [&[u8]; 4] = [b"/p", b"/caf\xe9", b"/p", b"/raw\xff"];
    assert_eq!(
        (column("user_agent"), column("path")),
        (agents.map(Vec::from).into(), paths.map(Vec::from).into())
    );
    assert_eq!(rows[1]["path"], r"/caf\xE9");
}

/// The escape is the rows' alone: a client that sends the text of an escape is another one than who sends the byte.
#[test]
fn keys_are_made_of_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let agents = [r"F\xFAtbol", r"F\x5CxFAtbol", r"F\xFAtbol", r"F\x5CxFAtbol"];
    let lines = (1..).zip(agents).map(|(second, agent)| line(second, "192.0.2.1", agent));
    fs::write(&log, lines.collect::<String>()).unwrap();
    let (_, rows) = export(&log, None);
    let column = |name: &str| rows.iter().map(|row| row[name].as_str()).collect::<Vec<_>>();
    assert_eq!(column("user_agent"), [r"F\xFAtbol", r"F\x5CxFAtbol", r"F\xFAtbol", r"F\x5CxFAtbol"]);
    assert_eq!(column("user_agent.requests_1m"), ["0", "0", "1", "1"]);
    assert_eq!(column("ip.unique_user_agents_1m"), ["0", "1", "2", "2"]);
}

mod files;

mod lists;
