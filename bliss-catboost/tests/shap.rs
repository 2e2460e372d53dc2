//! SHAP values: equal to CatBoost's, to Shapley's definition on small models, and never more or less than the answer.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bliss_catboost::ir::{Element, Model, Node, Split, Trees};
use bliss_catboost::{
    BoundedExplainer, CompileError, Convention, EvalError, ExplainError, ExplainOptions, ExplainScratch,
    Explainer, InputKind, ModelRef, Scratch, compile, compile_explainable, import, ir,
};
use common::random::{Random, Row, Shape, holds, model, row, scatter, shapes};
use common::{Case, cases, folders, skipped};
use proptest::prelude::*;

/// Rows of each model that Python explains; it takes a minute for some of all rows (`BLISS_SHAP_ROWS`).
const ROWS: usize = 256;

const CONVENTIONS: [Convention; 2] = [Convention::Exact, Convention::CatBoost];

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

/// Explains a row by walks, by tables and straight from the bytes, which must agree; gives the walks' values.
struct Both<'m> {
    explainers: [Explainer<'m>; 2],
    scratch: ExplainScratch,
    /// Knows one convention.
    bounded: Option<(BoundedExplainer, Scratch)>,
}

impl<'m> Both<'m> {
    fn new(model: ModelRef<'m>, convention: Convention) -> Self {
        let explainers = [0, usize::MAX]
            .map(|table_bytes| Explainer::new(model, ExplainOptions { convention, table_bytes }).unwrap());
        assert_eq!(explainers[0].tables(), 0);
        let mut scratch = ExplainScratch::for_explainer(&explainers[0]);
        scratch.reserve(&explainers[1]);
        let bounded =
            (convention == Convention::Exact).then(|| (BoundedExplainer::new(), Scratch::for_model(&model)));
        Self { explainers, scratch, bounded }
    }

    fn explain(&mut self, values: &[f32], binding: &[u32]) -> Vec<f64> {
        let [walks, tables] = self.explainers.each_ref().map(|explainer| {
            let mut out = vec![f64::NAN; explainer.outputs()];
            explainer.explain(values, binding, &mut self.scratch, &mut out).unwrap();
            out
        });
        for (walk, table) in walks.iter().zip(&tables) {
            assert!(
                (walk - table).abs() <= 1e-12 * walk.abs().max(1.0),
                "{walk} by a walk, {table} by tables"
            );
        }
        if let Some((bounded, scratch)) = &mut self.bounded {
            let mut out = vec![f64::NAN; walks.len()];
            bounded.explain(&self.explainers[0].model(), values, binding, scratch, &mut out).unwrap();
            assert_eq!(out, walks, "straight from the bytes");
        }
        walks
    }
}

/// Compares with the values that CatBoost wrote, and the sums with its answers.
fn check(case: &Case, model: &ir::Model, shap: &[f64], conventions: &[Convention]) {
    let name = &case.name;
    let compiled = compile_explainable(model).unwrap_or_else(|e| panic!("{name}: {e}"));
    let opened = ModelRef::open(&compiled).unwrap();
    let binding = case.binding(&opened);
    let (dimensions, inputs) = (opened.output_dimensions(), opened.inputs().len());
    let columns = case.floats + case.categories();
    let rows = shap.len() / dimensions / (columns + 1);
    assert_eq!(rows * dimensions * (columns + 1), shap.len(), "{name}");
    assert!(rows > 0 && rows <= case.rows, "{name}");
    for &convention in conventions {
        let mut both = Both::new(opened, convention);
        for (row, shap) in shap.chunks_exact(dimensions * (columns + 1)).enumerate() {
            let found = both.explain(&case.values(row), &binding);
            for (k, (found, shap)) in found.chunks(inputs + 1).zip(shap.chunks(columns + 1)).enumerate() {
                // CatBoost's was computed without the scale.
                let mut expected = vec![0.0; columns];
                for (value, column) in found.iter().zip(&binding) {
                    expected[*column as usize] = *value / model.scale;
                }
                let bias = model.bias.get(k).copied().unwrap_or(0.0);
                expected.push((found[inputs] - bias) / model.scale + bias);
                for (column, (ours, theirs)) in expected.iter().zip(shap).enumerate() {
                    assert!(
                        close(*ours, *theirs),
                        "{name} {convention:?} row {row} dimension {k} column {column}: {ours} instead of {theirs}"
                    );
                }
                let answer = case.raw[row * dimensions + k];
                let sum: f64 = found.iter().sum();
                if is_plain(model) {
                    assert!(close(sum, answer), "{name} {convention:?} row {row}: {sum} instead of {answer}");
                }
            }
        }
    }
}

