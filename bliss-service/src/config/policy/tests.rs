use std::path::Path;

use super::*;
use crate::config::Config;
use crate::policy::run_tests;

const LOG: &str =
    "directory = \"shm\"\n[[origin.access_log]]\nname = \"l\"\npath = \"access.log\"\nwindows = true\n";

fn parse(text: &str) -> Result<Config, String> {
    let text = format!("{LOG}{text}");
    Config::parse(Path::new("/etc/bliss.toml"), &text).map_err(|error| error.to_string())
}

#[test]
fn a_policy_has_its_rules_times_and_routes() {
    let config = parse(
        r#"
[[policy]]
name = "default"
on_unscored = { action = "observe" }
exempt = [{ name = "health", path = ["/healthz"] }]
[[policy.band]]
name = "low"
below = 30
action = "challenge"
from = 2026-01-01T00:00:00Z
until = "2026-01-01T01:00:00+01:00"
when = ["ip.requests_1m > 600"]
[[policy]]
name = "strict"
defaults = false
[[route]]
name = "shop"
policy = "strict"
"#,
    )
    .unwrap();
    let [default, strict] = &config.policies[..] else { panic!("{:?}", config.policies) };
    assert_eq!((default.defaults, strict.defaults), (Some(true), Some(false)));
    assert_eq!((default.band[0].from, default.band[0].until), (Some(1_767_225_600), Some(1_767_225_600)));
    assert_eq!(default.on_unscored.as_ref().unwrap().action, Action::Observe);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(config.policy_routes, [pair("shop", "strict"), pair("default", "default")]);
    assert!(config.routes.is_empty() && config.uses_default_model, "the route says nothing of models");
    assert!(parse("").unwrap().policy_routes.is_empty());
}

