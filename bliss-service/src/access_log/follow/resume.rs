//! Where a follower stopped, and how the next one goes on there.
//!
//! A file is known by what it holds: the bytes before the position, and its beginning. Its inode only says where to look
//! first: devices have other numbers after a reboot, a log that is compressed or copied has another inode. What is newer than a
//! known file has not been read; what is older has. If the file that was read last cannot be found again, what there is may
//! have been read or not, and is passed as doubtful.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::gzip::Gzip;
use super::names::{Predecessor, predecessors};
use super::tail::{Identity, Mark, Tail, identity};
use super::{Followed, Follower, Log, MARKS, Reader};
use crate::access_log::parse::MAX_LINE_BYTES;
use crate::checkpoint::bounded;

/// How many bytes of a file's beginning are compared.
const HEAD_BYTES: u64 = 4096;
/// How many bytes before its position are compared, to know whether a file was rewritten.
pub(super) const TAIL_BYTES: usize = 64;
/// Files that are remembered at most; more are not kept.
pub(crate) const MOST_POSITIONS: usize = 65_536;
/// Of a path.
const PATH_BYTES: usize = 4096;
/// A compressed file may have the time of the whole one in whole seconds.
const TIME_MS: u64 = 2_000;

/// How far a file was read. Holds no bytes of it, but sums of some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The path of its log.
    #[serde(deserialize_with = "bounded::vec::<_, _, PATH_BYTES>")]
    path: Vec<u8>,
    /// It was still being read.
    is_open: bool,
    pub(super) inode: u64,
    /// When it was written to last, in milliseconds since the epoch.
    modified_ms: u64,
    position: u64,
    tail: Sum,
    head: Option<Sum>,
    /// So many bytes before the position are a line that had not ended.
    pub(super) back: u64,
    /// What is left of the line is skipped.
    skipping: bool,
    note: u64,
}

/// The XXH3 of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    sum: u64,
}

impl Sum {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sum: xxh3_64(bytes) }
    }
}

impl Position {
    fn of_mark(mark: &Mark, path: &[u8], note: u64) -> Self {
        Self {
            path: path.to_owned(),
            is_open: false,
            inode: mark.identity.1,
            modified_ms: 0,
            position: mark.position,
            tail: Sum::of(&mark.tail),
            head: None,
            back: mark.lines.partial_bytes(),
            skipping: mark.lines.skipping,
            note,
        }
    }

    fn of_tail(tail: &Tail, path: &[u8], note: u64) -> Self {
        let (position, file) = (tail.mark().position, tail.file());
        let mut head = vec![0; position.min(HEAD_BYTES) as usize];
        let head = file.read_exact_at(&mut head, 0).ok().map(|()| Sum::of(&head));
        let modified_ms = file.metadata().map_or(0, |metadata| modified_ms(&metadata));
        Self { is_open: true, head, modified_ms, ..Self::of_mark(&tail.mark(), path, note) }
    }

    /// Whether these can be the bytes up to the position: the first ones and the last ones.
    fn fits(&self, head: &[u8], tail: &[u8]) -> bool {
        self.tail == Sum::of(tail) && self.head.is_none_or(|sum| sum == Sum::of(head))
    }

    fn lens(&self) -> Option<(usize, usize)> {
        let tail = usize::try_from(self.tail.bytes).ok().filter(|tail| *tail <= TAIL_BYTES)?;
        // As much is kept of what is decompressed.
        let is_line = usize::try_from(self.back).is_ok_and(|back| back <= MAX_LINE_BYTES);
        let is_sound = is_line && self.tail.bytes <= self.position && self.back <= self.position;
        is_sound.then_some((self.position.min(HEAD_BYTES) as usize, tail))
    }

    /// Whether `file` holds what was read.
    fn is_of(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        let Some((head, tail)) = self.lens() else { return Ok(false) };
        if metadata.len() < self.position {
            return Ok(false);
        }
        if self.position == 0 {
            return Ok(metadata.ino() == self.inode);
        }
        let (mut head, mut tail) = (vec![0; head], vec![0; tail]);
        file.read_exact_at(&mut head, 0)?;
        file.read_exact_at(&mut tail, self.position - self.tail.bytes)?;
        Ok(self.fits(&head, &tail))
    }

    /// The rest of the compressed file, if it holds what was read.
    fn resume_gzip(&self, path: &Path) -> io::Result<Option<Gzip>> {
        let Some((head_bytes, tail_bytes)) = self.lens().filter(|_| self.position > 0) else {
            return Ok(None);
        };
        let mut gzip = Gzip::open(path, u64::MAX)?;
        let kept = tail_bytes.max(usize::try_from(self.back).unwrap_or(usize::MAX));
        let (mut head, mut last) = (Vec::new(), Vec::new());
        let (mut left, mut chunk) = (self.position, vec![0; 64 * 1024]);
        while left > 0 {
            let want = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = gzip.decoder().read(chunk.get_mut(..want).unwrap_or_default())?;
            let bytes = chunk.get(..read).unwrap_or_default();
            if read == 0 {
                return Ok(None);
            }
            left -= read as u64;
            let more = bytes.get(..bytes.len().min(head_bytes - head.len())).unwrap_or_default();
            head.extend_from_slice(more);
            if head.len() == head_bytes && self.head.is_some_and(|sum| sum != Sum::of(&head)) {
                return Ok(None);
            }
            last.extend_from_slice(bytes);
            last.drain(..last.len().saturating_sub(kept));
        }
        let ends = |bytes: usize| last.get(last.len().saturating_sub(bytes)..).unwrap_or_default();
        if !self.fits(&head, ends(tail_bytes)) {
            return Ok(None);
        }
        gzip.go_on(ends(usize::try_from(self.back).unwrap_or(0)), self.skipping);
        Ok(Some(gzip))
    }
}

