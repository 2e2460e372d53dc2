//! A worker's side: taking a slot and counting in it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bliss_core::metrics::{SLOT_BYTES, SLOT_WORDS, Slot};
use bliss_core::score::Answer;
use bliss_core::scorer::{RequestMetrics, Scorer};

use bliss_os::Errno;
use bliss_os::file::{self, Access, FileInfo};
use bliss_os::fork::{self, PrivateFd};
use bliss_os::lock::Lock;
use bliss_os::map::Map;

use super::{HEADER_BYTES, HeaderError, METRICS, check_head, slot_offset};

/// Slots that are tried at a time, once all of them were found taken.
const TRIED_AGAIN: u32 = 64;

/// Why a handle does not count. It scores all the same, and tries again at its next maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
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
    Head(HeaderError),
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
pub(crate) struct WorkerMetrics {
    /// The file and its directory; none where they cannot be named.
    paths: Option<(CString, CString)>,
    taken: Result<Taken, MetricsError>,
    tally: RequestMetrics,
    /// Where to try next once all slots were found taken.
    next: u32,
}

/// A slot that this handle has.
#[derive(Debug)]
struct Taken {
    /// The process that took it.
    token: u64,
    file: FileInfo,
    map: Map,
    /// Carries the lock. Never mapped; a child of a fork does not have it.
    _lock: PrivateFd,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> MetricsError {
    move |errno| match errno {
        libc::ENOENT | libc::ENOTDIR => MetricsError::NoFile,
        // What opening says of a link that is not followed.
        libc::ELOOP | libc::EISDIR | libc::ENXIO => MetricsError::Stranger,
        errno => MetricsError::Failed { call, errno },
    }
}

impl WorkerMetrics {
    /// Takes a slot of the directory's file. Never fails: what is the matter is [told](Self::metrics_error).
    pub(crate) fn open(directory: &Path) -> Self {
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
        let paths = name(&directory.join(METRICS)).zip(name(directory));
        // So that `maintain` need not allocate.
        fork::make_room();
        let mut worker =
            Self { paths, taken: Err(MetricsError::NoFile), tally: RequestMetrics::new(), next: 0 };
        worker.take();
        worker
    }

    /// Why nothing is counted.
    pub(crate) fn metrics_error(&self) -> Option<MetricsError> {
        match &self.taken {
            Ok(taken) if !taken.is_ours() => Some(MetricsError::Forked),
            Ok(_) => None,
            Err(why) => Some(*why),
        }
    }

    /// Takes a slot if there is none: the file was not there, or is another one now, or this process is a child of the one
    /// that had it. Does not allocate.
    pub(crate) fn maintain(&mut self) {
        if let (Ok(taken), Some((path, _))) = (&self.taken, &self.paths)
            && taken.is_ours()
            && file::lstat(path).is_ok_and(|there| there.same_file(&taken.file))
        {
            return;
        }
        self.take();
    }

    fn take(&mut self) {
        self.tally.unbind();
        // What was had is given back first, so that it can be had again.
        self.taken = Err(MetricsError::NoFile);
        let Some((path, directory)) = &self.paths else {
            self.taken = Err(MetricsError::Path);
            return;
        };
        self.taken = Taken::take(path, directory, &mut self.next);
    }

    #[inline]
    fn slot(&mut self) -> Option<(Slot<'_>, &mut RequestMetrics)> {
        let Ok(taken) = &self.taken else { return None };
        if !taken.is_ours() {
            return None;
        }
        let slot = taken.map.get_slice(0, SLOT_WORDS).and_then(Slot::new)?;
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

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        fork::release_room();
    }
}

impl Taken {
    fn take(path: &CString, directory: &CString, next: &mut u32) -> Result<Self, MetricsError> {
        fork::init().map_err(failed("pthread_atfork"))?;
        let token = fork::token();
        let mapped = file::open(path, Access::ReadWrite).map_err(failed("open"))?;
        let file = file::fstat(&mapped).map_err(failed("fstat"))?;
        let parent = file::stat(directory).map_err(failed("stat"))?;
        if !file.is_regular() || ![0, file::effective_user(), parent.owner].contains(&file.owner) {
            return Err(MetricsError::Stranger);
        }
        let head = file::read_head::<HEADER_BYTES>(&mapped).map_err(failed("read"))?;
        let slots = check_head(&head, file.size).map_err(MetricsError::Head)?;
        // A second description, as a mapping keeps its own alive, and the lock with it.
        let lock = PrivateFd::open(path, Access::ReadWrite).map_err(failed("open"))?;
        if !lock.info().map_err(failed("fstat"))?.same_file(&file) {
            return Err(MetricsError::NoFile);
        }
        let tries = if *next == 0 { slots } else { TRIED_AGAIN.min(slots) };
        for index in (0..tries).map(|i| next.wrapping_add(i) % slots) {
            if !lock.try_lock(Lock::Exclusive, slot_offset(index)).map_err(failed("lock"))? {
                continue;
            }
            file::reserve_within(&mapped, slot_offset(index), SLOT_BYTES as u64)
                .map_err(failed("fallocate"))?;
            let map =
                Map::part(&mapped, slot_offset(index), SLOT_BYTES as u64, true).map_err(failed("mmap"))?;
            *next = 0;
            return Ok(Self { token, file, map, _lock: lock });
        }
        // Never 0, so that the next try is a short one.
        *next = (next.wrapping_add(tries) % slots).max(1);
        Err(MetricsError::NoSlot { slots })
    }

    /// Whether this process took it, and is not a child of a fork.
    #[inline]
    fn is_ours(&self) -> bool {
        fork::peek() == self.token
    }
}
