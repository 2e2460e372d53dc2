//! The daemon's side: creates the file and reads all slots.
//!
//! Slots are read by system calls, never through a mapping: a worker that shortens the file would kill whoever looks at one.
//!
//! # Orderings
//!
//! The words of a slot that was read are atomics, as [`Slot`] asks for, and private: they are stored and loaded relaxed.
//! Nothing orders them with what workers store while the kernel copies. If it copies in pieces smaller than a word, a count that
//! changes meanwhile may be read half changed: that is wrong in one reading of the metrics, and nothing else depends on it.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bliss_core::metrics::{SLOT_BYTES, SLOT_WORDS, Slot};

use bliss_os::Errno;
use bliss_os::file::{self, Access, FileInfo};

use super::{
    DEFAULT_SLOTS, HEADER_BYTES, HeaderError, METRICS, check_header, file_bytes, header, slot_offset,
};
use crate::PublishOptions;

/// Why workers' metrics cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: workers' metrics cannot be kept: {step} failed: {error}", path.display())]
pub struct MetricsFileError {
    path: PathBuf,
    step: &'static str,
    error: io::Error,
}

/// The file in which workers count, for the daemon. Opened beside the directory's [`Publisher`](crate::Publisher), whose
/// lock ensures that there is one at a time.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    name: CString,
    mode: u32,
    group: Option<u32>,
    open: Open,
    refused_permissions: Option<MetricsFileError>,
    copy: SlotCopy,
}

/// The open file.
#[derive(Debug)]
struct Open {
    file: OwnedFd,
    info: FileInfo,
    /// Slots, by the header when it was checked.
    slots: u32,
}

/// The slot that was read last.
struct SlotCopy {
    bytes: Box<[u8]>,
    words: Box<[AtomicU64]>,
}

impl fmt::Debug for SlotCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotCopy").finish_non_exhaustive()
    }
}

impl SlotCopy {
    fn new() -> Self {
        let words = (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { bytes: vec![0; SLOT_BYTES].into(), words }
    }

    /// Reads slot `index`; zeros where the file is shorter.
    fn read(&mut self, file: &OwnedFd, index: u32) -> Result<Option<Slot<'_>>, Errno> {
        file::read_at(file, &mut self.bytes, slot_offset(index))?;
        let (read, _) = self.bytes.as_chunks::<8>();
        self.words.iter().zip(read).for_each(|(word, bytes)| word.store(u64::from_ne_bytes(*bytes), Relaxed));
        Ok(Slot::new(&self.words))
    }
}

impl MetricsFile {
    /// Opens the file of `directory`, or replaces it if it is missing or unusable. A replaced file is never truncated: workers
    /// that map it keep it until their next maintenance. It gets the mode and group of the readers' file (`*_readers`), an
    /// existing one too: see [`refused_permissions`](Self::refused_permissions).
    ///
    /// # Errors
    /// It cannot be created or read.
    pub fn open(directory: &Path, options: &PublishOptions) -> Result<Self, MetricsFileError> {
        let path = directory.join(METRICS);
        let fail = |step, error| MetricsFileError { path: path.clone(), step, error };
        let name =
            CString::new(path.as_os_str().as_bytes()).map_err(|e| fail("converting the path", e.into()))?;
        let (mode, group) = (options.readers_mode, options.group);
        let open = find_or_create(&path, &name, mode, group).map_err(|(step, error)| fail(step, error))?;
        let refused = open.correct_permissions(mode, group).err();
        let refused_permissions = refused.map(|(step, error)| fail(step, error));
        Ok(Self { path, name, mode, group, open, refused_permissions, copy: SlotCopy::new() })
    }

    /// Why the file that was found could not be given the mode and group of the options; it is used as it is.
    pub fn refused_permissions(&self) -> Option<&MetricsFileError> {
        self.refused_permissions.as_ref()
    }

