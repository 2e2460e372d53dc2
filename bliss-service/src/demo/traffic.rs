//! Made-up traffic of a small shop: people, crawlers that say what they are, and bots that do not.
//!
//! The same seed gives the same log, in the combined format. Addresses are from ranges that are not routed.

use std::fmt::Write as _;

/// Monday, 5 January 2026, 10:00:00 UTC.
const START_SECONDS: u64 = 1_767_607_200;
/// How long the traffic lasts.
pub const SECONDS: u64 = 900;

const BROWSERS: [&str; 8] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36 Edg/143.0.0.0",
];

/// SplitMix64: enough chance for a demonstration.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// An index of something with `count` elements, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// What a client of the made-up traffic is: the label that a real log lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// They read pages, with pictures and scripts, at a reader's pace.
    People,
    /// They say what they are, and read page after page.
    Crawlers,
    /// Feed readers and monitors say what they are, and come at a fixed interval.
    Monitors,
    /// They pose as browsers, change their addresses and take pages quickly.
    Scrapers,
    /// They pose as browsers and ask for what is not there.
    Scanners,
    /// They pose as browsers and try passwords.
    PasswordGuessers,
}

impl Group {
    /// All of them; people first.
    pub const ALL: [Self; 6] = [
        Self::People,
        Self::Crawlers,
        Self::Monitors,
        Self::Scrapers,
        Self::Scanners,
        Self::PasswordGuessers,
    ];

    /// The name that is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Crawlers => "crawlers",
            Self::Monitors => "monitors",
            Self::Scrapers => "scrapers",
            Self::Scanners => "scanners",
            Self::PasswordGuessers => "password guessers",
        }
    }
}

/// One request of the made-up traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Milliseconds since the traffic's start.
    pub at_ms: u64,
    /// Who sent it.
    pub group: Group,
    /// The client's address.
    pub ip: String,
    /// The client's `User-Agent`.
    pub user_agent: &'static str,
    /// The method.
    pub method: &'static str,
    /// The target.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The `Referer`; `-` for none.
    pub referrer: String,
}

impl Request {
    /// Its line in the combined format.
    fn line(&self) -> String {
        let Self { at_ms, ip, user_agent, method, path, status, referrer, .. } = self;
        let time = jiff::Timestamp::from_second((START_SECONDS + at_ms / 1000) as i64)
            .map(|t| t.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string())
            .unwrap_or_default();
        let bytes = 200 + path.len() * 37;
        format!(
            "{ip} - - [{time}] \"{method} {path} HTTP/1.1\" {status} {bytes} \"{referrer}\" \"{user_agent}\""
        )
    }
}

#[derive(Default)]
struct Log {
    requests: Vec<Request>,
}

struct Client {
    group: Group,
    ip: String,
    user_agent: &'static str,
}

impl Log {
    fn add(
        &mut self,
        at_ms: u64,
        client: &Client,
        method: &'static str,
        path: &str,
        status: u16,
        referrer: &str,
    ) {
        if at_ms >= SECONDS * 1000 {
            return;
        }
        let Client { group, ip, user_agent } = client;
        self.requests.push(Request {
            at_ms,
            group: *group,
            ip: ip.clone(),
            user_agent,
            method,
            path: path.to_owned(),
            status,
            referrer: referrer.to_owned(),
        });
    }
}

/// The requests of [`SECONDS`] seconds, in the order of time.
pub fn requests(seed: u64) -> Vec<Request> {
    let mut chance = Chance::new(seed);
    let mut log = Log::default();
    for visitor in 0..700 {
        person(&mut log, &mut chance, visitor);
    }
    for n in 0..6 {
        crawler(&mut log, &mut chance, n);
    }
    for n in 0..10 {
        periodic(&mut log, &mut chance, n);
    }
    for n in 0..4 {
        scraper(&mut log, &mut chance, n);
    }
    for n in 0..3 {
        scanner(&mut log, &mut chance, n);
        login_tries(&mut log, &mut chance, n);
    }
    log.requests.sort_by_key(|request| request.at_ms);
    log.requests
}

/// A log of [`requests`], one line each.
pub(super) fn log(requests: &[Request]) -> String {
    requests.iter().fold(String::new(), |mut text, request| {
        let _ = writeln!(text, "{}", request.line());
        text
    })
}

/// A person reads some pages, each with its pictures and scripts, at a reader's pace.
fn person(log: &mut Log, chance: &mut Chance, visitor: u64) {
    let client = Client {
        group: Group::People,
        ip: format!("10.{}.{}.{}", visitor / 200, visitor % 200, chance.between(1, 254)),
        user_agent: chance.pick(&BROWSERS),
    };
    let mut at = chance.between(0, SECONDS * 1000);
    let mut referrer =
        chance.pick(&["-", "https://search.example/", "https://news.example/today"]).to_owned();
    for _ in 0..chance.between(2, 9) {
        let page = match chance.between(0, 9) {
            0..=2 => "/".to_owned(),
            3..=7 => format!("/product/{}", chance.between(1, 300)),
            8 => "/cart".to_owned(),
            _ => format!("/search?q={}", chance.between(1, 50)),
        };
        let status = if chance.percent(2) { 404 } else { 200 };
        log.add(at, &client, "GET", &page, status, &referrer);
        referrer = format!("https://shop.example{page}");
        for asset in 0..chance.between(2, 9) {
            let path = match asset {
                0 => "/static/site.css".to_owned(),
                1 => "/static/site.js".to_owned(),
                _ => format!("/images/{}.webp", chance.between(1, 900)),
            };
            let status = if chance.percent(30) { 304 } else { 200 };
            log.add(at + chance.between(80, 1500), &client, "GET", &path, status, &referrer);
        }
        at += chance.between(3_000, 45_000);
    }
}

