//! Files and directories that are removed, made again, or marked as given up: writer and readers find what is there now.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Dir, fill, is_filled, publish, written};
use mmap_sync::{Error, FileKind};

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn deleted_and_remade_files_are_found_by_writer_and_readers() {
    // Every set of them.
    for bits in 1..1_u32 << FILES.len() {
        let chosen = FILES.iter().enumerate().filter(|(at, _)| bits & 1 << at != 0);
        let delete: Vec<&str> = chosen.map(|(_, name)| *name).collect();
        let dir = Dir::new();
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, 3000);
        publish(&mut writer, 3000);
        let reader = dir.options().open_reader().unwrap();
        let guard = reader.pin().unwrap();
        let other = dir.options().open_reader().unwrap();
        drop(other.pin().unwrap());
        for name in &delete {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let remade = writer.keep_in_place().unwrap();
        // The copy that nobody needs is made when something is published.
        assert_eq!(remade, delete != ["x_data_1"], "{delete:?}");
        assert!(!writer.keep_in_place().unwrap(), "once is enough");
        // What was published last is there again at once.
        assert!(writer.generation().unwrap() >= 2);
        let fresh = dir.options().open_reader().unwrap();
        assert!(is_filled(&fresh.pin().unwrap(), 2), "{delete:?}");
        for _ in 0..4 {
            publish(&mut writer, 3000);
            let fresh = dir.options().open_reader().unwrap();
            assert!(is_filled(&fresh.pin().unwrap(), writer.generation().unwrap()));
        }
        assert!(is_filled(&guard, 2), "deleted {delete:?}");
        drop(guard);
        for reader in [&reader, &other] {
            until("readers find the new files", || {
                let guard = reader.pin().unwrap();
                guard.generation() == writer.generation().unwrap() && is_filled(&guard, guard.generation())
            });
        }
        writer.heartbeat();
        assert_eq!(writer.retired_files(), 0);
    }
}

#[test]
fn a_directory_that_is_replaced_is_found_again() {
    let parent = Dir::new();
    let path = parent.path().join("run");
    fs::create_dir(&path).unwrap();
    let options = mmap_sync::Options::new(path.join("x"));
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 100);
    let reader = options.open_reader().unwrap();
    drop(reader.pin().unwrap());
    fs::rename(&path, parent.path().join("gone")).unwrap();
    let error = writer.write_bytes(b"nowhere").unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.file() == FileKind::Lock), "{error}");
    assert!(is_filled(&reader.pin().unwrap(), 1), "readers go on with what they have");
    fs::create_dir(&path).unwrap();
    publish(&mut writer, 200);
    until("the reader finds the new directory", || reader.pin().unwrap().len() == 200);
    // Another writer has taken the place of this one.
    fs::rename(&path, parent.path().join("gone again")).unwrap();
    fs::create_dir(&path).unwrap();
    let mut other = options.open_writer().unwrap();
    publish(&mut other, 300);
    assert!(matches!(writer.write_bytes(b"mine"), Err(Error::Locked { .. })));
    drop(writer);
    // The old writer says nothing any more; after some seconds readers look at the path.
    until("the reader finds the other writer", || reader.pin().unwrap().len() == 300);
}

#[test]
fn a_superseded_prefix_goes_on_being_readable() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    let reader = dir.options().open_reader().unwrap();
    assert!(!reader.is_superseded());
    writer.supersede();
    assert!(reader.is_superseded());
    assert!(is_filled(&reader.pin().unwrap(), 1));
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    assert!(!reader.is_superseded());
}

#[test]
fn m5_a_writer_killed_at_the_switch_of_names_loses_no_file() {
    // What is left when the writer dies after the fresh file got its name, and before the generation is stored.
    let dir = written();
    let reader = dir.options().open_reader().unwrap();
    let guard = reader.pin().unwrap();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 500);
    drop(writer);
    fs::rename(dir.path().join("x_data_0"), dir.path().join("x_old_2")).unwrap();
    fs::write(dir.path().join("x_data_0"), {
        let mut page = fs::read(dir.path().join("x_data_1")).unwrap();
        page[12..24].fill(0);
        page
    })
    .unwrap();
    let mut writer = dir.options().open_writer().unwrap();
    assert_eq!((writer.generation(), writer.retired_files()), (Some(3), 1));
    for _ in 0..3 {
        let mut standby = writer.standby(700).unwrap();
        let next = standby.next_generation();
        fill(standby.bytes_mut(), next);
        assert!(!standby.publish().unwrap().reset);
    }
    assert!(is_filled(&guard, 2));
    assert_eq!(writer.retired_files(), 1);
    drop(guard);
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    assert!(is_filled(&reader.pin().unwrap(), 6));
}
