//! Several logs, rotated in every way, and a daemon that is restarted at any moment.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bliss_core::build::DimensionChange;
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::Schema;
use proptest::prelude::*;

use super::{ALL, LOOK, gzip};
use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{WINDOWED_DIMENSIONS, windowed_dimension};
use crate::access_log::follow::{Follower, LogPaths};
use crate::access_log::parse::Parser;

const START: u64 = 1_431_857_100_000;

/// What happens between two polls; the first number says to which log.
#[derive(Clone, Debug)]
enum Step {
    /// So many whole lines, and then a piece of the next.
    Write(usize, u8, u8),
    /// Another file comes under the path.
    Rename(usize),
    /// The file is copied and truncated; what happens in between.
    CopyTruncate(usize, Between),
    /// The newest rotated file is compressed; what happens before the original is removed.
    Compress(usize, Between),
    Poll,
    /// The daemon is killed, and the next one starts.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Poll,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let log = || 0usize..3;
    let between = || prop_oneof![Just(Between::Nothing), Just(Between::Poll), Just(Between::Restart)];
    prop_oneof![
        4 => (log(), 0u8..4, 0u8..40).prop_map(|(log, lines, piece)| Step::Write(log, lines, piece)),
        1 => log().prop_map(Step::Rename),
        1 => (log(), between()).prop_map(|(log, between)| Step::CopyTruncate(log, between)),
        1 => (log(), between()).prop_map(|(log, between)| Step::Compress(log, between)),
        2 => Just(Step::Poll),
        1 => Just(Step::Restart),
    ]
}

fn aggregator() -> Aggregator {
    let dimensions = WINDOWED_DIMENSIONS.iter().map(|name| windowed_dimension(name).unwrap()).collect();
    let schema = Schema { dimensions, ..Schema::default() };
    let secret = KeySecret([7; SECRET_BYTES]);
    Aggregator::new(&schema, &[0, 1, 2, 3], &secret, AggregateOptions::default()).unwrap()
}

/// Every row of every dimension.
fn rows(aggregator: &mut Aggregator, at_ms: u64) -> Vec<Vec<(u64, Vec<f32>)>> {
    aggregator.restate();
    let dimensions = aggregator.tick(at_ms).dimensions.into_iter().map(|(_, change)| {
        let DimensionChange::Replace(rows) = change else { panic!("restated") };
        let width = (rows.values.len() / rows.keys.len().max(1)).max(1);
        let values = rows.values.chunks(width).map(<[f32]>::to_vec);
        let mut rows: Vec<_> = rows.keys.iter().copied().zip(values).collect();
        rows.sort_by_key(|(key, _)| *key);
        rows
    });
    dimensions.collect()
}

struct Daemon {
    follower: Follower,
    aggregator: Aggregator,
    /// Paths of the requests of each log.
    read: [Vec<String>; 3],
}

impl Daemon {
    fn start(folder: &Path, now_ms: u64) -> Self {
        // It matches rotated files too.
        let paths = LogPaths::globs(folder, &["*access.log*".to_owned()]).unwrap();
        let mut aggregator = aggregator();
        aggregator.start(now_ms);
        Self { follower: Follower::new(paths, ALL), aggregator, read: Default::default() }
    }

    fn poll(&mut self, now: Duration, now_ms: u64) {
        let Self { follower, aggregator, read } = self;
        loop {
            let polled = follower.poll(now, |line| {
                let record = Parser::default().parse(line.bytes).unwrap();
                let path = String::from_utf8(record.path.to_vec()).unwrap();
                let log: usize = path[1..2].parse().unwrap();
                read[log].push(path);
                if line.is_backlog {
                    aggregator.ingest_backlog(&record)
                } else {
                    aggregator.ingest(&record)
                };
            });
            if !polled.more {
                break;
            }
        }
        aggregator.tick(now_ms);
    }
}

