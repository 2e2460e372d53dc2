//! The system calls, each behind a safe function that neither allocates nor panics.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// `errno` of a failed call.
pub(crate) type Errno = i32;
pub(crate) type Result<T> = std::result::Result<T, Errno>;

pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(result: libc::c_int) -> Result<()> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Opens without following a link in the last component, without becoming inherited by other programs.
pub(crate) fn open(path: &CStr, flags: libc::c_int, mode: u32) -> Result<OwnedFd> {
    loop {
        // SAFETY:
        // - `path` is NUL-terminated: it is a `CStr`.
        // - the mode is passed as the variadic argument of the type that `open` expects.
        let fd = unsafe {
            libc::open(
                path.as_ptr(),
                flags | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY,
                mode as libc::c_uint,
            )
        };
        if fd >= 0 {
            // SAFETY:
            // - `fd` was just opened and nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        match last_errno() {
            libc::EINTR => continue,
            errno => return Err(errno),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// Bytes that it occupies; fewer than its size if it has holes.
    pub(crate) allocated: u64,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) mode: u32,
    /// Names that it has.
    pub(crate) links: u64,
}

impl FileInfo {
    pub(crate) fn same_file(&self, other: &FileInfo) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    pub(crate) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    #[allow(clippy::useless_conversion, reason = "the number of links has 32 bits on other architectures")]
    fn from_stat(stat: &libc::stat) -> FileInfo {
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

fn zeroed_stat() -> libc::stat {
    // SAFETY:
    // - `stat` is a plain C struct of integers; all zeroes is a value of it.
    unsafe { std::mem::zeroed() }
}

pub(crate) fn fstat(fd: RawFd) -> Result<FileInfo> {
    let mut stat = zeroed_stat();
    // SAFETY:
    // - `stat` is writable and of the type that `fstat` fills in.
    check(unsafe { libc::fstat(fd, &mut stat) })?;
    Ok(FileInfo::from_stat(&stat))
}

/// Of the path itself: a link is not followed.
pub(crate) fn lstat(path: &CStr) -> Result<FileInfo> {
    let mut stat = zeroed_stat();
    // SAFETY:
    // - `path` is NUL-terminated: it is a `CStr`.
    // - `stat` is writable and of the type that `lstat` fills in.
    check(unsafe { libc::lstat(path.as_ptr(), &mut stat) })?;
    Ok(FileInfo::from_stat(&stat))
}

/// Of what the path leads to.
pub(crate) fn stat(path: &CStr) -> Result<FileInfo> {
    let mut stat = zeroed_stat();
    // SAFETY:
    // - `path` is NUL-terminated: it is a `CStr`.
    // - `stat` is writable and of the type that `stat` fills in.
    check(unsafe { libc::stat(path.as_ptr(), &mut stat) })?;
    Ok(FileInfo::from_stat(&stat))
}

/// Whether the file system keeps its files in memory, where a full control group kills instead of refusing.
pub(crate) fn is_in_memory(fd: RawFd) -> bool {
    // SAFETY:
    // - `statfs` is a plain C struct of integers; all zeroes is a value of it.
    let mut info: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY:
    // - `info` is writable and of the type that `fstatfs` fills in.
    let result = unsafe { libc::fstatfs(fd, &mut info) };
    result == 0
        && (info.f_type == libc::TMPFS_MAGIC || info.f_type == 0x8584_58f6 || info.f_type == 0x9584_58f6)
}

pub(crate) fn fchmod(fd: RawFd, mode: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchmod(fd, mode) })
}

pub(crate) fn fchown_group(fd: RawFd, group: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchown(fd, u32::MAX, group) })
}

pub(crate) fn effective_user() -> u32 {
    // SAFETY: no memory is passed; the call cannot fail.
    unsafe { libc::geteuid() }
}

pub(crate) fn rename(from: &CStr, to: &CStr) -> Result<()> {
    // SAFETY:
    // - both paths are NUL-terminated: they are `CStr`s.
    check(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) })
}

