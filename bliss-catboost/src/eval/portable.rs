//! The kernel for any processor.

use super::inputs;
use super::job::Job;
use super::trees::{self, Sum};
use crate::layout::LANES;
use crate::scratch::Parts;

/// Fills all slots.
pub(super) fn fill_slots(job: &Job<'_>, parts: &mut Parts<'_>) {
    inputs::gather(job, parts.lanes);
    let slots = parts.slots.as_chunks_mut::<LANES>().0.iter_mut();
    for ((group, lanes), slots) in job.groups().iter().zip(&mut *parts.lanes).zip(slots) {
        if group.nan_largest != 0 {
            inputs::raise_nan(lanes, group.nan_largest);
        }
        let mut counts = [0_u32; LANES];
        for row in job.rows(group) {
            for ((count, lane), border) in counts.iter_mut().zip(&*lanes).zip(&row.0) {
                *count += u32::from(lane > border);
            }
        }
        for (slot, count) in slots.iter_mut().zip(counts) {
            *slot = count as u8;
        }
    }
    inputs::categories(job, parts.slots);
}

/// Adds up all trees.
pub(super) fn evaluate(job: &Job<'_>, is_oblivious: bool, parts: &mut Parts<'_>, out: &mut [f64]) {
    fill_slots(job, parts);
    out.fill(0.0);
    if is_oblivious {
        trees::add_blocks(job, parts.slots, out);
    } else {
        trees::walk(job, parts, out);
    }
}

/// Finds the position of each tree's leaf, and lets the trees wait in `own`.
///
/// # Safety
///
/// - as for [`trees::find_blocks`]
pub(super) unsafe fn positions(job: &Job<'_>, filled: bool, parts: &mut Parts<'_>, own: &mut Sum<'_>) {
    if !filled {
        fill_slots(job, parts);
    }
    // SAFETY:
    // - the caller's promise
    unsafe { trees::find_blocks(job, parts.slots, own) };
}
