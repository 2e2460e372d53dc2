//! One of the two data files, mapped for writing.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use super::permissions;
use bliss_os::{
    Errno, cgroup,
    file::{self, Access, FileInfo},
    map::{Advice, Map},
};

use crate::checksum::Blocks;
use crate::error::{Error, FileKind};
use crate::layout::{DataFields, DataHeader, PAGE};
use crate::options::Options;
use crate::parallel_copy::{LARGE, share};
use crate::paths::Paths;
use crate::primitive::{Ordering, fence};

/// More slack than this is given back if it is also more than …
const SLACK: u64 = 1 << 20;
/// … one part in so many of the value, so that values that vary by less do not make their pages again and again.
const KEPT: u64 = 32;

/// Smaller ranges are left to page faults.
const POPULATE: u64 = 1 << 20;

pub(super) struct DataFile {
    fd: OwnedFd,
    pub(super) info: FileInfo,
    map: Map,
    index: u64,
    /// The generation whose bytes it holds, all of them.
    pub(super) holds: Option<u64>,
    /// Size of what it holds.
    pub(super) bytes: u64,
    /// Payload bytes for which room is reserved.
    reserved: u64,
    pub(super) blocks: Blocks,
    /// It was being written, or never became current: no reader looks into it, whatever is pinned.
    pub(super) vacant: bool,
    /// Readers that this writer cannot see may look into it: it is not overwritten.
    pub(super) foreign_readers: bool,
}

pub(super) fn header(map: &Map) -> Option<&DataHeader> {
    map.get(0)
}

fn kind(index: u64) -> FileKind {
    FileKind::Data(u8::from(index & 1 == 1))
}

fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE).saturating_mul(PAGE)
}

fn map_file(fd: &OwnedFd, size: u64, index: u64, paths: &Paths, options: &Options) -> Result<Map, Error> {
    let wanted = size.max(options.max_size.saturating_add(PAGE));
    let map = Map::new(fd, wanted, true)
        .or_else(|_| Map::new(fd, size.max(PAGE), true))
        .map_err(paths.io(kind(index), "mmap"))?;
    if options.huge_pages {
        // Advice: where the file system has no huge pages nothing is lost.
        let _ = map.advise(0, map.len(), Advice::HugePage);
    }
    Ok(map)
}

/// Compares what a file in memory is to grow by with what the control group allows, which would kill instead of refusing.
fn check_memory(fd: &OwnedFd, more: u64, kind: FileKind, paths: &Paths) -> Result<(), Error> {
    if file::is_in_memory(fd) && cgroup::available().is_some_and(|room| room < more) {
        let limit = "the memory limit of the control group";
        return Err(Error::NoSpace { path: paths.path_of(kind), bytes: more, limit });
    }
    Ok(())
}

/// Reserves a range of a file.
fn reserve(fd: &OwnedFd, from: u64, len: u64, kind: FileKind, paths: &Paths) -> Result<(), Error> {
    file::reserve(fd, from, len).map_err(|errno| refused(errno, len, kind, paths))
}

/// Why room for so many bytes was refused.
fn refused(errno: Errno, bytes: u64, kind: FileKind, paths: &Paths) -> Error {
    match errno {
        libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EFBIG => {
            Error::NoSpace { path: paths.path_of(kind), bytes, limit: "the file system is full" }
        }
        errno => paths.io(kind, "fallocate")(errno),
    }
}

/// Makes a file that gets its final name later, with the mode and group of the options.
pub(super) fn create_file(
    kind: FileKind,
    mode: u32,
    size: u64,
    paths: &Paths,
    options: &Options,
) -> Result<OwnedFd, Error> {
    let name = paths.fresh()?;
    file::unlink(&name).map_err(paths.io(kind, "unlink of an unfinished file"))?;
    let fd = file::open(&name, Access::CreateNew(0o600)).map_err(paths.io(kind, "creating"))?;
    let made = (|| {
        permissions::set_group(&fd, kind, paths, options)?;
        file::fchmod(&fd, mode).map_err(paths.io(kind, "fchmod"))?;
        check_memory(&fd, size, kind, paths)?;
        reserve(&fd, 0, size, kind, paths)
    })();
    if made.is_err() {
        let _ = file::unlink(&name);
    }
    made.map(|()| fd)
}

