//! Several models on one row: their sums run side by side.
//!
//! A sum waits three cycles for each addition; the sums of several models do not wait for each other. So the leaves'
//! positions of up to six models are found first, one model after the other, and then added in one loop.

use super::super::error::EvalError;
use super::super::layout::{At, BLOCK, FLAG_ANY_SHAPE};
use super::super::reference::ModelRef;
use super::super::scratch::Scratch;

/// One of several models to evaluate on the same values.
#[derive(Debug)]
pub struct Task<'m, 'b> {
    /// The model.
    pub model: ModelRef<'m>,
    /// Where its inputs are among the values.
    pub binding: &'b [u32],
    /// Receives one value per output dimension.
    pub out: &'b mut [f64],
}

/// Sums that run side by side at most: with more, their pointers do not fit the registers.
const CHAINS: usize = 6;

/// A model whose leaves are to be added.
#[derive(Clone, Copy)]
struct Chain {
    leaves: *const f64,
    positions: *const u32,
    trees: usize,
}

/// Positions that a task wants; none where it cannot be summed beside others.
fn positions(task: &Task<'_, '_>) -> Option<usize> {
    let header = task.model.header();
    let alone = header.flags & FLAG_ANY_SHAPE != 0 || header.dimensions != 1 || header.trees == 0;
    (!alone).then(|| (header.trees as usize).next_multiple_of(BLOCK))
}

impl ModelRef<'_> {
    /// Evaluates several models on the same values: each as [`raw`](Self::raw) does, bit for bit, but faster than one
    /// after the other where models with one output dimension and oblivious trees follow each other and `scratch`
    /// holds all their trees ([`Scratch::reserve_for_many`]).
    ///
    /// Does not allocate.
    ///
    /// # Errors
    ///
    /// [`EvalError`] of the first task that fails; tasks before it may have been written.
    pub fn raw_many(
        tasks: &mut [Task<'_, '_>],
        values: &[f32],
        scratch: &mut Scratch,
    ) -> Result<(), EvalError> {
        let mut rest = tasks;
        while !rest.is_empty() {
            let mut room = scratch.positions();
            let fitting = rest.iter().take_while(|task| {
                let left = positions(task).and_then(|wanted| room.checked_sub(wanted));
                room = left.unwrap_or(0);
                left.is_some()
            });
            // Groups of about the same size.
            let run = fitting.count();
            let group = if run == 0 { 1 } else { run.div_ceil(run.div_ceil(CHAINS)) };
            let Some((now, later)) = rest.split_at_mut_checked(group) else { break };
            match now {
                [task] => task.model.raw(values, task.binding, scratch, task.out)?,
                tasks => together(tasks, values, scratch)?,
            }
            rest = later;
        }
        Ok(())
    }
}

/// Evaluates two to six tasks, all of which want positions that fit `scratch` together.
fn together(tasks: &mut [Task<'_, '_>], values: &[f32], scratch: &mut Scratch) -> Result<(), EvalError> {
    let mut chains = [Chain { leaves: std::ptr::null(), positions: std::ptr::null(), trees: 0 }; CHAINS];
    let mut first = 0;
    let room = scratch.positions();
    for (task, chain) in tasks.iter().zip(&mut chains) {
        let parts = scratch.parts(&task.model).ok_or(EvalError::Scratch)?;
        let wanted = positions(task).unwrap_or(usize::MAX);
        let end = wanted.checked_add(first).filter(|end| *end <= room).ok_or(EvalError::Scratch)?;
        let job = task.model.job(values, task.binding, parts, task.out.len())?;
        // SAFETY:
        // - the job was checked; a path is only ever one that the processor has
        // - from `first` on there are `wanted` positions (just compared), 64-byte aligned, since all are whole blocks
        let positions = unsafe {
            let positions = parts.positions.add(first);
            task.model.find_positions(&job, positions);
            positions
        };
        let leaves = task.model.section::<f64>(At::Leaves).as_ptr();
        *chain = Chain { leaves, positions, trees: task.model.trees() };
        first = end;
    }
    // SAFETY:
    // - every position that was found leads to a leaf value of its model (`validate`)
    unsafe {
        match (tasks.len(), &chains) {
            (2, [a, b, ..]) => finish(tasks, add(&[*a, *b])),
            (3, [a, b, c, ..]) => finish(tasks, add(&[*a, *b, *c])),
            (4, [a, b, c, d, ..]) => finish(tasks, add(&[*a, *b, *c, *d])),
            (5, [a, b, c, d, e, ..]) => finish(tasks, add(&[*a, *b, *c, *d, *e])),
            (_, chains) => finish(tasks, add(chains)),
        }
    }
    Ok(())
}

/// Adds the leaves of M models, each in the order of its trees.
///
/// # Safety
///
/// - each chain has a position per tree, each of which is one of its leaf values
#[inline(always)]
unsafe fn add<const M: usize>(chains: &[Chain; M]) -> [f64; M] {
    let mut sums = [0.0; M];
    let common = chains.iter().map(|c| c.trees).min().unwrap_or(0);
    for tree in 0..common {
        for (sum, chain) in sums.iter_mut().zip(chains) {
            // SAFETY:
            // - the caller's promise
            *sum += unsafe { *chain.leaves.add(*chain.positions.add(tree) as usize) };
        }
    }
    for (sum, chain) in sums.iter_mut().zip(chains) {
        for tree in common..chain.trees {
            // SAFETY:
            // - the caller's promise
            *sum += unsafe { *chain.leaves.add(*chain.positions.add(tree) as usize) };
        }
    }
    sums
}

fn finish<const M: usize>(tasks: &mut [Task<'_, '_>], sums: [f64; M]) {
    for (task, sum) in tasks.iter_mut().zip(sums) {
        if let [out] = &mut *task.out {
            *out = sum;
        }
        task.model.scale_and_bias(task.out);
    }
}
