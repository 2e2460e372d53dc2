//! Finding the bytes of the generation that was pinned: in what is mapped, or in the file of that name.
//!
//! # Orderings
//!
//! Those of [`crate::protocol`]; what is read of `P_state` here was stored before readers could find it.

use super::copies::{Context, View};
use super::{Guard, Inner, PinCell};
use bliss_os::clock;

use crate::error::{Error, FileKind};
use crate::layout::State;
use crate::primitive::Ordering;
use crate::protocol::{self, Found};

/// Attempts at opening the file of the current generation while the writer goes on.
const ATTEMPTS: u32 = 64;

impl Inner {
    /// Finds the bytes of the generation that was just pinned in a cell.
    #[cold]
    pub(super) fn settle<'a>(&'a self, pin: &'a PinCell, generation: u64) -> Result<Guard<'a>, Error> {
        self.settle_here(pin, generation).or_else(|error| self.move_to_new_files(error))
    }

    fn settle_here<'a>(&'a self, pin: &'a PinCell, generation: u64) -> Result<Guard<'a>, Error> {
        let (Some(hot), Some(cell)) = (self.hot.get(), pin.cell.get()) else {
            return Err(Error::NotPublished);
        };
        // SAFETY:
        // - see `pin`.
        let (state, slot, cell) = unsafe { (hot.state.as_ref(), hot.slot.as_ref(), cell.as_ref()) };
        match self.find_current(state, generation, || self.announce(state, slot, cell)) {
            Ok((generation, view)) => Ok(self.settled(pin, generation, view)),
            Err(error) => {
                protocol::release(cell);
                Err(error)
            }
        }
    }

    pub(super) fn settled<'a>(&'a self, pin: &'a PinCell, generation: u64, view: View) -> Guard<'a> {
        // Mappings may have been replaced: what unused cells remember is not to be used any more.
        self.forget_unused();
        pin.remember(generation, view);
        self.guard(pin)
    }

    /// Finds the bytes of the current generation; `again` pins what is current now instead.
    pub(super) fn find_current(
        &self,
        state: &State,
        generation: u64,
        again: impl Fn() -> u64,
    ) -> Result<(u64, View), Error> {
        self.obey(state);
        if generation == 0 {
            return Err(Error::NotPublished);
        }
        let wrong = |expected: u64, found: Option<u64>| match found {
            Some(found) => {
                let path = self.paths.path_of(data_file(expected));
                Error::Corrupt { path, what: "the generation", expected, found }
            }
            None => self.paths.io(data_file(expected), "open")(libc::ENOENT),
        };
        let settled =
            protocol::settle(generation, ATTEMPTS, |generation| self.find(generation), again, wrong)?;
        let path = || self.paths.path_of(data_file(generation));
        settled.ok_or_else(|| Error::Unsettled { path: path(), attempts: ATTEMPTS })
    }

    /// What is needed to open and judge a copy; `None` without a state.
    pub(super) fn context(&self) -> Option<Context<'_>> {
        let readers_ids =
            |state: &State| [&state.readers_id, &state.adopted_id].map(|id| id.load(Ordering::Relaxed));
        Some(Context {
            paths: &self.paths,
            options: &self.options,
            readers_ids: self.state(readers_ids)?,
            boot_id: clock::boot_id(),
            verified: &self.verified,
            populate: self.options.prefault && !self.maintained.get(),
        })
    }

    fn find(&self, generation: u64) -> Result<Found<View>, Error> {
        let Some(context) = self.context() else { return Ok(Found::Other(None)) };
        let in_use = self.in_use();
        match self.cold.try_borrow_mut() {
            Ok(mut cold) => cold.copies.find(generation, &context, in_use),
            Err(_) => Ok(Found::Other(None)),
        }
    }
}

fn data_file(generation: u64) -> FileKind {
    FileKind::Data(u8::from(generation & 1 == 1))
}
