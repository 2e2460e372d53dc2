//! Open-file-description locks on single bytes. The kernel releases one when its last descriptor is closed.

use std::os::fd::{AsFd, AsRawFd};

use crate::{Result, last_errno, offset};

/// Who else may have a lock on the same byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// No one.
    Exclusive,
    /// Others that share it.
    Shared,
}

/// Locks one byte for the open file description behind `fd`; never waits. `Ok(false)`: another description has it.
pub fn try_lock(fd: impl AsFd, lock: Lock, byte: u64) -> Result<bool> {
    let kind = match lock {
        Lock::Exclusive => libc::F_WRLCK,
        Lock::Shared => libc::F_RDLCK,
    };
    match set(fd, kind, byte, 1) {
        Ok(()) => Ok(true),
        Err(libc::EAGAIN | libc::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Releases the lock on one byte.
pub fn unlock(fd: impl AsFd, byte: u64) {
    let _ = set(fd, libc::F_UNLCK, byte, 1);
}

/// Releases all locks of the open file description behind `fd`, for all who share it.
pub fn unlock_all(fd: impl AsFd) {
    let _ = set(fd, libc::F_UNLCK, 0, 0);
}

/// Whether another description holds a lock on the byte that would keep us from locking it.
pub fn is_locked(fd: impl AsFd, byte: u64) -> Result<bool> {
    let mut request = request(libc::F_WRLCK, byte, 1)?;
    // SAFETY:
    // - `request` is the `flock` that `F_OFD_GETLK` reads and writes; it lives until the call returns.
    // - the descriptor is open: it is borrowed.
    if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &mut request) } == -1 {
        return Err(last_errno());
    }
    Ok(libc::c_int::from(request.l_type) != libc::F_UNLCK)
}

fn set(fd: impl AsFd, kind: libc::c_int, byte: u64, len: libc::off_t) -> Result<()> {
    let request = request(kind, byte, len)?;
    loop {
        // SAFETY:
        // - `request` is the `flock` that `F_OFD_SETLK` reads; it lives until the call returns.
        // - the descriptor is open: it is borrowed.
        if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &request) } == 0 {
            return Ok(());
        }
        match last_errno() {
            libc::EINTR => continue,
            errno => return Err(errno),
        }
    }
}

/// A length of 0 reaches to the end.
fn request(kind: libc::c_int, byte: u64, len: libc::off_t) -> Result<libc::flock> {
    let short = |value| libc::c_short::try_from(value).map_err(|_| libc::EINVAL);
    Ok(libc::flock {
        l_type: short(kind)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: offset(byte)?,
        l_len: len,
        // Must be 0.
        l_pid: 0,
    })
}
