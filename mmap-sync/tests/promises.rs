//! One process: what `Writer`, `Reader` and `Synchronizer` promise.

mod common;

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use common::{Dir, fill, is_filled};
use mmap_sync::synchronizer::Synchronizer;
use mmap_sync::{Error, Options};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
struct Value {
    version: u32,
    name: String,
    numbers: Vec<f32>,
}

fn value(version: u32, len: usize) -> Value {
    Value { version, name: format!("version {version}"), numbers: vec![version as f32; len] }
}

#[test]
fn what_is_written_is_read() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    assert_eq!(writer.generation(), None);
    assert_eq!(writer.current(), None);
    assert_eq!(reader.generation(), None);
    for generation in 1..10_u64 {
        let bytes = vec![generation as u8; generation as usize * 1000];
        let published = writer.write_bytes(&bytes).unwrap();
        assert_eq!(published.generation, generation);
        assert_eq!(published.bytes, bytes.len() as u64);
        assert!(!published.reset);
        assert_eq!(writer.generation(), Some(generation));
        assert_eq!(writer.current(), Some(&bytes[..]));
        assert_eq!(reader.generation(), Some(generation));
        let guard = reader.pin().unwrap();
        assert_eq!(guard.generation(), generation);
        assert_eq!(&*guard, &bytes[..]);
        assert_eq!(guard.bytes().as_ptr() as usize % 64, 0);
        assert!(guard.is_switched());
        drop(guard);
        assert!(!reader.pin().unwrap().is_switched());
    }
}

#[test]
fn an_empty_value_is_a_value() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    for round in 1..6 {
        writer.write_bytes(b"").unwrap();
        let guard = reader.pin().unwrap();
        assert_eq!((guard.generation(), guard.len()), (round, 0));
    }
    writer.write_bytes(b"x").unwrap();
    assert_eq!(&*reader.pin().unwrap(), b"x");
}

