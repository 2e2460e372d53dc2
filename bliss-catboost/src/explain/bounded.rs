//! Explaining within memory that is made once, whatever models come: what a worker needs.

use super::players::{Limits, Players};
use super::quadrature::Rule;
use super::trees::{Draft, Edge, MAX_DEPTH, Source, Words};
use super::walk::{Task, Walk};
use super::{Convention, scale_expected, share_out};
use crate::error::{EvalError, ExplainError};
use crate::layout::{MAX_LEVELS, MAX_SLOTS, SectionId};
use crate::reference::ModelRef;
use crate::scratch::Scratch;

/// Edges that a tree may have: those of an oblivious one of 16 levels.
const MAX_EDGES: usize = (2 << MAX_LEVELS) - 1;
/// Totals, and inputs of all players, at most.
const MAX_TOTALS: usize = 1 << 17;

const LIMITS: Limits = Limits { members: MAX_TOTALS, slots: MAX_SLOTS };

/// Explains a row straight from a compiled model's bytes, tree by tree, and keeps nothing of the model: the values are those of
/// [`Explainer`](super::Explainer) by [`Convention::Exact`]. For a few rows a minute, of whichever model, in a process that must
/// not allocate: a row takes about three times as long as with an `Explainer` without tables. For one thread at a time.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bliss_catboost::{BoundedExplainer, ModelRef, Scratch, compile_explainable, import};
///
/// // Once per process.
/// let mut explainer = BoundedExplainer::new();
///
/// let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/models/scale_bias.cbm"))?;
/// let compiled = compile_explainable(&import(&file)?)?;
/// let opened = ModelRef::open(&compiled)?;
/// let mut scratch = Scratch::for_model(&opened);
/// let binding: Vec<u32> = (0..opened.inputs().len() as u32).collect();
/// let values = vec![0.5_f32; binding.len()];
///
/// // Once per row.
/// let mut shap = vec![0.0; binding.len() + 1];
/// explainer.explain(&opened, &values, &binding, &mut scratch, &mut shap)?;
/// # let mut raw = [0.0];
/// # opened.raw(&values, &binding, &mut scratch, &mut raw)?;
/// # assert!((shap.iter().sum::<f64>() - raw[0]).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub struct BoundedExplainer {
    players: Players,
    draft: Draft,
    walk: Walk,
    rule: Rule,
    totals: Vec<f64>,
    expected: Vec<f64>,
}

impl Default for BoundedExplainer {
    fn default() -> Self {
        Self::new()
    }
}

impl BoundedExplainer {
    /// Allocates all memory that explaining will need: up to 27 MB of address space, of which pages are touched as trees need
    /// them (about 0.4 MB for trees of depth 10).
    #[must_use]
    pub fn new() -> Self {
        Self {
            players: Players::with_room(LIMITS),
            draft: Draft::with_room(MAX_EDGES),
            walk: Walk::with_room(MAX_EDGES),
            rule: Rule::with_room(MAX_DEPTH),
            totals: Vec::with_capacity(MAX_TOTALS),
            expected: Vec::with_capacity(MAX_TOTALS),
        }
    }

    /// Explains a row: `out` receives what [`Explainer::explain`](super::Explainer::explain) writes. `values`, `binding` and
    /// `scratch` are those of [`ModelRef::raw`]. Does not allocate; takes time in proportion to the model's leaves.
    ///
    /// # Errors
    ///
    /// [`ExplainError`] where the model has no weights, they do not fit it, it is too large, or the lengths are wrong; `out`
    /// is then as it was.
    pub fn explain(
        &mut self,
        model: &ModelRef<'_>,
        values: &[f32],
        binding: &[u32],
        scratch: &mut Scratch,
        out: &mut [f64],
    ) -> Result<(), ExplainError> {
        let mut words = Words::of(model)?;
        let dimensions = model.output_dimensions();
        let expected = model.inputs().len().saturating_add(1).saturating_mul(dimensions);
        if out.len() != expected {
            return Err(EvalError::OutputLength { expected, found: out.len() }.into());
        }
        let too_large = |found| ExplainError::TooLarge { found, limit: MAX_TOTALS };
        self.players.fill(model, LIMITS).ok_or(ExplainError::Corrupt { tree: model.trees() })?;
        let totals = self.players.len().saturating_add(1).saturating_mul(dimensions);
        if totals > MAX_TOTALS {
            return Err(too_large(totals));
        }
        self.totals.clear();
        self.totals.resize(totals, 0.0);
        self.expected.clear();
        self.expected.resize(dimensions, 0.0);

        let slots = model.slots(values, binding, scratch)?;
        let holds = |edge: &Edge| slots.get(usize::from(edge.slot)).is_some_and(|s| *s >= edge.threshold);
        let leaves = model.section(SectionId::Leaves);
        for tree in 0..model.trees() {
            let source = Source { model, players: &self.players };
            self.draft.read(source, tree, &mut words, Convention::Exact, MAX_EDGES)?;
            self.draft.add_expected(model, Convention::Exact, &mut self.expected);
            self.rule.set(self.draft.most_players);
            let task = Task { edges: &self.draft.edges, leaves, dimensions, holds };
            let walked = self.walk.run(&task, &self.rule, &mut self.totals);
            walked.ok_or(ExplainError::Corrupt { tree })?;
        }
        words.end(model)?;
        scale_expected(model, &mut self.expected);
        share_out(model, &self.players, &self.totals, &self.expected, out);
        Ok(())
    }
}

impl std::fmt::Debug for BoundedExplainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedExplainer").finish_non_exhaustive()
    }
}
