//! Growth by more than a page fault or two, in several threads: refused on a full file system it leaves nothing behind.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use common::{Dir, Mount, fill, is_filled};
use mmap_sync::{Error, Options, Standby, Writer};

const MIB: u64 = 1 << 20;

fn publish(writer: &mut Writer, bytes: u64) {
    let mut standby = writer.standby(bytes).unwrap();
    prepare(&mut standby);
    standby.publish().unwrap();
}

fn prepare(standby: &mut Standby<'_>) {
    let next = standby.next_generation();
    fill(standby.bytes_mut(), next);
}

fn options(dir: &Dir, threads: Option<usize>) -> Options {
    dir.options().threads(threads)
}

#[test]
fn m8_growth_that_is_refused_gives_all_memory_back() {
    for threads in [Some(0), Some(1), Some(4), Some(64)] {
        let Some(mount) = Mount::new(40) else {
            common::skipped("mounting a small tmpfs needs root");
            return;
        };
        let dir = &mount.0;
        let mut writer = options(dir, threads).open_writer().unwrap();
        publish(&mut writer, 10 * MIB);
        publish(&mut writer, 10 * MIB);
        let reader = dir.options().verify(true).open_reader().unwrap();
        let before = dir.allocated();
        // The copy in place, which is more than the threshold of the threads too large.
        for _ in 0..2 {
            let error = writer.standby(38 * MIB).map(drop).unwrap_err();
            assert!(matches!(error, Error::NoSpace { .. }), "{error}");
            assert_eq!(dir.allocated(), before);
            assert!(is_filled(&reader.pin().unwrap(), 2));
        }
        // What it held, it holds.
        let mut standby = writer.standby(10 * MIB).unwrap();
        assert_eq!((standby.holds(), standby.held_len()), (Some(1), 10 * MIB));
        assert!(is_filled(standby.bytes(), 1));
        assert!(matches!(standby.resize(38 * MIB), Err(Error::NoSpace { .. })));
        assert_eq!(dir.allocated(), before);
        assert!(is_filled(standby.bytes(), 1));
        standby.resize(12 * MIB).unwrap();
        prepare(&mut standby);
        standby.publish().unwrap();
        assert!(is_filled(&reader.pin().unwrap(), 3));
        // A fresh file beside a guard.
        let guard = reader.pin().unwrap();
        publish(&mut writer, 10 * MIB);
        let before = dir.allocated();
        let error = writer.standby(30 * MIB).map(drop).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert_eq!(dir.allocated(), before);
        assert!(!dir.path().join("x_new").exists());
        assert!(is_filled(&guard, 3) && is_filled(&reader.pin().unwrap(), 4));
        // A value of unknown size, after which everything is as it was.
        drop(guard);
        assert!(matches!(writer.write(&vec![1_u8; 39 << 20]), Err(Error::NoSpace { .. })));
        assert!(is_filled(&reader.pin().unwrap(), 4));
        publish(&mut writer, 11 * MIB);
        assert!(is_filled(&reader.pin().unwrap(), 5));
    }
}

#[test]
fn m8_growth_of_an_adopted_copy_that_is_refused_keeps_what_it_held() {
    let Some(mount) = Mount::new(24) else {
        common::skipped("mounting a small tmpfs needs root");
        return;
    };
    let dir = &mount.0;
    // The file ends in the middle of a page: what is reserved is counted to the page before.
    let mut writer = options(dir, Some(2)).open_writer().unwrap();
    publish(&mut writer, 5 * MIB + 100);
    publish(&mut writer, 5 * MIB + 100);
    drop(writer);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("x_data_1")).unwrap();
    file.set_len(4096 + 5 * MIB + 100).unwrap();
    let mut writer = options(dir, Some(2)).open_writer().unwrap();
    assert!(matches!(writer.standby(22 * MIB), Err(Error::NoSpace { .. })));
    let standby = writer.standby(5 * MIB + 100).unwrap();
    assert_eq!(standby.holds(), Some(1));
    assert!(is_filled(standby.bytes(), 1), "given back with what did not fit");
    drop(standby);
    publish(&mut writer, 6 * MIB);
    let reader = dir.options().verify(true).open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), 3));
}

