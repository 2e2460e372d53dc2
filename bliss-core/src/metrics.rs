//! What a worker counts, and how it lies in memory that the daemon reads.
//!
//! A *slot* is 128 KiB of 64-bit words that one worker adds to. Its first half is a table of *entries*: a word that says what is
//! counted there (a [`SeriesId`]), then counters. Small entries have 7 counters and fill a cache line, large ones have 23.
//!
//! | words | what |
//! |---|---|
//! | 8 i, i < 128 | small entries: lookups of a dimension |
//! | 1,024 + 24 i, i < 298 | large entries: unscored requests of a route, scores of a route and model, a route's shadow model |
//!
//! The first entries of each kind are fixed and have no id: they count what has no entry of its own, since the table is
//! full, and the unscored requests of no route. The others are claimed when a worker binds a publication, at an index that
//! the id gives, or one of the [`PROBES`] after it. An entry is never released: the next worker that gets the slot goes
//! on from its counts, so that totals never fall.
//!
//! The second half is for the inputs and scores of models: [`drift`].
//!
//! # Trust
//!
//! All bytes of a slot may be anything. An index comes from the id and from nothing that is read, lies inside the table,
//! and reads and additions are checked against the slot's length. Wrong bytes lead to wrong counts and no further.
//!
//! # Orderings
//!
//! Only the slot's owner writes to it, which a lock outside of this module sees to, so adding is a relaxed load and a
//! relaxed store: no locked instruction, and no cache line that another worker writes. Each word stands for itself: a
//! reader that sees an entry without its last counts, or counts not yet with their id, sees them at its next look. So
//! nothing stronger than relaxed is needed. What a dead owner wrote happens before what the next one reads by the lock
//! that passes from one to the other.

pub mod drift;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::Xxh3;

use crate::score::{Status, Unscored};

/// Version of this layout. Workers and daemon of different layouts do not count together.
pub const LAYOUT: u32 = 3;
/// Length of a slot in bytes.
pub const SLOT_BYTES: usize = 131_072;
/// Length of a slot in words.
pub const SLOT_WORDS: usize = SLOT_BYTES / 8;
/// Indices at which an entry may be, beginning with the one that its id gives.
pub const PROBES: usize = 32;

/// Scores up to each of these are counted together.
pub const SCORE_BANDS: [u8; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 99];
/// Differences of shadow and active score up to each of these are counted together.
pub const DIFFERENCE_BANDS: [i16; 13] = [-51, -21, -11, -6, -3, -1, 0, 2, 5, 10, 20, 50, 98];

/// Counters of an entry at most.
pub const MAX_CELLS: usize = LARGE.words - 1;

/// Counter of the sum of scores, after those of the bands.
const SCORE_SUM: usize = SCORE_BANDS.len();
/// Counter of the sum of differences (in two's complement), after those of the bands; then those of the reasons.
const DIFFERENCE_SUM: usize = DIFFERENCE_BANDS.len();
const SHADOW_UNSCORED: usize = DIFFERENCE_SUM + 1;

/// Entries of one size.
#[derive(Clone, Copy)]
struct Table {
    /// Where they begin.
    first: usize,
    /// Words of an entry.
    words: usize,
    /// How many there are.
    entries: usize,
    /// Fixed ones at the beginning.
    fixed: usize,
}

const SMALL: Table = Table { first: 0, words: 8, entries: 128, fixed: 1 };
const LARGE: Table = Table { first: 1024, words: 24, entries: 298, fixed: 4 };

const _: () = {
    assert!(SMALL.first + SMALL.entries * SMALL.words == LARGE.first);
    assert!(LARGE.first + LARGE.entries * LARGE.words <= SLOT_WORDS / 2 && SLOT_WORDS <= u16::MAX as usize);
    assert!(Unscored::ALL.len() <= MAX_CELLS, "a counter for each reason");
    assert!(SHADOW_UNSCORED + Unscored::ALL.len() <= MAX_CELLS);
};

impl Table {
    const fn at(self, entry: usize) -> u16 {
        // Below `SLOT_WORDS`, which fits, for entries that there are.
        (self.first + entry * self.words) as u16
    }
}

/// What an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// How lookups of a dimension were answered.
    Lookups = 1,
    /// Requests of a route without a score, by reason.
    Unscored = 2,
    /// Scores of a route that a model gave.
    Scores = 3,
    /// What a shadow model of a route says, against the active one.
    Shadow = 4,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Lookups, Self::Unscored, Self::Scores, Self::Shadow];

    const fn table(self) -> Table {
        match self {
            Self::Lookups => SMALL,
            Self::Unscored | Self::Scores | Self::Shadow => LARGE,
        }
    }

    /// Where what finds no entry of its own is counted.
    const fn other(self) -> EntryIndex {
        EntryIndex(match self {
            Self::Lookups => SMALL.at(0),
            Self::Unscored => LARGE.at(0),
            Self::Scores => LARGE.at(1),
            Self::Shadow => LARGE.at(2),
        })
    }
}

