//! One open log file, and the position up to which it was read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::lines::Lines;
use super::resume::TAIL_BYTES;
use super::{FollowCounters, Progress};
use crate::fingerprint::open_regular;

/// How much is read at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// How much is read from one file in one poll, so that a poll always ends.
pub(super) const POLL_BYTES: u64 = 64 * 1024 * 1024;
/// How many bytes of the beginnings of two files are compared, to know whether one is a copy of the other.
const HEAD_BYTES: u64 = 64 * 1024;

/// What tells a file from every other one that exists.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &std::fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// How far a file was read that is no longer open.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) identity: Identity,
    pub(super) position: u64,
    pub(super) tail: Vec<u8>,
    pub(super) lines: Lines,
}

/// One open file and the position up to which it was read.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    pub(super) identity: Identity,
    position: u64,
    /// The last bytes before `position`.
    tail: Vec<u8>,
    lines: Lines,
}

impl Tail {
    /// Opens the file, to be read from this many bytes before its end, at the first whole line.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let (file, _) = open_regular(path)?;
        let found = file.metadata()?;
        let position = found.len().saturating_sub(bytes);
        let identity = identity(&found);
        let mut tail = Self { file, identity, position, tail: Vec::new(), lines: Lines::default() };
        tail.lines.skipping = position > 0 && tail.read_back()? != Some(b'\n');
        Ok(tail)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Goes on at `position`, where a line begins, or one is to be skipped.
    pub(super) fn go_on(&mut self, position: u64, skipping: bool) -> io::Result<()> {
        self.position = position;
        self.lines = Lines::begun(&[], skipping);
        self.read_back().map(|_| ())
    }

    /// Goes on at `mark`, if the file holds what was read up to there; returns whether it does.
    pub(super) fn resume(&mut self, mark: &Mark) -> io::Result<bool> {
        let Mark { position, tail, lines, .. } = mark;
        let before = std::mem::replace(&mut self.position, *position);
        let tail = std::mem::replace(&mut self.tail, tail.clone());
        if self.is_rewritten()? {
            (self.position, self.tail) = (before, tail);
            return Ok(false);
        }
        self.lines = lines.clone();
        Ok(true)
    }

    /// What [`Self::resume`] needs.
    pub(super) fn mark(&self) -> Mark {
        let Self { identity, position, tail, lines, .. } = self;
        Mark { identity: *identity, position: *position, tail: tail.clone(), lines: lines.clone() }
    }

    /// Whether `older` is a copy of this file's beginning, as while `copytruncate` copies.
    pub(super) fn begins_like(&self, older: &Self) -> io::Result<bool> {
        let (len, older_len) = (self.file.metadata()?.len(), older.file.metadata()?.len());
        if older_len == 0 || older_len > len {
            return Ok(false);
        }
        let compared = usize::try_from(older_len.min(HEAD_BYTES)).unwrap_or(usize::MAX);
        let mut heads = [vec![0; compared], vec![0; compared]];
        for at in [0, older_len - compared as u64] {
            for (head, file) in heads.iter_mut().zip([&self.file, &older.file]) {
                file.read_exact_at(head, at)?;
            }
            if heads[0] != heads[1] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Remembers the bytes before the position; returns the last one.
    fn read_back(&mut self) -> io::Result<Option<u8>> {
        let len = self.position.min(TAIL_BYTES as u64);
        self.tail.resize(len as usize, 0);
        self.file.read_exact_at(&mut self.tail, self.position - len)?;
        Ok(self.tail.last().copied())
    }

    /// Whether the bytes before the position are no longer those that were read.
    fn is_rewritten(&self) -> io::Result<bool> {
        let mut now = [0; TAIL_BYTES];
        let now = &mut now[..self.tail.len()];
        match self.file.read_exact_at(now, self.position - self.tail.len() as u64) {
            Ok(()) => Ok(now != self.tail),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the file was truncated or rewritten since it was read last.
    pub(super) fn is_truncated(&self) -> io::Result<bool> {
        let len = self.file.metadata()?.len();
        Ok(len < self.position || (len > self.position && self.is_rewritten()?))
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) {
        self.position = 0;
        self.tail.clear();
        self.lines = Lines::default();
    }

    /// Passes lines, at most [`POLL_BYTES`] of them.
    pub(super) fn read(
        &mut self,
        counters: &mut FollowCounters,
        line: &mut impl FnMut(&[u8]),
    ) -> io::Result<Progress> {
        let len = self.file.metadata()?.len();
        let mut chunk = vec![0; CHUNK_BYTES.min(len.saturating_sub(self.position) as usize + 1)];
        let end = self.position + POLL_BYTES;
        loop {
            if self.position >= end {
                return Ok(Progress::More);
            }
            let read = match self.file.read_at(&mut chunk, self.position) {
                Ok(0) => return Ok(Progress::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = &chunk[..read];
            self.position += read as u64;
            counters.bytes += read as u64;
            self.tail.extend_from_slice(&bytes[read.saturating_sub(TAIL_BYTES)..]);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
            self.lines.split(bytes, line);
        }
    }
}
