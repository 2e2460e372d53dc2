//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::{daemon, demo, export, logging, model_tool};

/// Publishes features and models for bot scores to shared memory.
#[derive(Debug, Parser)]
#[command(name = "bliss-service", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM.
    Run {
        /// The configuration; docs/bliss.toml has every option.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and the models that it names, and do nothing else.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// For each request of an access log, write the features that a web server would have read at that moment.
    Features(export::Options),
    /// Look into CatBoost models, compile and evaluate them.
    #[command(subcommand)]
    Model(model_tool::ModelCommand),
    /// Replay made-up traffic, or a log, through features, publications and scores, and print what came of it.
    Demo(demo::DemoOptions),
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// For people: what went wrong, and where.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run { config } => {
                let config = Config::read(&config)?;
                logging::start(config.log_output, &config.log_level)?;
                daemon::run(config)
            }
            Command::Check { config } => check(&Config::read(&config)?),
            Command::Features(options) => export::run(&options).map(drop),
            Command::Model(command) => model_tool::run(&command),
            Command::Demo(options) => demo::run(&options),
        }
    }
}

fn check(config: &Config) -> anyhow::Result<()> {
    for model in &config.models {
        crate::models::compile(&model.path)
            .map_err(|error| anyhow::anyhow!("model `{}`, {}: {error}", model.name, model.path.display()))?;
    }
    println!(
        "good: {} dimensions with {} features, {} origins, {} models",
        config.schema.dimensions.len(),
        config.schema.width(),
        config.origins.len(),
        config.models.len()
    );
    Ok(())
}
