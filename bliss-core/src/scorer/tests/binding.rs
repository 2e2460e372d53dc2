//! Binding to publications that changed or are damaged.

use super::*;

#[test]
fn an_input_that_is_gone_is_named_and_gives_no_score() {
    for gone in ["ip.gone", "request.gone", "gone", "ip.network", "request.country", "nope.requests_1m"] {
        let mut bench = Bench::new(
            rows_of_one_client(),
            &one_model(&stumps(&[("ip.requests_1m", 0.0, 1.0), (gone, 0.0, 1.0)])),
        );
        let request = bench.request(&[("ip", "192.0.2.1".into())]);
        assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput), "{gone}");
        assert_eq!(bench.scorer.models().models()[0].missing_input(), Some(gone));
    }
}

/// Dimensions and features added, removed and reordered while serving.
#[test]
fn rebinds_to_a_changed_schema() {
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&stumps(&[("ip.requests_1m", 40.0, 2.0)])));
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    let before = bench.score(&request, "").outcome.unwrap();

    let mut changed = schema();
    changed.dimensions.swap(0, 2);
    changed.dimensions[2].features.insert(0, Feature::number("new"));
    let network = f32::from_bits(category_hash(b"hosting"));
    bench.features = pack_rows(&changed, &[(2, &["192.0.2.1".into()], 0, &[1.0, 42.0, network])]);
    assert_eq!(bench.scorer.bind_features(&bench.features, &bench.names), Ok(true));
    assert_eq!(
        bench.score(&request, ""),
        Answer::unscored(Unscored::NoActiveModel),
        "models are bound to old indices"
    );
    bench.scorer.bind_models(&bench.models, &bench.names).unwrap();
    assert_eq!(bench.score(&request, "").outcome.unwrap(), before);

    // The same schema with other rows: models stay bound.
    bench.features = pack_rows(&changed, &[(2, &["192.0.2.1".into()], 0, &[1.0, 0.0, network])]);
    assert_eq!(bench.scorer.bind_features(&bench.features, &bench.names), Ok(false));
    assert_eq!(bench.score(&request, "").outcome.unwrap().bot_probability, 0.5);

    changed.dimensions.remove(2);
    bench.features = pack_rows(&changed, &[]);
    bench.bind();
    assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput));
}

#[test]
fn damaged_publications_unbind() {
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&stumps(&[("ip.requests_1m", 40.0, 2.0)])));
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    assert!(bench.scorer.bind_features(&bench.features[..100], &bench.names).is_err());
    assert_eq!(bench.score(&request, ""), Answer::unscored(Unscored::NoActiveModel));
    bench.bind();
    assert!(bench.score(&request, "").outcome.is_ok());
    for len in [0, 63, 64, 200, bench.models.len() - 1] {
        assert!(bench.scorer.bind_models(&bench.models[..len], &bench.names).is_err(), "{len}");
        assert_eq!(bench.score(&request, ""), Answer::unscored(Unscored::NoActiveModel));
    }
}
