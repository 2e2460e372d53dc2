//! A day of a host in short: the daemon follows made-up traffic while everything happens to it that does on a real host, and
//! readers that score and look up all the time never notice.
//!
//! `make hour` runs it for an hour, `cargo test` for as long as everything takes to happen once. Variables: `BLISS_HOUR_SECONDS`,
//! `BLISS_HOUR_SEED` (a failure prints its own), `BLISS_HOUR_DISTURBANCES` (names, with commas between them, in place of those
//! that are switched on).

use std::fs;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bliss_service::demo::traffic::Chance;
use common::directory;
use driver::Driver;
use reader::{Reader, open_again_and_again, read_on};
use world::{BEAT, Stop, World, now_ms, write_beats, write_traffic};

#[path = "../common/mod.rs"]
mod common;
mod driver;
mod reader;
mod world;

/// What happens to the daemon, its log and its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    /// `kill -9`, and a supervisor that starts it again.
    Killed,
    /// SIGTERM, and a new start.
    Restarted,
    /// SIGHUP, SIGUSR1, SIGUSR2.
    Signalled,
    /// The log is renamed; the server writes to the old one for a while.
    LogRenamed,
    /// The log is copied and truncated in place.
    LogTruncated,
    /// Every published file is removed.
    FilesRemoved,
    /// Some of them are.
    SomeFilesRemoved,
    /// The folder is removed and made again.
    FolderMadeAgain,
    /// `kill -9`, and nothing published is left at the next start.
    KilledAndFilesRemoved,
    /// The configuration's modes and, for root, its group are others at the next start.
    ModesCorrected,
}

use Disturbance::*;

/// What the daemon must take, and whether it can already.
const DISTURBANCES: [(Disturbance, bool); 10] = [
    (Killed, true),
    (Restarted, true),
    (Signalled, true),
    (LogRenamed, true),
    (LogTruncated, true),
    (KilledAndFilesRemoved, true),
    // Vanished files are published again.
    (FilesRemoved, true),
    (SomeFilesRemoved, true),
    (FolderMadeAgain, true),
    // Modes and groups of the configuration apply to files that exist.
    (ModesCorrected, true),
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

/// Where it is seen also when the test passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn switched_on() -> Vec<Disturbance> {
    let Ok(names) = std::env::var("BLISS_HOUR_DISTURBANCES") else {
        return DISTURBANCES.iter().filter(|(_, on)| *on).map(|(disturbance, _)| *disturbance).collect();
    };
    let named = |name: &str| {
        let all = DISTURBANCES.iter().map(|(disturbance, _)| *disturbance);
        let found = all.clone().find(|disturbance| format!("{disturbance:?}") == name.trim());
        found.unwrap_or_else(|| panic!("no disturbance `{name}`; there are {:?}", all.collect::<Vec<_>>()))
    };
    names.split(',').map(named).collect()
}

#[test]
fn s6_an_hour_of_traffic_and_trouble() {
    let seed = variable("BLISS_HOUR_SEED").unwrap_or_else(|| now_ms() % 1_000_000);
    let seconds = Duration::from_secs(variable("BLISS_HOUR_SECONDS").unwrap_or(20));
    let switched_on = switched_on();
    let off: Vec<_> = DISTURBANCES
        .iter()
        .map(|(disturbance, _)| disturbance)
        .filter(|d| !switched_on.contains(d))
        .collect();
    say(&format!("BLISS_HOUR_SEED={seed}, {} s, {switched_on:?}", seconds.as_secs()));
    if !off.is_empty() {
        say(&format!("SKIPPED: of s6_an_hour_of_traffic_and_trouble, what is switched off: {off:?}"));
    }

    let folder = directory();
    fs::create_dir(folder.path().join("shm")).unwrap();
    let world = World::new(folder.path());
    std::thread::scope(|scope| {
        let world = &world;
        let stop = Stop(world);
        let spawn = |run: Box<dyn FnOnce() + Send>| {
            scope.spawn(move || {
                let _stop = Stop(world);
                run();
            })
        };
        let mut threads = vec![
            spawn(Box::new(move || write_traffic(world, seed))),
            spawn(Box::new(move || write_beats(world))),
        ];
        let mut driver = Driver {
            world,
            chance: Chance::new(seed),
            daemon: None,
            corrected: false,
            reader: Reader::open(world).unwrap(),
            probes: 0,
            happened: switched_on.iter().map(|disturbance| (*disturbance, 0, Duration::ZERO)).collect(),
        };
        driver.start();
        driver.expect_fresh();
        // The client that readers look at has been seen, and is never lost again.
        let started = Instant::now();
        while !driver.reader.requests_1h(BEAT.0).is_ok_and(|requests| requests > 0) {
            driver.expect_life(started, || "no beat is seen".into());
        }
        for seed in [seed, seed + 1] {
            // Opened before the first disturbance; what opens in the middle of one is `open_again_and_again`'s.
            let reader = Reader::open(world).unwrap();
            threads.push(spawn(Box::new(move || read_on(world, reader, seed))));
        }
        threads.push(spawn(Box::new(move || open_again_and_again(world))));

        let mut rounds = 0;
        while rounds == 0 || world.started.elapsed() < seconds {
            let mut left: Vec<usize> = (0..driver.happened.len()).collect();
            while !left.is_empty() && (rounds == 0 || world.started.elapsed() < seconds) {
                let at = left.swap_remove(driver.chance.below(left.len()));
                let disturbance = driver.happened[at].0;
                driver.disturb(disturbance);
                let started = Instant::now();
                driver.expect_fresh();
                let took = started.elapsed();
                let (_, times, longest) = &mut driver.happened[at];
                (*times, *longest) = (*times + 1, (*longest).max(took));
                // Some follow at once, some later.
                if driver.chance.below(2) == 0 {
                    driver.pause(if seconds.as_secs() > 120 { 10_000 } else { 1000 });
                }
            }
            rounds += 1;
        }
        for (disturbance, times, longest) in &driver.happened {
            say(&format!(
                "{disturbance:?}: {times} times, fresh again after {} ms at most",
                longest.as_millis()
            ));
        }
        let [looked_up, scored, unanswered] =
            [&world.looked_up, &world.scored, &world.unanswered].map(|count| count.load(Ordering::Relaxed));
        say(&format!("{looked_up} lookups, {scored} scores, {unanswered} without an answer"));
        assert!(looked_up > 100 && scored > 100);
        drop(stop);
        for thread in threads {
            // The scope passes its panic on.
            let _ = thread.join();
        }
        driver.expect_counts();
    });
}
