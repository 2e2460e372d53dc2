//! The trees of a compiled model as explanations walk them: an array of edges, parents before children.

use super::Convention;
use super::players::Players;
use crate::error::ExplainError;
use crate::layout::{
    BLOCK, Block, FLAG_NON_SYMMETRIC, MAX_LEVELS, Node, SectionId, UNREACHABLE_THRESHOLD, level_bytes,
};
use crate::reference::ModelRef;

/// Levels that a tree may have. CatBoost grows 16.
pub(super) const MAX_DEPTH: usize = 256;

/// Shares below this are none.
const SMALLEST_SHARE: f64 = 1e-200;

/// Marks an edge that does not end in a leaf, and the root of a tree.
pub(super) const NONE: u32 = u32::MAX;

/// An edge and the node that it leads to. The first of each tree leads to its root and has no parent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// The share of the training data that goes this way at all tests of the player from the root to here.
    pub(super) zero: f64,
    /// Position of the first leaf value, or [`NONE`].
    pub(super) leaf: u32,
    /// The edge above, counted within the tree.
    pub(super) parent: u32,
    /// The nearest edge above of the same player; the root's where there is none.
    pub(super) before: u32,
    /// Whose test decides whether a row goes this way.
    pub(super) player: u32,
    /// The test: this slot reaches this threshold. It sets this bit of an oblivious tree's leaf.
    pub(super) slot: u16,
    pub(super) threshold: u8,
    pub(super) bit: u8,
    /// Taken where the test holds; else where it does not.
    pub(super) right: bool,
    /// Its leaf counts as the parent's own ([`Convention::CatBoost`]).
    pub(super) implied: bool,
}

/// A test of a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Test {
    pub(super) slot: u16,
    pub(super) threshold: u8,
}

/// A tree: its edges, and how to explain it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// First edge and number of edges.
    pub(super) first: usize,
    pub(super) len: usize,
    /// Players on a path at most.
    pub(super) players: usize,
    /// Tests of an oblivious tree, by the bit that they set.
    pub(super) tests: Vec<Test>,
}

/// A tree that is being read.
#[derive(Default)]
struct Draft {
    edges: Vec<Edge>,
    /// Per edge the weight below.
    weights: Vec<f64>,
    /// Per edge its level.
    depths: Vec<usize>,
    /// Per edge the test of its node, and the player and the bit.
    tests: Vec<Option<(Test, u32, u8)>>,
}

impl Draft {
    fn push(&mut self, parent: u32, right: bool, level: usize) {
        self.edges.push(Edge {
            zero: 1.0,
            leaf: NONE,
            parent,
            before: 0,
            player: 0,
            slot: 0,
            threshold: 0,
            bit: 0,
            right,
            implied: false,
        });
        self.weights.push(0.0);
        self.depths.push(level);
        self.tests.push(None);
    }

    /// Makes a node a leaf.
    fn leaf(&mut self, at: usize, value: u32, weight: u64, implied: bool) -> Option<()> {
        let edge = self.edges.get_mut(at)?;
        (edge.leaf, edge.implied) = (value, implied);
        let weight = f64::from_bits(weight);
        *self.weights.get_mut(at)? = weight;
        (weight.is_finite() && weight >= 0.0).then_some(())
    }

    /// Gives a node its test and two children, which are the next edges.
    fn split(&mut self, at: usize, test: Test, player: u32, bit: u8) -> Option<()> {
        *self.tests.get_mut(at)? = Some((test, player, bit));
        let (parent, level) = (u32::try_from(at).ok()?, *self.depths.get(at)? + 1);
        self.push(parent, false, level);
        self.push(parent, true, level);
        Some(())
    }

