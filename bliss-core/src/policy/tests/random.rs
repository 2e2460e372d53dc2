//! Random policies and exceptions, published, against a naive interpreter of what an operator writes.

use proptest::prelude::*;

use crate::build::{Exception, PolicySet, Subject};
use crate::key::{KeySecret, SECRET_BYTES, hash_key};
use crate::policy::compiled::{Action, CrawlerState};
use crate::policy::decide::{Facts, Seen};
use crate::policy::exceptions::ExceptionKind;
use crate::policy::source::{Outcome, Policy, Rule};
use crate::prefixes::{Address, Prefix};
use crate::publication::policies::PoliciesRef;

const SECRET: KeySecret = KeySecret([9; SECRET_BYTES]);

/// `a.n` is a number and `b.gone` in no schema.
#[derive(Clone, Debug)]
struct Case {
    score: Option<u8>,
    path: Option<&'static str>,
    method: Option<&'static str>,
    host: Option<&'static str>,
    agent: Option<&'static str>,
    n: Option<i8>,
    state: Option<u8>,
    category: Option<&'static str>,
    country: Option<&'static str>,
    is_listed: Option<bool>,
    /// Of whose address each byte is this.
    client: Option<u8>,
    passed: bool,
    now: u32,
}

/// All that an answer says.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    action: Action,
    rule: String,
    status: u16,
    header: Option<String>,
    simulated: Option<(String, Action)>,
    exception: Option<String>,
}

impl Said {
    fn allow(rule: &str, simulated: Option<(String, Action)>) -> Self {
        Self { action: Action::Allow, rule: rule.into(), status: 0, header: None, simulated, exception: None }
    }
}

impl Case {
    fn seen(&self, name: &str) -> Seen {
        let number = |value: Option<f32>| value.map_or(Seen::Missing, Seen::Is);
        let text = |text: Option<&str>| {
            number(text.map(|text| f32::from_bits(bliss_catboost::category_hash(text.as_bytes()))))
        };
        match name {
            "a.n" => number(self.n.map(f32::from)),
            "crawler.state" => number(self.state.map(f32::from)),
            "crawler.category" => text(self.category),
            "request.country" => text(self.country),
            "lists.a" => number(self.is_listed.map(f32::from)),
            _ => Seen::Unbound,
        }
    }

    /// What the published policy of `route` says.
    fn ask(&self, policies: PoliciesRef<'_>, route: &str) -> Said {
        let client = self.client.map(|byte| [byte; 4]);
        let facts = Facts {
            score: self.score,
            path: self.path.map(str::as_bytes),
            method: self.method.map(str::as_bytes),
            host: self.host.map(str::as_bytes),
            client: client.as_ref().map(|client| client.as_slice()),
            secret: Some(&SECRET),
            passed: self.passed,
            now: self.now,
        };
        let address = client.map(|client| Address::V4(u32::from_be_bytes(client)));
        let exception = policies.exceptions().find(address, self.agent.map(str::as_bytes), self.now);
        let policy = policies.policy(policies.policy_of_route(route)).unwrap();
        let seen = |source| self.seen(policy.sources().nth(source).unwrap().0);
        let said = policy.decide_with(policies.metadata().is_off, &facts, exception, seen);
        Said {
            action: said.action,
            rule: said.rule.into(),
            status: said.status,
            header: said.header.map(str::to_owned),
            simulated: said.simulated.map(|(rule, action)| (rule.to_owned(), action)),
            exception: said.exception.map(str::to_owned),
        }
    }
}

fn usual_status(action: Action) -> u16 {
    match action {
        Action::Block | Action::Challenge => 403,
        Action::RateLimitKey => 429,
        Action::Allow | Action::Observe | Action::Tag => 0,
    }
}

