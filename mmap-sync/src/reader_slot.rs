//! How a reader handle gets its slot in `P_readers`.
//!
//! The owner of slot *i* holds an exclusive open-file-description lock on the first byte of the slot, through a
//! descriptor that is never mapped and never inherited, so that the kernel takes the lock back when the owner dies,
//! in whatever PID namespace. Whoever gets the lock may use the slot, or clear it.
//!
//! # Orderings
//!
//! The kind and the high-water mark are stored before the first announcement, with a full fence in between. So if
//! the first announcement comes before the writer's heavy barrier (see [`crate::protocol`]), the writer sees the slot
//! as taken; if not, the reader sees the current generation. Every store that frees a cell or the slot is a release, and
//! the writer's loads of both are acquires: the reads of former guards, also of an owner that died, happen before what
//! the writer does next.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bliss_os::{
    bus_error::{self, Watched},
    clock,
    file::{self, Access, FileInfo},
    fork::PrivateFd,
    lock::{self, Lock},
    map::Map,
};

use crate::error::{Error, FileKind};
use crate::layout::{
    COUNTERS_LOCK, LAYOUT, MAX_SLOTS, PAGE, READERS_MAGIC, ReadersHeader, SLOT_BYTES, SLOT_FENCED, SLOT_FREE,
    SLOT_UNFENCED, Slot, slot_offset,
};
use crate::options::Options;
use crate::paths::{Owners, Paths};
use crate::primitive::{Ordering, fence};
use crate::protocol::FREE;

/// Attempts at the shared lock of readers without a slot; after the first ones with a pause.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_SPINS: u32 = 10;

/// `P_readers`, mapped.
pub(crate) struct ReadersMap {
    /// Before the mapping, which it is about.
    watched: Option<Watched>,
    map: Map,
    slots: u32,
    /// Mapped after the file was extended. This mapping stays, so that references into it do.
    larger: OnceCell<Box<ReadersMap>>,
}

impl ReadersMap {
    /// Maps the file and checks that it is the one that belongs to the state with this id.
    ///
    /// No more of it than has room in the file system: others may have made it long without, and whoever looks at a page for
    /// which there is no room is killed.
    pub(crate) fn new(paths: &Paths, fd: &OwnedFd, id: Option<u64>) -> Result<ReadersMap, Error> {
        ReadersMap::open(paths, fd, id, false)
    }

    /// The same for the writer, whom a truncation of the file does not kill if its options say so
    /// ([`Options::survive_truncation`]).
    pub(crate) fn of_writer(paths: &Paths, fd: &OwnedFd, options: &Options) -> Result<ReadersMap, Error> {
        ReadersMap::open(paths, fd, None, options.survive_truncation)
    }

    fn open(paths: &Paths, fd: &OwnedFd, id: Option<u64>, watch: bool) -> Result<ReadersMap, Error> {
        let info = file::fstat(fd).map_err(paths.io(FileKind::Readers, "fstat"))?;
        let corrupt = |what, expected, found| Error::Corrupt {
            path: paths.path_of(FileKind::Readers),
            what,
            expected,
            found,
        };
        let slots = with_room(fd, slots_in(info.size));
        if slots == 0 {
            return Err(corrupt("the file size", PAGE + SLOT_BYTES, info.size));
        }
        let map = Map::new(fd, slot_offset(slots), true).map_err(paths.io(FileKind::Readers, "mmap"))?;
        let watched = if watch { Some(bus_error::watch(&map)) } else { None };
        let watched = watched.transpose().map_err(paths.io(FileKind::Readers, "watching the mapping"))?;
        let readers = ReadersMap { watched, map, slots, larger: OnceCell::new() };
        let header = readers.header();
        let magic = header.magic.load(Ordering::Relaxed);
        if magic != READERS_MAGIC {
            let path = paths.path_of(FileKind::Readers);
            return Err(Error::Foreign { path, expected: READERS_MAGIC, found: magic });
        }
        let layout = header.layout.load(Ordering::Relaxed);
        if layout != LAYOUT {
            return Err(Error::Layout {
                path: paths.path_of(FileKind::Readers),
                expected: LAYOUT,
                found: layout,
            });
        }
        let slot_bytes = u64::from(header.slot_bytes.load(Ordering::Relaxed));
        if slot_bytes != SLOT_BYTES {
            return Err(corrupt("the size of a slot", SLOT_BYTES, slot_bytes));
        }
        let found = header.id.load(Ordering::Relaxed);
        match id {
            Some(expected) if expected != found => {
                Err(corrupt("the id that links it to the state file", expected, found))
            }
            _ => Ok(readers),
        }
    }

