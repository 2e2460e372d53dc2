//! A writer without free descriptors. Alone in its file, since the limit is the process's.

mod common;

use std::fs::File;

use common::{Dir, is_filled, publish};

#[test]
fn m2_slots_that_readers_added_are_seen_without_free_descriptors_or_memory() {
    for no_memory in [false, true] {
        let dir = Dir::new();
        let options = dir.options().slots(1).max_size(1 << 20);
        let mut writer = options.open_writer().unwrap();
        publish(&mut writer, 5000);
        publish(&mut writer, 5000);
        let _first = options.open_reader().unwrap();
        let reader = options.open_reader().unwrap();
        assert!(reader.has_slot());
        let guard = reader.pin().unwrap();
        let limit = if no_memory { libc::RLIMIT_AS } else { libc::RLIMIT_NOFILE };
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY:
        // - `before` is writable and of the type that the call fills in.
        assert_eq!(unsafe { libc::getrlimit(limit, &mut before) }, 0);
        if no_memory && std::env::var_os("ASAN_OPTIONS").is_some() {
            common::skipped("AddressSanitizer needs terabytes of address space");
            continue;
        }
        let lowered = libc::rlimit { rlim_cur: if no_memory { 1 << 20 } else { 200 }, ..before };
        // SAFETY:
        // - `lowered` is the limit that the call reads.
        assert_eq!(unsafe { libc::setrlimit(limit, &lowered) }, 0);
        let mut all = Vec::with_capacity(256);
        if !no_memory {
            while let Ok(file) = File::open("/dev/null") {
                all.push(file);
            }
        }
        // A fresh file needs a descriptor or a mapping: these may fail, but overwrite nothing.
        let third = writer.write_bytes(&[1; 5000]).map(|published| published.reset);
        let fourth = writer.write_bytes(&[1; 5000]).map(|published| published.reset);
        // SAFETY:
        // - `before` is the limit that the call reads.
        assert_eq!(unsafe { libc::setrlimit(limit, &before) }, 0);
        drop(all);
        assert!(is_filled(&guard, 2), "not scanned: {third:?}, {fourth:?}");
        // Nobody pins generation 1. Without a mapping that is not known, and all with a living owner count.
        assert_eq!(third.ok(), (!no_memory).then_some(false));
        if no_memory {
            assert!(!writer.write_bytes(&[1; 5000]).unwrap().reset);
        }
        fourth.unwrap_err();
        assert!(writer.write_bytes(&[1; 5000]).unwrap().reset);
        drop(guard);
        writer.heartbeat();
        assert_eq!(writer.retired_files(), 0);
    }
}
