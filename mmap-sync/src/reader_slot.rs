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
    clock,
    file::{self, Access},
    fork::PrivateFd,
    lock::Lock,
    map::Map,
};

use crate::error::{Error, FileKind};
use crate::layout::{
    COUNTERS_LOCK, LAYOUT, PAGE, READERS_MAGIC, ReadersHeader, SLOT_BYTES, SLOT_FENCED, SLOT_FREE,
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
    map: Map,
    slots: u32,
    /// Mapped after the file was extended. This mapping stays, so that references into it do.
    larger: OnceCell<Box<ReadersMap>>,
}

impl ReadersMap {
    /// Maps the file and checks that it is the one that belongs to the state with this id.
    pub(crate) fn new(paths: &Paths, fd: &OwnedFd, id: Option<u64>) -> Result<ReadersMap, Error> {
        let size = file::fstat(fd).map_err(paths.io(FileKind::Readers, "fstat"))?.size;
        let corrupt = |what, expected, found| Error::Corrupt {
            path: paths.path_of(FileKind::Readers),
            what,
            expected,
            found,
        };
        if size < PAGE + SLOT_BYTES {
            return Err(corrupt("the file size", PAGE + SLOT_BYTES, size));
        }
        let slots = slots_in(size);
        let map = Map::new(fd, slot_offset(slots), true).map_err(paths.io(FileKind::Readers, "mmap"))?;
        let readers = ReadersMap { map, slots, larger: OnceCell::new() };
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

    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        self.latest().map.get(slot_offset(index))
    }
}

/// Whole slots in a file of so many bytes.
pub(crate) fn slots_in(size: u64) -> u32 {
    u32::try_from(size.saturating_sub(PAGE) / SLOT_BYTES).unwrap_or(u32::MAX / 256)
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
        id: u64,
        fenced: bool,
    ) -> Result<ReaderSlot, Error> {
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
            let more = readers.slots().saturating_mul(2).min(options.max_slots);
            if more <= readers.slots() || extend(&fd, readers.slots(), more).is_err() {
                break;
            }
            readers = ReadersMap::new(paths, &fd, Some(id))?;
        }
        // Without the lock the writer would take the counts for those of dead readers. It holds the lock for a moment
        // when it looks whether they are.
        for attempt in 0..LOCK_ATTEMPTS {
            if lock.try_lock(Lock::Shared, COUNTERS_LOCK).map_err(paths.io(FileKind::Readers, "lock"))? {
                return Ok(ReaderSlot { readers, registration: Registration::Counters, _lock: lock });
            }
            if attempt >= LOCK_SPINS {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        Err(Error::Unsettled { path: paths.path_of(FileKind::Readers), attempts: LOCK_ATTEMPTS })
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
