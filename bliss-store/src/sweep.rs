//! Finding rows that nobody updates any more, a slice at a time.

use bliss_core::snapshot::{Change, DimensionChange, SnapshotRef};
use bliss_core::table::Rows;

/// Goes round the tables of a snapshot and names rows that are much older than their dimension's `max_age`.
///
/// A row older than `max_age` reads as stale; one older than a multiple of it takes space for nothing. Looking through
/// tens of millions of rows at once would hold up publications, so that each call looks at a slice only and the next
/// one goes on from there. Dimensions without `max_age` are left out.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// Rows older than this many times `max_age` go.
    multiple: u32,
    /// Slots that one call looks at.
    slots: usize,
    dimension: usize,
    slot: usize,
}

impl Sweeper {
    /// Rows older than `multiple` times `max_age` go; each call looks at `slots` slots.
    pub fn new(multiple: u32, slots: usize) -> Self {
        Self { multiple, slots, dimension: 0, slot: 0 }
    }

    /// The rows to take out of `snapshot`, found in the next slice, at time `now` in seconds since the Unix epoch. An
    /// empty change if there are none. To be [published](crate::Publisher::publish) before anything else is, since a
    /// key that comes back meanwhile must not be deleted.
    pub fn next(&mut self, snapshot: SnapshotRef<'_>, now: u32) -> Change {
        let dimensions = &snapshot.schema().dimensions;
        let mut change = Change::default();
        let mut left = self.slots;
        // Each dimension at most once per call, from where the last call stopped.
        for _ in 0..dimensions.len() {
            let index = self.dimension;
            let (Some(dimension), Ok(table)) = (dimensions.get(index), snapshot.table(index)) else {
                (self.dimension, self.slot) = (0, 0);
                continue;
            };
            let max_age = dimension.max_age_seconds.to_native();
            let all = if max_age == 0 { 0 } else { table.layout().slots() };
            let end = all.min(self.slot.saturating_add(left));
            let limit = max_age.saturating_mul(self.multiple);
            let expired = |updated_at: u32| now.saturating_sub(updated_at) > limit;
            let rows = table.rows_in(self.slot.min(end)..end).filter(|(_, row)| expired(row.updated_at));
            let deletes: Vec<_> = rows.map(|(key, _)| key).collect();
            if !deletes.is_empty() {
                let upserts = Rows::new(table.layout().columns());
                change.dimensions.push((index, DimensionChange::Patch { upserts, deletes }));
            }
            left -= end - self.slot.min(end);
            if end < all {
                self.slot = end;
                break;
            }
            (self.dimension, self.slot) = ((index + 1) % dimensions.len(), 0);
        }
        change
    }
}
