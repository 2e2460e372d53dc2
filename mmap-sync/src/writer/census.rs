//! The slots in `P_readers` as the writer sees them: [`Roster`] over the mapped file.

use crate::census::{self, Occupied, Roster};
use crate::error::FileKind;
use crate::layout::{COUNTERS_LOCK, MUST_FENCE, SLOT_FREE, SLOT_UNFENCED, slot_offset};
use crate::primitive::{Ordering, fence};
use crate::protocol::FREE;
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

impl Writer {
    /// Says of each generation, all older than the current one, whether a living reader holds it.
    pub(super) fn held(&self, generations: &[u64]) -> Vec<bool> {
        let mut held = census::held(self, generations);
        self.judge_counters(generations, &mut held);
        held
    }

    pub(super) fn fall_back_to_fences(&self) {
        self.barrier.set(Barrier::Fence);
        self.state().flags.fetch_or(MUST_FENCE, Ordering::SeqCst);
    }

    /// Readers extend the file; what they added is mapped here.
    fn map_new_slots(&self) {
        if let Ok(Some((fd, info))) =
            self.paths.open(FileKind::Readers, true, &super::adopt::owners(&self.options))
            && info.same_file(&self.readers_info)
            && let Ok(map) = ReadersMap::new(&self.paths, &fd, None)
        {
            self.readers.extend(map);
        }
    }

    /// After the census: its barrier is the one that counts.
    fn judge_counters(&self, generations: &[u64], held: &mut [bool]) {
        let [zero, one] = &self.readers.header().counters;
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
}

impl Roster for Writer {
    fn barrier(&self) {
        fence(Ordering::SeqCst);
        if self.barrier.get() == Barrier::Everywhere && sys::membarrier::everywhere().is_err() {
            // Forbidden since: from now on readers have to pass fences.
            self.fall_back_to_fences();
        }
        fence(Ordering::SeqCst);
    }

    fn slots(&self) -> u32 {
        let used = self.readers.header().high_water.load(Ordering::Relaxed);
        if used > u64::from(self.readers.slots()) {
            self.map_new_slots();
        }
        u32::try_from(used).unwrap_or(u32::MAX).min(self.readers.slots())
    }

    fn occupied(&self, index: u32) -> Option<Occupied<'_>> {
        let slot = self.readers.slot(index)?;
        match slot.kind.load(Ordering::Relaxed) {
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
        let Some(slot) = self.readers.slot(index) else { return true };
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
