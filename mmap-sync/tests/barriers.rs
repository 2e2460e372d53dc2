//! The two barriers of a pin in the machine at hand: the test plays the writer, store by store.

mod common;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use common::{Dir, fill};
use mmap_sync::{Options, Reader};

/// One word of a file.
fn word(dir: &Dir, name: &str, at: usize) -> &'static AtomicU64 {
    let file = OpenOptions::new().read(true).write(true).open(dir.path().join(name)).unwrap();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY:
    // - no address is asked for, so no existing mapping is replaced.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), 8192, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY:
    // - the word lies in the file and in the mapping, which stays, and is aligned.
    // - everybody accesses it as an atomic.
    unsafe { &*start.byte_add(at).cast::<AtomicU64>() }
}

/// Waits until both threads have come here so often.
struct Meeting([AtomicU64; 2]);

impl Meeting {
    fn meet(&self, me: usize, round: u64) {
        self.0[me].store(round, Ordering::Release);
        let mut spins = 0_u32;
        while self.0[1 - me].load(Ordering::Acquire) < round {
            spins += 1;
            if spins > 2000 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Two threads at a time that wait for each other are enough for a small machine.
static ALONE: Mutex<()> = Mutex::new(());

/// In each round one thread pins, while the other one stores the next generation, passes its barrier, and looks into
/// the reader's cell. How often the pin was on the old generation and not seen.
fn unseen_pins(options: &Options, dir: &Dir, rounds: u64, barrier: impl Fn() + Sync) -> u64 {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut writer = options.open_writer().unwrap();
    for generation in 1..=2 {
        let mut bytes = [0; 64];
        fill(&mut bytes, generation);
        writer.write_bytes(&bytes).unwrap();
    }
    let reader: Reader = options.open_reader().unwrap();
    assert_eq!(reader.pin().unwrap().generation(), 2);
    let (generation, cell) = (word(dir, "x_state", 24), word(dir, "x_readers", 4096 + 32));
    let (meeting, seen) = (Meeting([AtomicU64::new(0), AtomicU64::new(0)]), AtomicBool::new(true));
    std::thread::scope(|scope| {
        let (meeting, seen, barrier) = (&meeting, &seen, &barrier);
        let playing = scope.spawn(move || {
            for round in 0..rounds {
                meeting.meet(0, 3 * round + 1);
                // The threads meet again and again in another order.
                for _ in 0..round % 32 {
                    std::hint::spin_loop();
                }
                generation.store(3, Ordering::Release);
                barrier();
                seen.store(cell.load(Ordering::Acquire) != 0, Ordering::Relaxed);
                meeting.meet(0, 3 * round + 2);
                generation.store(2, Ordering::Release);
                meeting.meet(0, 3 * round + 3);
            }
        });
        let mut unseen = 0;
        for round in 0..rounds {
            meeting.meet(1, 3 * round + 1);
            // There is no generation 3: an error if it is seen.
            let guard = reader.pin();
            meeting.meet(1, 3 * round + 2);
            unseen += u64::from(guard.is_ok() && !seen.load(Ordering::Relaxed));
            drop(guard);
            meeting.meet(1, 3 * round + 3);
        }
        playing.join().unwrap();
        unseen
    })
}

#[test]
fn m2_a_fenced_pin_is_seen_after_a_fence() {
    let dir = Dir::new();
    let options = dir.options().membarrier(false);
    assert_eq!(unseen_pins(&options, &dir, 60_000, || fence(Ordering::SeqCst)), 0);
}

#[test]
fn m2_an_unfenced_pin_is_seen_after_a_membarrier() {
    const GLOBAL_EXPEDITED: libc::c_long = 1 << 1;
    // SAFETY: no memory is passed.
    let call = |command: libc::c_long| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    let commands = call(0);
    if commands < 0 || commands & GLOBAL_EXPEDITED == 0 {
        common::skipped("membarrier is not available here");
        return;
    }
    let dir = Dir::new();
    let unseen = unseen_pins(&dir.options(), &dir, 10_000, || {
        fence(Ordering::SeqCst);
        assert_eq!(call(GLOBAL_EXPEDITED), 0);
    });
    assert_eq!(unseen, 0);
}
