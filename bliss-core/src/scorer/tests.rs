use rkyv::util::AlignedVec;

use super::*;
use crate::build::{
    BuildJob, Change, DimensionChange, FeaturesBuilder, ModelSet, NamedModel, NamedRoute, Rows,
};
use crate::key::{KeySecret, SECRET_BYTES};
use crate::publication::models::DEFAULT_ROUTE;
use crate::schema::{Attribute, AttributeKind, Dimension, Feature, FeatureKind, KeyPart, Schema};
use crate::score::{Counts, bot_score};
use bliss_catboost::ir::{CatFeature, FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_catboost::{category_hash, compile};

pub(super) const NOW: u32 = 1_000_000;

pub(super) fn dimension(name: &str, key: Vec<KeyPart>, features: Vec<Feature>) -> Dimension {
    Dimension { name: name.into(), key, max_age_seconds: 600, features }
}

pub(super) fn with_default(name: &str, default: f32) -> Feature {
    Feature { default, ..Feature::number(name) }
}

fn schema() -> Schema {
    let category = Feature { kind: FeatureKind::Category, ..Feature::number("network") };
    Schema {
        attributes: vec![Attribute { name: "tenant".into(), kind: AttributeKind::U64 }],
        dimensions: vec![
            dimension("ip", vec![KeyPart::whole("ip")], vec![with_default("requests_1m", 0.5), category]),
            dimension("subnet", vec![KeyPart::subnet("ip", 24, 48)], vec![with_default("ips", -1.0)]),
            dimension(
                "tenant_path",
                vec![KeyPart::whole("tenant"), KeyPart::whole("path")],
                vec![with_default("errors", 7.0)],
            ),
        ],
        clock_skew_seconds: 60,
    }
}

/// Publishes rows given as dimension, attribute values, age in seconds, and columns.
fn pack_rows(schema: &Schema, rows: &[(usize, &[Value<'_>], i64, &[f32])]) -> AlignedVec<64> {
    let secret = KeySecret([3; SECRET_BYTES]);
    let empty = pack_change(schema, &secret, &Change::default());
    let mut keys = BoundDimensions::new();
    keys.bind(FeaturesRef::open(&empty).unwrap(), &Names::default()).unwrap();
    let tables = schema.dimensions.iter().enumerate().map(|(i, d)| {
        let mut table = Rows::new(d.features.len());
        for (_, values, age, columns) in rows.iter().filter(|r| r.0 == i) {
            table.push(keys.key(i, values).unwrap(), (i64::from(NOW) - age) as u32, columns);
        }
        (i, DimensionChange::Replace(table))
    });
    pack_change(schema, &secret, &Change { dimensions: tables.collect() })
}

pub(super) fn pack_change(schema: &Schema, secret: &KeySecret, change: &Change) -> AlignedVec<64> {
    let builder = FeaturesBuilder::plan(schema, secret, None, change).unwrap();
    let mut bytes = AlignedVec::new();
    bytes.resize(builder.bytes() as usize, 0);
    builder.write(&mut bytes, 1, |jobs| jobs.into_iter().map(BuildJob::run).sum()).unwrap();
    bytes
}

use crate::attribute::Value;

fn number(name: &str, border: f32) -> FloatFeature {
    FloatFeature { name: name.into(), borders: vec![border], ..FloatFeature::default() }
}

/// A model that adds `weight` for each of its numbers above its border.
fn stumps(features: &[(&str, f32, f64)]) -> Model {
    Model {
        dimensions: 1,
        scale: 1.0,
        floats: features
            .iter()
            .enumerate()
            .map(|(index, (name, border, _))| FloatFeature { index, ..number(name, *border) })
            .collect(),
        trees: Trees::Oblivious(
            features
                .iter()
                .enumerate()
                .map(|(i, (_, _, weight))| ObliviousTree {
                    splits: vec![Split::Float(i, 0)],
                    leaves: vec![0.0, *weight],
                })
                .collect(),
        ),
        ..Model::default()
    }
}

fn named(name: &str, model: &Model) -> NamedModel {
    let compiled = compile(model).unwrap();
    NamedModel { name: name.into(), version: "7".into(), bot_class: 1, compiled }
}

fn route(name: &str, active: &str) -> NamedRoute {
    NamedRoute { name: name.into(), active: Some(active.into()), shadows: vec![] }
}

fn sigmoid(raw: f64) -> f64 {
    1.0 / (1.0 + (-raw).exp())
}

struct Bench {
    names: Names,
    scorer: Scorer,
    features: AlignedVec<64>,
    models: AlignedVec<64>,
}

impl Bench {
    fn new(features: AlignedVec<64>, set: &ModelSet) -> Self {
        let mut bench =
            Self { names: Names::default(), scorer: Scorer::new(), features, models: set.pack().unwrap() };
        for name in ["ip", "tenant", "path"] {
            bench.names.attribute(name).unwrap();
        }
        bench.names.number("header_count").unwrap();
        bench.names.category("country").unwrap();
        bench.bind();
        bench
    }

    fn bind(&mut self) {
        self.scorer.bind_features(&self.features, &self.names).unwrap();
        self.scorer.bind_models(&self.models, &self.names).unwrap();
    }

    fn request<'a>(&mut self, attributes: &[(&str, Value<'a>)]) -> Request<'a> {
        let mut request = Request::new();
        attributes
            .iter()
            .for_each(|(name, value)| request.set_attribute(self.names.attribute(name).unwrap(), *value));
        request
    }

    fn score(&mut self, request: &Request<'_>, route: &str) -> Answer {
        // SAFETY:
        // - `self.models` was bound last and is not changed
        unsafe { self.scorer.score(&self.features, &self.models, request, route, NOW) }
    }
}

