//! Which inputs a row's answer comes from: exact SHAP values.

mod bounded;
mod players;
mod quadrature;
mod trees;
mod walk;

use super::error::{EvalError, ExplainError};
use super::layout::{MAX_SLOTS, SectionId};
use super::reference::ModelRef;
use super::scratch::Scratch;
use players::{Limits, Players};
use quadrature::Rule;
use trees::{Edge, Forest, Test};
use walk::{Task, Walk};

pub use bounded::BoundedExplainer;

/// Two answers for non-symmetric trees. For oblivious ones both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Convention {
    /// Shapley values by their definition: they and the expected value always add up to the answer.
    #[default]
    Exact,
    /// What CatBoost 1.2.10 gives. Where a leaf of a non-symmetric tree (Lossguide, Depthwise) hangs beside an inner node,
    /// CatBoost counts it as if all rows that come to their parent ended there, so that its values do not add up to the answer
    /// (on a model with 31 leaves per tree they miss it by up to 0.66).
    CatBoost,
}

/// How to explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    /// Whose answers.
    pub convention: Convention,
    /// Bytes that tables may take. A table holds the values of each leaf of an oblivious tree of depth 8 at most
    /// (`leaves * features in the tree * dimensions * 8` bytes), so that a row is a look-up per tree. Trees that find no room
    /// are walked, which is some hundred times slower. Tables take time to make: about as long as it takes to explain a row without
    /// them, times the number of leaves of a tree.
    pub table_bytes: usize,
}

/// Depth of trees that tables are made of: making one takes time in the square of the leaves.
const MAX_TABLE_DEPTH: usize = 8;

/// Totals at most: players times dimensions.
const MAX_TOTALS: usize = 1 << 24;

/// How a tree is explained.
#[derive(Debug)]
struct Plan {
    /// Its rule, an index of `Explainer::rules`.
    rule: usize,
    table: Option<Table>,
}

/// The SHAP values of a tree's leaves.
#[derive(Debug)]
struct Table {
    /// Its tests in `Explainer::tests`, as many as its levels, and as many players beside them. A tree with fewer players
    /// is filled up with one that does not exist, so that all loops over trees of one depth are alike.
    tests: std::ops::Range<usize>,
    /// First value in `Explainer::values`: per leaf, per player, per dimension.
    first: usize,
}

/// Attributes a model's answers to its inputs: exact SHAP values (path-dependent TreeSHAP), as CatBoost's
/// `get_feature_importance(type="ShapValues")` gives them. For models that were compiled by
/// `compile_explainable` (feature `build`).
///
/// A split on a number or on a value of a category counts for that input; a CTR for the categories of its combination, in
/// equal shares, whatever else the combination tests.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bliss_catboost::{ExplainOptions, ExplainScratch, Explainer, ModelRef, compile_explainable, import};
///
/// let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/models/scale_bias.cbm"))?;
/// let compiled = compile_explainable(&import(&file)?)?;
///
/// // Once per published version.
/// let opened = ModelRef::open(&compiled)?;
/// let explainer = Explainer::new(opened, ExplainOptions { table_bytes: 1 << 20, ..ExplainOptions::default() })?;
/// let mut scratch = ExplainScratch::for_explainer(&explainer);
/// let mut shap = vec![0.0; explainer.outputs()];
///
/// // Once per row.
/// let binding: Vec<u32> = (0..opened.inputs().len() as u32).collect();
/// let values = vec![0.5_f32; binding.len()];
/// explainer.explain(&values, &binding, &mut scratch, &mut shap)?;
/// for (input, value) in opened.inputs().zip(&shap) {
///     println!("{}: {value:+.3}", input.name);
/// }
/// println!("expected of any row: {:+.3}", shap[binding.len()]);
/// # Ok(())
/// # }
/// ```
pub struct Explainer<'m> {
    model: ModelRef<'m>,
    players: Players,
    forest: Forest,
    /// Per tree.
    plans: Vec<Plan>,
    rules: Vec<Rule>,
    /// Tests, players and values of the tables.
    tests: Vec<Test>,
    test_players: Vec<u32>,
    values: Vec<f64>,
    /// Per dimension, with scale and bias.
    expected: Vec<f64>,
}

