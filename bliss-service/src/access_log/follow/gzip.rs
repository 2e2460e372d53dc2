//! A rotated log that was compressed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::lines::Lines;
use super::tail::{CHUNK_BYTES, POLL_BYTES};
use super::{FollowCounters, Progress};
use crate::fingerprint::open_regular;

pub(super) type Decoder = MultiGzDecoder<BufReader<File>>;

/// A compressed log under way.
#[derive(Debug)]
pub(super) struct Gzip {
    pub(super) path: PathBuf,
    file: File,
    decoder: Decoder,
    /// How many bytes of the end are read.
    bytes: u64,
    phase: Phase,
    lines: Lines,
}

#[derive(Debug)]
enum Phase {
    /// It is not known yet how long the log is; these were counted.
    Counting(u64),
    /// As many are left that are not wanted.
    Skipping(u64),
    Passing,
}

impl Gzip {
    /// Opens the file, to be read from this many bytes before the log's end, at the first whole line.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let (file, _) = open_regular(path)?;
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file.try_clone()?));
        let phase = if bytes == u64::MAX { Phase::Passing } else { Phase::Counting(0) };
        Ok(Self { path: path.to_owned(), file, decoder, bytes, phase, lines: Lines::default() })
    }

    pub(super) fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// What was read so far ended with `partial`, the beginning of a line, or of one to be skipped.
    pub(super) fn go_on(&mut self, partial: &[u8], skipping: bool) {
        self.lines = Lines::begun(partial, skipping);
    }

    /// Passes lines, at most [`POLL_BYTES`] of them.
    ///
    /// # Errors
    /// It cannot be read, or is no gzip file; what came before was passed.
    pub(super) fn read(
        &mut self,
        counters: &mut FollowCounters,
        line: &mut impl FnMut(&[u8]),
    ) -> io::Result<Progress> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = POLL_BYTES;
        while left > 0 {
            let want = match self.phase {
                Phase::Skipping(skip) => chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX)),
                _ => chunk.len(),
            };
            let read = self.decoder.read(&mut chunk[..want])?;
            left = left.saturating_sub(read as u64);
            let bytes = &chunk[..read];
            match &mut self.phase {
                Phase::Counting(len) if read == 0 => {
                    let skip = len.saturating_sub(self.bytes);
                    self.phase = if skip > 0 { Phase::Skipping(skip) } else { Phase::Passing };
                    self.file.rewind()?;
                    let file = BufReader::with_capacity(1 << 16, self.file.try_clone()?);
                    self.decoder = MultiGzDecoder::new(file);
                }
                _ if read == 0 => return Ok(Progress::End),
                Phase::Counting(len) => *len += read as u64,
                Phase::Skipping(skip) => {
                    *skip = skip.saturating_sub(read as u64);
                    if *skip == 0 {
                        self.lines.skipping = bytes.last() != Some(&b'\n');
                        self.phase = Phase::Passing;
                    }
                }
                Phase::Passing => {
                    counters.bytes += read as u64;
                    self.lines.split(bytes, line);
                }
            }
        }
        Ok(Progress::More)
    }
}
