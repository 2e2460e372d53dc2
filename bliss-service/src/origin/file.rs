//! A file of rows, read again when it changes.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinHandle;
use toml::Spanned;

use super::{Context, Outcome, Resolver, Target};
use crate::config::defaults::{max_bytes, max_decoded_bytes, max_line_bytes, min_rows, seconds, warn_shrink};
use crate::config::source::ConfigError;
use crate::decode::{Accepted, Decoder, Limits, RowFormat};
use crate::fingerprint::{Fingerprint, open_regular};
use crate::refusal::Refusal;

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

type Read = Result<(Option<Accepted>, Fingerprint), (Refusal, Option<Fingerprint>)>;

impl super::Kind for File {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let decoder = target.decoder(self.limits);
        // What was read last, and whether it was accepted.
        let mut seen: Option<(Fingerprint, bool)> = None;
        let mut reading: Option<JoinHandle<Read>> = None;
        loop {
            let read = reading.get_or_insert_with(|| {
                let (path, format, decoder) = (self.path.clone(), self.format, decoder.clone());
                let before = seen.map(|(fingerprint, _)| fingerprint);
                tokio::task::spawn_blocking(move || read(&path, format, &decoder, before))
            });
            // A read that hangs is waited for again next time; there is never a second one beside it.
            let done = tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                done = tokio::time::timeout(self.timeout, &mut *read) => done,
            };
            if done.is_ok() {
                reading = None;
            }
            let (decoded, fingerprint) = match done {
                Err(_) => (Err(self.late()), None),
                Ok(Err(panic)) => (Err(Refusal::unavailable(format!("reading it failed: {panic}"))), None),
                Ok(Ok(Ok((None, _)))) => {
                    let is_accepted = seen.is_some_and(|(_, accepted)| accepted);
                    context.state.unchanged(context.index, is_accepted);
                    if !context.sleep(self.interval).await {
                        return Ok(());
                    }
                    continue;
                }
                Ok(Ok(Ok((Some(accepted), fingerprint)))) => (Ok(accepted), Some(fingerprint)),
                Ok(Ok(Err((refusal, fingerprint)))) => (Err(refusal), fingerprint),
            };
            seen = match context.conclude(decoded, self.warn_shrink).await {
                Outcome::Published => fingerprint.map(|fingerprint| (fingerprint, true)),
                Outcome::Refused => fingerprint.map(|fingerprint| (fingerprint, false)),
                // A file that disappears and comes back unchanged need not be read again.
                Outcome::Failed if fingerprint.is_none() => seen,
                Outcome::Failed | Outcome::Unchanged => None,
            };
            if !context.sleep(self.interval).await {
                return Ok(());
            }
        }
    }
}

impl File {
    fn late(&self) -> Refusal {
        let (path, timeout) = (self.path.display(), self.timeout);
        Refusal::unavailable(format!("{path}: reading it took longer than {timeout:?} (timeout)"))
    }
}

/// Reads the file unless it is as it was `before`.
fn read(path: &Path, format: RowFormat, decoder: &Decoder, before: Option<Fingerprint>) -> Read {
    let unavailable = |error: io::Error| (Refusal::unavailable(format!("{}: {error}", path.display())), None);
    let (file, fingerprint) = open_regular(path).map_err(unavailable)?;
    if fingerprint.is_still(before.as_ref()) {
        return Ok((None, fingerprint));
    }
    let name = path.display().to_string();
    let decoded = decoder.decode(&name, format, BufReader::with_capacity(1 << 18, &file));
    let after = Fingerprint::of(&file.metadata().map_err(unavailable)?);
    if !after.same_file(&fingerprint) {
        return Err((Refusal::unavailable(format!("{name}: it changed during the read")), None));
    }
    match decoded {
        Ok(accepted) => Ok((Some(accepted), fingerprint)),
        Err(refusal) => Err((refusal, Some(fingerprint))),
    }
}

#[cfg(test)]
mod tests;
