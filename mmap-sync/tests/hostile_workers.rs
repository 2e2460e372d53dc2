//! A reader that means harm: it may write `P_readers`, and only read the other files. What it does there neither ends the
//! writer nor keeps it, or other readers, from starting; and what it costs has limits.

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Dir, Mount, is_filled, lock, lock_shared, publish, skipped};
use mmap_sync::protocol::{FREE, committed, pending};
use mmap_sync::{Error, Holding, Options, Writer};

const CAP: u64 = 4096 + 65_536 * 128;

fn readers_of(directory: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(directory.join("x_readers")).unwrap()
}

fn size(file: &File) -> u64 {
    file.metadata().unwrap().len()
}

fn put(file: &File, value: u64, at: u64) {
    file.write_all_at(&value.to_le_bytes(), at).unwrap();
}

/// The current generation is there for readers that come now.
fn reads(options: &Options, writer: &Writer) {
    let reader = options.open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
}

#[test]
fn m7_slots_made_long_and_sparse_neither_kill_nor_cost() {
    // A file system with less room than all slots would take: where there is none, looking kills.
    let mount = Mount::new(1);
    if mount.is_none() {
        skipped("part of m7_slots_made_long_and_sparse_neither_kill_nor_cost: a small tmpfs needs root");
    }
    let elsewhere = Dir::new();
    let small = mount.as_ref().map(|mount| mount.0.path());
    for directory in small.into_iter().chain([elsewhere.path()]) {
        let options = Options::new(directory.join("x"));
        for len in [CAP, CAP + 1, 64 << 30, 1 << 40] {
            // While it runs, and before it starts.
            for before in [false, true] {
                let mut writer = options.open_writer().unwrap();
                publish(&mut writer, 1000);
                let guard_of = options.open_reader().unwrap();
                let pinned = writer.generation().unwrap();
                let guard = guard_of.pin().unwrap();
                let running = (!before).then_some(writer);
                let file = readers_of(directory);
                file.set_len(len).unwrap();
                put(&file, u64::MAX, 24);
                let mut writer = running.unwrap_or_else(|| options.open_writer().unwrap());
                for _ in 0..5 {
                    publish(&mut writer, 1000);
                    writer.heartbeat();
                    reads(&options, &writer);
                }
                assert!(is_filled(&guard, pinned), "the pins of others stay");
                assert!(size(&readers_of(directory)) <= CAP, "{len}");
                drop(guard);
                drop(guard_of);
                writer.heartbeat();
                assert_eq!(writer.retired_files(), 0);
            }
        }
    }
    // Eight megabytes of slots at most, and two copies.
    assert!(elsewhere.allocated() <= CAP + (1 << 16));
}

#[test]
fn m7_a_damaged_head_of_the_slots_keeps_neither_writer_nor_readers_out() {
    for at in [0, 3, 8, 12, 16, 23] {
        for running in [true, false] {
            let dir = Dir::new();
            let mut writer = dir.options().open_writer().unwrap();
            publish(&mut writer, 1000);
            let old = dir.options().open_reader().unwrap();
            let guard = old.pin().unwrap();
            let running_writer = running.then_some(writer);
            let file = readers_of(dir.path());
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            assert!(dir.options().open_reader().is_err(), "byte {at}");
            let mut writer = running_writer.unwrap_or_else(|| {
                let writer = dir.options().open_writer().unwrap();
                // The number that links it to the state may be another one after a writer was killed.
                assert_eq!(writer.unusable_readers().is_some(), at < 16, "byte {at}");
                writer
            });
            // A running one mends the head where it is, at the latest with its next sign of life.
            writer.heartbeat();
            reads(&dir.options(), &writer);
            for _ in 0..4 {
                publish(&mut writer, 1000);
                reads(&dir.options(), &writer);
            }
            assert!(is_filled(&guard, 1));
            drop(guard);
            assert!(old.pin().is_ok());
        }
    }
}

