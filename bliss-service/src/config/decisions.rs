//! The section `[decisions]`.

use std::path::PathBuf;

use serde::Deserialize;

use super::source::{ConfigError, Source};
use crate::decisions::DecisionOptions;

#[cfg(test)]
pub(super) const SOURCE: &str = include_str!("decisions.rs");
#[cfg(test)]
pub(super) const EXAMPLE: &str = "#file = \"/var/lib/bliss/decisions.jsonl\"\n";

/// The log of decisions, which `blissctl decisions` and `blissctl explain REQUEST-ID` read: docs/decisions.md. It holds requests of
/// a followed access log that were answered otherwise than with what they asked for, with the reasons for their scores.
#[derive(Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Decisions {
    /// Of how many requests that were let through one is written too; 0: of none.
    sample_one_in: u64,
    /// At most so many a second are written; 0: none, and no file is made. Others are counted in a metric.
    max_per_second: u32,
    /// Bytes that the file, and the one before it (`.1`), may have together, at least 65536.
    max_bytes: u64,
    /// The file; by default `decisions.jsonl` in `checkpoint.directory`, and none where there is no such folder.
    #[cfg_attr(test, serde(skip_serializing))]
    file: Option<PathBuf>,
}

impl Default for Decisions {
    fn default() -> Self {
        let DecisionOptions { sample_one_in, max_per_second, max_bytes, file } = DecisionOptions::default();
        Self { sample_one_in, max_per_second, max_bytes, file }
    }
}

impl Decisions {
    pub(super) fn resolve(self, source: Source<'_>) -> Result<DecisionOptions, ConfigError> {
        let Self { sample_one_in, max_per_second, max_bytes, file } = self;
        if max_bytes < 1 << 16 {
            let message = format!("decisions.max_bytes: expected 65536 at least, found {max_bytes}");
            return Err(source.whole(message));
        }
        Ok(DecisionOptions {
            sample_one_in,
            max_per_second,
            max_bytes,
            file: file.map(|file| source.file(file)),
        })
    }
}