#[test]
fn m8_what_a_file_was_made_longer_by_is_reserved_before_it_is_used() {
    // A writer that was killed between making the file longer and reserving leaves a hole in it.
    let Some(mount) = Mount::new(24) else {
        common::skipped("mounting a small tmpfs needs root");
        return;
    };
    let dir = &mount.0;
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, MIB);
    publish(&mut writer, MIB);
    drop(writer);
    for name in ["x_data_0", "x_data_1"] {
        let file = fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
        file.set_len(4096 + 20 * MIB).unwrap();
    }
    let filler = fs::File::create(dir.path().join("filler")).unwrap();
    let mut at = 0;
    while filler.write_all_at(&[1; 4096], at).is_ok() {
        at += 4096;
    }
    let mut writer = options(dir, Some(4)).open_writer().unwrap();
    assert!(matches!(writer.standby(16 * MIB), Err(Error::NoSpace { .. })));
    publish(&mut writer, MIB);
    filler.set_len(0).unwrap();
    publish(&mut writer, 9 * MIB);
    publish(&mut writer, 9 * MIB);
    let blocks = |name: &str| dir.path().join(name).metadata().unwrap().blocks() * 512;
    assert!(blocks("x_data_0") >= 9 * MIB && blocks("x_data_1") >= 9 * MIB);
    assert!(is_filled(&dir.options().verify(true).open_reader().unwrap().pin().unwrap(), 5));
}

#[test]
fn m2_large_values_copied_in_threads_are_whole_in_every_reader() {
    let dir = Dir::new();
    let mut writer = options(&dir, Some(3)).open_writer().unwrap();
    let values: Vec<Vec<u8>> = (1..=2)
        .map(|seed| {
            let mut value = vec![0; (9 << 20) + 77 * seed as usize];
            fill(&mut value, seed);
            value
        })
        .collect();
    writer.write_bytes(&values[0]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (options, values) = (dir.options(), &values);
            scope.spawn(move || {
                let reader = options.open_reader().unwrap();
                loop {
                    let guard = reader.pin().unwrap();
                    let value = &values[usize::from(guard.generation() % 2 == 0)];
                    // The end first: it is what was stored last.
                    assert!(guard.iter().rev().eq(value.iter().rev()), "torn");
                    if guard.generation() >= 12 {
                        break;
                    }
                }
            });
        }
        for generation in 2..=12 {
            writer.write_bytes(&values[usize::from(generation % 2 == 0)]).unwrap();
        }
    });
}

#[test]
fn m6_a_fork_while_threads_copy_disturbs_nobody() {
    let dir = Dir::new();
    let mut writer = options(&dir, Some(3)).open_writer().unwrap();
    let reader = dir.options().verify(true).open_reader().unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for seed in 1..=12 {
                let mut value = vec![0; 9 << 20];
                fill(&mut value, seed);
                writer.write_bytes(&value).unwrap();
            }
        });
        let mut children = Vec::new();
        while !writing.is_finished() {
            // SAFETY:
            // - the child uses nothing that another thread may hold, and ends with `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // It lives for some publications.
                // SAFETY: the calls take no memory, and the last one does not return.
                unsafe {
                    libc::usleep(5000);
                    libc::_exit(0)
                }
            }
            assert!(pid > 0);
            children.push(pid);
            std::thread::yield_now();
            if children.len() >= 8 {
                children.drain(..).for_each(wait_for);
            }
        }
        children.into_iter().for_each(wait_for);
    });
    let guard = reader.pin().unwrap();
    assert!(guard.generation() == 12 && is_filled(&guard, 12));
}

fn wait_for(pid: i32) {
    let mut status = 0;
    // SAFETY:
    // - `status` is writable.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0);
}

/// Makes a hole of all pages of a file behind the first one, as copying it without its zeros does.
fn punch(file: &fs::File, len: u64) {
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the call takes no memory.
    assert_eq!(unsafe { libc::fallocate(fd, flags, 4096, len as i64) }, 0);
}

#[test]
fn m8_holes_in_an_adopted_copy_are_reserved_before_they_are_written() {
    let Some(mount) = Mount::new(24) else {
        common::skipped("mounting a small tmpfs needs root");
        return;
    };
    let dir = &mount.0;
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5 * MIB);
    publish(&mut writer, 5 * MIB);
    drop(writer);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("x_data_1")).unwrap();
    punch(&file, 5 * MIB);
    let filler = fs::File::create(dir.path().join("filler")).unwrap();
    let mut at = 0;
    while filler.write_all_at(&[1; 4096], at).is_ok() {
        at += 4096;
    }
    let mut writer = dir.options().open_writer().unwrap();
    assert!(is_filled(writer.current().unwrap(), 2));
    let error = writer.write_bytes(&[3; 5 << 20]).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    filler.set_len(0).unwrap();
    publish(&mut writer, 5 * MIB);
    assert!(is_filled(&dir.options().verify(true).open_reader().unwrap().pin().unwrap(), 3));
}
