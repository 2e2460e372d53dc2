//! The ways in which one writer hands a value to its readers.
//!
//! A value is a number of words. A read copies them, and calls `inside` halfway: there a reader can be stopped.
//!
//! # Orderings
//!
//! Words in shared memory are relaxed atomics, so that no access is a data race; what orders them:
//!
//! - mutex, reader–writer lock: the C library's lock and unlock.
//! - spin lock: the compare-exchange that takes it (acquire) pairs with the store that releases it (release).
//! - seqlock: the writer's release fence after the odd number pairs with the reader's acquire fence before its second load:
//!   a reader that saw a word of the new value sees a number other than its first. The store of the even number (release)
//!   pairs with the reader's first load (acquire): a reader that begins at a number sees the whole value.

use std::cell::UnsafeCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;

use crate::process::Shared;

/// What readers and the writer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workers {
    Processes,
    /// For what cannot cross processes. A reader that holds its guard stands for a stopped one.
    Threads,
}

/// One way to hand a value over. The ends are opened by the worker that uses them.
pub(super) trait Mechanism: Sync {
    const NAME: &'static str;
    const WORKERS: Workers = Workers::Processes;
    type Writer<'a>: Write
    where
        Self: 'a;
    type Reader<'a>: Read
    where
        Self: 'a;

    fn writer(&self) -> anyhow::Result<Self::Writer<'_>>;
    fn reader(&self) -> anyhow::Result<Self::Reader<'_>>;
}

pub(super) trait Write {
    fn write(&mut self, value: &[u64]) -> anyhow::Result<()>;
}

pub(super) trait Read {
    /// Copies the value; says how many attempts that took.
    fn read(&mut self, value: &mut [u64], inside: &mut impl FnMut()) -> anyhow::Result<u64>;
}

fn load(words: &[AtomicU64], value: &mut [u64], inside: &mut impl FnMut()) {
    let copy = |value: &mut [u64], words: &[AtomicU64]| {
        for (held, word) in value.iter_mut().zip(words) {
            *held = word.load(Ordering::Relaxed);
        }
    };
    let half = value.len() / 2;
    let (first, second) = value.split_at_mut(half);
    copy(first, words);
    inside();
    copy(second, words.get(half..).unwrap_or_default());
}

fn store(words: &[AtomicU64], value: &[u64]) {
    for (word, held) in words.iter().zip(value) {
        word.store(*held, Ordering::Relaxed);
    }
}

/// Waits for another worker in a loop, which gives the core away now and then.
#[derive(Default)]
struct Spin(u32);

impl Spin {
    fn once(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(2000) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// Words at which a lock lies; the value begins after them.
const LOCK_WORDS: usize = 16;

/// A lock in shared memory, in words that hold nothing else.
pub(super) trait Lock: Sync + Sized {
    const NAME: &'static str;
    fn new(words: &[AtomicU64]) -> anyhow::Result<Self>;
    fn lock_shared(&self, words: &[AtomicU64]);
    fn unlock_shared(&self, words: &[AtomicU64]);
    fn lock(&self, words: &[AtomicU64]);
    fn unlock(&self, words: &[AtomicU64]);
}

/// A value under a lock.
pub(super) struct Locked<L> {
    shared: Shared,
    lock: L,
}

impl<L: Lock> Locked<L> {
    pub(super) fn new(words: usize) -> anyhow::Result<Self> {
        let shared = Shared::posix(LOCK_WORDS + words)?;
        let lock = L::new(shared.words())?;
        Ok(Self { shared, lock })
    }

    fn parts(&self) -> (&[AtomicU64], &[AtomicU64]) {
        self.shared.words().split_at(LOCK_WORDS)
    }
}

impl<L: Lock> Mechanism for Locked<L> {
    const NAME: &'static str = L::NAME;
    type Writer<'a>
        = &'a Self
    where
        Self: 'a;
    type Reader<'a>
        = &'a Self
    where
        Self: 'a;

    fn writer(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }
}

impl<L: Lock> Write for &Locked<L> {
    fn write(&mut self, value: &[u64]) -> anyhow::Result<()> {
        let (lock, words) = self.parts();
        self.lock.lock(lock);
        store(words, value);
        self.lock.unlock(lock);
        Ok(())
    }
}

impl<L: Lock> Read for &Locked<L> {
    fn read(&mut self, value: &mut [u64], inside: &mut impl FnMut()) -> anyhow::Result<u64> {
        let (lock, words) = self.parts();
        self.lock.lock_shared(lock);
        load(words, value, inside);
        self.lock.unlock_shared(lock);
        Ok(1)
    }
}

fn check(result: libc::c_int) -> anyhow::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(result).into()) }
}

