//! Policies on what is bound: what conditions see of features, and what is looked up for them.

use super::*;
use crate::build::PolicySet;
use crate::policy::source::{Policy, Rule};
use crate::schema::OnStale;

/// A publication in which the rule `r` denies under this condition.
fn denying(when: &str) -> AlignedVec<64> {
    let deny = vec![Rule { name: "r".into(), when: vec![when.into()], ..Rule::default() }];
    let policies = vec![Policy { name: "p".into(), deny, ..Policy::default() }];
    PolicySet { policies, routes: vec![("default".into(), "p".into())], ..PolicySet::default() }
        .pack()
        .unwrap()
}

/// The rule that answers, with a model and without one.
fn rules(bench: &mut Bench, when: &str, request: &Request<'_>) -> [String; 2] {
    let policies = denying(when);
    bench.scorer.bind_policies(&policies, &bench.names).unwrap();
    [Ok(bench.models.as_slice()), Err(Unscored::NoModels)].map(|models| {
        // SAFETY:
        // - `bench.models` and `policies` were bound last and are not changed
        let answer =
            unsafe { bench.scorer.decide(Ok(&bench.features), models, Ok(&policies), request, "", NOW) };
        assert_eq!(answer.outcome.is_ok(), models.is_ok());
        assert_eq!(bench.scorer.decision().answer, answer);
        bench.scorer.decision().rule.to_owned()
    })
}

#[test]
fn conditions_see_rows_by_their_status_with_a_model_and_without() {
    // The rows: 42 requests and "hosting" for the address, a subnet whose row is too old, and no row of the tenant.
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&stumps(&[("subnet.ips", 1.0, 1.0)])));
    let mut request = bench.request(&[("ip", "192.0.2.1".into()), ("path", "/".into())]);
    let country = bench.names.category("country").unwrap();
    let headers = bench.names.number("header_count").unwrap();
    request.set_category(country, b"SE");
    let holds = |bench: &mut Bench, when: &str, request: &Request<'_>| {
        let [scored, unscored] = rules(bench, when, request);
        assert_eq!(scored == "r", unscored == "r", "{when}");
        scored == "r"
    };
    for (when, expected) in [
        ("ip.requests_1m > 41", true),
        ("ip.requests_1m > 42", false),
        ("ip.requests_1m missing", false),
        ("ip.network = \"hosting\"", true),
        ("ip.network != \"hosting\"", false),
        // Of another type, or not there at all.
        ("ip.network > 0", false),
        ("ip.network missing", false),
        ("ip.gone missing", false),
        ("gone.x != 1", false),
        // Stale, and used.
        ("subnet.ips = 5", true),
        ("subnet.ips missing", false),
        // Absent: the request names no tenant.
        ("tenant_path.errors = 7", false),
        ("tenant_path.errors missing", true),
        // The request's own.
        ("request.country = \"SE\"", true),
        ("request.country = \"DE\"", false),
        ("request.header_count missing", true),
        ("request.path = \"/\"", true),
        ("request.tenant = \"9\"", false),
    ] {
        assert_eq!(holds(&mut bench, when, &request), expected, "{when}");
    }
    request.set_number(headers, f32::NAN);
    assert!(holds(&mut bench, "request.header_count missing", &request), "NaN is missing");
    request.set_number(headers, 3.0);
    assert!(holds(&mut bench, "request.header_count = 3", &request));
    request.set_category(country, b"");
    assert!(!holds(&mut bench, "request.country != \"DE\"", &request), "no country is no other country");
}

#[test]
fn a_stale_row_that_may_not_be_used_is_missing() {
    for (on_stale, is_missing) in [(OnStale::Use, false), (OnStale::Default, true), (OnStale::Unscored, true)]
    {
        let mut schema = schema();
        schema.dimensions[1].on_stale = on_stale;
        let features = pack_rows(&schema, &[(1, &["192.0.2.99".into()], 601, &[5.0])]);
        let mut bench = Bench::new(features, &one_model(&stumps(&[("ip.requests_1m", 40.0, 1.0)])));
        let request = bench.request(&[("ip", "192.0.2.1".into())]);
        let missing = rules(&mut bench, "subnet.ips missing", &request);
        assert_eq!(missing[0] == "r", is_missing, "{on_stale:?}");
        let five = rules(&mut bench, "subnet.ips = 5", &request);
        assert_eq!(five[0] == "r", !is_missing, "{on_stale:?}");
    }
}

#[test]
fn features_of_policies_are_looked_up_beside_those_of_the_model_and_unbound_ones_are_told() {
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&stumps(&[("ip.requests_1m", 40.0, 1.0)])));
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    let scored = bench.score(&request, "");
    assert_eq!((scored.counts.fresh, scored.counts.stale), (1, 0));
    rules(&mut bench, "subnet.ips > 1000", &request);
    let decided = bench.scorer.decision().answer;
    assert_eq!(
        (decided.counts.fresh, decided.counts.stale),
        (0, 1),
        "without a model only what the policy asks for"
    );
    assert_eq!(bench.scorer.policies().unbound().count(), 0);
    rules(&mut bench, "gone.x > 1", &request);
    let unbound: Vec<_> = bench.scorer.policies().unbound().collect();
    assert_eq!(unbound, [("p", "gone.x")], "what comes with every policy is not told");
    // The score is the one that `score` gives.
    let policies = denying("subnet.ips > 1000");
    bench.scorer.bind_policies(&policies, &bench.names).unwrap();
    // SAFETY:
    // - `bench.models` and `policies` were bound last and are not changed
    let decided = unsafe {
        bench.scorer.decide(Ok(&bench.features), Ok(&bench.models), Ok(&policies), &request, "", NOW)
    };
    assert_eq!(decided.outcome, scored.outcome);
    assert_eq!((decided.counts.fresh, decided.counts.stale), (1, 1));
}
