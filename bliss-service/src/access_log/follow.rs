//! New lines of live log files, through rotation and truncation.
//!
//! A follower is polled; between polls it does nothing. It knows a file by its inode, whatever its name: one that is
//! no longer under a log's path is read to its end, and kept for a while because the web server goes on writing to it
//! until it has opened the new one. It knows a truncated or rewritten file by its length, and by the bytes before its
//! position. No line is passed twice.

mod gzip;
mod lines;
mod names;
mod resume;
mod rotated;
mod tail;
mod unread;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gzip::Gzip;
pub use names::LogPaths;
use names::predecessors;
pub(crate) use resume::MOST_POSITIONS;
pub use resume::Position;
use resume::Resumed;
use tail::{Identity, Mark, Tail, identity};
pub use unread::Unread;
use unread::unread;

/// How long a file that is under no path any more is still read after its last line.
const ROTATED_GRACE: Duration = Duration::from_secs(30);
/// How often patterns are matched again.
const LOOK: Duration = Duration::from_secs(2);
/// How long a log that was there may be missing: between the two steps of a rotation there is none.
const MISSING: Duration = Duration::from_secs(2);
/// How many files that are no longer open are remembered, for when they come back.
const MARKS: usize = 256;

/// Where a follower starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the end: only what is written from now on.
    End,
    /// With the past of each log.
    Backlog {
        /// At most this many bytes of each file, at the first whole line.
        bytes: u64,
        /// Rotated files that were written to since then, in milliseconds since the epoch, are read too.
        since_ms: u64,
    },
}

/// What a follower has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowCounters {
    /// Times that another file appeared under a path.
    pub rotations: u64,
    /// Times that a file was truncated or rewritten in place.
    pub truncations: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// A whole line.
#[derive(Debug)]
pub struct Line<'a> {
    /// Without its line end; of one longer than [`super::parse::MAX_LINE_BYTES`] a beginning that is longer than that too.
    pub bytes: &'a [u8],
    /// It was written before this follower started.
    pub is_backlog: bool,
    /// Another follower may have passed it before: see [`Follower::resume`].
    pub is_doubtful: bool,
    /// 0 for a file's first line, and then what the caller left here with the line before.
    pub note: &'a mut u64,
}

/// The result of a poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// There is more to read; poll again at once.
    pub more: bool,
    /// Logs that cannot be read. The next poll tries again, and no line is lost or passed twice.
    pub unread: Vec<Unread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    End,
    More,
}

/// Follows all logs of some paths. Calls block on the file system and on nothing else.
pub struct Follower {
    paths: LogPaths,
    start: Start,
    logs: Vec<Log>,
    /// In the order in which they are read: of each log the oldest first.
    files: Vec<Followed>,
    marks: VecDeque<Mark>,
    /// Where another follower stopped.
    saved: Vec<Position>,
    counters: FollowCounters,
    /// When patterns were matched last.
    looked: Option<Duration>,
    /// Whether every folder could be read once: what appears later is new.
    is_settled: bool,
    /// Patterns that match nothing, and folders that cannot be read; since when, unless from the start.
    unmatched: BTreeMap<PathBuf, (Option<Duration>, Unread)>,
    /// Rotated files, and logs of which they cannot be listed, that were told to be left out.
    left_out: BTreeSet<PathBuf>,
    has_opened: bool,
    next_log: u64,
}

/// A path, and what is known of it.
struct Log {
    id: u64,
    path: PathBuf,
    /// It must exist.
    is_named: bool,
    /// It was there when the follower started: its file has a past.
    has_past: bool,
    /// When its past was looked for last, while the log itself is missing.
    sought: Option<Duration>,
    identity: Option<Identity>,
    failing: Option<(Duration, io::Error)>,
}

/// An open file.
struct Followed {
    log: u64,
    reader: Reader,
    is_backlog: bool,
    is_doubtful: bool,
    note: u64,
    /// For a file under no path: when it left or, after that, grew.
    left: Option<Duration>,
}

enum Reader {
    Plain(Tail),
    Gzip(Box<Gzip>),
}

impl Reader {
    fn tail(&self) -> Option<&Tail> {
        match self {
            Reader::Plain(tail) => Some(tail),
            Reader::Gzip(_) => None,
        }
    }
}

impl Follower {
    /// A follower of `paths`, which need not exist yet. `start` says where to start in files that exist at the first
    /// poll; a later file is read from its beginning.
    pub fn new(paths: LogPaths, start: Start) -> Self {
        Self {
            paths,
            start,
            logs: Vec::new(),
            files: Vec::new(),
            marks: VecDeque::new(),
            saved: Vec::new(),
            counters: FollowCounters::default(),
            looked: None,
            is_settled: false,
            unmatched: BTreeMap::new(),
            left_out: BTreeSet::new(),
            has_opened: false,
            next_log: 0,
        }
    }

