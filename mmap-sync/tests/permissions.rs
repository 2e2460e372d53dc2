//! Group and mode of files that are there already.

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use common::{Dir, publish};
use mmap_sync::Error;

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

fn is_root() -> bool {
    // SAFETY:
    // - the call has no preconditions
    unsafe { libc::geteuid() == 0 }
}

fn skipped(test: &str) -> bool {
    if !is_root() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: only root may give files away");
    }
    !is_root()
}

fn found(dir: &Dir, name: &str) -> (u32, u32) {
    let metadata = fs::metadata(dir.path().join(name)).unwrap();
    (metadata.gid(), metadata.permissions().mode() & 0o777)
}

/// Every file that exists, after some publications, some of them to fresh files.
#[test]
fn group_and_modes_of_the_options_hold_for_files_that_exist() {
    if skipped("group_and_modes_of_the_options_hold_for_files_that_exist") {
        return;
    }
    let by_directory = |dir: &Dir, group: u32| {
        chown(dir.path(), None, Some(group)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2750)).unwrap();
    };
    for (mode, readers_mode, group, through_directory) in [
        (0o644, 0o666, None, false),
        (0o600, 0o600, None, false),
        (0o640, 0o660, Some(54_321), false),
        (0o644, 0o660, Some(54_321), false),
        (0o640, 0o660, Some(54_321), true),
    ] {
        let dir = Dir::new();
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, 100);
        publish(&mut writer, 100);
        let reader = dir.options().open_reader().unwrap();
        let _guard = reader.pin().unwrap();
        drop(writer);
        let mut options = dir.options().mode(mode).readers_mode(readers_mode);
        match group {
            Some(group) if through_directory => by_directory(&dir, group),
            group => options = options.group(group),
        }
        let mut writer = options.open_writer().unwrap();
        assert!(writer.refused_permissions().is_empty());
        let said: Vec<String> = writer.corrected_permissions().iter().map(ToString::to_string).collect();
        if let Some(group) = group {
            assert!(said.iter().all(|said| said.contains(&format!("group {group} in place of"))), "{said:?}");
        }
        let is_new =
            |name: &str| mode != 0o640 || group.is_some() || (name == "x_readers" && readers_mode != 0o660);
        assert_eq!(said.len(), FILES.iter().filter(|name| is_new(name)).count(), "{said:?}");
        for round in 0..4 {
            for name in FILES {
                let mode = if name == "x_readers" { readers_mode } else { mode };
                let expected = (group.unwrap_or(found(&dir, "x_lock").0), mode);
                assert_eq!(found(&dir, name), expected, "{name}, publication {round}");
            }
            publish(&mut writer, 100);
        }
    }
}

#[test]
fn a_group_given_by_hand_is_kept_and_new_files_get_it() {
    if skipped("a_group_given_by_hand_is_kept_and_new_files_get_it") {
        return;
    }
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    for name in ["x_state", "x_data_1", "x_readers"] {
        chown(dir.path().join(name), None, Some(54_321)).unwrap();
    }
    publish(&mut writer, 100);
    assert_eq!(found(&dir, "x_data_0"), (54_321, 0o640), "made later");
    drop(writer);
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    assert!(FILES.iter().all(|name| found(&dir, name).0 == 54_321));
}

/// As a user who is no member of the group, in a process of its own.
#[test]
fn a_group_that_may_not_be_given_is_named_and_the_files_stay_usable() {
    const TEST: &str = "a_group_that_may_not_be_given_is_named_and_the_files_stay_usable";
    if let Some(path) = std::env::var_os("BLISS_TEST_AS_NOBODY") {
        return as_nobody(Path::new(&path));
    }
    if skipped(TEST) {
        return;
    }
    let dir = Dir::new();
    chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["--exact", TEST]).env("BLISS_TEST_AS_NOBODY", dir.path()).uid(65_534).gid(65_534);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn as_nobody(directory: &Path) {
    let options = mmap_sync::Options::new(directory.join("x"));
    let refused = options.clone().group(Some(54_321)).open_writer().unwrap_err();
    assert!(matches!(refused, Error::Group { expected: 54_321, found: 65_534, .. }), "{refused}");
    assert!(fs::read_dir(directory).unwrap().all(|entry| !entry.unwrap().path().ends_with("x_new")));
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 100);
    publish(&mut writer, 100);
    drop(writer);
    let mut writer = options.group(Some(54_321)).mode(0o604).open_writer().unwrap();
    let said: Vec<String> = writer.refused_permissions().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    for (said, name) in said.iter().zip(["x_state", "x_readers", "x_data_0", "x_data_1"]) {
        for part in [name, "group 54321", "not permitted", "member"] {
            assert!(said.contains(part), "{said}");
        }
    }
    // Not widened for others either, as long as the group is wrong; but what the mode takes away is taken.
    let mode = fs::metadata(directory.join("x_state")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // No fresh file is needed.
    publish(&mut writer, 100);
    assert_eq!(writer.generation(), Some(3));
}
