//! The nights of whoever is paged: real nginx, a real daemon on its log with the model that comes with BLISS, a policy that blocks, and
//! clients that must not be blocked by it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[path = "nginx/daemon.rs"]
mod daemon;
#[path = "../../bliss-service/tests/common/dns.rs"]
mod dns;
#[path = "nginx/server.rs"]
mod server;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use daemon::Daemon;
use dns::{Dns, Says};
use server::{Nginx, Reply, Setup, can_run};
use support::{Site, wait_until};

/// Blocks low scores and what is listed, limits floods.
const POLICY: &str = r#"
[[policy]]
name = "default"
exempt = [{ name = "health check", path = ["/healthz"] }]
deny = [
  { name = "listed", list = ["lists.bad"] },
  { name = "flood", when = ["ip.requests_1m > 60"], status = 429 },
]
band = [{ name = "robots", below = 30, action = "block" }]
"#;

/// Pages, what they need, and an application.
const LOCATIONS: &str = "location / { try_files $uri $uri/index.html =404; }
        location ~ ^/(shop|healthz|robots.txt|\\.well-known/|.*\\.(css|js|png)) { try_files /index.html =404; }
        location /app { proxy_pass http://127.0.0.1:PORT; }";

/// An application that answers 500 while it is broken.
struct Application {
    is_broken: Arc<AtomicBool>,
    port: u16,
}

impl Application {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = is_broken.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = stream.read(&mut [0; 4096]);
                let status = if broken.load(Ordering::Relaxed) { "500 Broken" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: 3\r\n\r\nhi\n");
            }
        });
        Self { is_broken, port }
    }
}

/// The user agent of browser number `n`.
fn browser_agent(n: usize) -> String {
    format!(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
        140 + n
    )
}

/// What nginx logged of people in the hours before BLISS was installed: each came with two pages and what they need.
fn write_history(log: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut file = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    for person in 0..60_u64 {
        let came_at = now - 6 * 3600 + person * 300;
        let (ip, agent) = (format!("10.{}.{person}.7", 40 + person % 4), browser_agent(person as usize % 10));
        let pages = [("/shop", ""), ("/shop/shoes", "/shop")];
        let mut requests = Vec::new();
        for (page, from) in pages {
            requests.push((page, from));
            requests.extend(["/a.css", "/b.js", "/c.png"].map(|asset| (asset, page)));
        }
        for (n, (target, from)) in requests.into_iter().enumerate() {
            let referrer = if from.is_empty() { String::new() } else { format!("http://test{from}") };
            let accept =
                if target.contains('.') { "*/*" } else { "text/html,application/xhtml+xml,*/*;q=0.8" };
            writeln!(
                file,
                r#"{{"msec":{}.{n:03},"remote_addr":"{ip}","request_method":"GET","request_uri":"{target}","scheme":"http","host":"test","status":200,"http_referer":"{referrer}","http_user_agent":"{agent}","http_accept":"{accept}","http_accept_language":"de,en;q=0.5","http_accept_encoding":"gzip, deflate","bliss_action":"allow"}}"#,
                came_at + n as u64 / 4 * 30
            )
            .unwrap();
        }
    }
}

struct Night {
    nginx: Nginx,
    daemon: Daemon,
    application: Application,
    home: tempfile::TempDir,
    _parent: Site,
}

impl Night {
    fn begin() -> Option<Self> {
        Self::begin_with(POLICY)
    }

