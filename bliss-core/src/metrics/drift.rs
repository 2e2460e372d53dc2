//! The part of a slot in which a worker counts what the inputs and scores of models are, for one request of several.
//!
//! | words | what |
//! |---|---|
//! | 8,192 | what is counted: a [`PlanId`] |
//! | 8,208 + 16 i, i < 511 | row i: requests in each of the bins of an input, or of scores |
//!
//! What the rows are, a *plan* says, which workers and daemon both make of the published models: those that are active in a
//! route, in the order of the publication, each with the rows of its [reference distribution](bliss_catboost::distribution).
//! Rows beyond the last one are not counted. A worker that counts by another plan than the slot's last owner clears the part
//! first: unlike the totals of the other parts, these counts are only read as differences.
//!
//! # Trust and orderings
//!
//! Those of [the slot](super). A reader that sees the new plan beside counts of the old one is wrong in that look, and
//! notices by [`Part::plan`] that it was its first.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bliss_catboost::distribution::{DistributionRow, MAX_BINS};
use xxhash_rust::xxh3::Xxh3;

use super::{SLOT_WORDS, Slot};

/// Rows at most, over all models.
pub const MAX_ROWS: usize = 511;
/// Counters of a row.
pub const CELLS: usize = MAX_BINS;

const FIRST: usize = 8192;
const _: () = assert!(FIRST + (MAX_ROWS + 1) * CELLS == SLOT_WORDS);

/// Says what the rows of a slot count: a hash of names, versions and borders, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanId(u64);

impl PlanId {
    /// The number, to be kept.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Makes a plan: adds one model after the other.
#[derive(Clone)]
pub struct Planner {
    hash: Xxh3,
    rows: usize,
}

impl core::fmt::Debug for Planner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Planner").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Default for Planner {
    fn default() -> Self {
        Self { hash: Xxh3::new(), rows: 0 }
    }
}

impl Planner {
    /// Adds a model, and gives its first row and how many of its rows are counted: all for which there is room.
    pub fn add(&mut self, name: &str, version: &str, rows: &[DistributionRow]) -> (usize, usize) {
        let count = rows.len().min(MAX_ROWS - self.rows);
        for text in [name, version] {
            self.hash.update(&(text.len() as u64).to_le_bytes());
            self.hash.update(text.as_bytes());
        }
        self.hash.update(&(count as u64).to_le_bytes());
        for row in rows.iter().take(count) {
            self.hash.update(&row.input().map_or(u64::MAX, |input| input as u64).to_le_bytes());
            row.padded_borders().iter().for_each(|border| self.hash.update(&border.to_le_bytes()));
        }
        let first = self.rows;
        self.rows += count;
        (first, count)
    }

    /// The plan; `None` if nothing is counted.
    pub fn finish(&self) -> Option<PlanId> {
        (self.rows > 0).then(|| PlanId(self.hash.digest().max(1)))
    }
}

/// The part of a slot, as anybody reads it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    words: &'a [AtomicU64],
}

impl Part<'_> {
    /// By which plan is counted.
    pub fn plan(self) -> Option<PlanId> {
        let id = self.words.first()?.load(Relaxed);
        (id != 0).then_some(PlanId(id))
    }

    /// The counts of a row; zeros beyond the last one.
    pub fn row(self, row: usize) -> [u64; CELLS] {
        let mut counts = [0; CELLS];
        let words = (row < MAX_ROWS).then(|| self.words.get((row + 1) * CELLS..)).flatten();
        let words = words.unwrap_or_default();
        counts.iter_mut().zip(words).for_each(|(to, word)| *to = word.load(Relaxed));
        counts
    }
}

impl<'a> Slot<'a> {
    /// The part that counts inputs and scores.
    pub fn drift(self) -> Part<'a> {
        Part { words: self.words.get(FIRST..).unwrap_or_default() }
    }

    /// Counts by `plan` from now on: clears the part if it was another. For the slot's owner.
    pub fn begin_drift(self, plan: PlanId) {
        let part = self.drift();
        if part.plan() == Some(plan) {
            return;
        }
        // The plan last: counts of another one are never named by it, as far as the owner's own order goes.
        part.words.iter().for_each(|word| word.store(0, Relaxed));
        if let Some(word) = part.words.first() {
            word.store(plan.0, Relaxed);
        }
    }

    /// Counts a value in this bin of a row. For the slot's owner.
    #[inline]
    pub fn add_bin(self, row: usize, bin: usize) {
        if row < MAX_ROWS
            && bin < CELLS
            && let Some(word) = self.words.get(FIRST + (row + 1) * CELLS + bin)
        {
            word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(fill: u64) -> Vec<AtomicU64> {
        (0..SLOT_WORDS).map(|_| AtomicU64::new(fill)).collect()
    }

    fn plan(name: &str, rows: usize) -> (PlanId, (usize, usize)) {
        let mut planner = Planner::default();
        let counted = planner.add(name, "1", &vec![DistributionRow::default(); rows]);
        (planner.finish().unwrap(), counted)
    }

    #[test]
    fn bins_are_counted_by_plan() {
        let words = words(0);
        let slot = Slot::new(&words).unwrap();
        assert_eq!(slot.drift().plan(), None);
        let (old, new) = (plan("old", 3).0, plan("new", 3).0);
        slot.begin_drift(old);
        for (row, bin) in
            [(0, 0), (0, 0), (2, 15), (MAX_ROWS - 1, 3), (MAX_ROWS, 0), (0, CELLS), (usize::MAX, 0)]
        {
            slot.add_bin(row, bin);
        }
        assert_eq!(slot.drift().plan(), Some(old));
        assert_eq!(
            (slot.drift().row(0)[0], slot.drift().row(2)[15], slot.drift().row(MAX_ROWS - 1)[3]),
            (2, 1, 1)
        );
        assert_eq!(slot.drift().row(MAX_ROWS), [0; CELLS]);
        // The next owner goes on, by another plan from nothing.
        slot.begin_drift(old);
        assert_eq!(slot.drift().row(0)[0], 2);
        slot.begin_drift(new);
        assert!((0..MAX_ROWS).all(|row| slot.drift().row(row) == [0; CELLS]));
        assert_eq!(slot.entries().count(), 0, "the other parts are untouched");
    }

    #[test]
    fn a_plan_is_its_names_and_borders_and_has_a_limit() {
        assert_eq!(Planner::default().finish(), None);
        assert_eq!(plan("a", 2), plan("a", 2));
        assert_ne!(plan("a", 2).0, plan("a", 3).0);
        assert_ne!(plan("a", 2).0, plan("b", 2).0);
        let mut planner = Planner::default();
        assert_eq!(planner.add("a", "1", &vec![DistributionRow::default(); 500]), (0, 500));
        assert_eq!(planner.add("b", "1", &vec![DistributionRow::default(); 100]), (500, 11));
        assert_eq!(planner.add("c", "1", &vec![DistributionRow::default(); 100]), (511, 0));
    }

    #[test]
    fn m7_any_bytes_are_a_part() {
        let words = words(u64::MAX);
        let slot = Slot::new(&words).unwrap();
        assert!(slot.drift().plan().is_some());
        (0..MAX_ROWS + 2).for_each(|row| slot.add_bin(row, row % (CELLS + 1)));
        assert_eq!(slot.drift().row(0)[0], 0, "it wraps");
        slot.begin_drift(plan("a", 1).0);
        assert_eq!(slot.drift().row(0), [0; CELLS]);
    }
}