fn one_model(model: &Model) -> ModelSet {
    ModelSet { models: vec![named("m", model)], routes: vec![route(DEFAULT_ROUTE, "m")] }
}

fn rows_of_one_client() -> AlignedVec<64> {
    let network = f32::from_bits(category_hash(b"hosting"));
    pack_rows(
        &schema(),
        &[
            (0, &["192.0.2.1".into()], 10, &[42.0, network]),
            (1, &["192.0.2.99".into()], 601, &[5.0]),
            (2, &[Value::U64(9), "/".into()], -60, &[0.25]),
        ],
    )
}

#[test]
fn every_dimension_says_how_it_answered() {
    let mut bench = Bench::new(rows_of_one_client(), &ModelSet::default());
    let network = f32::from_bits(category_hash(b"hosting"));
    let features = bench.features.clone();

    let request = bench.request(&[
        ("ip", "::ffff:192.0.2.1".into()),
        ("tenant", "9".into()),
        ("path", Value::Binary(b"/")),
    ]);
    let (values, statuses) = bench.scorer.look_up(&features, &request, NOW);
    assert_eq!(statuses, [Status::Fresh, Status::Stale, Status::Fresh]);
    assert_eq!(
        values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
        [42.0, network, 5.0, 0.25].map(f32::to_bits)
    );

    let request =
        bench.request(&[("ip", "198.51.100.1".into()), ("tenant", "nine".into()), ("path", "/".into())]);
    let (values, statuses) = bench.scorer.look_up(&features, &request, NOW);
    assert_eq!(statuses, [Status::Missing, Status::Missing, Status::Absent]);
    assert_eq!(values, [0.5, 0.0, -1.0, 7.0]);

    let request = bench.request(&[("tenant", Value::U64(9))]);
    let (_, statuses) = bench.scorer.look_up(&features, &request, NOW);
    assert_eq!(statuses, [Status::Absent; 3]);
}

#[test]
fn time_is_the_callers() {
    let mut bench = Bench::new(rows_of_one_client(), &ModelSet::default());
    let features = bench.features.clone();
    let request =
        bench.request(&[("ip", "192.0.2.1".into()), ("tenant", Value::U64(9)), ("path", "/".into())]);
    let mut at = |now| bench.scorer.look_up(&features, &request, now).1.to_vec();
    // Updated 10 and 601 seconds before NOW, and 60 after; all stale after 600 seconds, or 60 too early.
    assert_eq!(at(NOW + 590), [Status::Fresh, Status::Stale, Status::Fresh]);
    assert_eq!(at(NOW + 591), [Status::Stale, Status::Stale, Status::Fresh]);
    assert_eq!(at(NOW + 661), [Status::Stale, Status::Stale, Status::Stale]);
    assert_eq!(at(NOW - 1), [Status::Fresh, Status::Fresh, Status::Stale]);
}

#[test]
fn keys_made_by_the_caller_find_the_same_rows() {
    let mut bench = Bench::new(rows_of_one_client(), &ModelSet::default());
    let features = bench.features.clone();
    let dimensions = bench.scorer.dimensions();
    let keys = [
        dimensions.key(0, &["192.0.2.1".into()]).unwrap(),
        dimensions.key(1, &["192.0.2.1".into()]).unwrap(),
        dimensions.key(2, &["9".into(), "/".into()]).unwrap(),
    ];
    assert_eq!(dimensions.key(0, &[]), None);
    assert_eq!(dimensions.key(3, &["192.0.2.1".into()]), None);
    let (values, statuses) = bench.scorer.look_up_keys(&features, &keys, NOW);
    assert_eq!((values[0], values[2], values[3]), (42.0, 5.0, 0.25));
    assert_eq!(statuses, [Status::Fresh, Status::Stale, Status::Fresh]);
    let (_, statuses) = bench.scorer.look_up_keys(&features, &keys[..1], NOW);
    assert_eq!(statuses, [Status::Fresh, Status::Absent, Status::Absent]);
}