fn naive(set: &PolicySet, case: &Case) -> Said {
    if set.off {
        return Said::allow("off", None);
    }
    let policy = &set.policies[0];
    let mut simulated = None;
    let stages = [&policy.exempt, &policy.deny, &policy.allow, &policy.crawler, &policy.band];
    for (stage, rules) in stages.into_iter().enumerate() {
        if let Some((exception, action)) = naive_exception(set, case).filter(|_| stage == 1) {
            return Said {
                action,
                status: exception.status.unwrap_or(usual_status(action)),
                header: exception.header.clone(),
                exception: Some(exception.name.clone()),
                ..Said::allow("exception", simulated)
            };
        }
        for rule in rules {
            let action = rule.action.unwrap_or(if stage == 1 { Action::Block } else { Action::Allow });
            let is_over = action == Action::Challenge && case.passed && !rule.even_if_passed;
            if is_over || !naive_holds(rule, stage, case) {
                continue;
            }
            if !rule.simulate {
                let status = rule.status.unwrap_or(usual_status(action));
                let header = rule.header.clone();
                return Said { action, status, header, ..Said::allow(&rule.name, simulated) };
            }
            simulated.get_or_insert((rule.name.clone(), action));
        }
        if stage == 0 && policy.defaults != Some(false) {
            let reads = matches!(case.method, Some("GET" | "HEAD"));
            match case.path {
                Some(path) if path.starts_with("/.well-known/acme-challenge/") => {
                    return Said::allow("acme challenge", simulated);
                }
                Some("/robots.txt") if reads => return Said::allow("robots.txt", simulated),
                _ => {}
            }
        }
        if stage == 3 && case.state == Some(2) {
            return Said::allow("verified crawler", simulated);
        }
    }
    match (&case.score, &policy.on_unscored) {
        (None, Some(Outcome { action, status, header }))
            if !(case.passed && *action == Action::Challenge) =>
        {
            Said {
                action: *action,
                status: status.unwrap_or(usual_status(*action)),
                header: header.clone(),
                ..Said::allow("unscored", simulated)
            }
        }
        (score, _) => Said::allow(if score.is_some() { "default" } else { "unscored" }, simulated),
    }
}

/// The longest network that has not run out, the newest of equal ones; else the newest of the user agent. Who has a pass is not
/// challenged by it.
fn naive_exception<'s>(set: &'s PolicySet, case: &Case) -> Option<(&'s Exception, Action)> {
    let in_force = || set.exceptions.iter().filter(|exception| case.now < exception.until);
    let address = case.client.map(|byte| Address::V4(u32::from_be_bytes([byte; 4])));
    let bits = |exception: &&Exception| match &exception.subject {
        Subject::Prefix(prefix) if prefix.contains(address?) => Some(prefix.bits()),
        _ => None,
    };
    let by_address = in_force().filter(|exception| bits(exception).is_some()).max_by_key(bits);
    let is_agent = |exception: &&Exception| match &exception.subject {
        Subject::UserAgent(agent) => Some(agent.as_str()) == case.agent,
        Subject::Prefix(_) => false,
    };
    let found = by_address.or_else(|| in_force().rfind(is_agent))?;
    match found.kind {
        ExceptionKind::Allow => Some((found, Action::Allow)),
        ExceptionKind::Deny => Some((found, Action::Block)),
        ExceptionKind::Challenge => (!case.passed).then_some((found, Action::Challenge)),
    }
}

