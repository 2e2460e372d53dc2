//! What a fork must not duplicate: the right to use a slot, and the descriptors that carry locks.
//!
//! A page that the kernel wipes in the child carries the **token** of the process. Handles remember the token
//! under which they were opened; in a child it is another one. A lock belongs to an open file description, which a
//! child would share and so keep alive after its parent's death: therefore the descriptors that carry locks are
//! registered here and closed in the child, by a `pthread_atfork` handler or, after a bare `clone`, when the first
//! handle is used.
//!
//! # Orderings
//!
//! The token is written in a child before it has a second thread, and by the first handle opened, under the
//! registry's lock. It guards no other memory, so all accesses are `Relaxed`.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::sys;

/// Descriptors that a child must not keep.
static PRIVATE: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// The last token given out; copied by a fork, so that a child's token differs from all of its ancestors'.
static LAST: AtomicU64 = AtomicU64::new(0);

static TOKEN: OnceLock<&'static AtomicU64> = OnceLock::new();

/// Holds the registry's lock between the `prepare` handler and the `parent` or `child` handler.
struct Held(UnsafeCell<Option<MutexGuard<'static, Vec<RawFd>>>>);

// SAFETY:
// - only the fork handlers use it, and only while the forking thread holds `PRIVATE`.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

fn private() -> MutexGuard<'static, Vec<RawFd>> {
    PRIVATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where this process's token is. Never 0 when looked at through [`token`].
pub(crate) fn token_cell() -> Result<&'static AtomicU64, sys::Errno> {
    if let Some(cell) = TOKEN.get() {
        return Ok(cell);
    }
    let _registry = private();
    if let Some(cell) = TOKEN.get() {
        return Ok(cell);
    }
    let page = 65_536;
    // SAFETY:
    // - no address is asked for, so no existing mapping is replaced.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(sys::last_errno());
    }
    // SAFETY:
    // - the range was just mapped, privately; nothing is in it yet that wiping could harm.
    // A kernel without it (before 4.14) leaves the work to the fork handler.
    unsafe { libc::madvise(start, page, libc::MADV_WIPEONFORK) };
    // SAFETY:
    // - the handlers are functions of this library and use nothing that a fork takes away.
    let registered = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    if registered != 0 {
        // SAFETY:
        // - the range is what `mmap` returned, and nobody knows it yet.
        unsafe { libc::munmap(start, page) };
        return Err(registered);
    }
    // SAFETY:
    // - the page is never unmapped, is aligned, and is only used through this atomic.
    let cell: &'static AtomicU64 = unsafe { &*start.cast::<AtomicU64>() };
    cell.store(new_token(), Ordering::Relaxed);
    Ok(TOKEN.get_or_init(|| cell))
}

/// Makes room for the descriptors of handles that are opened now and find their files later, in a call that must not
/// allocate.
pub(crate) fn make_room() {
    private().reserve(64);
}

fn new_token() -> u64 {
    let token = LAST.load(Ordering::Relaxed).wrapping_add(1);
    LAST.store(token, Ordering::Relaxed);
    token
}

/// The token of this process. The first call after a bare `clone` does what the fork handler would have done.
pub(crate) fn token(cell: &AtomicU64) -> u64 {
    let token = cell.load(Ordering::Relaxed);
    if token != 0 {
        return token;
    }
    match PRIVATE.try_lock() {
        Ok(mut registry) => become_child(cell, &mut registry),
        Err(TryLockError::Poisoned(registry)) => become_child(cell, &mut registry.into_inner()),
        // Another thread held the lock at the moment of the clone; it does not exist here. Its descriptors stay open.
        Err(TryLockError::WouldBlock) => cell.store(new_token(), Ordering::Relaxed),
    }
    cell.load(Ordering::Relaxed)
}

fn become_child(cell: &AtomicU64, registry: &mut Vec<RawFd>) {
    for fd in registry.drain(..) {
        // SAFETY:
        // - the descriptor is this process's copy of one that `PrivateFd` owned in the parent; in the child nobody
        //   closes it but us, since `PrivateFd::drop` compares tokens.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    cell.store(new_token(), Ordering::Relaxed);
}

extern "C" fn prepare() {
    let registry = private();
    // SAFETY:
    // - this thread holds the registry's lock, so no other handler runs.
    unsafe { *HELD.0.get() = Some(registry) };
}

extern "C" fn parent() {
    // SAFETY:
    // - called in the thread that ran `prepare`, which still holds the lock.
    drop(unsafe { (*HELD.0.get()).take() });
}

extern "C" fn child() {
    // SAFETY:
    // - called in the child's copy of the thread that ran `prepare`, which still holds the lock.
    let held = unsafe { (*HELD.0.get()).take() };
    if let (Some(mut registry), Some(cell)) = (held, TOKEN.get()) {
        become_child(cell, &mut registry);
    }
}

/// A descriptor that is not handed down to children: it carries a lock.
#[derive(Debug)]
pub(crate) struct PrivateFd {
    fd: RawFd,
    /// The process that opened it; in another one it is closed already, and the number may be somebody else's.
    token: u64,
}

impl PrivateFd {
    /// Opens a file; no fork falls between opening and registering.
    pub(crate) fn open(path: &CStr, flags: libc::c_int, mode: u32) -> sys::Result<PrivateFd> {
        let token = token(token_cell()?);
        let mut registry = private();
        let fd = sys::open(path, flags, mode)?.into_raw_fd();
        registry.push(fd);
        Ok(PrivateFd { fd, token })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        if TOKEN.get().is_none_or(|cell| token(cell) != self.token) {
            return;
        }
        let mut registry = private();
        if let Some(at) = registry.iter().position(|fd| *fd == self.fd) {
            registry.swap_remove(at);
            // SAFETY:
            // - the descriptor was opened by this process and is ours as long as it is registered.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}