/// Says what an entry counts: a hash of its names, whose lowest three bits are its [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(u64);

impl SeriesId {
    fn new(kind: Kind, names: &[&str]) -> Self {
        let mut hash = Xxh3::new();
        for name in names {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
        }
        Self(hash.digest() & !7 | kind as u64)
    }

    /// Of the lookups of a dimension.
    pub fn lookups(dimension: &str) -> Self {
        Self::new(Kind::Lookups, &[dimension])
    }

    /// Of a route's unscored requests.
    pub fn unscored(route: &str) -> Self {
        Self::new(Kind::Unscored, &[route])
    }

    /// Of the scores that a model gives on a route.
    pub fn scores(route: &str, model: &str, version: &str) -> Self {
        Self::new(Kind::Scores, &[route, model, version])
    }

    /// Of a route's shadow model.
    pub fn shadow(route: &str, model: &str, version: &str) -> Self {
        Self::new(Kind::Shadow, &[route, model, version])
    }

    /// What is counted; `None` in an id that no function of this type made.
    pub fn kind(self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u64 == self.0 & 7)
    }
}

/// Where an entry lies in a slot. Made by this module alone, and so always inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryIndex(u16);

impl EntryIndex {
    /// Of unscored requests of which no route is known, as when nothing is published.
    pub const NO_ROUTE: Self = Self(LARGE.at(3));
}

/// What an entry that was read counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Series {
    /// What this id says.
    Of(SeriesId),
    /// What found no entry of its own.
    Other(Kind),
    /// Unscored requests of which no route is known.
    NoRoute,
}

/// Counters of an entry that was read; those that its kind has not are 0.
pub type Cells = [u64; MAX_CELLS];

/// A slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Slot<'a> {
    /// The slot in `words`; `None` unless there are [`SLOT_WORDS`].
    pub fn new(words: &'a [AtomicU64]) -> Option<Self> {
        (words.len() == SLOT_WORDS).then_some(Self { words })
    }

    /// The entry of `id`, which is claimed if there is none; the one of all others if there is no room. For the slot's
    /// owner.
    pub fn claim(self, id: SeriesId) -> EntryIndex {
        let Some(kind) = id.kind() else { return Kind::Unscored.other() };
        let table = kind.table();
        let count = table.entries - table.fixed;
        let first = usize::try_from(id.0 >> 3).map_or(0, |hash| hash % count);
        for probe in 0..PROBES {
            let index = table.at(table.fixed + (first + probe) % count);
            let Some(word) = self.words.get(usize::from(index)) else { break };
            match word.load(Relaxed) {
                0 => word.store(id.0, Relaxed),
                found if found == id.0 => {}
                _ => continue,
            }
            return EntryIndex(index);
        }
        kind.other()
    }

    #[inline]
    fn add(self, entry: EntryIndex, cell: usize, by: u64) {
        if let Some(word) = self.words.get(usize::from(entry.0) + 1 + cell) {
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }

    /// Counts a lookup of a dimension.
    #[inline]
    pub fn add_lookup(self, entry: EntryIndex, status: Status) {
        if let Some(cell) = (status as usize).checked_sub(1) {
            self.add(entry, cell, 1);
        }
    }

    /// Counts a request without a score.
    #[inline]
    pub fn add_unscored(self, entry: EntryIndex, reason: Unscored) {
        self.add(entry, reason as usize - 1, 1);
    }

    /// Counts a score.
    #[inline]
    pub fn add_score(self, entry: EntryIndex, score: u8) {
        self.add(entry, band(&SCORE_BANDS, score), 1);
        self.add(entry, SCORE_SUM, u64::from(score));
    }

    /// Counts a difference of shadow and active score.
    #[inline]
    pub fn add_difference(self, entry: EntryIndex, difference: i16) {
        self.add(entry, band(&DIFFERENCE_BANDS, difference), 1);
        self.add(entry, DIFFERENCE_SUM, i64::from(difference).cast_unsigned());
    }

    /// Counts a shadow without a score.
    #[inline]
    pub fn add_shadow_unscored(self, entry: EntryIndex, reason: Unscored) {
        self.add(entry, SHADOW_UNSCORED + reason as usize - 1, 1);
    }

    /// All entries that count something. For anybody.
    pub fn entries(self) -> impl Iterator<Item = (Series, Cells)> + 'a {
        let fixed = [
            (Series::Other(Kind::Lookups), Kind::Lookups.other()),
            (Series::Other(Kind::Unscored), Kind::Unscored.other()),
            (Series::NoRoute, EntryIndex::NO_ROUTE),
            (Series::Other(Kind::Scores), Kind::Scores.other()),
            (Series::Other(Kind::Shadow), Kind::Shadow.other()),
        ];
        let fixed = fixed.into_iter().map(move |(series, entry)| {
            let table = if entry.0 < LARGE.at(0) { SMALL } else { LARGE };
            (series, self.cells(entry.0, table))
        });
        let claimed = [SMALL, LARGE].into_iter().flat_map(move |table| {
            (table.fixed..table.entries).filter_map(move |entry| {
                let index = table.at(entry);
                let id = SeriesId(self.words.get(usize::from(index))?.load(Relaxed));
                // An id of the other size is not one that a claim has left here.
                let fits = id.kind().is_some_and(|kind| kind.table().words == table.words);
                fits.then(|| (Series::Of(id), self.cells(index, table)))
            })
        });
        fixed.chain(claimed).filter(|(_, cells)| cells.iter().any(|count| *count != 0))
    }

    fn cells(self, index: u16, table: Table) -> Cells {
        let mut cells = [0; MAX_CELLS];
        let first = usize::from(index) + 1;
        let words = self.words.get(first..first + table.words - 1).unwrap_or_default();
        cells.iter_mut().zip(words).for_each(|(to, word)| *to = word.load(Relaxed));
        cells
    }
}

