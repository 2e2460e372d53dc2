//! What becomes of stale rows: `on_stale`.

use super::*;
use crate::schema::OnStale;

/// Dimension `a` with a row of the given age, and `b` with a fresh one. `both` is active and uses both, and beside it stand
/// a model that uses `b` alone and one like itself.
fn bench(on_stale: OnStale, age: i64) -> Bench {
    let of_ip = |name| dimension(name, vec![KeyPart::whole("ip")], vec![with_default("x", 0.5)]);
    let mut schema = Schema { dimensions: vec![of_ip("a"), of_ip("b")], ..schema() };
    schema.dimensions[0].on_stale = on_stale;
    let ip: &[Value<'_>] = &["192.0.2.1".into()];
    let features = pack_rows(&schema, &[(0, ip, age, &[9.0]), (1, ip, 0, &[9.0])]);
    let both = stumps(&[("a.x", 1.0, 3.0), ("b.x", 1.0, 1.0)]);
    let models = vec![named("both", &both), named("b", &stumps(&[("b.x", 1.0, 1.0)])), named("again", &both)];
    let active = NamedRoute { shadows: vec!["b".into(), "again".into()], ..route(DEFAULT_ROUTE, "both") };
    Bench::new(features, &ModelSet { models, routes: vec![active, route("b", "b")] })
}

#[test]
fn a_stale_row_is_used_or_counts_as_none_or_leaves_the_request_unscored() {
    let (fresh, stale) = (600, 601);
    // Values of `a`, and what the active model and its shadows say.
    let cases = [
        (OnStale::Use, fresh, 9.0, Ok(4.0)),
        (OnStale::Use, stale, 9.0, Ok(4.0)),
        (OnStale::Default, fresh, 9.0, Ok(4.0)),
        (OnStale::Default, stale, 0.5, Ok(1.0)),
        (OnStale::Unscored, fresh, 9.0, Ok(4.0)),
        (OnStale::Unscored, stale, 9.0, Err(Unscored::StaleDimension)),
    ];
    for (on_stale, age, value, expected) in cases {
        let mut bench = bench(on_stale, age);
        let request = bench.request(&[("ip", "192.0.2.1".into())]);
        let status = if age == stale { Status::Stale } else { Status::Fresh };
        let features = bench.features.clone();
        let found = bench.scorer.look_up(&features, &request, NOW);
        assert_eq!(found, ([value, 9.0].as_slice(), [status, Status::Fresh].as_slice()), "{on_stale:?}");
        let ages = [0, 1, 2].map(|index| bench.scorer.row_age_seconds(index, NOW));
        assert_eq!(ages, [u32::try_from(age).ok(), Some(0), None]);

        let answer = bench.score(&request, "");
        let raw = |outcome: Result<crate::score::Scored, Unscored>| outcome.map(|s| s.bot_probability);
        let expected = expected.map(sigmoid);
        assert_eq!(raw(answer.outcome), expected, "{on_stale:?}, {age} s");
        let stale_rows = u32::from(age == stale);
        assert_eq!(answer.counts, Counts { fresh: 2 - stale_rows, stale: stale_rows, ..Counts::default() });
        let shadows: Vec<_> = bench.scorer.shadows().iter().map(|shadow| raw(shadow.outcome)).collect();
        assert_eq!(shadows, [Ok(sigmoid(1.0)), expected], "{on_stale:?}, {age} s");
        // A model that does not use the dimension goes on.
        assert_eq!(raw(bench.score(&request, "b").outcome), Ok(sigmoid(1.0)));
    }
}

#[test]
fn a_row_that_is_missing_is_not_stale() {
    let mut bench = bench(OnStale::Unscored, 601);
    let request = bench.request(&[("ip", "198.51.100.7".into())]);
    assert_eq!(bench.score(&request, "").outcome.unwrap().bot_probability, sigmoid(0.0));
    assert_eq!(bench.scorer.row_age_seconds(0, NOW), None);
}

/// The rule follows the schema that is bound.
#[test]
fn another_schema_has_other_rules() {
    let mut strict = bench(OnStale::Unscored, 601);
    let lax = bench(OnStale::Use, 601);
    let request = strict.request(&[("ip", "192.0.2.1".into())]);
    assert_eq!(strict.score(&request, "").outcome, Err(Unscored::StaleDimension));
    strict.features = lax.features;
    strict.bind();
    assert!(strict.score(&request, "").outcome.is_ok());
}