/// A lock of the C library in shared words.
fn pthread<T>(words: &[AtomicU64]) -> *mut T {
    const { assert!(size_of::<T>() <= LOCK_WORDS * 8 && align_of::<T>() <= 8) };
    // The words are interior-mutable, shared memory; only the C library touches those of the lock.
    words.as_ptr().cast::<UnsafeCell<T>>().cast_mut().cast()
}

/// `pthread_mutex_t` between processes, with its defaults.
pub(super) struct Mutex;

impl Lock for Mutex {
    const NAME: &'static str = "mutex";

    fn new(words: &[AtomicU64]) -> anyhow::Result<Self> {
        // SAFETY:
        // - attributes are initialised before they are used, and live until they are destroyed
        // - the words are zero, shared, large and aligned enough (`pthread`), and nobody uses the lock yet.
        unsafe {
            let mut attributes = std::mem::zeroed();
            check(libc::pthread_mutexattr_init(&raw mut attributes))?;
            check(libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED))?;
            check(libc::pthread_mutex_init(pthread(words), &raw const attributes))?;
            check(libc::pthread_mutexattr_destroy(&raw mut attributes))?;
        }
        Ok(Self)
    }

    fn lock_shared(&self, words: &[AtomicU64]) {
        self.lock(words);
    }

    fn unlock_shared(&self, words: &[AtomicU64]) {
        self.unlock(words);
    }

    fn lock(&self, words: &[AtomicU64]) {
        // SAFETY:
        // - `new` made a mutex of these words; this thread does not hold it.
        unsafe { libc::pthread_mutex_lock(pthread(words)) };
    }

    fn unlock(&self, words: &[AtomicU64]) {
        // SAFETY:
        // - as above, but this thread holds it.
        unsafe { libc::pthread_mutex_unlock(pthread(words)) };
    }
}

/// `pthread_rwlock_t` between processes. By default glibc lets readers pass a waiting writer.
pub(super) struct RwLock<const WRITERS_FIRST: bool>;

/// `PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP` of glibc.
const WRITERS_FIRST_KIND: libc::c_int = 2;

impl<const WRITERS_FIRST: bool> Lock for RwLock<WRITERS_FIRST> {
    const NAME: &'static str =
        if WRITERS_FIRST { "reader–writer lock (writers first)" } else { "reader–writer lock" };

