//! Keeps what an access log's origin has counted over a restart or a reboot.
//!
//! A checkpoint is the aggregator and how far each file was read, taken between two polls: so each line is in both or in
//! neither. The origin's thread only makes the bytes; they are compressed and written on a thread of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::access_log::aggregate::{Aggregator, put, take};
use crate::access_log::follow::{Follower, MOST_POSITIONS, Position};
use crate::access_log::health::{Problem, ProblemKind};
use crate::checkpoint::envelope::{self, Wanted};
use crate::checkpoint::{Keep, Kind, Meaning, Unfit, bounded, now_ms};

/// The version changes with what is kept, and with the rules by which lines become counts and keys.
const KIND: Kind = Kind { name: *b"log     ", version: 2 };

#[derive(serde::Serialize, serde::Deserialize)]
struct Positions(#[serde(deserialize_with = "bounded::vec::<_, _, MOST_POSITIONS>")] Vec<Position>);

/// Keeps one origin.
pub(super) struct Keeper {
    keep: Arc<Keep>,
    name: String,
    file: PathBuf,
    meaning: Meaning,
    max_age_ms: u64,
    writing: Option<JoinHandle<std::io::Result<u64>>>,
    /// When the last one was begun.
    begun: Option<Instant>,
    asked: u64,
    /// Why the last one was not written.
    failure: Option<String>,
}

impl Keeper {
    pub(super) fn new(keep: Arc<Keep>, name: &str, meaning: Meaning, max_age_ms: u64) -> Self {
        let (file, asked) = (keep.file(name), keep.asked());
        let (name, begun) = (name.to_owned(), None);
        Self { keep, name, file, meaning, max_age_ms, writing: None, begun, asked, failure: None }
    }

    /// Fills a new aggregator with what was kept; returns how far each file was read. `None`: it begins without, and why is
    /// in the log.
    pub(super) fn restore(&mut self, aggregator: &mut Aggregator) -> Option<Vec<Position>> {
        let (origin, file) = (&self.name, self.file.display());
        // The next one takes its time.
        self.begun = Some(Instant::now());
        match self.read(aggregator) {
            Ok((made_ms, positions)) => {
                let age_seconds = now_ms().saturating_sub(made_ms) / 1000;
                let keys = aggregator.keys();
                tracing::info!(origin, keys, age_seconds, "going on from the checkpoint {file}");
                Some(positions)
            }
            Err(Unfit::Absent) => {
                tracing::info!(origin, "no checkpoint {file} yet; what the log still tells is counted");
                None
            }
            Err(error) => {
                tracing::warn!(
                    origin,
                    "the checkpoint {file} is not used, and what only it tells is forgotten; what the log still tells is \
                     counted: {error}"
                );
                None
            }
        }
    }

    fn read(&self, aggregator: &mut Aggregator) -> Result<(u64, Vec<Position>), Unfit> {
        let wanted = Wanted {
            kind: KIND,
            meaning: self.meaning,
            now_ms: now_ms(),
            max_age_ms: self.max_age_ms,
            max_bytes: self.keep.options().max_bytes,
        };
        let content = envelope::read(&self.file, &wanted)?;
        let mut rest = content.bytes.as_slice();
        let Positions(positions) = take(&mut rest)?;
        aggregator.restore(rest)?;
        Ok((content.made_ms, positions))
    }

    /// Begins a checkpoint if it is time, or somebody asked for one.
    pub(super) fn tend(&mut self, aggregator: &Aggregator, follower: &Follower) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.conclude();
        let asked = self.keep.asked();
        let is_due = self.begun.is_none_or(|begun| begun.elapsed() >= self.keep.options().interval);
        if asked == self.asked && !is_due {
            return;
        }
        // One that fails is tried again when the next one is due, not at each poll.
        self.asked = asked;
        if let Some(content) = self.content(aggregator, follower) {
            let (file, meaning, made_ms) = (self.file.clone(), self.meaning, now_ms());
            let write = move || envelope::write(&file, KIND, meaning, made_ms, &content);
            match std::thread::Builder::new().name("checkpoint".into()).spawn(write) {
                Ok(writing) => self.writing = Some(writing),
                Err(error) => self.fail(format!("no thread for it: {error}")),
            }
        }
    }

    /// Waits for the one that is being written.
    #[cfg(test)]
    pub(super) fn wait(&mut self) {
        self.conclude();
    }

    /// Writes the last one.
    pub(super) fn finish(&mut self, aggregator: &Aggregator, follower: &Follower) {
        self.conclude();
        if let Some(content) = self.content(aggregator, follower) {
            let written = envelope::write(&self.file, KIND, self.meaning, now_ms(), &content);
            self.written(written);
        }
    }

    /// Waits for the one that is being written, if there is one.
    fn conclude(&mut self) {
        if let Some(writing) = self.writing.take() {
            let panicked = || Err(std::io::Error::other("writing it panicked"));
            let written = writing.join().unwrap_or_else(|_| panicked());
            self.written(written);
        }
    }

    fn content(&mut self, aggregator: &Aggregator, follower: &Follower) -> Option<Vec<u8>> {
        let positions = follower.positions()?;
        self.begun = Some(Instant::now());
        let content = put(Vec::new(), &Positions(positions));
        match content.and_then(|content| aggregator.save(content, self.keep.options().max_bytes)) {
            Ok(content) => Some(content),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    fn written(&mut self, written: std::io::Result<u64>) {
        match written {
            Ok(bytes) => {
                self.failure = None;
                tracing::debug!(origin = self.name, bytes, "checkpoint written");
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, error: String) {
        // The first words stay, so that what is told is one thing for as long as it lasts.
        self.failure.get_or_insert(error);
    }

    /// What an operator must be told.
    pub(super) fn problem(&self) -> Option<Problem> {
        let failure = self.failure.as_ref()?;
        let message = format!(
            "{}: the checkpoint cannot be written, the one before stays and is tried again: {failure}; a restart \
             forgets what was counted since; make room, or see that the daemon's user may write there",
            self.file.display()
        );
        Some(Problem { kind: ProblemKind::NotKept, message })
    }
}