    /// Replaces the file if it was removed, replaced or damaged meanwhile; counts then start at 0. Returns whether it had to.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn keep_in_place(&mut self) -> Result<bool, MetricsFileError> {
        if self.open.is_current(&self.name) {
            return Ok(false);
        }
        self.open = find_or_create(&self.path, &self.name, self.mode, self.group)
            .map_err(|(step, error)| MetricsFileError { path: self.path.clone(), step, error })?;
        Ok(true)
    }

    /// Calls `each` with a copy of every slot that was ever used. If the file was removed, replaced or damaged meanwhile, it
    /// is replaced first, and counts start at 0.
    ///
    /// # Errors
    /// It cannot be created or read.
    pub fn slots(&mut self, mut each: impl FnMut(Slot<'_>)) -> Result<(), MetricsFileError> {
        self.numbered_slots(|_, slot| each(slot))
    }

    /// The same, with the number of each slot.
    ///
    /// # Errors
    /// As [`Self::slots`].
    pub fn numbered_slots(&mut self, mut each: impl FnMut(u32, Slot<'_>)) -> Result<(), MetricsFileError> {
        self.keep_in_place()?;
        let Self { path, open: Open { file, slots, .. }, copy, .. } = self;
        let fail = |step, errno| {
            let error = io::Error::from_raw_os_error(errno);
            MetricsFileError { path: path.clone(), step, error }
        };
        let mut index = 0;
        while index < *slots {
            // Slots that were never taken are holes.
            let data = file::next_data(&*file, slot_offset(index))
                .map_err(|errno| fail("searching for slots", errno))?;
            let Some(data) = data else { break };
            // The header takes the room of one slot.
            let block = data / SLOT_BYTES as u64;
            index = u32::try_from(block.saturating_sub(1)).unwrap_or(u32::MAX).max(index);
            if index >= *slots {
                break;
            }
            let slot = copy.read(file, index).map_err(|errno| fail("reading a slot", errno))?;
            slot.into_iter().for_each(|slot| each(index, slot));
            index += 1;
        }
        Ok(())
    }
}

impl Open {
    /// The group first: while the file has the wrong one, its mode is not widened for it.
    fn correct_permissions(&self, mode: u32, group: Option<u32>) -> Result<(), Failure> {
        let os = io::Error::from_raw_os_error;
        let found = self.info.group;
        let given = match group {
            Some(group) if group != found => file::fchown_group(&self.file, group).map_err(|errno| {
                let message = format!(
                    "from group {found} to {group}: {}; make the daemon's user a member of that group and restart it, or \
                     name another group",
                    os(errno)
                );
                ("changing the group", io::Error::new(os(errno).kind(), message))
            }),
            _ => Ok(()),
        };
        let before = self.info.mode & 0o777;
        let mode = if given.is_ok() { mode } else { mode & before };
        if mode != before {
            file::fchmod(&self.file, mode).map_err(|errno| ("changing the mode", os(errno)))?;
        }
        given
    }

    /// Whether this file still has this name, and is unchanged but for its slots.
    fn is_current(&self, name: &CString) -> bool {
        let has_name = file::lstat(name).is_ok_and(|info| info.same_file(&self.info));
        let has_size = file::fstat(&self.file).is_ok_and(|info| info.size == self.info.size);
        let has_slots = |header| check_header(&header, self.info.size) == Ok(self.slots);
        has_name && has_size && file::read_head::<HEADER_BYTES>(&self.file).is_ok_and(has_slots)
    }
}

type Failure = (&'static str, io::Error);

fn find_or_create(path: &Path, name: &CString, mode: u32, group: Option<u32>) -> Result<Open, Failure> {
    if let Ok(Ok(open)) = find(name) {
        return Ok(open);
    }
    create(path, mode, group)?;
    match find(name) {
        Ok(Ok(open)) => Ok(open),
        Ok(Err(bad)) => Err(("checking the new file", io::Error::other(bad))),
        Err(error) => Err(("opening the new file", error)),
    }
}

fn find(name: &CString) -> io::Result<Result<Open, HeaderError>> {
    let os = io::Error::from_raw_os_error;
    let fd = file::open(name, Access::ReadWrite).map_err(os)?;
    let info = file::fstat(&fd).map_err(os)?;
    if !info.is_regular() || ![0, file::effective_user()].contains(&info.owner) {
        return Ok(Err(HeaderError::Magic));
    }
    let header = file::read_head::<HEADER_BYTES>(&fd).map_err(os)?;
    let slots = match check_header(&header, info.size) {
        // Somebody else made it longer, and reading it would cost as much more.
        Ok(slots) if slots > DEFAULT_SLOTS => {
            let slot_bytes = u32::try_from(SLOT_BYTES).unwrap_or(u32::MAX);
            return Ok(Err(HeaderError::Size { bytes: info.size, slots, slot_bytes }));
        }
        Ok(slots) => slots,
        Err(bad) => return Ok(Err(bad)),
    };
    Ok(Ok(Open { file: fd, info, slots }))
}

/// Creates the file beside `path` and renames it, so that nobody finds half of one.
fn create(path: &Path, mode: u32, group: Option<u32>) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    let during = |step: &'static str| move |error| (step, error);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(("removing counters.new", error));
        }
        _ => {}
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(during("creating counters.new"))?;
    file.set_len(file_bytes(DEFAULT_SLOTS)).map_err(during("sizing counters.new"))?;
    file.write_all(&header(DEFAULT_SLOTS)).map_err(during("writing counters.new"))?;
    if group.is_some() {
        fchown(&file, None, group).map_err(during("changing the group of counters.new"))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(during("changing the mode of counters.new"))?;
    // Replaces whatever has the name, except a folder, which must be removed by hand.
    fs::rename(&fresh, path).map_err(during("renaming counters.new"))
}
