//! The configuration: read, checked whole, and turned into what the daemon works with.

mod raw;
mod resolve;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bliss_core::schema::Schema;
use bliss_store::PublishOptions;
use serde::Deserialize;

use crate::access_log::aggregate::AggregateOptions;
use crate::access_log::parse::Parser;
use resolve::{Resolver, Source};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the publication's files are.
    pub directory: PathBuf,
    /// The time between two publications.
    pub publish_interval: Duration,
    /// How its files are made.
    pub publish: PublishOptions,
    /// Rows older than so many times their dimension's `max_age` are left out; 0: none are.
    pub expire_after_max_ages: u32,
    /// Where `/status` and the like answer.
    pub listen: SocketAddr,
    /// How the daemon's log is written.
    pub log_output: LogOutput,
    /// Which of it is written, as `tracing` filters say it.
    pub log_level: String,
    /// Dimensions and attributes.
    pub schema: Schema,
    /// Where features come from. Each dimension of the schema is filled by exactly one of them.
    pub origins: Vec<Origin>,
    /// Models, in the order of the file.
    pub models: Vec<Model>,
    /// Which models answer for whom.
    pub routes: Vec<Route>,
}

/// How the daemon's log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
}

/// What an origin of kind `access_log` does with its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLogMode {
    /// Reads what is written to it, by the clock of the host.
    #[default]
    Follow,
    /// Reads it once, by its own clock.
    Replay,
}

/// Where the features of some dimensions come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its name in logs, metrics and `/status`.
    pub name: String,
    /// The dimensions that it fills, as places in the schema.
    pub dimensions: Vec<usize>,
    /// How.
    pub kind: OriginKind,
}

/// The kinds of origin.
#[derive(Clone, Debug)]
pub enum OriginKind {
    /// A file of rows, read again when it changes.
    File(FileOrigin),
    /// Rows from a web server.
    Http(Box<HttpOrigin>),
    /// The host's own traffic.
    AccessLog(AccessLogOrigin),
}

impl OriginKind {
    /// The kind's name, as in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            OriginKind::File(_) => "file",
            OriginKind::Http(_) => "http",
            OriginKind::AccessLog(_) => "access_log",
        }
    }
}

/// How large a snapshot of rows may and must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, after decompression.
    pub max_bytes: u64,
    /// The most rows, over all dimensions.
    pub max_rows: u64,
    /// The fewest rows; so a file that is empty for a moment takes nothing away.
    pub min_rows: u64,
}

/// Options of `[[origin.file]]`.
#[derive(Clone, Debug)]
pub struct FileOrigin {
    /// The file.
    pub path: PathBuf,
    /// How its rows are written.
    pub format: RowFormat,
    /// How often to see whether it changed.
    pub interval: Duration,
    /// How long reading it may take.
    pub timeout: Duration,
    /// How large it may be.
    pub limits: Limits,
}

/// Options of `[[origin.http]]`.
#[derive(Clone, Debug)]
pub struct HttpOrigin {
    /// What to get.
    pub url: reqwest::Url,
    /// How its rows are written.
    pub format: RowFormat,
    /// Headers to send.
    pub headers: reqwest::header::HeaderMap,
    /// The proxy to go through; the environment's are not used.
    pub proxy: Option<reqwest::Url>,
    /// How often to ask.
    pub interval: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long everything may take, from connecting to the last byte.
    pub timeout: Duration,
    /// The first wait after a failure; it doubles with each further one.
    pub retry_min: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
    /// How large an answer may be.
    pub limits: Limits,
}

/// Options of `[[origin.access_log]]`.
#[derive(Clone, Debug)]
pub struct AccessLogOrigin {
    /// The log.
    pub path: PathBuf,
    /// Whether it is followed or replayed.
    pub mode: AccessLogMode,
    /// Reads its lines.
    pub parser: Parser,
    /// How late a line may come, and how many keys are held.
    pub aggregate: AggregateOptions,
    /// How much of a log that is there at the start is read.
    pub backlog_bytes: u64,
}

/// A model to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The `.cbm` file.
    pub path: PathBuf,
    /// The class whose probability is that of a bot.
    pub bot_class: u32,
}

/// Which models answer under a route's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// The model that gives the score.
    pub active: String,
    /// Models that are evaluated and reported beside it.
    pub shadow: Vec<String>,
}

/// What is wrong with a configuration, and where.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it start at its own folder.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the option.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.to_owned(),
            line: None,
            message: format!("cannot read the configuration: {error}"),
        })?;
        Self::parse(path, &text)
    }

    /// Checks `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source { path, text };
        let file: raw::File = toml::from_str(text).map_err(|error| source.toml(&error))?;
        Resolver::new(source).resolve(file)
    }
}

#[cfg(test)]
mod tests;