    /// Whether the file was truncated while somebody looked at it here: some slots are not those of the file any more.
    pub(crate) fn was_truncated(&self) -> bool {
        let mut map = Some(self);
        while let Some(found) = map {
            if found.watched.as_ref().is_some_and(Watched::was_replaced) {
                return true;
            }
            map = found.larger.get().map(|larger| &**larger);
        }
        false
    }

    pub(crate) fn slots(&self) -> u32 {
        self.latest().slots
    }

    fn latest(&self) -> &ReadersMap {
        let mut latest = self;
        while let Some(larger) = latest.larger.get() {
            latest = larger;
        }
        latest
    }

    /// Goes on with a mapping of the extended file.
    pub(crate) fn extend(&self, larger: ReadersMap) {
        if larger.slots > self.slots() {
            // Nobody else can have set it: the type is not `Sync`.
            let _ = self.latest().larger.set(Box::new(larger));
        }
    }

    pub(crate) fn header(&self) -> &ReadersHeader {
        // SAFETY:
        // - the mapping is at least a page long and page-aligned (`new`).
        // - the header consists of atomics, for which any bytes are a value, and which others may change.
        unsafe { self.map.start().cast::<ReadersHeader>().as_ref() }
    }

    /// Writes what never changes in the first page, if somebody else wrote something there.
    pub(crate) fn mend_header(&self, id: u64) {
        let header = self.header();
        let slot_bytes = u32::try_from(SLOT_BYTES).unwrap_or(0);
        if header.magic.load(Ordering::Relaxed) != READERS_MAGIC
            || header.layout.load(Ordering::Relaxed) != LAYOUT
            || header.slot_bytes.load(Ordering::Relaxed) != slot_bytes
            || header.id.load(Ordering::Relaxed) != id
        {
            header.fill_in(id);
        }
    }

    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        self.latest().map.get(slot_offset(index))
    }
}

impl ReadersHeader {
    /// Stores what never changes.
    pub(crate) fn fill_in(&self, id: u64) {
        self.layout.store(LAYOUT, Ordering::Relaxed);
        self.slot_bytes.store(u32::try_from(SLOT_BYTES).unwrap_or(0), Ordering::Relaxed);
        self.id.store(id, Ordering::Relaxed);
        self.magic.store(READERS_MAGIC, Ordering::Relaxed);
    }
}

/// Whole slots in a file of so many bytes, of those that anybody looks at.
pub(crate) fn slots_in(size: u64) -> u32 {
    u32::try_from(size.saturating_sub(PAGE) / SLOT_BYTES).unwrap_or(MAX_SLOTS).min(MAX_SLOTS)
}

/// Makes room for so many slots where there is none, and says for how many of them there is. Nobody uses a slot that was
/// never given room.
fn with_room(fd: &OwnedFd, slots: u32) -> u32 {
    let end = slot_offset(slots);
    let first_hole = || file::next_hole(fd, 0).unwrap_or(u64::MAX);
    if first_hole() >= end {
        return slots;
    }
    match file::reserve_within(fd, 0, end) {
        // A file system that cannot reserve has no room to refuse later either, as far as is known.
        Ok(()) | Err(libc::EOPNOTSUPP) => slots,
        Err(_) => slots_in(first_hole()).min(slots),
    }
}

/// What a handle may use of `P_readers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    /// A slot of its own.
    Slot(u32),
    /// Only the shared counters: all slots are taken and there is no room for more.
    Counters,
}

/// A handle's registration in `P_readers`, kept until it is dropped.
pub(crate) struct ReaderSlot {
    pub(crate) readers: ReadersMap,
    pub(crate) registration: Registration,
    /// Carries the lock. Never mapped.
    _lock: PrivateFd,
}

