//! The daemon as its users meet it: the program, its files, its pages, its exit code.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bliss_core::http::HttpRequest;
use bliss_core::request::Request;
use bliss_core::score::Status;
use bliss_store::Client;
use common::{BINARY, COMMON, Daemon, command, directory, replace, run};

mod common;
#[path = "../fuzz/location_file.rs"]
mod location_file;

const FILE: &str = r#"
[[dimension]]
name = "ip"
key = ["ip"]
max_age = "0s"
features = [{ name = "x", default = -1, max = 100 }]

[[origin.file]]
name = "rows"
path = "rows.csv"
dimensions = ["ip"]
interval = "20ms"
"#;

fn look_up(client: &mut Client, ip: &str) -> Option<(f32, Status)> {
    look_up_at(client, ip, 1_000)
}

fn look_up_at(client: &mut Client, ip: &str, now: u32) -> Option<(f32, Status)> {
    let id = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(id, ip.into());
    let (values, statuses) = client.look_up(&request, now).ok()?;
    Some((values[0], statuses[0]))
}

#[test]
fn a_row_of_a_file_reaches_readers_and_stays_when_the_daemon_ends() {
    let dir = directory();
    let mut client = Client::open(dir.path().join("shm")).unwrap();
    assert_eq!(look_up(&mut client, "192.0.2.1"), None, "nothing is there before the daemon ever ran");
    let mut daemon = Daemon::start(dir.path(), FILE);
    assert_eq!(daemon.get("/readyz").unwrap().0, 503);
    replace(dir.path(), "rows.csv", "key.ip,updated_at,x\n192.0.2.1,7,5\n");
    daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
    // A reader that found nothing looks again at most once a second.
    daemon.until("the row", |_| look_up(&mut client, "192.0.2.1") == Some((5.0, Status::Fresh)));
    assert_eq!(look_up(&mut client, "192.0.2.2"), Some((-1.0, Status::Missing)));

    replace(dir.path(), "rows.csv", "key.ip,updated_at,x\n192.0.2.1,7,500\n");
    daemon.until("the refusal", |d| d.status()["origins"][0]["state"] == "refused");
    assert_eq!(daemon.status()["origins"][0]["last_refusal"]["reason"], "out_of_range");
    let (_, metrics) = daemon.get("/metrics").unwrap();
    // Once or more: a file that was changed a moment ago is read again, since it may have been changed once more.
    let counted = "bliss_origin_refusals_total{origin=\"rows\",reason=\"out_of_range\"} ";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(look_up(&mut client, "192.0.2.1"), Some((5.0, Status::Fresh)), "the last good stays");

    assert!(daemon.terminate().success(), "SIGTERM is a good end");
    assert_eq!(look_up(&mut client, "192.0.2.1"), Some((5.0, Status::Fresh)), "readers go on");
    let mut late = Client::open(dir.path().join("shm")).unwrap();
    assert_eq!(look_up(&mut late, "192.0.2.1"), Some((5.0, Status::Fresh)), "and new ones begin");

    // The bad file is still there: the next daemon goes on from what is published.
    let mut daemon = Daemon::start(dir.path(), FILE);
    assert_eq!(daemon.get("/readyz").unwrap().0, 200);
    daemon.until("the refusal", |d| d.status()["origins"][0]["state"] == "refused");
    assert_eq!(look_up(&mut client, "192.0.2.1"), Some((5.0, Status::Fresh)));
    replace(dir.path(), "rows.csv", "key.ip,updated_at,x\n192.0.2.1,7,6\n");
    daemon.until("the new row", |_| look_up(&mut late, "192.0.2.1").unwrap().0 == 6.0);
    assert_eq!(look_up(&mut client, "192.0.2.1"), Some((6.0, Status::Fresh)), "readers of before too");
}