/// Whether no leaf hangs beside an inner node: the trees that CatBoost explains as Shapley defines it.
fn is_plain(model: &ir::Model) -> bool {
    match &model.trees {
        Trees::Oblivious(_) => true,
        Trees::NonSymmetric(trees) => trees.iter().all(|tree| tree.implied == 0),
    }
}

/// On other trees CatBoost's values do not add up to its answers, so that exact ones are not the same.
fn conventions(model: &ir::Model) -> &'static [Convention] {
    if is_plain(model) { &CONVENTIONS } else { &[Convention::CatBoost] }
}

fn shap_folders() -> Vec<PathBuf> {
    let mut folders = folders();
    folders.push(common::testdata().with_file_name("shap"));
    folders
}

/// The values of a file of numbers.
fn shap_of(folder: &Path, name: &str) -> Option<Vec<f64>> {
    let bytes = std::fs::read(folder.join(format!("{name}.shap.f64"))).ok()?;
    Some(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
}

/// An interpreter with the package `catboost`.
fn python() -> Option<String> {
    let python = std::env::var("BLISS_CATBOOST_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import catboost, numpy"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    skipped(&format!("CatBoost's SHAP values ({python} has no package catboost; set BLISS_CATBOOST_PYTHON)"));
    None
}

fn run(python: &str, script: &str, arguments: &[&std::ffi::OsStr]) {
    let script = common::testdata().with_file_name(script);
    let status = Command::new(python).arg(script).args(arguments).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

fn check_folder(python: &str, folder: &Path, say: &str) -> usize {
    let out = tempfile::tempdir().unwrap();
    let rows = std::env::var("BLISS_SHAP_ROWS").map_or(ROWS, |rows| rows.parse().unwrap());
    run(python, "shap_values.py", &[folder.as_os_str(), out.path().as_os_str(), rows.to_string().as_ref()]);
    let mut models = 0;
    for case in cases(folder) {
        eprintln!("{} {say}", case.name);
        let shap = shap_of(out.path(), &case.name).unwrap();
        let model = import(&case.file).unwrap();
        check(&case, &model, &shap, conventions(&model));
        if let (Some(json), Trees::Oblivious(_)) = (&case.json, &model.trees) {
            check(&case, &import(json).unwrap(), &shap, &[Convention::Exact]);
        }
        models += 1;
    }
    models
}

#[test]
fn d4_every_model_is_explained_as_by_catboost() {
    let Some(python) = python() else { return };
    let models: usize = shap_folders().iter().map(|folder| check_folder(&python, folder, "")).sum();
    assert!(models > 0);
}

#[test]
fn models_trained_anew_are_explained_as_by_catboost() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let seed = std::process::id().to_string();
    run(&python, "train_models.py", &[folder.path().as_os_str(), seed.as_ref()]);
    check_folder(&python, folder.path(), &format!("(seed {seed})"));
    let shallow = cases(folder.path()).into_iter().find(|case| case.name == "depthwise_shallow").unwrap();
    assert!(
        is_plain(&import(&shallow.file).unwrap()),
        "a non-symmetric model of which both conventions are checked"
    );
}

/// What CatBoost answered once, for those who do not have it.
#[test]
fn kept_values_of_catboost_are_met() {
    let mut models = 0;
    for folder in ["models", "small", "shap"].map(|name| common::testdata().with_file_name(name)) {
        for case in cases(&folder) {
            let Some(shap) = shap_of(&folder.with_file_name("shap"), &case.name) else { continue };
            let model = import(&case.file).unwrap();
            check(&case, &model, &shap, conventions(&model));
            models += 1;
        }
    }
    assert!(models >= 10, "{models}");
}

/// Why there are two conventions: where a leaf hangs beside an inner node, what CatBoost gives is not what it answers.
#[test]
fn catboosts_values_of_lossguide_do_not_add_up_and_exact_ones_do() {
    let folder = common::testdata().with_file_name("small");
    let case = cases(&folder).into_iter().find(|case| case.name == "small_lossguide_classes").unwrap();
    let model = import(&case.file).unwrap();
    assert!(!is_plain(&model));
    let compiled = compile_explainable(&model).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let binding = case.binding(&opened);
    let width = opened.inputs().len() + 1;
    let [exact, catboost] = CONVENTIONS.map(|convention| {
        let mut both = Both::new(opened, convention);
        let mut furthest = 0.0_f64;
        for row in 0..case.rows {
            let found = both.explain(&case.values(row), &binding);
            for (values, raw) in found.chunks(width).zip(&case.raw[row * opened.output_dimensions()..]) {
                furthest = furthest.max((values.iter().sum::<f64>() - raw).abs());
            }
        }
        furthest
    });
    assert!(exact < 1e-12 && catboost > 1e-3, "{exact} and {catboost} from the answers");
}

#[test]
fn d4_values_and_what_is_expected_add_up_to_the_answer() {
    for folder in shap_folders() {
        for case in cases(&folder) {
            let model = import(&case.file).unwrap();
            let compiled = compile_explainable(&model).unwrap();
            let opened = ModelRef::open(&compiled).unwrap();
            let binding = case.binding(&opened);
            let mut both = Both::new(opened, Convention::Exact);
            let inputs = opened.inputs().len();
            for row in 0..case.rows.min(64) {
                let found = both.explain(&case.values(row), &binding);
                for (k, values) in found.chunks(inputs + 1).enumerate() {
                    let answer = case.raw[row * opened.output_dimensions() + k];
                    let sum: f64 = values.iter().sum();
                    assert!(close(sum, answer), "{} row {row}: {sum} instead of {answer}", case.name);
                }
            }
        }
    }
}

/// The JSON export holds the weights too; which leaves hang beside inner nodes it does not say.
#[test]
fn json_exports_are_explained_as_their_models_are() {
    let mut models = 0;
    for folder in shap_folders() {
        for case in cases(&folder) {
            let Some(json) = &case.json else { continue };
            let compiled =
                [&case.file, json].map(|file| compile_explainable(&import(file).unwrap()).unwrap());
            let opened = compiled.each_ref().map(|compiled| ModelRef::open(compiled).unwrap());
            let mut both = opened.map(|opened| Both::new(opened, Convention::Exact));
            for row in 0..case.rows.min(8) {
                let values = case.values(row);
                let [cbm, json] = &mut both;
                let found = cbm.explain(&values, &case.binding(&opened[0]));
                assert_eq!(found, json.explain(&values, &case.binding(&opened[1])), "{}", case.name);
            }
            models += 1;
        }
    }
    assert!(models > 8, "{models}");
}

/// Weights do not change answers, nor what a model compiles to but for them.
#[test]
fn a_model_with_weights_answers_as_without() {
    for case in shap_folders().iter().flat_map(|folder| cases(folder)) {
        let model = import(&case.file).unwrap();
        let (plain, explainable) = (compile(&model).unwrap(), compile_explainable(&model).unwrap());
        assert!(explainable.len() > plain.len());
        let opened = ModelRef::open(&explainable).unwrap();
        let binding = case.binding(&opened);
        let mut scratch = Scratch::for_model(&opened);
        let mut out = vec![0.0; opened.output_dimensions()];
        for row in 0..case.rows {
            opened.raw(&case.values(row), &binding, &mut scratch, &mut out).unwrap();
            assert_eq!(out, &case.raw[row * out.len()..][..out.len()], "{} row {row}", case.name);
        }
    }
}

// Shapley's definition.

/// The inputs that a split counts for: numbers, then categories.
fn player(model: &Model, split: Split) -> BTreeSet<(bool, usize)> {
    match split {
        Split::Float(float, _) => [(false, float)].into(),
        Split::OneHot(cat, _) => [(true, cat)].into(),
        Split::Ctr(ctr, _) => {
            let projection = &model.ctr_tables[model.ctrs[ctr].table].projection;
            let cats = projection.iter().filter_map(|element| match element {
                Element::Category(cat) => Some((true, *cat)),
                _ => None,
            });
            cats.collect()
        }
    }
}

/// A tree with weights: a split has two children, a leaf its values.
enum Weighted {
    Leaf(f64, Vec<f64>),
    Split(f64, Split, Box<[Weighted; 2]>),
}

impl Weighted {
    fn weight(&self) -> f64 {
        match self {
            Self::Leaf(weight, _) | Self::Split(weight, ..) => *weight,
        }
    }

    fn split(split: Split, children: [Self; 2]) -> Self {
        Self::Split(children[0].weight() + children[1].weight(), split, Box::new(children))
    }

    /// The last split is CatBoost's root.
    fn oblivious(splits: &[Split], leaf: usize, values: &[f64], weights: &[f64]) -> Self {
        let dimensions = values.len() / weights.len();
        match splits {
            [] => Self::Leaf(weights[leaf], values[leaf * dimensions..][..dimensions].to_vec()),
            [rest @ .., last] => Self::split(
                *last,
                [0, 1].map(|bit| Self::oblivious(rest, leaf | bit << rest.len(), values, weights)),
            ),
        }
    }

    fn of_node(tree: &ir::Tree, at: usize, weights: &[f64]) -> Self {
        let dimensions = tree.leaves.len() / weights.len();
        match tree.nodes[at] {
            Node::Leaf(first) => {
                Self::Leaf(weights[first / dimensions], tree.leaves[first..][..dimensions].to_vec())
            }
            Node::Split { split, left, right } => {
                Self::split(split, [left, right].map(|child| Self::of_node(tree, child, weights)))
            }
        }
    }

    fn players(&self, model: &Model, found: &mut BTreeSet<BTreeSet<(bool, usize)>>) {
        if let Self::Split(_, split, children) = self {
            found.insert(player(model, *split));
            children.iter().for_each(|child| child.players(model, found));
        }
    }

    /// What is expected of a row of which only these players' tests are known.
    fn expected(&self, model: &Model, row: &Row, known: &BTreeSet<BTreeSet<(bool, usize)>>) -> Vec<f64> {
        match self {
            Self::Leaf(_, values) => values.clone(),
            Self::Split(weight, split, children) => {
                if known.contains(&player(model, *split)) {
                    return children[usize::from(holds(model, row, *split))].expected(model, row, known);
                }
                let [left, right] = [0, 1].map(|at| children[at].expected(model, row, known));
                let share = if *weight > 0.0 { children[1].weight() / weight } else { 0.5 };
                left.iter().zip(right).map(|(left, right)| (1.0 - share) * left + share * right).collect()
            }
        }
    }
}

/// Per input and dimension; the input "none" is the expected value.
fn shapley(model: &Model, row: &Row) -> BTreeMap<Option<(bool, usize)>, Vec<f64>> {
    let trees: Vec<Weighted> = match &model.trees {
        Trees::Oblivious(trees) => (trees.iter().zip(&model.leaf_weights))
            .map(|(tree, weights)| Weighted::oblivious(&tree.splits, 0, &tree.leaves, weights))
            .collect(),
        Trees::NonSymmetric(trees) => (trees.iter().zip(&model.leaf_weights))
            .map(|(tree, weights)| Weighted::of_node(tree, 0, weights))
            .collect(),
    };
    let mut result: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    let mut add = |input, values: Vec<f64>, factor: f64| {
        let own = result.entry(input).or_insert_with(|| vec![0.0; model.dimensions]);
        own.iter_mut().zip(values).for_each(|(own, value)| *own += model.scale * factor * value);
    };
    for tree in &trees {
        let mut players = BTreeSet::new();
        tree.players(model, &mut players);
        let players: Vec<_> = players.into_iter().collect();
        let subset = |bits: usize| {
            players.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, p)| p.clone()).collect()
        };
        let values: Vec<Vec<f64>> =
            (0..1 << players.len()).map(|bits| tree.expected(model, row, &subset(bits))).collect();
        add(None, values[0].clone(), 1.0);
        let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
        for (at, player) in players.iter().enumerate() {
            for bits in (0..1_usize << players.len()).filter(|bits| bits >> at & 1 == 0) {
                let known = bits.count_ones() as usize;
                let weight =
                    factorial(known) * factorial(players.len() - 1 - known) / factorial(players.len());
                let gain =
                    values[bits | 1 << at].iter().zip(&values[bits]).map(|(with, without)| with - without);
                let gain: Vec<f64> = gain.collect();
                for input in player {
                    add(Some(*input), gain.clone(), weight / player.len() as f64);
                }
            }
        }
    }
    let own = result.entry(None).or_insert_with(|| vec![0.0; model.dimensions]);
    own.iter_mut().zip(&model.bias).for_each(|(own, bias)| *own += bias);
    result
}

