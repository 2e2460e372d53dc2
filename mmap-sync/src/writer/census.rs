//! Which generations are pinned, by whom, and whether they live.
//!
//! # Orderings
//!
//! See [`crate::protocol`]. Whatever a reader stored before the heavy barrier is seen after it. An announcement that
//! appears later comes from a reader whose second load of the generation follows the barrier; it returns the current
//! generation, never an old one, and is ignored.

use crate::error::FileKind;
use crate::layout::{COUNTERS_LOCK, SLOT_FREE, SLOT_UNFENCED, Slot, slot_offset};
use crate::primitive::{Ordering, fence};
use crate::protocol::{self, FREE, Hold};
use crate::seat::ReadersMap;
use crate::sys;

use super::Writer;

/// How the writer makes sure that it sees the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// `membarrier`: readers need no fence.
    Everywhere,
    /// A fence here, and one in each reader; readers without one count as holding everything.
    Fence,
}

/// Times that a passing announcement is looked at again before it is called off.
const SPINS: u32 = 200;

/// An announcement that was seen in a cell.
struct Passing {
    slot: u32,
    cell: usize,
    value: u64,
}

impl Writer {
    /// Says of each generation, all older than the current one, whether a living reader holds it.
    pub(super) fn held(&self, generations: &[u64]) -> Vec<bool> {
        let mut held = vec![false; generations.len()];
        if generations.is_empty() {
            return held;
        }
        let everywhere = self.pass_barrier();
        self.map_new_slots();
        let readers = self.readers.borrow();
        let slots = readers
            .slots()
            .min(u32::try_from(readers.header().high_water.load(Ordering::Relaxed)).unwrap_or(u32::MAX));
        let mut passing = Vec::new();
        for index in 0..slots {
            let Some(slot) = readers.slot(index) else { break };
            let kind = slot.kind.load(Ordering::Relaxed);
            if kind == SLOT_FREE {
                continue;
            }
            let all = kind == SLOT_UNFENCED && !everywhere;
            self.judge_slot(index, slot, all, generations, &mut held, &mut passing);
        }
        self.settle_passing(&readers, passing, generations, &mut held);
        self.judge_counters(&readers, generations, &mut held);
        held
    }

    /// The heavy barrier; says whether readers without fences have passed it too.
    fn pass_barrier(&self) -> bool {
        fence(Ordering::SeqCst);
        if self.barrier.get() == Barrier::Everywhere {
            if sys::membarrier::everywhere().is_ok() {
                fence(Ordering::SeqCst);
                return true;
            }
            // Forbidden since: from now on readers have to pass fences.
            self.fall_back_to_fences();
        }
        false
    }

    pub(super) fn fall_back_to_fences(&self) {
        self.barrier.set(Barrier::Fence);
        self.state().flags.fetch_or(crate::layout::MUST_FENCE, Ordering::SeqCst);
    }

    /// Readers extend the file; what they added is mapped here.
    fn map_new_slots(&self) {
        let mapped = self.readers.borrow().slots();
        let used = self.readers.borrow().header().high_water.load(Ordering::Relaxed);
        if used > u64::from(mapped)
            && let Ok(Some((fd, info))) =
                self.paths.open(FileKind::Readers, true, &super::adopt::owners(&self.options))
            && info.same_file(&self.readers_info)
            && let Ok(map) = ReadersMap::new(&self.paths, &fd, None)
            && map.slots() > mapped
        {
            *self.readers.borrow_mut() = map;
        }
    }

    fn judge_slot(
        &self,
        index: u32,
        slot: &Slot,
        all: bool,
        generations: &[u64],
        held: &mut [bool],
        passing: &mut Vec<Passing>,
    ) {
        let epoch = slot.epoch.load(Ordering::Relaxed);
        let mut found = Vec::new();
        if all {
            found.extend(0..generations.len());
        }
        for (number, cell) in slot.cells.iter().enumerate() {
            let value = cell.load(Ordering::Acquire);
            if value == FREE {
                continue;
            }
            let mut passes = false;
            for (at, generation) in generations.iter().enumerate() {
                match protocol::judge(value, epoch, *generation) {
                    Hold::Held => found.push(at),
                    Hold::Passing => passes = true,
                    Hold::None => {}
                }
            }
            if passes {
                passing.push(Passing { slot: index, cell: number, value });
            }
        }
        if !found.is_empty() && !self.clear_if_dead(index, slot) {
            for at in found {
                if let Some(held) = held.get_mut(at) {
                    *held = true;
                }
            }
        }
    }

    /// Waits a moment for readers that are between their two loads, and calls the announcements of the others off.
    fn settle_passing(
        &self,
        readers: &ReadersMap,
        mut passing: Vec<Passing>,
        generations: &[u64],
        held: &mut [bool],
    ) {
        let cell = |entry: &Passing| readers.slot(entry.slot).and_then(|slot| slot.cells.get(entry.cell));
        // A value other than the one seen: a pin of one generation, or something later, which pins nothing old.
        let mut judge = |entry: &Passing| {
            let value = cell(entry).map_or(FREE, |cell| cell.load(Ordering::Acquire));
            if value == entry.value {
                return false;
            }
            if let Some((of, true)) = protocol::shown(value) {
                for (generation, held) in generations.iter().zip(held.iter_mut()) {
                    *held |= *generation == of;
                }
            }
            true
        };
        for _ in 0..SPINS {
            passing.retain(|entry| !judge(entry));
            if passing.is_empty() {
                return;
            }
            std::hint::spin_loop();
        }
        for entry in &passing {
            if let Some(slot) = readers.slot(entry.slot) {
                protocol::revoke(&slot.epoch);
            }
        }
        self.pass_barrier();
        for entry in &passing {
            judge(entry);
        }
    }

    fn judge_counters(&self, readers: &ReadersMap, generations: &[u64], held: &mut [bool]) {
        let [zero, one] = &readers.header().counters;
        let counts = [zero.load(Ordering::Acquire), one.load(Ordering::Acquire)];
        if counts == [0, 0] {
            return;
        }
        let counted = &self.state().counted_readers;
        counted.store(counted.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // If nobody shares the lock, all who counted are dead.
        let lock = self.readers_lock.raw();
        if sys::try_lock(lock, libc::F_WRLCK, COUNTERS_LOCK) == Ok(true) {
            zero.store(0, Ordering::Release);
            one.store(0, Ordering::Release);
            let _ = sys::try_lock(lock, libc::F_UNLCK, COUNTERS_LOCK);
            return;
        }
        let [zero, one] = counts;
        for (generation, held) in generations.iter().zip(held) {
            *held |= (if generation & 1 == 0 { zero } else { one }) != 0;
        }
    }

    /// Takes the lock of the slot, if its owner is dead, and clears the slot. Says whether it was dead.
    fn clear_if_dead(&self, index: u32, slot: &Slot) -> bool {
        let lock = self.readers_lock.raw();
        if sys::try_lock(lock, libc::F_WRLCK, slot_offset(index)) != Ok(true) {
            return false;
        }
        for cell in &slot.cells {
            cell.store(FREE, Ordering::Release);
        }
        slot.kind.store(SLOT_FREE, Ordering::Release);
        let _ = sys::try_lock(lock, libc::F_UNLCK, slot_offset(index));
        true
    }
}
