//! Several models on one row: one's sum continues while the next one's leaves are found.
//!
//! Models that ask the same of the same inputs (retrained leaves, copies of one model) fill their slots once.
//!
//! A sum waits three cycles for each addition, and for its leaf to come from the second-level cache. Alone, a model can
//! hide some of that behind finding its own leaves; with another model behind it, nearly all.

use super::job::Job;
use super::trees::Sum;
use crate::error::EvalError;
use crate::layout::{BLOCK, FLAG_NON_SYMMETRIC};
use crate::reference::ModelRef;
use crate::scratch::Scratch;

/// One of several models to evaluate on the same values.
#[derive(Debug)]
pub struct Evaluation<'m, 'b> {
    /// The model.
    pub model: ModelRef<'m>,
    /// Where its inputs are among the values.
    pub binding: &'b [u32],
    /// Receives one value per output dimension.
    pub out: &'b mut [f64],
}

impl Evaluation<'_, '_> {
    /// Positions that it wants; none where its sum cannot run beside others.
    fn positions(&self) -> Option<usize> {
        let header = self.model.header();
        let alone = header.flags & FLAG_NON_SYMMETRIC != 0 || header.dimensions != 1 || header.trees == 0;
        (!alone).then(|| (header.trees as usize).next_multiple_of(BLOCK))
    }

    /// Writes the output from the sum of its leaf values.
    fn set_output(&mut self, sum: f64) {
        if let [out] = &mut *self.out {
            *out = sum;
        }
        self.model.scale_and_bias(self.out);
    }
}

impl ModelRef<'_> {
    /// Evaluates several models on the same values: each as [`raw`](Self::raw) does, bit for bit, but faster than one
    /// after the other where models with one output dimension and oblivious trees follow each other and `scratch`
    /// holds the trees of two at a time ([`Scratch::reserve_for_many`]).
    ///
    /// Does not allocate.
    ///
    /// # Errors
    ///
    /// [`EvalError`] of the first evaluation that fails; evaluations before it may have been written.
    pub fn raw_many(
        evaluations: &mut [Evaluation<'_, '_>],
        values: &[f32],
        scratch: &mut Scratch,
    ) -> Result<(), EvalError> {
        // Each half of the positions belongs to every other model.
        let half = scratch.positions() / 2 / BLOCK * BLOCK;
        let mut before: Option<(&mut Evaluation<'_, '_>, Sum<'_>)> = None;
        // Which slots are filled, from where.
        let mut filled: Option<(u64, &[u32])> = None;
        for (number, evaluation) in evaluations.iter_mut().enumerate() {
            if evaluation.positions().is_none_or(|wanted| wanted > half) {
                // It may use the positions for itself.
                finish(before.take());
                filled = None;
                evaluation.model.raw(values, evaluation.binding, scratch, evaluation.out)?;
                continue;
            }
            let model = evaluation.model;
            let mut parts = scratch.parts(&model).ok_or(EvalError::Scratch)?;
            let slots = Some((model.header().slots_id, evaluation.binding)).filter(|(id, _)| *id != 0);
            let same_slots = slots.is_some() && slots == filled;
            let job = Job::new(model, values, evaluation.binding, evaluation.out.len(), same_slots)?;
            filled = slots;
            let mut none = Sum::new(&job);
            let waiting = before.as_mut().map_or(&mut none, |(_, sum)| sum);
            // SAFETY:
            // - the job was checked (its binding by an earlier evaluation, where that had the same)
            // - an evaluation that wants positions has oblivious trees and one output dimension
            // - it wants at most a half of the positions, all of which lie in `parts.positions`
            // - the trees that wait, if any, are those of the evaluation just before, in the other half; nothing writes
            //   there before `finish`
            // - slots that another model filled are bytes like any others (`Parts`): if they were not the same after all,
            //   the answer would be wrong, but each test leads to one of the leaves whatever they are
            let own = unsafe {
                let mut own =
                    Sum::begin(&job, parts.positions.as_mut_ptr().cast::<u32>().add(number % 2 * half));
                model.find_positions(&job, same_slots, &mut parts, waiting, &mut own);
                own
            };
            finish(before.replace((evaluation, own)));
        }
        finish(before);
        Ok(())
    }
}

/// Adds what still waits.
fn finish(before: Option<(&mut Evaluation<'_, '_>, Sum<'_>)>) {
    if let Some((evaluation, mut sum)) = before {
        // Its positions are there still: `raw_many` finishes a sum before it lets go of them.
        sum.finish();
        evaluation.set_output(sum.total);
    }
}
