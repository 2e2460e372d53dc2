//! Full file systems, control groups and address spaces: an error, and the old version stays.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Dir, Mount, is_filled, publish};
use mmap_sync::{Error, Writer};

#[test]
fn m8_a_full_file_system_is_an_error_and_the_old_version_stays() {
    let Some(mount) = Mount::new(8) else {
        common::skipped("mounting a small tmpfs needs root");
        return;
    };
    let mut writer = mount.0.options().open_writer().unwrap();
    let reader = mount.0.options().open_reader().unwrap();
    publish(&mut writer, 2 << 20);
    publish(&mut writer, 2 << 20);
    let guard = reader.pin().unwrap();
    let too_much = |writer: &mut Writer, bytes| {
        let error = writer.standby(bytes).map(drop).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(error.to_string().contains("x_data_"), "{error}");
    };
    too_much(&mut writer, 7 << 20);
    assert!(is_filled(&guard, 2));
    let mut standby = writer.standby(1000).unwrap();
    assert_eq!(standby.holds(), Some(1), "a refusal loses nothing");
    assert!(matches!(standby.resize(7 << 20), Err(Error::NoSpace { .. })));
    drop(standby);
    // A value of unknown size.
    assert!(matches!(writer.write(&vec![1_u8; 7 << 20]), Err(Error::NoSpace { .. })));
    assert!(is_filled(&reader.pin().unwrap(), 2));
    publish(&mut writer, 2 << 20);
    // A fresh file that does not fit beside the pinned one and the current one.
    publish(&mut writer, 2 << 20);
    too_much(&mut writer, 4 << 20);
    assert!(is_filled(&guard, 2));
    assert_eq!(mount.0.names().iter().filter(|name| name.ends_with("_new")).count(), 0);
    drop(guard);
    writer.heartbeat();
    for _ in 0..4 {
        publish(&mut writer, 3 << 20);
        assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
    }
    // Full by somebody else's doing, down to the last page.
    let filler = fs::File::create(mount.0.path().join("filler")).unwrap();
    let mut at = 0;
    while filler.write_all_at(&[1; 4096], at).is_ok() {
        at += 4096;
    }
    too_much(&mut writer, 4 << 20);
    publish(&mut writer, 3 << 20);
    assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
    // Opening again where there is no room for the files of another prefix.
    let other = mmap_sync::Options::new(mount.0.path().join("y"));
    let error = other.open_writer().map(drop).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. } | Error::Io { errno: libc::ENOSPC, .. }), "{error}");
}

#[test]
fn m8_memory_comes_back_when_values_shrink() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 8 << 20);
    publish(&mut writer, 8 << 20);
    assert!(dir.allocated() > 16 << 20);
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    assert!(dir.allocated() < 1 << 20);
    publish(&mut writer, 8 << 20);
    assert!(is_filled(writer.current().unwrap(), 5));
    let reader = dir.options().open_reader().unwrap();
    assert!(is_filled(&reader.pin().unwrap(), 5));
}

#[test]
fn m8_a_control_group_without_room_is_an_error_not_a_kill() {
    let dir = Dir::new();
    let name = format!("mmap-sync-test-{}", std::process::id());
    let v1 = Path::new("/sys/fs/cgroup/memory").join(&name);
    let v2 = Path::new("/sys/fs/cgroup").join(&name);
    let (group, limit_file) = if fs::create_dir(&v1).is_ok() {
        (v1, "memory.limit_in_bytes")
    } else if fs::create_dir(&v2).is_ok() && v2.join("memory.max").exists() {
        (v2, "memory.max")
    } else {
        let _ = fs::remove_dir(&v2);
        common::skipped("making a memory control group needs root and a writable cgroup file system");
        return;
    };
    let run = |bytes: &str| {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_mmap-sync-stress"), "publish"]);
        command.arg(dir.prefix()).arg(bytes).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    };
    fs::write(group.join(limit_file), (64_u64 << 20).to_string()).unwrap();
    let small = run("1000000");
    let large = run("200000000");
    let small_again = run("1000000");
    fs::remove_file(dir.path().join("x_data_0")).unwrap();
    fs::remove_file(dir.path().join("x_data_1")).unwrap();
    let start = Instant::now();
    while fs::remove_dir(&group).is_err() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let error = String::from_utf8_lossy(&large.stderr).into_owned();
    assert!(small.status.success() && small_again.status.success(), "{small:?} {small_again:?}");
    assert_eq!(large.status.code(), Some(1), "{large:?}");
    assert!(error.contains("NoSpace") && error.contains("control group"), "{error}");
}

#[test]
fn m10_without_address_space_the_actual_size_is_mapped() {
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        common::skipped("AddressSanitizer needs terabytes of address space");
        return;
    }
    let dir = Dir::new();
    let prefix = dir.prefix();
    let limited = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 600000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_mmap-sync-stress")]);
        command.arg(args[0]).arg(&prefix).args(&args[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    for bytes in ["1000", "5000000", "30000000", "100"] {
        let output = limited(&["publish", bytes]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 50_000);
    let mut reading = limited(&["read", "1"]).spawn().unwrap();
    for size in [50_000, 5_000_000, 1000, 20_000_000, 20_000_000, 5] {
        publish(&mut writer, size);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(reading.wait().unwrap().success());
}
