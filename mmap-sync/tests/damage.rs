//! Wrong, damaged and missing files; full file systems and control groups.

mod common;

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Dir, Mount, fill, is_filled, lock};
use mmap_sync::{Error, FileKind, Reader, Writer};

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

fn publish(writer: &mut Writer, bytes: u64) {
    let mut standby = writer.standby(bytes).unwrap();
    let next = standby.next_generation();
    fill(standby.bytes_mut(), next);
    standby.publish().unwrap();
}

/// Two generations of 10,000 and 9,000 bytes, nobody about.
fn written() -> Dir {
    let dir = Dir::new();
    let mut writer = dir.options().slots(4).open_writer().unwrap();
    publish(&mut writer, 10_000);
    publish(&mut writer, 9_000);
    dir
}

fn copy(from: &Dir, to: &Path) {
    for name in FILES {
        fs::copy(from.path().join(name), to.join(name)).unwrap();
    }
}

/// Reads and then writes: each gives an error that names a file, or works. What is read is right in any case.
fn exercise(dir: &Dir, what: &str) {
    let named = |error: Error| {
        let text = error.to_string();
        let vague = matches!(error, Error::NotPublished);
        assert!(vague || text.contains("x_") || text.contains("directory"), "{what}: {text}");
    };
    match dir.options().verify(true).open_reader() {
        Ok(reader) => match reader.pin() {
            Ok(guard) => assert!(is_filled(&guard, guard.generation()), "{what}: wrong bytes"),
            Err(error) => named(error),
        },
        Err(error) => named(error),
    }
    match dir.options().open_writer() {
        Ok(mut writer) => {
            if let (Some(generation), Some(bytes)) = (writer.generation(), writer.current()) {
                let _ = (generation, bytes.len());
            }
            match writer.write_bytes(b"again") {
                Ok(_) => {
                    assert_eq!(&*dir.options().open_reader().unwrap().pin().unwrap(), b"again", "{what}")
                }
                Err(error) => named(error),
            }
        }
        Err(error) => named(error),
    }
}