    /// Computes what depends on the whole tree; gives the most players on a path.
    fn finish(&mut self, convention: Convention) -> Option<usize> {
        let like_catboost = convention == Convention::CatBoost;
        for at in (1..self.edges.len()).rev() {
            let edge = self.edges.get(at)?;
            if like_catboost && edge.implied && edge.parent == 0 {
                continue; // CatBoost forgets this weight.
            }
            let weight = *self.weights.get(at)?;
            *self.weights.get_mut(edge.parent as usize)? += weight;
        }
        let mut players = vec![0_usize; self.edges.len()];
        let mut most = 0;
        for at in 1..self.edges.len() {
            let mut edge = *self.edges.get(at)?;
            let (test, player, bit) = (*self.tests.get(edge.parent as usize)?)?;
            (edge.slot, edge.threshold, edge.player, edge.bit) = (test.slot, test.threshold, player, bit);
            let mut above = edge.parent;
            while above != 0 && self.edges.get(above as usize)?.player != player {
                above = self.edges.get(above as usize)?.parent;
            }
            edge.before = above;
            let (weight, whole) = (*self.weights.get(at)?, *self.weights.get(edge.parent as usize)?);
            // Where no training data came, any share will do: of a row that comes here, the leaf alone counts.
            let share = if whole > 0.0 { weight / whole } else { 0.5 };
            let zero = self.edges.get(above as usize)?.zero * share;
            // So that one divided by it is a number.
            edge.zero = if zero < SMALLEST_SHARE { 0.0 } else { zero };
            edge.implied &= like_catboost;
            let count = *players.get(edge.parent as usize)? + usize::from(above == 0);
            *players.get_mut(at)? = count;
            most = most.max(count);
            *self.edges.get_mut(at)? = edge;
        }
        Some(most)
    }
}

/// All trees of a model and their edges.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) trees: Vec<Tree>,
    pub(super) edges: Vec<Edge>,
    /// What is expected of a row that nothing is known of, without scale and bias, per dimension.
    pub(super) expected: Vec<f64>,
}

/// Reads words of the section one by one.
struct Words<'a>(&'a [u64]);

impl Words<'_> {
    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

impl Forest {
    /// Reads the trees. Nothing that they say is believed.
    pub(super) fn of(
        model: &ModelRef<'_>,
        players: &Players,
        convention: Convention,
    ) -> Result<Self, ExplainError> {
        let section = model.header().sections.get(SectionId::Weights as usize);
        if section.is_none_or(|section| section.offset == 0) {
            return Err(ExplainError::NoLeafWeights);
        }
        let mut forest = Self { expected: vec![0.0; model.output_dimensions()], ..Self::default() };
        let mut words = Words(model.section(SectionId::Weights));
        for tree in 0..model.trees() {
            let corrupt = ExplainError::Corrupt { tree };
            let (mut draft, rest) = if model.header().flags & FLAG_NON_SYMMETRIC == 0 {
                oblivious(model, players, tree, &mut words).ok_or(corrupt)?
            } else {
                non_symmetric(model, players, tree, &mut words).ok_or(corrupt)?
            };
            if draft.depths.last().is_some_and(|depth| *depth > MAX_DEPTH) {
                return Err(ExplainError::TooDeep { tree, limit: MAX_DEPTH });
            }
            let most = draft.finish(convention).ok_or(corrupt)?;
            forest.expect(model, &draft, convention);
            forest.trees.push(Tree {
                first: forest.edges.len(),
                len: draft.edges.len(),
                players: most,
                ..rest
            });
            forest.edges.append(&mut draft.edges);
        }
        if !words.0.is_empty() {
            return Err(ExplainError::Corrupt { tree: model.trees() });
        }
        Ok(forest)
    }

    /// Adds the mean of a tree's leaves.
    fn expect(&mut self, model: &ModelRef<'_>, draft: &Draft, convention: Convention) {
        let leaves = model.section::<f64>(SectionId::Leaves);
        let whole = draft.weights.first().copied().unwrap_or(0.0);
        // Per edge the share of all rows that comes there.
        let mut shares = Vec::with_capacity(draft.edges.len());
        for (at, (edge, weight)) in draft.edges.iter().zip(&draft.weights).enumerate() {
            let parent = shares.get(edge.parent as usize).copied().unwrap_or(1.0);
            let above = draft.weights.get(edge.parent as usize).copied().unwrap_or(0.0);
            let share = match (at, whole > 0.0) {
                (0, _) => 1.0,
                // Not the product of the shares on the way: CatBoost's root may weigh less than its children.
                (_, true) => weight / whole,
                (_, false) if convention == Convention::Exact && above <= 0.0 => 0.5 * parent,
                (_, false) => 0.0,
            };
            shares.push(share);
            if edge.leaf != NONE {
                let values = leaves.get(edge.leaf as usize..).unwrap_or_default();
                for (expected, value) in self.expected.iter_mut().zip(values) {
                    *expected += share * value;
                }
            }
        }
    }
}

