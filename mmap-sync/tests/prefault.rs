//! Page faults, by the kernel's own count: those of pages that `maintain` mapped do not happen in a pin or a read.

mod common;

use std::hint::black_box;

use common::{Dir, Mount, fill, is_filled};
use mmap_sync::{Error, Guard, Reader, Standby, Writer};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

/// What a call of `maintain` maps at most.
const SLICE: u64 = 4 * MIB;

/// The program's own code and stack may be faulted in meanwhile; the least that is looked at here takes forty of them.
const FEW: i64 = 3;

/// Faults of this thread so far.
fn faults() -> i64 {
    // SAFETY:
    // - `rusage` is a plain C struct of integers; all zeroes is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY:
    // - `usage` is writable and of the type that the call fills in.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
    usage.ru_minflt + usage.ru_majflt
}

fn touch(guard: &Guard<'_>) {
    let sum = guard.iter().step_by(PAGE).fold(0_u64, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    black_box(sum);
}

/// Faults of a pin, and of a look at each page of what it gives.
fn pin_and_touch(reader: &Reader) -> (i64, i64) {
    let start = faults();
    let guard = reader.pin().unwrap();
    let pinned = faults();
    touch(&guard);
    let touched = faults();
    (pinned - start, touched - pinned)
}

fn assert_no_faults(reader: &Reader, when: &str) {
    let (pinned, touched) = pin_and_touch(reader);
    assert!(pinned + touched <= FEW, "{pinned} faults in the pin and {touched} in the bytes {when}");
}

fn prepare(standby: &mut Standby<'_>) {
    let next = standby.next_generation();
    fill(standby.bytes_mut(), next);
}

fn publish(writer: &mut Writer, bytes: u64) -> bool {
    let mut standby = writer.standby(bytes).unwrap();
    prepare(&mut standby);
    standby.publish().unwrap().reset
}

/// Calls until nothing is left; each does its share and no more.
fn maintain_all(reader: &Reader) -> u64 {
    for calls in 1..1000 {
        let before = (calls > 1).then(|| reader.unpopulated_bytes());
        reader.maintain().unwrap();
        let left = reader.unpopulated_bytes();
        assert!(before.is_none_or(|before| before - left <= SLICE), "{before:?} {left}");
        if left == 0 {
            return calls;
        }
    }
    panic!("never ready: {} bytes are left", reader.unpopulated_bytes());
}

fn can_populate(dir: &Dir) -> bool {
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        common::skipped("AddressSanitizer has page faults of its own");
        return false;
    }
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 16 * MIB);
    let reader = dir.options().prefault(true).open_reader().unwrap();
    reader.pin().unwrap();
    if pin_and_touch(&reader).1 <= FEW {
        return true;
    }
    common::skipped("the kernel has no MADV_POPULATE_READ (Linux 5.14)");
    false
}

#[test]
fn pages_that_maintenance_mapped_are_not_faulted_in_after_the_switch() {
    let dir = Dir::new();
    if !can_populate(&dir) {
        return;
    }
    let mut writer = dir.options().open_writer().unwrap();
    let plain = dir.options().open_reader().unwrap();
    let reader = dir.options().prefault(true).open_reader().unwrap();
    publish(&mut writer, 16 * MIB);
    publish(&mut writer, 16 * MIB);
    drop((plain.pin(), reader.generation()));
    // Both copies, in slices.
    assert!(maintain_all(&reader) >= 8);
    assert_no_faults(&reader, "");
    for _ in 0..3 {
        assert!(!publish(&mut writer, 16 * MIB));
        assert_no_faults(&reader, &format!("generation {:?}", writer.generation()));
    }
    assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
    assert!(pin_and_touch(&plain).1 > FEW, "without the option pages are faulted in");
}

#[test]
fn pages_that_a_mapped_file_grew_by_are_mapped_before_and_after_the_switch() {
    let dir = Dir::new();
    if !can_populate(&dir) {
        return;
    }
    for max_size in [1 << 30, 6 * MIB] {
        let options = dir.options().prefault(true).max_size(max_size);
        let mut writer = options.open_writer().unwrap();
        let reader = options.open_reader().unwrap();
        publish(&mut writer, 5 * MIB);
        publish(&mut writer, 5 * MIB);
        maintain_all(&reader);
        // Ahead: while the value is being written.
        for (bytes, at_first) in
            [(9 * MIB, 9 * MIB), (12 * MIB, 6 * MIB), (30 * MIB, 30 * MIB), (40 * MIB, 31 * MIB)]
        {
            let mut standby = writer.standby(at_first).unwrap();
            maintain_all(&reader);
            standby.resize(bytes).unwrap();
            prepare(&mut standby);
            maintain_all(&reader);
            standby.publish().unwrap();
            assert_no_faults(&reader, &format!("{bytes} bytes, mapped up to {max_size}"));
        }
        // After: nobody called in time.
        publish(&mut writer, 50 * MIB);
        publish(&mut writer, 50 * MIB);
        let (pinned, touched) = pin_and_touch(&reader);
        assert!(pinned <= 8, "a pin does not populate: {pinned} faults");
        assert!(touched > FEW);
        drop(reader.pin());
        publish(&mut writer, 50 * MIB);
        maintain_all(&reader);
        assert_no_faults(&reader, "");
        publish(&mut writer, 50 * MIB);
        assert_no_faults(&reader, "");
    }
}