    /// Passes every new whole line to `line`. `now` is any monotonic clock.
    pub fn poll(&mut self, now: Duration, mut line: impl FnMut(Line<'_>)) -> Polled {
        let mut polled = Polled::default();
        self.look(now);
        let mut held_back = Vec::new();
        let (counters, logs) = (&mut self.counters, &self.logs);
        self.files.retain_mut(|file| {
            // What is older comes first.
            if held_back.contains(&file.log) {
                return true;
            }
            let Followed { log, reader, is_backlog, is_doubtful, note, left } = file;
            let before = counters.bytes;
            let is_doubtful = *is_doubtful;
            let mut pass = |bytes: &[u8]| line(Line { bytes, is_backlog: *is_backlog, is_doubtful, note });
            let read = match reader {
                Reader::Plain(tail) => {
                    let path = || logs.iter().find(|known| known.id == *log).map(|log| log.path.as_path());
                    read(tail, path, counters, &mut pass)
                }
                Reader::Gzip(gzip) => gzip.read(counters, &mut pass),
            };
            match (&read, &reader) {
                (Ok(Progress::More), _) => {
                    polled.more = true;
                    held_back.push(*log);
                }
                (Ok(Progress::End), Reader::Gzip(_)) => return false,
                (Ok(Progress::End), Reader::Plain(_)) => *is_backlog = false,
                (Err(error), Reader::Gzip(gzip)) => {
                    tracing::warn!("{}: a rotated log cannot be read whole: {error}", gzip.path.display());
                    return false;
                }
                (Err(error), Reader::Plain(_)) => {
                    let message = format!("reading failed: {error}");
                    polled.unread.push(Unread { is_missing: false, message });
                }
            }
            if left.is_some() && counters.bytes > before {
                *left = Some(now);
            }
            true
        });
        self.let_go(now);
        polled.unread.extend(self.unread(now));
        polled
    }

    /// What has been done so far.
    pub fn counters(&self) -> FollowCounters {
        self.counters
    }

    /// Whether any log could ever be opened.
    pub fn has_opened(&self) -> bool {
        self.has_opened
    }

    /// Files that are open now.
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Finds logs, and opens files that are not open yet.
    fn look(&mut self, now: Duration) {
        if self.looked.is_none_or(|looked| self.paths.has_globs() && now.saturating_sub(looked) >= LOOK) {
            self.find(now);
        }
        let mut present = HashSet::new();
        let mut logs = std::mem::take(&mut self.logs);
        logs.retain_mut(|log| {
            let found = std::fs::metadata(&log.path).map(|metadata| identity(&metadata));
            let opened = found.and_then(|found| {
                if !self.files.iter().any(|file| is(file, found)) {
                    self.open(log, now)?;
                }
                Ok(found)
            });
            match opened {
                Ok(found) => {
                    self.counters.rotations += u64::from(log.identity.is_some_and(|before| before != found));
                    log.identity = Some(found);
                    log.has_past = false;
                    log.failing = None;
                    present.insert(found);
                    true
                }
                Err(error) => {
                    let is_missing = error.kind() == io::ErrorKind::NotFound;
                    let is_due = log.sought.is_none_or(|sought| now.saturating_sub(sought) >= LOOK);
                    if is_missing && log.has_past && is_due {
                        log.sought = Some(now);
                        log.has_past = self.open_past(log, now);
                    }
                    if !is_missing {
                        // It may be there, and come back.
                        present.extend(log.identity);
                    }
                    let since = log.failing.take().map_or(now, |(since, _)| since);
                    log.failing = Some((since, error));
                    if let Some(rotated) = log.identity
                        && is_missing
                        && now.saturating_sub(since) < ROTATED_GRACE
                    {
                        self.open_between(log, None, rotated, now);
                    }
                    // The file that comes belongs to the same log.
                    log.is_named || !is_missing || now.saturating_sub(since) < ROTATED_GRACE
                }
            }
        });
        self.logs = logs;
        for file in &mut self.files {
            if file.reader.tail().is_some_and(|tail| present.contains(&tail.identity)) {
                file.left = None;
            } else {
                file.left.get_or_insert(now);
            }
        }
    }

    /// Opens what there is of a log that is missing. Returns whether its past is still to be looked for.
    fn open_past(&mut self, log: &Log, now: Duration) -> bool {
        match self.open_resumed(log, false, now) {
            Ok(Resumed::Unknown) => {
                // The file that comes is new from its first byte, but the log has a past.
                self.open_predecessors(log, None, now);
                false
            }
            Ok(Resumed::Opened) => false,
            // Where its place may be mounted later, it is still to be read where it was left.
            Ok(Resumed::Nothing) => true,
            // As long as it is not known what was read, nothing is read again.
            Err(error) => {
                self.left_out(&log.path, &error);
                true
            }
        }
    }

    /// Matches the patterns.
    fn find(&mut self, now: Duration) {
        let is_known = |path: &Path| self.logs.iter().any(|log| log.path == path);
        let found = self.paths.find(&is_known, !self.is_settled);
        for (path, is_named) in found.logs {
            if self.logs.iter().all(|log| log.path != path) {
                self.next_log += 1;
                let has_past = !self.is_settled || self.was_left(&path);
                let (id, sought, identity, failing) = (self.next_log, None, None, None);
                self.logs.push(Log { id, path, is_named, has_past, sought, identity, failing });
            }
        }
        let is_first = self.looked.is_none();
        self.looked = Some(now);
        self.is_settled |= found.errors.is_empty();
        let folders = found.errors.into_iter().map(|(path, error)| {
            let unread = unread(&path, &error);
            (path, unread)
        });
        let patterns = found.unmatched.into_iter().map(|pattern| {
            let message = format!(
                "{pattern}: no file matches; correct `paths`, or see whether the web server logs there"
            );
            (PathBuf::from(pattern), Unread { is_missing: true, message })
        });
        let before = std::mem::take(&mut self.unmatched);
        let since = |path: &PathBuf| match before.get(path) {
            Some((since, _)) => *since,
            None => (!is_first).then_some(now),
        };
        self.unmatched =
            folders.chain(patterns).map(|(path, unread)| (path.clone(), (since(&path), unread))).collect();
    }

    /// Opens the file under a log's path and, if it has a past, its predecessors.
    fn open(&mut self, log: &Log, now: Duration) -> io::Result<()> {
        if log.has_past && self.open_resumed(log, true, now)? != Resumed::Unknown {
            return Ok(());
        }
        let bytes = match self.start {
            _ if !log.has_past => u64::MAX,
            Start::End => 0,
            Start::Backlog { bytes, .. } => bytes,
        };
        // Again, if the log is rotated meanwhile.
        for attempt in 0..3 {
            let mut tail = Tail::open(&log.path, bytes)?;
            let before = self.files.len();
            if log.has_past {
                self.open_predecessors(log, Some(&tail), now);
                if attempt < 2 && identity(&std::fs::metadata(&log.path)?) != tail.identity {
                    self.files.truncate(before);
                    continue;
                }
            }
            if let Some(rotated) = log.identity {
                self.open_between(log, Some(&tail), rotated, now);
            }
            if let Some(mark) = self.marks.iter().find(|mark| mark.identity == tail.identity) {
                tail.resume(mark)?;
            } else {
                self.go_on_in(&mut tail)?;
            }
            let reader = Reader::Plain(tail);
            let is_backlog = log.has_past;
            let is_doubtful = false;
            self.files.push(Followed { log: log.id, reader, is_backlog, is_doubtful, note: 0, left: None });
            self.has_opened = true;
            break;
        }
        Ok(())
    }

    /// Closes files that have been under no path for a while. What one holds beyond its last line end was never finished.
    fn let_go(&mut self, now: Duration) {
        let marks = &mut self.marks;
        self.files.retain(|file| {
            let stays =
                file.is_backlog || file.left.is_none_or(|left| now.saturating_sub(left) < ROTATED_GRACE);
            if let (false, Some(tail)) = (stays, file.reader.tail()) {
                marks.retain(|mark| mark.identity != tail.identity);
                marks.push_back(tail.mark());
                if marks.len() > MARKS {
                    marks.pop_front();
                }
            }
            stays
        });
    }

    fn unread(&self, now: Duration) -> Vec<Unread> {
        let is_due = |since: Duration| now.saturating_sub(since) >= MISSING;
        let logs = self.logs.iter().filter_map(|log| {
            let (since, error) = log.failing.as_ref()?;
            // One of many that a pattern matched may go.
            if !log.is_named && error.kind() == io::ErrorKind::NotFound {
                return None;
            }
            (log.identity.is_none() || is_due(*since)).then(|| unread(&log.path, error))
        });
        // What was never there need not be waited for.
        let patterns = self.unmatched.values().filter(|(since, _)| since.is_none_or(is_due));
        logs.chain(patterns.map(|(_, unread)| unread.clone())).collect()
    }
}

/// Reads new lines. Of a file that was truncated, what was not read yet may be in the copy that was made of it, which is
/// the newest rotated file of the log at `path`.
fn read<'a>(
    tail: &mut Tail,
    path: impl FnOnce() -> Option<&'a Path>,
    counters: &mut FollowCounters,
    line: &mut impl FnMut(&[u8]),
) -> io::Result<Progress> {
    if tail.is_truncated()? {
        counters.truncations += 1;
        let rotated = path().and_then(|path| predecessors(path).ok()).unwrap_or_default();
        if let Some(newest) = rotated.first().filter(|newest| !newest.is_gzip)
            && let Ok(mut copy) = Tail::open(&newest.path, u64::MAX)
            && copy.resume(&tail.mark()).unwrap_or(false)
        {
            while let Ok(Progress::More) = copy.read(counters, line) {}
        }
        tail.restart();
    }
    tail.read(counters, line)
}

fn is(file: &Followed, identity: Identity) -> bool {
    file.reader.tail().is_some_and(|tail| tail.identity == identity)
}

#[cfg(test)]
mod tests;
