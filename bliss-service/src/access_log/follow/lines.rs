//! From bytes, as they come, to whole lines.

use crate::access_log::parse::MAX_LINE_BYTES;

/// What is left of the bytes that came so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The rest of the line is skipped: it was too long, or reading began inside it.
    pub(super) skipping: bool,
}

impl Lines {
    /// Bytes of the line that has not ended yet.
    pub(super) fn partial_bytes(&self) -> u64 {
        self.partial.len() as u64
    }

    /// As if `partial` were what came of a line so far.
    pub(super) fn begun(partial: &[u8], skipping: bool) -> Self {
        Self { partial: partial.to_owned(), skipping }
    }

    /// Passes every line that `bytes` end, without its line end; of one longer than [`MAX_LINE_BYTES`] a beginning that
    /// is longer than that too.
    pub(super) fn split(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if std::mem::take(&mut self.skipping) {
                self.partial.clear();
            } else if self.partial.is_empty() {
                line(head);
            } else {
                self.partial.extend_from_slice(head);
                line(&self.partial);
                self.partial.clear();
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.is_empty() {
            // A server that does not append leaves them after a truncation in place, as many as the file was long.
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
            bytes = &bytes[start..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE_BYTES {
            line(&self.partial);
            self.partial = Vec::new();
            self.skipping = true;
        }
    }
}
