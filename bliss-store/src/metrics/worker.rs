//! The worker's side: takes a slot and counts in it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bliss_core::metrics::{SLOT_BYTES, SLOT_WORDS, Slot};
use bliss_core::score::Answer;
use bliss_core::scorer::{RequestMetrics, Scorer};

use bliss_os::Errno;
use bliss_os::directory::{self, Fault, Rules, Why};
use bliss_os::file::{self, Access, FileInfo};
use bliss_os::fork::{self, PrivateFd};
use bliss_os::lock::Lock;
use bliss_os::map::Map;

use super::{HEADER_BYTES, HeaderError, METRICS, check_header, slot_offset};

/// Slots tried per retry, once all of them were found taken.
const SLOTS_PER_RETRY: u32 = 64;

/// Why a handle does not count. It answers all the same, and tries again at its next maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The daemon has not created the file yet, or its directory.
    #[error("counters: the file does not exist; the daemon creates it when it starts")]
    NoFile,
    /// A system call failed.
    #[error(
        "counters: {call} failed: {}; the worker needs to read and write the file, and 128 KiB of space",
        std::io::Error::from_raw_os_error(*errno)
    )]
    Failed {
        /// Its name.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
    /// It is not a regular file, or has another owner.
    #[error(
        "counters: expected a regular file of root, of this user or of the directory's owner; remove what is there"
    )]
    Stranger,
    /// Others could replace the directory, or what is in it.
    #[error("counters: the directory, or one above it, {0}")]
    Directory(Why),
    /// Its header is not that of this release.
    #[error("counters: {0}; the daemon replaces it when it starts")]
    Head(HeaderError),
    /// There are more handles than slots.
    #[error("counters: all {slots} slots are taken by other handles")]
    NoSlot {
        /// Slots of the file.
        slots: u32,
    },
    /// The slot belongs to the parent of this process.
    #[error(
        "counters: this process was forked from the one that counts; it counts from its next maintenance on"
    )]
    Forked,
    /// The path cannot be passed to the system.
    #[error("counters: the directory's name contains a NUL byte")]
    Path,
}

/// Counts for one handle, if it has a slot.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    /// The file and its directory; `None` if they contain a NUL byte.
    paths: Option<(CString, CString)>,
    slot: Result<OwnedSlot, MetricsError>,
    metrics: RequestMetrics,
    /// Index of the slot to try next, once all were found taken.
    next: u32,
}

/// The slot of this handle.
#[derive(Debug)]
struct OwnedSlot {
    /// Token of the process that took it.
    token: u64,
    file: FileInfo,
    /// Where it ends in the file.
    end: u64,
    map: Map,
    /// Holds the lock. Never mapped; closed in a child of a fork.
    _lock: PrivateFd,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> MetricsError {
    move |errno| match errno {
        libc::ENOENT | libc::ENOTDIR => MetricsError::NoFile,
        // `open` fails with ELOOP on a link that it does not follow.
        libc::ELOOP | libc::EISDIR | libc::ENXIO => MetricsError::Stranger,
        errno => MetricsError::Failed { call, errno },
    }
}

impl WorkerMetrics {
    /// Takes a slot of the directory's file. Never fails; see [`Self::error`].
    pub(crate) fn open(directory: &Path) -> Self {
        let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
        let paths = c_path(&directory.join(METRICS)).zip(c_path(directory));
        // So that `maintain` need not allocate.
        fork::make_room();
        let mut worker =
            Self { paths, slot: Err(MetricsError::NoFile), metrics: RequestMetrics::new(), next: 0 };
        worker.take();
        worker
    }

    /// Why nothing is counted.
    pub(crate) fn error(&self) -> Option<MetricsError> {
        match &self.slot {
            Ok(slot) if !slot.is_ours() => Some(MetricsError::Forked),
            Ok(_) => None,
            Err(error) => Some(*error),
        }
    }

    /// Takes a slot if the handle has none, the file was replaced or shortened, or this process was forked from the slot's
    /// owner. Does not allocate.
    pub(crate) fn maintain(&mut self) {
        if let (Ok(slot), Some((path, _))) = (&self.slot, &self.paths)
            && slot.is_ours()
            && file::lstat(path).is_ok_and(|info| info.same_file(&slot.file) && info.size >= slot.end)
        {
            return;
        }
        self.take();
    }

