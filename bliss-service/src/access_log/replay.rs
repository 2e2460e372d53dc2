//! A finished log, replayed by its own clock.
//!
//! Publication T (each whole interval of the log's clock) holds exactly the requests with a time before T, and a
//! request at time t reads the last publication with T ≤ t. Lines need not be sorted: a replay first records the
//! offset and time of each line, then goes through them in the order of their times. A line further behind the newest
//! line before it than the lateness would have come too late for a live reader of the log; it reads like any other, and
//! does not count.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::aggregate::Aggregator;
use super::parse::{MAX_LINE_BYTES, Malformed, ParseError, Parser, Record};
use bliss_core::build::Change;

/// How a log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayOptions {
    /// The time between two publications in milliseconds.
    pub interval_ms: u64,
    /// How far behind the newest line before it a line may lie and still count, in milliseconds.
    pub lateness_ms: u64,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { interval_ms: 1_000, lateness_ms: 120_000 }
    }
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that can be read.
    pub requests: u64,
    /// Lines that cannot be read, or only in part.
    pub malformed: u64,
    /// Those of them that count nevertheless, since the client's address can be read.
    pub partial: u64,
    /// The first of them: its number, and why.
    pub first_malformed: Option<(u64, ParseError)>,
    /// Requests that do not count, because their line came too late.
    pub late: u64,
    /// The time of the earliest request in milliseconds since the epoch.
    pub first_ms: u64,
    /// The time of the latest request in milliseconds since the epoch.
    pub last_ms: u64,
}

/// What happens in a replay, in order.
#[derive(Debug)]
pub enum Event<'a> {
    /// A publication that changes something.
    Publication {
        /// Its time T in milliseconds since the epoch.
        at_ms: u64,
        /// The rows that changed.
        change: Change,
    },
    /// A request, which reads what was published so far; none for a line that can only be read in part.
    Request {
        /// The number of its line, from 1.
        line: u64,
        /// What the line says.
        record: &'a Record<'a>,
    },
}

struct Entry {
    time_ms: u64,
    offset: u64,
    line: u64,
    bytes: u32,
    late: bool,
    is_partial: bool,
}

/// A log file that was scanned, ready to be replayed.
pub struct Replay {
    path: PathBuf,
    file: File,
    parser: Parser,
    interval_ms: u64,
    entries: Vec<Entry>,
    summary: Summary,
}

impl Replay {
    /// Scans the log at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or is not a regular file.
    pub fn open(path: &Path, parser: Parser, options: ReplayOptions) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut entries = Vec::new();
        let mut summary = Summary::default();
        let mut newest_ms = 0;
        for_each_line(BufReader::with_capacity(1 << 18, &file), |line, offset, bytes| {
            let (time_ms, is_partial) = match parser.parse(bytes) {
                Ok(record) => (Some(record.time_ms), false),
                Err(Malformed { error, partial }) => {
                    summary.malformed += 1;
                    summary.first_malformed.get_or_insert((line, error));
                    (
                        partial.and_then(|partial| partial.time_ms.or((newest_ms > 0).then_some(newest_ms))),
                        true,
                    )
                }
            };
            let Some(time_ms) = time_ms else { return };
            newest_ms = time_ms.max(newest_ms);
            let late = time_ms.saturating_add(options.lateness_ms) < newest_ms;
            summary.late += u64::from(late);
            summary.partial += u64::from(is_partial);
            entries.push(Entry { time_ms, offset, line, bytes: bytes.len() as u32, late, is_partial });
        })?;
        // Stable: requests of one moment stay in the order of their lines.
        entries.sort_by_key(|entry| entry.time_ms);
        summary.requests = entries.len() as u64 - summary.partial;
        summary.first_ms = entries.first().map_or(0, |entry| entry.time_ms);
        summary.last_ms = entries.last().map_or(0, |entry| entry.time_ms);
        let interval_ms = options.interval_ms.max(1);
        Ok(Self { path: path.to_owned(), file, parser, interval_ms, entries, summary })
    }

    /// What the log holds.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Runs `aggregator`, which must be new, over the log, and passes what happens to `on`. The last event is the first
    /// publication that holds every request.
    ///
    /// # Errors
    /// What `on` returned, or the file has changed.
    pub fn run<E: From<io::Error>>(
        &self,
        aggregator: &mut Aggregator,
        mut on: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = Vec::new();
        for entry in &self.entries {
            self.publish_until(entry.time_ms, aggregator, &mut on)?;
            let bytes = self.line(entry, &mut buffer)?;
            let parsed = self.parser.parse(bytes);
            let partial = match &parsed {
                Err(malformed) if entry.is_partial => {
                    malformed.partial.map(|found| found.record(entry.time_ms))
                }
                _ => None,
            };
            match (parsed, partial) {
                (Ok(record), _) => {
                    on(Event::Request { line: entry.line, record: &record })?;
                    if !entry.late {
                        aggregator.ingest(&record);
                    }
                }
                (Err(_), Some(record)) if !entry.late => {
                    aggregator.ingest(&record);
                }
                (Err(_), Some(_)) => {}
                (Err(_), None) => {
                    let message = format!("{}: changed during the read", self.path.display());
                    return Err(io::Error::other(message).into());
                }
            }
        }
        self.publish_until(self.summary.last_ms + self.interval_ms, aggregator, &mut on)
    }

    /// Makes every publication up to `until_ms` that changes something.
    fn publish_until<E>(
        &self,
        until_ms: u64,
        aggregator: &mut Aggregator,
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let last = until_ms / self.interval_ms * self.interval_ms;
        loop {
            let due = aggregator.due_ms().map(|due| (due / self.interval_ms + 1) * self.interval_ms);
            let at_ms = due.map_or(last, |due| due.min(last));
            let change = aggregator.tick(at_ms);
            if !change.is_empty() {
                on(Event::Publication { at_ms, change })?;
            }
            if at_ms >= last {
                return Ok(());
            }
        }
    }

    fn line<'b>(&self, entry: &Entry, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        buffer.resize(entry.bytes as usize, 0);
        self.file.read_exact_at(buffer, entry.offset)?;
        Ok(buffer)
    }
}

/// Passes each line that is not empty: its number, its offset, and its bytes; of one longer than [`MAX_LINE_BYTES`] a
/// beginning that is longer than that too.
fn for_each_line(mut reader: impl BufRead, mut on: impl FnMut(u64, u64, &[u8])) -> io::Result<()> {
    let (mut number, mut offset) = (0, 0);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let mut read = reader.by_ref().take(limit).read_until(b'\n', &mut buffer)? as u64;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        let ended = buffer.last() == Some(&b'\n');
        if ended {
            buffer.pop();
        }
        if !ended && read == limit {
            on(number, offset, &buffer);
            loop {
                buffer.clear();
                read += reader.by_ref().take(limit).read_until(b'\n', &mut buffer)? as u64;
                if buffer.is_empty() || buffer.last() == Some(&b'\n') {
                    break;
                }
            }
        } else if !buffer.is_empty() {
            on(number, offset, &buffer);
        }
        offset += read;
    }
}

#[cfg(test)]
mod tests;