    /// With this policy, and more of the configuration.
    fn begin_with(more: &str) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let parent = Site::empty();
        let site = parent.path().join("bliss");
        let home = tempfile::tempdir().unwrap();
        let application = Application::start();
        let locations = LOCATIONS.replace("PORT", &application.port.to_string());
        let setup = Setup { location: Some(&locations), options: "block_below = {},", ..Setup::new(&site) };
        let nginx = setup.start();
        write_history(&nginx.access_log_path());
        fs::write(home.path().join("bad.txt"), "198.51.100.0/24\n203.0.113.0/24\n192.0.2.200\n").unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/default.cbm");
        let configuration = format!(
            "checkpoint.directory = {:?}
            [[origin.access_log]]
            name = \"traffic\"
            path = {:?}
            windows = true
            [[model]]
            name = \"default\"
            version = \"1\"
            path = {model:?}
            [[origin.list]]
            name = \"lists\"
            source = [{{ feature = \"bad\", path = \"bad.txt\", interval = \"100ms\" }}]
            {}",
            home.path().join("checkpoint"),
            nginx.access_log_path(),
            more,
        );
        let daemon = Daemon::start(home.path(), &site, &configuration);
        let night = Self { nginx, daemon, application, home, _parent: parent };
        wait_until("scores and the list", || {
            std::thread::sleep(Duration::from_millis(50));
            let scored = night.browser("192.0.2.1", 0, "/healthz", "");
            scored.header("x-bot-status") == "scored"
                && night.program("192.0.2.200", "/").header("x-bliss-rule") == "listed"
        });
        Some(night)
    }

    /// A request of browser number `n`, which came from `from` of this site, if that is not empty.
    fn browser(&self, ip: &str, n: usize, target: &str, from: &str) -> Reply {
        let is_page = !target.contains('.');
        let accept = if is_page { "text/html,application/xhtml+xml,*/*;q=0.8" } else { "*/*" };
        let referrer =
            if from.is_empty() { String::new() } else { format!("Referer: http://test{from}\r\n") };
        let agent = browser_agent(n);
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nX-Client: {ip}\r\nUser-Agent: {agent}\r\nAccept: {accept}\r\n\
             Accept-Language: de,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n{referrer}Connection: close\r\n\r\n"
        );
        self.nginx.send(head.as_bytes()).unwrap()
    }

    /// A page, with what it needs.
    fn visit(&self, ip: &str, n: usize, page: &str, from: &str) -> Vec<Reply> {
        let mut replies = vec![self.browser(ip, n, page, from)];
        replies.extend(["/a.css", "/b.js", "/c.png"].map(|asset| self.browser(ip, n, asset, page)));
        replies
    }

    /// A request of a program that sends no more than it must.
    fn program(&self, ip: &str, target: &str) -> Reply {
        self.nginx.get(target, ip).unwrap()
    }

    /// Waits until the daemon has read and published what was logged.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(700));
    }

    fn told(&self, reply: &Reply) -> String {
        let head = ["x-bliss-action", "x-bliss-rule", "x-bot-score", "x-bot-status"];
        format!("{} {:?}\n{}", reply.status, head.map(|name| reply.header(name)), self.daemon.said())
    }
}

/// What scanners ask for.
const SCANNED: [&str; 24] = [
    "/.env",
    "/.git/config",
    "/wp-login.php",
    "/wp-config.php.bak",
    "/admin.php",
    "/actuator/env",
    "/phpmyadmin/",
    "/.aws/credentials",
    "/server-status",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/cgi-bin/test.cgi",
    "/xmlrpc.php",
    "/.DS_Store",
    "/backup.sql",
    "/config.json",
    "/.svn/entries",
    "/web.config",
    "/HNAP1/",
    "/boaform/admin/formLogin",
    "/solr/admin/info/system",
    "/console/",
    "/owa/auth/logon.aspx",
    "/login.action",
    "/shell.php",
];