#[test]
fn p7_networks_of_a_file_reach_readers_and_a_bad_one_leaves_the_last_good() {
    let config = FILE.replace("key = [\"ip\"]", "key = [\"ip\"]\nmatch = \"longest_prefix\"");
    let dir = directory();
    let mut client = Client::open(dir.path().join("shm")).unwrap();
    let mut daemon = Daemon::start(dir.path(), &config);
    let text = "key.ip,updated_at,x\n192.0.2.0/24,7,5\n192.0.2.128/25,7,6\n2001:db8::/32,7,7\n";
    replace(dir.path(), "rows.csv", text);
    daemon.until("the rows", |_| look_up(&mut client, "192.0.2.1") == Some((5.0, Status::Fresh)));
    for (address, expected) in [
        ("192.0.2.129", (6.0, Status::Fresh)),
        ("::ffff:192.0.2.129", (6.0, Status::Fresh)),
        ("2001:db8:1::1", (7.0, Status::Fresh)),
        ("198.51.100.1", (-1.0, Status::Missing)),
        ("unknown", (-1.0, Status::Absent)),
    ] {
        assert_eq!(look_up(&mut client, address), Some(expected), "{address}");
    }
    assert_eq!(daemon.status()["features"]["dimensions"][0]["rows"], 3);

    replace(dir.path(), "rows.csv", "key.ip,updated_at,x\n192.0.2.1/24,7,5\n");
    daemon.until("the refusal", |d| d.status()["origins"][0]["state"] == "refused");
    let refusal = daemon.status()["origins"][0]["last_refusal"].clone();
    assert_eq!(refusal["reason"], "bad_key");
    assert!(refusal["message"].as_str().unwrap().contains("the network is 192.0.2.0/24"), "{refusal}");
    assert_eq!(look_up(&mut client, "192.0.2.129"), Some((6.0, Status::Fresh)), "the last good stays");

    // The next daemon has another feature: networks stay, and the new column has its default.
    assert!(daemon.terminate().success());
    let wider = config.replace("max = 100 }", "max = 100 }, { name = \"y\", default = 8 }");
    let mut daemon = Daemon::start(dir.path(), &wider);
    replace(dir.path(), "rows.csv", "key.ip,updated_at,x,y\n192.0.2.0/24,7,9,10\n");
    daemon.until("the new row", |_| look_up(&mut client, "192.0.2.129") == Some((9.0, Status::Fresh)));
}

/// Three lines of configuration make the feature, without a declaration.
#[test]
fn hosting_networks_reach_readers() {
    let config =
        "[[origin.list]]\nname = \"lists\"\nsource = [{ feature = \"hosting\", path = \"location.db\" }]\n";
    let dir = directory();
    fs::write(dir.path().join("location.db"), location_file::example()).unwrap();
    let mut client = Client::open(dir.path().join("shm")).unwrap();
    // Rows are dated when the list was read.
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let mut daemon = Daemon::start(dir.path(), config);
    daemon.until("the list", |_| look_up_at(&mut client, "10.1.0.1", now()) == Some((1.0, Status::Fresh)));
    for (address, expected) in [
        ("10.0.0.1", (0.0, Status::Fresh)),
        ("::ffff:10.1.0.1", (1.0, Status::Fresh)),
        ("2001:db8::1", (1.0, Status::Fresh)),
        ("192.0.2.1", (0.0, Status::Missing)),
    ] {
        assert_eq!(look_up_at(&mut client, address, now()), Some(expected), "{address}");
    }
    let status = daemon.status();
    assert_eq!(status["origins"][0]["lists"][0]["networks"], 3, "{status}");
    assert!(daemon.terminate().success());
}

#[test]
fn s6_a_killed_daemon_loses_nothing_that_was_published() {
    let dir = directory();
    fs::write(dir.path().join("rows.csv"), "key.ip,updated_at,x\n192.0.2.1,7,5\n").unwrap();
    let mut daemon = Daemon::start(dir.path(), FILE);
    daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let mut client = Client::open(dir.path().join("shm")).unwrap();
    assert_eq!(look_up(&mut client, "192.0.2.1"), Some((5.0, Status::Fresh)));
    let daemon = Daemon::start(dir.path(), FILE);
    assert_eq!(daemon.get("/readyz").unwrap().0, 200);
}

#[test]
fn a_second_daemon_on_the_same_directory_is_told_so() {
    let dir = directory();
    let daemon = Daemon::start(dir.path(), FILE);
    let second = dir.path().join("second.toml");
    fs::copy(dir.path().join("bliss.toml"), &second).unwrap();
    let (status, said) = run(&second);
    assert!(!status.success());
    assert!(said.contains("another daemon publishes to it"), "{said}");
    assert!(said.contains("shm"), "{said}");
    assert_eq!(daemon.get("/healthz").unwrap().0, 200, "the first one goes on");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = directory();
    let config = dir.path().join("bliss.toml");
    let cases =
        [("\"/proc/bliss\"", "/proc/bliss"), ("\"no/such/folder\"", "no/such/folder"), ("\"file\"", "file")];
    fs::write(dir.path().join("file"), "").unwrap();
    for (directory, expected) in cases {
        let text = format!("directory = {directory}\nadmin.listen = \"127.0.0.1:0\"\n{FILE}");
        fs::write(&config, text).unwrap();
        let (status, said) = run(&config);
        assert!(!status.success(), "{directory}");
        assert!(said.contains("directory") && said.contains(expected), "{directory}: {said}");
    }
    // Root may write anywhere.
    // SAFETY:
    // - the call has no preconditions
    if unsafe { libc::geteuid() } != 0 {
        use std::os::unix::fs::PermissionsExt;
        let locked = dir.path().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
        fs::write(&config, format!("directory = \"locked\"\n{FILE}")).unwrap();
        let (status, said) = run(&config);
        assert!(!status.success() && said.contains("locked"), "{said}");
    } else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: part of a_directory_that_cannot_be_written_is_named: running as root"
        );
    }
}

