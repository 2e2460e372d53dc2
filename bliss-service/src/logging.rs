//! The daemon's own log, to standard error.

use std::io::IsTerminal;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::LogOutput;

/// Starts logging as configured; `BLISS_LOG` in the environment overrides `level`.
///
/// # Errors
/// A filter is wrong, or the process already logs.
pub fn start(output: LogOutput, level: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("BLISS_LOG") {
        Ok(own) => EnvFilter::try_new(own).context("BLISS_LOG")?,
        Err(_) => EnvFilter::try_new(level)?,
    };
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match output {
        LogOutput::Text => builder.with_target(false).try_init(),
        LogOutput::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot start: {error}"))
}
