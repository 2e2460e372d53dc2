//! What a score comes from.

use super::*;
use bliss_catboost::{ExplainError, ExplainOptions, ExplainScratch, Explainer, compile_explainable};

/// Three classes over a feature that is a number, one that is a category, an attribute, and a number and a category of the
/// request's own.
fn model() -> Model {
    let cat = |index, name: &str| CatFeature { index, name: name.into() };
    let floats = ["ip.requests_1m", "subnet.ips", "request.header_count"];
    let splits = [
        vec![Split::Float(0, 0), Split::OneHot(0, category_hash(b"hosting"))],
        vec![Split::Float(1, 0), Split::Float(2, 0)],
        vec![
            Split::OneHot(1, category_hash(b"XX")),
            Split::OneHot(2, category_hash(b"/")),
            Split::Float(0, 0),
        ],
    ];
    let leaf = |at: usize| ((at * 37 + 11) % 19) as f64 / 7.0 - 1.0;
    let tree = |(at, splits): (usize, &Vec<Split>)| ObliviousTree {
        splits: splits.clone(),
        leaves: (0..3 << splits.len()).map(|leaf_at| leaf(leaf_at + 50 * at)).collect(),
    };
    Model {
        dimensions: 3,
        scale: 1.5,
        bias: vec![0.1, -0.2, 0.3],
        floats: (0..).zip(floats).map(|(index, name)| FloatFeature { index, ..number(name, 4.0) }).collect(),
        cats: vec![cat(0, "ip.network"), cat(1, "request.country"), cat(2, "request.path")],
        leaf_weights: splits
            .iter()
            .map(|s| (0..1 << s.len()).map(|at| 1.0 + f64::from(at)).collect())
            .collect(),
        trees: Trees::Oblivious(splits.iter().enumerate().map(tree).collect()),
        ..Model::default()
    }
}

fn published(model: &Model, bot_class: u32, explain: bool) -> ModelSet {
    let compiled = if explain { compile_explainable(model) } else { compile(model) }.unwrap();
    let named = NamedModel { name: "m".into(), version: "7".into(), bot_class, compiled };
    let other = NamedModel { bot_class: 1, name: "other".into(), ..named.clone() };
    ModelSet { models: vec![named, other], routes: vec![route(DEFAULT_ROUTE, "m")] }
}

impl Bench {
    fn explain(
        &mut self,
        explaining: &mut Explaining,
        request: &Request<'_>,
        model: Option<&str>,
    ) -> Result<Explained, NotExplained> {
        let Self { scorer, features, models, .. } = self;
        // SAFETY:
        // - `self.models` was bound last and is not changed
        unsafe { scorer.explain(explaining, features, models, request, "", model, NOW) }
    }
}

#[test]
fn d4_inputs_of_all_kinds_are_explained_for_every_class() {
    let mut explaining = Explaining::new();
    for form in [AnswerForm::Classes, AnswerForm::EachSigmoid] {
        for bot_class in 0..3 {
            let model = Model { answer: form, ..model() };
            let mut bench = Bench::new(rows_of_one_client(), &published(&model, bot_class, true));
            let mut request = bench.request(&[("ip", "192.0.2.1".into()), ("path", "/".into())]);
            request.set_number(bench.names.number("header_count").unwrap(), 5.0);
            request.set_category(bench.names.category("country").unwrap(), b"XX");
            let scored = bench.score(&request, "").outcome.unwrap();
            let explained = bench.explain(&mut explaining, &request, None).unwrap();
            assert_eq!(explained.scored, scored);
            let parts: Vec<_> = bench.scorer.contributions(&explaining, &explained, &bench.names).collect();
            let sum = explained.expected + parts.iter().map(|part| part.part).sum::<f64>();
            assert!((sum - explained.answer).abs() < 1e-12);
            assert!(parts.windows(2).all(|two| two[0].part.abs() >= two[1].part.abs()));

            let compiled = compile_explainable(&model).unwrap();
            let opened = bliss_catboost::ModelRef::open(&compiled).unwrap();
            let explainer = Explainer::new(opened, ExplainOptions::default()).unwrap();
            let inputs: Vec<_> = bench.scorer.inputs(0, &bench.names).collect();
            let names: Vec<_> = opened.inputs().map(|input| input.name).collect();
            let found: Vec<_> =
                inputs.iter().map(|input| format!("{}.{}", input.group, input.name)).collect();
            assert_eq!(found, names);
            let values: Vec<f32> = inputs.iter().map(|input| input.value).collect();
            let binding: Vec<u32> = (0..values.len() as u32).collect();
            let mut shap = vec![0.0; explainer.outputs()];
            let mut scratch = ExplainScratch::for_explainer(&explainer);
            explainer.explain(&values, &binding, &mut scratch, &mut shap).unwrap();
            let own = &shap[bot_class as usize * (values.len() + 1)..][..=values.len()];
            assert_eq!(explained.expected, own[values.len()]);
            for part in &parts {
                let at = part.index as usize;
                assert_eq!(part.part, own[at], "{form:?} {bot_class} {}", names[at]);
                let is_category = ["network", "country", "path"].contains(&part.input.name);
                assert_eq!(part.input.is_category, is_category);
            }
            let status = |name: &str| inputs.iter().find(|input| input.name == name).unwrap().status;
            assert_eq!(
                [status("network"), status("ips"), status("path")],
                [Status::Fresh, Status::Stale, Status::Unused]
            );
        }
    }
}

