//! What is published, what is refused, and what damaged bytes lead to.

use proptest::prelude::*;

use super::*;
use crate::build::{Exception, ModelSet, PolicySet, Subject};
use crate::policy::decide::{Facts, Seen};
use crate::policy::exceptions::{ExceptionKind, MAX_AGENT_BYTES};
use crate::policy::source::{Policy, Rule};
use crate::prefixes::{Address, Prefix};

fn rule(name: &str) -> Rule {
    Rule { name: name.into(), ..Rule::default() }
}

fn policy(name: &str) -> Policy {
    let deny = vec![Rule { when: vec!["ip.requests_1m > 5 or missing".into()], ..rule("many") }];
    let allow = vec![Rule { path_prefix: vec!["/a".into()], percent: Some(50.0), ..rule("half") }];
    Policy { name: name.into(), deny, allow, ..Policy::default() }
}

fn exception(subject: Subject) -> Exception {
    let (status, header) = (Some(418), Some("X-Why: e".into()));
    Exception { kind: ExceptionKind::Deny, subject, until: 5, name: "e".into(), status, header }
}

fn prefix(text: &str) -> Subject {
    Subject::Prefix(Prefix::parse(text.as_bytes()).unwrap())
}

fn agent(text: &str) -> Subject {
    Subject::UserAgent(text.into())
}

fn set() -> PolicySet {
    let subjects = [prefix("192.0.0.0/8"), prefix("192.0.2.0/24"), prefix("2001:db8::/32"), agent("curl")];
    PolicySet {
        off: false,
        policies: vec![policy("p"), policy("q")],
        routes: vec![("default".into(), "q".into()), ("login".into(), "p".into())],
        exceptions: subjects.map(exception).into(),
    }
}

#[test]
fn routes_have_their_policy_or_that_of_the_default_route_or_the_built_in_one() {
    let name = |set: &PolicySet, route: &str| {
        let bytes = set.pack().unwrap();
        let policies = PoliciesRef::open(&bytes).unwrap();
        policies.policy(policies.policy_of_route(route)).unwrap().name().to_owned()
    };
    let whole = set();
    assert_eq!(["login", "default", "", "other"].map(|route| name(&whole, route)), ["p", "q", "q", "q"]);
    let without = PolicySet { routes: vec![("login".into(), "p".into())], ..set() };
    assert_eq!(["login", "default", "x"].map(|r| name(&without, r)), ["p", "built-in", "built-in"]);
    let named =
        PolicySet { routes: vec![("x".into(), "built-in".into()), ("default".into(), "p".into())], ..set() };
    assert_eq!(["x", "y"].map(|route| name(&named, route)), ["built-in", "p"]);
}

#[test]
fn what_is_wrong_is_refused_with_the_place_and_what_to_do() {
    let with = |change: fn(&mut PolicySet)| {
        let mut wrong = set();
        change(&mut wrong);
        wrong.pack().map(drop).unwrap_err().to_string()
    };
    type Change = fn(&mut PolicySet);
    let cases: [(Change, &str); 13] = [
        (|s| s.routes[0].1 = "gone".into(), "route \"default\": there is no policy \"gone\""),
        (|s| s.routes[1].0 = "default".into(), "route \"default\" is there twice"),
        (|s| s.policies[1].name = "p".into(), "policy \"p\" is there twice"),
        (|s| s.policies[0].name = String::new(), "policy \"\""),
        (|s| s.policies = (0..65).map(|i| policy(&i.to_string())).collect(), "at most 64 policies, found 65"),
        (|s| s.policies[0].allow[0].name = "exception".into(), "rule \"exception\": name: it is taken"),
        (|s| s.policies[0].deny[0].header = Some(format!("X: {}", "x".repeat(254))), "at most 256 bytes"),
        (|s| s.policies[0].deny[0].name = "robots.txt".into(), "rule \"robots.txt\""),
        (|s| s.exceptions[0].name = String::new(), "exception \"\": a name has 1 to 128 bytes"),
        (|s| s.exceptions[0].status = Some(99), "exception \"e\": status: expected 200 to 599, found 99"),
        (|s| s.exceptions[0].header = Some("no header".into()), "exception \"e\": header: expected"),
        (|s| s.exceptions[3].subject = agent(""), "expected a user agent of 1 to 1024 bytes, found 0"),
        (|s| s.exceptions[3].subject = agent(&"x".repeat(MAX_AGENT_BYTES + 1)), "found 1025"),
    ];
    for (change, expected) in cases {
        let found = with(change);
        assert!(found.contains(expected), "{found:?} for {expected:?}");
    }
    // The name of a shipped exemption is free where those are left out.
    let mut own = set();
    own.policies[0].defaults = Some(false);
    own.policies[0].deny[0].name = "robots.txt".into();
    assert!(own.pack().is_ok());
}

#[test]
fn as_many_exceptions_as_there_may_be_are_all_found() {
    let subject = |n: u32| match n % 3 {
        0 => Subject::Prefix(Prefix::around(Address::V4(n << 8), 24)),
        1 => Subject::Prefix(Prefix::around(Address::V6(u128::from(n) << 80), 48)),
        _ => agent(&format!("agent/{n}")),
    };
    let count = MAX_EXCEPTIONS as u32;
    let exceptions = (0..count).map(|n| Exception { name: format!("e{n}"), ..exception(subject(n)) });
    let mut many = PolicySet { exceptions: exceptions.collect(), ..PolicySet::default() };
    let bytes = many.pack().unwrap();
    let found = PoliciesRef::open(&bytes).unwrap().exceptions();
    assert_eq!(found.len(), MAX_EXCEPTIONS);
    for n in 0..count {
        let name = format!("agent/{n}");
        let (address, agent) = match n % 3 {
            0 => (Some(Address::V4(n << 8 | 7)), None),
            1 => (Some(Address::V6(u128::from(n) << 80 | 7)), None),
            _ => (None, Some(name.as_bytes())),
        };
        let of = |now| found.find(address, agent, now).map(|exception| exception.name);
        assert_eq!((of(4), of(5)), (Some(format!("e{n}").as_str()), None));
    }
    assert_eq!(found.find(None, Some(b"agent/0"), 0), None);
    many.exceptions.push(exception(agent("one more")));
    assert!(many.pack().unwrap_err().to_string().contains("exceptions, found 131073"));
}

#[test]
fn other_publications_are_no_policies() {
    let models = ModelSet::default().pack().unwrap();
    assert_eq!(PoliciesRef::open(&models).unwrap_err(), FrameError::Kind { expected: 3, found: 2 });
    let whole = set().pack().unwrap();
    for len in [0, 10, 63, 64, 200, whole.len() / 2, whole.len() - 1] {
        let mut cut = rkyv::util::AlignedVec::<64>::new();
        cut.extend_from_slice(&whole[..len]);
        assert!(PoliciesRef::open(&cut).is_err(), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The fuzz target `policy_open` in short.
    #[test]
    fn damaged_policies_are_refused_or_decide_without_a_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let mut bytes = set().pack().unwrap();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Ok(policies) = PoliciesRef::open(&bytes) {
            for address in [Address::V4(0xc000_0201), Address::V6(0x2001_0db8 << 96)] {
                let exception = policies.exceptions().find(Some(address), Some(b"curl"), 4);
                for index in 0..policies.len() {
                    let facts = Facts { path: Some(b"/a"), now: 4, ..Facts::default() };
                    let policy = policies.policy(index).unwrap();
                    let _ = policy.decide_with(false, &facts, exception, |_| Seen::Missing);
                }
            }
        }
    }
}
