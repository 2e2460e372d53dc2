//! Leaving out rows that nobody updates any more: those that come, and a slice at a time those that are there.

use std::collections::BTreeSet;

use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange};
use bliss_core::publication::features::FeaturesRef;

/// Goes round the tables of a snapshot and names rows that are much older than their dimension's `max_age`.
///
/// A row older than `max_age` reads as stale; one older than a multiple of it takes space for nothing. Looking through
/// tens of millions of rows at once would hold up publications, so that each call looks at a slice only and the next
/// one goes on from there. What it took out does not come back by itself: a row that is brought again is
/// [admitted](Self::admit) only if it is newer.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// For each dimension the age in seconds beyond which rows go; none where they never do.
    limits: Vec<Option<u32>>,
    /// Slots that one call looks at.
    slots: usize,
    dimension: usize,
    slot: usize,
}

/// How many rows expired, by the index of their dimension.
pub type Expired = Vec<(usize, u64)>;

impl Sweeper {
    /// Rows older than the limit of their dimension go, in seconds and in the order of the schema; each call looks at
    /// `slots` slots of tables.
    pub fn new(limits: Vec<Option<u32>>, slots: usize) -> Self {
        Self { limits, slots, dimension: 0, slot: 0 }
    }

    fn limit(&self, dimension: usize) -> Option<u32> {
        self.limits.get(dimension).copied().flatten()
    }

    /// The rows to take out of `snapshot`, found in the next slice, at time `now` in seconds since the Unix epoch: keys
    /// by the index of their dimension. To be [joined](Self::join) to the next change, since a key that comes back
    /// meanwhile must not be deleted.
    pub fn next(&mut self, snapshot: FeaturesRef<'_>, now: u32) -> Vec<(usize, Vec<u64>)> {
        let dimensions = &snapshot.schema().dimensions;
        let mut found = Vec::new();
        let mut left = self.slots;
        // Each dimension at most once per call, from where the last call stopped.
        for _ in 0..dimensions.len() {
            let index = self.dimension;
            let (Some(_), Ok(table)) = (dimensions.get(index), snapshot.table(index)) else {
                (self.dimension, self.slot) = (0, 0);
                continue;
            };
            let limit = self.limit(index);
            let all = if limit.is_none() { 0 } else { table.layout().slots() };
            let end = all.min(self.slot.saturating_add(left));
            let rows = table.rows_in(self.slot.min(end)..end);
            let keys: Vec<_> =
                rows.filter(|(_, row)| is_expired(row.updated_at, limit, now)).map(|(key, _)| key).collect();
            if !keys.is_empty() {
                found.push((index, keys));
            }
            left -= end - self.slot.min(end);
            if end < all {
                self.slot = end;
                break;
            }
            (self.dimension, self.slot) = ((index + 1) % dimensions.len(), 0);
        }
        found
    }

    /// Takes rows out of `change` that are too old already, as if its origin had not brought them; says how many.
    pub fn admit(&self, change: &mut Change, now: u32) -> Expired {
        let mut expired = Expired::new();
        for (index, change) in &mut change.dimensions {
            let limit = self.limit(*index);
            let mut gone = Vec::new();
            match change {
                DimensionChange::Replace(rows) => retain(rows, limit, now, &mut gone),
                DimensionChange::Patch { upserts, deletes } => {
                    retain(upserts, limit, now, &mut gone);
                    // What was there under the same keys goes too.
                    deletes.extend(&gone);
                }
            }
            if !gone.is_empty() {
                expired.push((*index, gone.len() as u64));
            }
        }
        expired
    }

    /// Adds to `change` that the rows of `found` go, but for those of which it says something itself; says how many go.
    pub fn join(found: Vec<(usize, Vec<u64>)>, change: &mut Change, snapshot: FeaturesRef<'_>) -> Expired {
        let mut expired = Expired::new();
        for (index, keys) in found {
            let keys = match change.dimensions.iter_mut().find(|(changed, _)| *changed == index) {
                Some((_, DimensionChange::Replace(_))) => continue,
                Some((_, DimensionChange::Patch { upserts, deletes })) => {
                    let mut keys: BTreeSet<u64> = keys.into_iter().collect();
                    for said in upserts.keys.iter().chain(&*deletes) {
                        keys.remove(said);
                    }
                    deletes.extend(&keys);
                    keys.len()
                }
                None => {
                    let Ok(table) = snapshot.table(index) else { continue };
                    let upserts = Rows::new(table.layout().columns());
                    let count = keys.len();
                    change.dimensions.push((index, DimensionChange::Patch { upserts, deletes: keys }));
                    count
                }
            };
            if keys > 0 {
                expired.push((index, keys as u64));
            }
        }
        expired
    }
}

fn is_expired(updated_at: u32, limit: Option<u32>, now: u32) -> bool {
    limit.is_some_and(|limit| now.saturating_sub(updated_at) > limit)
}

/// Keeps the rows that are not expired, in their order and place; the keys of the others go to `gone`.
fn retain(rows: &mut Rows, limit: Option<u32>, now: u32, gone: &mut Vec<u64>) {
    let width = rows.width();
    let whole = rows.updated_at.len() == rows.len() && rows.values.len() == rows.len() * width;
    let Some(first) = rows.updated_at.iter().position(|at| is_expired(*at, limit, now)).filter(|_| whole)
    else {
        return;
    };
    let mut kept = first;
    for row in first..rows.len() {
        let (Some(&key), Some(&updated_at)) = (rows.keys.get(row), rows.updated_at.get(row)) else { break };
        if is_expired(updated_at, limit, now) {
            gone.push(key);
            continue;
        }
        rows.keys.swap(kept, row);
        rows.updated_at.swap(kept, row);
        rows.values.copy_within(row * width..(row + 1) * width, kept * width);
        kept += 1;
    }
    rows.keys.truncate(kept);
    rows.updated_at.truncate(kept);
    rows.values.truncate(kept * width);
}
