//! Verified crawlers as an operator has them: a daemon that follows a log, DNS servers on loopback, and a worker that decides.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bliss_core::http::HttpRequest;
use bliss_core::policy::source::Action;
use bliss_core::request::Request;
use bliss_store::Client;
use common::dns::{Dns, Says};
use common::{Daemon, directory};

mod common;

const GOOGLE: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const GPT: &str =
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)";

const POLICY: &str = r#"
[[policy]]
name = "default"
deny = [{ name = "fakes", crawler_state = ["fake"], status = 404 }]
crawler = [{ name = "no training", crawler_category = ["ai_training"], action = "block" }]
band = [{ name = "whoever has a score", below = 100, action = "challenge" }]
[[test]]
name = "a fake is denied"
features = { "crawler.state" = "fake" }
score = 90
action = "block"
rule = "fakes"
[[test]]
name = "a crawler that is verified is allowed"
features = { "crawler.state" = "verified" }
score = 1
action = "allow"
rule = "verified crawler"
"#;

struct Site {
    dir: tempfile::TempDir,
    client: Client,
}

impl Site {
    fn new() -> Self {
        let dir = directory();
        fs::write(dir.path().join("access.log"), "").unwrap();
        let client = Client::open(dir.path().join("shm")).unwrap();
        Self { dir, client }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn start(&self, dns: &Dns, options: &str) -> Daemon {
        let config = format!(
            "[[origin.access_log]]\nname = \"traffic\"\npath = \"access.log\"\n{POLICY}\n[crawlers]\nenabled = true\n\
             resolvers = [\"{}\"]\ntimeout = \"200ms\"\nattempts = 1\n{options}",
            dns.address
        );
        let mut daemon = Daemon::start(self.path(), &config);
        daemon.until("policies", |d| !d.status()["policy"]["published_at"].is_null());
        daemon.until("features", |d| d.get("/readyz").unwrap().0 == 200);
        daemon
    }

    /// A request, as the server logs it.
    fn log(&self, ip: &str, agent: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let line = serde_json::json!({
            "msec": now, "remote_addr": ip, "status": 200, "request": "GET / HTTP/1.1", "http_user_agent": agent,
        });
        let mut log = OpenOptions::new().append(true).open(self.path().join("access.log")).unwrap();
        writeln!(log, "{line}").unwrap();
    }

    /// What becomes of a request, and by which rule.
    fn decide(&mut self, ip: &str, agent: &str) -> (Action, String) {
        let id = self.client.names().http().unwrap();
        let mut request = Request::new();
        let http = HttpRequest {
            ip: Some(ip.into()),
            method: Some(b"GET"),
            target: Some(b"/"),
            user_agent: Some(agent.as_bytes()),
            ..HttpRequest::default()
        };
        request.set_http(&id, http);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
        let decision = self.client.decide(&request, "", now);
        (decision.action, decision.rule.to_owned())
    }

    /// Waits until a worker decides so.
    fn until(&mut self, daemon: &mut Daemon, ip: &str, agent: &str, expected: (Action, &str)) {
        daemon.until(&format!("{ip} {agent}: {expected:?}"), |_| {
            let (action, rule) = self.decide(ip, agent);
            (action, rule.as_str()) == expected
        });
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blissctl"));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn crawlers(daemon: &Daemon) -> serde_json::Value {
    daemon.status()["crawlers"].clone()
}

#[test]
fn p8_a_crawler_is_allowed_whatever_its_score_and_a_fake_is_told() {
    let dns = Dns::start();
    dns.honest("192.0.2.1", "crawl-192-0-2-1.googlebot.com");
    dns.say_of("192.0.2.2", Says::Names(vec!["crawl-192-0-2-1.googlebot.com".into()]));
    dns.say_of("192.0.2.3", Says::Names(vec!["googlebot.com.evil.example".into()]));
    let mut site = Site::new();
    fs::write(site.path().join("gptbot.json"), r#"{"prefixes": [{"ipv4Prefix": "198.51.100.0/24"}]}"#)
        .unwrap();
    let ranges = "ranges = [{ crawler = \"GPTBot\", path = \"gptbot.json\", interval = \"50ms\" }]\n";
    let mut daemon = site.start(&dns, ranges);
    let scored = (Action::Challenge, "whoever has a score");
    site.until(&mut daemon, "192.0.2.1", GOOGLE, scored);

    let began = Instant::now();
    for ip in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "10.0.0.1"] {
        site.log(ip, GOOGLE);
    }
    for ip in ["198.51.100.7", "203.0.113.7"] {
        site.log(ip, GPT);
    }
    // Another name for them, the first address, no name at all; and networks.
    for ip in ["192.0.2.2", "192.0.2.3", "192.0.2.4"] {
        site.until(&mut daemon, ip, GOOGLE, (Action::Block, "fakes"));
    }
    println!("fakes were told after {:?}, with an interval of 100 ms", began.elapsed());
    site.until(&mut daemon, "192.0.2.1", GOOGLE, (Action::Allow, "verified crawler"));
    site.until(&mut daemon, "203.0.113.7", GPT, (Action::Block, "fakes"));
    site.until(&mut daemon, "198.51.100.7", GPT, (Action::Block, "no training"));
    // It is the client with that agent that is known: not the address, nor another crawler.
    assert_eq!(site.decide("192.0.2.2", "curl/8").1, scored.1);
    assert_eq!(site.decide("192.0.2.1", GPT).1, scored.1);
    // An address of the own network stays as it is, and nobody is asked about it.
    daemon.until("all states", |d| {
        let found = crawlers(d);
        (&found["claimed"], &found["verified"], &found["fake"]) == (&1.into(), &2.into(), &4.into())
    });
    assert_eq!(site.decide("10.0.0.1", GOOGLE).1, scored.1);
    assert!(dns.questions().iter().all(|name| !name.starts_with("1.0.0.10.")), "{:?}", dns.questions());

    let metrics = daemon.get("/metrics").unwrap().1;
    for line in [
        "bliss_crawler_clients{state=\"verified\"} 2",
        "bliss_crawler_verdicts_total{crawler=\"Googlebot\",verdict=\"fake\"} 3",
        "bliss_crawler_dns_failures_total 0",
        "bliss_list_networks{origin=\"crawlers\",list=\"GPTBot\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    let shm = site.path().join("shm");
    let told = site.ctl(&[
        "explain",
        "--ip",
        "192.0.2.3",
        "--user-agent",
        GOOGLE,
        "--directory",
        shm.to_str().unwrap(),
    ]);
    assert!(told.contains("crawler: fake"), "{told}");

    // What was published stays over a restart, and clients are asked about again when they come.
    assert!(daemon.terminate().success());
    let asked = dns.questions().len();
    let mut daemon = site.start(&dns, ranges);
    assert_eq!(site.decide("192.0.2.1", GOOGLE).1, "verified crawler");
    assert_eq!(dns.questions().len(), asked);
    dns.say("crawl-192-0-2-1.googlebot.com", Says::Addresses(vec!["192.0.2.9".parse().unwrap()]));
    site.log("192.0.2.1", GOOGLE);
    site.until(&mut daemon, "192.0.2.1", GOOGLE, (Action::Block, "fakes"));
}

#[test]
fn p8_a_dns_that_fails_calls_nobody_fake_and_takes_nothing_from_who_is_verified() {
    let dns = Dns::start();
    dns.honest("192.0.2.1", "crawl-192-0-2-1.googlebot.com");
    dns.set_ttl(1);
    let mut site = Site::new();
    let mut daemon = site.start(&dns, "min_ttl = \"1s\"\n");
    site.log("192.0.2.1", GOOGLE);
    site.until(&mut daemon, "192.0.2.1", GOOGLE, (Action::Allow, "verified crawler"));
    // From now on nothing is answered.
    dns.say_of("192.0.2.1", Says::Hang);
    let failing = ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7"];
    for (at, ip) in failing.iter().enumerate() {
        let says = [Says::Hang, Says::ServFail, Says::Refused, Says::Garbage, Says::Empty { soa: false }];
        dns.say_of(ip, says[at % says.len()].clone());
        site.log(ip, GOOGLE);
    }
    daemon.until("failures", |d| {
        site.log("192.0.2.1", GOOGLE);
        crawlers(d)["failures"].as_u64() >= Some(12) && !crawlers(d)["dns_failure"].is_null()
    });
    let found = crawlers(&daemon);
    assert_eq!((&found["claimed"], &found["verified"], &found["fake"]), (&6.into(), &1.into(), &0.into()));
    assert_eq!(site.decide("192.0.2.1", GOOGLE).1, "verified crawler");
    for ip in failing {
        assert_eq!(site.decide(ip, GOOGLE).0, Action::Challenge, "{ip}: by its score");
    }
    assert_eq!(daemon.said(0, "DNS does not answer").len(), 1, "it is told once");
    // It is back, and so are answers, without another request.
    for ip in failing {
        dns.say_of(ip, Says::NxDomain);
    }
    for ip in failing {
        site.until(&mut daemon, ip, GOOGLE, (Action::Block, "fakes"));
    }
    daemon.until("the end of it", |d| crawlers(d)["dns_failure"].is_null());
}

/// P9: thousands of clients, and a DNS that says nothing.
#[test]
fn p9_verification_delays_no_publication_and_holds_its_limits() {
    let dns = Dns::start();
    let mut site = Site::new();
    let mut daemon = site.start(&dns, "max_clients = 100\nconcurrency = 4\n");
    let status = |daemon: &Daemon| daemon.status()["features"]["generation"].as_u64().unwrap();
    for network in 0..10 {
        for last in 1..=250 {
            let ip = format!("203.{network}.113.{last}");
            dns.say_of(&ip, Says::Hang);
            site.log(&ip, GOOGLE);
        }
    }
    daemon.until("clients that are dropped", |d| crawlers(d)["dropped_clients"].as_u64() >= Some(1000));
    let before = status(&daemon);
    // Others are published as ever.
    for round in 0..5 {
        let generation = status(&daemon);
        site.log(&format!("198.51.100.{round}"), "curl/8");
        daemon.until("a publication", |d| status(d) > generation);
    }
    assert!(status(&daemon) >= before + 5);
    let found = crawlers(&daemon);
    assert_eq!((&found["verified"], &found["fake"]), (&0.into(), &0.into()));
    assert!(found["claimed"].as_u64() <= Some(100), "{found}");
    assert!(daemon.said(0, "crawlers.max_clients").len() == 1, "it is told once");
    // A crawler that comes among them is verified all the same.
    dns.honest("192.0.2.1", "crawl-192-0-2-1.googlebot.com");
    daemon.until("a verified one", |d| {
        site.log("192.0.2.1", GOOGLE);
        std::thread::sleep(Duration::from_millis(50));
        crawlers(d)["verified"].as_u64() == Some(1)
    });
    site.until(&mut daemon, "192.0.2.1", GOOGLE, (Action::Allow, "verified crawler"));
    assert!(daemon.terminate().success(), "it ends while names are asked for");
}