/// A crawler that says so: robots.txt, then page after page, no pictures, no referrer.
fn crawler(log: &mut Log, chance: &mut Chance, n: u64) {
    let user_agent = [
        "Mozilla/5.0 (compatible; ExampleBot/2.1; +https://search.example/bot.html)",
        "Mozilla/5.0 (compatible; AcmeSpider/1.0; +https://acme.example/spider)",
        "ArchiveCrawler/3.4 (+https://archive.example/crawler)",
    ][(n % 3) as usize];
    let mut at = chance.between(0, 20_000);
    let mut page = chance.between(1, 300);
    for i in 0.. {
        if at >= SECONDS * 1000 {
            break;
        }
        let client = Client {
            group: Group::Crawlers,
            ip: format!("192.0.2.{}", 10 * n + chance.between(1, 4)),
            user_agent,
        };
        let path = if i % 120 == 0 { "/robots.txt".to_owned() } else { format!("/product/{page}") };
        log.add(at, &client, "GET", &path, if chance.percent(4) { 404 } else { 200 }, "-");
        page = page % 400 + 1;
        at += chance.between(700, 3_500);
    }
}

/// Feed readers and monitors that say so: one address, one path, a fixed interval.
fn periodic(log: &mut Log, chance: &mut Chance, n: u64) {
    let (user_agent, method, path, every) = [
        ("UptimeMonitor/1.0 (+https://monitor.example)", "HEAD", "/", 10_000),
        ("FeedFetcher/0.9 (+https://feeds.example)", "GET", "/feed.xml", 30_000),
        ("curl/8.14.1", "GET", "/api/stock", 5_000),
    ][(n % 3) as usize];
    let client = Client { group: Group::Monitors, ip: format!("198.51.100.{}", n + 1), user_agent };
    let mut at = chance.between(0, every);
    while at < SECONDS * 1000 {
        log.add(at, &client, method, path, 200, "-");
        at += every;
    }
}

/// A scraper that poses as a browser and changes its address, yet takes nothing but pages, quickly.
fn scraper(log: &mut Log, chance: &mut Chance, n: u64) {
    let mut at = chance.between(0, 120_000);
    let mut product = 1;
    for _ in 0..90 {
        let client = Client {
            group: Group::Scrapers,
            ip: format!("203.0.113.{}", chance.between(1, 250)),
            user_agent: BROWSERS[n as usize],
        };
        for _ in 0..chance.between(5, 20) {
            log.add(at, &client, "GET", &format!("/product/{product}"), 200, "-");
            product = product % 300 + 1;
            at += chance.between(150, 900);
        }
    }
}

/// A scanner that poses as a browser and asks for what is not there.
fn scanner(log: &mut Log, chance: &mut Chance, n: u64) {
    let client = Client {
        group: Group::Scanners,
        ip: format!("100.64.{n}.{}", chance.between(1, 254)),
        user_agent: chance.pick(&BROWSERS),
    };
    let mut at = chance.between(60_000, 500_000);
    for i in 0..600 {
        let path =
            format!("/{}/{i}.php", chance.pick(&["wp-admin", "old", "backup", "phpmyadmin", "cgi-bin"]));
        log.add(at, &client, "GET", &path, 404, "-");
        at += chance.between(40, 400);
    }
}

/// Passwords tried one after the other from many addresses of one network.
fn login_tries(log: &mut Log, chance: &mut Chance, n: u64) {
    let mut at = chance.between(30_000, 300_000);
    for _ in 0..700 {
        let client = Client {
            group: Group::PasswordGuessers,
            ip: format!("100.65.{n}.{}", chance.between(1, 254)),
            user_agent: BROWSERS[n as usize + 4],
        };
        log.add(at, &client, "POST", "/login", 401, "https://shop.example/login");
        at += chance.between(100, 900);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let first = requests(1);
        assert_eq!(first, requests(1));
        assert_ne!(first, requests(2));
        assert!(first.len() > 10_000 && first.is_sorted_by_key(|request| request.at_ms), "{}", first.len());
        assert_eq!(log(&first).lines().count(), first.len());
        for group in Group::ALL {
            let count = first.iter().filter(|request| request.group == group).count();
            assert!(count > 500, "{}: {count}", group.name());
        }
    }

    #[test]
    fn no_address_is_of_two_groups() {
        let mut groups = std::collections::HashMap::new();
        for request in requests(1) {
            assert_eq!(
                *groups.entry(request.ip.clone()).or_insert(request.group),
                request.group,
                "{request:?}"
            );
        }
    }
}