#[test]
fn a_reader_opens_before_the_writer_ever_ran() {
    let dir = Dir::new();
    let reader = dir.options().open_reader().unwrap();
    assert!(matches!(reader.pin(), Err(Error::NotPublished)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a reader makes no files");
    let mut writer = dir.options().open_writer().unwrap();
    writer.write_bytes(b"first").unwrap();
    let start = std::time::Instant::now();
    loop {
        match reader.pin() {
            Ok(guard) => break assert_eq!(&*guard, b"first"),
            Err(Error::NotPublished) if start.elapsed() < Duration::from_secs(30) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn m2_guard_never_changes() {
    let dir = Dir::new();
    for grace in [Duration::ZERO, Duration::from_millis(1)] {
        let mut writer = dir.options().grace(grace).open_writer().unwrap();
        let reader = dir.options().open_reader().unwrap();
        let mut bytes = vec![0; 100_000];
        fill(&mut bytes, 77);
        writer.write_bytes(&bytes).unwrap();
        let guard = reader.pin().unwrap();
        let other = dir.options().open_reader().unwrap();
        for round in 0..50 {
            fill(&mut bytes, 1000 + round);
            writer.write_bytes(&bytes).unwrap();
            assert!(is_filled(&guard, 77));
            assert!(is_filled(&other.pin().unwrap(), 1000 + round));
        }
    }
}

#[test]
fn m3_a_long_held_guard_costs_one_file() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    let idle = dir.options().open_reader().unwrap();
    let bytes = vec![1; 1 << 20];
    writer.write_bytes(&bytes).unwrap();
    writer.write_bytes(&bytes).unwrap();
    drop(idle.pin().unwrap());
    let two = dir.allocated();
    let guard = reader.pin().unwrap();
    let pinned = std::fs::File::open(dir.path().join("x_data_0")).unwrap();
    let resets: Vec<bool> = (0..100).map(|_| writer.write_bytes(&bytes).unwrap().reset).collect();
    assert_eq!(resets.iter().filter(|reset| **reset).count(), 1);
    assert!(resets[1], "the copy is wanted at the second publication after the pin");
    assert_eq!(writer.retired_files(), 1);
    let three = dir.allocated();
    assert!(three > two + (1 << 20) - (1 << 16) && three < two + (1 << 20) + (1 << 16), "{two} {three}");
    assert!(guard.iter().all(|byte| *byte == 1));
    drop(guard);
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    // `idle` still maps the retired file, and holds none of its memory but the first page.
    assert!(pinned.metadata().unwrap().blocks() * 512 <= 4096);
    assert!(dir.allocated() < two + (1 << 16));
    assert_eq!(dir.names(), ["x_data_0", "x_data_1", "x_lock", "x_readers", "x_state"]);
    drop(idle.pin().unwrap());
}

#[test]
fn m3_a_reader_stopped_between_its_two_loads_costs_no_file() {
    use mmap_sync::protocol::pending;
    use std::os::unix::fs::FileExt;
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    writer.write_bytes(b"1").unwrap();
    let reader = dir.options().open_reader().unwrap();
    // What the slot, the first one, looks like when its living owner is stopped there: in the last cell.
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("x_readers")).unwrap();
    let stopped = |cell: u64| file.write_all_at(&cell.to_le_bytes(), 4096 + 32 + 11 * 8).unwrap();
    stopped(pending(1, 0));
    for round in 0..20_u8 {
        assert!(!writer.write_bytes(&[round]).unwrap().reset);
        assert_eq!(&*reader.pin().unwrap(), &[round]);
    }
    assert_eq!(writer.retired_files(), 0);
}

#[test]
fn several_guards_on_several_generations_live_at_once() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    let mut guards = Vec::new();
    let mut bytes = vec![0; 10_000];
    for seed in 0..12 {
        fill(&mut bytes, seed);
        writer.write_bytes(&bytes).unwrap();
        guards.push((seed, reader.pin().unwrap()));
        guards.push((seed, reader.pin().unwrap()));
    }
    writer.write_bytes(b"one too many").unwrap();
    assert!(matches!(reader.pin(), Err(Error::TooManyGuards { limit: 12 })));
    assert!(guards.iter().all(|(seed, guard)| is_filled(guard, *seed)));
    guards.drain(..2);
    assert_eq!(&*reader.pin().unwrap(), b"one too many");
    assert!(guards.iter().all(|(seed, guard)| is_filled(guard, *seed)));
    guards.clear();
    for round in 0..4 {
        writer.write_bytes(&[round; 3]).unwrap();
        assert_eq!(&*reader.pin().unwrap(), [round; 3]);
    }
    assert_eq!(writer.retired_files(), 0);
}

#[test]
fn m5_the_second_writer_is_refused_and_the_next_goes_on() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    assert!(matches!(dir.options().open_writer(), Err(Error::Locked { .. })));
    writer.write_bytes(b"one").unwrap();
    writer.write_bytes(b"two").unwrap();
    drop(writer);
    let mut writer = dir.options().open_writer().unwrap();
    assert_eq!(writer.generation(), Some(2));
    assert_eq!(writer.current(), Some(&b"two"[..]));
    let standby = writer.standby(3).unwrap();
    assert_eq!(standby.holds(), Some(1));
    assert_eq!(standby.bytes(), b"one");
    drop(standby);
    assert_eq!(writer.standby(3).unwrap().holds(), None, "an abandoned copy holds nothing");
    let reader = dir.options().open_reader().unwrap();
    assert_eq!(&*reader.pin().unwrap(), b"two");
    assert_eq!(writer.write_bytes(b"three").unwrap().generation, 3);
    assert_eq!(&*reader.pin().unwrap(), b"three");
}

#[test]
fn left_right_updates_in_place() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().verify(true).open_reader().unwrap();
    let mut model = vec![0_u8; 50_000];
    let mut deltas: Vec<(u64, usize, u8)> = Vec::new();
    for generation in 1..60_u64 {
        let at = (generation as usize * 7919) % (model.len() + generation as usize * 10);
        model.resize(50_000 + generation as usize * 10, 0);
        deltas.push((generation, at, generation as u8));
        model[at] = generation as u8;
        let mut standby = writer.standby(model.len() as u64).unwrap();
        match standby.holds() {
            Some(held) => {
                assert_eq!(held, generation - 2);
                let held_len = standby.held_len() as usize;
                standby.bytes_mut()[held_len..].fill(0);
                for (of, at, byte) in &deltas {
                    if *of > held {
                        standby.bytes_mut()[*at] = *byte;
                        standby.touch(*at as u64..*at as u64 + 1);
                    }
                }
            }
            None => standby.bytes_mut().copy_from_slice(&model),
        }
        standby.publish().unwrap();
        assert_eq!(&*reader.pin().unwrap(), &model[..], "generation {generation}");
    }
}