fn naive_holds(rule: &Rule, stage: usize, case: &Case) -> bool {
    if stage == 4 {
        let Some(score) = case.score else { return false };
        if rule.below.is_some_and(|n| score >= n) || rule.above.is_some_and(|n| score <= n) {
            return false;
        }
    }
    let is_one_of = |texts: &[String], found: Option<&str>| {
        texts.is_empty() || texts.iter().any(|text| Some(text.as_str()) == found)
    };
    let mut met = if rule.crawler_state.is_empty() {
        stage != 3 || case.state == Some(2)
    } else {
        rule.crawler_state.iter().any(|state| case.state == Some(*state as u8))
    };
    if !rule.path.is_empty() || !rule.path_prefix.is_empty() {
        let Some(path) = case.path else { return false };
        met &= rule.path.iter().any(|p| p == path)
            || rule.path_prefix.iter().any(|p| path.starts_with(p.as_str()));
    }
    let host = case.host.map(str::to_lowercase);
    met &= is_one_of(&rule.method, case.method) && is_one_of(&rule.host, host.as_deref());
    met &= is_one_of(&rule.country, case.country) && is_one_of(&rule.crawler_category, case.category);
    met &= rule.list.is_empty() || (rule.list.iter().any(|l| l == "lists.a") && case.is_listed == Some(true));
    for when in &rule.when {
        met &= match (when.as_str(), case.n) {
            ("a.n > 0", Some(n)) => n > 0,
            ("a.n <= 1", Some(n)) => n <= 1,
            ("a.n != 2", Some(n)) => n != 2,
            ("a.n = 1 or missing", n) => n.is_none_or(|n| n == 1),
            ("a.n missing", n) => n.is_none(),
            ("a.n >= -1", Some(n)) => n >= -1,
            ("a.n < 2.5", Some(n)) => f32::from(n) < 2.5,
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
    prop_oneof![4 => Just(vec![]), 1 => proptest::collection::vec(prop::sample::select(values), 1..3)]
}

fn text(values: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    some(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>())
}

const PATHS: [&str; 2] = ["/.well-known/acme-challenge/x", "/robots.txt"];

/// Status and header of an outcome.
fn answer() -> impl Strategy<Value = (Option<u16>, Option<String>)> {
    let status = proptest::option::of(prop::sample::select(vec![200, 302, 418, 599]));
    (status, proptest::option::of(Just("X-Why: bliss".to_owned())))
}

fn rule(stage: usize) -> impl Strategy<Value = Rule> {
    let actions = [Action::Observe, Action::Tag, Action::RateLimitKey, Action::Challenge, Action::Block];
    let when = [
        "a.n > 0",
        "a.n <= 1",
        "a.n != 2",
        "a.n = 1 or missing",
        "a.n missing",
        "a.n >= -1",
        "a.n < 2.5",
        "b.gone != 1",
        "b.gone missing",
    ];
    let paths = (
        text(&["/", "/a", "/a/b", "/b/", PATHS[1]]),
        text(&["/", "/a", "/a/b", "/a/b/c", "/ab", "/b/", "/.well"]),
    );
    let texts = (text(&["GET", "POST"]), text(&["a.example", "b.example"]), text(&when));
    let states = [CrawlerState::None, CrawlerState::Claimed, CrawlerState::Verified, CrawlerState::Fake];
    let features =
        (text(&["DE", "FR"]), text(&["lists.a", "lists.gone"]), some(&states), text(&["search", "seo"]));
    let times = (proptest::option::of(0..6_u32), proptest::option::of(0..6_u32));
    let band = (proptest::option::of(40..100_u8), proptest::option::of(0..39_u8));
    let percent = proptest::option::of(prop::sample::select(vec![0.0, 30.0, 50.0, 100.0]));
    let rest = (prop::sample::select(actions.to_vec()), any::<(bool, bool)>(), percent, answer());
    (paths, texts, features, times, band, rest).prop_map(
        move |(paths, texts, features, times, band, rest)| {
            let ((path, path_prefix), (mut method, host, when)) = (paths, texts);
            let (action, (simulate, even_if_passed), percent, (status, header)) = rest;
            let action = if matches!(stage, 0 | 2) { Action::Allow } else { action };
            let is_exempt = stage == 0;
            if is_exempt && path.is_empty() && path_prefix.is_empty() && method.is_empty() && host.is_empty()
            {
                method.push("GET".into());
            }
            let (country, list, crawler_state, crawler_category) =
                if is_exempt { Default::default() } else { features };
            Rule {
                path,
                path_prefix,
                method,
                host,
                country,
                list,
                crawler_state,
                crawler_category,
                when: if is_exempt { vec![] } else { when },
                from: times.0,
                until: times.1,
                below: band.0.filter(|_| stage == 4),
                above: band.1.filter(|_| stage == 4),
                action: Some(action),
                even_if_passed: even_if_passed && action == Action::Challenge,
                status,
                header,
                simulate,
                percent,
                ..Rule::default()
            }
        },
    )
}

fn policy(most: usize) -> impl Strategy<Value = Policy> {
    let rules = move |stage: usize| {
        proptest::collection::vec(rule(stage), 0..most).prop_map(move |mut rules| {
            rules.iter_mut().enumerate().for_each(|(i, rule)| rule.name = format!("{stage}-{i}"));
            rules
        })
    };
    let stages = (rules(0), rules(1), rules(2), rules(3), rules(4));
    let actions = prop::sample::select(vec![Action::Tag, Action::Challenge]);
    let unscored = proptest::option::of((actions, answer()));
    let defaults = prop::sample::select(vec![None, Some(true), Some(false)]);
    (stages, unscored, defaults).prop_map(|((exempt, deny, allow, crawler, band), unscored, defaults)| {
        let on_unscored = unscored.map(|(action, (status, header))| Outcome { action, status, header });
        Policy { name: "p".into(), defaults, on_unscored, exempt, deny, allow, crawler, band }
    })
}

fn exceptions() -> impl Strategy<Value = Vec<Exception>> {
    // Networks around the addresses of few clients, so that they are nested and there again and again.
    let prefix = (0..4_u8, prop::sample::select(vec![0, 6, 8, 16, 24, 31, 32])).prop_map(|(byte, bits)| {
        Subject::Prefix(Prefix::around(Address::V4(u32::from_be_bytes([byte; 4])), bits))
    });
    let agent = prop::sample::select(vec!["curl", "wget"]).prop_map(|a| Subject::UserAgent(a.into()));
    let kinds = [ExceptionKind::Allow, ExceptionKind::Deny, ExceptionKind::Challenge];
    let one =
        (prop_oneof![3 => prefix, 1 => agent], prop::sample::select(kinds.to_vec()), 0..8_u32, answer());
    proptest::collection::vec(one, 0..12).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named
            .map(|(i, (subject, kind, until, (status, header)))| Exception {
                kind,
                subject,
                until,
                name: format!("e{i}"),
                status,
                header,
            })
            .collect()
    })
}

