//! Policies as operators meet them: published at the start and on SIGHUP, exceptions and the switch by `blissctl`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use bliss_core::http::HttpRequest;
use bliss_core::policy::source::Action;
use bliss_core::request::Request;
use bliss_store::Client;
use common::{COMMON, Daemon, directory};

mod common;

const FILE: &str = r#"
[[dimension]]
name = "ip"
key = ["ip"]
max_age = "0s"
features = [{ name = "x" }]
[[origin.file]]
name = "rows"
path = "rows.csv"
dimensions = ["ip"]
interval = "20ms"
[[policy]]
name = "default"
deny = [{ name = "admin", path_prefix = ["/admin"] }, { name = "many", when = ["ip.x > 5"], status = 429 }]
[[test]]
name = "the office"
path = "/admin/x"
action = "block"
rule = "admin"
"#;

struct Site {
    dir: tempfile::TempDir,
    client: Client,
}

impl Site {
    fn new() -> Self {
        let dir = directory();
        fs::write(dir.path().join("rows.csv"), "key.ip,updated_at,x\n192.0.2.1,7,1\n192.0.2.9,7,9\n")
            .unwrap();
        let client = Client::open(dir.path().join("shm")).unwrap();
        Self { dir, client }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn start(&mut self) -> Daemon {
        let mut daemon = Daemon::start(self.path(), FILE);
        daemon.until("policies", |d| !d.status()["policy"]["published_at"].is_null());
        daemon.until("rows", |d| d.get("/readyz").unwrap().0 == 200);
        daemon
    }

    /// What becomes of a request, and by which rule or exception.
    fn decide(&mut self, ip: &str, path: &str, agent: &str) -> (Action, String) {
        let id = self.client.names().http().unwrap();
        let mut request = Request::new();
        let http = HttpRequest {
            ip: Some(ip.into()),
            method: Some(b"GET"),
            target: Some(path.as_bytes()),
            user_agent: Some(agent.as_bytes()),
            ..HttpRequest::default()
        };
        request.set_http(&id, http);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
        let decision = self.client.decide(&request, "", now);
        (decision.action, decision.exception.unwrap_or(decision.rule).to_owned())
    }

    /// Waits until a worker decides so.
    fn until(&mut self, daemon: &mut Daemon, ip: &str, path: &str, expected: (Action, &str)) {
        daemon.until(&format!("{ip} {path}: {expected:?}"), |_| {
            let (action, rule) = self.decide(ip, path, "curl/8");
            (action, rule.as_str()) == expected
        });
    }

    fn write(&self, config: &str) {
        fs::write(self.path().join("bliss.toml"), format!("{COMMON}{config}")).unwrap();
    }

    fn ctl(&self, daemon: &Daemon, arguments: &[&str]) -> Output {
        self.ctl_at(daemon.port, arguments)
    }

    fn ctl_at(&self, port: u16, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blissctl"));
        command.args(arguments).arg("--config").arg(self.path().join("bliss.toml"));
        command.arg("--admin").arg(format!("127.0.0.1:{port}")).output().unwrap()
    }

    /// Runs `blissctl`, which must find that the daemon has taken it.
    fn take(&self, daemon: &Daemon, arguments: &[&str]) -> String {
        let output = self.ctl(daemon, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn hang_up(daemon: &Daemon) {
    // SAFETY:
    // - the process is our child and has not been waited for, so its id is still its own
    assert_eq!(unsafe { libc::kill(daemon.child.id() as i32, libc::SIGHUP) }, 0);
}

#[test]
fn s17_sighup_reads_policies_again_and_keeps_the_old_ones_if_the_new_ones_are_bad() {
    let mut site = Site::new();
    let mut daemon = site.start();
    site.until(&mut daemon, "192.0.2.1", "/admin/x", (Action::Block, "admin"));
    site.until(&mut daemon, "192.0.2.9", "/", (Action::Block, "many"));
    assert_eq!(site.decide("192.0.2.1", "/", "a").0, Action::Allow);

    let other = FILE.replace("/admin\"", "/intern\"").replace("/admin/x", "/intern/x");
    site.write(&other);
    hang_up(&daemon);
    site.until(&mut daemon, "192.0.2.1", "/intern", (Action::Block, "admin"));
    assert_eq!(site.decide("192.0.2.1", "/admin/x", "a").0, Action::Allow);

    // Not TOML; a feature that is not there; a test that fails: each is refused, and said once.
    let published = daemon.status()["policies_generation"].clone();
    for (text, reason, said) in [
        (other.replace("[[policy]]", "[[policy"), "undecodable", "bliss.toml, line"),
        (other.replace("ip.x >", "ip.y >"), "undecodable", "rule \\\"many\\\": when: there is no `ip.y`"),
        (other.replace("\"/intern/x\"", "\"/admin/x\""), "tests", "test \\\"the office\\\": expected block"),
    ] {
        site.write(&text);
        hang_up(&daemon);
        daemon.until(said, |d| d.status()["policy"]["refusal"].to_string().contains(said));
        let status = daemon.status();
        assert_eq!(status["policy"]["refusal"]["reason"], reason, "{status}");
        assert_eq!(status["policies_generation"], published);
        let (_, metrics) = daemon.get("/metrics").unwrap();
        assert!(metrics.contains("bliss_policy_refused 1"), "{metrics}");
        assert_eq!(site.decide("192.0.2.1", "/intern", "a"), (Action::Block, "admin".into()));
    }
    let times = daemon.status()["policy"]["refusal"]["times"].as_u64().unwrap();
    hang_up(&daemon);
    daemon.until("the second look", |d| d.status()["policy"]["refusal"]["times"] == times + 1);
    assert_eq!(daemon.said(0, "the office").len(), 1, "it is logged once");

    // Good again; and what only a restart changes is named.
    site.write(&FILE.replace("20ms", "30ms"));
    hang_up(&daemon);
    site.until(&mut daemon, "192.0.2.1", "/admin/x", (Action::Block, "admin"));
    let status = daemon.status();
    assert!(status["policy"]["refusal"].is_null(), "{status}");
    assert_eq!(status["policy"]["restart_for"], serde_json::json!(["origin"]));
    assert!(daemon.get("/metrics").unwrap().1.contains("bliss_policy_refused 0"));
    assert!(daemon.terminate().success());
}

#[test]
fn exceptions_and_the_switch_reach_workers_and_outlive_a_restart_and_a_kill() {
    let mut site = Site::new();
    let mut daemon = site.start();
    site.until(&mut daemon, "192.0.2.1", "/admin", (Action::Block, "admin"));
    site.take(&daemon, &["allow", "192.0.2.1", "--for", "7d", "--reason", "the office"]);
    assert_eq!(site.decide("192.0.2.1", "/admin", "a"), (Action::Allow, "allow 1".into()));
    site.take(&daemon, &["deny", "198.51.100.0/24"]);
    site.take(&daemon, &["challenge", "bad agent/1.0"]);
    assert_eq!(site.decide("198.51.100.7", "/", "a"), (Action::Block, "deny 2".into()));
    assert_eq!(site.decide("192.0.2.2", "/", "bad agent/1.0"), (Action::Challenge, "challenge 3".into()));
    assert_eq!(site.decide("198.51.100.7", "/robots.txt", "a").0, Action::Allow, "it is exempt");

    let listed: serde_json::Value =
        serde_json::from_str(&site.take(&daemon, &["exceptions", "--json"])).unwrap();
    assert_eq!(listed["exceptions"][0]["subject"], "192.0.2.1/32");
    assert_eq!(listed["exceptions"][0]["reason"], "the office");
    let table = site.take(&daemon, &["exceptions"]);
    assert!(table.contains("198.51.100.0/24") && table.contains("bad agent/1.0"), "{table}");
    let labels = fs::read_to_string(site.path().join("state/labels.jsonl")).unwrap();
    assert_eq!(labels.lines().count(), 2, "a challenge is no label: {labels}");

    site.take(&daemon, &["off", "--reason", "a wrong rule"]);
    assert_eq!(site.decide("198.51.100.7", "/", "a"), (Action::Allow, "off".into()));
    assert!(daemon.get("/metrics").unwrap().1.contains("bliss_policy_off 1"));
    assert_eq!(daemon.status()["policy"]["off"]["reason"], "a wrong rule");

    // Off stays off, whatever ends the daemon, and what was published is gone, as after a reboot.
    daemon.kill();
    fs::remove_dir_all(site.path().join("shm")).unwrap();
    site.client = Client::open(site.path().join("shm")).unwrap();
    let mut daemon = site.start();
    site.until(&mut daemon, "198.51.100.7", "/", (Action::Allow, "off"));
    site.take(&daemon, &["on"]);
    assert_eq!(site.decide("198.51.100.7", "/", "a"), (Action::Block, "deny 2".into()));
    assert!(daemon.terminate().success());
    let mut daemon = site.start();
    site.until(&mut daemon, "192.0.2.1", "/admin", (Action::Allow, "allow 1"));

    site.take(&daemon, &["forget", "198.51.100.0/24"]);
    site.take(&daemon, &["forget", "3"]);
    assert_eq!(site.decide("198.51.100.7", "/", "a").0, Action::Allow);
    assert_eq!(site.decide("192.0.2.2", "/", "bad agent/1.0").0, Action::Allow);
    // One that runs out.
    site.take(&daemon, &["deny", "198.51.100.7", "--for", "1s"]);
    site.until(&mut daemon, "198.51.100.7", "/", (Action::Allow, "unscored"));
}

#[test]
fn what_cannot_take_effect_is_said_with_what_to_do() {
    let mut site = Site::new();
    let mut daemon = site.start();
    for (arguments, said) in [
        (&["deny", "192.0.2.300"][..], "192.0.2.300"),
        (&["deny", "192.0.2.1/24"], "192.0.2.0/24"),
        (&["deny", "0.0.0.0/0"], "--wide"),
        (&["allow", "192.0.2.1", "--for", "never"], "--for"),
        (&["forget", "77"], "there is no exception"),
    ] {
        let output = site.ctl(&daemon, arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(said), "{arguments:?}: {told}");
    }
    // A damaged file is said and kept aside, and what was in force stays.
    site.take(&daemon, &["deny", "192.0.2.1"]);
    fs::write(site.path().join("state/overrides.json"), "{\"version\":").unwrap();
    daemon.until("the damage", |d| !d.said(0, "is damaged").is_empty());
    site.until(&mut daemon, "192.0.2.1", "/", (Action::Block, "deny 1"));
    site.take(&daemon, &["deny", "192.0.2.2"]);
    assert_eq!(site.decide("192.0.2.1", "/", "a").0, Action::Block);

    // The rest of the configuration may be broken: the switch works.
    let good = fs::read_to_string(site.path().join("bliss.toml")).unwrap();
    fs::write(site.path().join("bliss.toml"), good + "nonsense = 1\n").unwrap();
    site.take(&daemon, &["off"]);
    assert_eq!(site.decide("192.0.2.1", "/", "a"), (Action::Allow, "off".into()));
    site.take(&daemon, &["on"]);

    // A daemon that hangs, and none.
    // SAFETY:
    // - the process is our child and has not been waited for, so its id is still its own
    assert_eq!(unsafe { libc::kill(daemon.child.id() as i32, libc::SIGSTOP) }, 0);
    for _ in 0..2 {
        let output = site.ctl(&daemon, &["off"]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{told}");
        for part in ["is not in force", "within a second", "restart", "max_heartbeat_age"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
    }
    site.write(FILE);
    let mut daemon = site.start();
    site.until(&mut daemon, "192.0.2.1", "/", (Action::Allow, "off"));
}

#[test]
fn a_reload_that_would_block_too_many_or_what_is_exempt_is_refused() {
    let dir = directory();
    let line = |ip: &str, path: &str| {
        format!("{ip} - - [17/May/2015:10:05:03 +0000] \"GET {path} HTTP/1.1\" 200 1 \"-\" \"x\"\n")
    };
    let log: String = (0..10).map(|n| line(&format!("192.0.2.{n}"), "/")).collect();
    fs::write(dir.path().join("access.log"), log + &line("192.0.2.77", "/healthz")).unwrap();
    let origin = "[[origin.access_log]]\nname = \"l\"\npath = \"access.log\"\n";
    let config = |exempt: &str, deny: &str, gate: &str| {
        format!(
            "{origin}[policy_gate]\n{gate}\n[[policy]]\nname = \"default\"\nexempt = [{{ name = \"health\", path = [\"{exempt}\"] }}]\n\
             deny = [{{ name = \"all\", path_prefix = [\"{deny}\"] }}]\n"
        )
    };
    let mut daemon = Daemon::start(dir.path(), &config("/healthz", "/none", ""));
    daemon.until("policies", |d| !d.status()["policy"]["published_at"].is_null());
    let mut reload = |config: String, expected: &str| {
        let before = daemon.status()["policy"]["read_at"].clone();
        fs::write(dir.path().join("bliss.toml"), format!("{COMMON}{config}")).unwrap();
        hang_up(&daemon);
        daemon.until(expected, |d| {
            let policy = d.status()["policy"].clone();
            match expected {
                "" => policy["read_at"] != before,
                _ => policy["refusal"]["message"].as_str().is_some_and(|message| message.contains(expected)),
            }
        });
        assert_eq!(daemon.status()["policy"]["refusal"]["reason"] == "gate", !expected.is_empty());
    };
    reload(config("/healthz", "/", "hours = 6"), "10 of 11 clients (90.9 %) would newly be blocked");
    reload(
        config("/other", "/healthz", "hours = 6\nmax_newly_blocked_share = 1"),
        "1 requests that are exempt today",
    );
    reload(config("/healthz", "/none", "hours = 6"), "");
    reload(config("/healthz", "/", "hours = 0"), "");
}

#[test]
fn a_failing_test_at_the_start_leaves_what_was_published_and_check_says_so() {
    let mut site = Site::new();
    let mut daemon = site.start();
    site.until(&mut daemon, "192.0.2.1", "/admin", (Action::Block, "admin"));
    assert!(daemon.terminate().success());
    let wrong = FILE.replace("\"/admin/x\"", "\"/public\"").replace("[\"/admin\"]", "[\"/intern\"]");
    let mut daemon = Daemon::start(site.path(), &wrong);
    daemon.until("the refusal", |d| d.status()["policy"]["refusal"]["reason"] == "tests");
    assert_eq!(site.decide("192.0.2.1", "/admin", "a"), (Action::Block, "admin".into()));
    site.take(&daemon, &["off"]);
    assert_eq!(site.decide("192.0.2.1", "/admin", "a").1, "off");

    let mut check = Command::new(common::BINARY);
    let output = check.args(["check", "--config"]).arg(site.path().join("bliss.toml")).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let expected = "test \"the office\": expected block by rule \"admin\", found allow by rule \"unscored\"";
    assert!(!output.status.success() && told.contains(expected), "{told}");
    let line =
        wrong.lines().position(|line| line.contains("the office")).unwrap() + 1 + COMMON.lines().count();
    assert!(told.contains(&format!("bliss.toml, line {line}: test")), "{told}");
}