#[test]
fn m3_no_pin_outlasts_the_generation_that_it_names() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 1000);
    let reader = dir.options().open_reader().unwrap();
    drop(reader.pin().unwrap());
    let file = readers_of(dir.path());
    // Everything that a cell can say, in a slot whose owner lives; 3 was a pin of all later generations.
    for value in [committed(1), committed(0), pending(0, 0), pending(0, 1), 3, (1 << 3) | 3, u64::MAX] {
        put(&file, value, 4096 + 32 + 11 * 8);
        let fresh: u32 = (0..20).map(|_| u32::from(publish(&mut writer, 1000))).sum();
        assert!(fresh <= 1, "{value:#x}: {fresh} fresh files");
        put(&file, FREE, 4096 + 32 + 11 * 8);
        publish(&mut writer, 1000);
        writer.heartbeat();
        assert_eq!(writer.retired_files(), 0, "{value:#x}");
    }
}

/// Publishes with a pin on each generation, until it is refused.
fn until_refused(writer: &mut Writer, bytes: u64, mut hold: impl FnMut(u64)) -> Error {
    for _ in 0..1000 {
        let generation = writer.generation().unwrap();
        hold(generation);
        let mut standby = match writer.standby(bytes) {
            Ok(standby) => standby,
            Err(error) => return error,
        };
        common::fill(standby.bytes_mut(), generation + 1);
        standby.publish().unwrap();
    }
    panic!("1,000 generations are held");
}

#[test]
fn m3_files_kept_for_readers_have_a_limit_beyond_which_the_holder_is_named() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 1000);
    let reader = dir.options().open_reader().unwrap();
    let file = readers_of(dir.path());
    // It says in turn in the 65,536 times 12 cells that there may be what is to be held: here in its own and more slots.
    let _others: Vec<_> = (0..10).map(|_| dir.options().open_reader().unwrap()).collect();
    let cell = |generation: u64| {
        let (slot, cell) = ((generation / 12) % 11, generation % 12);
        put(&file, committed(generation), 4096 + 128 * slot + 32 + 8 * cell);
    };
    let error = until_refused(&mut writer, 1000, cell);
    let Error::Held { holder, files, max_files, .. } = &error else { panic!("{error}") };
    assert_eq!((*files, *max_files), (64, 64));
    assert!(matches!(holder, Holding::Slot { pid, .. } if *pid == std::process::id()), "{holder}");
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("x_data_"), "{text}");
    assert!(matches!(writer.holder(), Some(Holding::Slot { .. })));
    // The last publication stays, and it goes on as soon as they let go.
    let last = writer.generation().unwrap();
    assert!(is_filled(&dir.options().open_reader().unwrap().pin().unwrap(), last));
    assert!(matches!(writer.standby(10), Err(Error::Held { .. })));
    for slot in 0..11 {
        (0..12).for_each(|cell| put(&file, FREE, 4096 + 128 * slot + 32 + 8 * cell));
    }
    publish(&mut writer, 1000);
    assert_eq!((writer.retired_files(), writer.retired_bytes(), writer.holder()), (0, 0, None));
    drop(reader);
}

#[test]
fn m3_bytes_kept_for_readers_have_a_limit() {
    let dir = Dir::new();
    let options = dir.options().max_retired_bytes(Some(10 << 20));
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 1 << 20);
    let reader = options.open_reader().unwrap();
    let mut guards = Vec::new();
    let error = until_refused(&mut writer, 1 << 20, |_| guards.push(reader.pin().unwrap()));
    assert!(matches!(error, Error::Held { files: 9, max_bytes, .. } if max_bytes == 10 << 20), "{error}");
    assert!(dir.allocated() < 12 << 20 | 1 << 18);
    assert!(guards.iter().all(|guard| is_filled(guard, guard.generation())));
    drop(guards);
    publish(&mut writer, 1 << 20);
    assert_eq!(writer.retired_files(), 0);
}

