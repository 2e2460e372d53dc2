//! A finished log, replayed by its own clock.
//!
//! Publication T (each whole interval of the log's clock) holds exactly the requests with a time before T, and a
//! request at time t reads the last publication with T ≤ t. Lines need not be sorted: a replay first records the
//! offset and time of each line, then goes through them in the order of their times. A line further behind the newest
//! line before it than the lateness would have come too late for a live reader of the log; it reads like any other, and
//! does not count. Several files are read as one log, in the order in which they are given; those that are gzipped are unpacked to
//! a temporary file first.

mod rewrite;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::aggregate::Aggregator;
use super::parse::{MAX_LINE_BYTES, Malformed, ParseError, Parser, Record};
use bliss_core::build::Change;
pub use rewrite::Rewrite;

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
        /// The number of its line, from 1; lines of a second file go on counting.
        line: u64,
        /// What the line says.
        record: &'a Record<'a>,
    },
}

struct Entry {
    time_ms: u64,
    /// The index of its file.
    file: u32,
    offset: u64,
    line: u64,
    bytes: u32,
    late: bool,
    is_partial: bool,
}

/// A log file that was scanned, ready to be replayed.
pub struct Replay {
    files: Vec<(PathBuf, File)>,
    rewrite: Rewrite,
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
        Self::open_all(std::slice::from_ref(&path), parser, options)
    }

    /// Scans the files at `paths` as one log.
    ///
    /// # Errors
    /// A file cannot be read, or is not a regular file; the text names it if there are several.
    pub fn open_all(paths: &[impl AsRef<Path>], parser: Parser, options: ReplayOptions) -> io::Result<Self> {
        let mut replay = Self {
            files: Vec::new(),
            rewrite: Rewrite::default(),
            parser,
            interval_ms: options.interval_ms.max(1),
            entries: Vec::new(),
            summary: Summary::default(),
        };
        let mut lines = 0;
        for path in paths.iter().map(AsRef::as_ref) {
            let scanned = replay.scan(path, options.lateness_ms, &mut lines);
            scanned.map_err(|error| match paths {
                [_] => error,
                _ => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            })?;
        }
        // Stable: requests of one moment stay in the order of their lines.
        replay.entries.sort_by_key(|entry| entry.time_ms);
        let summary = &mut replay.summary;
        summary.requests = replay.entries.len() as u64 - summary.partial;
        summary.first_ms = replay.entries.first().map_or(0, |entry| entry.time_ms);
        summary.last_ms = replay.entries.last().map_or(0, |entry| entry.time_ms);
        Ok(replay)
    }

    /// Notes the lines of a file, of which the first has the number `lines` + 1.
    fn scan(&mut self, path: &Path, lateness_ms: u64, lines: &mut u64) -> io::Result<()> {
        let file = unpacked(File::open(path)?)?;
        let index = u32::try_from(self.files.len()).map_err(io::Error::other)?;
        let Self { entries, summary, parser, .. } = self;
        let (before, mut newest_ms) = (*lines, 0);
        let reader = BufReader::with_capacity(1 << 18, &file);
        *lines += for_each_line(reader, |line, offset, bytes| {
            let line = before + line;
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
            let late = time_ms.saturating_add(lateness_ms) < newest_ms;
            summary.late += u64::from(late);
            summary.partial += u64::from(is_partial);
            let bytes = bytes.len() as u32;
            entries.push(Entry { time_ms, file: index, offset, line, bytes, late, is_partial });
        })?;
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// Replays other user agents than the log has, or fewer lines.
    pub fn set_rewrite(&mut self, rewrite: Rewrite) {
        self.rewrite = rewrite;
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
            let mut parsed = self.parser.parse(bytes);
            if let Ok(record) = &mut parsed
                && !self.rewrite.apply(entry.line, record)
            {
                continue;
            }
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
                    let path = self.files.get(entry.file as usize).map_or(Path::new(""), |(path, _)| path);
                    let message = format!("{}: changed during the read", path.display());
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
        let (_, file) = self.files.get(entry.file as usize).ok_or(io::ErrorKind::NotFound)?;
        file.read_exact_at(buffer, entry.offset)?;
        Ok(buffer)
    }
}

/// `file`, or what it holds if it is gzipped, as a file without a name.
fn unpacked(mut file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut start = [0; 2];
    let is_gzip = file.read(&mut start)? == 2 && start == [0x1f, 0x8b];
    file.rewind()?;
    if !is_gzip {
        return Ok(file);
    }
    let mut unpacked = tempfile::tempfile()?;
    io::copy(&mut flate2::bufread::MultiGzDecoder::new(BufReader::new(file)), &mut unpacked)?;
    unpacked.rewind()?;
    Ok(unpacked)
}

/// Passes each line that is not empty: its number, its offset, and its bytes; of one longer than [`MAX_LINE_BYTES`] a
/// beginning that is longer than that too. Returns how many lines there are.
fn for_each_line(mut reader: impl BufRead, mut on: impl FnMut(u64, u64, &[u8])) -> io::Result<u64> {
    let (mut number, mut offset) = (0, 0);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let mut read = reader.by_ref().take(limit).read_until(b'\n', &mut buffer)? as u64;
        if read == 0 {
            return Ok(number);
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