impl DataFile {
    /// A fresh file with room for `bytes` bytes, not yet under its final name.
    pub(super) fn create(
        index: u64,
        bytes: u64,
        paths: &Paths,
        options: &Options,
    ) -> Result<DataFile, Error> {
        let fd = create_file(kind(index), options.mode, PAGE, paths, options)?;
        let made = DataFile::fill_new(fd, index, bytes, paths, options);
        if made.is_err()
            && let Ok(name) = paths.fresh()
        {
            let _ = file::unlink(&name);
        }
        made
    }

    fn fill_new(
        fd: OwnedFd,
        index: u64,
        bytes: u64,
        paths: &Paths,
        options: &Options,
    ) -> Result<DataFile, Error> {
        let map = map_file(&fd, PAGE.saturating_add(round_up(bytes)), index, paths, options)?;
        let info = file::fstat(&fd).map_err(paths.io(kind(index), "fstat"))?;
        let blocks = Blocks::default();
        let mut copy = DataFile {
            fd,
            info,
            map,
            index,
            holds: None,
            bytes: 0,
            reserved: 0,
            blocks,
            vacant: true,
            foreign_readers: false,
        };
        copy.header().store(&DataFields { index: u32::from(index & 1 == 1), ..Default::default() });
        copy.make_room(bytes, paths, options)?;
        Ok(copy)
    }

    /// A file that another writer left, of at least a page.
    pub(super) fn adopt(
        fd: OwnedFd,
        info: FileInfo,
        index: u64,
        paths: &Paths,
        options: &Options,
    ) -> Result<DataFile, Error> {
        let map = map_file(&fd, info.size, index, paths, options)?;
        let blocks = Blocks::default();
        Ok(DataFile {
            fd,
            info,
            map,
            index,
            holds: None,
            bytes: 0,
            reserved: 0,
            blocks,
            vacant: false,
            foreign_readers: false,
        })
    }

    pub(super) fn header(&self) -> &DataHeader {
        // SAFETY:
        // - every mapping is at least a page long and page-aligned (`map_file`), and so is the file (`create`, `adopt`).
        // - the header consists of atomics, for which any bytes are a value.
        unsafe { self.map.start().cast::<DataHeader>().as_ref() }
    }

    /// Whether it has this name, or with `thoroughly` unset at least some name.
    pub(super) fn has_name(&self, name: &CStr, thoroughly: bool) -> bool {
        if thoroughly {
            file::lstat(name).is_ok_and(|info| info.same_file(&self.info))
        } else {
            file::fstat(&self.fd).is_ok_and(|info| info.links > 0)
        }
    }

    /// Whether another file has this name.
    pub(super) fn is_replaced(&self, name: &CStr) -> bool {
        file::lstat(name).is_ok_and(|info| !info.same_file(&self.info))
    }