#[test]
fn typed_values_go_through_writer_and_reader() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().verify(true).open_reader().unwrap();
    for (version, len) in [(1, 10), (2, 1_000_000), (3, 0), (4, 100_000), (5, 7)] {
        writer.write(&value(version, len)).unwrap();
        let guard = reader.pin().unwrap();
        let found = guard.access::<Value>().unwrap();
        assert_eq!(found.version, version);
        assert_eq!(found.name, format!("version {version}"));
        assert_eq!(found.numbers.len(), len);
        assert!(found.numbers.iter().all(|number| *number == version as f32));
    }
}

#[test]
fn m9_wrong_bytes_are_refused_without_unsafe() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    for bytes in [&[][..], &[1], &[0xff; 64], &[0x41; 1000]] {
        writer.write_bytes(bytes).unwrap();
        let guard = reader.pin().unwrap();
        assert!(matches!(guard.access::<Value>(), Err(Error::Invalid { .. })));
        assert!(matches!(guard.access::<Value>(), Err(Error::Invalid { .. })));
    }
    writer.write(&value(3, 3)).unwrap();
    assert_eq!(reader.pin().unwrap().access::<Value>().unwrap().version, 3);
}

#[test]
fn the_published_crates_behaviour_holds() {
    let dir = Dir::new();
    let grace = Duration::from_secs(1);
    let mut writer = Synchronizer::new(dir.prefix());
    let mut reader = Synchronizer::new(dir.prefix());
    // The first read before any write fails cleanly, and makes no file.
    assert!(matches!(reader.read::<Value>(), Err(Error::NotPublished)));
    assert!(reader.version().is_err());
    assert!(!dir.path().join("x_state").exists());
    drop(reader);
    let mut reader = Synchronizer::new(dir.prefix());
    // A read after the first write switches, the next one does not.
    let (size, reset) = writer.write(&value(1, 100), grace).unwrap();
    assert!(size > 0 && !reset);
    assert_eq!(reader.version().unwrap().size(), size);
    for switched in [true, false] {
        let read = reader.read::<Value>().unwrap();
        assert_eq!((read.version.to_native(), read.is_switched()), (1, switched));
    }
    let first = reader.version().unwrap();
    writer.write(&value(2, 200), grace).unwrap();
    assert_ne!(reader.version().unwrap(), first);
    assert!(dir.path().join("x_data_0").exists() && dir.path().join("x_data_1").exists());
    assert!(reader.read::<Value>().unwrap().is_switched());
    // Written twice without a read between.
    writer.write(&value(3, 100), grace).unwrap();
    let (_, reset) = writer.write(&value(4, 200), grace).unwrap();
    assert!(!reset);
    let read = reader.read::<Value>().unwrap();
    assert_eq!((read.version.to_native(), read.numbers.len(), read.is_switched()), (4, 200, true));
    drop(read);
    // A second writer is refused.
    let mut second = Synchronizer::new(dir.prefix());
    assert!(matches!(second.write(&value(5, 5), grace), Err(Error::Locked { .. })));
    // Raw bytes must be an archive of the type.
    let raw = rkyv::to_bytes::<rkyv::rancor::Error>(&value(6, 6)).unwrap();
    writer.write_raw::<Value>(&raw, grace).unwrap();
    assert_eq!(reader.read::<Value>().unwrap().version, 6);
    assert!(matches!(writer.write_raw::<Value>(&raw[1..], grace), Err(Error::Invalid { .. })));
    assert_eq!(reader.read::<Value>().unwrap().version, 6);
}

