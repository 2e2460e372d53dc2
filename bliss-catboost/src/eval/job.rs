//! A row to evaluate, checked: what makes the unchecked reads of the kernels sound.

use crate::error::EvalError;
use crate::layout::{
    BLOCK, Block, Element, Group, Header, Node, OneHot, Pages, Projection, Row, SectionId, Traversal,
};
use crate::reference::ModelRef;

/// A model and a row of values for it. What [`Job::new`] and `validate::check` guarantee, kernels rely on:
///
/// - the binding has an entry per input, each below the number of values
/// - the sections are those of one model that `validate::check` accepted
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    model: ModelRef<'a>,
    values: &'a [f32],
    binding: &'a [u32],
    rows: &'a [Row],
    leaves: &'a [f64],
}

/// The sections of oblivious trees.
#[derive(Clone, Copy)]
pub(super) struct Oblivious<'a> {
    blocks: &'a [Block],
    pages: &'a [Pages],
    tests: &'a [u8],
    bases: &'a [u32],
}

/// The sections of non-symmetric trees.
#[derive(Clone, Copy)]
pub(super) struct NonSymmetric<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) values: &'a [u32],
    pub(super) roots: &'a [u32],
    pub(super) walks: &'a [Traversal],
}

impl<'a> Job<'a> {
    /// Checks what a row brings. `bound` says that the binding was checked against these values before.
    pub(super) fn new(
        model: ModelRef<'a>,
        values: &'a [f32],
        binding: &'a [u32],
        outputs: usize,
        bound: bool,
    ) -> Result<Self, EvalError> {
        let header = model.header();
        if binding.len() != header.inputs as usize {
            return Err(EvalError::BindingLength { expected: header.inputs as usize, found: binding.len() });
        }
        if outputs != header.dimensions as usize {
            return Err(EvalError::OutputLength { expected: header.dimensions as usize, found: outputs });
        }
        // Each below the limit, which is below 2^31: the difference is negative, and the entry is not.
        let limit = u32::try_from(values.len()).unwrap_or(u32::MAX).min(i32::MAX as u32);
        let below = |all: u32, at: &u32| all & at.wrapping_sub(limit) & !at;
        if !bound && binding.iter().fold(1 << 31, below) == 0 {
            let found = binding.iter().fold(0, |largest, at| largest.max(*at));
            return Err(EvalError::BindingRange { values: values.len(), found });
        }
        let (rows, leaves) = (model.section(SectionId::Borders), model.section(SectionId::Leaves));
        Ok(Self { model, values, binding, rows, leaves })
    }

    #[inline(always)]
    pub(super) fn header(&self) -> &'a Header {
        self.model.header()
    }

    /// The inputs of the lanes, 16 for each group.
    #[inline(always)]
    pub(super) fn lanes(&self) -> &'a [u32] {
        self.model.section(SectionId::Lanes)
    }

    #[inline(always)]
    pub(super) fn groups(&self) -> &'a [Group] {
        self.model.section(SectionId::Groups)
    }

    /// The rows of borders of a group.
    #[inline(always)]
    pub(super) fn rows(&self, group: &Group) -> &'a [Row] {
        let rows = self.rows.get(group.first_row as usize..);
        rows.and_then(|rows| rows.get(..usize::from(group.rows))).unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn one_hots(&self) -> &'a [OneHot] {
        self.model.section(SectionId::OneHots)
    }

    #[inline(always)]
    pub(super) fn projections(&self) -> &'a [Projection] {
        self.model.section(SectionId::Projections)
    }

    #[inline(always)]
    pub(super) fn elements(&self) -> &'a [Element] {
        self.model.section(SectionId::Elements)
    }

    /// The hash tables of the projections.
    #[inline(always)]
    pub(super) fn tables(&self) -> &'a [u8] {
        self.model.section(SectionId::Ctrs)
    }

    #[inline(always)]
    pub(super) fn leaves(&self) -> &'a [f64] {
        self.leaves
    }

    pub(super) fn oblivious(&self) -> Oblivious<'a> {
        Oblivious {
            blocks: self.model.section(SectionId::Blocks),
            pages: self.model.section(SectionId::Pages),
            tests: self.model.section(SectionId::Tests),
            bases: self.model.section(SectionId::LeafBases),
        }
    }

    pub(super) fn non_symmetric(&self) -> NonSymmetric<'a> {
        NonSymmetric {
            nodes: self.model.section(SectionId::Nodes),
            values: self.model.section(SectionId::NodeLeaves),
            roots: self.model.section(SectionId::Roots),
            walks: self.model.section(SectionId::Walks),
        }
    }

    /// Number of trees in the block that starts at tree `first`.
    #[inline(always)]
    pub(super) fn trees_from(&self, first: usize) -> usize {
        (self.header().trees as usize).saturating_sub(first).min(BLOCK)
    }

    /// The value of an input.
    ///
    /// # Safety
    ///
    /// - the model has this input
    #[inline(always)]
    pub(super) unsafe fn value(&self, input: u32) -> f32 {
        // SAFETY:
        // - the binding has one entry per input, each below `values.len()` (`Self::new`)
        unsafe { *self.values.get_unchecked(*self.binding.get_unchecked(input as usize) as usize) }
    }
}

impl<'a> Oblivious<'a> {
    /// The blocks of 64 trees, with the position of each tree's first leaf value.
    #[inline(always)]
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&'a Block, &'a [u32; BLOCK])> {
        self.blocks.iter().zip(self.bases.as_chunks::<BLOCK>().0)
    }

    /// The tests of each level of a block, of `STRIDE` bytes ([`level_bytes`](crate::layout::level_bytes)), and the pages
    /// of slots that they read.
    #[inline(always)]
    pub(super) fn levels<const STRIDE: usize>(
        &self,
        block: &Block,
    ) -> impl Iterator<Item = (&'a [u8; STRIDE], &'a Pages)> {
        let (first, count) = (block.first_level as usize, block.levels as usize);
        let tests = self.tests.as_chunks::<STRIDE>().0.get(first..).and_then(|tests| tests.get(..count));
        let pages = self.pages.get(first..).and_then(|pages| pages.get(..count));
        tests.unwrap_or_default().iter().zip(pages.unwrap_or_default())
    }
}
