//! A day of a host in short: the daemon follows made-up traffic while everything happens to it that does on a real host, and
//! readers that score and look up all the time never notice.
//!
//! `make hour` runs it for an hour, `cargo test` for as long as everything takes to happen once. Variables: `BLISS_HOUR_SECONDS`,
//! `BLISS_HOUR_SEED` (a failure prints its own), `BLISS_HOUR_DISTURBANCES` (names, with commas between them, in place of those
//! that are switched on).

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use bliss_core::request::Request;
use bliss_core::score::Status;
use bliss_service::access_log::windows::WINDOWS;
use bliss_service::demo::traffic;
use bliss_store::Client;
use common::{Daemon, directory};

mod common;

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
    (FilesRemoved, false),
    (SomeFilesRemoved, false),
    (FolderMadeAgain, false),
    // Modes and groups of the configuration apply to files that exist.
    (ModesCorrected, false),
];
/// Whether a daemon that starts reads the rotated predecessor of its log.
const READS_PREDECESSOR: bool = false;

/// How much faster than in the demonstration the traffic is.
const SPEED: u64 = 4;
/// A client with an address, a network and a user agent of its own: all its dimensions count the same.
const BEAT: (&str, &str) = ("198.18.0.1", "heartbeat/1");
const DIMENSIONS: [&str; 4] = ["ip", "subnet", "user_agent", "ip_user_agent"];
/// Only there so that a failing test ends.
const PATIENCE: Duration = Duration::from_secs(30);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn now_seconds() -> u32 {
    (now_ms() / 1000) as u32
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }
}

/// The web server's log, and what was ever written to it.
struct Log {
    path: PathBuf,
    file: fs::File,
    /// The number of the file that is written to; each rotation makes one more.
    number: u32,
    /// Address, time, file.
    written: Vec<(String, u64, u32)>,
    /// Lines of earlier files are not known to the daemon.
    known_from: u32,
}

impl Log {
    fn open(path: PathBuf) -> Self {
        let file = open(&path);
        Self { path, file, number: 0, written: Vec::new(), known_from: 0 }
    }

    fn write(&mut self, ip: &str, user_agent: &str, method: &str, path: &str, status: u16, referrer: &str) {
        let now = now_ms();
        let line = format!(
            "{{\"msec\":{}.{:03},\"remote_addr\":\"{ip}\",\"request_method\":\"{method}\",\"request_uri\":\"{path}\",\
             \"status\":{status},\"http_referer\":\"{referrer}\",\"http_user_agent\":\"{user_agent}\"}}\n",
            now / 1000,
            now % 1000
        );
        self.file.write_all(line.as_bytes()).unwrap();
        self.written.push((ip.to_owned(), now, self.number));
    }

    fn predecessor(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    /// What a daemon that starts now finds; returns whether it forgets lines.
    fn daemon_starts(&mut self) -> bool {
        let known_from = self.number.saturating_sub(READS_PREDECESSOR.into());
        let forgets = known_from > self.known_from;
        self.known_from = known_from;
        forgets
    }

    /// `requests_1h` of every address at a publication at `at_ms`.
    fn expected(&self, at_ms: u64) -> HashMap<&str, u32> {
        let hour = &WINDOWS[2];
        let oldest_ms =
            (at_ms.saturating_sub(1) / hour.bucket_ms).saturating_sub(hour.buckets - 1) * hour.bucket_ms;
        let mut counts = HashMap::new();
        for (ip, time_ms, number) in &self.written {
            let counted = counts.entry(ip.as_str()).or_default();
            *counted += u32::from(*number >= self.known_from && (oldest_ms..at_ms).contains(time_ms));
        }
        counts
    }
}

fn open(path: &Path) -> fs::File {
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap()
}

/// What all threads see.
struct World {
    folder: PathBuf,
    log: Mutex<Log>,
    stop: AtomicBool,
    /// A thread panicked.
    failed: AtomicBool,
    /// Daemons that started with less of the log than the one before.
    forgotten: AtomicU64,
    /// Times that published files were removed.
    removed: AtomicU64,
    /// When they last were.
    removed_ms: AtomicU64,
    looked_up: AtomicU64,
    scored: AtomicU64,
    /// Lookups and scores while published files were missing.
    unanswered: AtomicU64,
    started: Instant,
}

impl World {
    fn log(&self) -> MutexGuard<'_, Log> {
        // A thread that panicked ends the test anyway.
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A lookup or score has failed: that is no fault only while removed files are not published again.
    fn unanswered(&self, reason: &dyn std::fmt::Debug) {
        let since = now_ms().saturating_sub(self.removed_ms.load(Ordering::SeqCst));
        assert!(since < PATIENCE.as_millis() as u64, "a worker that has had answers has none: {reason:?}");
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(5));
    }

