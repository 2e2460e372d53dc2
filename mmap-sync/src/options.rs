//! How a synchronizer is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::layout::MAX_SLOTS;
use crate::paths::Paths;

/// Address space reserved per copy and handle unless [`Options::max_size`] says otherwise: 16 GiB.
pub const DEFAULT_MAX_SIZE: u64 = 16 << 30;

/// Slots of a fresh `P_readers` unless [`Options::slots`] says otherwise.
pub const DEFAULT_SLOTS: u32 = 1024;

/// Options of a [`Writer`](crate::Writer) or a [`Reader`](crate::Reader).
///
/// ```
/// # fn main() -> Result<(), mmap_sync::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let options = mmap_sync::Options::new(dir.path().join("features")).max_size(1 << 30);
/// let mut writer = options.open_writer()?;
/// let reader = options.open_reader()?;
/// writer.write_bytes(b"hello")?;
/// assert_eq!(&*reader.pin()?, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) prefix: PathBuf,
    pub(crate) grace: Duration,
    pub(crate) mode: u32,
    pub(crate) readers_mode: u32,
    pub(crate) group: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) private_directory: bool,
    pub(crate) max_size: u64,
    pub(crate) slots: u32,
    pub(crate) max_slots: u32,
    pub(crate) max_retired_files: usize,
    pub(crate) max_retired_bytes: Option<u64>,
    pub(crate) survive_truncation: bool,
    pub(crate) prefault: bool,
    pub(crate) huge_pages: bool,
    pub(crate) verify: bool,
    pub(crate) membarrier: bool,
    pub(crate) threads: Option<usize>,
}

impl Options {
    /// Options with defaults for the files `prefix_state`, `prefix_data_0`, and so on.
    ///
    /// The directory must exist, and should be on a tmpfs.
    pub fn new(prefix: impl AsRef<Path>) -> Self {
        Options {
            prefix: prefix.as_ref().to_path_buf(),
            grace: Duration::ZERO,
            mode: 0o640,
            readers_mode: 0o660,
            group: None,
            owner: None,
            private_directory: false,
            max_size: DEFAULT_MAX_SIZE,
            slots: DEFAULT_SLOTS,
            max_slots: MAX_SLOTS,
            max_retired_files: 64,
            max_retired_bytes: None,
            survive_truncation: false,
            prefault: false,
            huge_pages: false,
            verify: false,
            membarrier: true,
            threads: None,
        }
    }

    /// How long the writer waits for guards on the copy that it wants to overwrite before it goes on with a fresh
    /// file. Default: not at all.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Mode of `P_state` and `P_data_*`; default 0640. Nobody but the owner should be able to write them. Files that are there
    /// when the writer is opened get it too.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Mode of `P_readers`; default 0660. Readers must be able to write it.
    pub fn readers_mode(mut self, mode: u32) -> Self {
        self.readers_mode = mode;
        self
    }

    /// Group of the files, those that are there when the writer is opened among them. Default: that of the directory if it
    /// hands its group on (set-group-ID), else files keep the group they have, and new ones get that of `P_state`.
    pub fn group(mut self, group: Option<u32>) -> Self {
        self.group = group;
        self
    }

    /// The user whose files a reader accepts. Default: root, the reader's own user, or the owner of the directory, which is
    /// checked before ([`check_directory`](Self::check_directory)).
    pub fn owner(mut self, owner: Option<u32>) -> Self {
        self.owner = owner;
        self
    }

    /// Whether a directory in which others may make files is refused even if it is sticky, as `/dev/shm` is. Default: no;
    /// in a sticky one others can take names before the writer does, which is then refused, and no more. See
    /// [`check_directory`](Self::check_directory).
    pub fn private_directory(mut self, private: bool) -> Self {
        self.private_directory = private;
        self
    }

    /// Checks the directory as [`open_writer`](Self::open_writer) does: it must belong to this user, to root, or to the
    /// [`owner`](Self::owner); it must be no link; and nobody else may be able to replace it, a directory above it, or what
    /// is in it. Readers accept a directory of any user if only root or they themselves could have given it to that user,
    /// and look at it again each time they open files.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`] with the directory that is at fault; [`Error::Option`].
    pub fn check_directory(&self) -> Result<(), Error> {
        self.check()?;
        Paths::new(&self.prefix)?.check_directory(self, true).map(drop)
    }

