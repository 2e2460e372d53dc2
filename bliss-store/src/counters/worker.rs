//! A worker's side: taking a slot and counting in it.

use std::ffi::CString;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bliss_core::metrics::{SLOT_BYTES, SLOT_WORDS, Slot};
use bliss_core::score::Answer;
use bliss_core::scorer::{RequestMetrics, Scorer};

use super::fork::Process;
use super::sys::{self, Errno, Info, Map};
use super::{BadHead, COUNTERS, HEADER_BYTES, check_head, slot_offset};

/// Slots that are tried at a time, once all of them were found taken.
const TRIED_AGAIN: u32 = 64;

/// Why a handle does not count. It scores all the same, and tries again at its next maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotCounting {
    /// The daemon has not made the file yet, or its directory.
    #[error("counters: the file is not there; the daemon makes it when it starts")]
    NoFile,
    /// A system call failed.
    #[error(
        "counters: {call} failed: {}; the worker needs to read and write the file, and 64 KiB of room",
        std::io::Error::from_raw_os_error(*errno)
    )]
    Failed {
        /// Which one.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
    /// It is a link, a folder or the like, or somebody else's.
    #[error(
        "counters: expected a regular file of root, of this user or of the directory's owner, found another; remove it"
    )]
    Stranger,
    /// It is not what a daemon of this release makes.
    #[error("counters: {0}; the daemon replaces it when it starts")]
    Head(BadHead),
    /// More workers than slots.
    #[error("counters: all {slots} slots are taken by other handles")]
    NoSlot {
        /// How many there are.
        slots: u32,
    },
    /// This process is a child of a fork of the one that counts.
    #[error(
        "counters: this process is a child of the one that counts; it counts from its next maintenance on"
    )]
    Forked,
    /// The file's path cannot be named to the system.
    #[error("counters: the directory's name holds a NUL")]
    Path,
}

/// Counts for one handle, if it can.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The file and its directory; none where they cannot be named.
    paths: Option<(CString, CString)>,
    taken: Result<Taken, NotCounting>,
    tally: RequestMetrics,
    /// Where to try next once all slots were found taken.
    next: u32,
}

/// A slot that this handle has.
#[derive(Debug)]
struct Taken {
    process: Process,
    file: Info,
    /// Carries the lock. Never mapped. Dropped by [`Taken::leave`] alone.
    lock: Option<OwnedFd>,
    map: Option<Map>,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> NotCounting {
    move |errno| match errno {
        libc::ENOENT | libc::ENOTDIR => NotCounting::NoFile,
        // What opening says of a link that is not followed.
        libc::ELOOP | libc::EISDIR | libc::ENXIO => NotCounting::Stranger,
        errno => NotCounting::Failed { call, errno },
    }
}

impl Worker {
    /// Takes a slot of the directory's file. Never fails: what is the matter is [told](Self::not_counting).
    pub(crate) fn open(directory: &Path) -> Self {
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
        let paths = name(&directory.join(COUNTERS)).zip(name(directory));
        let mut worker =
            Self { paths, taken: Err(NotCounting::NoFile), tally: RequestMetrics::new(), next: 0 };
        worker.take();
        worker
    }

    /// Why nothing is counted.
    pub(crate) fn not_counting(&self) -> Option<NotCounting> {
        match &self.taken {
            Ok(taken) if !taken.process.is_this() => Some(NotCounting::Forked),
            Ok(_) => None,
            Err(why) => Some(*why),
        }
    }

    /// Takes a slot if there is none: the file was not there, or is another one now, or this process is a child of the one
    /// that had it. Does not allocate.
    pub(crate) fn maintain(&mut self) {
        if let (Ok(taken), Some((path, _))) = (&self.taken, &self.paths)
            && taken.process.is_this()
            && sys::info_at(path).is_ok_and(|there| there.is_same_file(&taken.file))
        {
            return;
        }
        self.take();
    }