    fn published(&self) -> PathBuf {
        self.folder.join("shm")
    }
}

/// Ends the other threads, however this one ends.
struct Stop<'a>(&'a World);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.failed.fetch_or(std::thread::panicking(), Ordering::Relaxed);
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Writes requests as they come, without end.
fn write_traffic(world: &World, seed: u64) {
    for piece in 0.. {
        let started = Instant::now();
        for request in traffic::requests(seed.wrapping_add(piece)) {
            let due = Duration::from_millis(request.at_ms / SPEED);
            while started.elapsed() < due {
                if world.is_over() {
                    return;
                }
                sleep((due - started.elapsed().min(due)).min(Duration::from_millis(20)));
            }
            let traffic::Request { ip, user_agent, method, path, status, referrer, .. } = &request;
            world.log().write(ip, user_agent, method, path, *status, referrer);
        }
    }
}

fn write_beats(world: &World) {
    while !world.is_over() {
        world.log().write(BEAT.0, BEAT.1, "GET", "/beat", 200, "-");
        sleep(Duration::from_millis(30));
    }
}

/// A worker.
struct Reader {
    client: Client,
    ip: bliss_core::request::AttributeId,
    user_agent: bliss_core::request::AttributeId,
    /// For each dimension and window, where `requests` is in the vector; unknown before the first lookup.
    columns: Option<[[usize; 3]; 4]>,
    maintained: Instant,
}

impl Reader {
    fn open(world: &World) -> Self {
        let mut client = Client::open(world.published()).unwrap();
        let ip = client.names().attribute("ip").unwrap();
        let user_agent = client.names().attribute("user_agent").unwrap();
        Self { client, ip, user_agent, columns: None, maintained: Instant::now() }
    }

    fn maintain(&mut self) {
        if self.maintained.elapsed() > Duration::from_millis(500) {
            let _ = self.client.maintain();
            self.maintained = Instant::now();
        }
    }

    /// The requests of a client per dimension and window, and each dimension's status.
    fn look_up(&mut self, ip: &str, user_agent: &str) -> Result<([[f32; 3]; 4], [Status; 4]), String> {
        let mut request = Request::new();
        request.set_attribute(self.ip, ip.into());
        request.set_attribute(self.user_agent, user_agent.into());
        let (values, statuses) =
            self.client.look_up(&request, now_seconds()).map_err(|reason| reason.to_string())?;
        let (values, statuses) = (values.to_vec(), <[Status; 4]>::try_from(statuses).unwrap());
        let client = &self.client;
        let columns = self.columns.get_or_insert_with(|| {
            let dimensions = client.scorer().dimensions();
            let find = |dimension: &str, feature: &str| {
                (0..values.len())
                    .find(|at| dimensions.feature_name(*at) == Some((dimension, feature)))
                    .unwrap()
            };
            DIMENSIONS.map(|dimension| {
                [0, 1, 2].map(|at| find(dimension, &format!("requests_{}", WINDOWS[at].name)))
            })
        });
        Ok((columns.map(|windows| windows.map(|at| values[at])), statuses))
    }

    /// `ip.requests_1h`; 0 of an address without a row.
    fn requests_1h(&mut self, ip: &str) -> Result<u32, String> {
        let (requests, statuses) = self.look_up(ip, "")?;
        Ok(if statuses[0] == Status::Fresh { requests[0][2] as u32 } else { 0 })
    }
}

