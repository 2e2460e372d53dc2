//! The kernel for any processor.

use super::trees::{Positions, Sum};
use super::{Job, NonSymmetric, Oblivious, inputs, trees};
use crate::layout::{BLOCK, LANES};

/// Fills all slots.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made
unsafe fn fill_slots(job: &Job<'_>) {
    // SAFETY:
    // - the caller's promise, passed on; a group's lanes, rows and slots exist (`validate`, `raw`)
    unsafe {
        inputs::gather(job);
        for (at, group) in job.groups.iter().enumerate() {
            let lanes = job.parts.lanes.add(at * LANES);
            if group.nan_largest != 0 {
                inputs::raise_nan(lanes, group.nan_largest);
            }
            let lanes = &*lanes.cast::<[f32; LANES]>();
            let first = group.first_row as usize;
            let mut counts = [0_u32; LANES];
            for row in job.rows.get_unchecked(first..first + usize::from(group.rows)) {
                for ((count, lane), border) in counts.iter_mut().zip(lanes).zip(&row.0) {
                    *count += u32::from(lane > border);
                }
            }
            let slots = &mut *job.parts.slots.add(at * LANES).cast::<[u8; LANES]>();
            for (slot, count) in slots.iter_mut().zip(counts) {
                *slot = count as u8;
            }
        }
        inputs::categories(job);
    }
}

/// Evaluates oblivious trees.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
pub(super) unsafe fn oblivious(job: &Job<'_>, trees: &Oblivious<'_>, out: &mut [f64]) {
    // SAFETY:
    // - the caller's promise
    unsafe { fill_slots(job) };
    out.fill(0.0);
    let mut positions = Positions([0; BLOCK]);
    for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
        let count = trees::trees_from(job, at * BLOCK);
        // SAFETY:
        // - the caller's promise; the slots are filled
        // - every index that a tree's tests can make leads to leaf values (`validate`)
        unsafe {
            trees::block_positions(job, trees, block, bases, &mut positions);
            trees::add_leaves(job, positions.0.get_unchecked(..count), out);
        }
    }
}

/// Finds the position of each tree's leaf, and lets the trees wait in `own`.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
/// - there is room for a multiple of 64 positions, at least one per tree, 64-byte aligned
/// - `own` began with these positions
pub(super) unsafe fn positions(
    job: &Job<'_>,
    filled: bool,
    trees: &Oblivious<'_>,
    positions: *mut u32,
    own: &mut Sum,
) {
    // SAFETY:
    // - the caller's promise; `Positions` is 64 numbers, 64-byte aligned
    unsafe {
        if !filled {
            fill_slots(job);
        }
        for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
            let positions = &mut *positions.add(at * BLOCK).cast::<Positions>();
            trees::block_positions(job, trees, block, bases, positions);
            own.more(trees::trees_from(job, at * BLOCK));
        }
    }
}

/// Evaluates trees of any shape.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
pub(super) unsafe fn non_symmetric(job: &Job<'_>, trees: &NonSymmetric<'_>, out: &mut [f64]) {
    // SAFETY:
    // - the caller's promise
    unsafe { fill_slots(job) };
    out.fill(0.0);
    // SAFETY:
    // - the caller's promise; the slots are filled
    unsafe { trees::walk(job, trees, out) };
}
