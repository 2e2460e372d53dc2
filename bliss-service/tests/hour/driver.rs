//! The thread that makes everything happen, and waits each time until all is as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bliss_core::request::Request;
use bliss_service::demo::traffic::Chance;

use super::Disturbance::{self, *};
use super::common::Daemon;
use super::reader::Reader;
use super::say;
use super::world::{Log, PATIENCE, World, now_ms, now_seconds, open};

/// The thread that makes everything happen.
pub(crate) struct Driver<'a> {
    pub(crate) world: &'a World,
    pub(crate) chance: Chance,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) corrected: bool,
    /// A worker from the beginning.
    pub(crate) reader: Reader,
    pub(crate) probes: u32,
    /// For each disturbance, how often it happened, and how long until features were fresh at worst.
    pub(crate) happened: Vec<(Disturbance, u32, Duration)>,
}

impl Driver<'_> {
    pub(crate) fn start(&mut self) {
        if self.world.log().daemon_starts() {
            self.world.forgotten.fetch_add(1, Ordering::SeqCst);
        }
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.cbm");
        let config = format!(
            "{}[[origin.access_log]]\nname = \"traffic\"\npath = \"access.log\"\nwindows = true\n\
             [[model]]\nname = \"demo\"\nversion = \"1\"\npath = \"{model}\"\n",
            self.modes()
        );
        self.daemon = Some(Daemon::start(&self.world.folder, &config));
    }

    pub(crate) fn modes(&self) -> String {
        let (mode, readers_mode) = self.mode_and_readers_mode();
        let group = self.group().map_or_else(String::new, |group| format!("publish.group = {group}\n"));
        format!("publish.mode = \"{mode:04o}\"\npublish.readers_mode = \"{readers_mode:04o}\"\n{group}")
    }

    pub(crate) fn mode_and_readers_mode(&self) -> (u32, u32) {
        if self.corrected { (0o644, 0o666) } else { (0o640, 0o660) }
    }

    /// Only root may give files to any group.
    pub(crate) fn group(&self) -> Option<u32> {
        // SAFETY:
        // - the call has no preconditions
        let is_root = unsafe { libc::geteuid() } == 0;
        is_root.then_some(if self.corrected { 1 } else { 0 })
    }

    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon runs")
    }

    pub(crate) fn pause(&mut self, most_ms: u64) {
        sleep(Duration::from_millis(self.chance.between(0, most_ms)));
    }

    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
    }

    pub(crate) fn terminate(&mut self) {
        let daemon = self.daemon.take().expect("a daemon runs");
        assert!(daemon.terminate().success());
        let mut log = self.world.log();
        log.kept = log.counted;
    }

    pub(crate) fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Killed => {
                self.kill();
                self.pause(1500);
                self.start();
            }
            Restarted => {
                self.terminate();
                self.start();
            }
            Signalled => {
                let signal = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2][self.chance.below(3)];
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
                    (log.path.clone(), log.make_room())
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
                fs::copy(&log.path, log.make_room()).unwrap();
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
                self.terminate();
                self.corrected = !self.corrected;
                self.start();
            }
        }
    }

    pub(crate) fn remove_files(&mut self, disturbance: Disturbance) {
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
        let spared = self.chance.below(names.len());
        for (at, name) in names.iter().enumerate() {
            let goes = disturbance == FilesRemoved || at != spared && self.chance.below(2) == 0;
            if goes {
                let _ = fs::remove_file(name);
            }
        }
    }

    /// A request of an address that nobody else has.
    pub(crate) fn probe_into(&mut self, log: &mut Log) -> String {
        self.probes += 1;
        let ip = format!("198.19.{}.{}", self.probes / 256, self.probes % 256);
        log.write(&ip, "probe/1", "GET", "/probe", 200, "-");
        ip
    }

    pub(crate) fn wait_for(&mut self, probe: &str) {
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
    pub(crate) fn expect_life(&mut self, since: Instant, what: impl FnOnce() -> String) {
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
    pub(crate) fn expect_fresh(&mut self) {
        let (probe, lines) = {
            let world = self.world;
            let mut log = world.log();
            (self.probe_into(&mut log), log.written.len())
        };
        self.wait_for(&probe);
        self.world.log().counted = lines;
        let started = Instant::now();
        let mut late = None;
        loop {
            if late.is_none() {
                late = Reader::open(self.world).ok();
            }
            let found = late.as_mut().map(|late| {
                late.maintain();
                let unscored = late.client.score(&Request::new(), "", now_seconds()).outcome.err();
                (late.requests_1h(&probe), unscored)
            });
            if found == Some((Ok(1), None)) {
                break;
            }
            self.expect_life(started, || format!("a new worker does not see {probe}: {found:?}"));
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
    pub(crate) fn wrong_files(&self) -> Vec<String> {
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

    /// Waits until every address has the count that the log says, as far as no kill may have forgotten any of it.
    pub(crate) fn expect_counts(&mut self) {
        let started = Instant::now();
        loop {
            let (wrong, all, lines) = {
                let log = self.world.log();
                let expected = log.expected(now_ms());
                let wrong = expected.iter().filter_map(|(ip, expected)| {
                    let found = self.reader.requests_1h(ip);
                    let is_right = found.as_ref().is_ok_and(|found| expected.contains(found));
                    (!is_right).then(|| format!("{ip}: {found:?}, not {expected:?}"))
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
