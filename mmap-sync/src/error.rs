//! What can go wrong, where, and what to do about it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

pub use bliss_os::directory::Why as DirectoryFault;

/// One of the files of a synchronizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `P_state`: which generation is current.
    State,
    /// `P_data_0` or `P_data_1`: one of the two copies.
    Data(u8),
    /// `P_readers`: the slots of the readers.
    Readers,
    /// `P_lock`: the writer's lock.
    Lock,
    /// `P_old_*`: a copy that was still pinned when it was to be overwritten.
    Old(u64),
    /// The directory of the files.
    Directory,
}

/// A file of the synchronizer with this prefix. Made, cloned and dropped without allocation.
#[derive(Clone, Debug)]
pub struct FilePath {
    pub(crate) prefix: Arc<Path>,
    pub(crate) file: FileKind,
}

impl FilePath {
    /// Which of the files it is.
    pub fn file(&self) -> FileKind {
        self.file
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix.display();
        match self.file {
            FileKind::State => write!(f, "{prefix}_state"),
            FileKind::Data(index) => write!(f, "{prefix}_data_{index}"),
            FileKind::Readers => write!(f, "{prefix}_readers"),
            FileKind::Lock => write!(f, "{prefix}_lock"),
            FileKind::Old(generation) => write!(f, "{prefix}_old_{generation}"),
            FileKind::Directory => write!(f, "the directory of {prefix}_*"),
        }
    }
}

/// The beginning of a prefix that leads to a directory.
struct DirectoryOf<'a>(&'a FilePath, usize);

impl fmt::Display for DirectoryOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DirectoryOf(path, at) = self;
        let prefix = path.prefix.as_os_str().as_bytes();
        match prefix.get(..*at).filter(|found| !found.is_empty()) {
            Some(found) => write!(f, "{}", Path::new(OsStr::from_bytes(found)).display()),
            None => f.write_str("the current directory, or one above it,"),
        }
    }
}

/// Through what a reader holds a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// A reader slot.
    Slot {
        /// Its number in `P_readers`.
        slot: u32,
        /// The process that says it owns the slot, as it sees itself; 0 if that is not known.
        pid: u32,
    },
    /// The counters that readers without a slot share.
    Counters,
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holding::Slot { slot, pid: 0 } => write!(f, "reader slot {slot}"),
            Holding::Slot { slot, pid } => write!(f, "process {pid} (reader slot {slot})"),
            Holding::Counters => f.write_str("a process without a reader slot"),
        }
    }
}