/// The first band that reaches up to `value`; the last one for what is beyond all.
#[inline]
fn band<T: PartialOrd>(bands: &[T], value: T) -> usize {
    bands.iter().take(bands.len() - 1).filter(|end| **end < value).count()
}

/// Counters of [`Kind::Lookups`] as fresh, stale, missing and absent.
pub fn lookups(cells: &Cells) -> [(Status, u64); 4] {
    let [fresh, stale, missing, absent, ..] = *cells;
    [(Status::Fresh, fresh), (Status::Stale, stale), (Status::Missing, missing), (Status::Absent, absent)]
}

/// Counters of [`Kind::Unscored`] by reason.
pub fn unscored(cells: &Cells) -> impl Iterator<Item = (Unscored, u64)> + use<> {
    Unscored::ALL.into_iter().zip(*cells)
}

/// Counters of [`Kind::Scores`]: by band of [`SCORE_BANDS`], and the sum of the scores.
pub fn scores(cells: &Cells) -> (impl Iterator<Item = (u8, u64)> + use<>, u64) {
    (SCORE_BANDS.into_iter().zip(*cells), cells.get(SCORE_SUM).copied().unwrap_or(0))
}

/// Counters of [`Kind::Shadow`]: differences by band of [`DIFFERENCE_BANDS`], and their sum.
pub fn differences(cells: &Cells) -> (impl Iterator<Item = (i16, u64)> + use<>, i64) {
    let sum = cells.get(DIFFERENCE_SUM).copied().unwrap_or(0).cast_signed();
    (DIFFERENCE_BANDS.into_iter().zip(*cells), sum)
}