/// Memory that explaining works in, made beforehand, so that explaining never allocates. For one thread at a time; serves any
/// number of models.
#[derive(Default)]
pub struct ExplainScratch {
    slots: Scratch,
    walk: Walk,
    totals: Vec<f64>,
}

impl ExplainScratch {
    /// Memory for this explainer. Allocates.
    #[must_use]
    pub fn for_explainer(explainer: &Explainer<'_>) -> Self {
        let mut scratch = Self::default();
        scratch.reserve(explainer);
        scratch
    }

    /// Grows to what this explainer needs. Allocates where it has to; never shrinks.
    pub fn reserve(&mut self, explainer: &Explainer<'_>) {
        self.slots.reserve(&explainer.model);
        explainer.reserve_walk(&mut self.walk, usize::MAX);
        let totals = explainer.totals();
        self.totals.resize(self.totals.len().max(totals), 0.0);
    }
}

impl std::fmt::Debug for ExplainScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExplainScratch").finish_non_exhaustive()
    }
}

impl<'m> Explainer<'m> {
    /// Prepares a model's trees, and checks its weights. Allocates; takes time in proportion to the model's leaves, and more for
    /// [tables](ExplainOptions::table_bytes).
    ///
    /// # Errors
    ///
    /// [`ExplainError`] where the model was compiled without weights, or they do not fit it.
    pub fn new(model: ModelRef<'m>, options: ExplainOptions) -> Result<Self, ExplainError> {
        let mut players = Players::default();
        let corrupt = ExplainError::Corrupt { tree: model.trees() };
        // Their number is bounded by the model's bytes.
        let limits = Limits { members: MAX_TOTALS, slots: MAX_SLOTS };
        players.fill(&model, limits).ok_or(corrupt)?;
        let found = (players.len() + 1).saturating_mul(model.output_dimensions());
        if found > MAX_TOTALS {
            return Err(ExplainError::TooLarge { found, limit: MAX_TOTALS });
        }
        let forest = Forest::of(&model, &players, options.convention)?;
        let mut explainer = Self {
            model,
            players,
            plans: Vec::with_capacity(forest.trees.len()),
            rules: Vec::new(),
            tests: Vec::new(),
            test_players: Vec::new(),
            values: Vec::new(),
            expected: forest.expected.clone(),
            forest,
        };
        let most = explainer.forest.trees.iter().map(|tree| tree.players).max().unwrap_or(0);
        explainer.rules.extend((0..=most).map(Rule::for_features));
        for tree in &explainer.forest.trees {
            explainer.plans.push(Plan { rule: tree.players, table: None });
        }
        scale_expected(&explainer.model, &mut explainer.expected);
        explainer.tabulate(options.table_bytes).ok_or(ExplainError::Corrupt { tree: model.trees() })?;
        Ok(explainer)
    }

