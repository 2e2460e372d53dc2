//! Shared mappings of files, and the atomics in them.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

pub use memmap2::Advice;

use crate::{Errno, Result};

/// Types that other processes may change while a shared reference to them exists.
///
/// # Safety
///
/// - All of it is atomics, without padding.
/// - Every bit pattern is a value.
pub unsafe trait Shared {}

// SAFETY:
// - an atomic, for which any bits are a value.
unsafe impl Shared for AtomicU32 {}
// SAFETY:
// - an atomic, for which any bits are a value.
unsafe impl Shared for AtomicU64 {}
// SAFETY:
// - its elements are, and arrays have no padding between them.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// A shared mapping of a part of a file.
///
/// Who looks beyond the end of the file, or writes where it may only read, is killed by the system.
#[derive(Debug)]
pub struct Map(MmapRaw);

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::ENOMEM)
}

impl Map {
    /// Maps `len` bytes from the start of the file, which may be more than the file has.
    pub fn new(fd: impl AsFd, len: u64, writable: bool) -> Result<Map> {
        Map::part(fd, 0, len, writable)
    }

    /// Maps `len` bytes from `from` on.
    pub fn part(fd: impl AsFd, from: u64, len: u64, writable: bool) -> Result<Map> {
        let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
        let file = fd.as_fd().as_raw_fd();
        let mut options = MmapOptions::new();
        options.offset(from).len(len).no_reserve_swap();
        let map = if writable { options.map_raw(file) } else { options.map_raw_read_only(file) };
        map.map(Map).map_err(errno)
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        // A mapping is never at address 0.
        NonNull::new(self.0.as_mut_ptr()).unwrap_or(NonNull::dangling())
    }

    /// The bytes of a range, if it lies inside the mapping. They may be changed by others.
    pub fn range(&self, from: u64, len: usize) -> Option<NonNull<[u8]>> {
        let from = usize::try_from(from).ok()?;
        if from.checked_add(len)? > self.0.len() {
            return None;
        }
        let start = self.start().as_ptr().wrapping_add(from);
        Some(NonNull::slice_from_raw_parts(NonNull::new(start)?, len))
    }

    /// A `T` at a byte offset, if it lies inside the mapping and is aligned.
    #[inline]
    pub fn get<T: Shared>(&self, from: u64) -> Option<&T> {
        self.get_slice(from, 1)?.first()
    }

    /// `count` of them, one after the other.
    #[inline]
    pub fn get_slice<T: Shared>(&self, from: u64, count: usize) -> Option<&[T]> {
        let start = self.range(from, count.checked_mul(size_of::<T>())?)?.cast::<T>();
        if !start.is_aligned() {
            return None;
        }
        // SAFETY:
        // - the range lies inside the mapping and is aligned, just checked.
        // - any bytes are a `T`, and others may change it: it is `Shared`.
        // - the mapping lives as long as `self`.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), count) })
    }

    /// Advice about a part of the mapping, cut off at its end.
    pub fn advise(&self, from: u64, len: u64, advice: Advice) -> Result<()> {
        let (from, len) = (from.min(self.len()), len.min(self.len().saturating_sub(from)));
        let (Ok(from), Ok(len)) = (usize::try_from(from), usize::try_from(len)) else {
            return Err(libc::EFBIG);
        };
        self.0.advise_range(advice, from, len).map_err(errno)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn only_what_is_mapped_and_aligned_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = Map::new(&file, 4096, true).unwrap();
        map.get::<AtomicU64>(4088).unwrap().store(7, Ordering::Relaxed);
        assert_eq!(map.get_slice::<AtomicU64>(4080, 2).unwrap()[1].load(Ordering::Relaxed), 7);
        for (from, count) in [(4088, 2), (4089, 1), (4, 1), (4096, 1), (u64::MAX, 1), (0, usize::MAX)] {
            assert!(map.get_slice::<AtomicU64>(from, count).is_none(), "{count} from {from}");
        }
        assert!(map.get::<AtomicU32>(4092).is_some());
        assert!(map.range(4096, 0).is_some() && map.range(4097, 0).is_none());
    }
}