#[test]
fn a_scanner_is_blocked_and_nobody_else_and_it_may_come_back_once_it_stops() {
    let Some(night) = Night::begin() else { return };
    let scanner = "198.18.7.7";
    let mut blocked_after = None;
    for (n, target) in SCANNED.into_iter().cycle().take(48).enumerate() {
        let reply = night.program(scanner, target);
        if reply.status == 403 {
            assert_eq!(reply.header("x-bliss-rule"), "robots", "{}", night.told(&reply));
            blocked_after.get_or_insert(n);
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    let blocked_after = blocked_after.unwrap_or(usize::MAX);
    assert!(blocked_after < 24, "blocked after {blocked_after} requests\n{}", night.daemon.said());
    // Whatever it is: certificates are renewed, health is checked, and robots.txt is read.
    for (target, rule) in [
        ("/healthz", "health check"),
        ("/.well-known/acme-challenge/token", "acme challenge"),
        ("/robots.txt", "robots.txt"),
    ] {
        let reply = night.program(scanner, target);
        assert_eq!((reply.status, reply.header("x-bliss-rule")), (200, rule), "{}", night.told(&reply));
    }
    // But no way around: to nginx, and so to the policy, this is another path.
    let reply = night.program(scanner, "/.well-known/acme-challenge/../../shop");
    assert_eq!(reply.status, 403, "{}", night.told(&reply));
    for reply in night.visit("10.40.50.50", 1, "/shop", "") {
        assert_eq!(reply.status, 200, "{}", night.told(&reply));
    }

    // A flood from elsewhere is limited by its rate alone, and served again once the minute is over.
    let flood = "10.41.60.60";
    let limited = |replies: &[Reply]| replies.iter().any(|reply| reply.header("x-bliss-rule") == "flood");
    wait_until("the flood's limit", || limited(&night.visit(flood, 2, "/shop", "/shop")));
    let begun = Instant::now();
    wait_until_within("the flood to be over", Duration::from_secs(150), || {
        std::thread::sleep(Duration::from_secs(5));
        night.browser(flood, 2, "/shop", "/shop").status == 200
    });
    assert!(begun.elapsed() > Duration::from_secs(5), "served again at once");
}

/// As [`wait_until`], for what takes longer.
fn wait_until_within(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "no {what} within {limit:?}");
    }
}

#[test]
fn ten_people_of_an_office_behind_one_address_are_not_blocked() {
    let Some(night) = Night::begin() else { return };
    let mut scores = Vec::new();
    for page in ["/shop", "/shop/shoes", "/shop/shoes/7"] {
        for person in 0..10 {
            let from = page.rfind('/').map_or("", |slash| &page[..slash]);
            for reply in night.visit("10.42.10.10", person, page, from) {
                assert_ne!(reply.header("x-bliss-rule"), "robots", "{}", night.told(&reply));
                // Ten people with three pages are more than sixty requests in a minute.
                assert!(matches!(reply.status, 200 | 429), "{}", night.told(&reply));
                scores.extend(reply.score());
            }
        }
        night.settle();
    }
    assert!(scores.len() >= 100 && scores.iter().all(|score| *score >= 30), "{scores:?}");
}

#[test]
fn an_application_that_fails_makes_nobody_a_robot() {
    let Some(night) = Night::begin() else { return };
    let people = ["10.43.20.20", "10.43.21.21", "10.43.22.22"];
    let round = |page: &str, expected: u16| {
        let mut scores = Vec::new();
        for (n, ip) in people.iter().enumerate() {
            let replies = night.visit(ip, n, page, "/shop");
            assert_eq!(replies[0].status, expected, "{}", night.told(&replies[0]));
            assert!(replies[1..].iter().all(|reply| reply.status == 200));
            scores.push(replies[0].score().unwrap());
        }
        night.settle();
        scores
    };
    for _ in 0..2 {
        round("/app", 200);
    }
    night.application.is_broken.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    // With the flood's limit in mind.
    for _ in 0..6 {
        let scores = round("/app", 500);
        assert!(scores.iter().all(|score| *score >= 30), "{scores:?} after {:?}", begun.elapsed());
    }
    night.application.is_broken.store(false, Ordering::Relaxed);
    let scores = round("/app", 200);
    assert!(scores.iter().all(|score| *score >= 30), "{scores:?}");
}