pub(crate) fn link(from: &CStr, to: &CStr) -> Result<()> {
    // SAFETY:
    // - both paths are NUL-terminated: they are `CStr`s.
    check(unsafe { libc::link(from.as_ptr(), to.as_ptr()) })
}

/// Removes a name. One that does not exist is fine.
pub(crate) fn unlink(path: &CStr) -> Result<()> {
    // SAFETY:
    // - `path` is NUL-terminated: it is a `CStr`.
    match check(unsafe { libc::unlink(path.as_ptr()) }) {
        Err(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn offset(value: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| libc::EFBIG)
}

/// Attempts at a reservation that signals interrupt: each begins anew.
const INTERRUPTIONS: u32 = 100;

/// Reserves room for a range, extending the file if need be. What is there stays.
pub(crate) fn reserve(fd: RawFd, from: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let (from, len) = (offset(from)?, offset(len)?);
    for _ in 0..INTERRUPTIONS {
        // SAFETY: no memory is passed.
        let result = unsafe { libc::posix_fallocate(fd, from, len) };
        match result {
            0 => return Ok(()),
            libc::EINTR => continue,
            errno => return Err(errno),
        }
    }
    Err(libc::EINTR)
}

/// Like [`reserve`], in a file that others write at the same time: where the file system cannot reserve, this is an
/// error, while the C library would write into each page instead.
pub(crate) fn extend(fd: RawFd, from: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let (from, len) = (offset(from)?, offset(len)?);
    for _ in 0..INTERRUPTIONS {
        // SAFETY: no memory is passed.
        match check(unsafe { libc::fallocate(fd, 0, from, len) }) {
            Err(libc::EINTR) => continue,
            other => return other,
        }
    }
    Err(libc::EINTR)
}

/// Makes a file longer; what is added is a hole.
pub(crate) fn make_longer(fd: RawFd, size: u64) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::ftruncate(fd, offset(size)?) })
}

/// Gives the pages of a range back. The size of the file stays, and what is read there is zero.
pub(crate) fn punch(fd: RawFd, from: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory is passed.
    check(unsafe { libc::fallocate(fd, flags, offset(from)?, offset(len)?) })
}

fn lock_request(kind: libc::c_int, byte: u64) -> Result<libc::flock> {
    // SAFETY:
    // - `flock` is a plain C struct of integers; all zeroes is a value of it, and `l_pid` must be zero.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::c_short::try_from(kind).map_err(|_| libc::EINVAL)?;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    request.l_start = offset(byte)?;
    request.l_len = 1;
    Ok(request)
}

/// Locks, shares or unlocks one byte for the open file description behind `fd`; never waits. `Ok(false)`: somebody
/// else has it.
pub(crate) fn try_lock(fd: RawFd, kind: libc::c_int, byte: u64) -> Result<bool> {
    let request = lock_request(kind, byte)?;
    loop {
        // SAFETY:
        // - `request` is the `flock` that `F_OFD_SETLK` reads; it lives until the call returns.
        if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &request) } == 0 {
            return Ok(true);
        }
        match last_errno() {
            libc::EAGAIN | libc::EACCES => return Ok(false),
            libc::EINTR => continue,
            errno => return Err(errno),
        }
    }
}

/// Gives back all locks of the open file description behind `fd`.
pub(crate) fn unlock_all(fd: RawFd) {
    if let Ok(mut request) = lock_request(libc::F_UNLCK, 0) {
        request.l_len = 0;
        // SAFETY:
        // - `request` is the `flock` that `F_OFD_SETLK` reads; it lives until the call returns.
        unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &request) };
    }
}

/// Whether somebody else holds a lock on the byte that would keep us from locking it.
pub(crate) fn is_locked(fd: RawFd, byte: u64) -> Result<bool> {
    let mut request = lock_request(libc::F_WRLCK, byte)?;
    // SAFETY:
    // - `request` is the `flock` that `F_OFD_GETLK` reads and writes; it lives until the call returns.
    check(unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &mut request) })?;
    Ok(libc::c_int::from(request.l_type) != libc::F_UNLCK)
}

