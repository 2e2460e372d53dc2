//! Work that several threads share.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// From so many bytes on, what is done to them is worth a thread.
pub(crate) const LARGE: usize = 8 << 20;

/// Does each piece of work on one of so many threads, this one among them; returns the wrapping sum of the results.
/// Threads that are not to be had are done without.
pub(crate) fn share<T>(
    pieces: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) -> u64 + Sync,
) -> u64 {
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
