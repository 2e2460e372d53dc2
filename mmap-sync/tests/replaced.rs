//! Files that somebody removed, replaced or damaged while guards live: what they look into is left alone.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Dir, is_filled, publish};
use mmap_sync::Error;

fn remove(dir: &Dir, name: &str) {
    fs::remove_file(dir.path().join(name)).unwrap();
}

#[test]
fn m2_a_lost_readers_file_punches_nothing() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    let reader = dir.options().open_reader().unwrap();
    let guard = reader.pin().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    assert_eq!(writer.retired_files(), 1);
    remove(&dir, "x_readers");
    assert!(writer.keep_in_place().unwrap());
    assert!(is_filled(&guard, 1), "the memory of a retired file was given back under a guard");
    assert_eq!(writer.retired_files(), 0, "nobody sees its pins");
    assert!(dir.names().iter().all(|name| !name.contains("_old_")), "{:?}", dir.names());
}

#[test]
fn m2_a_lost_readers_file_is_remembered_by_later_writers() {
    // Lost once, or again before anything was published under the new number.
    for again in [false, true] {
        let dir = Dir::new();
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, 5000);
        publish(&mut writer, 5000);
        let reader = dir.options().open_reader().unwrap();
        let guard = reader.pin().unwrap();
        drop(writer);
        remove(&dir, "x_readers");
        for _ in 0..3 {
            drop(dir.options().open_writer().unwrap());
            // What the new files took over is readable through them.
            assert!(is_filled(&dir.options().open_reader().unwrap().pin().unwrap(), 2));
        }
        if again {
            remove(&dir, "x_readers");
            drop(dir.options().open_writer().unwrap());
        }
        let mut writer = dir.options().open_writer().unwrap();
        let second = dir.options().open_reader().unwrap();
        assert!(is_filled(&second.pin().unwrap(), 2));
        for _ in 0..4 {
            publish(&mut writer, 5000);
            assert!(is_filled(&guard, 2), "overwritten under a guard of before");
        }
        assert!(is_filled(&second.pin().unwrap(), 6));
    }
}

#[test]
fn m2_a_reader_of_replaced_files_does_not_take_the_new_ones_for_its_own() {
    for pause in [0, 3500] {
        let dir = Dir::new();
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, 100);
        let reader = dir.options().open_reader().unwrap();
        drop(writer);
        for name in dir.names() {
            remove(&dir, &name);
        }
        // Another writer comes to the same generation.
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, 5000);
        std::thread::sleep(Duration::from_millis(pause));
        let guard = reader.pin().unwrap();
        assert_eq!(guard.len(), 5000, "the new files are found at once");
        for _ in 0..4 {
            publish(&mut writer, 5000);
            assert!(is_filled(&guard, 1), "pinned where nobody looks");
        }
        assert!(is_filled(&reader.pin().unwrap(), 5));
    }
}

#[test]
fn m2_a_name_left_by_a_failed_switch_gives_nothing_back() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    let reader = dir.options().open_reader().unwrap();
    let guard = reader.pin().unwrap();
    publish(&mut writer, 5000);
    let standby = writer.standby(5000).unwrap();
    remove(&dir, "x_new");
    assert!(matches!(standby.publish(), Err(Error::Io { action: "rename", .. })));
    assert!(dir.names().iter().all(|name| !name.contains("_old_")), "{:?}", dir.names());
    assert!(is_filled(&guard, 2));
    drop(guard);
    // As an earlier version, or a writer killed at that moment, leaves it.
    fs::hard_link(dir.path().join("x_data_0"), dir.path().join("x_old_2")).unwrap();
    publish(&mut writer, 5000);
    let guard = reader.pin().unwrap();
    assert_eq!(guard.generation(), 4);
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    assert!(is_filled(&guard, 4));
    drop(writer);
    let mut writer = dir.options().open_writer().unwrap();
    assert!(is_filled(&guard, 4), "given back through the other name");
    assert_eq!(writer.retired_files(), 1);
    publish(&mut writer, 5000);
    assert!(is_filled(&guard, 4));
    drop(guard);
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    assert!(dir.names().iter().all(|name| !name.contains("_old_")), "{:?}", dir.names());
}