    fn take(&mut self) {
        self.metrics.unbind();
        // Releases the old slot first, so that it can be taken again.
        self.slot = Err(MetricsError::NoFile);
        let Some((path, directory)) = &self.paths else {
            self.slot = Err(MetricsError::Path);
            return;
        };
        self.slot = OwnedSlot::take(path, directory, &mut self.next);
    }

    #[inline]
    fn slot(&mut self) -> Option<(Slot<'_>, &mut RequestMetrics)> {
        let Ok(slot) = &self.slot else { return None };
        if !slot.is_ours() {
            return None;
        }
        let slot = slot.map.get_slice(0, SLOT_WORDS).and_then(Slot::new)?;
        Some((slot, &mut self.metrics))
    }

    /// Does in advance what the next count would have to do after a publication.
    pub(crate) fn bind(&mut self, scorer: &Scorer) {
        if let Some((slot, metrics)) = self.slot() {
            metrics.bind(slot, scorer);
        }
    }

    /// Counts the statuses of dimensions.
    #[inline]
    pub(crate) fn count_lookup(&mut self, scorer: &Scorer) {
        if let Some((slot, metrics)) = self.slot() {
            metrics.count_lookup(slot, scorer);
        }
    }

    /// Counts an answer.
    #[inline]
    pub(crate) fn count_score(&mut self, scorer: &Scorer, answer: &Answer) {
        if let Some((slot, metrics)) = self.slot() {
            metrics.count_score(slot, scorer, answer);
        }
    }
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        fork::release_room();
    }
}

impl OwnedSlot {
    fn take(path: &CString, folder: &CString, next: &mut u32) -> Result<Self, MetricsError> {
        fork::init().map_err(failed("pthread_atfork"))?;
        let token = fork::token();
        let trusted = [0, file::effective_user()];
        let parent = directory::check(folder, Rules { trusted: &trusted, own: false, private: true })
            .map_err(|Fault { why, .. }| match why {
                Why::System(libc::ENOENT) => MetricsError::NoFile,
                why => MetricsError::Directory(why),
            })?;
        let mapped = file::open(path, Access::ReadWrite).map_err(failed("open"))?;
        let file = file::fstat(&mapped).map_err(failed("fstat"))?;
        if !file.is_regular() || ![0, file::effective_user(), parent.owner].contains(&file.owner) {
            return Err(MetricsError::Stranger);
        }
        let header = file::read_head::<HEADER_BYTES>(&mapped).map_err(failed("read"))?;
        let slots = check_header(&header, file.size).map_err(MetricsError::Head)?;
        // A description of its own, since a mapping would keep it open, and the lock with it.
        let lock = PrivateFd::open(path, Access::ReadWrite).map_err(failed("open"))?;
        if !lock.info().map_err(failed("fstat"))?.same_file(&file) {
            return Err(MetricsError::NoFile);
        }
        let tries = if *next == 0 { slots } else { SLOTS_PER_RETRY.min(slots) };
        for index in (0..tries).map(|i| next.wrapping_add(i) % slots) {
            if !lock.try_lock(Lock::Exclusive, slot_offset(index)).map_err(failed("lock"))? {
                continue;
            }
            file::reserve_within(&mapped, slot_offset(index), SLOT_BYTES as u64)
                .map_err(failed("fallocate"))?;
            let map =
                Map::part(&mapped, slot_offset(index), SLOT_BYTES as u64, true).map_err(failed("mmap"))?;
            *next = 0;
            return Ok(Self { token, file, end: slot_offset(index + 1), map, _lock: lock });
        }
        // Never 0, which would make the next attempt try all slots.
        *next = (next.wrapping_add(tries) % slots).max(1);
        Err(MetricsError::NoSlot { slots })
    }

    /// Whether this process took it, not a parent before a fork.
    #[inline]
    fn is_ours(&self) -> bool {
        fork::peek() == self.token
    }
}