#[test]
fn scores_from_features_and_inputs_of_the_request() {
    let mut model = stumps(&[("ip.requests_1m", 40.0, 2.0), ("request.header_count", 3.5, 0.5)]);
    model.cats = ["ip.network", "request.country"]
        .iter()
        .enumerate()
        .map(|(index, name)| CatFeature { index, name: (*name).into() })
        .collect();
    let Trees::Oblivious(trees) = &mut model.trees else { unreachable!() };
    for (cat, value, weight) in [(0, "hosting", 8.0), (1, "", 16.0), (1, "NZ", 32.0)] {
        let splits = vec![Split::OneHot(cat, category_hash(value.as_bytes()))];
        trees.push(ObliviousTree { splits, leaves: vec![0.0, weight] });
    }
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&model));
    assert_eq!(bench.scorer.models().models()[0].missing_input(), None);

    let mut request = bench.request(&[("ip", "192.0.2.1".into())]);
    let answer = bench.score(&request, "");
    // The tenant's dimension and the subnet's are not asked, since the model uses neither. A number that is not said
    // is NaN, which is above nothing; a category that is not said is the empty string.
    assert_eq!(answer.counts, Counts { fresh: 1, ..Counts::default() });
    let scored = answer.outcome.unwrap();
    assert_eq!(scored.bot_probability.to_bits(), sigmoid(2.0 + 8.0 + 16.0).to_bits());
    assert_eq!(Some(scored.score), bot_score(scored.bot_probability));

    request.set_number(bench.names.number("header_count").unwrap(), 4.0);
    request.set_category(bench.names.category("country").unwrap(), b"NZ");
    let scored = bench.score(&request, "no such route").outcome.unwrap();
    assert_eq!(scored.bot_probability.to_bits(), sigmoid(2.0 + 0.5 + 8.0 + 32.0).to_bits());
    assert_eq!((scored.model, bench.scorer.models().models()[0].name()), (0, "m"));

    let request = bench.request(&[]);
    let answer = bench.score(&request, "");
    assert_eq!(answer.counts, Counts { absent: 1, ..Counts::default() });
    assert_eq!(answer.outcome.unwrap().bot_probability.to_bits(), sigmoid(16.0).to_bits());
}

/// A model that adds a sixteenth of `weight` where a category is a text.
fn categories(tests: &[(&str, &str, f64)]) -> Model {
    let cats = tests.iter().enumerate();
    let cats = cats.map(|(index, (name, ..))| CatFeature { index, name: (*name).into() }).collect();
    let trees = tests.iter().enumerate().map(|(i, (_, text, weight))| ObliviousTree {
        splits: vec![Split::OneHot(i, category_hash(text.as_bytes()))],
        // So that no two sums have the same probability.
        leaves: vec![0.0, *weight / 16.0],
    });
    Model { dimensions: 1, scale: 1.0, cats, trees: Trees::Oblivious(trees.collect()), ..Model::default() }
}

#[test]
fn attributes_of_the_request_are_categories_to_models_that_ask_for_them() {
    let model = categories(&[
        ("request.path", "/login", 1.0),
        ("request.ip", "192.0.2.1", 2.0),
        ("request.tenant", "9", 4.0),
        ("request.ja3", "00ff00ff00ff00ff00ff00ff00ff00ff", 8.0),
        ("request.country", "NZ", 16.0),
        ("request.host", "", 32.0),
    ]);
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&model));
    for name in ["ja3", "host"] {
        bench.names.attribute(name).unwrap();
    }
    // `country` is an attribute too, but the registered category of the name wins.
    bench.names.attribute("country").unwrap();
    bench.bind();
    assert_eq!(bench.scorer.models().models()[0].missing_input(), None);
    let raw = |bench: &mut Bench, request: &Request<'_>| {
        let bits = bench.score(request, "").outcome.unwrap().bot_probability.to_bits();
        (0..64).map(f64::from).find(|raw| sigmoid(*raw / 16.0).to_bits() == bits).unwrap()
    };
    let ja3 = [0, 255].repeat(8);
    let mut request = bench.request(&[
        ("path", "/login".into()),
        ("ip", Value::Binary(&[192, 0, 2, 1])),
        ("tenant", "009".into()),
        ("ja3", Value::Binary(&ja3)),
        ("country", "NZ".into()),
    ]);
    // Without the category, and without a host, which is the empty string then.
    assert_eq!(raw(&mut bench, &request), 47.0);
    request.set_category(bench.names.category("country").unwrap(), b"NZ");
    request.set_attribute(bench.names.attribute("host").unwrap(), "shop.example".into());
    assert_eq!(raw(&mut bench, &request), 31.0);
    // What does not fit its kind is the empty string, as what is not there.
    let request =
        bench.request(&[("ip", "nonsense".into()), ("tenant", "x".into()), ("path", "/Login".into())]);
    assert_eq!(raw(&mut bench, &request), 32.0);
}

