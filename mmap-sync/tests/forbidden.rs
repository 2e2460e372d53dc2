//! A writer whose `membarrier` is taken away while readers rely on it. Alone in its file, since a thread gives it up.

mod common;
#[path = "../src/bin/mmap-sync-stress/seccomp.rs"]
mod seccomp;

use std::os::unix::fs::FileExt;

use common::{Dir, is_filled, publish};
use seccomp::forbid_membarrier;

fn flags_and_kind(dir: &Dir) -> (u64, u32) {
    let word = |name: &str, at| {
        let mut bytes = [0; 8];
        std::fs::File::open(dir.path().join(name)).unwrap().read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    (word("x_state", 32) & 1, (word("x_readers", 4096) >> 32) as u32)
}

#[test]
fn m2_without_membarrier_an_unfenced_reader_counts_as_pinning_everything() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    let reader = dir.options().open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), 2));
    if flags_and_kind(&dir) != (0, 2) {
        common::skipped("membarrier is not available here");
        return;
    }
    assert!(!publish(&mut writer, 5000), "nobody pins anything");
    let allowed = std::thread::scope(|scope| {
        let writer = &mut writer;
        let dir = &dir;
        let thread = scope.spawn(move || {
            if !forbid_membarrier() {
                return false;
            }
            assert!(publish(writer, 5000), "nothing is known of the reader's announcements");
            assert_eq!(flags_and_kind(dir), (1, 2), "readers are told to pass fences");
            assert!(publish(writer, 5000));
            true
        });
        thread.join().unwrap()
    });
    if !allowed {
        common::skipped("seccomp filters are not available here");
        return;
    }
    // The reader obeys at its next look at a new generation, and is trusted again.
    assert!(is_filled(&reader.pin().unwrap(), 5));
    assert_eq!(flags_and_kind(&dir), (1, 1));
    for _ in 0..4 {
        assert!(!publish(&mut writer, 5000));
    }
    // A new one knows it from the start.
    let _other = dir.options().open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), 9));
    assert!(!publish(&mut writer, 5000));
    let guard = reader.pin().unwrap();
    publish(&mut writer, 5000);
    assert!(publish(&mut writer, 5000));
    assert!(is_filled(&guard, 10));
}
