//! A replay, an origin that is not stopped and one that is give the same rows, bit for bit. The origin is the real one; only
//! its clock is the test's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bliss_core::build::{Change, DimensionChange};
use tokio_util::sync::CancellationToken;

use crate::access_log::aggregate::Aggregator;
use crate::access_log::replay::{Event, Replay, ReplayOptions};
use crate::checkpoint::{Keep, Meaning, identity};
use crate::config::Config;
use crate::origin::access_log::keeper::Keeper;
use crate::origin::access_log::thread::{Following, LogThread, Step};
use crate::origin::{Context, OriginKind};
use crate::publish::start_with;
use crate::state::State;
use crate::test_support::{Kept, SECRET};

const START: u64 = 1_431_856_800_000;
const MINUTE: u64 = 60_000;
/// The site's log is so long.
const END: u64 = START + 300 * MINUTE;

type Rows = BTreeMap<(usize, u64), Vec<u32>>;

/// Some hundred lines over five hours: people with sessions and assets, robots, errors, silence.
fn lines() -> Vec<(u64, String)> {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut lines = Vec::new();
    let mut time_ms = START;
    while lines.len() < 700 {
        // An hour without anybody in the middle.
        time_ms += 1 + next(50_000) + if lines.len() == 350 { 60 * MINUTE } else { 0 };
        let client = next(30);
        let path = match next(6) {
            0 => "/style.css",
            1 => "/image.png",
            2 if client > 20 => "/robots.txt",
            3 => "/old",
            _ => "/page",
        };
        let referrer = if client > 20 { "-" } else { "https://shop.example/page" };
        let line = format!(
            r#"{{"msec":{}.{:03},"remote_addr":"10.{client}.0.{}","status":{},"request":"GET {path} HTTP/1.1","http_user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36","http_referer":"{referrer}"}}"#,
            time_ms / 1000,
            time_ms % 1000,
            next(2),
            if path == "/old" { 404 } else { 200 },
            118 + client % 5,
        );
        if time_ms >= END - 2000 {
            break;
        }
        lines.push((time_ms, line + "\n"));
    }
    lines
}

fn apply(rows: &mut Rows, change: Change, config: &Config) {
    for (at, change) in change.dimensions {
        let upserts = match change {
            DimensionChange::Prefixes(_) => panic!("a log has no networks"),
            DimensionChange::Replace(all) => {
                rows.retain(|(of, _), _| *of != at);
                all
            }
            DimensionChange::Patch { upserts, deletes } => {
                deletes.iter().for_each(|key| _ = rows.remove(&(at, *key)));
                upserts
            }
        };
        let width = config.schema.dimensions[at].features.len();
        for (key, values) in upserts.keys.iter().zip(upserts.values.chunks(width)) {
            rows.insert((at, *key), values.iter().map(|value| value.to_bits()).collect());
        }
    }
}

/// A host with a web server that writes a log, and a clock.
struct Host {
    dir: tempfile::TempDir,
    config: Config,
    now_ms: u64,
    lines: std::vec::IntoIter<(u64, String)>,
    /// The line that comes next, if it was looked at already.
    next: Option<(u64, String)>,
}

/// The daemon's origin.
struct Origin {
    log: LogThread,
    following: Following,
    kept: Kept,
    keep: Arc<Keep>,
}

impl Host {
    /// Of the past of its log nothing is read: what is known of it is in the checkpoint.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = "directory = \"unused\"\ncheckpoint.directory = \"state\"\ncheckpoint.interval = \"1h\"\n\
                    [[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\nbacklog_bytes = 1\n";
        let config = Config::parse(&dir.path().join("bliss.toml"), text).unwrap_or_else(|e| panic!("{e}"));
        let host = Self { dir, config, now_ms: START, lines: lines().into_iter(), next: None };
        File::create(host.log()).unwrap();
        host
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    fn rotated(&self, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("access.log{suffix}"))
    }

    /// The server logs until `until_ms`.
    fn write(&mut self, until_ms: u64) {
        let mut file = File::options().append(true).create(true).open(self.log()).unwrap();
        loop {
            let Some((time_ms, line)) = self.next.take().or_else(|| self.lines.next()) else { return };
            if time_ms >= until_ms {
                self.next = Some((time_ms, line));
                return;
            }
            file.write_all(line.as_bytes()).unwrap();
        }
    }

    /// Nobody follows until then.
    fn pass(&mut self, minutes: u64) {
        self.now_ms = START + minutes * MINUTE;
        self.write(self.now_ms);
    }

    fn rotate(&self, from: &str, to: &str) {
        fs::rename(self.rotated(from), self.rotated(to)).unwrap();
    }

    fn compress(&self, path: &str) {
        let bytes = fs::read(self.rotated(path)).unwrap();
        let file = File::create(self.rotated(&format!("{path}.gz"))).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        gzip.finish().unwrap();
        fs::remove_file(self.rotated(path)).unwrap();
    }

    fn start(&self) -> Origin {
        let state = Arc::new(State::new(&self.config));
        let kept = Kept::default();
        let (publisher, _thread) =
            start_with(kept.clone(), Duration::from_millis(1), None, state.clone()).unwrap();
        let keep = Arc::new(Keep::open(&self.config.checkpoint).unwrap().unwrap());
        let stop = CancellationToken::new();
        let context = Context {
            index: 0,
            state,
            publisher,
            keep: Some(keep.clone()),
            decisions: None,
            claims: None,
            stop,
        };
        let OriginKind::AccessLog(options) = &self.config.origins[0].kind else { panic!() };
        let mut aggregator = self.aggregator();
        let fingerprint = options.format_fingerprint ^ aggregator.fingerprint();
        let meaning = Meaning { fingerprint, secret: identity(&SECRET) };
        let mut keeper = Keeper::new(keep.clone(), "log", meaning, aggregator.reach_ms());
        let positions = keeper.restore(&mut aggregator);
        let interval = Duration::from_secs(1);
        let mut log = LogThread::new(context, "log", options.clone(), aggregator, interval, Some(keeper));
        let following = log.begin(positions, self.now_ms, self.elapsed());
        Origin { log, following, kept, keep }
    }

    fn aggregator(&self) -> Aggregator {
        let OriginKind::AccessLog(options) = &self.config.origins[0].kind else { panic!() };
        let dimensions = &self.config.origins[0].dimensions;
        Aggregator::new(&self.config.schema, dimensions, &SECRET, options.aggregate).unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms - START)
    }

