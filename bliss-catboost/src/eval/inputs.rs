//! From the row's values to slots, but for the quantising itself: parts that every kernel shares.

use super::Job;
use crate::layout::{Element, LANES, Projection, entry_bytes, first_probe};

/// Multiplier of CatBoost's hash of combinations.
const COMBINE: u64 = 0x4906_ba49_4954_cb65;

/// A slot of a CTR is at most this, whatever the table's bytes say: [`UNREACHABLE_THRESHOLD`](crate::layout::UNREACHABLE_THRESHOLD) must stay
/// out of reach.
const LARGEST_SLOT: u8 = 254;

/// Marks an empty entry of a CTR table.
const EMPTY: u64 = u64::MAX;

/// Copies each lane's value to the scratch memory.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made
#[inline(always)]
pub(super) unsafe fn gather(job: &Job<'_>) {
    for (at, input) in job.lanes.iter().enumerate() {
        // SAFETY:
        // - lanes name inputs (`validate`), the binding has one entry per input, each below `values.len()` (`raw`)
        // - the scratch memory has 16 numbers per group, and there are as many lanes (`validate`)
        unsafe {
            let value = *job.binding.get_unchecked(*input as usize);
            *job.parts.lanes.add(at) = *job.values.get_unchecked(value as usize);
        }
    }
}

/// Replaces NaN by plus infinity in the lanes of a group that want it.
///
/// # Safety
///
/// - `lanes` are the 16 numbers of a group
#[inline(always)]
pub(super) unsafe fn raise_nan(lanes: *mut f32, nan_largest: u16) {
    for lane in 0..LANES {
        if nan_largest >> lane & 1 == 1 {
            // SAFETY:
            // - below 16 (the caller's promise)
            let value = unsafe { &mut *lanes.add(lane) };
            if value.is_nan() {
                *value = f32::INFINITY;
            }
        }
    }
}

/// The bits of an input.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and `input` is below the model's inputs
#[inline(always)]
unsafe fn category(job: &Job<'_>, input: u32) -> u32 {
    // SAFETY:
    // - as in `gather`
    unsafe { job.values.get_unchecked(*job.binding.get_unchecked(input as usize) as usize).to_bits() }
}

/// Fills the slots of one-hot tests and of CTRs; the slots of numbers are filled already.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made
#[inline(always)]
pub(super) unsafe fn categories(job: &Job<'_>) {
    let slots = job.parts.slots;
    for (at, one_hot) in job.one_hots.iter().enumerate() {
        // SAFETY:
        // - the input exists, and lanes and one-hot tests together are at most `slots` (`validate`)
        unsafe {
            *slots.add(job.lanes.len() + at) = u8::from(category(job, one_hot.input) == one_hot.value);
        }
    }
    for projection in job.projections {
        // SAFETY:
        // - this function's own promise; the projection is the model's
        unsafe { look_up(job, projection) };
    }
}

/// Fills the slots of a projection from its table.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the projection is of the same model
#[inline]
unsafe fn look_up(job: &Job<'_>, projection: &Projection) {
    let first = projection.first_element as usize;
    // SAFETY:
    // - elements exist (`validate`)
    let elements = unsafe { job.elements.get_unchecked(first..first + projection.elements as usize) };
    let mut key = 0_u64;
    for Element { threshold, at } in elements {
        // SAFETY:
        // - `at` is an input where the threshold is 0, else a slot (`validate`)
        let value = unsafe {
            if *threshold == 0 {
                i64::from(category(job, *at).cast_signed()).cast_unsigned()
            } else {
                u64::from(u32::from(*job.parts.slots.add(*at as usize)) >= *threshold)
            }
        };
        key = COMBINE.wrapping_mul(key.wrapping_add(COMBINE.wrapping_mul(value)));
    }
    let count = projection.slots as usize;
    let stride = entry_bytes(count);
    // SAFETY:
    // - the table with all its entries and the row that follows them is inside the section (`validate`), so that
    //   each entry below `entries` has `stride` bytes, of which 8 are the key, and the last row `count`
    // - the projection's slots exist (`validate`)
    unsafe {
        let table = job.tables.as_ptr().add(projection.table as usize);
        let mut row = table.add(projection.entries as usize * stride);
        let mut at = first_probe(key, projection.entries);
        for _ in 0..projection.probes {
            let entry = table.add(at as usize * stride);
            let found = entry.cast::<u64>().read_unaligned();
            if found == EMPTY {
                break;
            }
            if found == key {
                row = entry.add(8);
                break;
            }
            at += 1;
            if at == projection.entries {
                at = 0;
            }
        }
        let slots = job.parts.slots.add(projection.first_slot as usize);
        for slot in 0..count {
            *slots.add(slot) = (*row.add(slot)).min(LARGEST_SLOT);
        }
    }
}
