//! Removing rows that are no longer updated: from changes, and a slice at a time from the published tables.

use std::collections::BTreeSet;

use bliss_core::build::{Change, DimensionChange, Rows};
use bliss_core::publication::features::FeaturesRef;

/// Scans published tables for expired rows: those much older than their dimension's `max_age_seconds`.
///
/// A row older than its maximum age reads as stale; one older than a multiple of it only takes space. A scan of tens of
/// millions of rows would delay publications, so each call scans a slice and the next one continues from there. An
/// origin cannot bring an expired row back: [`admit`](Self::admit) removes it from the change.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// By dimension: the age in seconds beyond which rows expire, if they do.
    limits: Vec<Option<u32>>,
    /// Slots that one call scans.
    slots: usize,
    /// Where the next call starts.
    dimension: usize,
    slot: usize,
}

/// Numbers of expired rows, each with the index of its dimension.
pub type Expired = Vec<(usize, u64)>;

impl Sweeper {
    /// A sweeper with one age limit in seconds per dimension of the schema (`None`: rows never expire), which scans `slots`
    /// slots per call.
    pub fn new(limits: Vec<Option<u32>>, slots: usize) -> Self {
        Self { limits, slots, dimension: 0, slot: 0 }
    }

    fn limit(&self, dimension: usize) -> Option<u32> {
        self.limits.get(dimension).copied().flatten()
    }

    /// Scans the next slice of `features` and returns the keys of expired rows, by index of their dimension. `now` is in
    /// seconds since the Unix epoch. [Join](Self::join) them to the next change, since a key that is upserted meanwhile
    /// must not be deleted.
    pub fn next(&mut self, features: FeaturesRef<'_>, now: u32) -> Vec<(usize, Vec<u64>)> {
        let dimensions = &features.schema().dimensions;
        let mut found = Vec::new();
        let mut left = self.slots;
        // Each dimension at most once per call, from where the last call stopped.
        for _ in 0..dimensions.len() {
            let index = self.dimension;
            if dimensions.get(index).is_none() {
                (self.dimension, self.slot) = (0, 0);
                continue;
            }
            let limit = self.limit(index);
            // Prefixes have no table, and go as a whole or not at all.
            let table = features.table(index).ok().filter(|_| limit.is_some());
            let slots = table.map_or(0, |table| table.layout().slots());
            let end = slots.min(self.slot.saturating_add(left));
            let rows = table.into_iter().flat_map(|table| table.rows_in(self.slot.min(end)..end));
            let keys: Vec<_> =
                rows.filter(|(_, row)| is_expired(row.updated_at, limit, now)).map(|(key, _)| key).collect();
            if !keys.is_empty() {
                found.push((index, keys));
            }
            left -= end - self.slot.min(end);
            if end < slots {
                self.slot = end;
                break;
            }
            (self.dimension, self.slot) = ((index + 1) % dimensions.len(), 0);
        }
        found
    }

    /// Removes rows from `change` that are expired already, as if their origin had not sent them; returns how many.
    pub fn admit(&self, change: &mut Change, now: u32) -> Expired {
        let mut expired = Expired::new();
        for (index, change) in &mut change.dimensions {
            let limit = self.limit(*index);
            let mut removed = Vec::new();
            match change {
                DimensionChange::Prefixes(_) => {}
                DimensionChange::Replace(rows) => retain(rows, limit, now, &mut removed),
                DimensionChange::Patch { upserts, deletes } => {
                    retain(upserts, limit, now, &mut removed);
                    // The published rows that they would have replaced go too.
                    deletes.extend(&removed);
                }
            }
            if !removed.is_empty() {
                expired.push((*index, removed.len() as u64));
            }
        }
        expired
    }

    /// Adds deletes of the keys in `found` to `change`, except keys that it upserts or deletes itself; returns how many.
    pub fn join(found: Vec<(usize, Vec<u64>)>, change: &mut Change, features: FeaturesRef<'_>) -> Expired {
        let mut expired = Expired::new();
        for (index, keys) in found {
            let keys = match change.dimensions.iter_mut().find(|(changed, _)| *changed == index) {
                Some((_, DimensionChange::Replace(_) | DimensionChange::Prefixes(_))) => continue,
                Some((_, DimensionChange::Patch { upserts, deletes })) => {
                    let mut keys: BTreeSet<u64> = keys.into_iter().collect();
                    for changed in upserts.keys.iter().chain(&*deletes) {
                        keys.remove(changed);
                    }
                    deletes.extend(&keys);
                    keys.len()
                }
                None => {
                    let Ok(table) = features.table(index) else { continue };
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

/// Keeps the rows that are not expired, in order; appends the keys of the others to `removed`.
fn retain(rows: &mut Rows, limit: Option<u32>, now: u32, removed: &mut Vec<u64>) {
    let width = rows.width();
    let is_whole = rows.updated_at.len() == rows.len() && rows.values.len() == rows.len() * width;
    let Some(first) = rows.updated_at.iter().position(|at| is_expired(*at, limit, now)).filter(|_| is_whole)
    else {
        return;
    };
    let mut kept = first;
    for row in first..rows.len() {
        let (Some(&key), Some(&updated_at)) = (rows.keys.get(row), rows.updated_at.get(row)) else { break };
        if is_expired(updated_at, limit, now) {
            removed.push(key);
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