struct Site {
    dir: tempfile::TempDir,
    daemon: Daemon,
    now: Duration,
    now_ms: u64,
    written: [Vec<String>; 3],
    /// The rest of a line of which a piece was written.
    pending: [String; 3],
    /// When each log was last there in a poll of this daemon.
    seen: [Option<Duration>; 3],
    /// Whether it held nothing then.
    is_empty: [bool; 3],
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(dir.path(), START);
        let (now, now_ms) = (Duration::ZERO, START);
        let (written, pending, seen, is_empty) = Default::default();
        Self { dir, daemon, now, now_ms, written, pending, seen, is_empty }
    }

    fn path(&self, log: usize, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("{log}.access.log{suffix}"))
    }

    fn append(&self, log: usize, text: &str) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(log, "")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn begin(&mut self, log: usize) -> String {
        let path = format!("/{log}/{}", self.written[log].len());
        let seconds = self.now_ms as f64 / 1000.0;
        let client = self.written[log].len() % 3;
        self.written[log].push(path.clone());
        format!(
            "{{\"msec\":{seconds},\"remote_addr\":\"192.0.2.{client}\",\"status\":200,\
             \"request\":\"GET {path} HTTP/1.1\",\"http_user_agent\":\"agent {log}\"}}\n"
        )
    }

    fn end_line(&mut self, log: usize) {
        let pending = std::mem::take(&mut self.pending[log]);
        if !pending.is_empty() {
            self.append(log, &pending);
        }
    }

    fn write(&mut self, log: usize, lines: u8, piece: u8) {
        for _ in 0..lines {
            self.end_line(log);
            let line = self.begin(log);
            self.append(log, &line);
        }
        self.end_line(log);
        if piece > 0 {
            let mut line = self.begin(log);
            self.pending[log] = line.split_off(usize::from(piece).min(line.len() - 1));
            self.append(log, &line);
        }
    }

    fn poll(&mut self) {
        self.now += LOOK;
        self.now_ms += 1_000;
        for log in 0..3 {
            if let Ok(found) = fs::metadata(self.path(log, "")) {
                self.seen[log] = Some(self.now);
                self.is_empty[log] = found.len() == 0;
            }
        }
        self.daemon.poll(self.now, self.now_ms);
    }

    fn restart(&mut self) {
        self.daemon = Daemon::start(self.dir.path(), self.now_ms);
        self.seen = Default::default();
        self.poll();
        self.check();
    }

    /// Makes room for a new `.1`.
    fn shift(&self, log: usize) {
        for number in (1..50).rev() {
            for gz in ["", ".gz"] {
                let from = self.path(log, &format!(".{number}{gz}"));
                if from.exists() {
                    fs::rename(from, self.path(log, &format!(".{}{gz}", number + 1))).unwrap();
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(log, lines, piece) => self.write(log, lines, piece),
            Step::Poll => self.poll(),
            Step::Restart => self.restart(),
            Step::Rename(log) | Step::CopyTruncate(log, _) if !self.path(log, "").exists() => {}
            Step::Rename(log) => {
                self.see(log);
                self.end_line(log);
                self.shift(log);
                fs::rename(self.path(log, ""), self.path(log, ".1")).unwrap();
            }
            Step::CopyTruncate(log, between) => {
                self.see(log);
                // What comes and is truncated away between two polls is lost; that is documented.
                if self.is_empty[log] {
                    self.poll();
                }
                self.end_line(log);
                self.shift(log);
                fs::copy(self.path(log, ""), self.path(log, ".1")).unwrap();
                self.between(between);
                fs::File::options().write(true).open(self.path(log, "")).unwrap().set_len(0).unwrap();
                self.poll();
            }
            Step::Compress(log, between) => {
                if let Ok(text) = fs::read_to_string(self.path(log, ".1")) {
                    // A file that came and went, and was compressed, before it was ever seen is lost.
                    self.poll();
                    fs::write(self.path(log, ".1.gz"), gzip(&text)).unwrap();
                    self.between(between);
                    fs::remove_file(self.path(log, ".1")).unwrap();
                    // Files between two that are known can be told only while both exist.
                    self.seen[log] = None;
                }
            }
        }
    }

    fn between(&mut self, between: Between) {
        match between {
            Between::Nothing => {}
            Between::Poll => self.poll(),
            Between::Restart => self.restart(),
        }
    }

    /// A log must have been seen, not too long ago, for its rotation to be one.
    fn see(&mut self, log: usize) {
        if self.seen[log].is_none_or(|seen| self.now - seen > 5 * LOOK) {
            self.poll();
        }
    }

    /// Every whole line was read once and in order.
    fn check(&self) {
        for log in 0..3 {
            let whole = self.written[log].len() - usize::from(!self.pending[log].is_empty());
            assert_eq!(self.daemon.read[log], self.written[log][..whole], "log {log}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Each line comes exactly once, whole, and in order, wherever writing was cut, logs were rotated, polling happened and
    /// the daemon was restarted; and in the end a daemon that starts publishes what the one that ran does.
    #[test]
    fn every_line_comes_exactly_once_and_a_restart_gives_the_same_counts(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut site = Site::new();
        // What is there before the first poll has a past.
        site.poll();
        for step in steps {
            site.step(step);
        }
        (0..3).for_each(|log| site.end_line(log));
        site.poll();
        site.check();
        let at_ms = site.now_ms + 10_000;
        let before = rows(&mut site.daemon.aggregator, at_ms);
        site.restart();
        prop_assert_eq!(rows(&mut site.daemon.aggregator, at_ms), before);
    }
}