#[test]
fn a_fresh_file_is_populated_by_the_calls_that_follow_not_by_the_pin() {
    let dir = Dir::new();
    if !can_populate(&dir) {
        return;
    }
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().prefault(true).open_reader().unwrap();
    let holder = dir.options().open_reader().unwrap();
    publish(&mut writer, 16 * MIB);
    publish(&mut writer, 16 * MIB);
    maintain_all(&reader);
    let held = holder.pin().unwrap();
    publish(&mut writer, 16 * MIB);
    assert!(publish(&mut writer, 16 * MIB), "a fresh file");
    let (pinned, _) = pin_and_touch(&reader);
    assert!(pinned <= 8, "{pinned} faults in the pin");
    publish(&mut writer, 16 * MIB);
    assert!(publish(&mut writer, 16 * MIB) || writer.retired_files() == 1);
    maintain_all(&reader);
    assert_no_faults(&reader, "");
    drop(held);
    // The file that was put aside is held by nobody's mapping.
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    assert!(dir.allocated() < 40 * MIB);
}

#[test]
fn m3_memory_that_the_writer_gave_back_is_not_made_again() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().prefault(true).open_reader().unwrap();
    for bytes in [16 * MIB, 16 * MIB, MIB, MIB] {
        publish(&mut writer, bytes);
        maintain_all(&reader);
    }
    assert!(dir.allocated() < 4 * MIB, "{} bytes", dir.allocated());
    // Nor that of a file that is made longer than what is reserved of it.
    for name in ["x_data_0", "x_data_1"] {
        let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
        file.set_len(64 * MIB).unwrap();
    }
    maintain_all(&dir.options().prefault(true).open_reader().unwrap());
    maintain_all(&reader);
    assert!(dir.allocated() < 4 * MIB, "{} bytes", dir.allocated());
}

#[test]
fn m3_memory_of_a_file_that_was_put_aside_is_not_made_again() {
    let Some(mount) = Mount::new(64) else {
        common::skipped("mounting a small tmpfs needs root");
        return;
    };
    let dir = &mount.0;
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().prefault(true).open_reader().unwrap();
    let holder = dir.options().open_reader().unwrap();
    publish(&mut writer, 8 * MIB);
    let held = holder.pin().unwrap();
    publish(&mut writer, 8 * MIB);
    reader.maintain().unwrap();
    assert!(reader.unpopulated_bytes() > 8 * MIB);
    // The reader has mapped the file that is put aside, and does not find the one in its place.
    assert!(publish(&mut writer, 8 * MIB));
    publish(&mut writer, 8 * MIB);
    drop(held);
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    std::fs::remove_file(dir.path().join("x_data_1")).unwrap();
    // That of the removed one is still the writer's.
    let limit = 17 * MIB;
    assert!(mount.used() < limit, "{} bytes", mount.used());
    maintain_all(&reader);
    assert!(mount.used() < limit, "{} bytes", mount.used());
}

#[test]
fn m6_a_child_maps_pages_of_its_own() {
    let dir = Dir::new();
    if !can_populate(&dir) {
        return;
    }
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().prefault(true).open_reader().unwrap();
    publish(&mut writer, 8 * MIB);
    publish(&mut writer, 8 * MIB);
    maintain_all(&reader);
    // SAFETY:
    // - the child uses nothing that another thread may hold, and ends with `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let calls = maintain_all(&reader);
        let none = pin_and_touch(&reader).1 <= FEW;
        // SAFETY: the call takes no memory and does not return.
        unsafe { libc::_exit(i32::from(!(none && calls > 1))) }
    }
    assert!(pid > 0);
    let mut status = 0;
    // SAFETY:
    // - `status` is writable.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0);
}

#[test]
fn m8_a_file_mapped_ahead_that_is_damaged_is_an_error_or_left_alone() {
    for damage in ["short", "text", "longer than it says", "gone"] {
        let dir = Dir::new();
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, MIB);
        publish(&mut writer, MIB);
        drop(writer);
        let next = dir.path().join("x_data_1");
        let file = std::fs::OpenOptions::new().write(true).open(&next).unwrap();
        match damage {
            "short" => file.set_len(100).unwrap(),
            "text" => std::fs::write(&next, "a text ".repeat(2000)).unwrap(),
            "gone" => std::fs::remove_file(&next).unwrap(),
            _ => {
                // What it says is reserved, without the hash beside it.
                std::os::unix::fs::FileExt::write_all_at(&file, &(1_u64 << 40).to_le_bytes(), 40).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], 16).unwrap();
            }
        }
        let reader = dir.options().prefault(true).max_size(MIB).open_reader().unwrap();
        for _ in 0..5 {
            reader.maintain().unwrap();
            assert!(is_filled(&reader.pin().unwrap(), 2), "{damage}");
        }
    }
}

#[test]
fn m8_a_file_mapped_ahead_that_is_cut_off_is_an_error() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, MIB);
    publish(&mut writer, MIB);
    let reader = dir.options().prefault(true).open_reader().unwrap();
    maintain_all(&reader);
    publish(&mut writer, MIB);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("x_data_1")).unwrap();
    file.set_len(5000).unwrap();
    let error = reader.pin().map(|guard| guard.iter().map(|byte| u64::from(*byte)).sum::<u64>()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { what: "the file size", .. }), "{error}");
    publish(&mut writer, MIB);
    assert!(is_filled(&reader.pin().unwrap(), 4));
}
