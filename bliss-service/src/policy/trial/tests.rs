use std::fmt::Write as _;

use super::*;

const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";

/// Ten hours of a log: a person, a scraper that asks every second for two minutes at the end, and a health check.
fn log(dir: &Path) -> PathBuf {
    let path = dir.join("access.log");
    let mut text = String::new();
    let mut add = |second: u32, ip: &str, target: &str, referrer: &str, agent: &str| {
        let at = jiff::Timestamp::from_second(1_767_225_600 + i64::from(second)).unwrap();
        let at = at.strftime("%d/%b/%Y:%H:%M:%S +0000");
        writeln!(text, "{ip} - - [{at}] \"GET {target} HTTP/1.1\" 200 9 \"{referrer}\" \"{agent}\"").unwrap();
    };
    add(0, "192.0.2.9", "/old", "-", "curl/8");
    let end = 36_000;
    for second in end - 120..end {
        add(second, "192.0.2.1", &format!("/item/{second}"), "-", "scraper/1");
        if second % 30 == 0 {
            add(second, "192.0.2.2", "/", "-", BROWSER);
            add(second, "192.0.2.2", "/a.css", "http://shop.example/", BROWSER);
            add(second, "192.0.2.2", "/b.css", "http://shop.example/", BROWSER);
            add(second, "192.0.2.3", "/healthz", "-", "monitor/1");
        }
    }
    std::fs::write(&path, text).unwrap();
    path
}

fn config(dir: &Path, policies: &str) -> Config {
    let text = format!(
        "directory = \"shm\"\nsite.hosts = [\"shop.example\"]\n[[origin.access_log]]\nname = \"l\"\npath = \"access.log\"\nwindows = true\n{policies}"
    );
    Config::parse(&dir.join("bliss.toml"), &text).unwrap_or_else(|error| panic!("{error}"))
}

const TODAY: &str =
    "[[policy]]\nname = \"default\"\nexempt = [{ name = \"health\", path = [\"/healthz\"] }]\n";

#[test]
fn a_trial_says_who_is_blocked_by_features_of_that_moment() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path());
    let today = config(dir.path(), TODAY);
    let flood = format!("{TODAY}deny = [{{ name = \"flood\", when = [\"ip.requests_1m >= 30\"] }}]\n");
    let next = config(dir.path(), &flood);
    let trial = try_out(Side::of(&next), Some(Side::of(&today)), &[], 6, DEFAULT_ROUTE).unwrap();
    assert_eq!((trial.requests, trial.clients), (136, 3), "what is older is not decided on");
    assert_eq!(trial.against, Counted::default());
    // It is free for the first thirty requests, which no publication had counted.
    assert_eq!((trial.candidate.requests.block, trial.candidate.clients.block), (90, 1));
    assert_eq!((trial.newly_held_clients, trial.newly_held_requests, trial.newly_held_people), (1, 90, 0));
    assert_eq!(trial.newly_held_verified_crawlers, None, "nothing is published");
    let first = &trial.largest[0];
    assert_eq!((first.ip.as_str(), first.rule.as_str(), first.held), ("192.0.2.1", "flood", 90));
    let shown = trial.to_string();
    assert!(
        shown.contains("136 requests of 3 clients") && shown.contains("flood: 192.0.2.1  scraper/1"),
        "{shown}"
    );
    assert!(serde_json::to_string(&trial).unwrap().contains("\"newly_held_requests\":90"));
    // The other way around it is let through again.
    let back = try_out(Side::of(&today), Some(Side::of(&next)), &[], 6, DEFAULT_ROUTE).unwrap();
    assert_eq!((back.newly_held_clients, back.newly_let_through_clients), (0, 1));
    assert_eq!(back.refusal(0.0), None);
    assert_eq!(trial.refusal(0.4), None);
    let refused = trial.refusal(0.3).unwrap();
    assert!(refused.contains("1 of 3 clients (33.3 %)") && refused.contains("192.0.2.1"), "{refused}");
}

#[test]
fn people_and_what_is_exempt_are_told() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path());
    let today = config(dir.path(), TODAY);
    let all = config(
        dir.path(),
        "[[policy]]\nname = \"default\"\ndeny = [{ name = \"all\", action = \"challenge\" }]\n",
    );
    let trial = try_out(Side::of(&all), Some(Side::of(&today)), &[], 6, DEFAULT_ROUTE).unwrap();
    assert_eq!((trial.candidate.clients.challenge, trial.newly_held_clients), (3, 3));
    assert_eq!((trial.newly_held_people, trial.newly_held_exempt_requests), (1, 4));
    assert!(trial.largest.iter().any(|client| client.is_person && client.ip == "192.0.2.2"));
    assert!(trial.refusal(1.0).unwrap().contains("4 requests that are exempt today"));
    // Without today's there is nothing exempt but what comes with BLISS.
    let alone = try_out(Side::of(&all), None, &[], 6, DEFAULT_ROUTE).unwrap();
    assert_eq!(alone.newly_held_exempt_requests, 0);
}

#[test]
fn a_log_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), TODAY);
    let error = format!("{:#}", try_out(Side::of(&config), None, &[], 6, DEFAULT_ROUTE).unwrap_err());
    assert!(error.contains("access.log"), "{error}");
}
