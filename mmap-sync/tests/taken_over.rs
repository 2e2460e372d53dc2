//! Names that pass to another writer, or to nobody, right after the last look at them: its files are left alone.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Dir, fill, is_filled};
use mmap_sync::{Error, Options, Standby, Writer};

fn publish(writer: &mut Writer, bytes: u64) {
    let mut standby = writer.standby(bytes).unwrap();
    prepare(&mut standby);
    standby.publish().unwrap();
}

fn prepare(standby: &mut Standby<'_>) {
    let next = standby.next_generation();
    fill(standby.bytes_mut(), next);
}

/// All files of a directory, but for the writer's signs of life.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path.ends_with("x_state") {
            bytes[48..56].fill(0);
        }
        (path, bytes)
    });
    files.collect()
}

/// A writer in a directory of its own, both copies published a moment ago.
fn written(parent: &Dir) -> (PathBuf, Options, Writer) {
    let path = parent.path().join("run");
    fs::create_dir(&path).unwrap();
    let options = Options::new(path.join("x"));
    let mut writer = options.open_writer().unwrap();
    for _ in 0..4 {
        publish(&mut writer, 5000);
    }
    (path, options, writer)
}

#[test]
fn m5_a_directory_that_is_moved_away_is_not_written_into() {
    let parent = Dir::new();
    let (path, options, mut writer) = written(&parent);
    let gone = parent.path().join("gone");
    fs::rename(&path, &gone).unwrap();
    let before = contents(&gone);
    assert!(matches!(writer.write_bytes(b"nowhere"), Err(Error::Io { .. })));
    // Another one moves into it.
    let there = Options::new(gone.join("x"));
    assert!(matches!(there.open_writer(), Err(Error::Locked { .. })), "it has the lock");
    assert!(contents(&gone) == before);
    fs::create_dir(&path).unwrap();
    publish(&mut writer, 5000);
    // Its readers there are told; the copies stay.
    let after = contents(&gone);
    let changed: Vec<_> = after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).collect();
    assert!(changed.iter().all(|(path, _)| path.ends_with("x_state")), "{changed:?}");
    assert!(is_filled(&options.open_reader().unwrap().pin().unwrap(), writer.generation().unwrap()));
}

#[test]
fn m5_another_writer_in_a_new_directory_is_left_alone() {
    let parent = Dir::new();
    let (path, options, mut writer) = written(&parent);
    fs::rename(&path, parent.path().join("gone")).unwrap();
    fs::create_dir(&path).unwrap();
    let mut other = options.open_writer().unwrap();
    publish(&mut other, 700);
    publish(&mut other, 700);
    let before = contents(&path);
    for _ in 0..3 {
        assert!(matches!(writer.write_bytes(b"mine"), Err(Error::Locked { .. })));
        assert!(matches!(writer.keep_in_place(), Err(Error::Locked { .. })));
        writer.heartbeat();
    }
    drop(writer);
    assert!(contents(&path) == before);
    publish(&mut other, 700);
    assert!(is_filled(&options.open_reader().unwrap().pin().unwrap(), 3));
}

#[test]
fn m5_a_fresh_file_of_another_writer_is_neither_taken_nor_removed() {
    for abandoned in [false, true] {
        let parent = Dir::new();
        let (path, options, mut writer) = written(&parent);
        let reader = options.open_reader().unwrap();
        let guard = reader.pin().unwrap();
        publish(&mut writer, 5000);
        let mut standby = writer.standby(5000).unwrap();
        prepare(&mut standby);
        assert!(path.join("x_new").exists());
        fs::rename(&path, parent.path().join("gone")).unwrap();
        fs::create_dir(&path).unwrap();
        // The other one is as far.
        let mut other = options.open_writer().unwrap();
        publish(&mut other, 700);
        let mut others = other.standby(700).unwrap();
        prepare(&mut others);
        assert!(path.join("x_new").exists());
        let before = contents(&path);
        if abandoned {
            drop(standby);
        } else {
            let error = standby.publish().unwrap_err();
            assert!(matches!(error, Error::Locked { .. }), "{error}");
        }
        assert!(contents(&path) == before, "abandoned: {abandoned}");
        others.publish().unwrap();
        assert!(is_filled(&options.open_reader().unwrap().pin().unwrap(), 2));
        assert!(is_filled(&guard, 4));
    }
}

#[test]
fn m5_a_publication_that_another_writer_overtook_is_an_error() {
    let dir = Dir::new();
    let options = dir.options();
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    let mut standby = writer.standby(5000).unwrap();
    prepare(&mut standby);
    fs::remove_file(dir.path().join("x_lock")).unwrap();
    let mut other = options.open_writer().unwrap();
    publish(&mut other, 700);
    let before = contents(dir.path());
    std::thread::sleep(Duration::from_millis(30));
    assert!(matches!(standby.publish(), Err(Error::Locked { .. })));
    assert!(contents(dir.path()) == before);
    let reader = options.verify(true).open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), 3));
}

#[test]
fn a_look_that_failed_is_repeated() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    for _ in 0..3 {
        publish(&mut writer, 5000);
    }
    // The state was moved away, and something else is in its place.
    let (state, elsewhere) = (dir.path().join("x_state"), dir.path().join("elsewhere"));
    fs::rename(&state, &elsewhere).unwrap();
    fs::write(&state, "a text").unwrap();
    for _ in 0..3 {
        let error = writer.keep_in_place().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let error = writer.write_bytes(b"nowhere").unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    fs::rename(&elsewhere, &state).unwrap();
    publish(&mut writer, 5000);
    assert!(is_filled(&dir.options().open_reader().unwrap().pin().unwrap(), 4));
}
