//! What all threads see: the folder, the web server's log, and what has happened so far.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use bliss_service::access_log::windows::WINDOWS;
use bliss_service::demo::traffic;

/// How much faster than in the demonstration the traffic is.
pub(crate) const SPEED: u64 = 4;
/// How many rotated files are kept.
const KEPT: u32 = 4;
/// A client with an address, a network and a user agent of its own: all its dimensions count the same.
pub(crate) const BEAT: (&str, &str) = ("198.18.0.1", "heartbeat/1");
/// Only there so that a failing test ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) fn now_seconds() -> u32 {
    (now_ms() / 1000) as u32
}

/// The web server's log, and what was ever written to it.
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    pub(crate) file: fs::File,
    /// The number of the file that is written to; each rotation makes one more.
    pub(crate) number: u32,
    pub(crate) written: Vec<Line>,
    /// How many lines the daemon has counted for certain: those up to the last probe that a worker saw.
    pub(crate) counted: usize,
    /// How many of them were in the checkpoint of the last orderly end.
    pub(crate) kept: usize,
}

/// A line that was written.
pub(crate) struct Line {
    pub(crate) ip: String,
    pub(crate) time_ms: u64,
    /// The file that it was written to.
    pub(crate) number: u32,
    /// Whether the daemon cannot have forgotten it. A kill may forget what is in no checkpoint and no file that is kept; a
    /// checkpoint may be newer than the last orderly end.
    pub(crate) is_certain: bool,
}

impl Log {
    pub(crate) fn open(path: PathBuf) -> Self {
        let file = open(&path);
        Self { path, file, number: 0, written: Vec::new(), counted: 0, kept: 0 }
    }

    pub(crate) fn write(
        &mut self,
        ip: &str,
        user_agent: &str,
        method: &str,
        path: &str,
        status: u16,
        referrer: &str,
    ) {
        let now = now_ms();
        let line = format!(
            "{{\"msec\":{}.{:03},\"remote_addr\":\"{ip}\",\"request_method\":\"{method}\",\"request_uri\":\"{path}\",\
             \"status\":{status},\"http_referer\":\"{referrer}\",\"http_user_agent\":\"{user_agent}\"}}\n",
            now / 1000,
            now % 1000
        );
        self.file.write_all(line.as_bytes()).unwrap();
        self.written.push(Line { ip: ip.to_owned(), time_ms: now, number: self.number, is_certain: true });
    }

    /// Where the log goes when it is rotated; what was there has moved on by one, as by logrotate.
    pub(crate) fn make_room(&self) -> PathBuf {
        let rotated = |age: u32| self.path.with_extension(format!("log.{age}"));
        for age in (1..KEPT).rev() {
            // The first rotations find nothing to move.
            let _ = fs::rename(rotated(age), rotated(age + 1));
        }
        rotated(1)
    }

    /// A daemon starts, from the checkpoint and the files that are there; returns whether it may have forgotten lines.
    pub(crate) fn daemon_starts(&mut self) -> bool {
        let oldest = self.number.saturating_sub(KEPT);
        let mut forgets = false;
        for line in self.written.iter_mut().skip(self.kept).filter(|line| line.number < oldest) {
            forgets |= std::mem::take(&mut line.is_certain);
        }
        forgets
    }

    /// `requests_1h` of every address at a publication at `at_ms`: at least, and at most.
    pub(crate) fn expected(&self, at_ms: u64) -> HashMap<&str, RangeInclusive<u32>> {
        let hour = &WINDOWS[2];
        let oldest_ms =
            (at_ms.saturating_sub(1) / hour.bucket_ms).saturating_sub(hour.buckets - 1) * hour.bucket_ms;
        let mut counts = HashMap::new();
        for Line { ip, time_ms, is_certain, .. } in &self.written {
            let range = counts.entry(ip.as_str()).or_insert(0..=0);
            let counts = (oldest_ms..at_ms).contains(time_ms);
            *range = range.start() + u32::from(counts && *is_certain)..=range.end() + u32::from(counts);
        }
        counts
    }
}

pub(crate) fn open(path: &Path) -> fs::File {
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap()
}

/// What all threads see.
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) log: Mutex<Log>,
    pub(crate) stop: AtomicBool,
    /// A thread panicked.
    pub(crate) failed: AtomicBool,
    /// Daemons that started with less of the log than the one before.
    pub(crate) forgotten: AtomicU64,
    /// Times that published files were removed.
    pub(crate) removed: AtomicU64,
    /// When they last were.
    pub(crate) removed_ms: AtomicU64,
    pub(crate) looked_up: AtomicU64,
    pub(crate) scored: AtomicU64,
    /// Lookups and scores while published files were missing.
    pub(crate) unanswered: AtomicU64,
    pub(crate) started: Instant,
}

impl World {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            log: Mutex::new(Log::open(folder.join("access.log"))),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            removed_ms: AtomicU64::new(0),
            looked_up: AtomicU64::new(0),
            scored: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        // A thread that panicked ends the test anyway.
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A lookup or score has failed: that is no fault only while removed files are not published again.
    pub(crate) fn unanswered(&self, reason: &dyn std::fmt::Debug) {
        let since = now_ms().saturating_sub(self.removed_ms.load(Ordering::SeqCst));
        assert!(since < PATIENCE.as_millis() as u64, "a worker that has had answers has none: {reason:?}");
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(5));
    }

    pub(crate) fn published(&self) -> PathBuf {
        self.folder.join("shm")
    }
}

/// Ends the other threads, however this one ends.
pub(crate) struct Stop<'a>(pub(crate) &'a World);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.failed.fetch_or(std::thread::panicking(), Ordering::Relaxed);
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Writes requests as they come, without end.
pub(crate) fn write_traffic(world: &World, seed: u64) {
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

pub(crate) fn write_beats(world: &World) {
    while !world.is_over() {
        world.log().write(BEAT.0, BEAT.1, "GET", "/beat", 200, "-");
        sleep(Duration::from_millis(30));
    }
}
