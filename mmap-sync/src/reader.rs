//! The reading side: a handle on the files of one prefix, and guards on generations.
//!
//! A [`Reader`] owns a slot in `P_readers` and mappings of the copies. [`Reader::pin`] takes the protocol's steps in
//! its slot; if the generation is the one it saw last, that is all. Otherwise it looks at the first page of its
//! mapping, and if that does not hold the generation, opens the file by name; the generation is pinned all the while,
//! so that it cannot go away.
//!
//! # Orderings
//!
//! Those of [`crate::protocol`]. The other fields of `P_state` are read relaxed: they are clocks and flags that guard
//! no memory. The first page of a copy is read after the generation was pinned, and the writer's release store of
//! the generation comes after everything that it stores there.

mod attach;
mod copies;
mod counters;
mod guard;
mod maintain;
mod settle;

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use bliss_os::{
    clock,
    file::FileInfo,
    fork::{self},
    map::Map,
    membarrier,
};

use crate::error::{Error, FileKind};
use crate::layout::{InstanceVersion, Slot, State};
use crate::options::Options;
use crate::paths::Paths;
use crate::primitive::{AtomicU64, Ordering, compiler_fence, fence};
use crate::protocol::{self, CELLS};
use crate::reader_slot::ReaderSlot;
use crate::state::{boot_id, state_of};

use copies::{Copies, View};
pub use guard::Guard;

/// Types whose validity is remembered per handle.
const TYPES: usize = 8;

/// The count of a pin that guards of before a fork use: they go on looking where they looked, and nobody else uses it.
const FROZEN: u32 = u32::MAX;

/// No generation has this number.
const NONE: u64 = u64::MAX;

/// A handle for reading what is published under one prefix.
///
/// Belongs to one thread at a time: it can be sent to another thread, not shared. Several guards may be alive at
/// once. In the child of a fork the handle goes on working, with a slot of its own; guards that were alive at the
/// fork belong to the parent, and the child must not use their bytes beyond the parent's guard.
pub struct Reader {
    /// On the heap, where it does not move, so that guards are one pointer: a guard of more words is moved through
    /// memory by wide loads of what was just stored in narrow ones, which costs more than the pin.
    inner: Rc<Inner>,
}

struct Inner {
    token: Cell<u64>,
    /// Pins until the clock is looked at; 0 also if there is no slot.
    ticks: Cell<u32>,
    fenced: Cell<bool>,
    hot: Cell<Option<Hot>>,
    pins: [PinCell; CELLS],
    /// Types as which generations were found valid.
    valid: [Cell<(Option<TypeId>, u64)>; TYPES],
    /// The generation that the last guard was on.
    last: Cell<u64>,
    cold: RefCell<Cold>,
    verified: Cell<u64>,
    /// The owner calls `maintain`, so that no pin has to populate what it maps.
    maintained: Cell<bool>,
    /// What there was left to populate after the last call.
    unpopulated: Cell<u64>,
    paths: Paths,
    options: Options,
}

/// Pointers into the mappings of `P_state` and of the slot, valid as long as [`Cold::attached`] is unchanged.
#[derive(Clone, Copy)]
struct Hot {
    state: NonNull<State>,
    slot: NonNull<Slot>,
}

/// A cell of the slot, and what is known of the generation that was pinned in it last. For a handle without a slot,
/// a pin on one of the shared counters.
#[repr(align(16))]
struct PinCell {
    /// Guards that share it.
    refs: Cell<u32>,
    /// Of which handle; set once, since that does not move.
    inner: Cell<Option<NonNull<Inner>>>,
    /// The process that uses the pin.
    token: Cell<u64>,
    /// Where the pin is stored; `None` for the counters.
    cell: Cell<Option<NonNull<AtomicU64>>>,
    /// While no guard uses it, it may only be taken for what it says if this generation is current: the mapping is
    /// replaced when another one is needed.
    generation: Cell<u64>,
    start: Cell<NonNull<u8>>,
    len: Cell<usize>,
    entry: Cell<u8>,
    /// The type as which the bytes were last found valid.
    valid: Cell<Option<TypeId>>,
}