/// Looks up and scores without pause. A torn row, a count that falls, or a request without a score is a failure; the last not
/// while published files are missing.
fn read_on(world: &World, seed: u64) {
    let mut chance = Chance(seed);
    let mut reader = Reader::open(world);
    let (mut highest, mut generation) = (0.0, None);
    let (mut forgotten, mut removed) = (0, 0);
    let addresses: Vec<_> = traffic::requests(seed).into_iter().take(2000).collect();
    while !world.is_over() {
        reader.maintain();
        let (requests, statuses) = match reader.look_up(BEAT.0, BEAT.1) {
            Ok(found) => found,
            Err(reason) => {
                world.unanswered(&reason);
                continue;
            }
        };
        world.looked_up.fetch_add(1, Ordering::Relaxed);
        assert_eq!(statuses, [Status::Fresh; 4], "{requests:?}");
        assert!(requests.iter().all(|dimension| *dimension == requests[0]), "torn: {requests:?}");
        // Before an hour is over, no request leaves its window.
        if requests[0][2] < highest && world.started.elapsed() < Duration::from_secs(55 * 60) {
            assert!(
                forgotten < world.forgotten.load(Ordering::SeqCst),
                "{highest} requests became {}",
                requests[0][2]
            );
            forgotten += 1;
        }
        highest = requests[0][2];
        let read = reader.client.features_generation();
        if read < generation {
            assert!(
                removed < world.removed.load(Ordering::SeqCst),
                "generation {generation:?} became {read:?}"
            );
            removed += 1;
        }
        generation = read;

        let someone = &addresses[chance.below(addresses.len() as u64) as usize];
        let mut request = Request::new();
        request.set_attribute(reader.ip, someone.ip.as_str().into());
        request.set_attribute(reader.user_agent, someone.user_agent.into());
        match reader.client.score(&request, "", now_seconds()).outcome {
            Ok(scored) => {
                assert!((1..=99).contains(&scored.score), "{}", scored.score);
                world.scored.fetch_add(1, Ordering::Relaxed);
            }
            Err(reason) => world.unanswered(&(reason, reader.client.last_error())),
        }
        // A worker is idle most of the time; this leaves the daemon its share of two cores.
        sleep(Duration::from_micros(500));
    }
}

