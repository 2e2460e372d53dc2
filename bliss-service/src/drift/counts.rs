//! From the slots of workers to what was counted since the last look.
//!
//! Workers are not trusted: what they count may be anything, and at worst is counted wrongly. A look at a slot in which
//! something fell, or in which rows of one model disagree on the number of requests, tells nothing. A worker that does what
//! it should leaves that seldom: when it takes up another plan, or stands still between two rows, while its slot is read. The
//! first look at a slot tells nothing either, but where its counts begin; so does one at which all of them fell, since the
//! slot or the file was made again.

use std::collections::HashMap;

use bliss_core::metrics::Slot;
use bliss_core::metrics::drift::PlanId;

use super::psi::{Counts, total};

/// How far rows of a model may be apart in one look, and one in so many requests more: a worker counts while its slot is
/// read, the more of them the more there are.
const MAX_TORN: u64 = 8;
const TORN_ONE_IN: u64 = 16;
/// More than a slot's owner can count between two looks.
const MAX_BETWEEN_LOOKS: u64 = 1 << 32;

/// Where the rows of one model are in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) first: usize,
    pub(super) count: usize,
}

/// What each slot held at the last look.
#[derive(Debug, Default)]
pub(super) struct Slots {
    seen: HashMap<u32, (PlanId, Vec<Counts>)>,
    /// Looks that told nothing because of what was found.
    pub(super) implausible: u64,
}

impl Slots {
    /// Adds what slot `index` counted since the last look to `sums`, for each of `models` its rows.
    pub(super) fn look(
        &mut self,
        index: u32,
        slot: Slot<'_>,
        plan: PlanId,
        models: &[Rows],
        sums: &mut [Vec<Counts>],
    ) {
        let part = slot.drift();
        if part.plan() != Some(plan) {
            self.seen.remove(&index);
            return;
        }
        let rows = models.iter().map(|rows| rows.first + rows.count).max().unwrap_or(0);
        let now: Vec<Counts> = (0..rows).map(|row| part.row(row)).collect();
        let Some((before_plan, before)) = self.seen.insert(index, (plan, now.clone())) else { return };
        if before_plan != plan || before.len() != now.len() {
            return;
        }
        if all_fell(&now, &before) {
            return;
        }
        let counted: Option<Vec<Counts>> =
            now.iter().zip(&before).map(|(now, before)| since(now, before)).collect();
        let Some(counted) = counted.filter(|counted| models.iter().all(|rows| is_plausible(counted, *rows)))
        else {
            self.implausible += 1;
            return;
        };
        for (rows, sums) in models.iter().zip(sums) {
            let counted = counted.get(rows.first..).unwrap_or_default();
            for (sum, counted) in sums.iter_mut().zip(counted.iter().take(rows.count)) {
                sum.iter_mut().zip(counted).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
            }
        }
    }

    /// Forgets slots: those of another plan are looked at from the start.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }
}

/// Whether each row has fewer requests than before, or none as before: a slot that was cleared.
fn all_fell(now: &[Counts], before: &[Counts]) -> bool {
    let totals = || now.iter().map(total).zip(before.iter().map(total));
    totals().all(|(now, before)| now < before || before == 0 && now == 0)
        && totals().any(|(now, before)| now < before)
}

/// What was added to a row; `None` if something fell, or more was added than can be.
fn since(now: &Counts, before: &Counts) -> Option<Counts> {
    let mut counted = Counts::default();
    for (counted, (now, before)) in counted.iter_mut().zip(now.iter().zip(before)) {
        *counted = now.checked_sub(*before).filter(|count| *count < MAX_BETWEEN_LOOKS)?;
    }
    Some(counted)
}

