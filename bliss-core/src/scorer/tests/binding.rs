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

/// Published with the dimension `lists`, whose feature `hosting` is 1 for 192.0.2.1 and 0 for everybody else; or without it.
fn with_lists(feature: Option<Feature>) -> AlignedVec<64> {
    use crate::build::PrefixRows;
    let mut schema = schema();
    let mut change = Change::default();
    if let Some(feature) = feature {
        let mut rows = PrefixRows::new(1);
        rows.push(crate::prefixes::Prefix::parse(b"192.0.2.1").unwrap(), NOW, &[1.0]).unwrap();
        schema.dimensions.push(dimension("lists", vec![KeyPart::network("ip")], vec![feature]));
        change.dimensions =
            vec![(schema.dimensions.len() - 1, DimensionChange::Prefixes(rows.build().unwrap()))];
    }
    pack_change(&schema, &KeySecret([3; SECRET_BYTES]), &change)
}

/// One model serves sites with and without lists. NaN exceeds no border, and where training had it as the largest value, each.
#[test]
fn l3_what_not_every_site_has_is_nan_where_it_is_not_there() {
    use bliss_catboost::ir::NanMode;
    let model = |nan_mode| {
        let mut model = stumps(&[("lists.hosting", 0.5, 1.0), ("ip.requests_1m", 40.0, 2.0)]);
        model.floats[0].nan = nan_mode;
        one_model(&model)
    };
    let raw = |bench: &mut Bench, ip: &str| {
        let request = bench.request(&[("ip", ip.into())]);
        let scored = bench.score(&request, "").outcome.unwrap();
        let value = bench.scorer.inputs(0, &bench.names).next().unwrap();
        assert_eq!((value.group, value.name, value.is_category), ("lists", "hosting", false));
        (scored.bot_probability.to_bits(), value.value, value.status)
    };
    for (nan_mode, unknown) in [(NanMode::Smallest, 0.0), (NanMode::Largest, 1.0)] {
        let mut bench = Bench::new(with_lists(None), &model(nan_mode));
        assert_eq!(bench.scorer.models().models()[0].missing_input(), None);
        for _ in 0..2 {
            let (bits, value, status) = raw(&mut bench, "192.0.2.1");
            assert!(bits == sigmoid(unknown).to_bits() && value.is_nan() && status == Status::Unused);
            // The list comes, with a new schema, and goes again.
            bench.features = with_lists(Some(Feature::number("hosting")));
            bench.bind();
            assert_eq!(raw(&mut bench, "192.0.2.1"), (sigmoid(1.0).to_bits(), 1.0, Status::Fresh));
            assert_eq!(raw(&mut bench, "192.0.2.2"), (sigmoid(0.0).to_bits(), 0.0, Status::Missing));
            bench.features = with_lists(None);
            bench.bind();
        }
    }
    // Of the other type, of another name, or asked for as a category, it is missing as any other would be.
    let category = Feature { kind: FeatureKind::Category, ..Feature::number("hosting") };
    let mut bench = Bench::new(with_lists(Some(category)), &model(NanMode::Smallest));
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput));
    let splits = vec![Split::OneHot(0, category_hash(b"x"))];
    let as_category = Model {
        dimensions: 1,
        scale: 1.0,
        cats: vec![CatFeature { index: 0, name: "lists.hosting".into() }],
        trees: Trees::Oblivious(vec![ObliviousTree { splits, leaves: vec![0.0, 1.0] }]),
        ..Model::default()
    };
    for other in [stumps(&[("lists.hostng", 0.5, 1.0)]), as_category] {
        let mut bench = Bench::new(with_lists(None), &one_model(&other));
        let request = bench.request(&[("ip", "192.0.2.1".into())]);
        assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput));
        assert!(bench.scorer.models().models()[0].missing_input().is_some());
    }
}
