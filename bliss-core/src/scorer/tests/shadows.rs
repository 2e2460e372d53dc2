//! Shadow models beside the active one.

use super::*;

/// Active `m0`, and all others beside it.
fn with_shadows(models: &[Model]) -> ModelSet {
    let name = |i| format!("m{i}");
    let shadows = (1..models.len()).map(name).collect();
    ModelSet {
        models: models.iter().enumerate().map(|(i, model)| named(&name(i), model)).collect(),
        routes: vec![NamedRoute { name: DEFAULT_ROUTE.into(), active: Some(name(0)), shadows }],
    }
}

#[test]
fn shadows_are_evaluated_beside_the_active_model() {
    let models: Vec<_> = (0..64)
        .map(|i| match i % 3 {
            0 => stumps(&[("ip.requests_1m", i as f32, 0.1 * f64::from(i))]),
            1 => stumps(&[("subnet.ips", 4.0, -0.1), ("ip.requests_1m", 50.0, f64::from(i))]),
            _ => stumps(&[("request.header_count", 3.0, 0.3), ("ip.requests_1m", i as f32, 1.0)]),
        })
        .collect();
    for count in [1, 2, 3, 7, 8, 64] {
        let mut bench = Bench::new(rows_of_one_client(), &with_shadows(&models[..count]));
        let mut request = bench.request(&[("ip", "192.0.2.1".into())]);
        request.set_number(bench.names.number("header_count").unwrap(), 4.0);
        let answer = bench.score(&request, "");
        // Dimensions of the shadows are looked up too.
        let counts = Counts { fresh: 1, stale: u32::from(count > 1), ..Counts::default() };
        assert_eq!(answer.counts, counts, "{count} models");
        let shadows = bench.scorer.shadows().to_vec();
        assert_eq!(shadows.iter().map(|s| s.model).collect::<Vec<_>>(), (1..count).collect::<Vec<_>>());
        let all = std::iter::once(answer.outcome).chain(shadows.iter().map(|s| s.outcome));
        for ((i, model), outcome) in models.iter().enumerate().zip(all) {
            let mut alone = Bench::new(rows_of_one_client(), &one_model(model));
            let expected = alone.score(&request, "").outcome.unwrap();
            assert!(alone.scorer.shadows().is_empty());
            let found = outcome.unwrap();
            assert_eq!(found.bot_probability.to_bits(), expected.bot_probability.to_bits(), "model {i}");
            assert_eq!((found.score, found.model), (expected.score, i));
        }
    }
}

#[test]
fn a_shadow_that_cannot_answer_does_not_harm_the_active_model() {
    let good = stumps(&[("ip.requests_1m", 40.0, 2.0)]);
    let gone = stumps(&[("ip.gone", 0.0, 1.0)]);
    let improbable = Model { bias: vec![f64::NAN], ..good.clone() };
    let bad_class = Model {
        dimensions: 3,
        trees: Trees::Oblivious(vec![ObliviousTree { splits: vec![], leaves: vec![1.0, f64::NAN, 3.0] }]),
        bias: vec![0.0; 3],
        floats: vec![],
        ..good.clone()
    };
    let set = with_shadows(&[good.clone(), gone, improbable, good.clone(), bad_class]);
    let mut bench = Bench::new(rows_of_one_client(), &set);
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    let answer = bench.score(&request, "");
    assert_eq!(answer.outcome.unwrap().bot_probability.to_bits(), sigmoid(2.0).to_bits());
    let said: Vec<_> = bench.scorer.shadows().iter().map(|s| s.outcome.map(|scored| scored.score)).collect();
    let score = answer.outcome.unwrap().score;
    let expected =
        [Err(Unscored::MissingInput), Err(Unscored::NoProbability), Ok(score), Err(Unscored::NoProbability)];
    assert_eq!(said, expected);

    // The other way round, shadows are evaluated where the active model cannot answer.
    let set = with_shadows(&[stumps(&[("ip.gone", 0.0, 1.0)]), good]);
    let mut bench = Bench::new(rows_of_one_client(), &set);
    assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput));
    assert_eq!(bench.scorer.shadows()[0].outcome.unwrap().score, score);
    // A request that is not scored has none.
    bench.scorer.forget();
    assert!(bench.scorer.shadows().is_empty());
}

#[test]
fn the_active_model_is_no_shadow_of_its_own_and_each_shadow_is_one() {
    let mut set =
        with_shadows(&[stumps(&[("ip.requests_1m", 40.0, 2.0)]), stumps(&[("subnet.ips", 0.0, 1.0)])]);
    set.routes[0].shadows = ["m0", "m1", "m1"].map(String::from).to_vec();
    let mut bench = Bench::new(rows_of_one_client(), &set);
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    assert!(bench.score(&request, "").outcome.is_ok());
    assert_eq!(bench.scorer.shadows().iter().map(|s| s.model).collect::<Vec<_>>(), [1]);
}