    /// The origin follows the log until then.
    fn follow(&mut self, origin: &mut Origin, minutes: u64) {
        while self.now_ms < START + minutes * MINUTE {
            self.now_ms += 1000;
            self.write(self.now_ms);
            while origin.log.step(&mut origin.following, self.now_ms, self.elapsed()) == Step::Again {}
            origin.log.answered();
        }
    }

    fn rows(&self, origin: &Origin) -> Rows {
        let mut rows = Rows::new();
        for change in origin.kept.changes.lock().unwrap().iter() {
            apply(&mut rows, change.clone(), &self.config);
        }
        rows
    }

    /// Ends it as SIGTERM does.
    fn end(&self, mut origin: Origin) {
        origin.log.end(&origin.following);
    }

    /// Writes a checkpoint, as on SIGUSR2.
    fn checkpoint(&mut self, origin: &mut Origin) {
        origin.keep.ask();
        origin.log.step(&mut origin.following, self.now_ms, self.elapsed());
        origin.log.kept();
        origin.log.answered();
    }
}

/// What an origin that nothing happens to gives in the end.
fn live() -> Rows {
    let mut host = Host::new();
    let mut origin = host.start();
    host.follow(&mut origin, 300);
    host.rows(&origin)
}

/// What the same gives that is ended and started again; `meanwhile` is what happens to the logs.
fn restarted(meanwhile: impl Fn(&mut Host)) -> Rows {
    let mut host = Host::new();
    let mut origin = host.start();
    host.follow(&mut origin, 100);
    host.end(origin);
    meanwhile(&mut host);
    let mut origin = host.start();
    host.follow(&mut origin, 300);
    host.rows(&origin)
}

fn assert_same(what: &str, found: &Rows, expected: &Rows) {
    let differs = |key: &&(usize, u64)| found.get(*key) != expected.get(*key);
    let different = expected.keys().chain(found.keys()).filter(differs).count();
    assert_eq!((different, found.len()), (0, expected.len()), "{what}: rows that differ; rows");
}

#[test]
fn d6_a_replay_gives_what_a_live_origin_gives() {
    let expected = live();
    assert!(expected.len() > 150, "{}", expected.len());
    let mut host = Host::new();
    host.write(END);
    let options = ReplayOptions::default();
    let replay = Replay::open(Path::new(&host.log()), Default::default(), options).unwrap();
    let (mut aggregator, mut rows) = (host.aggregator(), Rows::new());
    let run: std::io::Result<()> = replay.run(&mut aggregator, |event| {
        if let Event::Publication { change, .. } = event {
            apply(&mut rows, change, &host.config);
        }
        Ok(())
    });
    run.unwrap();
    // The live one went on until here.
    let last = replay.summary().last_ms / 1000 * 1000 + 1000;
    for at_ms in (last..=END).step_by(1000) {
        apply(&mut rows, aggregator.tick(at_ms), &host.config);
    }
    assert_same("replayed", &rows, &expected);
}

#[test]
fn d6_a_restart_forgets_nothing() {
    let expected = live();
    assert_same("at once", &restarted(|_| {}), &expected);
    assert_same("down for two hours", &restarted(|host| host.pass(220)), &expected);
    let twice = restarted(|host| {
        host.pass(120);
        let mut origin = host.start();
        host.follow(&mut origin, 130);
        host.end(origin);
        host.pass(140);
    });
    assert_same("twice", &twice, &expected);
}

