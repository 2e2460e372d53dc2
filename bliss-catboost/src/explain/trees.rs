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

/// A tree that is being read. Its memory serves one tree after the other.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) edges: Vec<Edge>,
    /// Players on a path at most.
    pub(super) most_players: usize,
    /// Tests of an oblivious tree, by the bit that they set.
    pub(super) levels: Vec<Test>,
    /// Per edge the weight below.
    weights: Vec<f64>,
    /// Per edge its level.
    depths: Vec<u32>,
    /// Per edge the test of its node, and the player and the bit.
    tests: Vec<Option<(Test, u32, u8)>>,
    /// Per edge of an oblivious tree the bits of the leaf that are known.
    bits: Vec<u32>,
    /// Per edge the players from the root to there.
    players: Vec<u32>,
    /// Per edge the share of all rows that comes there.
    shares: Vec<f64>,
}

impl Draft {
    /// Memory for trees of so many edges. Pages of it that no tree needs are not touched.
    pub(super) fn with_room(edges: usize) -> Self {
        Self {
            edges: Vec::with_capacity(edges),
            most_players: 0,
            levels: Vec::with_capacity(MAX_LEVELS),
            weights: Vec::with_capacity(edges),
            depths: Vec::with_capacity(edges),
            tests: Vec::with_capacity(edges),
            bits: Vec::with_capacity(edges),
            players: Vec::with_capacity(edges),
            shares: Vec::with_capacity(edges),
        }
    }

    /// Reads tree `index` of a model, whose weights are next. `limit` is the most edges that it may have, within which a draft
    /// with [room](Self::with_room) for them does not allocate. Nothing that the tree says is believed.
    pub(super) fn read(
        &mut self,
        source: Source<'_, '_>,
        index: usize,
        words: &mut Words<'_>,
        convention: Convention,
        limit: usize,
    ) -> Result<(), ExplainError> {
        let corrupt = ExplainError::Corrupt { tree: index };
        let is_oblivious = source.model.header().flags & FLAG_NON_SYMMETRIC == 0;
        let found =
            if is_oblivious { self.read_levels(source.model, index) } else { nodes(source.model, index) };
        let found = found.ok_or(corrupt)?;
        if found > limit {
            return Err(ExplainError::TreeTooLarge { tree: index, found, limit });
        }
        self.clear();
        if is_oblivious {
            self.read_oblivious(source, index, words).ok_or(corrupt)?;
        } else {
            self.read_non_symmetric(source, index, words).ok_or(corrupt)?;
        }
        if self.depths.last().is_some_and(|depth| *depth as usize > MAX_DEPTH) {
            return Err(ExplainError::TooDeep { tree: index, limit: MAX_DEPTH });
        }
        self.finish(convention).ok_or(corrupt)
    }

    /// Forgets all but the levels.
    fn clear(&mut self) {
        self.edges.clear();
        self.weights.clear();
        self.depths.clear();
        self.tests.clear();
        self.bits.clear();
    }

    fn push(&mut self, parent: u32, right: bool, level: u32) {
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

    /// Computes what depends on the whole tree.
    fn finish(&mut self, convention: Convention) -> Option<()> {
        let like_catboost = convention == Convention::CatBoost;
        for at in (1..self.edges.len()).rev() {
            let edge = self.edges.get(at)?;
            if like_catboost && edge.implied && edge.parent == 0 {
                continue; // CatBoost forgets this weight.
            }
            let weight = *self.weights.get(at)?;
            *self.weights.get_mut(edge.parent as usize)? += weight;
        }
        // Weights that are numbers may still add up to none.
        if !self.weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        self.players.clear();
        self.players.resize(self.edges.len(), 0);
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
            let count = *self.players.get(edge.parent as usize)? + u32::from(above == 0);
            *self.players.get_mut(at)? = count;
            most = most.max(count);
            *self.edges.get_mut(at)? = edge;
        }
        self.most_players = most as usize;
        Some(())
    }