    /// The bytes that it holds.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        self.holds?;
        self.slice(self.bytes)
    }

    /// The first `bytes` payload bytes, for which room must be reserved.
    pub(super) fn slice(&self, bytes: u64) -> Option<&[u8]> {
        let len = self.len_of(bytes)?;
        // SAFETY:
        // - `PAGE..PAGE + len` lies inside the mapping (`len_of`) and inside what is reserved (`make_room`, `create`, or
        //   checked at adoption).
        // - only this writer writes the file: it holds the lock, and the file's mode keeps others out. It writes through
        //   `slice_mut`, which borrows the copy mutably.
        Some(unsafe { std::slice::from_raw_parts(self.map.start().as_ptr().add(PAGE as usize), len) })
    }

    /// The same, to be changed. The copy must hold nothing that readers may look into.
    pub(super) fn slice_mut(&mut self, bytes: u64) -> Option<&mut [u8]> {
        let len = self.len_of(bytes)?;
        // SAFETY:
        // - as in `slice`.
        // - no reader looks into it: `Writer::standby` found the generation that it held unpinned, or made it fresh.
        Some(unsafe { std::slice::from_raw_parts_mut(self.map.start().as_ptr().add(PAGE as usize), len) })
    }

    /// The same, with the sums of its blocks.
    pub(super) fn parts_mut(&mut self, bytes: u64) -> Option<(&mut [u8], &mut Blocks)> {
        let start = NonNull::from(self.slice_mut(bytes)?);
        // SAFETY:
        // - as in `slice_mut`, which made it: both borrow the copy mutably, and the sums are not in the mapping.
        Some((unsafe { &mut *start.as_ptr() }, &mut self.blocks))
    }

    fn len_of(&self, bytes: u64) -> Option<usize> {
        (bytes.checked_add(PAGE)? <= self.map.len()).then(|| usize::try_from(bytes).ok())?
    }

    /// Reserves room for `bytes` bytes; what the copy holds stays.
    pub(super) fn make_room(&mut self, bytes: u64, paths: &Paths, options: &Options) -> Result<(), Error> {
        let (had, wanted) = (self.reserved, round_up(bytes));
        if PAGE.saturating_add(bytes) > self.map.len() {
            self.map = map_file(&self.fd, PAGE.saturating_add(wanted), self.index, paths, options)?;
        }
        if wanted > had {
            let (from, more) = (PAGE.saturating_add(had), wanted - had);
            check_memory(&self.fd, more, kind(self.index), paths)?;
            // In memory, pages are made by touching them, by several threads. It may have made some of them only, so that
            // what counts is the reservation.
            let in_memory = more >= POPULATE && file::is_in_memory(&self.fd);
            if in_memory {
                let size = file::fstat(&self.fd).map_or(u64::MAX, |info| info.size);
                let end = PAGE.saturating_add(wanted);
                if size >= end || file::set_size(&self.fd, end).is_ok() {
                    self.populate(from, more, options.threads_or_cores());
                }
            }
            if let Err(error) = reserve(&self.fd, from, more, kind(self.index), paths) {
                // What it holds may end in a page that is not counted as reserved, if the file was cut off there.
                let held = if self.holds.is_some() { round_up(self.bytes) } else { 0 };
                let given_back = had.max(held).min(wanted);
                let _ = file::punch(&self.fd, PAGE.saturating_add(given_back), wanted - given_back);
                return Err(error);
            }
            if !in_memory {
                self.populate(from, more, 1);
            }
            self.reserved = wanted;
            if self.header().generation.load(Ordering::Relaxed) == 0 {
                self.tell_reserved(wanted);
            }
        }
        Ok(())
    }

    /// Says in the first page how much is reserved, while nothing else there is of use: readers that prefault map it.
    fn tell_reserved(&self, bytes: u64) {
        self.header().reserved_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Maps the pages of a range all at once, which is cheaper than one fault per page.
    fn populate(&self, from: u64, len: u64, threads: usize) {
        const PIECE: u64 = 4 << 20;
        if len < POPULATE {
            return;
        }
        let pieces = (0..len.div_ceil(PIECE)).map(|piece| piece * PIECE);
        share(pieces, if len < LARGE as u64 { 1 } else { threads }, |piece| {
            // A kernel without it (before 5.14) takes the faults.
            let range = (from.saturating_add(piece), PIECE.min(len - piece));
            let _ = self.map.advise(range.0, range.1, Advice::PopulateWrite);
            0
        });
    }

    /// Says in the first page that the bytes are being changed.
    pub(super) fn unseal(&mut self) {
        self.header().generation.store(0, Ordering::Relaxed);
        // Nothing that is written after this may be there before it, if this process is killed in between.
        fence(Ordering::SeqCst);
        self.tell_reserved(self.reserved);
        self.holds = None;
        self.vacant = true;
    }

    /// Says in the first page which generation the bytes are.
    ///
    /// The index and what is reserved are the copy's own.
    pub(super) fn seal(&mut self, fields: DataFields) {
        let DataFields { generation, bytes, .. } = fields;
        let used = round_up(bytes);
        if self.reserved > used + SLACK && self.reserved - used > used / KEPT {
            let (from, len) = (PAGE.saturating_add(used), self.reserved - used);
            // No reader is to make the pages again that are given back here.
            self.tell_reserved(used);
            if file::punch(&self.fd, from, len).is_ok() {
                self.reserved = used;
            }
        }
        self.header().store(&DataFields {
            index: u32::from(self.index & 1 == 1),
            reserved_bytes: self.reserved,
            ..fields
        });
        self.holds = Some(generation);
        self.vacant = false;
        self.bytes = bytes;
    }

    /// Room that was reserved by an earlier writer. If the file is a copy of the one that it reserved, made without zeros,
    /// it has holes where it says room is reserved, which are filled here.
    pub(super) fn adopt_room(&mut self, bytes: u64, paths: &Paths) -> Result<(), Error> {
        if self.info.allocated >= PAGE.saturating_add(bytes) {
            self.reserved = bytes;
            return Ok(());
        }
        let missing = PAGE.saturating_add(bytes) - self.info.allocated;
        check_memory(&self.fd, missing, kind(self.index), paths)?;
        match file::extend(&self.fd, PAGE, bytes) {
            // A file system that cannot reserve.
            Ok(()) | Err(libc::EOPNOTSUPP) => {
                self.reserved = bytes;
                Ok(())
            }
            Err(errno) => Err(refused(errno, bytes, kind(self.index), paths)),
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}
