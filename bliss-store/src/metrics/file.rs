//! The daemon's side: making the file and reading all slots.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use bliss_core::metrics::{SLOT_BYTES, SLOT_WORDS, Slot};

use bliss_os::file::{self, Access, FileInfo};
use bliss_os::map::Map;

use super::{DEFAULT_SLOTS, HEADER_BYTES, HeaderError, METRICS, check_head, file_bytes, head, slot_offset};
use crate::PublishOptions;

/// Why there is no file of counters.
#[derive(Debug, thiserror::Error)]
#[error("{}: workers' counters cannot be kept: {what} failed: {error}", path.display())]
pub struct MetricsFileError {
    path: PathBuf,
    what: &'static str,
    error: io::Error,
}

/// The file in which workers count, for the daemon. Opened next to a [`Publisher`](crate::Publisher) of the directory, so
/// that there is one at a time.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    name: CString,
    mode: u32,
    group: Option<u32>,
    open: Open,
}

/// The file as it was found or made.
#[derive(Debug)]
struct Open {
    file: OwnedFd,
    info: FileInfo,
    /// What the head said when it was checked.
    slots: u32,
    map: Map,
}

impl MetricsFile {
    /// Goes on with the file of `directory`, or makes it anew where there is none or it cannot be used. The old one is
    /// never truncated: whoever has it mapped keeps it, and moves over at its next maintenance. Permissions and group are
    /// those of the file in which readers announce themselves; of a file that is there, they stay.
    ///
    /// # Errors
    /// Where it cannot be made or mapped.
    pub fn open(directory: &Path, options: &PublishOptions) -> Result<Self, MetricsFileError> {
        let path = directory.join(METRICS);
        let fail = |what, error| MetricsFileError { path: path.clone(), what, error };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| fail("naming it", e.into()))?;
        let (mode, group) = (options.readers_mode, options.group);
        let open = find_or_make(&path, &name, mode, group).map_err(|(what, error)| fail(what, error))?;
        Ok(Self { path, name, mode, group, open })
    }

    /// Gives each slot that was ever used to `each`. If the file was removed, replaced or damaged meanwhile, it is made
    /// anew first, and counts begin at 0.
    ///
    /// # Errors
    /// Where it cannot be made or read.
    pub fn slots(&mut self, mut each: impl FnMut(Slot<'_>)) -> Result<(), MetricsFileError> {
        let fail = |what, error| MetricsFileError { path: self.path.clone(), what, error };
        if !self.open.is_still(&self.name) {
            self.open = find_or_make(&self.path, &self.name, self.mode, self.group)
                .map_err(|(what, error)| fail(what, error))?;
        }
        let Open { file, map, slots, .. } = &self.open;
        let mut index = 0;
        while index < *slots {
            // Slots that nobody had are holes, which reading through a mapping would fill.
            let data = file::next_data(file, slot_offset(index))
                .map_err(|errno| fail("looking for slots", io::Error::from_raw_os_error(errno)))?;
            let Some(data) = data else { break };
            let at = data / SLOT_BYTES as u64;
            index = u32::try_from(at.saturating_sub(1)).unwrap_or(u32::MAX).max(index);
            if index >= *slots {
                break;
            }
            if let Some(slot) = map.get_slice(slot_offset(index), SLOT_WORDS).and_then(Slot::new) {
                each(slot);
            }
            index += 1;
        }
        Ok(())
    }
}

impl Open {
    /// Whether it is the file under this name, and as it was.
    fn is_still(&self, name: &CString) -> bool {
        let there = file::lstat(name).is_ok_and(|there| there.same_file(&self.info));
        let whole = file::fstat(&self.file).is_ok_and(|info| info.size == self.info.size);
        let good = |head| check_head(&head, self.info.size) == Ok(self.slots);
        there && whole && file::read_head::<HEADER_BYTES>(&self.file).is_ok_and(good)
    }
}

type Failure = (&'static str, io::Error);

fn find_or_make(path: &Path, name: &CString, mode: u32, group: Option<u32>) -> Result<Open, Failure> {
    if let Ok(Ok(open)) = find(name) {
        return Ok(open);
    }
    make(path, mode, group)?;
    match find(name) {
        Ok(Ok(open)) => Ok(open),
        Ok(Err(bad)) => Err(("checking what was made", io::Error::other(bad))),
        Err(error) => Err(("opening what was made", error)),
    }
}

fn find(name: &CString) -> io::Result<Result<Open, HeaderError>> {
    let os = io::Error::from_raw_os_error;
    let fd = file::open(name, Access::ReadWrite).map_err(os)?;
    let info = file::fstat(&fd).map_err(os)?;
    if !info.is_regular() || ![0, file::effective_user()].contains(&info.owner) {
        return Ok(Err(HeaderError::Magic));
    }
    let head = file::read_head::<HEADER_BYTES>(&fd).map_err(os)?;
    let slots = match check_head(&head, info.size) {
        Ok(slots) => slots,
        Err(bad) => return Ok(Err(bad)),
    };
    let map = Map::new(&fd, info.size, false).map_err(os)?;
    Ok(Ok(Open { file: fd, info, slots, map }))
}

/// Makes a file beside it and gives it the name, so that nobody finds half of one.
fn make(path: &Path, mode: u32, group: Option<u32>) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    let at = |what: &'static str| move |error| (what, error);
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
        .map_err(at("making counters.new"))?;
    file.set_len(file_bytes(DEFAULT_SLOTS)).map_err(at("sizing counters.new"))?;
    file.write_all(&head(DEFAULT_SLOTS)).map_err(at("writing counters.new"))?;
    if group.is_some() {
        fchown(&file, None, group).map_err(at("changing the group of counters.new"))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(at("changing the mode of counters.new"))?;
    // In place of anything that has the name; of a folder, only if it is removed by hand.
    fs::rename(&fresh, path).map_err(at("renaming counters.new"))
}
