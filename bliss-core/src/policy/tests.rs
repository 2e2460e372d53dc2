//! Policies against a naive interpreter of what an operator writes.

use proptest::prelude::*;

use super::compiled::{Action, PolicyRef};
use super::decide::{Facts, Seen, Verdict};
use super::source::{Outcome, Policy, Rule};
use crate::key::{KeySecret, SECRET_BYTES, hash_key};

const SECRET: KeySecret = KeySecret([9; SECRET_BYTES]);

/// `a.n`, `a.m` are numbers, `b.gone` is in no schema; `crawler.state` is what the case says.
#[derive(Clone, Debug)]
struct Case {
    score: Option<u8>,
    path: Option<&'static str>,
    method: Option<&'static str>,
    n: Option<i8>,
    state: Option<u8>,
    client: Option<u8>,
    now: u32,
    off: bool,
}

impl Case {
    fn seen(&self, name: &str) -> Seen {
        let number = |value: Option<f32>| value.map_or(Seen::Missing, Seen::Is);
        match name {
            "a.n" => number(self.n.map(f32::from)),
            "crawler.state" => number(self.state.map(f32::from)),
            _ => Seen::Unbound,
        }
    }

    fn decide<'p>(&self, policy: PolicyRef<'p>) -> Verdict<'p> {
        let client = self.client.map(|byte| [byte; 4]);
        let facts = Facts {
            score: self.score,
            path: self.path.map(str::as_bytes),
            method: self.method.map(str::as_bytes),
            client: client.as_ref().map(|client| client.as_slice()),
            secret: Some(&SECRET),
            now: self.now,
            ..Facts::default()
        };
        policy.decide(self.off, &facts, |source| self.seen(policy.sources().nth(source).unwrap().0))
    }
}

/// The action, the rule and what a simulated rule would have done.
fn naive(policy: &Policy, case: &Case) -> (Action, String, Option<(String, Action)>) {
    if case.off {
        return (Action::Allow, "off".into(), None);
    }
    let mut simulated = None;
    let stages = [&policy.exempt, &policy.deny, &policy.allow, &policy.crawler, &policy.band];
    for (stage, rules) in stages.into_iter().enumerate() {
        for rule in rules {
            let action = rule.action.unwrap_or(if stage == 1 { Action::Block } else { Action::Allow });
            if !naive_holds(rule, stage, case) {
                continue;
            }
            if !rule.simulate {
                return (action, rule.name.clone(), simulated);
            }
            simulated.get_or_insert((rule.name.clone(), action));
        }
        if stage == 3 && case.state == Some(2) {
            return (Action::Allow, "verified crawler".into(), simulated);
        }
    }
    match case.score {
        Some(_) => (Action::Allow, "default".into(), simulated),
        None => {
            (policy.on_unscored.as_ref().map_or(Action::Allow, |o| o.action), "unscored".into(), simulated)
        }
    }
}

fn naive_holds(rule: &Rule, stage: usize, case: &Case) -> bool {
    if stage == 4 {
        let Some(score) = case.score else { return false };
        if rule.below.is_some_and(|n| score >= n) || rule.above.is_some_and(|n| score <= n) {
            return false;
        }
    }
    let mut met = stage != 3 || case.state == Some(2);
    if !rule.path.is_empty() || !rule.path_prefix.is_empty() {
        let Some(path) = case.path else { return false };
        met &= rule.path.iter().any(|p| p == path)
            || rule.path_prefix.iter().any(|p| path.starts_with(p.as_str()));
    }
    met &= rule.method.is_empty() || rule.method.iter().any(|m| Some(m.as_str()) == case.method);
    for when in &rule.when {
        met &= match (when.as_str(), case.n) {
            ("a.n > 0", Some(n)) => n > 0,
            ("a.n <= 1", Some(n)) => n <= 1,
            ("a.n != 2", Some(n)) => n != 2,
            ("a.n = 1 or missing", n) => n.is_none_or(|n| n == 1),
            ("a.n missing", n) => n.is_none(),
            _ => false,
        };
    }
    met &= rule.from.is_none_or(|from| from <= case.now) && rule.until.is_none_or(|until| case.now < until);
    if let Some(percent) = rule.percent.filter(|percent| *percent < 100.0) {
        let Some(client) = case.client else { return false };
        let hash = hash_key(&SECRET, &rule.name, [b"percent".as_slice(), &[client; 4]].into_iter());
        met &= ((hash >> 32) as f64) < percent / 100.0 * 4_294_967_296.0 - 0.5;
    }
    met
}