/// Gives every leaf a weight, many of them none.
fn weigh(model: &mut Model, random: &mut Random) {
    let leaves: Vec<usize> = match &model.trees {
        Trees::Oblivious(trees) => trees.iter().map(|t| t.leaves.len()).collect(),
        Trees::NonSymmetric(trees) => trees.iter().map(|t| t.leaves.len()).collect(),
    };
    let mut weights = |leaves: usize| {
        let most = [1, 3, 1000][random.below(3)];
        (0..leaves / model.dimensions).map(|_| random.below(most) as f64 * 0.37).collect()
    };
    model.leaf_weights = leaves.into_iter().map(&mut weights).collect();
}

fn small_shapes() -> impl Strategy<Value = Shape> {
    (shapes(), 0_usize..6, 0_usize..6, 0_usize..5).prop_map(|(shape, floats, trees, depth)| Shape {
        floats,
        borders: shape.borders.min(20),
        ctrs: shape.ctrs.min(3),
        trees,
        depth,
        ..shape
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn values_are_those_of_shapleys_definition(shape in small_shapes()) {
        let mut model = model(&shape);
        let mut random = Random(!shape.seed);
        weigh(&mut model, &mut random);
        let compiled = compile_explainable(&model).unwrap();
        let opened = ModelRef::open(&compiled).unwrap();
        let mut both = Both::new(opened, Convention::Exact);
        for _ in 0..3 {
            let row = row(&model, &mut random);
            let (values, binding) = scatter(&model, &opened, &row, &mut random);
            let found = both.explain(&values, &binding);
            let mut expected = shapley(&model, &row);
            let inputs: Vec<_> = opened.inputs().map(|input| {
                Some((input.kind == InputKind::Category, input.name[1..].parse::<usize>().unwrap()))
            }).chain([None]).collect();
            for (at, input) in inputs.iter().enumerate() {
                let expected = expected.remove(input).unwrap_or_else(|| vec![0.0; shape.dimensions]);
                for (k, expected) in expected.iter().enumerate() {
                    let found = found[k * inputs.len() + at];
                    prop_assert!(close(found, *expected), "{:?}: {} instead of {}", input, found, expected);
                }
            }
            prop_assert!(expected.is_empty(), "inputs that the model does not have: {:?}", expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn values_of_large_models_add_up(shape in shapes()) {
        let mut model = model(&shape);
        let mut random = Random(!shape.seed);
        weigh(&mut model, &mut random);
        let compiled = compile_explainable(&model).unwrap();
        let opened = ModelRef::open(&compiled).unwrap();
        let explainer = Explainer::new(opened, ExplainOptions::default()).unwrap();
        let mut scratch = ExplainScratch::for_explainer(&explainer);
        let mut eval = Scratch::for_model(&opened);
        for _ in 0..2 {
            let row = row(&model, &mut random);
            let (values, binding) = scatter(&model, &opened, &row, &mut random);
            let mut out = vec![0.0; explainer.outputs()];
            explainer.explain(&values, &binding, &mut scratch, &mut out).unwrap();
            let mut raw = vec![0.0; shape.dimensions];
            opened.raw(&values, &binding, &mut eval, &mut raw).unwrap();
            for (values, raw) in out.chunks(opened.inputs().len() + 1).zip(raw) {
                let sum: f64 = values.iter().sum();
                // Leaves of up to 2.1 in each tree, which may cancel.
                prop_assert!((sum - raw).abs() < 1e-9 * (1.0 + shape.trees as f64), "{} instead of {}", sum, raw);
            }
        }
    }
}

#[test]
fn missing_or_damaged_weights_are_clear_errors() {
    let file = std::fs::read(common::testdata().join("ctr.cbm")).unwrap();
    let model = import(&file).unwrap();
    let compiled = compile(&model).unwrap();
    let error = Explainer::new(ModelRef::open(&compiled).unwrap(), ExplainOptions::default()).unwrap_err();
    assert_eq!(error, ExplainError::NoLeafWeights);
    assert!(error.to_string().contains("compile_explainable"), "{error}");

    let without = Model { leaf_weights: Vec::new(), ..model.clone() };
    let error = compile_explainable(&without).unwrap_err();
    assert!(matches!(error, CompileError::LeafWeights(_)), "{error}");
    assert!(error.to_string().contains("weights of its leaves"), "{error}");
    for weight in [f64::NAN, -1.0, f64::INFINITY] {
        let mut bad = model.clone();
        bad.leaf_weights[3][1] = weight;
        let error = compile_explainable(&bad).unwrap_err().to_string();
        assert!(error.contains("tree 3"), "{error}");
    }
    let mut short = model.clone();
    short.leaf_weights[2].pop();
    assert!(compile_explainable(&short).unwrap_err().to_string().contains("tree 2 has"));
}

/// Each weight is a number, and their sum is none.
#[test]
fn weights_that_add_up_to_no_number_are_refused() {
    let file = std::fs::read(common::testdata().join("ctr.cbm")).unwrap();
    let mut model = import(&file).unwrap();
    model.leaf_weights[3].iter_mut().for_each(|weight| *weight = f64::MAX);
    let compiled = compile_explainable(&model).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let error = Explainer::new(opened, ExplainOptions::default()).unwrap_err();
    assert_eq!(error, ExplainError::Corrupt { tree: 3 });
    let (inputs, mut scratch) = (opened.inputs().len(), Scratch::for_model(&opened));
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let mut out = vec![7.0; inputs + 1];
    let mut bounded = BoundedExplainer::new();
    let found = bounded.explain(&opened, &vec![0.5; inputs], &binding, &mut scratch, &mut out);
    assert_eq!(found, Err(error));
    assert!(out.iter().all(|v| *v == 7.0), "an error leaves the output as it was");
}

/// What a class is due of raw answers, whatever the form of the model's answers.
#[test]
fn the_answer_of_a_class_rises_with_its_probability() {
    for name in ["scale_bias", "multiclass"] {
        let file = std::fs::read(common::testdata().join(format!("{name}.cbm"))).unwrap();
        for form in [ir::AnswerForm::Classes, ir::AnswerForm::EachSigmoid, ir::AnswerForm::Probabilities] {
            let mut model = import(&file).unwrap();
            model.answer = form;
            let compiled = compile(&model).unwrap();
            let opened = ModelRef::open(&compiled).unwrap();
            let dimensions = opened.output_dimensions();
            let raw: Vec<f64> = (0..dimensions).map(|k| 0.2 + 0.1 * k as f64).collect();
            assert_eq!(opened.class_dimension(dimensions.max(2)), None);
            for class in 0..dimensions.max(2) {
                let (at, turned) = opened.class_dimension(class).unwrap();
                let step = 1e-6;
                let mut more = raw.clone();
                more[at] += if turned { -step } else { step };
                let gained = opened.class_answer(&more, class) - opened.class_answer(&raw, class);
                assert!((gained - step).abs() < 1e-12, "{name} {form:?} {class}");
                let gained = opened.class_probability(&more, class) - opened.class_probability(&raw, class);
                // Softmax has nine digits.
                let slope = opened.class_slope(&raw, class);
                assert!(
                    (gained / step - slope).abs() < 1e-3,
                    "{name} {form:?} {class}: {gained} and {slope}"
                );
            }
        }
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let file = std::fs::read(common::testdata().join("multiclass.cbm")).unwrap();
    let compiled = compile_explainable(&import(&file).unwrap()).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let explainer = Explainer::new(opened, ExplainOptions::default()).unwrap();
    let inputs = opened.inputs().len();
    assert_eq!(explainer.outputs(), 3 * (inputs + 1));
    assert_eq!(explainer.expected().len(), 3);
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let values = vec![0.0; inputs];
    let mut scratch = ExplainScratch::for_explainer(&explainer);
    let mut out = vec![7.0; explainer.outputs()];
    let short = explainer.explain(&values, &binding, &mut scratch, &mut out[1..]);
    assert_eq!(
        short,
        Err(EvalError::OutputLength { expected: 3 * (inputs + 1), found: 3 * (inputs + 1) - 1 })
    );
    assert!(matches!(
        explainer.explain(&values, &[], &mut scratch, &mut out),
        Err(EvalError::BindingLength { .. })
    ));
    assert!(matches!(
        explainer.explain(&values[1..], &binding, &mut scratch, &mut out),
        Err(EvalError::BindingRange { .. })
    ));
    let error = explainer.explain(&values, &binding, &mut ExplainScratch::default(), &mut out);
    assert_eq!(error, Err(EvalError::Scratch));
    let (mut bounded, mut small) = (BoundedExplainer::new(), Scratch::default());
    let mut row = |values: &[f32], binding: &[u32], out: &mut [f64]| {
        bounded.explain(&opened, values, binding, &mut small, out)
    };
    assert_eq!(row(&values, &binding, &mut out), Err(ExplainError::Row(EvalError::Scratch)));
    let short = row(&values, &binding, &mut out[1..]);
    assert!(matches!(short, Err(ExplainError::Row(EvalError::OutputLength { .. }))));
    assert!(out.iter().all(|v| *v == 7.0), "an error leaves the output as it was");
    explainer.explain(&values, &binding, &mut scratch, &mut out).unwrap();
}