#[test]
fn a_late_decrement_does_not_slow_the_writer() {
    // In the published crate, a reader that outlived the grace period made every later publication wait for it.
    let dir = Dir::new();
    let grace = Duration::from_millis(5);
    let mut writer = Synchronizer::new(dir.prefix());
    let mut reader = Synchronizer::new(dir.prefix());
    writer.write(&value(1, 1), grace).unwrap();
    let held = reader.read::<Value>().unwrap();
    assert!(!writer.write(&value(2, 1), grace).unwrap().1);
    assert!(writer.write(&value(3, 1), grace).unwrap().1);
    assert_eq!(held.version, 1);
    drop(held);
    for version in 4..50 {
        assert!(!writer.write(&value(version, 1), grace).unwrap().1);
    }
}

#[test]
fn m10_growth_within_the_reservation_and_beyond() {
    let dir = Dir::new();
    let options = dir.options().max_size(1 << 20);
    let mut writer = options.open_writer().unwrap();
    let reader = options.verify(true).open_reader().unwrap();
    let mut held = Vec::new();
    for (seed, len) in
        [1, 5000, 1 << 19, 1 << 20, (1 << 20) + 1, 3 << 20, 100, 5 << 20, 0].into_iter().enumerate()
    {
        let mut bytes = vec![0; len];
        fill(&mut bytes, seed as u64);
        writer.write_bytes(&bytes).unwrap();
        let guard = reader.pin().unwrap();
        assert_eq!(guard.len(), len);
        assert!(is_filled(&guard, seed as u64));
        held.push((seed as u64, guard));
    }
    assert!(held.iter().all(|(seed, guard)| is_filled(guard, *seed)));
}

#[test]
fn m7_modes_are_as_asked() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let options = dir.options().mode(0o644).readers_mode(0o666);
    let mut writer = options.open_writer().unwrap();
    let reader = options.open_reader().unwrap();
    writer.write_bytes(b"1").unwrap();
    let _guard = reader.pin().unwrap();
    writer.write_bytes(b"2").unwrap();
    writer.write_bytes(b"3").unwrap();
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        ["x_state", "x_data_0", "x_data_1", "x_readers", "x_lock"].map(mode),
        [0o644, 0o644, 0o644, 0o666, 0o600]
    );
}

#[test]
fn m1_slots_grow_and_are_taken_again() {
    let dir = Dir::new();
    let options = dir.options().slots(2);
    let mut writer = options.open_writer().unwrap();
    writer.write_bytes(b"1").unwrap();
    let readers: Vec<_> = (0..40).map(|_| options.open_reader().unwrap()).collect();
    assert!(readers.iter().all(|reader| reader.has_slot()));
    let guards: Vec<_> = readers.iter().map(|reader| reader.pin().unwrap()).collect();
    for round in 0..5_u8 {
        writer.write_bytes(&[round; 9]).unwrap();
        assert!(guards.iter().all(|guard| &**guard == b"1"));
    }
    drop(guards);
    drop(readers);
    let size = dir.path().join("x_readers").metadata().unwrap().len();
    let again: Vec<_> = (0..40).map(|_| options.open_reader().unwrap()).collect();
    assert!(again.iter().all(|reader| reader.pin().is_ok()));
    assert_eq!(dir.path().join("x_readers").metadata().unwrap().len(), size);
}

#[test]
fn readers_beyond_the_last_slot_use_the_counters_and_are_never_torn() {
    let dir = Dir::new();
    let options = dir.options().slots(2).max_slots(2);
    let mut writer = options.open_writer().unwrap();
    writer.write_bytes(b"one").unwrap();
    let readers: Vec<_> = (0..4).map(|_| options.open_reader().unwrap()).collect();
    assert_eq!(readers.iter().filter(|reader| !reader.has_slot()).count(), 2);
    let guards: Vec<_> = readers.iter().map(|reader| reader.pin().unwrap()).collect();
    for round in 0..6_u8 {
        writer.write_bytes(&[round; 3]).unwrap();
        assert!(guards.iter().all(|guard| &**guard == b"one"));
        assert_eq!(&*readers[3].pin().unwrap(), [round; 3]);
    }
    drop(guards);
    for round in 0..3_u8 {
        writer.write_bytes(&[round; 3]).unwrap();
        assert!(readers.iter().all(|reader| *reader.pin().unwrap() == [round; 3]));
    }
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    assert!(!writer.write_bytes(b"x").unwrap().reset);
}

