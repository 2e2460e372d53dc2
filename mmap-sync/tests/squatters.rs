//! Neighbours on the host who make the directory, or can write in it: nobody reads or writes there.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use common::{Dir, publish, skipped};
use mmap_sync::{DirectoryFault, Error, Options};

const STRANGER: u32 = 54_321;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a writer and a reader say of the files `x_*` in this directory.
fn faults(directory: &Path, private: bool) -> [Option<DirectoryFault>; 2] {
    let options = Options::new(directory.join("x")).private_directory(private);
    let fault = |error| match error {
        Error::Directory { why, .. } => why,
        other => panic!("{other}"),
    };
    [options.open_writer().err().map(fault), options.open_reader().err().map(fault)]
}

#[test]
fn m7_a_directory_in_which_others_may_write_is_refused() {
    let dir = Dir::new();
    for (directory_mode, refused) in
        [(0o700, false), (0o755, false), (0o777, true), (0o775, true), (0o1777, false)]
    {
        mode(dir.path(), directory_mode);
        let found = faults(dir.path(), false);
        let expected = refused.then_some(DirectoryFault::Writable(0o40_000 | directory_mode));
        assert_eq!(found, [expected; 2], "{directory_mode:o}");
        assert_eq!(dir.options().check_directory().is_err(), refused);
    }
    assert_eq!(faults(dir.path(), true), [Some(DirectoryFault::Writable(0o41_777)); 2]);
    // One above it, which the error names.
    let below = dir.path().join("below");
    fs::create_dir(&below).unwrap();
    assert_eq!(faults(&below, true), [None; 2]);
    mode(dir.path(), 0o777);
    let error = Options::new(below.join("x")).open_writer().unwrap_err().to_string();
    let expected = format!("{}: may be written by others", dir.path().display());
    assert!(error.starts_with(&expected) && error.contains("chmod go-w"), "{error}");
}

#[test]
fn m7_a_directory_that_is_a_link_is_refused() {
    let dir = Dir::new();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    assert_eq!(faults(&real, false), [None; 2]);
    assert_eq!(faults(&link, false), [Some(DirectoryFault::Link); 2]);
}

#[test]
fn m7_a_strangers_directory_is_refused() {
    let dir = Dir::new();
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    if chown(&theirs, Some(STRANGER), None).is_err() {
        skipped("m7_a_strangers_directory_is_refused: only root may give directories away");
        return;
    }
    // Only this user could have given it to them: they may be the daemon's user. A writer writes in none but its own.
    assert_eq!(faults(&theirs, true), [Some(DirectoryFault::Owner(STRANGER)), None]);
    // Anybody could have made it.
    mode(dir.path(), 0o1777);
    assert_eq!(faults(&theirs, true), [Some(DirectoryFault::Owner(STRANGER)); 2]);
    let named = Options::new(theirs.join("x")).owner(Some(STRANGER));
    assert!(named.check_directory().is_ok() && named.open_reader().is_ok());
}

#[test]
fn m7_a_directory_that_was_squatted_later_gives_readers_nothing() {
    let dir = Dir::new();
    let ours = dir.path().join("ours");
    fs::create_dir(&ours).unwrap();
    let options = Options::new(ours.join("x"));
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 100);
    let reader = options.open_reader().unwrap();
    assert_eq!(reader.pin().unwrap().generation(), 1);
    writer.supersede();
    // The directory goes, and others, who may write where it was, put theirs in its place.
    fs::remove_dir_all(&ours).unwrap();
    mode(dir.path(), 0o777);
    fs::create_dir(&ours).unwrap();
    let elsewhere = Dir::new();
    let mut other = elsewhere.options().open_writer().unwrap();
    for _ in 0..5 {
        publish(&mut other, 100);
    }
    for name in elsewhere.names() {
        fs::copy(elsewhere.path().join(&name), ours.join(&name)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100));
    for _ in 0..300 {
        // What was mapped stays.
        assert_eq!(reader.pin().unwrap().generation(), 1);
    }
    let late = options.open_reader().unwrap_err();
    assert!(matches!(late, Error::Directory { why: DirectoryFault::Writable(_), .. }), "{late}");
}