fn some<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = Vec<T>> + use<T> {
    let values = values.to_vec();
    prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec(prop::sample::select(values), 1..3)]
}

fn text(values: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    some(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>())
}

fn rule(stage: usize) -> impl Strategy<Value = Rule> {
    let actions = [Action::Observe, Action::Tag, Action::RateLimitKey, Action::Challenge, Action::Block];
    let when = [
        "a.n > 0",
        "a.n <= 1",
        "a.n != 2",
        "a.n = 1 or missing",
        "a.n missing",
        "b.gone != 1",
        "b.gone missing",
    ];
    let texts = (text(&["/", "/a"]), text(&["/a", "/b/"]), text(&["GET", "POST"]), text(&when));
    let times = (proptest::option::of(0..6_u32), proptest::option::of(0..6_u32));
    let band = (proptest::option::of(40..100_u8), proptest::option::of(0..39_u8));
    let percent = proptest::option::of(prop::sample::select(vec![0.0, 30.0, 50.0, 100.0]));
    let rest = (prop::sample::select(actions.to_vec()), any::<bool>(), percent);
    (texts, times, band, rest).prop_map(
        move |(texts, (from, until), (below, above), (action, simulate, percent))| {
            let (path, path_prefix, mut method, when) = texts;
            if stage == 0 && path.is_empty() && path_prefix.is_empty() && method.is_empty() {
                method.push("GET".into());
            }
            Rule {
                path,
                path_prefix,
                method,
                when: if stage == 0 { vec![] } else { when },
                from,
                until,
                below: below.filter(|_| stage == 4),
                above: above.filter(|_| stage == 4),
                action: Some(if matches!(stage, 0 | 2) { Action::Allow } else { action }),
                simulate,
                percent,
                ..Rule::default()
            }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = |stage: usize| {
        proptest::collection::vec(rule(stage), 0..4).prop_map(move |mut rules| {
            rules.iter_mut().enumerate().for_each(|(i, rule)| rule.name = format!("{stage}-{i}"));
            rules
        })
    };
    let all = (rules(0), rules(1), rules(2), rules(3), rules(4), any::<bool>());
    all.prop_map(|(exempt, deny, allow, crawler, band, tags)| {
        let on_unscored = tags.then_some(Outcome { action: Action::Tag, status: None, header: None });
        Policy { name: "p".into(), defaults: Some(false), on_unscored, exempt, deny, allow, crawler, band }
    })
}

fn case() -> impl Strategy<Value = Case> {
    let paths =
        prop::sample::select(vec![None, Some("/"), Some("/a"), Some("/ab"), Some("/b"), Some("/b/c")]);
    let methods = prop::sample::select(vec![None, Some("GET"), Some("POST"), Some("PUT")]);
    let numbers =
        (proptest::option::of(-1..4_i8), proptest::option::of(0..4_u8), proptest::option::of(any::<u8>()));
    let rest = (0..6_u32, prop::bool::weighted(0.05));
    (proptest::option::of(1..100_u8), paths, methods, numbers, rest).prop_map(
        |(score, path, method, (n, state, client), (now, off))| Case {
            score,
            path,
            method,
            n,
            state,
            client,
            now,
            off,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn compiled_policies_decide_as_the_naive_interpreter(policy in policy(), cases in proptest::collection::vec(case(), 40)) {
        let bytes = policy.compile().unwrap();
        let compiled = PolicyRef::open(&bytes).unwrap();
        for case in cases {
            let found = case.decide(compiled);
            let simulated = found.simulated.map(|(rule, action)| (rule.to_owned(), action));
            prop_assert!(!found.rule.is_empty());
            prop_assert_eq!((found.action, found.rule.to_owned(), simulated), naive(&policy, &case), "{:?}", case);
        }
    }
}

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
