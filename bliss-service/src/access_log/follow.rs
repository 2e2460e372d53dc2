//! New lines of a live log file, through rotation and truncation.
//!
//! A follower is polled; between polls it does nothing. It knows a rotated file by its inode: the old one is read
//! to its end, and kept for a while because the web server goes on writing to it until it has opened the new one.
//! It knows a truncated or rewritten file by its length, and by the bytes before its position.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::parse::MAX_LINE_BYTES;

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// How much is read from one file in one poll, so that a poll always ends.
const POLL_BYTES: u64 = 64 * 1024 * 1024;
/// How many bytes before its position a follower compares.
const TAIL_BYTES: usize = 64;
/// How long a rotated file is still read after its last line.
const ROTATED_GRACE: Duration = Duration::from_secs(30);

/// Where a follower starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the end: only what is written from now on.
    End,
    /// This many bytes before the end, at the first whole line.
    Backlog(u64),
}

/// What a follower has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowCounters {
    /// Times that another file appeared under the path.
    pub rotations: u64,
    /// Times that the file was truncated or rewritten in place.
    pub truncations: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The end of the file was reached.
    End,
    /// There is more; poll again at once.
    More,
}

/// Follows one path. Calls block on the file system and on nothing else.
pub struct Follower {
    path: PathBuf,
    start: Start,
    current: Option<Tail>,
    /// Files that were under the path before, and when they last grew.
    rotated: Vec<(Tail, Duration)>,
    counters: FollowCounters,
}

impl Follower {
    /// A follower of `path`, which need not exist yet. `start` says where to start in the file that exists at
    /// the first poll; a later file is read from its beginning.
    pub fn new(path: impl Into<PathBuf>, start: Start) -> Self {
        Self {
            path: path.into(),
            start,
            current: None,
            rotated: Vec::new(),
            counters: FollowCounters::default(),
        }
    }

    /// Passes every new whole line to `line`, without its line end; of one longer than [`MAX_LINE_BYTES`] a beginning that is
    /// longer than that too. `now` is any monotonic clock.
    ///
    /// # Errors
    /// The file does not exist, cannot be opened or read, or is not a regular file; the next poll tries again, and no
    /// line is lost or passed twice.
    pub fn poll(&mut self, now: Duration, mut line: impl FnMut(&[u8])) -> io::Result<Poll> {
        let mut more = Poll::End;
        let opened = self.look();
        let mut step = |tail: &mut Tail, counters: &mut FollowCounters| -> io::Result<bool> {
            let before = counters.bytes;
            if tail.read(counters, &mut line)? == Poll::More {
                more = Poll::More;
            }
            Ok(counters.bytes > before)
        };
        for (tail, grew) in &mut self.rotated {
            if step(tail, &mut self.counters)? {
                *grew = now;
            }
        }
        // What a rotated file holds beyond its last line end was never finished.
        self.rotated.retain(|(_, grew)| now.saturating_sub(*grew) < ROTATED_GRACE);
        if let Some(tail) = &mut self.current {
            step(tail, &mut self.counters)?;
        }
        // A file that is there at the first poll has a past; one that comes later is new from its first byte.
        if opened.as_ref().is_ok_and(Option::is_some)
            || opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            self.start = Start::Backlog(u64::MAX);
        }
        let replaced = opened?;
        if let Some(new) = replaced {
            if let Some(old) = self.current.replace(new) {
                self.counters.rotations += 1;
                self.rotated.push((old, now));
            }
            more = Poll::More;
        }
        Ok(more)
    }

    /// What has been done so far.
    pub fn counters(&self) -> FollowCounters {
        self.counters
    }

    /// The file under the path, if it is not the one that is followed.
    fn look(&self) -> io::Result<Option<Tail>> {
        let found = std::fs::metadata(&self.path)?;
        if self.current.as_ref().is_some_and(|tail| tail.identity == (found.dev(), found.ino())) {
            return Ok(None);
        }
        Tail::open(&self.path, self.start).map(Some)
    }
}

/// One open file and the position up to which it was read.
struct Tail {
    file: File,
    identity: (u64, u64),
    position: u64,
    /// The last bytes before `position`.
    tail: Vec<u8>,
    /// The beginning of a line whose end has not been written yet.
    partial: Vec<u8>,
    /// The rest of the line is skipped: it was too long, or reading began inside it.
    skipping: bool,
}

impl Tail {
    fn open(path: &Path, start: Start) -> io::Result<Self> {
        // Without O_NONBLOCK, opening a named pipe would wait for a writer.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let position = match start {
            Start::End => found.len(),
            Start::Backlog(bytes) => found.len().saturating_sub(bytes),
        };
        let mut tail = Self {
            file,
            identity: (found.dev(), found.ino()),
            position,
            tail: Vec::new(),
            partial: Vec::new(),
            skipping: false,
        };
        tail.skipping = position > 0 && tail.read_back()? != Some(b'\n');
        Ok(tail)
    }

    /// Remembers the bytes before the position; returns the last one.
    fn read_back(&mut self) -> io::Result<Option<u8>> {
        let len = self.position.min(TAIL_BYTES as u64);
        self.tail.resize(len as usize, 0);
        self.file.read_exact_at(&mut self.tail, self.position - len)?;
        Ok(self.tail.last().copied())
    }

    /// Whether the bytes before the position are still those that were read.
    fn is_rewritten(&self) -> io::Result<bool> {
        let mut now = [0; TAIL_BYTES];
        let now = &mut now[..self.tail.len()];
        match self.file.read_exact_at(now, self.position - self.tail.len() as u64) {
            Ok(()) => Ok(now != self.tail),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, counters: &mut FollowCounters, line: &mut impl FnMut(&[u8])) -> io::Result<Poll> {
        let len = self.file.metadata()?.len();
        if len < self.position || (len > self.position && self.is_rewritten()?) {
            counters.truncations += 1;
            self.position = 0;
            self.tail.clear();
            self.partial.clear();
            self.skipping = false;
        }
        let mut chunk = vec![0; CHUNK_BYTES.min(len.saturating_sub(self.position) as usize + 1)];
        let end = self.position + POLL_BYTES;
        loop {
            if self.position >= end {
                return Ok(Poll::More);
            }
            let read = match self.file.read_at(&mut chunk, self.position) {
                Ok(0) => return Ok(Poll::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = &chunk[..read];
            self.position += read as u64;
            counters.bytes += read as u64;
            self.tail.extend_from_slice(&bytes[read.saturating_sub(TAIL_BYTES)..]);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
            self.split(bytes, line);
        }
    }

    fn split(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if std::mem::take(&mut self.skipping) {
                self.partial.clear();
            } else if self.partial.is_empty() {
                line(head);
            } else {
                self.partial.extend_from_slice(head);
                line(&self.partial);
                self.partial.clear();
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.is_empty() {
            // A server that does not append leaves them after a truncation in place, as many as the file was long.
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
            bytes = &bytes[start..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE_BYTES {
            line(&self.partial);
            self.partial = Vec::new();
            self.skipping = true;
        }
    }
}

#[cfg(test)]
mod tests;
