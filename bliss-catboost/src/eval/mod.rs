//! Evaluation of one row: checks first, then one of three kernels.

mod inputs;
mod job;
mod many;
mod portable;
mod trees;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::error::EvalError;
use super::instruction_set::InstructionSet;
use super::layout::{FLAG_NON_SYMMETRIC, SectionId};
use super::reference::ModelRef;
use super::scratch::{Parts, Scratch};
use job::Job;
use trees::Sum;

pub use many::Evaluation;

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
        let mut parts = scratch.parts(self).ok_or(EvalError::Scratch)?;
        let job = Job::new(*self, values, binding, out.len(), false)?;
        let is_oblivious = self.header().flags & FLAG_NON_SYMMETRIC == 0;
        match self.instruction_set() {
            // SAFETY:
            // - a model has only instruction sets that the processor has (`InstructionSet::detect`, `with_instruction_set`)
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { x86::avx512::evaluate(&job, is_oblivious, &mut parts, out) },
            // SAFETY:
            // - as above
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { x86::avx2::evaluate(&job, is_oblivious, &mut parts, out) },
            _ => portable::evaluate(&job, is_oblivious, &mut parts, out),
        }
        self.scale_and_bias(out);
        Ok(())
    }

    /// Finds the position of each oblivious tree's leaf, and lets the trees wait in `own`. Meanwhile adds trees that wait
    /// in `before`. Fills the slots first, unless they are `filled` by a model with the same ones.
    ///
    /// # Safety
    ///
    /// - the job is this model's, and so are the parts, and the model has oblivious trees and one output dimension
    /// - `own` [began](Sum::begin) with room for a multiple of 64 positions, at least one per tree, none of which waits in
    ///   `before`; they stay as they are until `own` is [finished](Sum::finish)
    unsafe fn find_positions(
        &self,
        job: &Job<'_>,
        filled: bool,
        parts: &mut Parts<'_>,
        before: &mut Sum<'_>,
        own: &mut Sum<'_>,
    ) {
        // SAFETY:
        // - the caller's promise
        // - a model has only instruction sets that the processor has
        unsafe {
            match self.instruction_set() {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => x86::avx512::positions(job, filled, parts, before, own),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => x86::avx2::positions(job, filled, parts, before, own),
                _ => portable::positions(job, filled, parts, own),
            }
        }
    }

    /// Fills the slots for a row and gives them; checks what [`raw`](Self::raw) checks but the output's length.
    pub(crate) fn slots<'s>(
        &self,
        values: &[f32],
        binding: &[u32],
        scratch: &'s mut Scratch,
    ) -> Result<&'s [u8], EvalError> {
        let mut parts = scratch.parts(self).ok_or(EvalError::Scratch)?;
        let job = Job::new(*self, values, binding, self.output_dimensions(), false)?;
        portable::fill_slots(&job, &mut parts);
        Ok(parts.slots)
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
