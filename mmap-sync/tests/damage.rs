//! Wrong, damaged and foreign files: an error that names the file, or right bytes.

mod common;

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Dir, is_filled, publish, written};
use mmap_sync::Error;

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

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
        if name == "x_readers" {
            // Beside a good state it is made again.
            let refused = dir.options().open_reader().unwrap_err();
            assert!(matches!(refused, Error::Layout { found: 77, expected: 3, .. }), "{refused}");
            let writer = dir.options().open_writer().unwrap();
            assert!(matches!(writer.unusable_readers(), Some(Error::Layout { found: 77, .. })));
            assert!(is_filled(&dir.options().open_reader().unwrap().pin().unwrap(), 2));
            continue;
        }
        let from_writer = dir.options().open_writer().unwrap_err();
        assert!(matches!(from_writer, Error::Layout { found: 77, expected: 3, .. }), "{from_writer}");
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
            if name == "x_readers" && kind == "text" {
                // Those who may write it may have done that. Beside a good state it is made again.
                assert!(dir.options().open_reader().is_err());
                let writer = dir.options().open_writer().unwrap();
                assert!(matches!(writer.unusable_readers(), Some(Error::Foreign { .. })));
                assert!(is_filled(&dir.options().open_reader().unwrap().pin().unwrap(), 2));
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