/// Workers that start at any moment, also in the middle of a disturbance. They may find nothing yet, and never a torn row.
fn open_again_and_again(world: &World) {
    while !world.is_over() {
        let mut reader = Reader::open(world);
        for _ in 0..20 {
            if let Ok((requests, _)) = reader.look_up(BEAT.0, BEAT.1) {
                assert!(requests.iter().all(|dimension| *dimension == requests[0]), "torn: {requests:?}");
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// The thread that makes everything happen.
struct Driver<'a> {
    world: &'a World,
    chance: Chance,
    daemon: Option<Daemon>,
    corrected: bool,
    /// A worker from the beginning.
    reader: Reader,
    probes: u32,
    /// For each disturbance, how often it happened, and how long until features were fresh at worst.
    happened: Vec<(Disturbance, u32, Duration)>,
}

impl Driver<'_> {
    fn start(&mut self) {
        if self.world.log().daemon_starts() {
            self.world.forgotten.fetch_add(1, Ordering::SeqCst);
        }
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo.cbm");
        let config = format!(
            "{}[[origin.access_log]]\nname = \"traffic\"\npath = \"access.log\"\n\
             [[model]]\nname = \"demo\"\nversion = \"1\"\npath = \"{model}\"\n",
            self.modes()
        );
        self.daemon = Some(Daemon::start(&self.world.folder, &config));
    }

    fn modes(&self) -> String {
        let (mode, readers_mode) = self.mode_and_readers_mode();
        let group = self.group().map_or_else(String::new, |group| format!("publish.group = {group}\n"));
        format!("publish.mode = \"{mode:04o}\"\npublish.readers_mode = \"{readers_mode:04o}\"\n{group}")
    }

    fn mode_and_readers_mode(&self) -> (u32, u32) {
        if self.corrected { (0o644, 0o666) } else { (0o640, 0o660) }
    }

    /// Only root may give files to any group.
    fn group(&self) -> Option<u32> {
        // SAFETY:
        // - the call has no preconditions
        let is_root = unsafe { libc::geteuid() } == 0;
        is_root.then_some(if self.corrected { 1 } else { 0 })
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon runs")
    }

    fn pause(&mut self, most_ms: u64) {
        sleep(Duration::from_millis(self.chance.below(most_ms)));
    }

    fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Killed => {
                self.kill();
                self.pause(1500);
                self.start();
            }
            Restarted => {
                let daemon = self.daemon.take().expect("a daemon runs");
                assert!(daemon.terminate().success());
                self.start();
            }
            Signalled => {
                let signal = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2][self.chance.below(3) as usize];
                let daemon = self.daemon();
                // SAFETY:
                // - the process is our child and has not been waited for, so its id is still its own
                assert_eq!(unsafe { libc::kill(daemon.child.id() as i32, signal) }, 0);
                sleep(Duration::from_millis(50));
                assert!(daemon.child.try_wait().unwrap().is_none(), "signal {signal} ended it");
            }
            LogRenamed => {
                let (path, old) = {
                    let log = self.world.log();
                    (log.path.clone(), log.predecessor())
                };
                fs::rename(&path, old).unwrap();
                self.pause(300);
                let mut log = self.world.log();
                log.file = open(&path);
                log.number += 1;
            }
            LogTruncated => {
                // What was written since the daemon last read would be lost to it, as to every reader: nothing is.
                let world = self.world;
                let mut log = world.log();
                let probe = self.probe_into(&mut log);
                self.wait_for(&probe);
                fs::copy(&log.path, log.predecessor()).unwrap();
                log.file.set_len(0).unwrap();
                log.number += 1;
            }
            FilesRemoved | SomeFilesRemoved | FolderMadeAgain => self.remove_files(disturbance),
            KilledAndFilesRemoved => {
                self.kill();
                self.remove_files(FilesRemoved);
                self.pause(500);
                self.start();
            }
            ModesCorrected => {
                let daemon = self.daemon.take().expect("a daemon runs");
                assert!(daemon.terminate().success());
                self.corrected = !self.corrected;
                self.start();
            }
        }
    }

    fn remove_files(&mut self, disturbance: Disturbance) {
        let published = self.world.published();
        self.world.removed_ms.store(now_ms(), Ordering::SeqCst);
        self.world.removed.fetch_add(1, Ordering::SeqCst);
        if disturbance == FolderMadeAgain {
            fs::remove_dir_all(&published).unwrap();
            fs::create_dir(&published).unwrap();
            return;
        }
        let mut names: Vec<_> =
            fs::read_dir(&published).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let spared = self.chance.below(names.len() as u64) as usize;
        for (at, name) in names.iter().enumerate() {
            let goes = disturbance == FilesRemoved || at != spared && self.chance.below(2) == 0;
            if goes {
                let _ = fs::remove_file(name);
            }
        }
    }

    /// A request of an address that nobody else has.
    fn probe(&mut self) -> String {
        let world = self.world;
        self.probe_into(&mut world.log())
    }

    fn probe_into(&mut self, log: &mut Log) -> String {
        self.probes += 1;
        let ip = format!("198.19.{}.{}", self.probes / 256, self.probes % 256);
        log.write(&ip, "probe/1", "GET", "/probe", 200, "-");
        ip
    }

    fn wait_for(&mut self, probe: &str) {
        let started = Instant::now();
        loop {
            self.reader.maintain();
            let found = self.reader.requests_1h(probe);
            if found == Ok(1) {
                return;
            }
            self.expect_life(started, || format!("the old worker does not see {probe}: {found:?}"));
        }
    }

    /// Sleeps a little; fails if patience is over or the daemon is.
    fn expect_life(&mut self, since: Instant, what: impl FnOnce() -> String) {
        assert!(!self.world.failed.load(Ordering::Relaxed), "another thread failed; its panic is above");
        let ended = self.daemon().child.try_wait().unwrap();
        assert!(ended.is_none(), "the daemon ended: {ended:?}");
        if since.elapsed() > PATIENCE {
            let what = what();
            panic!("{what}; {:?}", self.daemon().get("/status"));
        }
        sleep(Duration::from_millis(20));
    }

    /// Waits until a request of this moment counts for workers from before and for new ones, and everything is as it was.
    fn expect_fresh(&mut self) {
        let probe = self.probe();
        self.wait_for(&probe);
        let started = Instant::now();
        let mut late = Reader::open(self.world);
        loop {
            late.maintain();
            let found = late.requests_1h(&probe);
            let unscored = late.client.score(&Request::new(), "", now_seconds()).outcome.err();
            if found == Ok(1) && unscored.is_none() {
                break;
            }
            self.expect_life(started, || {
                format!("a new worker does not see {probe}: {found:?}, {unscored:?}")
            });
        }
        loop {
            let wrong = self.wrong_files();
            let ready = self.daemon().get("/readyz").map(|(code, _)| code);
            if wrong.is_empty() && ready == Some(200) {
                return;
            }
            self.expect_life(started, || format!("/readyz: {ready:?}, wrong files: {wrong:?}"));
        }
    }

    /// Files that are missing, or have not the mode and group of the configuration.
    fn wrong_files(&self) -> Vec<String> {
        let (mode, readers_mode) = self.mode_and_readers_mode();
        let needed = ["features_state", "models_state", "features_readers", "models_readers", "counters"];
        let folder = self.world.published();
        let missing =
            needed.iter().filter(|name| !folder.join(name).exists()).map(|name| format!("{name} is missing"));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let wrong = entries.filter_map(|entry| {
            let (name, found) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?);
            if name.ends_with("_lock") {
                // The daemon's own.
                return None;
            }
            let is_readers = name.ends_with("_readers") || name == "counters";
            let expected = if is_readers { readers_mode } else { mode };
            let found_mode = found.permissions().mode() & 0o777;
            let group = self.group().unwrap_or(found.gid());
            let is_wrong = found_mode != expected || found.gid() != group;
            is_wrong.then(|| format!("{name} has mode {found_mode:o} and group {}", found.gid()))
        });
        missing.chain(wrong).collect()
    }

    /// Waits until every address has the count that the log says.
    fn expect_counts(&mut self) {
        let started = Instant::now();
        loop {
            let (wrong, all, lines) = {
                let log = self.world.log();
                let expected = log.expected(now_ms());
                let wrong = expected.iter().filter_map(|(ip, expected)| {
                    let found = self.reader.requests_1h(ip);
                    (found != Ok(*expected)).then(|| format!("{ip}: {found:?}, not {expected}"))
                });
                (wrong.collect::<Vec<_>>(), expected.len(), log.written.len())
            };
            if wrong.is_empty() {
                say(&format!("{all} addresses count what {lines} lines say"));
                return;
            }
            self.reader.maintain();
            let sample: Vec<_> = wrong.iter().take(5).collect();
            self.expect_life(started, || format!("{} of {all} counts are wrong: {sample:?}", wrong.len()));
        }
    }
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
    let world = World {
        folder: folder.path().to_owned(),
        log: Mutex::new(Log::open(folder.path().join("access.log"))),
        stop: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        forgotten: AtomicU64::new(0),
        removed: AtomicU64::new(0),
        removed_ms: AtomicU64::new(0),
        unanswered: AtomicU64::new(0),
        looked_up: AtomicU64::new(0),
        scored: AtomicU64::new(0),
        started: Instant::now(),
    };
    std::thread::scope(|scope| {
        let world = &world;
        let stop = Stop(world);
        let watched = move |run: fn(&World, u64)| {
            move || {
                let _stop = Stop(world);
                run(world, seed);
            }
        };
        let mut threads =
            vec![scope.spawn(watched(write_traffic)), scope.spawn(watched(|world, _| write_beats(world)))];
        let mut driver = Driver {
            world,
            chance: Chance(seed),
            daemon: None,
            corrected: false,
            reader: Reader::open(world),
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
        threads.push(scope.spawn(watched(read_on)));
        threads.push(scope.spawn(watched(|world, seed| read_on(world, seed + 1))));
        threads.push(scope.spawn(watched(|world, _| open_again_and_again(world))));

        let mut rounds = 0;
        while rounds == 0 || world.started.elapsed() < seconds {
            let mut left: Vec<usize> = (0..driver.happened.len()).collect();
            while !left.is_empty() && (rounds == 0 || world.started.elapsed() < seconds) {
                let at = left.swap_remove(driver.chance.below(left.len() as u64) as usize);
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