#[test]
fn m3_counters_that_say_held_for_ever_have_the_same_limit() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 1000);
    // Who may only read the state can share its lock, and not exclude the writer from it without being a reader.
    let state = File::open(dir.path().join("x_state")).unwrap();
    assert!(lock_shared(&state, 96, 1) && !lock(&state, 96, 1));
    let file = readers_of(dir.path());
    let error = until_refused(&mut writer, 1000, |_| put(&file, u64::MAX, 64));
    assert!(matches!(error, Error::Held { holder: Holding::Counters, files: 64, .. }), "{error}");
    assert_eq!(writer.holder(), Some(Holding::Counters));
    drop(state);
    publish(&mut writer, 1000);
    assert_eq!(writer.retired_files(), 0, "with the lock gone, those who counted are dead");
}

#[test]
fn m7_a_lock_on_all_slots_keeps_no_reader_out() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 1000);
    let neighbour = readers_of(dir.path());
    assert!(lock(&neighbour, 0, 0));
    let length = size(&neighbour);
    let readers: Vec<_> = (0..20).map(|_| dir.options().open_reader().unwrap()).collect();
    assert!(readers.iter().all(|reader| !reader.has_slot()), "and they say so");
    assert_eq!(size(&neighbour), length, "nothing is made longer for slots that are locked too");
    let guards: Vec<_> = readers.iter().map(|reader| reader.pin().unwrap()).collect();
    for _ in 0..10 {
        publish(&mut writer, 1000);
    }
    assert!(guards.iter().all(|guard| is_filled(guard, 1)));
    // With the lock gone their counts still hold.
    drop(neighbour);
    for _ in 0..10 {
        publish(&mut writer, 1000);
        writer.heartbeat();
    }
    assert!(guards.iter().all(|guard| is_filled(guard, 1)));
    drop(guards);
    publish(&mut writer, 1000);
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
}

#[test]
fn m7_cells_full_of_announcements_do_not_hold_the_writer_up() {
    let dir = Dir::new();
    let mut writer = dir.options().slots(4096).open_writer().unwrap();
    publish(&mut writer, 1000);
    let reader = dir.options().open_reader().unwrap();
    let file = readers_of(dir.path());
    put(&file, 4096, 24);
    for round in 0..20 {
        for slot in 1..4096 {
            file.write_all_at(&1_u32.to_le_bytes(), 4096 + 128 * slot + 4).unwrap();
            let cells: Vec<u8> = (0..12).flat_map(|_| pending(0, round & 1).to_le_bytes()).collect();
            file.write_all_at(&cells, 4096 + 128 * slot + 32).unwrap();
        }
        assert!(!publish(&mut writer, 1000), "an announcement costs no file");
        assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
    }
}

/// Sets it when dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The worker truncates the slots and makes them long again all the time, also while the writer looks at them.
#[test]
fn m7_a_writer_that_survives_truncation_lives_whenever_it_happens() {
    let dir = Dir::new();
    let options = dir.options().slots(2048).survive_truncation(true);
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 1000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // What has the name now: it is made again all the time.
                let path = dir.path().join("x_readers");
                let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { continue };
                for _ in 0..20 {
                    let _ = file.set_len(0);
                    let _ = file.set_len(CAP);
                    // Otherwise nothing would be looked at.
                    let _ = file.write_all_at(&2048_u64.to_le_bytes(), 24);
                }
            }
        });
        let (mut made_again, mut failed) = (0, 0);
        for _ in 0..2000 {
            made_again += u32::from(writer.keep_in_place().unwrap_or_default());
            // Now and then the new file is truncated before it can be used: an error, and the next attempt.
            failed += u32::from(writer.write_bytes(&[7; 1000]).is_err());
            writer.heartbeat();
        }
        eprintln!("made again {made_again} times, {failed} of 2,000 publications failed");
    });
    writer.keep_in_place().unwrap();
    publish(&mut writer, 1000);
    reads(&options, &writer);
}
