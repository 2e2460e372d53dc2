//! A robot in a person's network, and a person in a hoster's, against the shipped model.

use bliss_catboost::{ModelRef, Scratch, compile, import};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.cbm");
/// Ten minutes of this hour are logged.
const HOUR: &str = "05/Jan/2026:10";

/// What robots in the person's network do.
#[derive(Clone, Copy, Debug)]
struct Robots {
    requests: usize,
    addresses: usize,
    agents: usize,
    /// One request in so many fails.
    errors: usize,
}

/// What is known of hosting networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hosting {
    /// The site has no list.
    Unknown,
    /// The person's network is none.
    Elsewhere,
    /// It is one.
    Here,
}

fn chrome(version: usize) -> String {
    format!(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 \
         Safari/537.36"
    )
}

/// An access log in the making: second of the ten minutes, and line without its time.
#[derive(Default)]
struct Log(Vec<(usize, String)>);

impl Log {
    fn add(&mut self, second: usize, ip: &str, path: &str, status: u16, referrer: &str, agent: &str) {
        let line = format!(r#"{ip} - - [] "GET {path} HTTP/1.1" {status} 12 "{referrer}" "{agent}""#);
        self.0.push((second, line));
    }

    /// Six pages with five assets each. `seed` is what differs between people.
    fn person(&mut self, ip: &str, agent: &str, seed: usize) {
        for page in 0..6 {
            let second = (seed * 37 + page * 101 + page * seed) % 590;
            self.add(second, ip, &format!("/page/{}", (seed * 7 + page) % 200), 200, "https://site/", agent);
            for asset in 0..5 {
                let kind = ["css", "js", "png"][(seed + asset) % 3];
                self.add(
                    second + asset / 3,
                    ip,
                    &format!("/static/{asset}.{kind}"),
                    200,
                    "https://site/page",
                    agent,
                );
            }
        }
    }

    fn text(mut self) -> String {
        self.0.sort_by_key(|(second, _)| *second);
        self.0.iter().fold(String::new(), |mut text, (second, line)| {
            let time = format!("[{HOUR}:{:02}:{:02} +0000]", second / 60, second % 60);
            writeln!(text, "{}", line.replacen("[]", &time, 1)).unwrap();
            text
        })
    }
}

/// Score, 1 (a robot) to 99 (a person), of a person's last request.
fn score(dir: &Path, model: &ModelRef<'_>, robots: Option<Robots>, hosting: Hosting) -> f64 {
    let mut log = Log::default();
    for i in 0..300 {
        log.person(&format!("10.{}.{}.7", i / 50, i % 50), &chrome(100 + i % 27), i);
    }
    log.person("192.0.2.9", &chrome(120), 300);
    if let Some(robots) = robots {
        for i in 0..robots.requests {
            let status = if i % robots.errors == 0 { 404 } else { 200 };
            let ip = format!("192.0.2.{}", 10 + i % robots.addresses);
            let agent = format!("py-neighbour/{}", i % robots.agents);
            log.add(i * 590 / robots.requests, &ip, &format!("/item/{i}"), status, "-", &agent);
        }
    }
    log.add(599, "192.0.2.9", "/page/3", 200, "https://site/", &chrome(120));
    let (text, rows) = (dir.join("access.log"), dir.join("rows.csv"));
    std::fs::write(&text, log.text()).unwrap();
    let mut export = Command::new(env!("CARGO_BIN_EXE_blissctl"));
    export.arg("features").arg("--log").arg(text).arg("--out").arg(&rows);
    if hosting != Hosting::Unknown {
        let list = dir.join("hosting.netset");
        std::fs::write(&list, if hosting == Hosting::Here { "192.0.2.0/24\n" } else { "198.51.100.0/24\n" })
            .unwrap();
        export.arg("--list").arg(format!("hosting={}", list.display()));
    }
    let output = export.output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let rows = std::fs::read_to_string(rows).unwrap();
    let cells = |line: Option<&str>| line.unwrap().split(',').map(str::to_owned).collect::<Vec<_>>();
    let (names, last) = (cells(rows.lines().next()), cells(rows.lines().next_back()));
    // Names are a prefix of the cells, of which the agent's (in quotes) has a comma more: counted from the end.
    let column = |name: &str| last.len() - (names.len() - names.iter().position(|n| n == name).unwrap());
    let value = |name: &str| last[column(name)].parse::<f32>().unwrap_or(f32::NAN);
    assert!(value("ip.requests_1h") >= 30.0 && value("subnet.requests_1h") >= 30.0, "{rows:.300}");
    let told = value("lists.hosting");
    match hosting {
        Hosting::Unknown => assert!(told.is_nan(), "{told}"),
        _ => assert_eq!(told, if hosting == Hosting::Here { 1.0 } else { 0.0 }),
    }
    let values: Vec<f32> = model.inputs().map(|input| value(input.name)).collect();
    let binding: Vec<u32> = (0..u32::try_from(values.len()).unwrap()).collect();
    let mut raw = [0.0];
    model.raw(&values, &binding, &mut Scratch::for_model(model), &mut raw).unwrap();
    1.0 + 98.0 * (1.0 - ModelRef::probability(raw[0]))
}

/// A robot and other people make up a network alike; who lives there is not to blame.
#[test]
fn s19_a_person_beside_robots_in_the_network_stays_a_person() {
    let compiled = compile(&import(&std::fs::read(MODEL).unwrap()).unwrap()).unwrap();
    let model = ModelRef::open(&compiled).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for hosting in [Hosting::Unknown, Hosting::Elsewhere] {
        let alone = score(dir.path(), &model, None, hosting);
        assert!(alone >= 90.0, "{alone}");
        beside_robots(dir.path(), &model, alone, hosting, 50.0);
    }
}

/// A VPN or a relay: the rules by which people's labels are given know no such person, and the model must not conclude that there is
/// none.
#[test]
fn s20_a_person_in_a_hosting_network_stays_a_person() {
    let compiled = compile(&import(&std::fs::read(MODEL).unwrap()).unwrap()).unwrap();
    let model = ModelRef::open(&compiled).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let alone = score(dir.path(), &model, None, Hosting::Here);
    assert!(alone >= 50.0, "{alone}");
    // Here a crowd of robots in the same /24 is more evidence than one can expect to outweigh; the threshold holds.
    beside_robots(dir.path(), &model, alone, Hosting::Here, 30.0);
}

fn beside_robots(dir: &Path, model: &ModelRef<'_>, alone: f64, hosting: Hosting, least: f64) {
    let cases = [
        Robots { requests: 60, addresses: 1, agents: 1, errors: 1 },
        Robots { requests: 300, addresses: 1, agents: 1, errors: 1000 },
        Robots { requests: 1500, addresses: 1, agents: 1, errors: 10 },
        Robots { requests: 1500, addresses: 20, agents: 20, errors: 10 },
        Robots { requests: 1500, addresses: 200, agents: 1, errors: 2 },
        Robots { requests: 1500, addresses: 200, agents: 1500, errors: 2 },
        Robots { requests: 6000, addresses: 3, agents: 3, errors: 1 },
    ];
    let scores = cases.map(|robots| (score(dir, model, Some(robots), hosting), robots));
    for (score, robots) in &scores {
        println!("{score:.0} beside {robots:?}, {alone:.0} alone; hosting: {hosting:?}");
    }
    assert!(scores.iter().all(|(score, _)| *score >= least), "{scores:.0?}, {alone:.0} alone");
}
