//! Work that several threads share.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// From so many bytes on, what is done to them is worth a thread.
pub(crate) const LARGE: usize = 8 << 20;

/// Does each piece of work on one of so many threads, this one among them; returns the wrapping sum of the results.
/// Threads that cannot be started are done without, and so are those for which there is no piece.
pub(crate) fn share<T>(
    pieces: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) -> u64 + Sync,
) -> u64 {
    let threads = threads.min(pieces.size_hint().1.unwrap_or(usize::MAX));
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let some = || std::iter::from_fn(next).fold(0_u64, |all, piece| all.wrapping_add(work(piece)));
    if threads < 2 {
        return some();
    }
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().name("mmap-sync".into()).spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        others.into_iter().fold(some(), |all, thread| {
            all.wrapping_add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_more_threads_than_pieces() {
        for (threads, most) in [(0, 1), (1, 1), (3, 3), (usize::MAX, 5)] {
            let seen = Mutex::new(HashSet::new());
            let sum = share(1..=5_u64, threads, |piece| {
                seen.lock().unwrap().insert(thread::current().id());
                piece
            });
            assert_eq!(sum, 15);
            assert!((1..=most).contains(&seen.lock().unwrap().len()), "{threads} threads");
        }
    }
}