/// A shared mapping of the start of a file.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY:
// - a mapping belongs to the process, not to a thread; what is done with the pointer is up to its users.
unsafe impl Send for Map {}

// SAFETY:
// - what can be done with a shared one is to ask for addresses, and to make system calls about them.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes from the start of the file, which may be more than the file has.
    pub(crate) fn new(fd: RawFd, len: u64, writable: bool) -> Result<Map> {
        let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY:
        // - no address is asked for, so no existing mapping is replaced.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED | libc::MAP_NORESERVE, fd, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Map { start, len }),
            None => Err(libc::ENOMEM),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Pointer to a `T` at a byte offset, if it lies inside the mapping and is aligned.
    pub(crate) fn at<T>(&self, offset: u64) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY:
        // - `offset` is inside the mapping, checked above.
        Some(unsafe { self.start.add(offset) }.cast())
    }

    /// Advice about a part of the mapping; refusals are no errors.
    pub(crate) fn advise(&self, from: u64, len: u64, advice: libc::c_int) -> Result<()> {
        let (from, len) = (from.min(self.len()), len.min(self.len().saturating_sub(from)));
        let (Ok(from), Ok(len)) = (usize::try_from(from), usize::try_from(len)) else {
            return Err(libc::EFBIG);
        };
        // SAFETY:
        // - the range is inside the mapping, made so above.
        // - the advice values used in this crate do not change what is read or written.
        check(unsafe { libc::madvise(self.start.add(from).as_ptr().cast(), len, advice) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY:
        // - the range is exactly what `mmap` returned in `new`.
        // - whoever handed out pointers into it has made sure that none is used any more (`Reader`, `Writer`).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY:
    // - `time` is writable and of the type that `clock_gettime` fills in.
    unsafe { libc::clock_gettime(id, &mut time) };
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

/// Nanoseconds of a clock that is the same in all processes since boot; precise to some milliseconds, without a
/// system call.
pub(crate) fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn unix_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

/// The boot id of the running system as two words, if `/proc` tells.
pub(crate) fn boot_id() -> Option<[u64; 2]> {
    static BOOT_ID: OnceLock<Option<[u64; 2]>> = OnceLock::new();
    *BOOT_ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let high = u64::from_str_radix(digits.get(..16)?, 16).ok()?;
        let low = u64::from_str_radix(digits.get(16..32)?, 16).ok()?;
        Some([high, low])
    })
}

/// A number that no other file set has.
pub(crate) fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY:
    // - `bytes` is writable for the length passed.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 {
        u64::from_ne_bytes(bytes)
    } else {
        unix_ns().rotate_left(32) ^ u64::from(std::process::id()) ^ (&raw const bytes).addr() as u64
    }
}

/// `membarrier` between processes: what of it this process can use.
pub(crate) mod membarrier {
    use super::{Result, check};

    const QUERY: libc::c_int = 0;
    const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

    fn call(command: libc::c_int) -> libc::c_long {
        // SAFETY: no memory is passed.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    }

    fn has(command: libc::c_int) -> bool {
        let commands = call(QUERY);
        commands > 0 && commands & libc::c_long::from(command) != 0
    }

    /// Whether the writer's barrier exists.
    pub(crate) fn available() -> bool {
        has(GLOBAL_EXPEDITED)
    }

    /// Makes the writer's barrier reach this process. Survives `fork`, not `exec`.
    pub(crate) fn register() -> bool {
        has(REGISTER_GLOBAL_EXPEDITED) && call(REGISTER_GLOBAL_EXPEDITED) == 0
    }

    /// Every running thread of every registered process has passed a full barrier when this returns.
    pub(crate) fn everywhere() -> Result<()> {
        check(if call(GLOBAL_EXPEDITED) == 0 { 0 } else { -1 })
    }
}

/// A descriptor as a plain number.
pub(crate) fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
