//! From the row's values to slots, except quantising: parts that every kernel shares.

use super::job::Job;
use crate::layout::{Element, LANES, Projection, entry_bytes, first_probe};

/// Multiplier of CatBoost's hash of combinations.
const COMBINE: u64 = 0x4906_ba49_4954_cb65;

/// A slot of a CTR is at most this, whatever the table's bytes say: [`UNREACHABLE_THRESHOLD`](crate::layout::UNREACHABLE_THRESHOLD) must stay
/// out of reach.
const LARGEST_SLOT: u8 = 254;

/// Marks an empty entry of a CTR table.
const EMPTY: u64 = u64::MAX;

/// Copies each lane's value to the scratch memory.
#[inline(always)]
pub(super) fn gather(job: &Job<'_>, lanes: &mut [[f32; LANES]]) {
    for (lane, input) in lanes.as_flattened_mut().iter_mut().zip(job.lanes()) {
        // SAFETY:
        // - lanes name inputs (`validate`)
        *lane = unsafe { job.value(*input) };
    }
}

/// Replaces NaN by plus infinity in the lanes of a group that want it.
#[inline(always)]
pub(super) fn raise_nan(lanes: &mut [f32; LANES], nan_largest: u16) {
    for (at, value) in lanes.iter_mut().enumerate() {
        if nan_largest >> at & 1 == 1 && value.is_nan() {
            *value = f32::INFINITY;
        }
    }
}

/// Fills the slots of one-hot tests and of CTRs; the slots of numbers are filled already.
#[inline(always)]
pub(super) fn categories(job: &Job<'_>, slots: &mut [u8]) {
    let after_lanes = slots.get_mut(job.lanes().len()..).unwrap_or_default();
    for (slot, one_hot) in after_lanes.iter_mut().zip(job.one_hots()) {
        // SAFETY:
        // - one-hot tests name inputs (`validate`)
        let category = unsafe { job.value(one_hot.input) }.to_bits();
        *slot = u8::from(category == one_hot.value);
    }
    for projection in job.projections() {
        fill_projection(job, projection, slots);
    }
}

/// Fills the slots of a projection from its table.
#[inline]
fn fill_projection(job: &Job<'_>, projection: &Projection, slots: &mut [u8]) -> Option<()> {
    let elements = job.elements().get(projection.first_element as usize..)?;
    let mut key = 0_u64;
    for Element { threshold, at } in elements.get(..projection.elements as usize)? {
        // SAFETY:
        // - `at` is an input where the threshold is 0, else a slot (`validate`)
        let value = unsafe {
            if *threshold == 0 {
                i64::from(job.value(*at).to_bits().cast_signed()).cast_unsigned()
            } else {
                u64::from(u32::from(*slots.get_unchecked(*at as usize)) >= *threshold)
            }
        };
        key = COMBINE.wrapping_mul(key.wrapping_add(COMBINE.wrapping_mul(value)));
    }
    let slots = slots.get_mut(projection.first_slot as usize..)?.get_mut(..projection.slots as usize)?;
    let row = look_up(job.tables().get(projection.table as usize..)?, projection, key)?;
    for (slot, found) in slots.iter_mut().zip(row) {
        *slot = (*found).min(LARGEST_SLOT);
    }
    Some(())
}

/// The row of `key` in a projection's table, or the one of unknown keys.
#[inline(always)]
fn look_up<'t>(table: &'t [u8], projection: &Projection, key: u64) -> Option<&'t [u8]> {
    let stride = entry_bytes(projection.slots as usize);
    let (entries, unknown) = table.split_at_checked(projection.entries as usize * stride)?;
    let mut at = first_probe(key, projection.entries);
    for _ in 0..projection.probes {
        // SAFETY:
        // - `at` is below the number of entries, each of which has `stride` bytes
        let entry = unsafe { entries.get_unchecked(at as usize * stride..).get_unchecked(..stride) };
        let (found, row) = entry.split_first_chunk::<8>()?;
        match u64::from_le_bytes(*found) {
            EMPTY => break,
            found if found == key => return Some(row),
            _ => {}
        }
        at += 1;
        if at == projection.entries {
            at = 0;
        }
    }
    Some(unknown)
}