#[test]
fn m5_removing_the_lock_makes_no_two_writers() {
    let dir = Dir::new();
    let mut first = dir.options().open_writer().unwrap();
    publish(&mut first, 5000);
    publish(&mut first, 5000);
    let reader = dir.options().open_reader().unwrap();
    remove(&dir, "x_lock");
    // Nobody else came: it locks the new file, and its readers notice nothing.
    assert!(!publish(&mut first, 5000));
    assert!(!reader.is_superseded());
    assert!(is_filled(&reader.pin().unwrap(), 3));
    assert!(matches!(dir.options().open_writer(), Err(Error::Locked { .. })));
    // Somebody else was faster, and takes over what the first one had put aside.
    let held = reader.pin().unwrap();
    publish(&mut first, 5000);
    assert!(publish(&mut first, 5000));
    remove(&dir, "x_lock");
    let mut second = dir.options().open_writer().unwrap();
    drop(held);
    first.heartbeat();
    assert_eq!((first.retired_files(), second.retired_files()), (1, 1));
    second.heartbeat();
    assert_eq!(second.retired_files(), 0);
    publish(&mut second, 5000);
    let guard = reader.pin().unwrap();
    assert_eq!(guard.generation(), 6);
    for _ in 0..3 {
        assert!(matches!(first.write_bytes(&[9; 5000]), Err(Error::Locked { .. })));
        assert!(matches!(first.keep_in_place(), Err(Error::Locked { .. })));
    }
    assert!(is_filled(&guard, 6));
    publish(&mut second, 5000);
    // The other one is gone: what it published last is where the first one goes on.
    drop(second);
    publish(&mut first, 5000);
    assert_eq!((first.generation(), first.retired_files()), (Some(8), 1));
    assert!(is_filled(&guard, 6));
    assert!(is_filled(&reader.pin().unwrap(), 8));
}

#[test]
fn m5_a_writer_killed_between_the_names_of_readers_and_state_locks_nobody_out() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    let old = dir.options().open_reader().unwrap();
    let guard = old.pin().unwrap();
    drop(writer);
    // `P_readers` was lost; the writer that made it again was killed before it made the state.
    let other = Dir::new();
    drop(other.options().open_writer().unwrap());
    fs::remove_file(dir.path().join("x_readers")).unwrap();
    fs::copy(other.path().join("x_readers"), dir.path().join("x_readers")).unwrap();
    let mut writer = dir.options().open_writer().unwrap();
    assert_eq!(writer.generation(), Some(1));
    let reader = dir.options().open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), 1));
    for _ in 0..3 {
        publish(&mut writer, 5000);
    }
    assert!(is_filled(&guard, 1));
    assert!(is_filled(&reader.pin().unwrap(), 4));
    drop(guard);
    let start = Instant::now();
    while old.pin().map_or(1, |guard| guard.generation()) != 4 {
        assert!(start.elapsed() < Duration::from_secs(20), "the old reader never found the new files");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn m2_with_a_guard_on_replaced_files_a_new_pin_is_an_error_that_says_so() {
    for slots in [1, 2] {
        let dir = Dir::new();
        let options = dir.options().slots(slots).max_slots(slots);
        let mut writer = options.open_writer().unwrap();
        publish(&mut writer, 100);
        let _other = options.open_reader().unwrap();
        let reader = options.open_reader().unwrap();
        assert_eq!(reader.has_slot(), slots == 2);
        let guard = reader.pin().unwrap();
        publish(&mut writer, 100);
        drop(writer);
        for name in dir.names() {
            remove(&dir, &name);
        }
        let mut writer = options.open_writer().unwrap();
        publish(&mut writer, 5000);
        publish(&mut writer, 5000);
        let error = reader.pin().unwrap_err();
        assert!(matches!(error, Error::Replaced { .. }), "{error}");
        assert!(is_filled(&guard, 1) && guard.len() == 100);
        drop(guard);
        let guard = reader.pin().unwrap();
        assert!(is_filled(&guard, 2) && guard.len() == 5000);
        publish(&mut writer, 5000);
        publish(&mut writer, 5000);
        assert!(is_filled(&guard, 2));
    }
}
