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

mod copies;
mod guard;

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, FileKind};
use crate::fork;
use crate::layout::{InstanceVersion, LAYOUT, MUST_FENCE, PAGE, SLOT_FENCED, STATE_MAGIC, Slot, State};
use crate::options::Options;
use crate::paths::{Owners, Paths};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use crate::protocol::{self, CELLS, Found};
use crate::seat::{Place, Seat};
use crate::sys::{self, FileInfo, Map};

use copies::{Context, Copies, View};
pub use guard::Guard;

/// A writer without a sign of life for this long may have been replaced under the same path.
const STALE_NS: u64 = 3_000_000_000;

/// The path is looked at no more often than this.
const LOOK_NS: u64 = 1_000_000_000;

/// The clock is read at least once in so many pins.
const MAX_TICKS: u32 = 128;

/// Attempts at opening the file of the current generation while the writer goes on.
const ATTEMPTS: u32 = 64;

/// Attempts at a pin on the shared counters.
const COUNTER_ATTEMPTS: u32 = 4096;

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
    pins: [Pin; CELLS],
    /// Types as which generations were found valid.
    valid: [Cell<(Option<TypeId>, u64)>; TYPES],
    /// The generation that the last guard was on.
    last: Cell<u64>,
    cold: RefCell<Cold>,
    verified: Cell<u64>,
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
struct Pin {
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

impl Pin {
    const fn new() -> Pin {
        Pin {
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
    seat: Seat,
}

// SAFETY:
// - the raw pointers lead into mappings that the handle owns, and mappings belong to the process.
// - a lock on an open file description belongs to no thread.
// - guards borrow the handle, so it is not sent while one is alive.
// - the `Rc` is never cloned: all of it is sent.
unsafe impl Send for Reader {}

impl Reader {
    pub(crate) fn open(options: &Options) -> Result<Reader, Error> {
        Inner::open(options).map(|inner| Reader { inner })
    }

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

    /// The version word of the seeds: which copy, how many bytes, and the low bits of the checksum.
    pub fn version(&self) -> Option<InstanceVersion> {
        self.inner.version()
    }

    /// Time since the writer's last sign of life; `None` if there was none since the system was started.
    pub fn writer_age(&self) -> Option<Duration> {
        self.inner.writer_age()
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
    /// file of the current generation, and unmaps files that nobody looks into. For between requests.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn maintain(&self) -> Result<(), Error> {
        self.inner.maintain()
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
            fenced: Cell::new(!(options.membarrier && sys::membarrier::register())),
            hot: Cell::new(None),
            pins: [const { Pin::new() }; CELLS],
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
            paths,
            options: options.clone(),
        });
        reader.pins.iter().for_each(|pin| pin.inner.set(Some(NonNull::from(&*reader))));
        sys::boot_id();
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
            (heartbeat != 0 && boot_id(state) == sys::boot_id())
                .then(|| Duration::from_nanos(sys::monotonic_ns().saturating_sub(heartbeat)))
        })?
    }

    fn is_superseded(&self) -> bool {
        self.state(|state| state.superseded.load(Ordering::Relaxed) != 0).unwrap_or(false)
    }

    fn has_slot(&self) -> bool {
        !self.is_counted()
    }

    fn maintain(&self) -> Result<(), Error> {
        self.ticks.set(0);
        // The switch is for the caller's next guard to tell.
        let pinned = self.pin().map(|guard| {
            if guard.is_switched() {
                self.last.set(NONE);
            }
        });
        if self.last.get() == NONE {
            // The short path never tells a switch.
            self.pins.iter().filter(|pin| pin.refs.get() == 0).for_each(Pin::forget);
        }
        let in_use = self.in_use();
        if let Ok(mut cold) = self.cold.try_borrow_mut() {
            cold.copies.discard(in_use);
        }
        pinned
    }

    fn is_counted(&self) -> bool {
        self.cold.try_borrow().is_ok_and(|cold| {
            cold.attached.as_ref().is_some_and(|attached| attached.seat.place == Place::Counters)
        })
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
    fn guard<'a>(&'a self, pin: &'a Pin) -> Guard<'a> {
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

    /// Finds the bytes of the generation that was just pinned in a cell.
    #[cold]
    fn settle<'a>(&'a self, pin: &'a Pin, generation: u64) -> Result<Guard<'a>, Error> {
        self.settle_here(pin, generation).or_else(|error| self.move_to_new_files(error))
    }

    fn settle_here<'a>(&'a self, pin: &'a Pin, generation: u64) -> Result<Guard<'a>, Error> {
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

    fn settled<'a>(&'a self, pin: &'a Pin, generation: u64, view: View) -> Guard<'a> {
        // Mappings may have been replaced: what unused cells remember is not to be used any more.
        self.pins.iter().filter(|pin| pin.refs.get() == 0).for_each(Pin::forget);
        pin.remember(generation, view);
        self.guard(pin)
    }

    /// Finds the bytes of the current generation; `again` pins what is current now instead.
    fn find_current(
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
                let place = self.paths.place(data_file(expected));
                Error::Corrupt { place, what: "the generation", expected, found }
            }
            None => self.paths.io(data_file(expected), "open")(libc::ENOENT),
        };
        let settled =
            protocol::settle(generation, ATTEMPTS, |generation| self.find(generation), again, wrong)?;
        let place = || self.paths.place(data_file(generation));
        settled.ok_or_else(|| Error::Unsettled { place: place(), attempts: ATTEMPTS })
    }

    fn find(&self, generation: u64) -> Result<Found<View>, Error> {
        let readers_ids =
            |state: &State| [&state.readers_id, &state.adopted_id].map(|id| id.load(Ordering::Relaxed));
        let Some(readers_ids) = self.state(readers_ids) else { return Ok(Found::Other(None)) };
        let context = Context {
            paths: &self.paths,
            options: &self.options,
            readers_ids,
            boot_id: sys::boot_id(),
            verified: &self.verified,
        };
        let in_use = self.in_use();
        match self.cold.try_borrow_mut() {
            Ok(mut cold) => cold.copies.find(generation, &context, in_use),
            Err(_) => Ok(Found::Other(None)),
        }
    }

    fn owners(&self) -> Owners {
        self.paths.reader_owners(self.options.owner)
    }

    /// A pin on the shared counters, for a handle without a slot.
    fn pin_counted<'a>(&'a self, entry: &'a Pin) -> Result<Guard<'a>, Error> {
        self.pin_counted_here(entry).or_else(|error| self.move_to_new_files(error))
    }

    fn pin_counted_here<'a>(&'a self, entry: &'a Pin) -> Result<Guard<'a>, Error> {
        let counters: [NonNull<AtomicU32>; 2];
        let state: NonNull<State>;
        {
            let cold = self.cold.try_borrow().map_err(|_| Error::NotPublished)?;
            let Some(attached) = &cold.attached else { return Err(cold.error.clone()) };
            let [zero, one] = &attached.seat.readers.header().counters;
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
    fn release_counted(&self, generation: u64) {
        let Ok(cold) = self.cold.try_borrow() else { return };
        let Some(attached) = &cold.attached else { return };
        let [zero, one] = &attached.seat.readers.header().counters;
        (if generation & 1 == 0 { zero } else { one }).fetch_sub(1, Ordering::Release);
    }

    /// A writer without `membarrier` asks its readers to pass fences.
    fn obey(&self, state: &State) {
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
    fn look(&self) -> Result<(), Error> {
        let now = sys::monotonic_ns();
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
        let alive = boot_id(state) == sys::boot_id()
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
    fn move_to_new_files(&self, error: Error) -> Result<Guard<'_>, Error> {
        let guards = self.has_guards();
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return Err(error) };
        if matches!(error, Error::NotPublished) || !self.is_replaced(&cold) {
            return Err(error);
        }
        if guards {
            return Err(Error::Replaced { place: self.paths.place(FileKind::State) });
        }
        // Every round takes another replacement of the files.
        if self.attach(&mut cold).is_ok() {
            drop(cold);
            return self.pin_slowly();
        }
        Err(error)
    }

    fn is_replaced(&self, cold: &Cold) -> bool {
        sys::lstat(&self.paths.state)
            .is_ok_and(|info| cold.attached.as_ref().is_some_and(|attached| !attached.info.same_file(&info)))
    }

    /// Opens `P_state` and takes a seat. If that fails, everything stays as it was.
    fn attach(&self, cold: &mut Cold) -> Result<(), Error> {
        let owners = self.owners();
        let (state, info) = open_state(&self.paths, &owners)?.ok_or(Error::NotPublished)?;
        let Some(header) = state_of(&state) else { return Err(Error::NotPublished) };
        let id = header.readers_id.load(Ordering::Relaxed);
        if header.flags.load(Ordering::Relaxed) & MUST_FENCE != 0 {
            self.fenced.set(true);
        }
        let seat = Seat::take(&self.paths, &owners, &self.options, id, self.fenced.get())?;
        let hot =
            seat.slot().map(|(_, slot)| Hot { state: NonNull::from(header), slot: NonNull::from(slot) });
        // From here on nothing fails. No guard is alive, or those that are belong to the parent of this process.
        self.hot.set(None);
        if let Some(old) = cold.attached.replace(Attached { state, info, seat }) {
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
            old.seat.leave();
        }
    }

    /// In the child of a fork: the slot and the guards are the parent's. Takes a slot of its own.
    #[cold]
    fn become_child(&self) {
        let in_use = self.in_use();
        self.hot.set(None);
        self.ticks.set(0);
        let Ok(mut cold) = self.cold.try_borrow_mut() else { return };
        cold.copies.keep(in_use);
        cold.attached = None;
        cold.looked_ns = 0;
        self.token.set(fork::token());
        if !self.fenced.get() && !sys::membarrier::register() {
            self.fenced.set(true);
        }
        for pin in &self.pins {
            pin.refs.set(if pin.refs.get() == 0 { 0 } else { FROZEN });
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        fork::give_room_back();
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
            attached.seat.leave();
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

fn data_file(generation: u64) -> FileKind {
    FileKind::Data(u8::from(generation & 1 == 1))
}

/// The state in a mapping that [`open_state`] made.
pub(crate) fn state_of(map: &Map) -> Option<&State> {
    // SAFETY:
    // - `at` checks bounds and alignment; `open_state` checked that the file is as long.
    // - the state consists of atomics, for which any bytes are a value, and which the writer may change.
    map.at::<State>(0).map(|state| unsafe { state.as_ref() })
}

fn boot_id(state: &State) -> Option<[u64; 2]> {
    let [high, low] = &state.boot_id;
    Some([high.load(Ordering::Relaxed), low.load(Ordering::Relaxed)])
}

/// Opens `P_state` for reading and checks what does not change in it.
pub(crate) fn open_state(paths: &Paths, owners: &Owners) -> Result<Option<(Map, FileInfo)>, Error> {
    let Some((fd, info)) = paths.open(FileKind::State, false, owners)? else { return Ok(None) };
    let map = map_state(paths, sys::raw(&fd), &info, false)?;
    Ok(Some((map, info)))
}

/// Maps `P_state` and checks what does not change in it.
pub(crate) fn map_state(paths: &Paths, fd: i32, info: &FileInfo, writable: bool) -> Result<Map, Error> {
    let place = || paths.place(FileKind::State);
    if info.size != PAGE {
        // Also the file of the published crate, which has 16 bytes.
        return Err(Error::Corrupt {
            place: place(),
            what: "the file size",
            expected: PAGE,
            found: info.size,
        });
    }
    let map = Map::new(fd, PAGE, writable).map_err(paths.io(FileKind::State, "mmap"))?;
    let Some(state) = state_of(&map) else {
        return Err(Error::Corrupt {
            place: place(),
            what: "the file size",
            expected: PAGE,
            found: map.len(),
        });
    };
    let magic = state.magic.load(Ordering::Relaxed);
    if magic != STATE_MAGIC {
        return Err(Error::Foreign { place: place(), expected: STATE_MAGIC, found: magic });
    }
    let layout = state.layout.load(Ordering::Relaxed);
    if layout != LAYOUT {
        return Err(Error::Layout { place: place(), expected: LAYOUT, found: layout });
    }
    let generation = state.generation.load(Ordering::Relaxed);
    if generation > protocol::MAX_GENERATION {
        let (expected, what) = (protocol::MAX_GENERATION, "the generation");
        return Err(Error::Corrupt { place: place(), what, expected, found: generation });
    }
    Ok(map)
}
