//! Evaluation of one row: checks first, then one of three kernels.

mod inputs;
mod many;
mod portable;
mod trees;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::error::EvalError;
use super::instruction_set::InstructionSet;
use super::layout::{
    Block, Element, FLAG_NON_SYMMETRIC, Group, Header, Node, OneHot, Pages, Projection, Row, SectionId,
    Traversal,
};
use super::reference::ModelRef;
use super::scratch::{Parts, Scratch};
use trees::Sum;

pub use many::Evaluation;

/// A row to evaluate, and everything that a kernel reads and writes. Made by [`ModelRef::raw`] only, after its checks:
///
/// - `binding` has an entry per input, each below `values.len()`
/// - `parts` are as large as the model wants, and `out` has `dimensions` elements
/// - the sections are those of a model that `validate::check` accepted
#[derive(Clone, Copy)]
struct Job<'a> {
    header: &'a Header,
    values: &'a [f32],
    binding: &'a [u32],
    parts: Parts,
    lanes: &'a [u32],
    groups: &'a [Group],
    rows: &'a [Row],
    one_hots: &'a [OneHot],
    projections: &'a [Projection],
    elements: &'a [Element],
    tables: &'a [u8],
    leaves: &'a [f64],
}

/// The sections of oblivious trees.
#[derive(Clone, Copy)]
struct Oblivious<'a> {
    blocks: &'a [Block],
    pages: &'a [Pages],
    tests: &'a [u8],
    bases: &'a [u32],
}

/// The sections of trees of any shape.
#[derive(Clone, Copy)]
struct NonSymmetric<'a> {
    nodes: &'a [Node],
    values: &'a [u32],
    roots: &'a [u32],
    walks: &'a [Traversal],
}

impl ModelRef<'_> {
    /// Evaluates a row: `out` receives what CatBoost calls `RawFormulaVal`, one value per output dimension.
    ///
    /// `values` is any vector that holds the inputs, among others; `binding[i]` is the index in it of input `i` of
    /// [`inputs`](Self::inputs). A category is a `u32` bit-cast by `f32::from_bits`. NaN is a missing number, and
    /// treated as the model was trained to.
    ///
    /// Does not allocate and makes no system call; takes less than 8 KB of stack.
    ///
    /// # Errors
    ///
    /// [`EvalError`] where the lengths do not fit the model, the binding leads outside `values`, or `scratch` was
    /// never made for this model; `out` is then as it was.
    pub fn raw(
        &self,
        values: &[f32],
        binding: &[u32],
        scratch: &mut Scratch,
        out: &mut [f64],
    ) -> Result<(), EvalError> {
        let parts = scratch.parts(self).ok_or(EvalError::Scratch)?;
        let job = self.job(values, binding, parts, out.len(), false)?;
        if job.header.flags & FLAG_NON_SYMMETRIC == 0 {
            let trees = self.oblivious();
            // SAFETY:
            // - the job was checked above
            // - the instruction set is only ever one that the processor has (`InstructionSet::detect`, `with_instruction_set`)
            unsafe {
                match self.instruction_set() {
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 => x86::avx512::oblivious(&job, &trees, out),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => x86::avx2::oblivious(&job, &trees, out),
                    _ => portable::oblivious(&job, &trees, out),
                }
            }
        } else {
            let trees = NonSymmetric {
                nodes: self.section(SectionId::Nodes),
                values: self.section(SectionId::NodeLeaves),
                roots: self.section(SectionId::Roots),
                walks: self.section(SectionId::Walks),
            };
            // SAFETY:
            // - as above
            unsafe {
                match self.instruction_set() {
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 => x86::avx512::non_symmetric(&job, &trees, out),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => x86::avx2::non_symmetric(&job, &trees, out),
                    _ => portable::non_symmetric(&job, &trees, out),
                }
            }
        }
        self.scale_and_bias(out);
        Ok(())
    }

    /// Checks what a row brings, and collects what a kernel wants. `bound` says that the binding was checked against these
    /// values before.
    fn job<'j>(
        &'j self,
        values: &'j [f32],
        binding: &'j [u32],
        parts: Parts,
        outputs: usize,
        bound: bool,
    ) -> Result<Job<'j>, EvalError> {
        let header = self.header();
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
        Ok(Job {
            header,
            values,
            binding,
            parts,
            lanes: self.section(SectionId::Lanes),
            groups: self.section(SectionId::Groups),
            rows: self.section(SectionId::Borders),
            one_hots: self.section(SectionId::OneHots),
            projections: self.section(SectionId::Projections),
            elements: self.section(SectionId::Elements),
            tables: self.section(SectionId::Ctrs),
            leaves: self.section(SectionId::Leaves),
        })
    }

    fn oblivious(&self) -> Oblivious<'_> {
        Oblivious {
            blocks: self.section(SectionId::Blocks),
            pages: self.section(SectionId::Pages),
            tests: self.section(SectionId::Tests),
            bases: self.section(SectionId::LeafBases),
        }
    }

    /// Finds the position of each oblivious tree's leaf, and lets the trees wait in the sum that is returned. Meanwhile
    /// adds trees that wait in `before`. Fills the slots first, unless they are `filled` by a model with the same ones.
    ///
    /// # Safety
    ///
    /// - the job is this model's, which has oblivious trees and one output dimension
    /// - there is room for a multiple of 64 positions, at least one per tree, 64-byte aligned, none of which waits in
    ///   `before`; they stay as they are until the sum is [finished](Sum::finish)
    unsafe fn find_positions(
        &self,
        job: &Job<'_>,
        filled: bool,
        positions: *mut u32,
        before: &mut Sum,
    ) -> Sum {
        let trees = self.oblivious();
        let mut own = Sum::begin(job, positions);
        // SAFETY:
        // - the caller's promise; the instruction set is only ever one that the processor has
        unsafe {
            match self.instruction_set() {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => {
                    x86::avx512::positions(job, filled, &trees, positions, before, &mut own)
                }
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => {
                    x86::avx2::positions(job, filled, &trees, positions, before, &mut own)
                }
                _ => portable::positions(job, filled, &trees, positions, &mut own),
            }
        }
        own
    }

    /// What CatBoost does to the sums at last.
    fn scale_and_bias(&self, out: &mut [f64]) {
        let scale = self.header().scale;
        let bias = self.section::<f64>(SectionId::Bias);
        if self.header().trees == 0 {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out = *bias);
        } else if let ([out], [bias]) = (&mut *out, bias) {
            match (scale == 1.0, *bias == 0.0) {
                (true, true) => {}
                (true, false) => *out += bias,
                (false, true) => *out *= scale,
                (false, false) => *out = scale * *out + bias,
            }
        } else if scale != 1.0 || bias.iter().any(|b| *b != 0.0) {
            for (out, bias) in out.iter_mut().zip(bias) {
                *out = scale * *out + bias;
            }
        }
    }
}
