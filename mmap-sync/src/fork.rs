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
//! registry's lock. It guards no other memory, so all accesses are `Relaxed`; so are those to the number of handles.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::sys;

/// Descriptors that a child must not keep.
static PRIVATE: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Reader handles, for which there is room in [`PRIVATE`].
static HANDLES: AtomicUsize = AtomicUsize::new(0);

/// The last token given out; copied by a fork, so that a child's token differs from all of its ancestors'.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A page of zeroed memory of the program itself, so that looking at the token is one load. The loader maps such
/// pages privately and anonymously, as `MADV_WIPEONFORK` demands.
#[cfg_attr(target_arch = "x86_64", repr(C, align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(65536)))]
struct Page {
    token: AtomicU64,
}

static PAGE: Page = Page { token: AtomicU64::new(0) };

/// Whether the page and the fork handlers are set up, or the error.
static READY: OnceLock<Result<(), sys::Errno>> = OnceLock::new();

/// Holds the registry's lock between the `prepare` handler and the `parent` or `child` handler.
struct Held(UnsafeCell<Option<MutexGuard<'static, Vec<RawFd>>>>);

// SAFETY:
// - only the fork handlers use it, and only while the forking thread holds `PRIVATE`.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

fn private() -> MutexGuard<'static, Vec<RawFd>> {
    PRIVATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To be called before anything is opened.
pub(crate) fn init() -> Result<(), sys::Errno> {
    *READY.get_or_init(|| {
        // SAFETY:
        // - the page is a whole one, aligned and as large as `Page`, and nothing else is in it that wiping could harm.
        // A kernel without it (before 4.14), or with larger pages, leaves the work to the fork handler.
        unsafe {
            libc::madvise((&raw const PAGE).cast_mut().cast(), size_of::<Page>(), libc::MADV_WIPEONFORK)
        };
        // SAFETY:
        // - the handlers are functions of this library and use nothing that a fork takes away.
        let registered = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        if registered != 0 {
            return Err(registered);
        }
        PAGE.token.store(new_token(), Ordering::Relaxed);
        Ok(())
    })
}

/// The token, or 0 in a child that has not looked at it with [`token`] yet.
#[inline(always)]
pub(crate) fn peek() -> u64 {
    PAGE.token.load(Ordering::Relaxed)
}

/// Makes room for the descriptors of one more handle, which it may open later in a call that must not allocate. While
/// a handle moves to other files it has two.
pub(crate) fn make_room() {
    let handles = HANDLES.fetch_add(1, Ordering::Relaxed) + 1;
    let mut registry = private();
    let missing = (2 * handles + 8).saturating_sub(registry.len());
    registry.reserve(missing);
}

/// The handle is gone.
pub(crate) fn give_room_back() {
    HANDLES.fetch_sub(1, Ordering::Relaxed);
}

fn new_token() -> u64 {
    let token = LAST.load(Ordering::Relaxed).wrapping_add(1);
    LAST.store(token, Ordering::Relaxed);
    token
}

/// The token of this process. The first call after a bare `clone` does what the fork handler would have done.
pub(crate) fn token() -> u64 {
    let token = peek();
    if token != 0 {
        return token;
    }
    match PRIVATE.try_lock() {
        Ok(mut registry) => become_child(&mut registry),
        Err(TryLockError::Poisoned(registry)) => become_child(&mut registry.into_inner()),
        // Another thread held the lock at the moment of the clone; it does not exist here. Its descriptors stay open.
        Err(TryLockError::WouldBlock) => PAGE.token.store(new_token(), Ordering::Relaxed),
    }
    peek()
}

fn become_child(registry: &mut Vec<RawFd>) {
    for fd in registry.drain(..) {
        // SAFETY:
        // - the descriptor is this process's copy of one that `PrivateFd` owned in the parent; in the child nobody
        //   closes it but us, since `PrivateFd::drop` compares tokens.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    PAGE.token.store(new_token(), Ordering::Relaxed);
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
    if let Some(mut registry) = held {
        become_child(&mut registry);
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
        init()?;
        let token = token();
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
        if token() != self.token {
            return;
        }
        let mut registry = private();
        if let Some(at) = registry.iter().position(|fd| *fd == self.fd) {
            registry.swap_remove(at);
            // A child that has not closed its copy yet would keep the locks: they are of the description, not of the
            // descriptor.
            sys::unlock_all(self.fd);
            // SAFETY:
            // - the descriptor was opened by this process and is ours as long as it is registered.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}
