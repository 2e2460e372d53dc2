//! Handles at the edges: without a lock, in a forked child, at the last generation, over growth.

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use common::{Dir, fill, is_filled, lock, publish};
use mmap_sync::{Error, FileKind};

#[test]
fn m2_a_reader_without_a_slot_has_its_lock_or_is_not_opened() {
    let dir = Dir::new();
    let options = dir.options().slots(1).max_slots(1);
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 5000);
    let _with_a_slot = options.open_reader().unwrap();
    let path = dir.path().join("x_state");
    let other = OpenOptions::new().read(true).write(true).open(path).unwrap();
    // As the writer has it for a moment while it looks whether those who counted are dead.
    assert!(lock(&other, 96, 1));
    let error = options.open_reader().map(drop).unwrap_err();
    assert!(matches!(&error, Error::Unsettled { path, .. } if path.file() == FileKind::State), "{error}");
    let reader = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            loop {
                match options.open_reader() {
                    Ok(reader) => return reader,
                    Err(error) => assert!(matches!(error, Error::Unsettled { .. }), "{error}"),
                }
            }
        });
        drop(other);
        opening.join().unwrap()
    });
    assert!(!reader.has_slot());
    let guard = reader.pin().unwrap();
    publish(&mut writer, 5000);
    assert!(publish(&mut writer, 5000));
    assert!(is_filled(&guard, 1));
}

#[test]
fn m2_a_forked_child_cannot_write_into_the_parents_standby_copy() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    let mut standby = writer.standby(100).unwrap();
    fill(standby.bytes_mut(), 2);
    // SAFETY:
    // - the child uses nothing that another thread may hold, and ends with `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let nothing = standby.bytes_mut().is_empty()
            && standby.current_and_bytes_mut().1.is_empty()
            && matches!(standby.resize(50), Err(Error::Forked))
            && matches!(standby.publish(), Err(Error::Forked));
        // SAFETY: the call takes no memory and does not return.
        unsafe { libc::_exit(i32::from(!nothing)) }
    }
    assert!(pid > 0);
    let mut status = 0;
    // SAFETY:
    // - `status` is writable.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
    standby.publish().unwrap();
    assert!(is_filled(&dir.options().open_reader().unwrap().pin().unwrap(), 2));
}

#[test]
fn m8_the_last_generation_is_not_exceeded() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    drop(writer);
    // The last but one.
    let last = u64::MAX >> 3;
    let state = OpenOptions::new().write(true).open(dir.path().join("x_state")).unwrap();
    state.write_all_at(&(last - 1).to_le_bytes(), 24).unwrap();
    let mut writer = dir.options().open_writer().unwrap();
    assert_eq!(writer.write_bytes(&[1; 100]).unwrap().generation, last);
    for _ in 0..3 {
        let error = writer.write_bytes(&[2; 100]).unwrap_err();
        assert!(matches!(error, Error::Corrupt { found, .. } if found == last), "{error}");
        assert!(error.to_string().contains("x_state"), "{error}");
    }
    assert_eq!(writer.current(), Some(&[1; 100][..]));
    assert_eq!(&*dir.options().open_reader().unwrap().pin().unwrap(), &[1; 100]);
    drop(writer);
    assert_eq!(dir.options().open_writer().unwrap().generation(), Some(last));
}

/// Where the process has the data files of this directory mapped.
fn mapped(dir: &Dir) -> Vec<String> {
    let own = format!("{}/x_data_", dir.path().display());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(&own)).map(str::to_string).collect()
}

#[test]
fn m10_growth_within_the_reserved_size_maps_nothing_anew() {
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        common::skipped("AddressSanitizer needs terabytes of address space");
        return;
    }
    let dir = Dir::new();
    let options = dir.options().max_size(1 << 30);
    let mut writer = options.open_writer().unwrap();
    let reader = options.open_reader().unwrap();
    for _ in 0..2 {
        publish(&mut writer, 1000);
        assert!(reader.pin().is_ok());
    }
    let before = mapped(&dir);
    assert_eq!(before.len(), 4, "two copies, for reading and for writing: {before:#?}");
    for size in [5000, 100_000, 5_000_000, 12_000_000, 3, 12_000_001] {
        publish(&mut writer, size);
        let guard = reader.pin().unwrap();
        assert!(is_filled(&guard, guard.generation()) && guard.len() as u64 == size);
        assert_eq!(mapped(&dir), before);
    }
}

#[test]
fn m2_opening_a_reader_registers_for_the_writers_barrier() {
    const REGISTER_GLOBAL_EXPEDITED: libc::c_long = 1 << 2;
    const GET_REGISTRATIONS: libc::c_long = 1 << 9;
    // SAFETY: no memory is passed.
    let call = |command: libc::c_long| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    let commands = call(0);
    if commands < 0 || commands & REGISTER_GLOBAL_EXPEDITED == 0 || commands & GET_REGISTRATIONS == 0 {
        common::skipped("this kernel does not tell what is registered for membarrier (since 6.3)");
        return;
    }
    let dir = Dir::new();
    let _reader = dir.options().open_reader().unwrap();
    assert_ne!(call(GET_REGISTRATIONS) & REGISTER_GLOBAL_EXPEDITED, 0);
    // SAFETY:
    // - the child makes one system call, and ends with `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let kept = call(GET_REGISTRATIONS) & REGISTER_GLOBAL_EXPEDITED != 0;
        // SAFETY: the call takes no memory and does not return.
        unsafe { libc::_exit(i32::from(!kept)) }
    }
    let mut status = 0;
    // SAFETY:
    // - `status` is writable.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "lost by a fork: {status:#x}");
}

#[test]
fn readers_that_extend_the_file_leave_the_slots_of_others_alone() {
    let dir = Dir::new();
    let options = dir.options().slots(1);
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 5000);
    let path = dir.path().join("x_readers");
    let mut readers = Vec::new();
    for number in 0..40 {
        let slots_before = fs::read(&path).unwrap();
        readers.push(options.open_reader().unwrap());
        assert!(readers[number].has_slot());
        let slots = fs::read(&path).unwrap();
        let taken = 4096 + 128 * number;
        assert_eq!(&slots[4096..taken], &slots_before[4096..taken]);
    }
    let guards: Vec<_> = readers.iter().map(|reader| reader.pin().unwrap()).collect();
    publish(&mut writer, 5000);
    assert!(publish(&mut writer, 5000));
    assert!(guards.iter().all(|guard| is_filled(guard, 1)));
    assert!(File::open(&path).unwrap().metadata().unwrap().len() >= 4096 + 40 * 128);
}