/// Whether all rows of a model counted as many requests.
fn is_plausible(counted: &[Counts], rows: Rows) -> bool {
    let totals = counted.iter().skip(rows.first).take(rows.count).map(total);
    let (least, most) =
        totals.fold((u64::MAX, 0), |(least, most), total| (least.min(total), most.max(total)));
    most.saturating_sub(least) <= MAX_TORN + most / TORN_ONE_IN
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use bliss_catboost::DistributionRow;
    use bliss_core::metrics::SLOT_WORDS;
    use bliss_core::metrics::drift::Planner;

    use super::*;

    const MODELS: [Rows; 2] = [Rows { first: 0, count: 3 }, Rows { first: 3, count: 2 }];

    fn plan() -> PlanId {
        let mut planner = Planner::default();
        planner.add("a", "1", &[DistributionRow::default(); 3]);
        planner.add("b", "1", &[DistributionRow::default(); 2]);
        planner.finish().unwrap()
    }

    struct World {
        words: Vec<AtomicU64>,
        slots: Slots,
    }

    impl World {
        fn new() -> Self {
            let words: Vec<_> = (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
            Slot::new(&words).unwrap().begin_drift(plan());
            Self { words, slots: Slots::default() }
        }

        /// A request of model `a`, and one of model `b`.
        fn count(&self) {
            let slot = Slot::new(&self.words).unwrap();
            (0..5).for_each(|row| slot.add_bin(row, row));
        }

        fn look(&mut self) -> [u64; 2] {
            let mut sums = MODELS.map(|rows| vec![Counts::default(); rows.count]);
            self.slots.look(7, Slot::new(&self.words).unwrap(), plan(), &MODELS, &mut sums);
            assert!(sums.iter().flatten().all(|row| total(row) <= total(&sums[0][0]) + MAX_TORN));
            [total(&sums[0][0]), total(&sums[1][1])]
        }
    }

    #[test]
    fn what_was_added_since_the_last_look_is_told() {
        let mut world = World::new();
        world.count();
        assert_eq!(world.look(), [0, 0], "where it begins");
        assert_eq!(world.look(), [0, 0]);
        world.count();
        world.count();
        assert_eq!(world.look(), [2, 2]);
        assert_eq!(world.look(), [0, 0]);
        // Another plan, and back.
        world.words.iter().for_each(|word| word.store(0, Relaxed));
        assert_eq!(world.look(), [0, 0]);
        Slot::new(&world.words).unwrap().begin_drift(plan());
        world.count();
        assert_eq!(world.look(), [0, 0], "where it begins");
        world.count();
        assert_eq!((world.look(), world.slots.implausible), ([1, 1], 0));
    }

    #[test]
    fn what_honest_workers_leave_is_not_implausible() {
        let mut world = World::new();
        (0..9).for_each(|_| world.count());
        world.look();
        // The slot, or the file, was made again: counting starts over.
        world.words.iter().for_each(|word| word.store(0, Relaxed));
        Slot::new(&world.words).unwrap().begin_drift(plan());
        world.count();
        assert_eq!((world.look(), world.slots.implausible), ([0, 0], 0));
        world.count();
        assert_eq!((world.look(), world.slots.implausible), ([1, 1], 0));
        // A worker that counts each request stands still, or goes on, between two rows that are read.
        (0..1000).for_each(|_| world.count());
        let slot = Slot::new(&world.words).unwrap();
        (0..40).for_each(|_| slot.add_bin(2, 2));
        let mut sums = MODELS.map(|rows| vec![Counts::default(); rows.count]);
        world.slots.look(7, slot, plan(), &MODELS, &mut sums);
        assert_eq!((total(&sums[0][0]), total(&sums[0][2]), world.slots.implausible), (1000, 1040, 0));
    }

    #[test]
    fn d7_what_no_worker_leaves_tells_nothing() {
        let mut world = World::new();
        let mut seed = 1_u64;
        for round in 0..200 {
            for word in world.words.iter().skip(8208) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word.store(if round % 3 == 0 { seed } else { seed >> 40 }, Relaxed);
            }
            assert_eq!(world.look(), [0, 0]);
        }
        assert!(world.slots.implausible > 100, "{}", world.slots.implausible);
        // One row that says more than the others.
        world.words.iter().skip(8208).for_each(|word| word.store(0, Relaxed));
        world.look();
        let slot = Slot::new(&world.words).unwrap();
        (0..20).for_each(|_| slot.add_bin(1, 2));
        let mut sums = MODELS.map(|rows| vec![Counts::default(); rows.count]);
        world.slots.look(7, slot, plan(), &MODELS, &mut sums);
        assert!(sums.iter().flatten().all(|row| total(row) == 0));
    }
}