#[test]
fn a_list_that_shrinks_to_nothing_stays_and_one_that_loses_an_entry_does_not() {
    let Some(night) = Night::begin() else { return };
    let list = night.home.path().join("bad.txt");
    let listed = |ip: &str| night.program(ip, "/").header("x-bliss-rule") == "listed";
    assert!(listed("198.51.100.9") && listed("192.0.2.200") && !listed("192.0.2.201"));
    fs::write(&list, "").unwrap();
    wait_until("what was found", || night.daemon.said().contains("bad.txt"));
    night.settle();
    assert!(listed("198.51.100.9") && listed("192.0.2.200"), "{}", night.daemon.said());
    fs::write(&list, "198.51.100.0/24\n203.0.113.0/24\n").unwrap();
    wait_until("the new list", || !listed("192.0.2.200"));
    assert!(listed("198.51.100.9"));
}

#[test]
fn an_exception_is_in_force_within_a_second_and_runs_out_and_everything_is_switched_off() {
    let Some(night) = Night::begin() else { return };
    let customer = "198.51.100.20";
    let rule = |target: &str| {
        let reply = night.program(customer, target);
        (reply.status, reply.header("x-bliss-rule").to_owned())
    };
    assert_eq!(rule("/"), (403, "listed".to_owned()));
    night.daemon.take(&["allow", customer, "--for", "3s", "--reason", "a customer calls"]);
    let begun = Instant::now();
    let (status, allowed) = rule("/");
    assert!(begun.elapsed() > Duration::from_secs(2) || status == 200, "{status} {allowed}");
    wait_until("the exception to run out", || rule("/").0 == 403);
    assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());

    // The command ends once it is published: every worker's next request knows it.
    night.daemon.take(&["off", "--reason", "customers are blocked"]);
    for _ in 0..8 {
        assert_eq!(rule("/"), (200, "off".to_owned()));
    }
    night.daemon.take(&["on"]);
    for _ in 0..8 {
        assert_eq!(rule("/"), (403, "listed".to_owned()));
    }
}

#[test]
fn googlebot_is_let_through_from_its_own_address_alone() {
    let dns = Dns::start();
    dns.honest("66.249.66.7", "crawl-66-249-66-7.googlebot.com");
    // Whoever has an address can give it any name; Google's zone knows nothing of it.
    dns.say_of("198.18.9.9", Says::Names(vec!["crawl-198-18-9-9.googlebot.com".into()]));
    let rule = "crawler = [{ name = \"fake crawler\", crawler_state = [\"fake\"], action = \"block\" }]";
    let crawlers = format!("{POLICY}{rule}\n[crawlers]\nenabled = true\nresolvers = [\"{}\"]\n", dns.address);
    let Some(night) = Night::begin_with(&crawlers) else { return };
    let crawl = |ip: &str, target: &str| {
        let agent = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nX-Client: {ip}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
        );
        night.nginx.send(head.as_bytes()).unwrap()
    };
    // Both are asked about within a second of their first request.
    for ip in ["66.249.66.7", "198.18.9.9"] {
        crawl(ip, "/robots.txt");
    }
    wait_until("a fake one to be told", || {
        crawl("198.18.9.9", "/shop").header("x-bliss-rule") == "fake crawler"
    });
    assert_eq!(crawl("198.18.9.9", "/shop").status, 403);
    wait_until("a verified one to be told", || {
        crawl("66.249.66.7", "/shop").header("x-bliss-rule") == "verified crawler"
    });
    // Whatever it asks for, and however low its score is.
    for target in SCANNED.into_iter().chain(["/shop/1", "/shop/2"]) {
        let reply = crawl("66.249.66.7", target);
        assert_eq!(reply.header("x-bliss-rule"), "verified crawler", "{target}: {}", night.told(&reply));
        assert!(matches!(reply.status, 200 | 404), "{target}: {}", night.told(&reply));
    }
    night.settle();
    let reply = crawl("66.249.66.7", "/shop");
    assert!(reply.status == 200 && reply.score().is_some_and(|score| score < 30), "{}", night.told(&reply));
}