/// Errors of this crate.
///
/// Those that [`Reader::pin`](crate::Reader::pin) and [`Guard::access`](crate::Guard::access) return are made
/// without allocation.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was published under this prefix yet, or the files do not exist yet.
    #[error("nothing has been published yet; the writer must publish once")]
    NotPublished,
    /// Another process (or another `Writer` of this one) holds the writer's lock.
    #[error("{path}: another writer holds the lock; there is one writer at a time, stop the other one first")]
    Locked {
        /// The lock file.
        path: FilePath,
    },
    /// A system call failed.
    #[error("{path}: {action} failed: {}", std::io::Error::from_raw_os_error(*.errno))]
    Io {
        /// The file it was about.
        path: FilePath,
        /// What was being done.
        action: &'static str,
        /// The error number of the operating system.
        errno: i32,
    },
    /// The file is not one that this crate wrote.
    #[error(
        "{path}: not a file of mmap-sync (first bytes {found:#018x}, expected {expected:#018x}); choose another prefix, or remove it if nobody uses it"
    )]
    Foreign {
        /// The file.
        path: FilePath,
        /// The magic number of this kind of file.
        expected: u64,
        /// What stands in its place.
        found: u64,
    },
    /// The file was written by a version of this crate with another layout.
    #[error(
        "{path}: layout version {found}, this build reads and writes version {expected}; use another prefix for another layout"
    )]
    Layout {
        /// The file.
        path: FilePath,
        /// The layout version of this build.
        expected: u32,
        /// The layout version of the file.
        found: u32,
    },
    /// A field of the file contradicts the rest of it.
    #[error(
        "{path}: {what} is {found}, expected {expected}; the file was truncated or overwritten by something else: stop the writer, remove all files of this prefix, and publish again"
    )]
    Corrupt {
        /// The file.
        path: FilePath,
        /// The field.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Not a regular file: a directory, a symbolic link, a device.
    #[error("{path}: not a regular file (mode {mode:#o}); remove it or choose another prefix")]
    NotRegular {
        /// The file.
        path: FilePath,
        /// Its mode.
        mode: u32,
    },
    /// The file belongs to a user from whom it is not accepted.
    #[error(
        "{path}: owned by user {found}, expected {expected}; correct the owner, or name the right one with Options::owner"
    )]
    Owner {
        /// The file.
        path: FilePath,
        /// The user it should belong to.
        expected: u32,
        /// The user it belongs to.
        found: u32,
    },
    /// The directory of the files, or one above it, is such that others could put files of their own in it.
    #[error("{}: {why}", DirectoryOf(.path, *.at))]
    Directory {
        /// Of the directory of the files.
        path: FilePath,
        /// Which one it is: so many bytes of the prefix lead to it. 0: the current directory, or one above it.
        at: usize,
        /// What is wrong with it.
        why: DirectoryFault,
    },
    /// The file cannot be given to the group of the options, or of a directory that gives its group to its files.
    #[error(
        "{path}: cannot be given to group {expected}, it has group {found}: {}; make the user of the writer a member of that group and start it again, or name another group", std::io::Error::from_raw_os_error(*.errno)
    )]
    Group {
        /// The file.
        path: FilePath,
        /// The group it should have.
        expected: u32,
        /// The group it has.
        found: u32,
        /// The error number of the operating system.
        errno: i32,
    },
    /// The bytes do not have the checksum that was published with them.
    #[error(
        "{path}: checksum of generation {generation} is {found:#018x}, expected {expected:#018x}; it did not reach the disk whole, or was damaged: publish again"
    )]
    Checksum {
        /// The file.
        path: FilePath,
        /// The generation.
        generation: u64,
        /// The checksum that was published.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// More bytes than a copy can have.
    #[error("{bytes} bytes are too many for one copy: the limit is {limit}")]
    TooLarge {
        /// How many were asked for.
        bytes: u64,
        /// How many are possible.
        limit: u64,
    },
    /// The file system or the memory limit of the control group has no room; what was published stays.
    #[error(
        "{path}: no room for {bytes} more bytes ({limit}); the last publication stays. Make room, or raise the limit"
    )]
    NoSpace {
        /// The file.
        path: FilePath,
        /// How many bytes were to be reserved.
        bytes: u64,
        /// What refused them.
        limit: &'static str,
    },
    /// Readers hold so much that no further file is kept for them.
    #[error(
        "{path}: not overwritten, since {holder} holds what is in it, and {files} files of {bytes} bytes are kept for such \
         readers already, at most {max_files} files and {max_bytes} bytes; the last publication stays. See why that process \
         does not let go, or end it"
    )]
    Held {
        /// The copy that was to be overwritten.
        path: FilePath,
        /// Who holds it.
        holder: Holding,
        /// Files that are kept.
        files: usize,
        /// Bytes that they occupy.
        bytes: u64,
        /// How many files may be kept.
        max_files: usize,
        /// How many bytes they may occupy, that copy included.
        max_bytes: u64,
    },
    /// Guards of too many different generations are alive on one handle.
    #[error(
        "guards of {limit} different generations are alive on this handle; drop some, or use another handle"
    )]
    TooManyGuards {
        /// How many generations a handle can hold at once.
        limit: usize,
    },
    /// The files went on changing while they were being opened.
    #[error(
        "{path}: the file of the current generation could not be opened in {attempts} attempts; try again"
    )]
    Unsettled {
        /// The file.
        path: FilePath,
        /// How often it was tried.
        attempts: u32,
    },
    /// Other files took the place of these, and the handle cannot move to them while guards are alive on it.
    #[error(
        "{path}: made again while this handle looked into the files of before; drop all its guards and pin again"
    )]
    Replaced {
        /// The state.
        path: FilePath,
    },
    /// A `Writer` was used in a child process after a fork.
    #[error("this writer belongs to the parent process; open one in this process")]
    Forked,
    /// The bytes are not a valid archive of the type.
    #[error("the {bytes} bytes of generation {generation} are not a valid {type_name}")]
    Invalid {
        /// The type that was asked for.
        type_name: &'static str,
        /// The generation that was read.
        generation: u64,
        /// How many bytes it has.
        bytes: u64,
    },
    /// A value could not be serialised.
    #[error("serialising {type_name} failed: {reason}")]
    Serialize {
        /// The type of the value.
        type_name: &'static str,
        /// What the serialiser said.
        reason: String,
    },
    /// The options contradict each other or the system.
    #[error("option {option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}