#[test]
fn attributes_are_categories_only_and_only_those_the_schema_knows() {
    for (model, missing) in [
        (stumps(&[("request.tenant", 3.0, 1.0)]), "request.tenant"),
        (categories(&[("request.unknown", "", 1.0)]), "request.unknown"),
        (categories(&[("request.user_agent", "", 1.0)]), "request.user_agent"),
        (categories(&[("request.header_count", "", 1.0)]), "request.header_count"),
    ] {
        let mut bench = Bench::new(rows_of_one_client(), &one_model(&model));
        // Registered, but nobody says what it is; and one that is a number of the same name.
        bench.names.attribute("unknown").unwrap();
        bench.names.attribute("header_count").unwrap();
        bench.bind();
        assert_eq!(bench.scorer.models().models()[0].missing_input(), Some(missing));
        let request = bench.request(&[]);
        assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput));
    }
}

#[test]
fn documented_categories_hold() {
    let documented = include_str!("../../../docs/models.md");
    for (kind, given, text) in [
        (AttributeKind::Ip, "::ffff:192.0.2.1", "192.0.2.1"),
        (AttributeKind::Ip, "2001:DB8:0:0::1", "2001:db8::1"),
        (
            AttributeKind::Hex { bytes: 16 },
            "E7D705A3286E19EA42F587B344EE6865",
            "e7d705a3286e19ea42f587b344ee6865",
        ),
        (AttributeKind::String, "Shop.example", "Shop.example"),
        (AttributeKind::U64, "064512", "64512"),
    ] {
        let canonical = crate::attribute::Canonical::new(kind, given.into()).unwrap();
        let mut room = crate::attribute::TextRoom::default();
        assert_eq!(canonical.text(kind, &mut room), text.as_bytes());
        let row = format!("| `{given}` | `{text}` | `{:08x}` |", category_hash(text.as_bytes()));
        assert!(documented.contains(&row), "docs/models.md lacks the row {row}");
    }
}

#[test]
fn routes_choose_models() {
    let set = ModelSet {
        models: vec![
            named("low", &stumps(&[("ip.requests_1m", 0.0, -3.0)])),
            named("high", &stumps(&[("ip.requests_1m", 0.0, 3.0)])),
        ],
        routes: vec![
            route("shop", "high"),
            NamedRoute { name: "off".into(), active: None, shadows: vec!["low".into()] },
        ],
    };
    let mut bench = Bench::new(rows_of_one_client(), &set);
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    assert_eq!(bench.score(&request, "shop").outcome.unwrap().model, 1);
    for without in ["", "off", "unknown"] {
        assert_eq!(bench.score(&request, without), Answer::unscored(Unscored::NoActiveModel), "{without:?}");
    }
}

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
fn more_dimensions_than_a_batch() {
    let names: Vec<_> = (0..64).map(|i| format!("d{i}")).collect();
    let key = || vec![KeyPart::whole("ip")];
    let dimensions = names.iter().map(|n| dimension(n, key(), vec![Feature::number("x")])).collect();
    let schema = Schema { dimensions, ..Schema::default() };
    let ip: [Value<'_>; 1] = ["192.0.2.1".into()];
    let columns: Vec<_> = (0..64).map(|i| [i as f32 + 1.0]).collect();
    let rows: Vec<_> =
        (0..64).filter(|i| i % 3 == 0).map(|i| (i, ip.as_slice(), 0, columns[i].as_slice())).collect();
    let mut bench = Bench::new(pack_rows(&schema, &rows), &ModelSet::default());
    let request = bench.request(&[("ip", ip[0])]);
    let (values, statuses) = bench.scorer.look_up(&bench.features, &request, NOW);
    for i in 0..64 {
        let expected = if i % 3 == 0 { (i as f32 + 1.0, Status::Fresh) } else { (0.0, Status::Missing) };
        assert_eq!((values[i], statuses[i]), expected, "{i}");
    }
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
