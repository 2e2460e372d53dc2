//! The bytes of a snapshot, limited.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use crate::refusal::{Reason, Refusal};

/// The input without the byte order mark that some programs write at the start of UTF-8.
pub(super) fn without_mark(mut input: impl BufRead) -> io::Result<impl BufRead> {
    let mut head = Vec::new();
    // The mark may come in several pieces.
    input.by_ref().take(3).read_to_end(&mut head)?;
    if head == "\u{feff}".as_bytes() {
        head.clear();
    }
    Ok(io::Cursor::new(head).chain(input))
}

/// Input that gives an error after so many bytes, counted from the last [`Counter::restart`].
pub(super) struct Limited<R> {
    input: R,
    limit: u64,
    /// Bytes beyond the limit that may have been read ahead.
    ahead: u64,
    counter: Counter,
    what: &'static str,
}

/// Counts what was read.
#[derive(Clone, Default)]
pub(super) struct Counter(Rc<Cell<u64>>);

impl Counter {
    pub(super) fn restart(&self) {
        self.0.set(0);
    }
}

impl<R> Limited<R> {
    /// `what` says which limit it is.
    pub(super) fn new(input: R, limit: u64, what: &'static str) -> Self {
        Self { input, limit, ahead: 0, counter: Counter::default(), what }
    }

    /// For who reads so many bytes ahead of what is counted.
    pub(super) fn read_ahead(self, bytes: usize) -> Self {
        Self { ahead: bytes as u64, ..self }
    }

    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    fn count(&self, read: usize) {
        self.counter.0.set(self.counter.0.get().saturating_add(read as u64));
    }

    fn check(&self) -> io::Result<()> {
        if self.counter.0.get() <= self.limit.saturating_add(self.ahead) {
            return Ok(());
        }
        Err(io::Error::other(too_large(self.what, self.limit)))
    }
}

/// More bytes than a limit allows.
pub(crate) fn too_large(what: &str, limit: u64) -> Refusal {
    Refusal::new(Reason::TooLarge, format!("more bytes than {what} ({limit}) allows"))
}

impl<R: BufRead> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let read = self.input.read(out)?;
        self.count(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Limited<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        self.input.fill_buf()
    }

    fn consume(&mut self, read: usize) {
        self.input.consume(read);
        self.count(read);
    }
}