    fn new(words: &[AtomicU64]) -> anyhow::Result<Self> {
        // SAFETY:
        // - attributes are initialised before they are used, and live until they are destroyed
        // - the words are zero, shared, large and aligned enough (`pthread`), and nobody uses the lock yet.
        unsafe {
            let mut attributes = std::mem::zeroed();
            check(libc::pthread_rwlockattr_init(&raw mut attributes))?;
            check(libc::pthread_rwlockattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED))?;
            #[cfg(target_env = "gnu")]
            if WRITERS_FIRST {
                check(libc::pthread_rwlockattr_setkind_np(&raw mut attributes, WRITERS_FIRST_KIND))?;
            }
            check(libc::pthread_rwlock_init(pthread(words), &raw const attributes))?;
            check(libc::pthread_rwlockattr_destroy(&raw mut attributes))?;
        }
        Ok(Self)
    }

    fn lock_shared(&self, words: &[AtomicU64]) {
        // SAFETY:
        // - `new` made a lock of these words; this thread does not hold it.
        unsafe { libc::pthread_rwlock_rdlock(pthread(words)) };
    }

    fn unlock_shared(&self, words: &[AtomicU64]) {
        self.unlock(words);
    }

    fn lock(&self, words: &[AtomicU64]) {
        // SAFETY:
        // - `new` made a lock of these words; this thread does not hold it.
        unsafe { libc::pthread_rwlock_wrlock(pthread(words)) };
    }

    fn unlock(&self, words: &[AtomicU64]) {
        // SAFETY:
        // - as above, but this thread holds it.
        unsafe { libc::pthread_rwlock_unlock(pthread(words)) };
    }
}

/// One word that readers and the writer set.
pub(super) struct SpinLock;

impl Lock for SpinLock {
    const NAME: &'static str = "spin lock";

    fn new(_: &[AtomicU64]) -> anyhow::Result<Self> {
        Ok(Self)
    }

    fn lock_shared(&self, words: &[AtomicU64]) {
        self.lock(words);
    }

    fn unlock_shared(&self, words: &[AtomicU64]) {
        self.unlock(words);
    }

    fn lock(&self, words: &[AtomicU64]) {
        let Some(word) = words.first() else { return };
        let mut spin = Spin::default();
        while word.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Only loads while it is taken, so that its line stays shared.
            while word.load(Ordering::Relaxed) != 0 {
                spin.once();
            }
        }
    }

    fn unlock(&self, words: &[AtomicU64]) {
        if let Some(word) = words.first() {
            word.store(0, Ordering::Release);
        }
    }
}

/// A number that is odd during a write; a reader that finds it odd or changed reads again.
pub(super) struct SeqLock(Shared);

impl SeqLock {
    pub(super) fn new(words: usize) -> anyhow::Result<Self> {
        Ok(Self(Shared::posix(LOCK_WORDS + words)?))
    }

    fn parts(&self) -> anyhow::Result<(&AtomicU64, &[AtomicU64])> {
        let (number, words) = self.0.words().split_at(LOCK_WORDS);
        Ok((number.first().context("no words")?, words))
    }
}

impl Mechanism for SeqLock {
    const NAME: &'static str = "seqlock";
    type Writer<'a> = &'a Self;
    type Reader<'a> = &'a Self;

    fn writer(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }
}

impl Write for &SeqLock {
    fn write(&mut self, value: &[u64]) -> anyhow::Result<()> {
        let (number, words) = self.parts()?;
        let now = number.load(Ordering::Relaxed);
        number.store(now + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        store(words, value);
        number.store(now + 2, Ordering::Release);
        Ok(())
    }
}

impl Read for &SeqLock {
    fn read(&mut self, value: &mut [u64], inside: &mut impl FnMut()) -> anyhow::Result<u64> {
        let (number, words) = self.parts()?;
        let mut spin = Spin::default();
        for attempt in 1.. {
            let before = number.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                load(words, value, inside);
                fence(Ordering::Acquire);
                if number.load(Ordering::Relaxed) == before {
                    return Ok(attempt);
                }
            }
            spin.once();
        }
        unreachable!("the loop has no end")
    }
}

/// The crate `arc-swap`: the writer swaps a pointer, the last reader of a value frees it. Its pointers mean nothing in
/// another process.
pub(super) struct Swap(ArcSwap<Vec<u64>>);

impl Swap {
    pub(super) fn new(words: usize) -> Self {
        Self(ArcSwap::from_pointee(vec![0; words]))
    }
}

