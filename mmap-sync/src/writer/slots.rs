//! The slots in `P_readers` as the writer sees them: [`Slots`] over the mapped file.

use std::os::fd::OwnedFd;

use bliss_os::{
    file,
    lock::{self, Lock},
    membarrier,
};

use crate::error::Holding;
use crate::layout::{COUNTERS_LOCK, MAX_SLOTS, MUST_FENCE, SLOT_FREE, SLOT_UNFENCED, slot_offset};
use crate::primitive::{AtomicU64, Ordering, fence};
use crate::protocol::FREE;
use crate::reader_slot::{ReadersMap, slots_in};
use crate::scan::{self, Holder, Occupied, Slots};

use super::Writer;

/// Of a slot that is not mapped.
static NO_EPOCH: AtomicU64 = AtomicU64::new(0);

/// How the writer makes sure that it sees the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// `membarrier`: readers need no fence.
    Everywhere,
    /// A fence here, and one in each reader; readers without one count as holding everything.
    Fence,
}

/// Cuts off what nobody looks at: somebody made the file longer than it may be.
pub(super) fn cut_off(readers: &OwnedFd, size: u64) {
    if size > slot_offset(MAX_SLOTS) {
        // If it fails, it only takes room.
        let _ = file::set_size(readers, slot_offset(MAX_SLOTS));
    }
}

impl Writer {
    /// Says of each generation, all older than the current one, through what a living reader holds it.
    pub(super) fn held(&self, generations: &[u64]) -> Vec<Option<Holder>> {
        let mut held = scan::held(self, generations);
        self.judge_counters(generations, &mut held);
        if self.readers.was_truncated() {
            // What was looked at were zeros: nobody knows. The next publication makes new slots.
            held.iter_mut().for_each(|held| *held = held.or(Some(Holder::Counters)));
        }
        held
    }

    /// Who that is.
    pub(super) fn holding(&self, holder: Holder) -> Holding {
        match holder {
            Holder::Slot(slot) => {
                let pid = self.readers.slot(slot).map_or(0, |slot| slot.pid.load(Ordering::Relaxed));
                Holding::Slot { slot, pid }
            }
            Holder::Counters => Holding::Counters,
        }
    }

    /// Whether somebody truncated `P_readers`, or nothing can be looked at there for want of room. What else others did to
    /// the file, and can be mended where it is, is mended.
    pub(super) fn slots_are_lost(&self) -> bool {
        let Ok(info) = self.readers_lock.info() else { return false };
        let wanted = slot_offset(self.readers.slots());
        if info.size < wanted || self.readers.was_truncated() {
            return true;
        }
        cut_off(&self.readers_fd, info.size);
        if info.allocated < wanted
            && let Err(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM) =
                file::reserve_within(&self.readers_fd, 0, wanted)
        {
            return true;
        }
        self.readers.mend_header(self.readers_id());
        false
    }

    pub(super) fn fall_back_to_fences(&self) {
        self.barrier.set(Barrier::Fence);
        self.state().flags.fetch_or(MUST_FENCE, Ordering::SeqCst);
    }

    /// Readers extend the file; what they added is mapped here. The number of slots that there are, of which the last
    /// ones are not mapped if there was no room for that.
    fn map_new_slots(&self) -> u32 {
        let there = file::fstat(&self.readers_fd).map_or(MAX_SLOTS, |info| slots_in(info.size));
        if there <= self.readers.slots() {
            return self.readers.slots();
        }
        match ReadersMap::of_writer(&self.paths, &self.readers_fd, &self.options) {
            Ok(map) => {
                self.readers.extend(map);
                self.readers.slots()
            }
            Err(_) => there,
        }
    }

    /// After the scan: its barrier is the one that counts.
    fn judge_counters(&self, generations: &[u64], held: &mut [Option<Holder>]) {
        let [zero, one] = &self.readers.header().counters;
        let counts = [zero.load(Ordering::Acquire), one.load(Ordering::Acquire)];
        if counts == [0, 0] {
            return;
        }
        let counted = &self.state().counted_readers;
        counted.store(counted.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // If nobody shares the lock, all who counted are dead.
        if lock::try_lock(&self.state_fd, Lock::Exclusive, COUNTERS_LOCK) == Ok(true) {
            zero.store(0, Ordering::Release);
            one.store(0, Ordering::Release);
            lock::unlock(&self.state_fd, COUNTERS_LOCK);
            return;
        }
        let [zero, one] = counts;
        for (generation, held) in generations.iter().zip(held) {
            if (if generation & 1 == 0 { zero } else { one }) != 0 {
                *held = held.or(Some(Holder::Counters));
            }
        }
    }
}

impl Slots for Writer {
    fn barrier(&self) {
        fence(Ordering::SeqCst);
        if self.barrier.get() == Barrier::Everywhere && membarrier::everywhere().is_err() {
            // Forbidden since: from now on readers have to pass fences.
            self.fall_back_to_fences();
        }
        fence(Ordering::SeqCst);
    }

    fn slots(&self) -> u32 {
        let used = self.readers.header().high_water.load(Ordering::Relaxed);
        let mapped = self.readers.slots();
        let there = if used > u64::from(mapped) { self.map_new_slots() } else { mapped };
        u32::try_from(used).unwrap_or(u32::MAX).min(there)
    }

    fn occupied(&self, index: u32) -> Option<Occupied<'_>> {
        let Some(slot) = self.readers.slot(index) else {
            // Not mapped, for want of memory: it counts as pinning everything as long as somebody has its lock.
            return Some(Occupied { cells: &[], epoch: &NO_EPOCH, unknown: true });
        };
        // Acquire: those who looked into a copy before they gave the slot back are done with it.
        match slot.kind.load(Ordering::Acquire) {
            SLOT_FREE => None,
            kind => Some(Occupied {
                cells: &slot.cells,
                epoch: &slot.epoch,
                unknown: kind == SLOT_UNFENCED && self.barrier.get() == Barrier::Fence,
            }),
        }
    }

    /// Takes the slot's lock before it clears the slot.
    fn clear_if_dead(&self, index: u32) -> bool {
        let slot = self.readers.slot(index);
        let lock = &self.readers_lock;
        if lock.try_lock(Lock::Exclusive, slot_offset(index)) != Ok(true) {
            return false;
        }
        if let Some(slot) = slot {
            for cell in &slot.cells {
                cell.store(FREE, Ordering::Release);
            }
            slot.kind.store(SLOT_FREE, Ordering::Release);
        }
        lock.unlock(slot_offset(index));
        true
    }
}
