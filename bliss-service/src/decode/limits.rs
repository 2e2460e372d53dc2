//! What a snapshot may cost while it is read: bytes, bytes of a line, rows, and memory for them.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use crate::refusal::{Reason, Refusal};

/// How large a snapshot of rows may and must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, after decompression.
    pub max_bytes: u64,
    /// Bytes of one line, or of one row of CSV, which may have several.
    pub max_line_bytes: u64,
    /// Bytes that the rows take in memory: [`row_bytes`] each.
    pub max_decoded_bytes: u64,
    /// The most rows, over all dimensions; as many as `max_decoded_bytes` has room for if `None`.
    pub max_rows: Option<u64>,
    /// The fewest rows, so that a file that is empty for a moment removes nothing.
    pub min_rows: u64,
}

/// Bytes of a row of `features` while a snapshot is decoded: its key and time, its values, its entry in the index of keys, which
/// grows by doubling.
pub(super) fn row_bytes(features: usize) -> u64 {
    (features as u64).saturating_mul(4).saturating_add(48)
}

/// The same of a row that names a network, which is sorted and laid out before it is published.
pub(super) fn prefix_row_bytes(features: usize) -> u64 {
    (features as u64).saturating_mul(4).saturating_add(300)
}

impl Limits {
    /// The most rows of dimensions whose rows take at least `row_bytes`.
    pub(super) fn rows(&self, row_bytes: u64) -> u64 {
        self.max_rows.unwrap_or(self.max_decoded_bytes / row_bytes.max(1)).min(u64::from(u32::MAX))
    }

    pub(crate) fn long_line(&self) -> Refusal {
        let most = self.max_line_bytes;
        let message = format!(
            "more than {most} bytes without the end of the row (max_line_bytes); if rows are meant to be so long, raise it"
        );
        Refusal::new(Reason::TooLarge, message)
    }

    pub(super) fn too_much(&self, dimension: &str, row_bytes: u64, rows: u64) -> Refusal {
        let most = self.max_decoded_bytes;
        let message = format!(
            "the rows so far, {rows}, take more than {most} bytes of memory (max_decoded_bytes; a row of `{dimension}` takes \
             {row_bytes}); if there are meant to be so many, raise it"
        );
        Refusal::new(Reason::TooLarge, message)
    }
}

/// Input that gives an error after `max_bytes`.
pub(crate) struct Limited<R> {
    input: R,
    left: u64,
    exceeded: bool,
    max_bytes: u64,
}

impl<R> Limited<R> {
    pub(crate) fn new(input: R, max_bytes: u64) -> Self {
        Self { input, left: max_bytes, exceeded: false, max_bytes }
    }
}

impl<R: BufRead> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(out.len());
        out[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Limited<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.exceeded {
            let message = format!(
                "more than {} bytes, after decompression (max_bytes); if there are meant to be so many, raise it",
                self.max_bytes
            );
            return Err(io::Error::other(Refusal::new(Reason::TooLarge, message)));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, read: usize) {
        self.input.consume(read);
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => self.exceeded = true,
        }
    }
}

/// Input of a reader of CSV, which asks for more only while a row has no end.
pub(super) struct RowLimited<R> {
    input: R,
    limits: Limits,
    read: u64,
    row_start: Rc<Cell<u64>>,
}

impl<R> RowLimited<R> {
    /// The input, and where to say at which byte a row starts.
    pub(super) fn new(input: R, limits: Limits) -> (Self, Rc<Cell<u64>>) {
        let row_start = Rc::new(Cell::new(0));
        (Self { input, limits, read: 0, row_start: row_start.clone() }, row_start)
    }
}

impl<R: Read> Read for RowLimited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read.saturating_sub(self.row_start.get()) > self.limits.max_line_bytes {
            return Err(io::Error::other(self.limits.long_line()));
        }
        let read = self.input.read(out)?;
        self.read += read as u64;
        Ok(read)
    }
}
