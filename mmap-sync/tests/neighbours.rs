//! Others with a right to write `P_readers`: what they do there does not stop the writer.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use common::{Dir, is_filled, lock, lock_shared, publish};
use mmap_sync::{Reader, Writer};

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

#[test]
fn m7_a_neighbour_who_locks_or_scribbles_does_not_stop_the_writer() {
    let dir = Dir::new();
    let mut writer = dir.options().slots(8).open_writer().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    let reader = dir.options().open_reader().unwrap();
    let guard = reader.pin().unwrap();
    // Somebody locks all that can be locked, in every way there is: what readers may only read is locked together with others.
    let mut neighbours = Vec::new();
    for name in FILES {
        let writable = name == "x_readers";
        let file = OpenOptions::new().read(true).write(writable).open(dir.path().join(name)).unwrap();
        file.try_lock().unwrap();
        if !writable {
            assert!(lock_shared(&file, 0, 0) && !lock(&file, 0, 0));
            neighbours.push(file);
            continue;
        }
        // Of the slots all but the reader's own, which is the first: that lock cannot be taken.
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
    let file = neighbours.last().unwrap();
    let mut state = 1_u64;
    for _ in 0..50 {
        let noise: Vec<u8> = (0..size as usize - 4096 - 128)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (state >> 56) as u8
            })
            .collect();
        file.write_all_at(&noise, 4096 + 128).unwrap();
        // The counters of readers without a slot are another test's matter: their lock is held, so these count.
        file.write_all_at(&noise[..40], 24).unwrap();
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
fn m7_a_neighbour_who_truncates_the_slots_does_not_kill_the_writer() {
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

fn file_is_usable_again(dir: &Dir, writer: &mut Writer, reader: &Reader) {
    for _ in 0..3 {
        publish(writer, 1000);
        assert!(is_filled(&reader.pin().unwrap(), writer.generation().unwrap()));
    }
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0, "with the locks gone, nonsense counts as dead readers");
    assert!(dir.names().iter().all(|name| !name.contains("_old_")));
}