#[test]
fn m8_every_prefix_of_every_file() {
    let original = written();
    for name in FILES {
        let size = original.path().join(name).metadata().unwrap().len();
        let mut lengths: Vec<u64> = (0..200).chain((200..size).step_by(61)).collect();
        lengths.extend([size - 1, 4095, 4096, 4097]);
        let dir = Dir::new();
        for len in lengths.into_iter().filter(|len| *len < size) {
            for name in dir.names() {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
            copy(&original, dir.path());
            OpenOptions::new().write(true).open(dir.path().join(name)).unwrap().set_len(len).unwrap();
            exercise(&dir, &format!("{name} of {len} bytes"));
        }
    }
}

#[test]
fn m8_every_byte_of_the_headers_flipped() {
    let original = written();
    for name in FILES {
        let dir = Dir::new();
        for at in (0..256).chain(1024..1100) {
            for name in dir.names() {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
            copy(&original, dir.path());
            let file = OpenOptions::new().read(true).write(true).open(dir.path().join(name)).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            drop(file);
            exercise(&dir, &format!("byte {at} of {name} flipped"));
        }
    }
}

#[test]
fn m8_a_flipped_byte_of_the_payload_is_found_by_its_checksum() {
    let dir = written();
    let file = OpenOptions::new().write(true).open(dir.path().join("x_data_0")).unwrap();
    file.write_all_at(b"!", 4096 + 5000).unwrap();
    let trusting = dir.options().open_reader().unwrap();
    assert!(trusting.pin().is_ok());
    let careful = dir.options().verify(true).open_reader().unwrap();
    let error = careful.pin().unwrap_err();
    assert!(matches!(error, Error::Checksum { generation: 2, .. }), "{error}");
    assert!(error.to_string().contains("x_data_0"));
}

#[test]
fn m8_under_another_boot_id_the_checksum_is_verified_before_anything_is_served() {
    // The layout: boot id at 56 of a copy, under the hash at 80; so the test stamps a whole header.
    for damaged in [false, true] {
        let dir = written();
        for name in ["x_data_0", "x_data_1"] {
            mmap_sync::inspect::stamp_boot_id(&dir.path().join(name), [1, 2]).unwrap();
        }
        if damaged {
            let file = OpenOptions::new().write(true).open(dir.path().join("x_data_0")).unwrap();
            file.write_all_at(b"!", 4096 + 8999).unwrap();
        }
        let reader = dir.options().open_reader().unwrap();
        match reader.pin() {
            Ok(guard) => assert!(!damaged && is_filled(&guard, 2)),
            Err(error) => assert!(damaged && matches!(error, Error::Checksum { .. }), "{error}"),
        }
        let mut writer = dir.options().open_writer().unwrap();
        assert_eq!(writer.generation(), Some(2));
        assert_eq!(writer.current().is_none(), damaged);
        publish(&mut writer, 500);
        assert!(is_filled(&reader.pin().unwrap(), 3));
    }
}

#[test]
fn m8_the_largest_generation_in_a_copy_is_no_overflow() {
    // Found by fuzzing.
    let dir = written();
    let file = OpenOptions::new().write(true).open(dir.path().join("x_data_1")).unwrap();
    file.write_all_at(&[0xff; 8], 16).unwrap();
    exercise(&dir, "the largest generation");
}

#[test]
fn m8_another_layout_version_is_refused_by_name() {
    for name in FILES {
        let dir = written();
        let at = if name == "x_state" { 16 } else { 8 };
        let file = OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
        file.write_all_at(&77_u32.to_le_bytes(), at).unwrap();
        let from_writer = dir.options().open_writer().unwrap_err();
        assert!(matches!(from_writer, Error::Layout { found: 77, expected: 2, .. }), "{from_writer}");
        assert!(from_writer.to_string().contains(name));
        let from_reader = dir.options().open_reader().and_then(|reader| reader.pin().map(drop));
        match from_reader {
            // The other copy was not needed.
            Ok(()) => assert_eq!(name, "x_data_1"),
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }
}

#[test]
fn m8_foreign_files_links_and_directories_are_refused_and_left_alone() {
    for name in FILES.into_iter().chain(["x_lock"]) {
        for kind in ["directory", "link", "text", "fifo"] {
            let dir = written();
            let path = dir.path().join(name);
            let elsewhere = dir.path().join("elsewhere");
            fs::rename(&path, &elsewhere).unwrap();
            match kind {
                "directory" => fs::create_dir(&path).unwrap(),
                "link" => std::os::unix::fs::symlink(&elsewhere, &path).unwrap(),
                "text" => fs::write(&path, "a text of somebody else\n".repeat(1000)).unwrap(),
                _ => {
                    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
                    // SAFETY:
                    // - the path is NUL-terminated.
                    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
                }
            }
            let before = path.symlink_metadata().unwrap().len();
            if name == "x_lock" && kind == "text" {
                continue;
            }
            let error = dir.options().open_writer().map(drop).unwrap_err();
            assert!(error.to_string().contains(name), "{name} as {kind}: {error}");
            if kind == "directory" || kind == "fifo" || kind == "link" {
                assert!(matches!(error, Error::NotRegular { .. }), "{name} as {kind}: {error}");
            }
            let read = dir.options().open_reader().and_then(|reader| reader.pin().map(drop));
            match read {
                Ok(()) => assert!(name == "x_data_1" || name == "x_lock"),
                Err(error) => assert!(error.to_string().contains(name), "{name} as {kind}: {error}"),
            }
            assert_eq!(path.symlink_metadata().unwrap().len(), before);
        }
    }
}

#[test]
fn the_published_crates_state_file_is_neither_read_nor_zeroed() {
    let dir = Dir::new();
    fs::write(dir.path().join("x_state"), [7; 16]).unwrap();
    assert!(matches!(dir.options().open_reader(), Err(Error::Corrupt { found: 16, .. })));
    assert!(matches!(dir.options().open_writer(), Err(Error::Corrupt { found: 16, .. })));
    assert_eq!(fs::read(dir.path().join("x_state")).unwrap(), [7; 16]);
}

#[test]
fn m7_files_of_a_stranger_are_refused() {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        common::skipped("giving files to another user needs root");
        return;
    }
    for name in FILES {
        let dir = written();
        std::os::unix::fs::chown(dir.path().join(name), Some(12_345), None).unwrap();
        let error = dir.options().open_writer().map(drop).unwrap_err();
        assert!(matches!(error, Error::Owner { found: 12_345, expected: 0, .. }), "{error}");
        assert!(error.to_string().contains(name));
        let read = dir.options().open_reader().and_then(|reader| reader.pin().map(drop));
        assert!(name == "x_data_1" || matches!(read, Err(Error::Owner { .. })));
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn deleted_and_remade_files_are_found_by_writer_and_readers() {
    for delete in
        [&FILES[..], &["x_state"], &["x_readers"], &["x_data_0"], &["x_data_1"], &["x_data_0", "x_data_1"]]
    {
        let dir = Dir::new();
        let mut writer = dir.options().open_writer().unwrap();
        publish(&mut writer, 3000);
        publish(&mut writer, 3000);
        let reader = dir.options().open_reader().unwrap();
        let guard = reader.pin().unwrap();
        let other = dir.options().open_reader().unwrap();
        drop(other.pin().unwrap());
        for name in delete {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let remade = writer.keep_in_place().unwrap();
        assert_eq!(remade, delete.contains(&"x_state") || delete.contains(&"x_readers"));
        // What was published last is there again at once, if its file was.
        if remade {
            assert!(writer.generation().unwrap() >= 2);
            let fresh = dir.options().open_reader().unwrap();
            assert!(is_filled(&fresh.pin().unwrap(), 2));
        }
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
    let place = parent.path().join("run");
    fs::create_dir(&place).unwrap();
    let options = mmap_sync::Options::new(place.join("x"));
    let mut writer = options.open_writer().unwrap();
    publish(&mut writer, 100);
    let reader = options.open_reader().unwrap();
    drop(reader.pin().unwrap());
    fs::rename(&place, parent.path().join("gone")).unwrap();
    let error = writer.write_bytes(b"nowhere").unwrap_err();
    assert!(matches!(&error, Error::Io { place, .. } if place.file() == FileKind::Lock), "{error}");
    assert!(is_filled(&reader.pin().unwrap(), 1), "readers go on with what they have");
    fs::create_dir(&place).unwrap();
    publish(&mut writer, 200);
    until("the reader finds the new directory", || reader.pin().unwrap().len() == 200);
    // Another writer has taken the place of this one.
    fs::rename(&place, parent.path().join("gone again")).unwrap();
    fs::create_dir(&place).unwrap();
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
    // Opening anew where there is no room for the files of another prefix.
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

#[test]
fn a_neighbour_who_locks_or_scribbles_does_not_stop_the_writer() {
    let dir = Dir::new();
    let mut writer = dir.options().slots(8).open_writer().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    let reader = dir.options().open_reader().unwrap();
    let guard = reader.pin().unwrap();
    // Somebody locks all that can be locked, in every way there is.
    let mut neighbours = Vec::new();
    for name in FILES {
        let file = OpenOptions::new().read(true).write(true).open(dir.path().join(name)).unwrap();
        file.try_lock().unwrap();
        // Of the slots all but the reader's own, which is the first: that lock is not to be had.
        let end = if name == "x_readers" { 4096 } else { 0 };
        assert!(lock(&file, 0, end), "{name}");
        assert!(end == 0 || lock(&file, 4096 + 128, 0) && !lock(&file, 4096, 1));
        neighbours.push(file);
    }
    for _ in 0..10 {
        publish(&mut writer, 1000);
    }
    assert!(is_filled(&guard, 2));
    drop(guard);
    // Somebody writes nonsense into all slots but the reader's own, which is the first.
    let size = dir.path().join("x_readers").metadata().unwrap().len();
    let file = &neighbours[3];
    let mut state = 1_u64;
    for _ in 0..50 {
        let noise: Vec<u8> = (0..size as usize - 4096 - 128)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (state >> 56) as u8
            })
            .collect();
        file.write_all_at(&noise, 4096 + 128).unwrap();
        file.write_all_at(&noise[..72], 24).unwrap();
        publish(&mut writer, 1000);
        let guard = reader.pin().unwrap();
        let before = guard.generation();
        publish(&mut writer, 1000);
        publish(&mut writer, 1000);
        assert!(is_filled(&guard, before));
    }
    drop(neighbours);
    file_is_usable_again(&dir, &mut writer, &reader);
}

#[test]
fn a_neighbour_who_truncates_the_slots_does_not_kill_the_writer() {
    let dir = Dir::new();
    let mut writer = dir.options().slots(256).open_writer().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    for _ in 0..3 {
        let file = OpenOptions::new().write(true).open(dir.path().join("x_readers")).unwrap();
        file.set_len(4096).unwrap();
        writer.heartbeat();
        publish(&mut writer, 1000);
        let reader = dir.options().open_reader().unwrap();
        assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
        publish(&mut writer, 1000);
    }
}

#[test]
fn the_program_inspects_and_verifies() {
    let dir = written();
    let run = |command: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mmap-sync"));
        let output = program.arg(command).arg(dir.prefix()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    };
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    let _guard = reader.pin().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    let (code, text) = run("inspect");
    let pid = format!("pid {}", std::process::id());
    for part in
        ["generation   4", "alive", &pid, "pins generation 2 for at least", "x_old_2", "x_data_0: 8192 bytes"]
    {
        assert!(code == 0 && text.contains(part), "{part} is not in:\n{text}");
    }
    let (code, text) = run("verify");
    assert!(code == 0 && text.contains("generation 4") && text.contains("not looked at"), "{text}");
    drop(_guard);
    drop(writer);
    let (code, text) = run("verify");
    assert!(code == 0 && text.matches("checksum right").count() == 2, "{text}");
    let file = OpenOptions::new().write(true).open(dir.path().join("x_data_1")).unwrap();
    file.write_all_at(b"!", 4096 + 10).unwrap();
    let (code, text) = run("verify");
    assert!(code == 1 && text.contains("x_data_1") && text.contains("generation 3"), "{text}");
    let nothing = Dir::new();
    let (_, errors) = mmap_sync::inspect::verify(&nothing.options());
    assert!(matches!(errors[..], [Error::NotPublished]));
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

fn file_is_usable_again(dir: &Dir, writer: &mut Writer, reader: &Reader) {
    for _ in 0..3 {
        publish(writer, 1000);
        assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
    }
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0, "with the locks gone, nonsense counts as dead readers");
    assert!(dir.names().iter().all(|name| !name.contains("_old_")));
}