/// Two classes, either of which may be that of bots.
#[test]
fn d4_points_are_the_way_to_the_score() {
    let mut explaining = Explaining::new();
    let stump = |weight: f64| Model {
        leaf_weights: vec![vec![3.0, 1.0], vec![1.0, 1.0]],
        ..stumps(&[("ip.requests_1m", 40.0, weight), ("subnet.ips", 4.0, -0.1)])
    };
    for (weight, bot_class) in [(2.0, 1), (2.0, 0), (-3.0, 1), (-3.0, 0), (0.2, 1)] {
        let mut bench = Bench::new(rows_of_one_client(), &published(&stump(weight), bot_class, true));
        let request = bench.request(&[("ip", "192.0.2.1".into())]);
        let explained = bench.explain(&mut explaining, &request, None).unwrap();
        let sign = if bot_class == 1 { 1.0 } else { -1.0 };
        assert!((explained.answer - sign * (weight - 0.1)).abs() < 1e-12);
        assert!((explained.expected - sign * (weight / 4.0 - 0.05)).abs() < 1e-12);
        assert_eq!(explained.expected_score, bot_score(sigmoid(explained.expected)).unwrap());
        let parts: Vec<_> = bench.scorer.contributions(&explaining, &explained, &bench.names).collect();
        assert!((parts[0].part - sign * 0.75 * weight).abs() < 1e-12);
        assert!(parts.iter().all(|part| part.part * part.points < 0.0), "more of a bot, less of a score");
        let points: f64 = parts.iter().map(|part| part.points).sum();
        let way = f64::from(explained.scored.score) - f64::from(explained.expected_score);
        let far = if weight == 0.2 { 0.6 } else { 1e-9 };
        assert!((points - way).abs() < far, "{points} instead of {way}");
    }
}

#[test]
fn what_cannot_be_explained_is_said() {
    let mut explaining = Explaining::new();
    let mut bench = Bench::new(rows_of_one_client(), &published(&model(), 2, false));
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    assert_eq!(bench.explain(&mut explaining, &request, None), Err(NotExplained::NoLeafWeights));
    assert_eq!(bench.explain(&mut explaining, &request, Some("nobody")), Err(NotExplained::NoSuchModel));
    assert!(bench.score(&request, "").outcome.is_ok());

    let gone = Model { leaf_weights: vec![vec![1.0, 1.0]], ..stumps(&[("ip.gone", 40.0, 1.0)]) };
    let mut bench = Bench::new(rows_of_one_client(), &published(&gone, 1, true));
    let missing = Err(NotExplained::Unscored(Unscored::MissingInput));
    assert_eq!(bench.explain(&mut explaining, &request, None), missing);

    let mut heavy = stumps(&[("ip.requests_1m", 40.0, 1.0)]);
    heavy.leaf_weights = vec![vec![f64::MAX, f64::MAX]];
    let mut bench = Bench::new(rows_of_one_client(), &published(&heavy, 1, true));
    let damaged = Err(NotExplained::Damaged(ExplainError::Corrupt { tree: 0 }));
    assert_eq!(bench.explain(&mut explaining, &request, None), damaged);

    // Leaves that add up to no number: no score, nothing to explain.
    let mut endless = stumps(&[("ip.requests_1m", 50.0, f64::INFINITY)]);
    endless.leaf_weights = vec![vec![1.0, 1.0]];
    let mut bench = Bench::new(rows_of_one_client(), &published(&endless, 1, true));
    assert!(bench.score(&request, "").outcome.is_ok(), "this request comes to the other leaf");
    let none = Err(NotExplained::Unscored(Unscored::NoProbability));
    assert_eq!(bench.explain(&mut explaining, &request, None), none);
}