    /// Adds the mean of the tree's leaves, per dimension.
    pub(super) fn add_expected(
        &mut self,
        model: &ModelRef<'_>,
        convention: Convention,
        expected: &mut [f64],
    ) {
        let leaves = model.section::<f64>(SectionId::Leaves);
        let whole = self.weights.first().copied().unwrap_or(0.0);
        self.shares.clear();
        for (at, (edge, weight)) in self.edges.iter().zip(&self.weights).enumerate() {
            let parent = self.shares.get(edge.parent as usize).copied().unwrap_or(1.0);
            let above = self.weights.get(edge.parent as usize).copied().unwrap_or(0.0);
            let share = match (at, whole > 0.0) {
                (0, _) => 1.0,
                // Not the product of the shares on the way: CatBoost's root may weigh less than its children.
                (_, true) => weight / whole,
                (_, false) if convention == Convention::Exact && above <= 0.0 => 0.5 * parent,
                (_, false) => 0.0,
            };
            self.shares.push(share);
            if edge.leaf != NONE {
                let values = leaves.get(edge.leaf as usize..).unwrap_or_default();
                for (expected, value) in expected.iter_mut().zip(values) {
                    *expected += share * value;
                }
            }
        }
    }

    /// Reads the tests of an oblivious tree, and gives the number of its edges.
    fn read_levels(&mut self, model: &ModelRef<'_>, index: usize) -> Option<usize> {
        self.levels.clear();
        let block = model.section::<Block>(SectionId::Blocks).get(index / BLOCK)?;
        let stride = level_bytes(model.header().flags);
        let levels =
            model.section::<u8>(SectionId::Tests).chunks_exact(stride).skip(block.first_level as usize);
        let lane = index % BLOCK;
        // Blocks have so many at most (`validate`).
        for level in levels.take((block.levels as usize).min(MAX_LEVELS)) {
            let high = level.get(2 * BLOCK + lane).copied().unwrap_or(0);
            let slot = u16::from(*level.get(lane)?) | u16::from(high) << 8;
            let threshold = *level.get(BLOCK + lane)?;
            if threshold == UNREACHABLE_THRESHOLD {
                break; // the tree is less deep than others of its block
            }
            self.levels.push(Test { slot, threshold });
        }
        Some((2 << self.levels.len()) - 1)
    }

    /// Fills in the edges of oblivious tree `index`, whose levels are read.
    fn read_oblivious(&mut self, source: Source<'_, '_>, index: usize, words: &mut Words<'_>) -> Option<()> {
        let base = *source.model.section::<u32>(SectionId::LeafBases).get(index)?;
        let dimensions = source.model.header().dimensions;
        let depth = self.levels.len();
        // Where they are missing, that shows before memory is taken for the edges.
        let word = words.next()?;
        let weights = words.0.get(..1 << depth)?;
        // From the root on, which test: each once.
        let order = |level: usize| (word >> (4 * level) & 15) as u8;
        if (0..depth).fold(0_u32, |seen, level| seen | 1 << order(level)) != (1 << depth) - 1 {
            return None;
        }
        self.push(NONE, false, 0);
        self.bits.push(0);
        let inner = (1 << depth) - 1;
        for at in 0..inner {
            let bit = order(*self.depths.get(at)? as usize);
            let test = *self.levels.get(usize::from(bit))?;
            self.split(at, test, source.players.of_slot(u32::from(test.slot))?, bit)?;
            let own = *self.bits.get(at)?;
            self.bits.extend([own, own | 1 << bit]);
        }
        words.0 = words.0.get(1 << depth..)?;
        for at in inner..self.edges.len() {
            let leaf = *self.bits.get(at)?;
            let position = leaf.checked_mul(dimensions)?.checked_add(base)?;
            self.leaf(at, position, *weights.get(leaf as usize)?, false)?;
        }
        Some(())
    }