impl Mechanism for Swap {
    const NAME: &'static str = "arc-swap (threads)";
    const WORKERS: Workers = Workers::Threads;
    type Writer<'a> = &'a Self;
    type Reader<'a> = &'a Self;

    fn writer(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }
}

impl Write for &Swap {
    fn write(&mut self, value: &[u64]) -> anyhow::Result<()> {
        self.0.store(Arc::new(value.to_vec()));
        Ok(())
    }
}

impl Read for &Swap {
    fn read(&mut self, value: &mut [u64], inside: &mut impl FnMut()) -> anyhow::Result<u64> {
        let guard = self.0.load();
        let (first, second) = value.split_at_mut(guard.len() / 2);
        let (held_first, held_second) = guard.split_at(first.len());
        first.copy_from_slice(held_first);
        inside();
        second.copy_from_slice(held_second);
        Ok(1)
    }
}

/// This project's `mmap-sync`.
pub(super) struct WaitFree {
    prefix: PathBuf,
    _directory: tempfile::TempDir,
}

impl WaitFree {
    pub(super) fn new() -> anyhow::Result<Self> {
        let directory = crate::machine::directory()?;
        Ok(Self { prefix: directory.path().join("value"), _directory: directory })
    }
}

impl Mechanism for WaitFree {
    const NAME: &'static str = "bliss (wait-free)";
    type Writer<'a> = Publisher;
    type Reader<'a> = mmap_sync::Reader;

    fn writer(&self) -> anyhow::Result<Publisher> {
        let writer = mmap_sync::Options::new(&self.prefix).open_writer()?;
        Ok(Publisher { writer, beat: Instant::now() })
    }

    fn reader(&self) -> anyhow::Result<mmap_sync::Reader> {
        Ok(mmap_sync::Options::new(&self.prefix).open_reader()?)
    }
}

/// The writer, and when it last gave a sign of life.
pub(super) struct Publisher {
    writer: mmap_sync::Writer,
    beat: Instant,
}

impl Write for Publisher {
    fn write(&mut self, value: &[u64]) -> anyhow::Result<()> {
        let mut standby = self.writer.standby(size_of_val(value) as u64)?;
        let words = standby.bytes_mut();
        for (bytes, word) in words.as_chunks_mut::<8>().0.iter_mut().zip(value) {
            *bytes = word.to_ne_bytes();
        }
        standby.publish()?;
        if self.beat.elapsed() > Duration::from_secs(1) {
            self.writer.heartbeat();
            self.beat = Instant::now();
        }
        Ok(())
    }
}

impl Read for mmap_sync::Reader {
    fn read(&mut self, value: &mut [u64], inside: &mut impl FnMut()) -> anyhow::Result<u64> {
        let guard = self.pin()?;
        let words = guard.bytes().as_chunks::<8>().0;
        ensure!(words.len() == value.len(), "{} words in place of {}", words.len(), value.len());
        let half = value.len() / 2;
        for (i, (held, word)) in value.iter_mut().zip(words).enumerate() {
            if i == half {
                inside();
            }
            *held = u64::from_ne_bytes(*word);
        }
        Ok(1)
    }
}

/// No synchronisation at all, to see that a torn value is noticed.
#[cfg(test)]
pub(super) struct Nothing(pub(super) Shared);

#[cfg(test)]
impl Mechanism for Nothing {
    const NAME: &'static str = "nothing";
    type Writer<'a> = &'a Self;
    type Reader<'a> = &'a Self;

    fn writer(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<&Self> {
        Ok(self)
    }
}

#[cfg(test)]
impl Write for &Nothing {
    fn write(&mut self, value: &[u64]) -> anyhow::Result<()> {
        store(self.0.words(), value);
        Ok(())
    }
}

#[cfg(test)]
impl Read for &Nothing {
    fn read(&mut self, value: &mut [u64], inside: &mut impl FnMut()) -> anyhow::Result<u64> {
        load(self.0.words(), value, inside);
        Ok(1)
    }
}