/// Tree `index` of oblivious ones.
fn oblivious(
    model: &ModelRef<'_>,
    players: &Players,
    index: usize,
    words: &mut Words<'_>,
) -> Option<(Draft, Tree)> {
    let header = model.header();
    let block = model.section::<Block>(SectionId::Blocks).get(index / BLOCK)?;
    let base = *model.section::<u32>(SectionId::LeafBases).get(index)?;
    let stride = level_bytes(header.flags);
    let levels = model.section::<u8>(SectionId::Tests).chunks_exact(stride).skip(block.first_level as usize);
    let lane = index % BLOCK;
    let mut tests = Vec::new();
    for level in levels.take(block.levels as usize) {
        let high = level.get(2 * BLOCK + lane).copied().unwrap_or(0);
        let slot = u16::from(*level.get(lane)?) | u16::from(high) << 8;
        let threshold = *level.get(BLOCK + lane)?;
        if threshold == UNREACHABLE_THRESHOLD {
            break; // the tree is less deep than others of its block
        }
        tests.push(Test { slot, threshold });
    }
    let depth = tests.len();
    if depth > MAX_LEVELS {
        return None;
    }
    // Where they are missing, that shows before memory is taken for the edges.
    let word = words.next()?;
    let weights = words.0.get(..1 << depth)?;
    // From the root on, which test: each once.
    let order: Vec<u8> = (0..depth).map(|level| (word >> (4 * level) & 15) as u8).collect();
    if (0..depth).any(|bit| !order.iter().any(|o| usize::from(*o) == bit)) {
        return None;
    }
    let mut draft = Draft::default();
    draft.push(NONE, false, 0);
    let mut bits = vec![0_usize];
    let inner = (1 << depth) - 1;
    for at in 0..inner {
        let bit = *order.get(*draft.depths.get(at)?)?;
        let test = *tests.get(usize::from(bit))?;
        draft.split(at, test, players.of_slot(u32::from(test.slot))?, bit)?;
        let own = *bits.get(at)?;
        bits.extend([own, own | 1 << bit]);
    }
    words.0 = words.0.get(1 << depth..)?;
    for at in inner..draft.edges.len() {
        let leaf = *bits.get(at)?;
        let position = u32::try_from(leaf).ok()?.checked_mul(header.dimensions)?.checked_add(base)?;
        draft.leaf(at, position, *weights.get(leaf)?, false)?;
    }
    Some((draft, Tree { tests, ..Tree::default() }))
}

/// Tree `index` of non-symmetric ones: its nodes lie level by level, each behind its parent.
fn non_symmetric(
    model: &ModelRef<'_>,
    players: &Players,
    index: usize,
    words: &mut Words<'_>,
) -> Option<(Draft, Tree)> {
    let (nodes, roots) = (model.section::<Node>(SectionId::Nodes), model.section::<u32>(SectionId::Roots));
    let first = *roots.get(index)? as usize;
    let end = roots.get(index + 1).map_or(nodes.len(), |next| *next as usize);
    let nodes = nodes.get(first..end)?;
    let values = model.section::<u32>(SectionId::NodeLeaves).get(first..end)?;
    let mut draft = Draft::default();
    draft.push(NONE, false, 0);
    for (at, (node, value)) in nodes.iter().zip(values).enumerate() {
        if node.threshold == UNREACHABLE_THRESHOLD {
            draft.leaf(at, *value, words.next()?, node.implied == 1)?;
        } else {
            // The compiler puts the children behind all nodes that are known.
            if node.base as usize != first + draft.edges.len() {
                return None;
            }
            let test = Test { slot: node.slot, threshold: node.threshold };
            draft.split(at, test, players.of_slot(u32::from(test.slot))?, 0)?;
        }
    }
    (draft.edges.len() == nodes.len()).then_some((draft, Tree::default()))
}
