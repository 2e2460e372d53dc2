//! Whether this process is still the one that took a slot.
//!
//! A page that the kernel wipes in a child of a fork carries the *token* of the process. A slot remembers the token
//! under which it was taken; in a child it is another one, or none yet.
//!
//! # Orderings
//!
//! The page's address is published by a release and read by an acquire, so that whoever sees it sees a page that is
//! wiped on fork. The token guards no memory: it is only compared, and all accesses to it are relaxed. A child has one
//! thread when it begins, so that no two processes' tokens can be mixed up.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::sys::{self, Errno};

/// The page, once there is one.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// The last token given out; copied by a fork, so that a child's token differs from all of its ancestors'.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The process at the time when it was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    page: &'static AtomicU64,
    token: u64,
}

impl Process {
    /// The process that calls. The first call makes a system call or two.
    pub(super) fn current() -> Result<Self, Errno> {
        let page = page()?;
        let token = match page.load(Ordering::Relaxed) {
            0 => {
                let fresh = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                // Another thread may be first; then its token is the process's.
                match page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => fresh,
                    Err(other) => other,
                }
            }
            token => token,
        };
        Ok(Self { page, token })
    }

    /// Whether it is the process that calls.
    #[inline]
    pub(super) fn is_this(&self) -> bool {
        self.page.load(Ordering::Relaxed) == self.token
    }
}

fn page() -> Result<&'static AtomicU64, Errno> {
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let made = sys::wiped_page()?.as_ptr();
        match PAGE.compare_exchange(page, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => page = made,
            Err(first) => {
                sys::unmap_page(made);
                page = first;
            }
        }
    }
    // SAFETY:
    // - not NULL: a page that `wiped_page` mapped, aligned, and unmapped only where it did not get here
    // - any bytes are an `AtomicU64`, zeros after a fork among them
    Ok(unsafe { &*page })
}