impl PinCell {
    const fn new() -> PinCell {
        PinCell {
            refs: Cell::new(0),
            inner: Cell::new(None),
            token: Cell::new(0),
            cell: Cell::new(None),
            generation: Cell::new(NONE),
            start: Cell::new(NonNull::dangling()),
            len: Cell::new(0),
            entry: Cell::new(u8::MAX),
            valid: Cell::new(None),
        }
    }

    fn remember(&self, generation: u64, view: View) {
        self.generation.set(generation);
        self.start.set(view.start);
        self.len.set(view.len);
        self.entry.set(view.entry);
        self.valid.set(None);
    }

    fn forget(&self) {
        self.generation.set(NONE);
    }
}

/// What is only used off the fast path.
struct Cold {
    attached: Option<Attached>,
    copies: Copies,
    looked_ns: u64,
    ticked_ns: u64,
    budget: u32,
    /// Why there is nothing to read, for the pins between two looks.
    error: Error,
}

struct Attached {
    state: Map,
    info: FileInfo,
    slot: ReaderSlot,
}

// SAFETY:
// - the raw pointers lead into mappings that the handle owns, and mappings belong to the process.
// - a lock on an open file description belongs to no thread.
// - guards borrow the handle, so it is not sent while one is alive.
// - the `Rc` is never cloned: all of it is sent.
unsafe impl Send for Reader {}

impl Options {
    /// Opens a reader. Succeeds if no file exists yet; [`Reader::pin`] then looks for them, at most once a second.
    ///
    /// # Errors
    ///
    /// As [`open_writer`](Self::open_writer), except for [`Error::Locked`].
    pub fn open_reader(&self) -> Result<Reader, Error> {
        Inner::open(self).map(|inner| Reader { inner })
    }
}

impl Reader {
    /// Pins the current generation: until the guard is dropped its bytes do not change.
    ///
    /// Takes a bounded number of steps, without lock, system call or allocation, if the generation is in a file that
    /// is mapped already, the writer is alive, and the handle was not inherited through a fork.
    ///
    /// # Errors
    ///
    /// [`Error::NotPublished`] before the first publication; otherwise what is wrong with the files. No error
    /// allocates.
    #[inline]
    pub fn pin(&self) -> Result<Guard<'_>, Error> {
        self.inner.pin()
    }

    /// The current generation, without pinning it.
    pub fn generation(&self) -> Option<u64> {
        self.inner.generation()
    }

    /// The version word: which copy, how many bytes, and the low bits of the checksum.
    pub fn version(&self) -> Option<InstanceVersion> {
        self.inner.version()
    }

    /// Time since the writer's last sign of life; `None` if there was none since the system was started.
    pub fn writer_age(&self) -> Option<Duration> {
        self.inner.writer_age()
    }

    /// The writer's last sign of life, in nanoseconds of its `CLOCK_MONOTONIC`; 0 if there was none. One load: whoever
    /// wants to know at each read whether the writer lives compares it with what it saw before, and asks
    /// [`Self::writer_age`] where it has changed.
    #[inline]
    pub fn heartbeat(&self) -> u64 {
        self.inner.state(|state| state.heartbeat_ns.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether the writer said that these files are not written any more because others took their place. What was
    /// published last stays readable; files under the same path are found by themselves.
    pub fn is_superseded(&self) -> bool {
        self.inner.is_superseded()
    }

    /// Whether this handle has a slot of its own. Without one (all taken, and no room for more) it reads through
    /// shared counters, is not wait-free, and its death may keep memory occupied.
    pub fn has_slot(&self) -> bool {
        self.inner.has_slot()
    }

    /// Does ahead of time what [`pin`](Self::pin) would do otherwise: looks whether the files were replaced, maps the
    /// file of the current generation, and unmaps files that nobody looks into. With [`Options::prefault`] it also maps
    /// the file that will be current next, and at most 4 MiB of pages of both. For between requests.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn maintain(&self) -> Result<(), Error> {
        self.inner.maintain()
    }

    /// With [`Options::prefault`]: bytes whose pages are still to be mapped by further calls of
    /// [`maintain`](Self::maintain), as of the last one. Whoever wants all of them before the first request calls it
    /// until this is 0.
    pub fn unpopulated_bytes(&self) -> u64 {
        self.inner.unpopulated.get()
    }
}