    /// The model that is explained.
    #[must_use]
    pub fn model(&self) -> ModelRef<'m> {
        self.model
    }

    /// Values that [`explain`](Self::explain) writes: per output dimension one for each input, and the expected value.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.model.output_dimensions().saturating_mul(self.model.inputs().len() + 1)
    }

    /// What is expected of a row that nothing is known of, per output dimension.
    #[must_use]
    pub fn expected(&self) -> &[f64] {
        &self.expected
    }

    /// Trees that have a table.
    #[must_use]
    pub fn tables(&self) -> usize {
        self.plans.iter().filter(|plan| plan.table.is_some()).count()
    }

    /// Bytes that are held beside the model.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of_val(self.forest.edges.as_slice())
            + size_of_val(self.values.as_slice())
            + self.tests.len() * (size_of::<Test>() + size_of::<u32>())
            + self.plans.len() * (size_of::<Plan>() + size_of::<trees::Tree>())
    }

    /// Explains a row: `out` receives, for each output dimension in turn, the SHAP value of each input in the order of
    /// [`ModelRef::inputs`], then the expected value; together they are what [`ModelRef::raw`] answers, but for rounding.
    /// `values` and `binding` are as there. Does not allocate.
    ///
    /// # Errors
    ///
    /// [`EvalError`] where the lengths do not fit the model, the binding leads outside `values`, or `scratch` was
    /// never made for this explainer; `out` is then as it was.
    pub fn explain(
        &self,
        values: &[f32],
        binding: &[u32],
        scratch: &mut ExplainScratch,
        out: &mut [f64],
    ) -> Result<(), EvalError> {
        if out.len() != self.outputs() {
            return Err(EvalError::OutputLength { expected: self.outputs(), found: out.len() });
        }
        let slots = self.model.slots(values, binding, &mut scratch.slots)?;
        let totals = scratch.totals.get_mut(..self.totals()).ok_or(EvalError::Scratch)?;
        totals.fill(0.0);
        self.add_trees(slots, &mut scratch.walk, totals).ok_or(EvalError::Scratch)?;

        share_out(&self.model, &self.players, totals, &self.expected, out);
        Ok(())
    }

    /// Numbers that a row is added up in: per player, and the one that does not exist, one per dimension.
    fn totals(&self) -> usize {
        (self.players.len() + 1) * self.model.output_dimensions()
    }

    /// Adds what all trees' players are due.
    fn add_trees(&self, slots: &[u8], walk: &mut Walk, totals: &mut [f64]) -> Option<()> {
        let dimensions = self.model.output_dimensions();
        let leaves = self.model.section(SectionId::Leaves);
        let holds = |slot: u16, threshold: u8| slots.get(usize::from(slot)).is_some_and(|s| *s >= threshold);
        for (tree, plan) in self.forest.trees.iter().zip(&self.plans) {
            if let Some(table) = &plan.table {
                self.add_table(table, holds, totals)?;
            } else {
                let edges = self.forest.edges.get(tree.first..)?.get(..tree.len)?;
                let holds = |edge: &Edge| holds(edge.slot, edge.threshold);
                walk.run(&Task { edges, leaves, dimensions, holds }, self.rules.get(plan.rule)?, totals)?;
            }
        }
        Some(())
    }

    /// Adds the values of the leaf that a tree with a table leads to.
    #[inline]
    fn add_table(&self, table: &Table, holds: impl Fn(u16, u8) -> bool, totals: &mut [f64]) -> Option<()> {
        let dimensions = self.model.output_dimensions();
        let tests = self.tests.get(table.tests.clone())?;
        let players = self.test_players.get(table.tests.clone())?;
        let mut leaf = 0;
        for (bit, test) in tests.iter().enumerate() {
            leaf |= usize::from(holds(test.slot, test.threshold)) << bit;
        }
        let width = tests.len() * dimensions;
        let values = self.values.get(table.first + leaf * width..)?.get(..width)?;
        if dimensions == 1 {
            for (player, value) in players.iter().zip(values) {
                *totals.get_mut(*player as usize)? += value;
            }
        } else {
            for (player, values) in players.iter().zip(values.chunks_exact(dimensions)) {
                let own = totals.get_mut(*player as usize * dimensions..)?;
                own.iter_mut().zip(values).for_each(|(total, value)| *total += value);
            }
        }
        Some(())
    }

    /// Makes tables of trees in turn while there is room.
    fn tabulate(&mut self, mut room_bytes: usize) -> Option<()> {
        if room_bytes == 0 {
            return Some(());
        }
        let dimensions = self.model.output_dimensions();
        let leaves = self.model.section(SectionId::Leaves);
        let mut walk = Walk::default();
        self.reserve_walk(&mut walk, MAX_TABLE_DEPTH);
        let mut totals = vec![0.0; self.totals()];
        let nobody = u32::try_from(self.players.len()).ok()?;
        for (tree, plan) in self.forest.trees.iter().zip(&mut self.plans) {
            let depth = tree.tests.len();
            let bytes = (depth * dimensions).saturating_mul(size_of::<f64>() << depth.min(MAX_TABLE_DEPTH));
            if depth == 0 || depth > MAX_TABLE_DEPTH || bytes > room_bytes {
                continue;
            }
            room_bytes -= bytes;
            let edges = self.forest.edges.get(tree.first..)?.get(..tree.len)?;
            let mut players: Vec<u32> = edges.iter().skip(1).map(|edge| edge.player).collect();
            players.sort_unstable();
            players.dedup();
            players.resize(depth, nobody);
            let first = self.values.len();
            for leaf in 0..1_usize << depth {
                totals.fill(0.0);
                let holds = |edge: &Edge| leaf >> edge.bit & 1 == 1;
                walk.run(
                    &Task { edges, leaves, dimensions, holds },
                    self.rules.get(plan.rule)?,
                    &mut totals,
                )?;
                for player in &players {
                    let own = totals.get(*player as usize * dimensions..)?.get(..dimensions)?;
                    self.values.extend_from_slice(own);
                }
            }
            let first_test = self.tests.len();
            self.tests.extend_from_slice(&tree.tests);
            self.test_players.append(&mut players);
            plan.table = Some(Table { tests: first_test..self.tests.len(), first });
        }
        self.drop_edges()
    }

    /// Lets go of the edges of trees that have a table.
    fn drop_edges(&mut self) -> Option<()> {
        let mut edges = Vec::new();
        for (tree, plan) in self.forest.trees.iter_mut().zip(&self.plans) {
            if plan.table.is_none() {
                let own = self.forest.edges.get(tree.first..)?.get(..tree.len)?;
                tree.first = edges.len();
                edges.extend_from_slice(own);
            }
        }
        self.forest.edges = edges;
        Some(())
    }

    /// Makes a walk ready for the trees without a table whose depth is at most this (non-symmetric trees count as 0).
    fn reserve_walk(&self, walk: &mut Walk, depth: usize) {
        for (tree, plan) in self.forest.trees.iter().zip(&self.plans) {
            if plan.table.is_none() && tree.tests.len() <= depth {
                walk.reserve(tree.len);
            }
        }
    }
}

