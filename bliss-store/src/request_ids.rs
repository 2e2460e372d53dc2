//! Ids of requests that are made without a system call.

use std::hash::{BuildHasher, RandomState};

use bliss_os::fork;

/// Makes an id for each request of one handle: 4 bytes the caller's time, 8 bytes the handle, drawn at random when it is opened, and
/// 4 bytes a number that counts up; the first byte of each on top. No two requests of a machine have the same one by anything but
/// a chance of one in 2^64, and later ones are greater. They are no secret: who sees two of a handle can guess the next.
#[derive(Debug)]
pub(crate) struct RequestIds {
    handle: u64,
    /// The process that the handle was drawn in.
    process: u64,
    next: u32,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self { handle: RandomState::new().hash_one(0), process: fork::token(), next: 0 }
    }

    /// The id of the next request, at time `now` in seconds since the Unix epoch.
    #[inline]
    pub(crate) fn next(&mut self, now: u32) -> [u8; 16] {
        if fork::peek() != self.process {
            self.draw_again();
        }
        self.next = self.next.wrapping_add(1);
        let id = u128::from(now) << 96 | u128::from(self.handle) << 32 | u128::from(self.next);
        id.to_be_bytes()
    }

    /// In a child of a fork, which shares the handle with its parent and its siblings.
    #[cold]
    fn draw_again(&mut self) {
        self.process = fork::token();
        let own = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.handle ^= own.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_apart_and_ascend() {
        let (mut a, mut b) = (RequestIds::new(), RequestIds::new());
        let mut all: Vec<_> = (0..1000).map(|_| a.next(7)).collect();
        all.push(a.next(8));
        assert!(all.is_sorted_by(|one, next| one < next));
        all.extend((0..1000).map(|_| b.next(7)));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(u32::from_be_bytes(*all[0].first_chunk().unwrap()), 7);
        let (before, handle) = (a.process, a.handle);
        a.process = before.wrapping_sub(1);
        a.next(9);
        assert!(a.process == before && a.handle != handle, "a child of a fork has another handle");
    }
}
