//! Oblivious trees: blocks of 64 trees, level by level.

use super::error::{CompileError, narrow};
use super::slots::{Slots, Test};
use crate::build::ir::ObliviousTree;
use crate::layout::{BLOCK, Block, Pages, UNREACHABLE_THRESHOLD};

/// The sections of oblivious trees.
#[derive(Default)]
pub(super) struct Compiled {
    pub(super) blocks: Vec<Block>,
    pub(super) pages: Vec<Pages>,
    pub(super) tests: Vec<u8>,
    pub(super) leaf_bases: Vec<u32>,
    pub(super) leaves: Vec<f64>,
    pub(super) weights: Vec<u64>,
}

pub(super) fn compile(
    trees: &[ObliviousTree],
    weights: Option<&[Vec<f64>]>,
    dimensions: usize,
    slots: &Slots,
    wide: bool,
) -> Result<Compiled, CompileError> {
    let mut compiled = Compiled::default();
    let mut weights = weights.map(|weights| weights.iter());
    for block in trees.chunks(BLOCK) {
        let mut tests = Vec::with_capacity(BLOCK);
        for tree in block {
            let own = weights.as_mut().and_then(Iterator::next);
            tests.push(compiled.push_tree(tree, own.map(Vec::as_slice), dimensions, slots)?);
        }
        compiled.push_block(&tests, wide)?;
    }
    // A block is read whole.
    compiled.leaf_bases.resize(compiled.leaf_bases.len().next_multiple_of(BLOCK), 0);
    Ok(compiled)
}

impl Compiled {
    /// Adds a tree's leaves in the order of its splits sorted by slot; gives the sorted tests.
    fn push_tree(
        &mut self,
        tree: &ObliviousTree,
        weights: Option<&[f64]>,
        dimensions: usize,
        slots: &Slots,
    ) -> Result<Vec<Test>, CompileError> {
        let mut order = Vec::with_capacity(tree.splits.len());
        for (level, split) in tree.splits.iter().enumerate() {
            order.push((slots.test(*split)?, level));
        }
        // Sorted, the tests of one level touch few pages of slots.
        order.sort_by_key(|(test, _)| test.slot);
        self.leaf_bases.push(narrow(self.leaves.len(), "leaf values")?);
        if weights.is_some() {
            // CatBoost takes the last split first.
            let levels = order.iter().enumerate().map(|(bit, (_, level))| (bit, order.len() - 1 - level));
            self.weights.push(levels.fold(0, |word, (bit, level)| word | (bit as u64) << (4 * level)));
        }
        for leaf in 0..1_usize << order.len() {
            let old: usize =
                order.iter().enumerate().map(|(bit, (_, level))| (leaf >> bit & 1) << level).sum();
            let values = tree.leaves.get(old * dimensions..).and_then(|l| l.get(..dimensions));
            self.leaves.extend_from_slice(values.unwrap_or_default());
            if let Some(weights) = weights {
                self.weights.push(weights.get(old).copied().unwrap_or(0.0).to_bits());
            }
        }
        narrow(self.leaves.len(), "leaf values")?;
        Ok(order.into_iter().map(|(test, _)| test).collect())
    }

    fn push_block(&mut self, trees: &[Vec<Test>], wide: bool) -> Result<(), CompileError> {
        let levels = trees.iter().map(Vec::len).max().unwrap_or(0);
        self.blocks.push(Block {
            first_level: narrow(self.pages.len(), "levels")?,
            levels: narrow(levels, "levels")?,
        });
        for level in 0..levels {
            let mut used = trees.iter().filter_map(|t| t.get(level)).map(|t| t.slot);
            let first = used.next().unwrap_or(0);
            let (low, high) = used.fold((first, first), |(low, high), s| (low.min(s), high.max(s)));
            self.pages.push(Pages { of_128: [low >> 7, high >> 7] });
            // Trees that are less deep, and lanes without a tree, test a slot that is at hand and never true.
            let test = |at: usize| {
                let test = trees.get(at).and_then(|t| t.get(level)).copied();
                test.unwrap_or(Test { slot: low, threshold: UNREACHABLE_THRESHOLD })
            };
            self.tests.extend((0..BLOCK).map(|at| test(at).slot as u8));
            self.tests.extend((0..BLOCK).map(|at| test(at).threshold));
            if wide {
                self.tests.extend((0..BLOCK).map(|at| (test(at).slot >> 8) as u8));
            }
        }
        Ok(())
    }
}