#[test]
fn a_bad_configuration_ends_it_with_file_line_and_option() {
    let dir = directory();
    let config = dir.path().join("bliss.toml");
    fs::write(&config, format!("directory = \"shm\"\n{}", FILE.replace("max_age", "max_aeg"))).unwrap();
    for subcommand in ["run", "check"] {
        let output = Command::new(BINARY).args([subcommand, "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains("bliss.toml, line 6") && said.contains("max_aeg"), "{said}");
    }
    assert!(!dir.path().join("shm").exists(), "nothing was made");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = dir.path().join("bliss.toml");
    fs::write(&config, format!("directory = \"shm\"\nadmin.listen = \"{address}\"\n{FILE}")).unwrap();
    let (status, said) = run(&config);
    assert!(!status.success());
    assert!(said.contains("admin.listen") && said.contains(&address.to_string()), "{said}");
}

#[test]
fn traffic_becomes_features_through_rotation_and_restart() {
    let dir = directory();
    let log = dir.path().join("access.log");
    let line = |ip: &str| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        format!(
            "{{\"msec\":{now:.3},\"remote_addr\":\"{ip}\",\"status\":200,\"request\":\"GET / HTTP/1.1\",\
             \"http_user_agent\":\"curl/8\"}}\n"
        )
    };
    let append = |path: &Path, text: &str| {
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    };
    let config = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\nwindows = true\n";
    append(&log, &line("192.0.2.1"));
    let mut daemon = Daemon::start(dir.path(), config);
    let mut client = Client::open(dir.path().join("shm")).unwrap();
    let requests = |client: &mut Client, ip: &str| look_up_now(client, ip);
    let mut reader = Client::open(dir.path().join("shm")).unwrap();
    wait(&mut daemon, || requests(&mut client, "192.0.2.1") == Some(1.0));

    append(&log, &line("192.0.2.1"));
    fs::rename(&log, dir.path().join("access.log.1")).unwrap();
    append(&dir.path().join("access.log.1"), &line("192.0.2.1"));
    append(&log, &line("192.0.2.2"));
    wait(&mut daemon, || {
        requests(&mut client, "192.0.2.1") == Some(3.0) && requests(&mut client, "192.0.2.2") == Some(1.0)
    });

    // The next daemon fills its windows from what the log and the rotated one hold.
    append(&log, &line("192.0.2.2"));
    assert!(daemon.terminate().success());
    let mut daemon = Daemon::start(dir.path(), config);
    wait(&mut daemon, || requests(&mut reader, "192.0.2.2") == Some(2.0));
    assert_eq!(requests(&mut reader, "192.0.2.1"), Some(3.0));
}

fn wait(daemon: &mut Daemon, mut done: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain: {:?}", daemon.get("/status"));
}

/// `ip.requests_1m` of an address, if it has a row.
fn look_up_now(client: &mut Client, ip: &str) -> Option<f32> {
    let id = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(id, ip.into());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32;
    let (values, statuses) = client.look_up(&request, now).ok()?;
    (statuses[0] == Status::Fresh).then_some(values[0])
}

#[test]
fn models_are_published_and_a_broken_one_is_a_metric() {
    let dir = directory();
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/scale_bias.cbm");
    fs::copy(good, dir.path().join("m.cbm")).unwrap();
    fs::write(dir.path().join("rows.csv"), "key.ip,updated_at,x\n192.0.2.1,7,5\n").unwrap();
    let config = format!("{FILE}\n[[model]]\nname = \"m\"\nversion = \"3\"\npath = \"m.cbm\"\n");
    let mut daemon = Daemon::start(dir.path(), &config);
    daemon.until("models", |d| !d.status()["models_generation"].is_null());
    let published = daemon.status()["models_generation"].clone();
    fs::write(dir.path().join("m.cbm"), "CBM1").unwrap();
    daemon.until("the refusal", |d| d.status()["models"][0]["refusal"].is_object());
    let (_, metrics) = daemon.get("/metrics").unwrap();
    assert!(metrics.contains("bliss_model_refused{model=\"m\"} 1"), "{metrics}");
    assert_eq!(daemon.status()["models_generation"], published);
    let output =
        Command::new(BINARY).args(["check", "--config"]).arg(dir.path().join("bliss.toml")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("model `m`"), "{said}");
}

#[test]
fn s6_sigterm_ends_it_while_an_origin_hangs() {
    let dir = directory();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let http = FILE
        .replace("[[origin.file]]", "[[origin.http]]")
        .replace("interval = \"20ms\"\n", "timeout = \"1h\"\n");
    let http = http.replace("path = \"rows.csv\"", &format!("url = \"http://127.0.0.1:{port}/rows.csv\""));
    let daemon = Daemon::start(dir.path(), &http);
    let (_connection, _) = silent.accept().unwrap();
    assert!(daemon.terminate().success());
}

#[test]
fn signals_that_other_daemons_reload_on_do_not_end_it() {
    let dir = directory();
    let mut daemon = Daemon::start(dir.path(), FILE);
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP] {
        // SAFETY:
        // - the process is our child and has not been waited for, so its id is still its own
        assert_eq!(unsafe { libc::kill(daemon.child.id() as i32, signal) }, 0);
        std::thread::sleep(Duration::from_millis(50));
        assert!(daemon.child.try_wait().unwrap().is_none(), "signal {signal} ended it");
    }
    replace(dir.path(), "rows.csv", "key.ip,updated_at,x\n192.0.2.1,7,5\n");
    daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
    assert!(daemon.terminate().success());
}