#[test]
fn without_membarrier_everybody_passes_fences() {
    let dir = Dir::new();
    let with = dir.options();
    let without = dir.options().membarrier(false);
    for (writers, readers) in [(&with, &without), (&without, &with), (&without, &without)] {
        let mut writer = writers.open_writer().unwrap();
        writer.write_bytes(b"0").unwrap();
        let reader = readers.open_reader().unwrap();
        for round in 0..20_u8 {
            let guard = reader.pin().unwrap();
            let before = guard.to_vec();
            writer.write_bytes(&[round]).unwrap();
            writer.write_bytes(&[round]).unwrap();
            assert_eq!(&*guard, &before[..]);
            drop(guard);
            assert_eq!(&*reader.pin().unwrap(), &[round]);
        }
        writer.heartbeat();
        assert_eq!(writer.retired_files(), 0);
    }
    // A writer that loses membarrier while unfenced readers are open.
    let mut writer = with.open_writer().unwrap();
    let reader = with.open_reader().unwrap();
    drop(reader.pin().unwrap());
    drop(writer);
    writer = without.open_writer().unwrap();
    assert!(writer.write_bytes(b"a").unwrap().reset, "an unfenced slot counts as pinned");
    drop(reader.pin().unwrap());
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    assert!(!writer.write_bytes(b"b").unwrap().reset);
}

#[test]
fn prefaulted_and_huge_pages_read_the_same() {
    let dir = Dir::new();
    let options = dir.options().prefault(true).huge_pages(true);
    let mut writer = options.open_writer().unwrap();
    let reader = options.open_reader().unwrap();
    for seed in 0..6 {
        let mut bytes = vec![0; 3 << 20];
        fill(&mut bytes, seed);
        writer.write_bytes(&bytes).unwrap();
        reader.maintain().unwrap();
        reader.maintain().unwrap();
        // It is the next guard that tells the switch.
        let guard = reader.pin().unwrap();
        assert!(is_filled(&guard, seed) && guard.is_switched());
        drop(guard);
        assert!(!reader.pin().unwrap().is_switched());
    }
}

#[test]
fn a_switch_that_maintenance_met_is_told_by_the_next_guard() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    writer.write_bytes(b"first").unwrap();
    let reader = dir.options().open_reader().unwrap();
    for round in 0..100_u8 {
        // So many that the clock is not looked at for a while.
        for _ in 0..200 {
            drop(reader.pin().unwrap());
        }
        writer.write_bytes(&[round]).unwrap();
        reader.maintain().unwrap();
        let guard = reader.pin().unwrap();
        assert!(guard.is_switched());
        assert_eq!(&*guard, &[round]);
        drop(guard);
        assert!(!reader.pin().unwrap().is_switched());
    }
}

#[test]
fn handles_can_be_sent_to_other_threads() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    writer.write_bytes(b"sent").unwrap();
    let reader = dir.options().open_reader().unwrap();
    std::thread::spawn(move || {
        assert_eq!(&*reader.pin().unwrap(), b"sent");
        writer.write_bytes(b"back").unwrap();
        assert_eq!(&*reader.pin().unwrap(), b"back");
    })
    .join()
    .unwrap();
}

#[test]
fn options_are_checked() {
    let dir = Dir::new();
    for options in [
        Options::new(""),
        dir.options().slots(0),
        dir.options().max_size(0),
        dir.options().max_size(1 << 39),
        Options::new(dir.path().join("a\0b")),
    ] {
        assert!(matches!(options.open_writer(), Err(Error::Option { .. })));
        assert!(matches!(options.open_reader(), Err(Error::Option { .. })));
    }
    let nowhere = Options::new(dir.path().join("missing/x"));
    let error = nowhere.open_writer().unwrap_err().to_string();
    assert!(error.contains("missing/x_lock") && error.contains("No such file"), "{error}");
    nowhere.open_reader().unwrap();
}
