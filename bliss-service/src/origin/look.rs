//! What origins of files and of web servers have in common: they look, and decode what is new.

use std::io::BufRead;
use std::sync::Arc;

use jiff::Timestamp;

use super::Target;
use crate::decode::{Accepted, Decoder, Limits, RowFormat};
use crate::refusal::Refusal;

/// What reads the bytes of an origin.
pub(super) trait Decode: Send + Sync + 'static {
    /// What it makes of them.
    type Output: Send + 'static;

    /// Reads a whole snapshot; `name` is what errors call it.
    fn decode(&self, name: &str, input: impl BufRead) -> Result<Self::Output, Refusal>;
}

/// What came of a look.
pub(super) enum Look<T> {
    /// It is what it was, and whether that was accepted.
    Unchanged {
        /// It was.
        is_accepted: bool,
    },
    /// It is new or could not be read; and when it changed, where that is told.
    Read(Result<T, Refusal>, Option<Timestamp>),
}

/// A decoder of rows in one format.
pub(super) struct RowDecoder {
    decoder: Decoder,
    format: RowFormat,
}

impl Decode for RowDecoder {
    type Output = Accepted;

    fn decode(&self, name: &str, input: impl BufRead) -> Result<Accepted, Refusal> {
        self.decoder.decode(name, self.format, input)
    }
}

impl Target<'_> {
    /// A decoder of rows of the origin's dimensions.
    pub(super) fn rows(&self, limits: Limits, format: RowFormat) -> Arc<RowDecoder> {
        let decoder = Decoder::new(self.schema, &self.origin.dimensions, self.secret, limits);
        Arc::new(RowDecoder { decoder: decoder.for_directory(self.directory), format })
    }
}
