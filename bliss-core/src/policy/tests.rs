//! Tables of what conditions, conditions on texts and answers come to; random policies are in `random`.

mod random;

use super::compiled::{Action, PolicyRef};
use super::decide::{Facts, Seen};
use super::source::{Policy, Rule};

/// What a rule of the stage `allow` with these conditions says of a request.
fn is_met(rule: Rule, facts: &Facts<'_>, seen: impl Fn(&str) -> Seen) -> bool {
    let policy =
        Policy { name: "p".into(), allow: vec![Rule { name: "r".into(), ..rule }], ..Policy::default() };
    let bytes = policy.compile().unwrap();
    let policy = PolicyRef::open(&bytes).unwrap();
    policy.decide(false, facts, |source| seen(policy.sources().nth(source).unwrap().0)).rule == "r"
}

#[test]
fn comparisons_at_and_around_their_limit() {
    let expected = [
        ("<", [true, false, false]),
        ("<=", [true, true, false]),
        (">", [false, false, true]),
        (">=", [false, true, true]),
        ("=", [false, true, false]),
        ("!=", [true, false, true]),
    ];
    for (operator, expected) in expected {
        let met = |value: Seen, more: &str| {
            let rule = Rule { when: vec![format!("a.n {operator} 600{more}")], ..Rule::default() };
            is_met(rule, &Facts::default(), |_| value)
        };
        assert_eq!([599.0, 600.0, 601.0].map(|n| met(Seen::Is(n), "")), expected, "{operator}");
        for nothing in [Seen::Missing, Seen::Unbound, Seen::Is(f32::NAN)] {
            assert!(!met(nothing, ""), "{operator} {nothing:?}");
        }
        assert!(met(Seen::Missing, " or missing") && !met(Seen::Unbound, " or missing"), "{operator}");
    }
}

#[test]
fn texts_lists_and_hosts() {
    let category = |text: &str| Seen::Is(f32::from_bits(bliss_catboost::category_hash(text.as_bytes())));
    let facts = Facts { host: Some(b"Shop.Example"), ..Facts::default() };
    let when = |text: &str| Rule { when: vec![text.into()], ..Rule::default() };
    let of = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
    let met = |rule: Rule, value: Seen| is_met(rule, &facts, |_| value);
    for (rule, value, expected) in [
        (when("network.kind = \"hosting\""), category("hosting"), true),
        (when("network.kind = \"hosting\""), category("home"), false),
        (when("network.kind != \"hosting\""), category("home"), true),
        (when("network.kind != \"hosting\""), Seen::Missing, false),
        (Rule { country: of(&["DE", "FR"]), ..Rule::default() }, category("FR"), true),
        (Rule { country: of(&["DE", "FR"]), ..Rule::default() }, category("IT"), false),
        (Rule { list: of(&["lists.tor", "lists.vpn"]), ..Rule::default() }, Seen::Is(1.0), true),
        (Rule { list: of(&["lists.tor"]), ..Rule::default() }, Seen::Is(0.0), false),
        (Rule { list: of(&["lists.tor"]), ..Rule::default() }, Seen::Missing, false),
        (Rule { crawler_category: of(&["search"]), ..Rule::default() }, category("search"), true),
        (Rule { crawler_category: of(&["search"]), ..Rule::default() }, category("seo"), false),
        (Rule { host: of(&["shop.example"]), ..Rule::default() }, Seen::Unbound, true),
        (Rule { host: of(&["example"]), ..Rule::default() }, Seen::Unbound, false),
    ] {
        assert_eq!(met(rule.clone(), value), expected, "{rule:?} {value:?}");
    }
}

#[test]
fn what_is_too_large_is_refused_before_anything_is_made_of_it() {
    let rule = |n: usize| Rule { name: format!("r{n}"), path: vec![format!("/{n}")], ..Rule::default() };
    let refused =
        |deny: Vec<Rule>| Policy { name: "p".into(), deny, ..Policy::default() }.compile().unwrap_err().0;
    let many = Rule { path: (0..200_000).map(|n| format!("/{n}")).collect(), ..rule(0) };
    // With the three rules that come with every policy, and their five conditions.
    let error = refused(vec![many]);
    assert!(error.contains("8192 conditions and 256 features, found 4 rules, 200005 conditions"), "{error}");
    let error = refused((0..300).map(rule).collect());
    assert!(error.contains("expected at most 256 rules") && error.contains("found 303 rules"), "{error}");
}

#[test]
fn answers_carry_status_and_header() {
    for (action, usual) in [
        (Action::Block, 403),
        (Action::Challenge, 403),
        (Action::RateLimitKey, 429),
        (Action::Tag, 0),
        (Action::Observe, 0),
    ] {
        for (status, header) in [(None, None), (Some(418), Some("X-Why: bliss"))] {
            let rule = Rule {
                name: "r".into(),
                action: Some(action),
                status,
                header: header.map(str::to_owned),
                below: Some(30),
                ..Rule::default()
            };
            let policy = Policy { name: "p".into(), band: vec![rule], ..Policy::default() };
            let bytes = policy.compile().unwrap();
            let facts = Facts { score: Some(29), ..Facts::default() };
            let found = PolicyRef::open(&bytes).unwrap().decide(false, &facts, |_| Seen::Unbound);
            assert_eq!((found.action, found.status, found.header), (action, status.unwrap_or(usual), header));
        }
    }
}
