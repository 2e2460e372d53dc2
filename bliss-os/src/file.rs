//! Opening, inspecting, naming and reserving files.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{self, FallocateFlags, Gid, Mode, OFlags, SeekFrom};
use rustix::io::retry_on_intr;

use crate::{Errno, Result, errno, offset};

/// Times that a reservation is started again after a signal interrupts it.
const INTERRUPTIONS: u32 = 100;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    ReadWrite,
    /// For reading and writing; created with this mode if it does not exist.
    Create(u32),
    /// For reading and writing; created with this mode, and an error if it exists.
    CreateNew(u32),
}

/// Opens without following a link in the last component; other programs do not inherit the descriptor.
pub fn open(path: &CStr, access: Access) -> Result<OwnedFd> {
    let (flags, mode) = match access {
        Access::Read => (OFlags::RDONLY, 0),
        Access::ReadWrite => (OFlags::RDWR, 0),
        Access::Create(mode) => (OFlags::RDWR | OFlags::CREATE, mode),
        Access::CreateNew(mode) => (OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode),
    };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    retry_on_intr(|| fs::open(path, flags, Mode::from_raw_mode(mode))).map_err(errno)
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    device: u64,
    inode: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that it occupies; fewer than its size if it has holes.
    pub allocated: u64,
    /// The user that owns it.
    pub owner: u32,
    /// The group that it belongs to.
    pub group: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Names that it has.
    pub links: u64,
}

impl FileInfo {
    /// Whether both are of one file.
    pub fn same_file(&self, other: &FileInfo) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    #[allow(clippy::useless_conversion, reason = "the number of links has 32 bits on other architectures")]
    fn new(stat: &fs::Stat) -> FileInfo {
        FileInfo {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            owner: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode,
            links: u64::from(stat.st_nlink),
        }
    }
}

/// Of an open file.
pub fn fstat(fd: impl AsFd) -> Result<FileInfo> {
    fs::fstat(fd).map(|stat| FileInfo::new(&stat)).map_err(errno)
}

/// Of the path itself: a link is not followed.
pub fn lstat(path: &CStr) -> Result<FileInfo> {
    fs::lstat(path).map(|stat| FileInfo::new(&stat)).map_err(errno)
}

/// Of what the path leads to.
pub fn stat(path: &CStr) -> Result<FileInfo> {
    fs::stat(path).map(|stat| FileInfo::new(&stat)).map_err(errno)
}

/// Whether the file system keeps its files in memory, where a full control group kills instead of refusing.
pub fn is_in_memory(fd: impl AsFd) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const HUGETLBFS: u64 = 0x9584_58f6;
    fs::fstatfs(fd).is_ok_and(|info| {
        u64::try_from(info.f_type).is_ok_and(|kind| [TMPFS, RAMFS, HUGETLBFS].contains(&kind))
    })
}

/// Sets the permissions.
pub fn fchmod(fd: impl AsFd, mode: u32) -> Result<()> {
    fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(errno)
}

/// Sets the group.
pub fn fchown_group(fd: impl AsFd, group: u32) -> Result<()> {
    if group == u32::MAX {
        // The system's number for "as it is".
        return Ok(());
    }
    fs::fchown(fd, None, Some(Gid::from_raw(group))).map_err(errno)
}

/// The user that permissions are judged by.
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Renames a file, in place of one that has the new name.
pub fn rename(from: &CStr, to: &CStr) -> Result<()> {
    fs::rename(from, to).map_err(errno)
}

/// Adds a name.
pub fn link(from: &CStr, to: &CStr) -> Result<()> {
    fs::link(from, to).map_err(errno)
}

/// Removes a name. One that does not exist is fine.
pub fn unlink(path: &CStr) -> Result<()> {
    match fs::unlink(path).map_err(errno) {
        Err(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Reserves room for a range, and extends the file if need be. Contents stay. Where the file system cannot reserve, the C
/// library writes into each page, so nothing else may write the file at the same time.
pub fn reserve(fd: impl AsFd, from: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let (from, len) = (offset(from)?, offset(len)?);
    repeat(|| {
        // SAFETY:
        // - no memory is passed, and the descriptor is open: it is borrowed.
        match unsafe { libc::posix_fallocate(fd.as_fd().as_raw_fd(), from, len) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    })
}

/// Like [`reserve`], in a file that others write at the same time: where the file system cannot reserve, this is an error.
pub fn extend(fd: impl AsFd, from: u64, len: u64) -> Result<()> {
    allocate(fd, FallocateFlags::empty(), from, len)
}

/// Like [`extend`], but the length of the file stays.
pub fn reserve_within(fd: impl AsFd, from: u64, len: u64) -> Result<()> {
    allocate(fd, FallocateFlags::KEEP_SIZE, from, len)
}

/// Releases the memory of a range. The size of the file stays, and the range reads as zeros.
pub fn punch(fd: impl AsFd, from: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fs::fallocate(fd, flags, from, len).map_err(errno)
}

fn allocate(fd: impl AsFd, flags: FallocateFlags, from: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    repeat(|| fs::fallocate(&fd, flags, from, len).map_err(errno))
}

/// Repeats a reservation that signals interrupt, but not for ever.
fn repeat(mut call: impl FnMut() -> std::result::Result<(), Errno>) -> Result<()> {
    for _ in 0..INTERRUPTIONS {
        match call() {
            Err(libc::EINTR) => continue,
            other => return other,
        }
    }
    Err(libc::EINTR)
}

/// Reads the first bytes of a file; zeros where it has fewer.
pub fn read_head<const N: usize>(fd: impl AsFd) -> Result<[u8; N]> {
    let mut head = [0; N];
    read_at(fd, &mut head, 0)?;
    Ok(head)
}

/// Fills `bytes` with those of the file from `from` on. Where the file ends before, the rest is zeros.
pub fn read_at(fd: impl AsFd, bytes: &mut [u8], from: u64) -> Result<()> {
    let (mut rest, mut from) = (bytes, from);
    while !rest.is_empty() {
        let read = retry_on_intr(|| rustix::io::pread(&fd, &mut *rest, from)).map_err(errno)?;
        if read == 0 {
            break;
        }
        rest = rest.get_mut(read..).unwrap_or_default();
        from = from.saturating_add(read as u64);
    }
    rest.fill(0);
    Ok(())
}

/// Cuts a file off, or makes it longer by a hole.
pub fn set_size(fd: impl AsFd, size: u64) -> Result<()> {
    fs::ftruncate(fd, size).map_err(errno)
}

/// The first byte at or after `from` that is in a hole; the size of the file if there is none, or where the file system does
/// not tell.
pub fn next_hole(fd: impl AsFd, from: u64) -> Result<u64> {
    fs::seek(fd, SeekFrom::Hole(from)).map_err(errno)
}

/// The first byte at or after `from` that is not in a hole; `None` if there is none.
pub fn next_data(fd: impl AsFd, from: u64) -> Result<Option<u64>> {
    match fs::seek(fd, SeekFrom::Data(from)).map_err(errno) {
        Ok(at) => Ok(Some(at)),
        Err(libc::ENXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}