#[test]
fn without_origins_it_waits_for_its_end() {
    let dir = directory();
    let daemon = Daemon::start(dir.path(), "");
    assert_eq!(daemon.get("/healthz").unwrap().0, 200);
    assert_eq!(daemon.get("/readyz").unwrap().0, 503);
    assert!(daemon.terminate().success());
}

#[test]
fn the_log_can_be_json() {
    let dir = directory();
    let config = dir.path().join("bliss.toml");
    let text = format!("{COMMON}log.format = \"json\"\n{FILE}");
    fs::write(&config, text).unwrap();
    let mut child = command(&config).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let refused = lines.find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        (line["level"] == "ERROR").then_some(line)
    });
    let _ = child.kill();
    child.wait().unwrap();
    let refused = refused.unwrap();
    assert_eq!((&refused["origin"], &refused["reason"]), (&"rows".into(), &"unavailable".into()));
}

#[test]
fn features_are_exported() {
    let dir = directory();
    let log = dir.path().join("log");
    let line = "192.0.2.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"x\"\n";
    fs::write(&log, line.repeat(3)).unwrap();
    let output = Command::new(BINARY).args(["features", "--out", "-", "--log"]).arg(&log).output().unwrap();
    assert!(output.status.success());
    let rows = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rows.lines().count(), 4);
    assert!(rows.starts_with("time,line,ip,user_agent,"), "{rows}");
}

#[test]
fn without_a_model_the_one_that_comes_with_bliss_answers() {
    let dir = directory();
    fs::write(dir.path().join("access.log"), "").unwrap();
    let log = "[[origin.access_log]]\nname = \"traffic\"\npath = \"access.log\"\nwindows = true\n";
    let mut daemon = Daemon::start(dir.path(), log);
    daemon.until("models", |d| !d.status()["models_generation"].is_null());
    let mut client = Client::open(dir.path().join("shm")).unwrap();
    let id = client.names().http().unwrap();
    let mut request = Request::new();
    request.set_http(
        &id,
        HttpRequest {
            ip: Some("192.0.2.1".into()),
            method: Some(b"GET"),
            target: Some(b"/.env"),
            host: Some(b"shop.example"),
            referrer: Some(b""),
            user_agent: Some(b"curl/8"),
            ..HttpRequest::default()
        },
    );
    let mut score = None;
    daemon.until("a score", |_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
        score = client.score(&request, "", now).outcome.ok();
        score.is_some()
    });
    assert!(score.unwrap().score < 50, "{score:?}");
    assert_eq!(client.scorer().models().models()[0].name(), "default");
}