pub(super) fn modified_ms(metadata: &std::fs::Metadata) -> u64 {
    let ms = metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
    u64::try_from(ms).unwrap_or(0)
}

/// What became of a log that another follower may have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumed {
    /// It did not read it.
    Unknown,
    /// It did, and there is nothing of it now.
    Nothing,
    /// Its files are open where they were left.
    Opened,
}

/// A file that may be one that was read, or newer.
struct Candidate {
    path: PathBuf,
    is_gzip: bool,
    is_current: bool,
}

/// What was found of a log that another follower read.
#[derive(Default)]
struct Found<'a> {
    /// The newest first.
    files: Vec<Followed>,
    /// Which file is under its path.
    current: Option<Identity>,
    /// A file was found that was read: what is older is old.
    is_reached: bool,
    is_last_found: bool,
    /// Positions of which the files were not found yet.
    wanted: Vec<&'a Position>,
    /// What could not be read.
    left_out: Vec<(PathBuf, io::Error)>,
}

impl Follower {
    /// Goes on where another follower of these logs stopped. Logs that it did not follow are read as [`Self::new`] does.
    pub fn resume(mut self, positions: Vec<Position>) -> Self {
        self.saved = positions;
        self
    }

    /// How far each file was read. `None`: not while a compressed file is read.
    pub fn positions(&self) -> Option<Vec<Position>> {
        let path = |log: u64| self.logs.iter().find(|known| known.id == log);
        let bytes = |log: Option<&Log>| log.map_or(&[][..], |log| log.path.as_os_str().as_bytes()).to_owned();
        let open = self.files.iter().map(|file| {
            let tail = file.reader.tail()?;
            Some(Position::of_tail(tail, &bytes(path(file.log)), file.note))
        });
        let mut positions = open.collect::<Option<Vec<_>>>()?;
        let marks = self.marks.iter().map(|mark| Position::of_mark(mark, &[], 0));
        let closed: Vec<_> = marks.collect();
        // Of a log that cannot be opened yet they are still open. Its file system may be another one, with the same inodes.
        let (mut left, mut before): (Vec<_>, Vec<_>) =
            self.saved.iter().cloned().partition(|position| position.is_open);
        let is_file = |one: &Position, other: &Position| one.inode == other.inode && one.path == other.path;
        left.retain(|left| !positions.iter().any(|known| is_file(known, left)));
        before.retain(|before| positions.iter().chain(&closed).all(|known| known.inode != before.inode));
        let surplus = (before.len() + closed.len()).saturating_sub(MARKS);
        positions.extend(left);
        positions.extend(before.into_iter().skip(surplus));
        positions.extend(closed);
        positions.truncate(MOST_POSITIONS);
        Some(positions)
    }

    /// Opens the files of a log that another follower read, each where it stopped; `has_current`: there is one under its path.
    pub(super) fn open_resumed(
        &mut self,
        log: &Log,
        has_current: bool,
        now: Duration,
    ) -> io::Result<Resumed> {
        if self.saved.is_empty() {
            return Ok(Resumed::Unknown);
        }
        for attempt in 0..3 {
            let Some(found) = self.find_resumed(log, has_current, now)? else {
                return Ok(Resumed::Unknown);
            };
            let Found { mut files, current, is_last_found, left_out, .. } = found;
            left_out.iter().for_each(|(path, error)| self.left_out(path, error));
            if files.is_empty() && !has_current {
                return Ok(Resumed::Nothing);
            }
            let moved = || match &current {
                Some(current) => std::fs::metadata(&log.path).map(|found| identity(&found) != *current),
                None => Ok(false),
            };
            // Again, if the log is rotated meanwhile.
            if attempt < 2 && moved()? {
                continue;
            }
            if is_last_found {
                files.iter_mut().for_each(|file| file.is_doubtful = false);
            } else {
                tracing::warn!(
                    "{}: the file that was read last is not there any more, nor among the rotated ones: of the files that \
                     are, only lines later than all that were read count",
                    log.path.display()
                );
            }
            self.has_opened |= !files.is_empty();
            self.files.extend(files.into_iter().rev());
            let path = log.path.as_os_str().as_bytes();
            self.saved.retain(|position| !position.is_open || position.path != path);
            return Ok(Resumed::Opened);
        }
        Ok(Resumed::Unknown)
    }

