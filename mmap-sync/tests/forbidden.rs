//! A writer whose `membarrier` is taken away while readers rely on it. Alone in its file, since a thread gives it up.

mod common;

use std::os::unix::fs::FileExt;

use common::{Dir, is_filled, publish};

/// From now on the calling thread gets `EPERM` from `membarrier`.
fn forbid_membarrier() -> bool {
    let statement = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: yes,
        jf: no,
        k,
    };
    let mut filter = [
        // The number of the system call is the first word.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            u32::try_from(libc::SYS_membarrier).unwrap(),
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY:
    // - `program` names the four statements of `filter`, which both live until the calls return.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) == 0
            && libc::syscall(libc::SYS_membarrier, 0, 0, 0) == -1
    }
}

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
