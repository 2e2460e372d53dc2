//! Scores: inputs, categories and routes.

use super::*;

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

/// Each answer for itself, as losses of several labels have it, and answers that are probabilities already: a score only
/// where they are.
#[test]
fn answers_are_read_as_the_model_says() {
    let answers = [-1.5, 0.25, 1.0, 1.25, f64::NAN];
    let of = |answer: AnswerForm, bot_class: u32| {
        let model = Model {
            dimensions: answers.len(),
            scale: 1.0,
            bias: vec![0.0; answers.len()],
            answer,
            trees: Trees::Oblivious(vec![ObliviousTree { splits: vec![], leaves: answers.to_vec() }]),
            ..Model::default()
        };
        let mut set = one_model(&model);
        set.models[0].bot_class = bot_class;
        let mut bench = Bench::new(rows_of_one_client(), &set);
        let request = bench.request(&[("ip", "192.0.2.1".into())]);
        bench.score(&request, "").outcome.map(|scored| scored.bot_probability.to_bits())
    };
    for (class, raw) in (0..).zip(answers) {
        let found = of(AnswerForm::EachSigmoid, class);
        let expected = if raw.is_nan() { Err(Unscored::NoProbability) } else { Ok(sigmoid(raw).to_bits()) };
        assert_eq!(found, expected, "log-odds {raw}");
        let found = of(AnswerForm::Probabilities, class);
        let is_probability = (0.0..=1.0).contains(&raw);
        let expected = if is_probability { Ok(raw.to_bits()) } else { Err(Unscored::NoProbability) };
        assert_eq!(found, expected, "probability {raw}");
    }
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
        // Registered, but not in the schema; and one that is a number of the same name.
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
    let documented = include_str!("../../../../docs/models.md");
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