impl ReaderSlot {
    /// Takes a free slot, or that of a dead owner, or one from a larger file.
    pub(crate) fn take(
        paths: &Paths,
        owners: &Owners,
        options: &Options,
        state: (&FileInfo, u64),
        fenced: bool,
    ) -> Result<ReaderSlot, Error> {
        let (state, id) = state;
        let Some((fd, info)) = paths.open(FileKind::Readers, true, owners)? else {
            return Err(paths.io(FileKind::Readers, "open")(libc::ENOENT));
        };
        let lock = PrivateFd::open(&paths.readers, Access::ReadWrite)
            .map_err(paths.io(FileKind::Readers, "open"))?;
        let locked = lock.info().map_err(paths.io(FileKind::Readers, "fstat"))?;
        if !locked.same_file(&info) {
            return Err(Error::Unsettled { path: paths.path_of(FileKind::Readers), attempts: 1 });
        }
        let mut readers = ReadersMap::new(paths, &fd, Some(id))?;
        loop {
            if let Some(index) = find(&readers, &lock).map_err(paths.io(FileKind::Readers, "lock"))? {
                let slot = ReaderSlot { readers, registration: Registration::Slot(index), _lock: lock };
                slot.furnish(fenced);
                return Ok(slot);
            }
            let (had, more) = (readers.slots(), readers.slots().saturating_mul(2).min(options.max_slots));
            // Somebody who has locked all of the file has locked what would be added, too.
            let next_is_free =
                || !lock.get().is_ok_and(|fd| lock::is_locked(fd, slot_offset(had)) == Ok(true));
            if more <= had || !next_is_free() || extend(&fd, had, more).is_err() {
                break;
            }
            readers = ReadersMap::new(paths, &fd, Some(id))?;
            if readers.slots() <= had {
                break;
            }
        }
        let lock = counters_lock(paths, state)?;
        Ok(ReaderSlot { readers, registration: Registration::Counters, _lock: lock })
    }

    /// Says whose slot it is, and empties it.
    fn furnish(&self, fenced: bool) {
        let Some((index, slot)) = self.slot() else { return };
        for cell in &slot.cells {
            cell.store(FREE, Ordering::Release);
        }
        slot.pid.store(std::process::id(), Ordering::Relaxed);
        slot.opened_ns.store(clock::unix_ns(), Ordering::Relaxed);
        self.readers.header().high_water.fetch_max(u64::from(index) + 1, Ordering::SeqCst);
        slot.kind.store(if fenced { SLOT_FENCED } else { SLOT_UNFENCED }, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn slot(&self) -> Option<(u32, &Slot)> {
        match self.registration {
            Registration::Slot(index) => self.readers.slot(index).map(|slot| (index, slot)),
            Registration::Counters => None,
        }
    }

    /// Gives the slot back. Not to be called in a child: the slot is its parent's.
    pub(crate) fn leave(&self) {
        if let Some((_, slot)) = self.slot() {
            for cell in &slot.cells {
                cell.store(FREE, Ordering::Release);
            }
            slot.kind.store(SLOT_FREE, Ordering::Release);
        }
    }
}

/// The shared lock of a reader without a slot: without it the writer would take its counts for those of dead readers. The
/// writer holds it alone for a moment when it looks whether they are.
fn counters_lock(paths: &Paths, state: &FileInfo) -> Result<PrivateFd, Error> {
    let kind = FileKind::State;
    let lock = PrivateFd::open(&paths.state, Access::Read).map_err(paths.io(kind, "open"))?;
    if !lock.info().map_err(paths.io(kind, "fstat"))?.same_file(state) {
        return Err(Error::Unsettled { path: paths.path_of(kind), attempts: 1 });
    }
    for attempt in 0..LOCK_ATTEMPTS {
        if lock.try_lock(Lock::Shared, COUNTERS_LOCK).map_err(paths.io(kind, "lock"))? {
            return Ok(lock);
        }
        if attempt >= LOCK_SPINS {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
    Err(Error::Unsettled { path: paths.path_of(kind), attempts: LOCK_ATTEMPTS })
}

/// Makes room for more slots. What is there is not touched: others use it.
fn extend(fd: &OwnedFd, from: u32, to: u32) -> bliss_os::Result<()> {
    let (from, to) = (slot_offset(from), slot_offset(to));
    file::extend(fd, from, to.saturating_sub(from))
}

/// A slot whose lock could be taken: first those that say they are free, then those of dead owners.
fn find(readers: &ReadersMap, lock: &PrivateFd) -> bliss_os::Result<Option<u32>> {
    for only_free in [true, false] {
        for index in 0..readers.slots() {
            let Some(slot) = readers.slot(index) else { break };
            if only_free && slot.kind.load(Ordering::Relaxed) != SLOT_FREE {
                continue;
            }
            if lock.try_lock(Lock::Exclusive, slot_offset(index))? {
                return Ok(Some(index));
            }
        }
    }
    Ok(None)
}
