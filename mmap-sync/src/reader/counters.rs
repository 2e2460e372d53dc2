//! Pins of a handle without a slot: on the two shared counters of `P_readers`.
//!
//! # Orderings
//!
//! A count is raised before the generation is loaded again, with a full fence in between; the writer stores the generation
//! and passes a full fence before it loads the counts. So the reader sees the new generation, or the writer the count.
//! Lowering one is a release, and the writer's load an acquire: the reads of the guard come before what the writer does
//! next.

use std::cell::Cell;
use std::ptr::NonNull;

use super::{Guard, Inner, PinCell};
use crate::error::Error;
use crate::layout::State;
use crate::primitive::{AtomicU32, Ordering, fence};
use crate::reader_slot::Registration;
use crate::state::state_of;

/// Attempts at a pin on the shared counters.
const COUNTER_ATTEMPTS: u32 = 4096;

impl Inner {
    pub(super) fn is_counted(&self) -> bool {
        self.cold.try_borrow().is_ok_and(|cold| {
            cold.attached
                .as_ref()
                .is_some_and(|attached| attached.slot.registration == Registration::Counters)
        })
    }

    /// A pin on the shared counters, for a handle without a slot.
    pub(super) fn pin_counted<'a>(&'a self, entry: &'a PinCell) -> Result<Guard<'a>, Error> {
        self.pin_counted_here(entry).or_else(|error| self.move_to_new_files(error))
    }

    fn pin_counted_here<'a>(&'a self, entry: &'a PinCell) -> Result<Guard<'a>, Error> {
        let counters: [NonNull<AtomicU32>; 2];
        let state: NonNull<State>;
        {
            let cold = self.cold.try_borrow().map_err(|_| Error::NotPublished)?;
            let Some(attached) = &cold.attached else { return Err(cold.error.clone()) };
            let [zero, one] = &attached.slot.readers.header().counters;
            counters = [NonNull::from(zero), NonNull::from(one)];
            state = state_of(&attached.state).map(NonNull::from).ok_or(Error::NotPublished)?;
        }
        // SAFETY:
        // - these point into mappings that live as long as the attachment, which is not replaced here.
        let (state, counters) = unsafe { (state.as_ref(), counters.map(|counter| counter.as_ref())) };
        let [zero, one] = counters;
        let of = |generation: u64| if generation & 1 == 0 { zero } else { one };
        // 0, with no count held, if nothing is published or the writer goes on all the time.
        let pin = || {
            for _ in 0..COUNTER_ATTEMPTS {
                let generation = state.generation.load(Ordering::Relaxed);
                if generation == 0 {
                    break;
                }
                of(generation).fetch_add(1, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                if state.generation.load(Ordering::Relaxed) == generation {
                    fence(Ordering::Acquire);
                    return generation;
                }
                of(generation).fetch_sub(1, Ordering::Release);
            }
            0
        };
        let pinned = Cell::new(pin());
        let unpin = || {
            if pinned.get() != 0 {
                of(pinned.get()).fetch_sub(1, Ordering::Release);
            }
        };
        let found = self.find_current(state, pinned.get(), || {
            unpin();
            pinned.set(pin());
            pinned.get()
        });
        match found {
            Ok((generation, view)) => Ok(self.settled(entry, generation, view)),
            Err(error) => {
                unpin();
                Err(error)
            }
        }
    }

    /// Ends a pin on the shared counters.
    #[cold]
    pub(super) fn release_counted(&self, generation: u64) {
        let Ok(cold) = self.cold.try_borrow() else { return };
        let Some(attached) = &cold.attached else { return };
        let [zero, one] = &attached.slot.readers.header().counters;
        (if generation & 1 == 0 { zero } else { one }).fetch_sub(1, Ordering::Release);
    }
}
