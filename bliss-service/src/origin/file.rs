//! A file of rows, read again when it changes.

mod watched;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::look::Look;
use super::{Context, Resolver, Target};
use crate::config::defaults::{max_bytes, max_decoded_bytes, max_line_bytes, min_rows, seconds, warn_shrink};
use crate::config::source::ConfigError;
use crate::decode::{Limits, RowFormat};

pub(super) use watched::Watched;

/// A file of rows, read again when it changes. Replace it by renaming a new one over it.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    name: Spanned<String>,
    dimensions: Vec<Spanned<String>>,
    path: PathBuf,
    /// "jsonl" or "csv"; by default what the path ends in.
    format: Option<RowFormat>,
    /// How often to check whether the file changed.
    #[serde(default = "seconds::<5>", with = "humantime_serde")]
    interval: Duration,
    /// How long a read may take.
    #[serde(default = "seconds::<30>", with = "humantime_serde")]
    timeout: Duration,
    /// Bytes to read, after decompression; bytes of one line or row; and bytes that the rows may take in memory while they are
    /// read, 48 each and 4 more for each feature of their dimension. Published, they take up to about twice as much, in two copies.
    #[serde(default = "max_bytes")]
    max_bytes: u64,
    #[serde(default = "max_line_bytes")]
    max_line_bytes: u64,
    #[serde(default = "max_decoded_bytes")]
    max_decoded_bytes: u64,
    /// By default as many as `max_decoded_bytes` has room for.
    max_rows: Option<u64>,
    /// Fewer rows are refused, so that a file that is empty for a moment removes nothing.
    #[serde(default = "min_rows")]
    min_rows: u64,
    /// A dimension that loses more than this share of its rows is warned of, in the log and in /status; 1: never.
    #[serde(default = "warn_shrink")]
    warn_shrink: f64,
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
#name = "networks"
#dimensions = ["network", "hosting"]
#path = "networks.jsonl"
#format = "jsonl"
#max_rows = 1000000
"#;

impl Options {
    pub(super) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
        let Self { name, dimensions, interval, timeout, .. } = self;
        resolver.check_durations(&name, &[("interval", interval), ("timeout", timeout)])?;
        resolver.check_share(&name, "warn_shrink", self.warn_shrink)?;
        let file = File {
            format: resolver.format(&name, self.format, &self.path.to_string_lossy())?,
            path: resolver.file(self.path),
            interval,
            timeout,
            limits: Limits {
                max_bytes: self.max_bytes,
                max_line_bytes: self.max_line_bytes,
                max_decoded_bytes: self.max_decoded_bytes,
                max_rows: self.max_rows,
                min_rows: self.min_rows,
            },
            warn_shrink: self.warn_shrink,
        };
        resolver.add(&name, &dimensions, file).map(drop)
    }
}

/// `[[origin.file]]`, resolved.
#[derive(Clone, Debug)]
pub struct File {
    /// The file.
    pub path: PathBuf,
    /// How its rows are written.
    pub format: RowFormat,
    /// How often to check whether it changed.
    pub interval: Duration,
    /// How long a read may take.
    pub timeout: Duration,
    /// How large it may be.
    pub limits: Limits,
    /// The share of a dimension's rows beyond whose loss a warning is given.
    pub warn_shrink: f64,
}

impl super::Kind for File {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let decoder = target.rows(self.limits, self.format);
        let mut watched = Watched::new(self.path.clone(), self.timeout, decoder);
        loop {
            let look = tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                look = watched.look() => look,
            };
            match look {
                Look::Unchanged { is_accepted } => context.state.unchanged(context.index, is_accepted),
                Look::Read(decoded, _) => watched.settle(context.conclude(decoded, self.warn_shrink).await),
            }
            if !context.sleep(self.interval).await {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