fn set() -> impl Strategy<Value = PolicySet> {
    set_of(4)
}

/// Of policies with fewer rules than `most` in a stage.
fn set_of(most: usize) -> impl Strategy<Value = PolicySet> {
    (policy(most), exceptions(), prop::bool::weighted(0.05)).prop_map(|(policy, exceptions, off)| PolicySet {
        off,
        policies: vec![policy],
        routes: vec![("default".into(), "p".into())],
        exceptions,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let one_of = |values: &[&'static str]| proptest::option::of(prop::sample::select(values.to_vec()));
    let texts = (
        one_of(&[
            "/", "/a", "/a/", "/a/b", "/a/b/cd", "/a/c", "/aa", "/ab", "/b", "/b/", "/b/c", "", PATHS[0],
            PATHS[1],
        ]),
        one_of(&["GET", "POST", "HEAD"]),
        one_of(&["a.example", "B.Example", "c.example"]),
        one_of(&["curl", "wget", "curl "]),
    );
    let features = (
        proptest::option::of(-1..4_i8),
        proptest::option::of(0..4_u8),
        one_of(&["search", "seo", "feed"]),
        one_of(&["DE", "IT"]),
        proptest::option::of(any::<bool>()),
    );
    let client = proptest::option::of(prop_oneof![0..5_u8, any::<u8>()]);
    (proptest::option::of(1..100_u8), texts, features, client, any::<bool>(), 0..6_u32).prop_map(
        |(
            score,
            (path, method, host, agent),
            (n, state, category, country, is_listed),
            client,
            passed,
            now,
        )| Case {
            score,
            path,
            method,
            host,
            agent,
            n,
            state,
            category,
            country,
            is_listed,
            client,
            passed,
            now,
        },
    )
}

fn cases() -> impl Strategy<Value = Vec<Case>> {
    proptest::collection::vec(case(), 40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn p5_compiled_policies_decide_as_the_naive_interpreter(set in set(), cases in cases()) {
        let bytes = set.pack().unwrap();
        let policies = PoliciesRef::open(&bytes).unwrap();
        for case in cases {
            let found = case.ask(policies, "");
            prop_assert!(!found.rule.is_empty());
            prop_assert_eq!(found, naive(&set, &case), "{:?}", case);
        }
    }

    /// More rules than one word of a set of them has bits.
    #[test]
    fn p5_large_policies_decide_as_the_naive_interpreter(set in set_of(50), cases in cases()) {
        let bytes = set.pack().unwrap();
        let policies = PoliciesRef::open(&bytes).unwrap();
        for case in cases {
            prop_assert_eq!(case.ask(policies, ""), naive(&set, &case), "{:?}", case);
        }
    }

    #[test]
    fn p1_exempt_and_verified_clients_are_never_blocked_by_a_score(set in set(), cases in cases()) {
        let bytes = set.pack().unwrap();
        let policies = PoliciesRef::open(&bytes).unwrap();
        let policy = &set.policies[0];
        for case in cases {
            let found = case.ask(policies, "");
            let is_exempt = policy.exempt.iter().any(|rule| !rule.simulate && naive_holds(rule, 0, &case));
            let is_verified = case.state == Some(2);
            prop_assert!(!(is_exempt || is_verified) || !found.rule.starts_with("4-"), "{:?} {:?}", case, found);
            // Whatever the policy says of bands, an exempt one is allowed.
            prop_assert!(!is_exempt || found.action == Action::Allow, "{:?} {:?}", case, found);
        }
    }

    #[test]
    fn p2_a_request_without_a_score_never_gets_a_scores_action(set in set(), cases in cases()) {
        let bytes = set.pack().unwrap();
        let policies = PoliciesRef::open(&bytes).unwrap();
        for case in cases {
            let unscored = Case { score: None, ..case };
            let found = unscored.ask(policies, "");
            prop_assert!(!found.rule.starts_with("4-") && found.rule != "default", "{:?} {:?}", unscored, found);
            prop_assert!(!found.simulated.is_some_and(|(rule, _)| rule.starts_with("4-")));
        }
    }

    #[test]
    fn p3_simulated_rules_change_no_answer(set in set(), cases in cases()) {
        let mut without = set.clone();
        let Policy { exempt, deny, allow, crawler, band, .. } = &mut without.policies[0];
        [exempt, deny, allow, crawler, band].into_iter().for_each(|rules| rules.retain(|rule| !rule.simulate));
        let (with, without) = (set.pack().unwrap(), without.pack().unwrap());
        let (with, without) = (PoliciesRef::open(&with).unwrap(), PoliciesRef::open(&without).unwrap());
        for case in cases {
            let found = case.ask(with, "");
            prop_assert_eq!(Said { simulated: None, ..found }, case.ask(without, ""), "{:?}", case);
        }
    }

    #[test]
    fn p11_who_has_a_pass_is_challenged_only_by_rules_that_say_so(set in set(), cases in cases()) {
        let mut without = set.clone();
        let Policy { deny, crawler, band, on_unscored, .. } = &mut without.policies[0];
        let is_challenge = |rule: &Rule| rule.action == Some(Action::Challenge) && !rule.even_if_passed;
        [deny, crawler, band].into_iter().for_each(|rules| rules.retain(|rule| !is_challenge(rule)));
        on_unscored.take_if(|outcome| outcome.action == Action::Challenge);
        // The exception that is in force stays the one that is found, so that those that challenge are not taken out.
        without.exceptions.clear();
        let (with, without) = (set.pack().unwrap(), without.pack().unwrap());
        let (with, without) = (PoliciesRef::open(&with).unwrap(), PoliciesRef::open(&without).unwrap());
        for case in cases {
            let passed = Case { passed: true, ..case };
            let found = passed.ask(with, "");
            if found.exception.is_none() {
                let expected = passed.ask(without, "");
                prop_assert_eq!(&found, &expected, "{:?}", passed);
                // What is left is for everybody.
                prop_assert_eq!(expected, Case { passed: false, ..passed }.ask(without, ""));
            }
            prop_assert!(found.exception.is_none() || found.action != Action::Challenge);
        }
    }

    #[test]
    fn p6_off_wins_over_everything(set in set(), cases in cases()) {
        let set = PolicySet { off: true, ..set };
        let bytes = set.pack().unwrap();
        let policies = PoliciesRef::open(&bytes).unwrap();
        for case in cases {
            prop_assert_eq!(case.ask(policies, ""), Said::allow("off", None));
        }
    }
}