/// Counters of [`Kind::Shadow`] without a score, by reason.
pub fn shadow_unscored(cells: &Cells) -> impl Iterator<Item = (Unscored, u64)> + use<> {
    let counts = *cells;
    Unscored::ALL.into_iter().zip(counts.into_iter().skip(SHADOW_UNSCORED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> Vec<AtomicU64> {
        (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn what_is_added_is_read_again() {
        let words = words();
        let slot = Slot::new(&words).unwrap();
        assert!(Slot::new(&words[1..]).is_none());
        let ip = slot.claim(SeriesId::lookups("ip"));
        assert_eq!(slot.claim(SeriesId::lookups("ip")), ip);
        for status in [Status::Unused, Status::Fresh, Status::Absent, Status::Absent] {
            slot.add_lookup(ip, status);
        }
        let shop = slot.claim(SeriesId::unscored("shop"));
        Unscored::ALL.iter().for_each(|reason| slot.add_unscored(shop, *reason));
        slot.add_unscored(EntryIndex::NO_ROUTE, Unscored::NoModels);
        let scores_at = slot.claim(SeriesId::scores("shop", "m", "1"));
        for score in [1, 10, 11, 90, 91, 99] {
            slot.add_score(scores_at, score);
        }
        let shadow = slot.claim(SeriesId::shadow("shop", "n", "1"));
        for difference in [-98, -51, -50, -1, 0, 0, 1, 2, 3, 98] {
            slot.add_difference(shadow, difference);
        }
        slot.add_shadow_unscored(shadow, Unscored::MissingInput);

        let entries: std::collections::BTreeMap<_, _> = slot.entries().collect();
        assert_eq!(entries.len(), 5);
        assert_eq!(
            lookups(&entries[&Series::Of(SeriesId::lookups("ip"))]),
            [(Status::Fresh, 1), (Status::Stale, 0), (Status::Missing, 0), (Status::Absent, 2)]
        );
        assert!(unscored(&entries[&Series::Of(SeriesId::unscored("shop"))]).all(|(_, count)| count == 1));
        assert_eq!(unscored(&entries[&Series::NoRoute]).map(|(_, count)| count).sum::<u64>(), 1);
        let (bands, sum) = scores(&entries[&Series::Of(SeriesId::scores("shop", "m", "1"))]);
        assert_eq!(bands.map(|(_, count)| count).collect::<Vec<_>>(), [2, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(sum, 302);
        let cells = entries[&Series::Of(SeriesId::shadow("shop", "n", "1"))];
        let (bands, sum) = differences(&cells);
        assert_eq!(
            bands.map(|(_, count)| count).collect::<Vec<_>>(),
            [2, 1, 0, 0, 0, 1, 2, 2, 1, 0, 0, 0, 1]
        );
        assert_eq!(sum, -98 - 51 - 50 - 1 + 1 + 2 + 3 + 98);
        let missing: Vec<_> = shadow_unscored(&cells).filter(|(_, count)| *count > 0).collect();
        assert_eq!(missing, [(Unscored::MissingInput, 1)]);
    }

    #[test]
    fn a_full_table_counts_the_rest_together() {
        let words = words();
        let slot = Slot::new(&words).unwrap();
        for (i, kind) in (0..5000).flat_map(|i| Kind::ALL.map(|kind| (i, kind))) {
            let id = SeriesId::new(kind, &[&format!("{i}")]);
            let entry = slot.claim(id);
            match kind {
                Kind::Lookups => slot.add_lookup(entry, Status::Stale),
                Kind::Unscored => slot.add_unscored(entry, Unscored::NoProbability),
                Kind::Scores => slot.add_score(entry, 99),
                Kind::Shadow => slot.add_difference(entry, -98),
            }
        }
        let of_kind = |series| match series {
            Series::Of(id) => id.kind(),
            Series::Other(kind) => Some(kind),
            Series::NoRoute => None,
        };
        for kind in Kind::ALL {
            let found: Vec<_> = slot.entries().filter(|(series, _)| of_kind(*series) == Some(kind)).collect();
            assert!(found.len() > 80, "{kind:?}: {}", found.len());
            assert!(found.iter().any(|(series, _)| *series == Series::Other(kind)));
            let counted = found.iter().map(|(_, cells)| match kind {
                Kind::Lookups => cells[1],
                Kind::Unscored => cells[6],
                Kind::Scores => cells[9],
                Kind::Shadow => cells[0],
            });
            assert_eq!(counted.sum::<u64>(), 5000, "{kind:?}: nothing is lost");
        }
    }

    #[test]
    fn ids_tell_names_and_kinds_apart() {
        let ids = [
            SeriesId::lookups("a"),
            SeriesId::unscored("a"),
            SeriesId::scores("a", "b", "c"),
            SeriesId::scores("ab", "", "c"),
            SeriesId::shadow("a", "b", "c"),
            SeriesId::scores("a", "bc", ""),
        ];
        for (i, id) in ids.iter().enumerate() {
            assert!(ids[..i].iter().all(|other| other != id));
        }
        assert_eq!(ids.map(|id| id.kind().unwrap() as u8), [1, 2, 3, 3, 4, 3]);
    }

    proptest! {
        /// Whatever the bytes are, nothing leads outside or panics.
        #[test]
        fn m7_any_bytes_are_a_slot(
            fill in any::<u64>(),
            changed in proptest::collection::vec((0..SLOT_WORDS, any::<u64>()), 0..200),
            names in proptest::collection::vec("[a-z]{0,5}", 1..50),
        ) {
            let words: Vec<_> = (0..SLOT_WORDS).map(|_| AtomicU64::new(fill)).collect();
            changed.iter().for_each(|(at, value)| words[*at].store(*value, Relaxed));
            let slot = Slot::new(&words).unwrap();
            for name in &names {
                slot.add_score(slot.claim(SeriesId::scores(name, name, "")), 50);
                slot.add_lookup(slot.claim(SeriesId::lookups(name)), Status::Fresh);
                slot.add_difference(slot.claim(SeriesId::shadow(name, "", "")), 98);
                slot.add_unscored(slot.claim(SeriesId::unscored(name)), Unscored::NoModels);
            }
            prop_assert!(slot.entries().count() <= SMALL.entries + LARGE.entries);
        }
    }
}
