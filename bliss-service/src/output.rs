//! What the programs print. Standard output that nobody reads any more ends a program quietly, a full disk is an error, and
//! neither is a panic.

use std::fmt::Arguments;
use std::io::{self, Write as _};

use anyhow::Context as _;

/// Whoever read standard output has ended.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct Closed;

/// Prints to standard output.
///
/// # Errors
/// [`Closed`], or that it cannot be written.
pub(crate) fn print(text: Arguments<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)
        .and_then(|()| out.flush())
        .context("standard output cannot be written")
        .map_err(closed)
}

/// [`Closed`] in place of an error of something that wrote to standard output, if that was the reason.
pub(crate) fn closed(error: anyhow::Error) -> anyhow::Error {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    let is_closed = error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(broken)
            || cause.downcast_ref::<csv::Error>().is_some_and(|error| match error.kind() {
                csv::ErrorKind::Io(error) => broken(error),
                _ => false,
            })
    });
    if is_closed { Closed.into() } else { error }
}

/// Prints to standard error, if that can be.
pub(crate) fn note(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
