//! Good files, damaged as the input says, are read and then written: errors or right bytes, never a crash.
#![no_main]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mmap_sync::{Options, inspect};

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

/// Every byte of a payload says which generation it belongs to.
fn payload(generation: u64) -> Vec<u8> {
    vec![generation as u8; 700 + generation as usize]
}

/// The directory, and the contents of good files.
fn original() -> &'static (PathBuf, Vec<Vec<u8>>) {
    static ORIGINAL: OnceLock<(PathBuf, Vec<Vec<u8>>)> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("mmap-sync-fuzz-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut writer = Options::new(dir.join("x")).slots(2).max_slots(8).open_writer().unwrap();
        for generation in 1..=4 {
            writer.write_bytes(&payload(generation)).unwrap();
        }
        drop(writer);
        let contents = FILES.map(|name| fs::read(dir.join(name)).unwrap()).to_vec();
        (dir, contents)
    })
}

/// Damages of four bytes and more: file and kind, offset, length; and then the bytes, if any are written.
fn damage(mut input: &[u8]) {
    let (dir, _) = original();
    while let [what, low, high, len, rest @ ..] = input {
        let file = OpenOptions::new().write(true).open(dir.join(FILES[usize::from(what & 3)])).unwrap();
        let at = u64::from(u16::from_le_bytes([*low, *high]));
        // Where the fields are, more often than elsewhere.
        let at = if what & 0x40 == 0 { at % 128 } else { at };
        input = rest;
        match what >> 2 & 3 {
            0 => file.set_len(at).unwrap(),
            1 => file.set_len(at * 64).unwrap(),
            _ => {
                let (bytes, rest) = input.split_at(usize::from(*len).min(input.len()));
                file.write_all_at(bytes, at).unwrap();
                input = rest;
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let (dir, contents) = original();
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in FILES.iter().zip(contents) {
        fs::write(dir.join(name), bytes).unwrap();
    }
    damage(input);
    let options = Options::new(dir.join("x")).slots(2).max_slots(8).max_size(1 << 20);
    for verify in [false, true] {
        if let Ok(reader) = options.clone().verify(verify).prefault(!verify).open_reader() {
            for round in 0..3 {
                if round > 0 {
                    let _ = reader.maintain();
                }
                if let Ok(guard) = reader.pin() {
                    let sum: u64 = guard.iter().map(|byte| u64::from(*byte)).sum();
                    assert!(!verify || guard.is_empty() || sum > 0);
                    let _ = guard.access::<Vec<u32>>();
                }
            }
        }
    }
    let _ = inspect::inspect(&options).map(|report| report.to_string());
    let _ = inspect::verify(&options);
    if let Ok(mut writer) = options.open_writer() {
        let reader = options.open_reader();
        for generation in 0..4 {
            if writer.write_bytes(&payload(generation)).is_ok() {
                let guard = reader.as_ref().unwrap().pin().unwrap();
                assert_eq!(*guard, *payload(generation));
            }
        }
    }
});