#[test]
fn d6_a_log_that_is_rotated_while_the_daemon_is_down_counts_once() {
    let expected = live();
    let renamed = restarted(|host| {
        host.pass(130);
        host.rotate("", ".1");
        host.pass(200);
    });
    assert_same("renamed", &renamed, &expected);
    let compressed = restarted(|host| {
        host.pass(130);
        host.rotate("", ".2");
        host.compress(".2");
        host.pass(160);
        host.rotate("", ".1");
        host.pass(200);
    });
    assert_same("twice, and compressed", &compressed, &expected);
    let copied = restarted(|host| {
        host.pass(130);
        fs::copy(host.log(), host.rotated(".1")).unwrap();
        File::options().write(true).open(host.log()).unwrap().set_len(0).unwrap();
        host.pass(200);
    });
    assert_same("copied and truncated", &copied, &expected);
    let moved = restarted(|host| {
        host.pass(130);
        // As on another disk.
        fs::copy(host.log(), host.rotated(".copy")).unwrap();
        fs::remove_file(host.log()).unwrap();
        host.rotate(".copy", "");
        host.pass(200);
    });
    assert_same("with another inode", &moved, &expected);
}

/// Killed at any time after a checkpoint, also with a rotation and half a line in between.
#[test]
fn d6_what_comes_after_a_checkpoint_counts_once_after_a_kill() {
    let expected = live();
    for is_rotated in [false, true] {
        let mut host = Host::new();
        let mut origin = host.start();
        host.follow(&mut origin, 90);
        let (time_ms, line) = host.next.take().or_else(|| host.lines.next()).unwrap();
        let (half, rest) = line.split_at(40);
        File::options().append(true).open(host.log()).unwrap().write_all(half.as_bytes()).unwrap();
        host.checkpoint(&mut origin);
        host.next = Some((time_ms, rest.to_owned()));
        host.follow(&mut origin, 120);
        if is_rotated {
            host.rotate("", ".1");
            File::create(host.log()).unwrap();
            host.follow(&mut origin, 140);
        }
        drop(origin);
        host.pass(150);
        let mut origin = host.start();
        host.follow(&mut origin, 300);
        assert_same(&format!("rotated: {is_rotated}"), &host.rows(&origin), &expected);
    }
}

/// The log is away when the daemon starts, and comes back: its place was not mounted yet.
#[test]
fn d6_a_log_that_comes_back_later_counts_once() {
    let expected = live();
    let mut host = Host::new();
    let mut origin = host.start();
    host.follow(&mut origin, 100);
    host.end(origin);
    host.pass(200);
    host.rotate("", "_away");
    let mut origin = host.start();
    for _ in 0..30 {
        origin.log.step(&mut origin.following, host.now_ms, host.elapsed());
        origin.log.answered();
    }
    // And the daemon is restarted meanwhile.
    host.end(origin);
    let mut origin = host.start();
    origin.log.step(&mut origin.following, host.now_ms, host.elapsed());
    origin.log.answered();
    host.rotate("_away", "");
    host.follow(&mut origin, 300);
    assert_same("back", &host.rows(&origin), &expected);
}

/// The file that was read is gone: nothing counts twice, and what is later than all that was read counts.
#[test]
fn d6_a_file_that_cannot_be_found_again_never_counts_twice() {
    let expected = live();
    let edited = restarted(|host| {
        host.pass(200);
        // Somebody removed the first line.
        let text = fs::read_to_string(host.log()).unwrap();
        fs::remove_file(host.log()).unwrap();
        fs::write(host.log(), text.split_once('\n').unwrap().1).unwrap();
    });
    assert_same("edited", &edited, &expected);
    let lost = restarted(|host| {
        host.pass(101);
        fs::remove_file(host.log()).unwrap();
        host.pass(200);
    });
    assert!(lost.len() > 100 && lost != expected);
}

#[test]
fn what_is_damaged_is_begun_without_and_what_cannot_be_written_is_told() {
    let mut host = Host::new();
    let mut origin = host.start();
    host.follow(&mut origin, 10);
    let file = origin.keep.file("log");
    let blocked = file.with_extension("checkpoint.new");
    fs::create_dir(&blocked).unwrap();
    host.checkpoint(&mut origin);
    host.follow(&mut origin, 11);
    let problem =
        |origin: &Origin| origin.log.problem().map(|problem| (problem.kind.name(), problem.message));
    let (kind, message) = problem(&origin).unwrap();
    assert!(
        kind == "not_kept" && message.contains("log.checkpoint: the checkpoint cannot be written"),
        "{message}"
    );
    fs::remove_dir(&blocked).unwrap();
    host.checkpoint(&mut origin);
    host.follow(&mut origin, 12);
    assert_eq!(problem(&origin), None);
    assert!(!host.rows(&origin).is_empty());
    host.end(origin);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut origin = host.start();
    host.now_ms += 1000;
    origin.log.step(&mut origin.following, host.now_ms, host.elapsed());
    origin.log.answered();
    assert_eq!(host.rows(&origin).len(), 0, "nothing is in the backlog");
}