    /// Address space in bytes that is reserved for each copy; default 16 GiB. A copy grows up to this size without
    /// being mapped again. Larger publications are possible, at the price of a new mapping in every reader.
    /// Memory is not reserved by this.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = bytes;
        self
    }

    /// Reader slots of a fresh `P_readers`; default 1,024. Readers extend the file when they run out.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Slots beyond which a reader does not extend `P_readers` (default 65,536, which is also the most); later readers use
    /// the shared counters.
    pub fn max_slots(mut self, slots: u32) -> Self {
        self.max_slots = slots;
        self
    }

    /// Files that the writer keeps at most for readers that do not let go of them; default 64. Beyond that publications fail
    /// with [`Error::Held`], which names the holder, until one is let go of: a reader that pins a new generation each
    /// time, by mistake or on purpose, would fill the file system.
    pub fn max_retired_files(mut self, files: usize) -> Self {
        self.max_retired_files = files;
        self
    }

    /// Bytes that these files may occupy; default: four times the size of the current copy, but at least 256 MiB.
    pub fn max_retired_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_retired_bytes = bytes;
        self
    }

    /// Whether the writer lives on when a reader truncates `P_readers` while it looks at it. Default: no. If so, opening a
    /// writer sets this process's handler of `SIGBUS`, which leaves all others to the handler that there was before. For
    /// programs whose readers are not all trusted; libraries had better leave it.
    pub fn survive_truncation(mut self, survive: bool) -> Self {
        self.survive_truncation = survive;
        self
    }

    /// Whether readers map the pages of a copy before they are read, rather than by a page fault each. Default: no.
    ///
    /// A reader whose owner never calls [`Reader::maintain`](crate::Reader::maintain) maps all pages of a file in the [`Reader::pin`](crate::Reader::pin) that maps the
    /// file; pages by which it grows later are left to faults. Once its owner calls `maintain`, no pin does that work
    /// any more: each call maps at most 4 MiB of pages, first of the current copy, then of the file that is written next
    /// and will be current after the switch, including what it grows by as soon as room for it is reserved.
    /// [`Reader::unpopulated_bytes`](crate::Reader::unpopulated_bytes) says how much is left. Only a file that gets its name at the switch itself (the first
    /// two publications, and one in place of a copy that is pinned for longer than the grace period) is mapped by a pin,
    /// and its pages by the calls of `maintain` that follow.
    ///
    /// Needs Linux 5.14; before that it has no effect.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Whether to ask for huge pages where the file system has them. Default: no.
    pub fn huge_pages(mut self, huge_pages: bool) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// Whether a reader compares the checksum when it first sees a generation (some 50 ms per GB). Default: only
    /// if the generation was published before the last boot.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Threads that copy and sum publications of 8 MiB and more, the calling one among them; default: as many as there
    /// are cores, but at most four; 0 is as good as 1. The others live as long as the call.
    pub fn threads(mut self, threads: Option<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// Whether `membarrier` is used where the kernel has it. Default: yes. For tests and measurements.
    #[doc(hidden)]
    pub fn membarrier(mut self, membarrier: bool) -> Self {
        self.membarrier = membarrier;
        self
    }

    pub(crate) fn threads_or_cores(&self) -> usize {
        const MOST: usize = 4;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        self.threads.unwrap_or_else(cores)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |option, reason| Err(Error::Option { option, reason });
        if self.prefix.as_os_str().is_empty() {
            return bad("prefix", "must not be empty");
        }
        if self.slots == 0 || self.slots > self.max_slots {
            return bad("slots", "must be at least 1 and at most max_slots");
        }
        if self.max_slots > MAX_SLOTS {
            return bad("max_slots", "must be at most 65,536");
        }
        if self.max_size == 0 || self.max_size > crate::layout::MAX_BYTES {
            return bad("max_size", "must be at least 1 and at most 2^39 - 1 bytes");
        }
        Ok(())
    }
}