/// Applies scale and bias to the expected values.
fn scale_expected(model: &ModelRef<'_>, expected: &mut [f64]) {
    let scale = if model.trees() == 0 { 0.0 } else { model.header().scale };
    for (expected, bias) in expected.iter_mut().zip(model.section::<f64>(SectionId::Bias)) {
        *expected = scale * *expected + bias;
    }
}

/// Writes what inputs are due: of `totals` (per player a number for each dimension), scaled, each input's share; and what is
/// expected, per dimension.
fn share_out(model: &ModelRef<'_>, players: &Players, totals: &[f64], expected: &[f64], out: &mut [f64]) {
    let (scale, inputs) = (model.header().scale, model.inputs().len());
    for (dimension, (out, expected)) in out.chunks_exact_mut(inputs + 1).zip(expected).enumerate() {
        out.fill(0.0);
        for (members, totals) in players.iter().zip(totals.chunks_exact(model.output_dimensions())) {
            let share = totals.get(dimension).copied().unwrap_or(0.0) * scale / members.len() as f64;
            for input in members {
                if let Some(out) = out.get_mut(*input as usize) {
                    *out += share;
                }
            }
        }
        if let Some(out) = out.last_mut() {
            *out = *expected;
        }
    }
}

impl std::fmt::Debug for Explainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Explainer")
            .field("model", &self.model)
            .field("tables", &self.tables())
            .field("bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}
