//! What a fork must not duplicate: the right to use a slot, and the descriptors that carry locks.
//!
//! A page that the kernel wipes in the child carries the **token** of the process. Handles remember the token
//! under which they were opened; a child has another one. A lock belongs to an open file description, which a
//! child would share and so keep alive after its parent's death: so the descriptors that carry locks are
//! registered here and closed in the child, by a `pthread_atfork` handler or, after a bare `clone`, when the child
//! first uses a handle.
//!
//! # Orderings
//!
//! The token is written in a child before it has a second thread, and by the first handle opened, under the
//! registry's lock. It guards no other memory, so all accesses are `Relaxed`; so are those to the number of handles.

use std::cell::Cell;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::file::{self, Access, FileInfo};
use crate::lock::{self, Lock};
use crate::{Errno, Result};

/// Descriptors that a child must not keep.
static PRIVATE: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Handles, for which there is room in [`PRIVATE`].
static HANDLES: AtomicUsize = AtomicUsize::new(0);

/// The last token given out; copied by a fork, so that a child's token differs from all of its ancestors'.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A page of zeroed memory of the program itself, so that reading the token is one load. The loader maps such
/// pages privately and anonymously, as `MADV_WIPEONFORK` demands.
#[cfg_attr(target_arch = "x86_64", repr(C, align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(65536)))]
struct Page {
    token: AtomicU64,
}

static PAGE: Page = Page { token: AtomicU64::new(0) };

/// Whether the page and the fork handlers are set up, or the error.
static READY: OnceLock<std::result::Result<(), Errno>> = OnceLock::new();

thread_local! {
    /// Holds the registry's lock between the `prepare` handler and the `parent` or `child` handler, which run in the
    /// thread that forks. Without a destructor, so that a thread can fork while it ends.
    static HELD: Cell<Option<ManuallyDrop<MutexGuard<'static, Vec<OwnedFd>>>>> = const { Cell::new(None) };
}

fn private() -> MutexGuard<'static, Vec<OwnedFd>> {
    PRIVATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets up the page and the handlers. To be called before anything is opened.
pub fn init() -> Result<()> {
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

/// The token, or 0 in a child that has not asked for it with [`token`] yet.
#[inline(always)]
pub fn peek() -> u64 {
    PAGE.token.load(Ordering::Relaxed)
}

/// Makes room for the descriptors of one more handle, which it may open later in a call that must not allocate. While
/// a handle moves to other files it has two.
pub fn make_room() {
    let handles = HANDLES.fetch_add(1, Ordering::Relaxed) + 1;
    let mut registry = private();
    let missing = (2 * handles + 8).saturating_sub(registry.len());
    registry.reserve(missing);
}

/// The handle is gone.
pub fn release_room() {
    HANDLES.fetch_sub(1, Ordering::Relaxed);
}

fn new_token() -> u64 {
    let token = LAST.load(Ordering::Relaxed).wrapping_add(1);
    LAST.store(token, Ordering::Relaxed);
    token
}

/// The token of this process. The first call after a bare `clone` does what the fork handler would have done.
pub fn token() -> u64 {
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

fn become_child(registry: &mut Vec<OwnedFd>) {
    // Closes them.
    registry.clear();
    PAGE.token.store(new_token(), Ordering::Relaxed);
}

/// The lock that [`prepare`] took in this thread.
fn held() -> Option<MutexGuard<'static, Vec<OwnedFd>>> {
    HELD.take().map(ManuallyDrop::into_inner)
}

extern "C" fn prepare() {
    HELD.set(Some(ManuallyDrop::new(private())));
}

extern "C" fn parent() {
    drop(held());
}

extern "C" fn child() {
    if let Some(mut registry) = held() {
        become_child(&mut registry);
    }
}

/// A descriptor that children do not keep: it carries a lock.
#[derive(Debug)]
pub struct PrivateFd {
    /// Registered as long as this lives, in the process that opened it.
    fd: RawFd,
    /// The process that opened it; in another one it is closed already, and its number may be reused.
    token: u64,
}

impl PrivateFd {
    /// Opens a file; no fork falls between opening and registering.
    pub fn open(path: &CStr, access: Access) -> Result<PrivateFd> {
        init()?;
        let token = token();
        let mut registry = private();
        let fd = file::open(path, access)?;
        let number = fd.as_raw_fd();
        registry.push(fd);
        Ok(PrivateFd { fd: number, token })
    }

    /// The descriptor; `EBADF` in a child, which does not have it.
    pub fn get(&self) -> Result<BorrowedFd<'_>> {
        if token() != self.token {
            return Err(libc::EBADF);
        }
        // SAFETY:
        // - in the process that opened it, which this is, the descriptor is open as long as it is registered, and that is
        //   until `drop`.
        Ok(unsafe { BorrowedFd::borrow_raw(self.fd) })
    }

    /// Its entry in the file system.
    pub fn info(&self) -> Result<FileInfo> {
        file::fstat(self.get()?)
    }

    /// As [`lock::try_lock`].
    pub fn try_lock(&self, lock: Lock, byte: u64) -> Result<bool> {
        lock::try_lock(self.get()?, lock, byte)
    }

    /// As [`lock::unlock`].
    pub fn unlock(&self, byte: u64) {
        if let Ok(fd) = self.get() {
            lock::unlock(fd, byte);
        }
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        if token() != self.token {
            return;
        }
        let mut registry = private();
        if let Some(at) = registry.iter().position(|fd| fd.as_raw_fd() == self.fd) {
            // A child that has not closed its copy yet would keep the locks: they are of the description, not of the
            // descriptor.
            lock::unlock_all(registry.swap_remove(at));
        }
    }
}
