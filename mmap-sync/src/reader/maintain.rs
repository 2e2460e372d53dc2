//! What is done between requests, so that no pin has to: looking at the path, mapping, populating, unmapping.
//!
//! # Orderings
//!
//! Those of [`crate::protocol`]. A file that is mapped ahead is only looked into after a generation in it was pinned; what
//! its first page says before that only decides which pages are mapped, and an old value maps others.

use super::{Inner, NONE, PinCell};
use crate::error::Error;
use crate::primitive::Ordering;

/// Bytes that one call populates at most.
const SLICE: u64 = 4 << 20;

impl Inner {
    pub(super) fn maintain(&self) -> Result<(), Error> {
        self.ticks.set(0);
        self.maintained.set(true);
        // The switch is for the caller's next guard to tell.
        let pinned = self.pin().map(|guard| {
            if guard.is_switched() {
                self.last.set(NONE);
            }
        });
        if self.last.get() == NONE {
            // The short path never tells a switch.
            self.forget_unused();
        }
        let in_use = self.in_use();
        if let Ok(mut cold) = self.cold.try_borrow_mut() {
            cold.copies.discard(in_use);
        }
        self.unpopulated.set(if self.options.prefault && pinned.is_ok() { self.prefault() } else { 0 });
        pinned
    }

    /// What unused cells remember is not to be used any more.
    pub(super) fn forget_unused(&self) {
        self.pins.iter().filter(|pin| pin.refs.get() == 0).for_each(PinCell::forget);
    }

    /// Maps the file that will be current next, and pages of both. Returns the bytes that are left.
    fn prefault(&self) -> u64 {
        let Some(context) = self.context() else { return 0 };
        let Some(generation) = self.state(|state| state.generation.load(Ordering::Relaxed)) else { return 0 };
        let in_use = self.in_use();
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return 0 };
        let (current, next) = (generation & 1, (generation + 1) & 1);
        // What is wrong with the next file is for the pin to say that needs it.
        let is_there = cold.copies.map_ahead(next, &context, in_use).unwrap_or(false);
        let mut budget = SLICE;
        let left = cold.copies.populate(current, &mut budget);
        left.saturating_add(if is_there { cold.copies.populate(next, &mut budget) } else { 0 })
    }
}