    fn take(&mut self) {
        self.tally.unbind();
        // What was had is given back first, so that it can be had again.
        self.taken = Err(NotCounting::NoFile);
        let Some((path, directory)) = &self.paths else {
            self.taken = Err(NotCounting::Path);
            return;
        };
        self.taken = Taken::take(path, directory, &mut self.next);
    }

    #[inline]
    fn slot(&mut self) -> Option<(Slot<'_>, &mut RequestMetrics)> {
        let Ok(taken) = &self.taken else { return None };
        if !taken.process.is_this() {
            return None;
        }
        let slot = taken.map.as_ref()?.words(0, SLOT_WORDS).and_then(Slot::new)?;
        Some((slot, &mut self.tally))
    }

    /// Does ahead of time what the next count would have to do after a publication.
    pub(crate) fn bind(&mut self, plan: &Scorer) {
        if let Some((slot, tally)) = self.slot() {
            tally.bind(slot, plan);
        }
    }

    /// Counts how dimensions answered.
    #[inline]
    pub(crate) fn count_lookup(&mut self, plan: &Scorer) {
        if let Some((slot, tally)) = self.slot() {
            tally.count_lookup(slot, plan);
        }
    }

    /// Counts an answer.
    #[inline]
    pub(crate) fn count_score(&mut self, plan: &Scorer, answer: &Answer) {
        if let Some((slot, tally)) = self.slot() {
            tally.count_score(slot, plan, answer);
        }
    }
}

impl Taken {
    fn take(path: &CString, directory: &CString, next: &mut u32) -> Result<Self, NotCounting> {
        let process = Process::current().map_err(failed("madvise"))?;
        let mapped = sys::open(path).map_err(failed("open"))?;
        let file = sys::info(&mapped).map_err(failed("fstat"))?;
        let parent = sys::info_behind(directory).map_err(failed("stat"))?;
        if !file.is_regular || ![0, sys::effective_user(), parent.owner].contains(&file.owner) {
            return Err(NotCounting::Stranger);
        }
        let head = sys::read_head::<HEADER_BYTES>(&mapped).map_err(failed("read"))?;
        let slots = check_head(&head, file.bytes).map_err(NotCounting::Head)?;
        // A second description, as a mapping keeps its own alive, and the lock with it.
        let lock = sys::open(path).map_err(failed("open"))?;
        if !sys::info(&lock).map_err(failed("fstat"))?.is_same_file(&file) {
            return Err(NotCounting::NoFile);
        }
        let tries = if *next == 0 { slots } else { TRIED_AGAIN.min(slots) };
        for index in (0..tries).map(|i| next.wrapping_add(i) % slots) {
            if !sys::try_lock(&lock, slot_offset(index)).map_err(failed("lock"))? {
                continue;
            }
            sys::reserve(&mapped, slot_offset(index), SLOT_BYTES).map_err(failed("fallocate"))?;
            let map = Map::new(&mapped, slot_offset(index), SLOT_BYTES, true).map_err(failed("mmap"))?;
            *next = 0;
            return Ok(Self { process, file, lock: Some(lock), map: Some(map) });
        }
        // Never 0, so that the next try is a short one.
        *next = (next.wrapping_add(tries) % slots).max(1);
        Err(NotCounting::NoSlot { slots })
    }

    /// Gives the slot back; in a child, where it is the parent's, only what the child has of it.
    fn leave(&mut self) {
        let (Some(lock), Some(map)) = (self.lock.take(), self.map.take()) else { return };
        if self.process.is_this() {
            drop(map);
            // A child that still has the descriptor would keep the lock.
            sys::unlock(&lock);
            return;
        }
        // The child has no such mapping, and its addresses may be somebody else's by now; so may the descriptor's number,
        // where a program closes all descriptors after a fork.
        std::mem::forget(map);
        if sys::info(&lock).is_ok_and(|info| info.is_same_file(&self.file)) {
            drop(lock);
        } else {
            let _ = lock.into_raw_fd();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.leave();
    }
}