    /// Whether another follower was reading the log at `path`, and this one has not opened it yet.
    pub(super) fn was_left(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.saved.iter().any(|position| position.is_open && position.path == path)
    }

    /// Goes on in a file that was away and that another follower has read.
    pub(super) fn go_on_in(&self, tail: &mut Tail) -> io::Result<()> {
        for position in self.saved.iter().filter(|position| position.position > 0) {
            if position.is_of(tail.file())? {
                return tail.go_on(position.position - position.back, position.skipping);
            }
        }
        Ok(())
    }

    /// The files of the log; `None`: it was not read.
    fn find_resumed(&self, log: &Log, has_current: bool, now: Duration) -> io::Result<Option<Found<'_>>> {
        let path = log.path.as_os_str();
        let is_of_log = |position: &&Position| position.is_open && OsStr::from_bytes(&position.path) == path;
        let mut found = Found { wanted: self.saved.iter().filter(is_of_log).collect(), ..Found::default() };
        if has_current && found.wanted.is_empty() {
            // Perhaps under another name.
            let file = crate::fingerprint::open_regular(&log.path)?.0;
            let is_known =
                |position: &&Position| position.position > 0 && position.is_of(&file).unwrap_or(false);
            found.wanted.extend(self.saved.iter().find(is_known));
        }
        let Some(last) = found.wanted.last().copied() else { return Ok(None) };
        if has_current {
            let current = Candidate { path: log.path.clone(), is_gzip: false, is_current: true };
            self.seek(log, &current, last, now, &mut found)?;
        }
        // Its file is the one that was read, as a rule: then nothing needs to be known of the folder.
        if found.wanted.is_empty() {
            return Ok(Some(found));
        }
        let rotated = match predecessors(&log.path) {
            // A folder may be such that files in it can be opened and not listed.
            Err(error) if has_current => {
                found.left_out.push((log.path.clone(), error));
                Vec::new()
            }
            // Perhaps its place is not mounted yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            rotated => rotated?,
        };
        for Predecessor { path, is_gzip } in rotated {
            let candidate = Candidate { path, is_gzip, is_current: false };
            match self.seek(log, &candidate, last, now, &mut found) {
                // Rotated on.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => found.left_out.push((candidate.path, error)),
                Ok(()) if found.wanted.is_empty() => break,
                Ok(()) => {}
            }
        }
        Ok(Some(found))
    }

    /// Takes the file for one of the log, if it is one that was read, or newer.
    fn seek<'a>(
        &'a self,
        log: &Log,
        candidate: &Candidate,
        last: &Position,
        now: Duration,
        found: &mut Found<'a>,
    ) -> io::Result<()> {
        let opened = self.open_candidate(candidate, &found.wanted, found.is_reached)?;
        let Some((reader, position)) = opened else { return Ok(()) };
        if candidate.is_current {
            found.current = reader.tail().map(|tail| tail.identity);
        }
        found.is_reached |= position.is_some();
        found.is_last_found |= position == Some(last);
        found.wanted.retain(|wanted| position != Some(*wanted));
        let left = (!candidate.is_current).then_some(now);
        let note = position.map_or(0, |position| position.note);
        let is_doubtful = position.is_none();
        found.files.push(Followed { log: log.id, reader, is_backlog: true, is_doubtful, note, left });
        Ok(())
    }

    /// The file as it is to be read, and where it was left; `None`: there is nothing to read.
    fn open_candidate<'a>(
        &'a self,
        candidate: &Candidate,
        wanted: &[&'a Position],
        is_reached: bool,
    ) -> io::Result<Option<(Reader, Option<&'a Position>)>> {
        let metadata = std::fs::metadata(&candidate.path)?;
        let written_ms = modified_ms(&metadata).saturating_add(TIME_MS);
        // What was written to before all that is looked for is old.
        if !candidate.is_current && wanted.iter().all(|position| written_ms < position.modified_ms) {
            return Ok(None);
        }
        if candidate.is_gzip {
            for position in wanted {
                if let Some(gzip) = position.resume_gzip(&candidate.path)? {
                    return Ok(Some((Reader::Gzip(Box::new(gzip)), Some(position))));
                }
            }
            let whole = || Gzip::open(&candidate.path, u64::MAX).map(|gzip| Reader::Gzip(Box::new(gzip)));
            return (!is_reached).then(|| whole().map(|reader| (reader, None))).transpose();
        }
        let mut tail = Tail::open(&candidate.path, u64::MAX)?;
        if self.files.iter().any(|file| super::is(file, tail.identity)) {
            return Ok(None);
        }
        let others = self.saved.iter().filter(|position| position.position > 0);
        let mut known: Vec<&Position> = wanted.iter().copied().chain(others).collect();
        known.sort_by_key(|position| position.inode != tail.identity.1);
        for position in known {
            if position.is_of(tail.file())? {
                tail.go_on(position.position - position.back, position.skipping)?;
                return Ok(Some((Reader::Plain(tail), Some(position))));
            }
        }
        Ok((!is_reached).then_some((Reader::Plain(tail), None)))
    }
}
