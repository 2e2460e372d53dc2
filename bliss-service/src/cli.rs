//! The command lines of the two programs: `bliss-service`, the daemon, and `blissctl`, what a person types.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::policy::overrides::Kind;
use crate::policy::task::Loaded;
use crate::policy::{control, trial};
use crate::{
    check, daemon, decisions, demo, explain, export, lab, logging, model_tool, output, score_log, train,
};

/// Publishes features and models for bot scores to shared memory.
#[derive(Debug, Parser)]
#[command(name = "bliss-service", version)]
pub struct Service {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Run the daemon until SIGTERM.
    Run {
        /// The configuration; docs/bliss.toml has every option.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration, the models that it names, and whether this host and user let it work; change nothing.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Exit with 1 for warnings too, not only for errors.
        #[arg(long)]
        strict: bool,
    },
    /// Now `blissctl features`.
    Features(export::Options),
    /// Now `blissctl model`.
    #[command(subcommand)]
    Model(model_tool::ModelCommand),
    /// Now `blissctl demo`.
    Demo(demo::DemoOptions),
}

impl Service {
    /// Runs the command.
    ///
    /// # Errors
    /// For people: what went wrong, and where.
    pub fn run(self) -> anyhow::Result<()> {
        let command = match self.command {
            ServiceCommand::Run { config } => {
                let text = Config::read_text(&config)?;
                let (path, config) = (config.clone(), Config::parse(&config, &text)?);
                logging::start(config.log_output, &config.log_level)?;
                return daemon::run(Loaded { path, text, config: config.into() });
            }
            ServiceCommand::Check { config, strict } => return check::run(&config, strict),
            ServiceCommand::Features(options) => CtlCommand::Features(options),
            ServiceCommand::Model(command) => CtlCommand::Model(command),
            ServiceCommand::Demo(options) => CtlCommand::Demo(options),
        };
        Ctl { command }.run()
    }
}

/// Tries BLISS out, exports training rows, and looks into models.
#[derive(Debug, Parser)]
#[command(name = "blissctl", version)]
pub struct Ctl {
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// Replay made-up traffic, or a log, through features, publications and scores, and print the result.
    Demo(demo::DemoOptions),
    /// For each request of an access log, write the features that a web server would have read at that moment.
    Features(export::Options),
    /// Score each request of an access log as a web server would have at that moment, and say who scores low.
    Score(score_log::Options),
    /// Say why a request was answered as it was, or why one of an access log would have got its score.
    Explain(explain::Options),
    /// Sum up what was decided lately, or follow it.
    Decisions(decisions::ShowOptions),
    /// Train a model on this site's own access log, without labels.
    Train(train::Options),
    /// Allow an address, a network or a user agent, whatever policies say.
    Allow(control::Add),
    /// Block an address, a network or a user agent.
    Deny(control::Add),
    /// Challenge an address, a network or a user agent.
    Challenge(control::Add),
    /// List what is allowed, denied and challenged by hand, and say whether policies act.
    Exceptions(control::List),
    /// Remove an exception.
    Forget(control::Forget),
    /// Switch all policies and exceptions off: every request is allowed.
    Off(control::Switch),
    /// Switch them on again.
    On(control::Switch),
    /// Try policies on a log.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look into traffic whose clients are known, as that of BLISS's traffic lab.
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// Look into CatBoost models, compile and evaluate them.
    #[command(subcommand)]
    Model(model_tool::ModelCommand),
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say who would be blocked, challenged and let through by a configuration's policies, beside those of another one.
    Test(trial::Options),
}

impl Ctl {
    /// Runs the command.
    ///
    /// # Errors
    /// For people: what went wrong, and where.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            CtlCommand::Demo(options) => demo::run(&options),
            CtlCommand::Features(options) => export::run(&options).map(drop),
            CtlCommand::Score(options) => score_log::run(&options),
            CtlCommand::Explain(options) => explain::run(&options),
            CtlCommand::Decisions(options) => decisions::show(&options),
            CtlCommand::Train(options) => train::run(&options),
            CtlCommand::Allow(options) => control::add(Kind::Allow, &options),
            CtlCommand::Deny(options) => control::add(Kind::Deny, &options),
            CtlCommand::Challenge(options) => control::add(Kind::Challenge, &options),
            CtlCommand::Exceptions(options) => control::list(&options),
            CtlCommand::Forget(options) => control::forget(&options),
            CtlCommand::Off(options) => control::switch(false, &options),
            CtlCommand::On(options) => control::switch(true, &options),
            CtlCommand::Policy(PolicyCommand::Test(options)) => trial::run(&options),
            CtlCommand::Lab(command) => lab::run(&command),
            CtlCommand::Model(command) => model_tool::run(&command),
        }
    }
}

/// The exit code of a program; prints the error.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.is::<output::Closed>() {
                return ExitCode::SUCCESS;
            }
            output::note(format_args!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}
