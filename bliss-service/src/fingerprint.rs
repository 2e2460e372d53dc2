//! Whether a file is still what it was when it was read last.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file changed this recently may change again without another modification time: longer than a tick of the
/// kernel's clock, or where the file system only keeps whole seconds, longer than one.
const UNSETTLED: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// What tells a file from another one, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Whether the same fingerprint later means the same content.
    settled: bool,
}

impl Fingerprint {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let unsettled = UNSETTLED[usize::from(metadata.mtime_nsec() == 0)];
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            settled: age.is_some_and(|age| age >= unsettled),
        }
    }

    /// Whether this is the content that `before` was.
    pub(crate) fn is_still(&self, before: Option<&Self>) -> bool {
        before.is_some_and(|before| before.settled && self.same_file(before))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When it was changed: seconds since the epoch, and nanoseconds.
    pub(crate) fn modified(&self) -> (i64, i64) {
        self.modified
    }

    /// Whether it is the same file with the same size and times.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        Self { settled: other.settled, ..*self } == *other
    }
}

/// Opens a regular file; anything else is an error and never a wait.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Fingerprint)> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, Fingerprint::of(&metadata)))
}
