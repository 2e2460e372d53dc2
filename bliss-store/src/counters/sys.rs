//! The system calls, each behind a safe function that neither allocates nor panics.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// `errno` of a failed call.
pub(super) type Errno = i32;

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Repeats a call that signals interrupt.
fn retry(mut call: impl FnMut() -> libc::c_int) -> Result<libc::c_int, Errno> {
    loop {
        match call() {
            -1 if last_errno() == libc::EINTR => continue,
            -1 => return Err(last_errno()),
            done => return Ok(done),
        }
    }
}

/// Opens for reading and writing, without following a link and without being inherited by other programs.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY:
    // - `path` is NUL-terminated: it is a `CStr`
    let fd = retry(|| unsafe { libc::open(path.as_ptr(), flags) })?;
    // SAFETY:
    // - `fd` was just opened and nobody else knows it
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    device: u64,
    inode: u64,
    pub(super) bytes: u64,
    pub(super) owner: u32,
    pub(super) is_regular: bool,
}

impl Info {
    fn new(stat: &libc::stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            owner: stat.st_uid,
            is_regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        }
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

fn zeroed_stat() -> libc::stat {
    // SAFETY:
    // - a plain C struct of integers; all zeroes is a value of it
    unsafe { std::mem::zeroed() }
}

/// Of an open file.
pub(super) fn info(file: &OwnedFd) -> Result<Info, Errno> {
    let mut stat = zeroed_stat();
    // SAFETY:
    // - `stat` is writable and of the type that the call fills in
    check(unsafe { libc::fstat(file.as_raw_fd(), &mut stat) })?;
    Ok(Info::new(&stat))
}

/// Of a path; a link is not followed.
pub(super) fn info_at(path: &CStr) -> Result<Info, Errno> {
    let mut stat = zeroed_stat();
    // SAFETY:
    // - `path` is NUL-terminated; `stat` is writable and of the type that the call fills in
    check(unsafe { libc::lstat(path.as_ptr(), &mut stat) })?;
    Ok(Info::new(&stat))
}

/// Of what a path leads to.
pub(super) fn info_behind(path: &CStr) -> Result<Info, Errno> {
    let mut stat = zeroed_stat();
    // SAFETY:
    // - as for `info_at`
    check(unsafe { libc::stat(path.as_ptr(), &mut stat) })?;
    Ok(Info::new(&stat))
}

pub(super) fn effective_user() -> u32 {
    // SAFETY: no memory is passed; the call cannot fail.
    unsafe { libc::geteuid() }
}

/// Reads the first bytes of a file; zeros where it has fewer.
pub(super) fn read_head<const N: usize>(file: &OwnedFd) -> Result<[u8; N], Errno> {
    let mut head = [0; N];
    // SAFETY:
    // - `head` is writable for the length passed
    let read = unsafe { libc::pread(file.as_raw_fd(), head.as_mut_ptr().cast(), N, 0) };
    if read < 0 { Err(last_errno()) } else { Ok(head) }
}

/// Locks one byte for the open file description behind `file`, alone; never waits. `Ok(false)`: somebody else has it.
pub(super) fn try_lock(file: &OwnedFd, byte: u64) -> Result<bool, Errno> {
    // SAFETY:
    // - a plain C struct of integers; all zeroes is a value of it, and `l_pid` must be zero
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_WRLCK as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    request.l_start = libc::off_t::try_from(byte).map_err(|_| libc::EFBIG)?;
    request.l_len = 1;
    // SAFETY:
    // - `request` is the `flock` that the call reads, and lives until it returns
    match retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) }) {
        Ok(_) => Ok(true),
        Err(libc::EAGAIN | libc::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Gives back all locks of the open file description behind `file`, also those that a child shares.
pub(super) fn unlock(file: &OwnedFd) {
    // SAFETY:
    // - as in `try_lock`
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_UNLCK as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY:
    // - as in `try_lock`
    let _ = retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) });
}

/// Reserves room for a range inside of the file. What is there stays.
pub(super) fn reserve(file: &OwnedFd, from: u64, bytes: usize) -> Result<(), Errno> {
    let from = libc::off_t::try_from(from).map_err(|_| libc::EFBIG)?;
    let bytes = libc::off_t::try_from(bytes).map_err(|_| libc::EFBIG)?;
    // SAFETY: no memory is passed.
    retry(|| unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) })?;
    Ok(())
}

/// A shared mapping of a range of a file.
#[derive(Debug)]
pub(super) struct Map {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY:
// - a mapping belongs to the process, not to a thread, and only atomics are handed out
unsafe impl Send for Map {}

impl Map {
    /// Maps a range, for writing too or only for reading. A child of a fork does not get it.
    pub(super) fn new(file: &OwnedFd, from: u64, bytes: usize, is_writable: bool) -> Result<Self, Errno> {
        let from = libc::off_t::try_from(from).map_err(|_| libc::EFBIG)?;
        let protection = if is_writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY:
        // - no address is asked for, so no existing mapping is replaced
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), from)
        };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let map = Self { start: NonNull::new(start.cast()).ok_or(libc::ENOMEM)?, bytes };
        // SAFETY:
        // - the range is the mapping just made; the advice changes nothing of what is in it
        check(unsafe { libc::madvise(start, bytes, libc::MADV_DONTFORK) })?;
        Ok(map)
    }

    /// Words of the mapping, from byte `from`, if it has them and they are aligned. Not to be looked at in a child.
    pub(super) fn words(&self, from: usize, count: usize) -> Option<&[AtomicU64]> {
        let end = count.checked_mul(8)?.checked_add(from)?;
        if end > self.bytes || !from.is_multiple_of(8) {
            return None;
        }
        // SAFETY:
        // - the range lies inside the mapping and is aligned, just checked; a mapping starts at a page
        // - any bytes are atomics, and others may change them; on a mapping that is only read, nothing in this
        //   folder writes (`CountersFile`)
        // - the mapping lives as long as `self`
        Some(unsafe { std::slice::from_raw_parts(self.start.add(from).cast().as_ptr(), count) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY:
        // - the range is what `mmap` returned; nobody has a reference into it, as they borrow `self`
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Room for a word that the kernel sets to zero in a child of a fork.
pub(super) fn wiped_page() -> Result<NonNull<AtomicU64>, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY:
    // - no address is asked for, so no existing mapping is replaced
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(last_errno());
    }
    // SAFETY:
    // - the range is the mapping just made, of which nobody knows yet
    if let Err(errno) = check(unsafe { libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) }) {
        unmap_page(page.cast());
        return Err(errno);
    }
    NonNull::new(page.cast()).ok_or(libc::ENOMEM)
}

/// Gives back what [`wiped_page`] made and nobody else knows of.
pub(super) fn unmap_page(page: *mut AtomicU64) {
    // SAFETY:
    // - the range is one that `wiped_page` mapped, and nobody uses it
    unsafe { libc::munmap(page.cast(), PAGE_BYTES) };
}

/// The kernel rounds it up to whole pages.
const PAGE_BYTES: usize = 4096;

/// The first byte at or after `from` that is not in a hole; `None` where there is none.
#[cfg(feature = "publish")]
pub(super) fn next_data(file: &OwnedFd, from: u64) -> Result<Option<u64>, Errno> {
    let from = libc::off_t::try_from(from).map_err(|_| libc::EFBIG)?;
    // SAFETY: no memory is passed.
    match unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) } {
        -1 if last_errno() == libc::ENXIO => Ok(None),
        -1 => Err(last_errno()),
        at => u64::try_from(at).map(Some).map_err(|_| libc::EIO),
    }
}
