//! The configuration: read, checked whole, and turned into what the daemon works with.

mod decisions;
pub(crate) mod defaults;
#[cfg(test)]
pub(crate) mod documentation;
mod drift;
mod options;
pub(crate) mod policy;
mod resolve;
pub(crate) mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bliss_catboost::BotOptions;
use bliss_core::key::KeySecret;
use bliss_core::policy::source::Policy;
use bliss_core::schema::Schema;
use bliss_store::PublishOptions;
use serde::Deserialize;

use crate::checkpoint::KeepOptions;
use crate::decisions::DecisionOptions;
use crate::origin::{Origin, Target};
use crate::policy::{Gate, TestCase};
pub use drift::DriftOptions;
pub(crate) use options::directory as default_directory;
pub use source::ConfigError;
use source::Source;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the publication's files are.
    pub directory: PathBuf,
    /// The time between two publications.
    pub publish_interval: Duration,
    /// How its files are made.
    pub publish: PublishOptions,
    /// What is kept on disk over a restart.
    pub checkpoint: KeepOptions,
    /// Rows older than this many times their dimension's `max_age` are removed; 0: none are.
    pub expire_after_max_ages: u32,
    /// Where `/status` and the like answer.
    pub listen: SocketAddr,
    /// Names that the admin pages may be asked for by, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// How the daemon's log is written.
    pub log_output: LogOutput,
    /// Which of it is written, as a `tracing` filter.
    pub log_level: String,
    /// When inputs of models are told to be no longer what they were.
    pub drift: DriftOptions,
    /// What is written of decisions.
    pub decisions: DecisionOptions,
    /// Dimensions and attributes.
    pub schema: Schema,
    /// Where features come from. Each dimension of the schema is filled by exactly one.
    pub origins: Vec<Origin>,
    /// Models, in the order of the file.
    pub models: Vec<Model>,
    /// Whether the model that comes with BLISS is published: no other is configured, and its features are there.
    pub uses_default_model: bool,
    /// Which models answer for whom.
    pub routes: Vec<Route>,
    /// Policies, in the order of the file.
    pub policies: Vec<Policy>,
    /// Which policy answers under which route; every other one has what comes with BLISS.
    pub policy_routes: Vec<(String, String)>,
    /// Tests of the policies.
    pub tests: Vec<TestCase>,
    /// What a reloaded policy may do.
    pub gate: Gate,
}

/// How the daemon's log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
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
    /// Which class is that of bots, and how answers are read.
    pub bot: BotOptions,
    /// Whether it is published with the weights of its leaves.
    pub explain: bool,
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

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the option.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &Self::read_text(path)?)
    }

    /// The text of the file at `path`.
    pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
        std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.to_owned(),
            line: None,
            message: format!("cannot read the configuration: {error}"),
        })
    }

    /// Checks `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source { path, text };
        let file: options::File = toml::from_str(text).map_err(|error| source.toml(&error))?;
        resolve::resolve(source, file)
    }

    /// The origin at `index`, and what it fills.
    pub fn target<'a>(&'a self, index: usize, secret: &'a KeySecret) -> Option<Target<'a>> {
        let origin = self.origins.get(index)?;
        let Self { schema, directory, publish_interval, .. } = self;
        Some(Target { origin, schema, secret, directory, publish_interval: *publish_interval })
    }
}

#[cfg(test)]
mod tests;