    /// Fills in the edges of non-symmetric tree `index`: its nodes lie level by level, each behind its parent.
    fn read_non_symmetric(
        &mut self,
        source: Source<'_, '_>,
        index: usize,
        words: &mut Words<'_>,
    ) -> Option<()> {
        let (model, range) = (source.model, node_range(source.model, index)?);
        let first = range.start;
        let nodes = model.section::<Node>(SectionId::Nodes).get(range.clone())?;
        let values = model.section::<u32>(SectionId::NodeLeaves).get(range)?;
        self.levels.clear();
        self.push(NONE, false, 0);
        for (at, (node, value)) in nodes.iter().zip(values).enumerate() {
            if node.threshold == UNREACHABLE_THRESHOLD {
                self.leaf(at, *value, words.next()?, node.implied == 1)?;
            } else {
                // The compiler puts the children behind all nodes that are known.
                if node.base as usize != first + self.edges.len() || self.edges.len() + 2 > nodes.len() {
                    return None;
                }
                let test = Test { slot: node.slot, threshold: node.threshold };
                self.split(at, test, source.players.of_slot(u32::from(test.slot))?, 0)?;
            }
        }
        (self.edges.len() == nodes.len()).then_some(())
    }
}

/// Where trees are read from.
#[derive(Clone, Copy)]
pub(super) struct Source<'s, 'm> {
    pub(super) model: &'s ModelRef<'m>,
    pub(super) players: &'s Players,
}

/// The nodes of non-symmetric tree `index`.
fn node_range(model: &ModelRef<'_>, index: usize) -> Option<std::ops::Range<usize>> {
    let roots = model.section::<u32>(SectionId::Roots);
    let first = *roots.get(index)? as usize;
    let end =
        roots.get(index + 1).map_or(model.section::<Node>(SectionId::Nodes).len(), |next| *next as usize);
    Some(first..end)
}

/// How many they are.
fn nodes(model: &ModelRef<'_>, index: usize) -> Option<usize> {
    let range = node_range(model, index)?;
    range.end.checked_sub(range.start)
}

/// All trees of a model and their edges.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) trees: Vec<Tree>,
    pub(super) edges: Vec<Edge>,
    /// What is expected of a row that nothing is known of, without scale and bias, per dimension.
    pub(super) expected: Vec<f64>,
}

/// The weights of a model's trees, one after the other.
pub(super) struct Words<'a>(&'a [u64]);

impl<'a> Words<'a> {
    /// Those of a model, if it has any.
    pub(super) fn of(model: &ModelRef<'a>) -> Result<Self, ExplainError> {
        if model.is_explainable() {
            Ok(Self(model.section(SectionId::Weights)))
        } else {
            Err(ExplainError::NoLeafWeights)
        }
    }

    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An error where there are more weights than trees want.
    pub(super) fn end(&self, model: &ModelRef<'_>) -> Result<(), ExplainError> {
        if self.0.is_empty() { Ok(()) } else { Err(ExplainError::Corrupt { tree: model.trees() }) }
    }
}

impl Forest {
    /// Reads all trees.
    pub(super) fn of(
        model: &ModelRef<'_>,
        players: &Players,
        convention: Convention,
    ) -> Result<Self, ExplainError> {
        let mut forest = Self { expected: vec![0.0; model.output_dimensions()], ..Self::default() };
        let mut words = Words::of(model)?;
        let mut draft = Draft::default();
        for tree in 0..model.trees() {
            draft.read(Source { model, players }, tree, &mut words, convention, usize::MAX)?;
            draft.add_expected(model, convention, &mut forest.expected);
            forest.trees.push(Tree {
                first: forest.edges.len(),
                len: draft.edges.len(),
                players: draft.most_players,
                tests: draft.levels.clone(),
            });
            forest.edges.append(&mut draft.edges);
        }
        words.end(model)?;
        Ok(forest)
    }
}