impl Inner {
    fn open(options: &Options) -> Result<Rc<Inner>, Error> {
        options.check()?;
        let paths = Paths::new(&options.prefix)?;
        fork::init().map_err(paths.io(FileKind::Directory, "pthread_atfork"))?;
        fork::make_room();
        let reader = Rc::new(Inner {
            token: Cell::new(fork::token()),
            ticks: Cell::new(0),
            fenced: Cell::new(!(options.membarrier && membarrier::register())),
            hot: Cell::new(None),
            pins: [const { PinCell::new() }; CELLS],
            valid: [const { Cell::new((None, NONE)) }; TYPES],
            last: Cell::new(NONE),
            cold: RefCell::new(Cold {
                attached: None,
                copies: Copies::new(),
                looked_ns: 0,
                ticked_ns: 0,
                budget: 1,
                error: Error::NotPublished,
            }),
            verified: Cell::new(NONE),
            maintained: Cell::new(false),
            unpopulated: Cell::new(0),
            paths,
            options: options.clone(),
        });
        reader.pins.iter().for_each(|pin| pin.inner.set(Some(NonNull::from(&*reader))));
        clock::boot_id();
        let looked = reader.look();
        // Between now and the first pin any time may pass: that one looks at the clock.
        reader.ticks.set(0);
        match looked {
            Ok(()) | Err(Error::NotPublished) => Ok(reader),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn pin(&self) -> Result<Guard<'_>, Error> {
        let ticks = self.ticks.get();
        if ticks != 0
            && fork::peek() == self.token.get()
            && let [first, ..] = &self.pins
            && first.refs.get() == 0
        {
            self.ticks.set(ticks - 1);
            debug_assert!(self.hot.get().is_some() && first.cell.get().is_some());
            // SAFETY:
            // - ticks are left only if there is a slot: `attach` and `look` see to that, and then both are set.
            // - they point into mappings that live as long as the attachment, which is only replaced by `attach`,
            //   through the same handle, that is not now.
            let (state, slot, cell) = unsafe {
                let hot = self.hot.get().unwrap_unchecked();
                (hot.state.as_ref(), hot.slot.as_ref(), first.cell.get().unwrap_unchecked().as_ref())
            };
            let generation = self.announce(state, slot, cell);
            if first.generation.get() == generation {
                first.refs.set(1);
                // Not switched: the last guard was on the generation that this cell remembers. One on a later
                // generation would mean that this one is not current any more.
                debug_assert_eq!(self.last.get(), generation);
                return Ok(Guard::new(first, false));
            }
            return self.settle(first, generation);
        }
        self.pin_slowly()
    }

    #[inline(always)]
    fn announce(&self, state: &State, slot: &Slot, cell: &AtomicU64) -> u64 {
        if self.fenced.get() {
            protocol::pin(&state.generation, cell, &slot.epoch, || fence(Ordering::SeqCst))
        } else {
            protocol::pin(&state.generation, cell, &slot.epoch, || compiler_fence(Ordering::SeqCst))
        }
    }

    fn generation(&self) -> Option<u64> {
        let load =
            || self.state(|state| state.generation.load(Ordering::Relaxed)).filter(|found| *found != 0);
        load().or_else(|| {
            // Not an error here: there is no generation, whatever the reason.
            self.look().ok()?;
            load()
        })
    }

    fn version(&self) -> Option<InstanceVersion> {
        self.generation()?;
        self.state(|state| InstanceVersion(state.version.load(Ordering::Relaxed)))
    }

    fn writer_age(&self) -> Option<Duration> {
        if self.hot.get().is_none() && !self.is_counted() {
            let _ = self.look();
        }
        self.state(|state| {
            let heartbeat = state.heartbeat_ns.load(Ordering::Relaxed);
            (heartbeat != 0 && boot_id(state) == clock::boot_id())
                .then(|| Duration::from_nanos(clock::monotonic_ns().saturating_sub(heartbeat)))
        })?
    }

    fn is_superseded(&self) -> bool {
        self.state(|state| state.superseded.load(Ordering::Relaxed) != 0).unwrap_or(false)
    }

    fn has_slot(&self) -> bool {
        !self.is_counted()
    }

    fn state<T>(&self, read: impl FnOnce(&State) -> T) -> Option<T> {
        if let Some(hot) = self.hot.get() {
            // SAFETY:
            // - see `pin`.
            return Some(read(unsafe { hot.state.as_ref() }));
        }
        let cold = self.cold.try_borrow().ok()?;
        let state = state_of(&cold.attached.as_ref()?.state)?;
        Some(read(state))
    }

    /// Says of an entry of the mappings whether guards look into it.
    fn in_use(&self) -> impl Fn(u8) -> bool {
        |entry| self.pins.iter().any(|pin| pin.refs.get() > 0 && pin.entry.get() == entry)
    }

    fn has_guards(&self) -> bool {
        self.pins.iter().any(|pin| pin.refs.get() > 0 && pin.refs.get() != FROZEN)
    }

    #[cold]
    fn pin_slowly(&self) -> Result<Guard<'_>, Error> {
        if fork::token() != self.token.get() {
            self.become_child();
        }
        if self.ticks.get() == 0 {
            self.look()?;
        } else {
            self.ticks.set(self.ticks.get() - 1);
        }
        let Some(current) = self.state(|state| state.generation.load(Ordering::Relaxed)) else {
            return Err(Error::NotPublished);
        };
        // A guard on the same generation is shared: it is current now, and pinned already.
        let mut free = None;
        for pin in &self.pins {
            if pin.refs.get() == 0 {
                free = free.or(Some(pin));
            } else if pin.generation.get() == current && pin.refs.get() < FROZEN - 1 {
                fence(Ordering::Acquire);
                return Ok(self.guard(pin));
            }
        }
        let Some(pin) = free else { return Err(Error::TooManyGuards { limit: CELLS }) };
        let (Some(hot), Some(cell)) = (self.hot.get(), pin.cell.get()) else { return self.pin_counted(pin) };
        // SAFETY:
        // - see `pin`.
        let (state, slot, cell) = unsafe { (hot.state.as_ref(), hot.slot.as_ref(), cell.as_ref()) };
        let generation = self.announce(state, slot, cell);
        if pin.generation.get() == generation {
            return Ok(self.guard(pin));
        }
        self.settle(pin, generation)
    }

    /// One more guard on what a cell pins.
    fn guard<'a>(&'a self, pin: &'a PinCell) -> Guard<'a> {
        pin.refs.set(pin.refs.get() + 1);
        Guard::new(pin, self.switch(pin.generation.get()))
    }

    /// Whether the last guard was on another generation.
    #[inline(always)]
    fn switch(&self, generation: u64) -> bool {
        let switched = self.last.get() != generation;
        if switched {
            self.last.set(generation);
        }
        switched
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        fork::release_room();
        let ours = fork::token() == self.token.get();
        let in_use = self.in_use();
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return };
        if !ours {
            // Guards of before the fork cannot be alive (they borrow the handle), but may have been forgotten.
            cold.copies.keep(in_use);
        }
        if let Some(attached) = cold.attached.take()
            && ours
        {
            attached.slot.leave();
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("prefix", &self.inner.options.prefix)
            .field("generation", &self.inner.state(|state| state.generation.load(Ordering::Relaxed)))
            .finish_non_exhaustive()
    }
}