/// The line of each mistake, by the line that has `@`, and what is said.
#[test]
fn mistakes_have_a_line_a_policy_a_rule_and_an_option() {
    let cases = [
        ("[[policy]]\nname = \"a b\" #@", "policy \"a b\": expected a name"),
        ("[[policy]]\nname = \"p\"\n[[policy]]\nname = \"p\" #@", "policy `p` appears twice"),
        ("[[policy]]\nname = \"p\"\nband = [{ name = \"r\" }] #@", "rule \"r\": action: a band has to say"),
        (
            "[[policy]]\nname = \"p\"\n[[policy.band]]\nname = \"r\"\naction = \"block\"\nbelow = 0 #@",
            "no score",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nstatus = 99 #@",
            "status: expected 200 to 599",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"a\"\n[[policy.deny]]\nname = \"r\"\nheader = \"x\" #@",
            "header: expected `Name: value`",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nwhen = [\"ip.requests_1m >\"] #@",
            "rule \"r\": when \"ip.requests_1m >\"",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nwhen = [\"ip.request_1m > 2\"] #@",
            "rule \"r\": when: there is no `ip.request_1m`: dimension `ip` has no feature `request_1m`; near are `ip.requests_1m`",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nlist = [\"vpns.is_vpn\"] #@",
            "list: there is no `vpns.is_vpn`: no origin fills a dimension `vpns`",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nwhen = ['ip.requests_1m = \"x\"'] #@",
            "a number, the rule takes a category",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nfrom = \"yesterday\" #@",
            "a time with its zone",
        ),
        (
            "[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nfrom = 2026-01-01 #@",
            "a time with its zone",
        ),
        ("[[policy]]\nname = \"p\"\n[[policy.deny]]\nname = \"r\"\nbelo = 3 #@", "unknown field `belo`"),
        (
            "[[policy]]\nname = \"p\" #@\ndeny = [{ name = \"r\" }]\nallow = [{ name = \"r\" }]",
            "the name is taken",
        ),
        (
            "[[route]]\nname = \"shop\"\npolicy = \"none\" #@",
            "route `shop`: policy: no [[policy]] is named `none`",
        ),
        ("[[route]]\nname = \"shop\" #@", "expected `active` or `policy`"),
        ("[[test]]\nname = \"\" #@\naction = \"allow\"", "expected a name of its own"),
        ("[[test]]\nname = \"t\" #@\naction = \"allow\"\nscore = 100", "score: expected 1 to 99"),
        (
            "[[test]]\nname = \"t\" #@\naction = \"allow\"\nfeatures = { \"ip.requests_2m\" = 1 }",
            "no feature `requests_2m`",
        ),
    ];
    for (text, said) in cases {
        let line = LOG.lines().count() + 1 + text.lines().position(|line| line.contains("#@")).unwrap();
        let error = parse(text).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&format!("/etc/bliss.toml, line {line}: ")), "{text}\n{error}");
        assert!(error.contains(said), "{text}\n{error}");
    }
    assert!(parse("[policy_gate]\nmax_newly_blocked_share = 2\n").is_err());
}

const POLICIES: &str = r#"
[[policy]]
name = "default"
deny = [{ name = "flood", when = ["ip.requests_1m > 600"], status = 429, action = "rate_limit_key" }]
allow = [{ name = "office", list = ["ip.robots_1d"] }]
[[policy.band]]
name = "low"
below = 30
action = "block"
simulate = true
[[policy.band]]
name = "low in Germany"
below = 30
country = ["DE"]
action = "challenge"
[[policy.band]]
name = "later"
below = 30
from = "2030-01-01T00:00:00Z"
action = "tag"
[[policy]]
name = "api"
on_unscored = { action = "challenge" }
[[route]]
name = "api"
policy = "api"
"#;

#[test]
fn tests_of_a_configuration_pass_or_say_what_was_expected_and_found() {
    let test = |text: &str| format!("[[test]]\nname = \"t\"\n{text}\n");
    let passing = [
        "action = \"allow\"\nrule = \"unscored\"",
        "route = \"api\"\naction = \"challenge\"\nrule = \"unscored\"",
        "score = 29\naction = \"allow\"\nrule = \"default\"\nsimulated = \"low\"",
        "score = 30\naction = \"allow\"\nsimulated = \"\"",
        "score = 5\ncountry = \"DE\"\naction = \"challenge\"\nrule = \"low in Germany\"",
        "score = 5\nat = 2030-06-01T00:00:00Z\naction = \"tag\"",
        "features = { \"ip.requests_1m\" = 700 }\naction = \"rate_limit_key\"\nrule = \"flood\"",
        "features = { \"ip.requests_1m\" = 600 }\naction = \"allow\"",
        "list = [\"ip.robots_1d\"]\nscore = 1\ncountry = \"DE\"\naction = \"allow\"\nrule = \"office\"",
        "features = { \"crawler.state\" = \"fake\" }\naction = \"allow\"\nrule = \"unscored\"",
        "features = { \"crawler.state\" = 2 }\naction = \"allow\"\nrule = \"verified crawler\"",
        "features = { \"ip.requests_1m\" = 700 }\npath = \"/robots.txt\"\naction = \"allow\"\nrule = \"robots.txt\"",
        "features = { \"ip.requests_1m\" = 700 }\npath = \"/.well-known/acme-challenge/x\"\naction = \"allow\"",
    ];
    for text in passing {
        let config = parse(&format!("{POLICIES}{}", test(text))).unwrap_or_else(|error| panic!("{error}"));
        run_tests(&config).unwrap_or_else(|failures| panic!("{text}\n{failures:?}"));
    }
    let failing = [
        (
            "score = 5\ncountry = \"DE\"\naction = \"block\"",
            "expected block, found challenge by rule \"low in Germany\"",
        ),
        (
            "score = 5\naction = \"allow\"\nrule = \"low\"",
            "expected allow by rule \"low\", found allow by rule \"default\"",
        ),
        (
            "score = 5\naction = \"allow\"\nsimulated = \"\"",
            "expected allow and nothing simulated, found allow by rule \"default\" and rule \"low\" simulated",
        ),
    ];
    for (text, said) in failing {
        let config = parse(&format!("{POLICIES}{}", test(text))).unwrap();
        let failures = run_tests(&config).unwrap_err();
        assert_eq!(failures[0].to_string(), format!("test \"t\": {said}"));
        assert_eq!(failures[0].line, LOG.lines().count() + POLICIES.lines().count() + 2);
    }
}

#[test]
fn values_of_the_request_are_those_of_workers() {
    let policy = r#"
[[policy]]
name = "default"
[[policy.deny]]
name = "no browser"
when = ["request.claims_browser = 0"]
path_prefix = ["/login"]
[[test]]
name = "a tool"
path = "/login?x=1"
user_agent = "curl/8"
action = "block"
[[test]]
name = "a browser"
path = "/login"
user_agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
action = "allow"
"#;
    run_tests(&parse(policy).unwrap()).unwrap();
}

#[test]
fn names_that_are_near_are_near() {
    for (a, b, apart) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ip.x", "ip.x", 0)] {
        assert_eq!((distance(a, b), distance(b, a)), (apart, apart), "{a} {b}");
    }
}
