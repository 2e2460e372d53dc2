//! A worker that may write `counters` and means harm: the daemon, and what reads for it, lives on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use bliss_core::metrics::SLOT_BYTES;
use bliss_core::request::Request;
use bliss_store::{Client, METRICS, MetricsFile, PublishOptions};
use common::{directory, in_child, wait};

mod common;

fn open(directory: &Path) -> MetricsFile {
    MetricsFile::open(directory, &PublishOptions::default()).unwrap()
}

fn writable(directory: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(directory.join(METRICS)).unwrap()
}

/// Something is counted in each of the first `slots` slots.
fn use_slots(file: &File, slots: u64) {
    (1..=slots).for_each(|slot| file.write_all_at(&[1], slot * SLOT_BYTES as u64 + 8).unwrap());
}

fn read(file: &mut MetricsFile) -> u64 {
    let mut total = 0_u64;
    file.slots(|slot| slot.entries().for_each(|(_, cells)| total += cells.iter().sum::<u64>())).unwrap();
    total
}

/// Each way of shortening, at the moment at which the slot is looked at.
#[test]
fn m7_counters_shortened_while_a_slot_is_read_kill_nobody_who_reads() {
    let slot = SLOT_BYTES as u64;
    for length in [0, 1, 24, 4096, slot - 1, slot, slot + 8, slot + 4096, 2 * slot, 2 * slot + 4097, 3 * slot]
    {
        let dir = directory();
        let child = in_child(|| {
            let mut file = open(dir.path());
            let worker = writable(dir.path());
            use_slots(&worker, 8);
            let mut seen = 0;
            file.slots(|slot| {
                worker.set_len(length).unwrap();
                seen += slot.entries().count();
            })
            .unwrap();
            // The file was replaced, so counts start at 0.
            let again = read(&mut file) == 0;
            use_slots(&writable(dir.path()), 3);
            seen >= 1 && again && read(&mut file) == 3
        });
        assert_eq!(wait(child), 0, "shortened to {length} bytes");
    }
}

/// Whatever is in the file's place is put back within one reading, in bounded time and memory.
#[test]
fn m7_whatever_a_worker_makes_of_counters_is_made_again() {
    type Harm = fn(&Path, &File);
    let harms: [(&str, Harm); 6] = [
        ("emptied", |_, file| file.set_len(0).unwrap()),
        ("shortened by a byte", |_, file| file.set_len(file.metadata().unwrap().len() - 1).unwrap()),
        ("a terabyte long", |_, file| file.set_len(1 << 40).unwrap()),
        ("shortened and as long as before", |_, file| {
            let length = file.metadata().unwrap().len();
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
        }),
        ("another header", |_, file| file.write_all_at(&[0xff; 24], 0).unwrap()),
        ("64 times as many slots", |_, file| {
            file.write_all_at(&65_536_u32.to_le_bytes(), 12).unwrap();
            file.set_len((65_536 + 1) * SLOT_BYTES as u64).unwrap();
            use_slots(file, 2000);
        }),
    ];
    for (name, harm) in harms {
        let dir = directory();
        // The daemon at hand, and the next one.
        for again in [false, true] {
            let child = in_child(|| {
                let mut file = open(dir.path());
                use_slots(&writable(dir.path()), 4);
                let before = read(&mut file);
                harm(dir.path(), &writable(dir.path()));
                if again {
                    file = open(dir.path());
                }
                let start = Instant::now();
                let after = read(&mut file);
                let good = before == 4 && after == 0 && start.elapsed() < Duration::from_secs(1);
                let length = writable(dir.path()).metadata().unwrap().len();
                good && length == 1025 * SLOT_BYTES as u64
            });
            assert_eq!(wait(child), 0, "{name}, by the next daemon: {again}");
        }
    }
}

/// The same at random, both at once, for a second and a half.
#[test]
fn m7_counters_shortened_at_random_kill_nobody_who_reads() {
    let dir = directory();
    drop(open(dir.path()));
    let path = dir.path().to_owned();
    let child = in_child(|| {
        let (mut file, start) = (open(&path), Instant::now());
        while start.elapsed() < Duration::from_millis(1500) {
            // An error is one: it may be replaced by something else in the meantime.
            let _ = file.slots(|slot| assert!(slot.entries().count() < 1000));
        }
        true
    });
    let start = Instant::now();
    let mut rounds = 0_u32;
    while start.elapsed() < Duration::from_millis(1400) {
        let Ok(file) = OpenOptions::new().write(true).open(path.join(METRICS)) else { continue };
        let length = file.metadata().unwrap().len();
        use_slots(&file, 64);
        std::thread::sleep(Duration::from_micros(u64::from(rounds % 7) * 300));
        file.set_len(u64::from(rounds % 5) * 70_000).unwrap();
        file.set_len(length).unwrap();
        rounds += 1;
    }
    assert_eq!(wait(child), 0, "after {rounds} rounds");
    assert!(rounds > 5, "only {rounds} rounds");
}

/// A worker that is between requests while its slot goes away notices it at its next maintenance.
#[test]
fn m7_a_worker_between_requests_survives_shortened_counters() {
    let dir = directory();
    let child = in_child(|| {
        let mut file = open(dir.path());
        let mut client = Client::open(dir.path()).unwrap();
        let mut good = client.metrics_error().is_none();
        writable(dir.path()).set_len(0).unwrap();
        let _ = client.maintain();
        good &= client.metrics_error().is_some();
        // It counts nothing and answers.
        client.score(&Request::new(), "", 1000);
        good &= file.keep_in_place().unwrap();
        let _ = client.maintain();
        client.score(&Request::new(), "", 1000);
        good && client.metrics_error().is_none() && read(&mut file) == 1
    });
    assert_eq!(wait(child), 0);
}

/// A link in its place is not followed by the daemon that makes it again.
#[test]
fn m7_a_link_in_the_place_of_counters_is_replaced() {
    let dir = directory();
    let mut file = open(dir.path());
    let other = dir.path().join("other");
    std::fs::write(&other, "of somebody").unwrap();
    std::fs::remove_file(dir.path().join(METRICS)).unwrap();
    symlink(&other, dir.path().join(METRICS)).unwrap();
    assert_eq!(read(&mut file), 0);
    assert_eq!(std::fs::read(&other).unwrap(), b"of somebody");
    assert!(dir.path().join(METRICS).symlink_metadata().unwrap().is_file());
}
