//! How a handle comes to files, and to others when those were replaced: looks at the clock and at the path, the slot, and
//! what a fork changes.
//!
//! # Orderings
//!
//! Those of [`crate::reader_slot`] and [`crate::protocol`]. The fields of `P_state` that are read here are clocks and flags.

use std::ptr::NonNull;

use super::{Attached, Cold, FROZEN, Guard, Hot, Inner, NONE};
use bliss_os::{
    clock, file,
    fork::{self},
    membarrier,
};

use crate::error::{Error, FileKind};
use crate::layout::{MUST_FENCE, SLOT_FENCED, State};
use crate::primitive::Ordering;
use crate::reader_slot::ReaderSlot;
use crate::state::{boot_id, open_state, state_of};

/// A writer without a sign of life for this long may have been replaced under the same path.
const STALE_NS: u64 = 3_000_000_000;

/// The path is looked at no more often than this.
const LOOK_NS: u64 = 1_000_000_000;

/// The clock is read at least once in so many pins.
const MAX_TICKS: u32 = 128;

impl Inner {
    /// A writer without `membarrier` asks its readers to pass fences.
    pub(super) fn obey(&self, state: &State) {
        if !self.fenced.get() && state.flags.load(Ordering::Relaxed) & MUST_FENCE != 0 {
            self.fenced.set(true);
            if let Some(hot) = self.hot.get() {
                // SAFETY:
                // - see `pin`.
                unsafe { hot.slot.as_ref() }.kind.store(SLOT_FENCED, Ordering::SeqCst);
            }
        }
    }

    /// Looks at the clock, and if the writer gives no sign of life, or there are no files yet, at the path.
    #[cold]
    pub(super) fn look(&self) -> Result<(), Error> {
        let now = clock::monotonic_ns();
        let guards = self.has_guards();
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return Ok(()) };
        let since = now.saturating_sub(std::mem::replace(&mut cold.ticked_ns, now));
        cold.budget = match since {
            0..10_000_000 => (cold.budget * 2).min(MAX_TICKS),
            10_000_000..100_000_000 => cold.budget,
            _ => 1,
        };
        let look_due = cold.looked_ns == 0 || now.saturating_sub(cold.looked_ns) >= LOOK_NS;
        let Some(attached) = &cold.attached else {
            if !look_due {
                return Err(cold.error.clone());
            }
            cold.looked_ns = now;
            return match self.attach(&mut cold) {
                Ok(()) => Ok(()),
                Err(error) => {
                    cold.error = error.clone();
                    Err(error)
                }
            };
        };
        let Some(state) = state_of(&attached.state) else { return Err(Error::NotPublished) };
        self.obey(state);
        let heartbeat = state.heartbeat_ns.load(Ordering::Relaxed);
        let alive = boot_id(state) == clock::boot_id()
            && now.saturating_sub(heartbeat) < STALE_NS
            && state.superseded.load(Ordering::Relaxed) == 0;
        if !alive && look_due && !guards {
            cold.looked_ns = now;
            if self.is_replaced(&cold) {
                // What is mapped goes on being served if the new files are not usable.
                let _ = self.attach(&mut cold);
            }
        }
        self.ticks.set(if self.hot.get().is_some() { cold.budget } else { 0 });
        Ok(())
    }

    /// After a failed pin: the files may have been replaced a moment ago, so that nobody has looked at the path yet.
    pub(super) fn move_to_new_files(&self, error: Error) -> Result<Guard<'_>, Error> {
        let guards = self.has_guards();
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return Err(error) };
        if matches!(error, Error::NotPublished) || !self.is_replaced(&cold) {
            return Err(error);
        }
        if guards {
            return Err(Error::Replaced { path: self.paths.path_of(FileKind::State) });
        }
        // Every round takes another replacement of the files.
        if self.attach(&mut cold).is_ok() {
            drop(cold);
            return self.pin_slowly();
        }
        Err(error)
    }

    fn is_replaced(&self, cold: &Cold) -> bool {
        file::lstat(&self.paths.state)
            .is_ok_and(|info| cold.attached.as_ref().is_some_and(|attached| !attached.info.same_file(&info)))
    }

    /// Opens `P_state` and takes a slot. If that fails, everything stays as it was.
    fn attach(&self, cold: &mut Cold) -> Result<(), Error> {
        let owners = self.paths.reader_owners(&self.options)?;
        let (state, info) = open_state(&self.paths, &owners)?.ok_or(Error::NotPublished)?;
        let Some(header) = state_of(&state) else { return Err(Error::NotPublished) };
        let id = header.readers_id.load(Ordering::Relaxed);
        if header.flags.load(Ordering::Relaxed) & MUST_FENCE != 0 {
            self.fenced.set(true);
        }
        let slot = ReaderSlot::take(&self.paths, &owners, &self.options, (&info, id), self.fenced.get())?;
        let hot =
            slot.slot().map(|(_, slot)| Hot { state: NonNull::from(header), slot: NonNull::from(slot) });
        // From here on nothing fails. No guard is alive, or those that are belong to the parent of this process.
        self.hot.set(None);
        if let Some(old) = cold.attached.replace(Attached { state, info, slot }) {
            self.let_go(old);
        }
        cold.copies.clear();
        self.last.set(NONE);
        self.verified.set(NONE);
        self.valid.iter().for_each(|valid| valid.set((None, NONE)));
        for pin in self.pins.iter().filter(|pin| pin.refs.get() != FROZEN) {
            pin.refs.set(0);
            pin.token.set(self.token.get());
            pin.cell.set(None);
            pin.forget();
        }
        if let Some(hot) = hot {
            // SAFETY:
            // - `hot` points into the mappings that were just attached.
            let cells = unsafe { &hot.slot.as_ref().cells };
            self.pins.iter().zip(cells).for_each(|(pin, cell)| pin.cell.set(Some(NonNull::from(cell))));
        }
        self.ticks.set(if hot.is_some() { cold.budget } else { 0 });
        self.hot.set(hot);
        Ok(())
    }

    fn let_go(&self, old: Attached) {
        if fork::token() == self.token.get() {
            old.slot.leave();
        }
    }

    /// In the child of a fork: the slot and the guards are the parent's. Takes a slot of its own.
    #[cold]
    pub(super) fn become_child(&self) {
        let in_use = self.in_use();
        self.hot.set(None);
        self.ticks.set(0);
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return };
        cold.copies.keep(in_use);
        cold.attached = None;
        cold.looked_ns = 0;
        self.token.set(fork::token());
        if !self.fenced.get() && !membarrier::register() {
            self.fenced.set(true);
        }
        for pin in &self.pins {
            pin.refs.set(if pin.refs.get() == 0 { 0 } else { FROZEN });
        }
    }
}
