//! The rotated files of a log, as they are opened where no other follower has read them.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::gzip::Gzip;
use super::names::predecessors;
use super::resume::modified_ms;
use super::tail::{Identity, Tail};
use super::{Followed, Follower, Log, Reader, Start, is};

impl Follower {
    /// Says that a rotated file, or all of those of the log at `path`, cannot be read: once, however often it is tried.
    pub(super) fn left_out(&mut self, path: &Path, error: &io::Error) {
        if self.left_out.insert(path.to_owned()) {
            tracing::warn!("{}: a rotated log is left out: {error}", path.display());
        }
    }

    /// Opens the rotated files of a log that may hold lines since the start asks for them, the oldest first.
    pub(super) fn open_predecessors(&mut self, log: &Log, current: Option<&Tail>, now: Duration) {
        let Start::Backlog { bytes, since_ms } = self.start else { return };
        let found = match predecessors(&log.path) {
            Ok(found) => found,
            Err(error) => return self.left_out(&log.path, &error),
        };
        for predecessor in found.into_iter().rev() {
            let path = &predecessor.path;
            let opened = std::fs::metadata(path).and_then(|metadata| {
                if modified_ms(&metadata) < since_ms {
                    return Ok(None);
                }
                if predecessor.is_gzip {
                    return Gzip::open(path, bytes).map(|gzip| Some(Reader::Gzip(Box::new(gzip))));
                }
                let tail = Tail::open(path, bytes)?;
                Ok(self.is_new(&tail, current)?.then_some(Reader::Plain(tail)))
            });
            match opened {
                Ok(Some(reader)) => {
                    let (is_backlog, is_doubtful, left) = (true, false, Some(now));
                    let file = Followed { log: log.id, reader, is_backlog, is_doubtful, note: 0, left };
                    self.files.push(file);
                    self.has_opened = true;
                }
                Ok(None) => {}
                // Rotated on.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.left_out(path, &error),
            }
        }
    }

    /// Whether a rotated file holds lines of its own. A copy that `copytruncate` has begun holds what is still in the log.
    fn is_new(&self, tail: &Tail, current: Option<&Tail>) -> io::Result<bool> {
        let is_known = self.files.iter().any(|file| is(file, tail.identity));
        match current {
            Some(current) if !is_known => {
                Ok(current.identity != tail.identity && !current.begins_like(tail)?)
            }
            _ => Ok(!is_known),
        }
    }

    /// Opens the files that were under the path after the file `rotated` and before `current`: two rotations may happen
    /// between two polls.
    pub(super) fn open_between(
        &mut self,
        log: &Log,
        current: Option<&Tail>,
        rotated: Identity,
        now: Duration,
    ) {
        let mut between = Vec::new();
        for predecessor in predecessors(&log.path).unwrap_or_default() {
            let Ok(tail) = Tail::open(&predecessor.path, u64::MAX) else { continue };
            if tail.identity == rotated {
                let files = between.into_iter().rev().map(|tail| {
                    let reader = Reader::Plain(tail);
                    let (is_backlog, is_doubtful, left) = (false, false, Some(now));
                    Followed { log: log.id, reader, is_backlog, is_doubtful, note: 0, left }
                });
                self.files.extend(files);
                return;
            }
            if !predecessor.is_gzip && self.is_new(&tail, current).unwrap_or(false) {
                between.push(tail);
            }
        }
        // The file was removed and not renamed: what its predecessors hold is old.
    }
}
