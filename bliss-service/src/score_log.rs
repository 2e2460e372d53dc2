//! `blissctl score`: what every request of a log would have got, and a summary for people.

mod summary;
mod table;

use std::path::PathBuf;

use anyhow::Context as _;
use bliss_core::build::ModelSet;
use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::score::{Scored, Unscored};

use crate::access_log::replay::{Replay, ReplayOptions};
use crate::export::lists::ListFile;
use crate::export::walk::{Plan, Published, Seen, walk};
use crate::model_files::prepare;
use crate::model_tool::BotArgs;
use crate::output;
use summary::Tallies;
use table::Scores;

/// A log, and by which model it is scored.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// The access log: combined format, or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// The model, as CatBoost saves it; by default the one that comes with BLISS.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Take dimensions and options from the access log origin and the lists of this configuration; by default the built-in
    /// dimensions.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A list of networks as the feature `lists.NAME`, as for `blissctl features`; the default model takes `lists.hosting`.
    #[arg(long, value_name = "NAME=FILE")]
    pub list: Vec<ListFile>,
    /// How the model's answers are read.
    #[command(flatten)]
    pub bot: BotArgs,
}

/// Options of `blissctl score`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What is scored.
    #[command(flatten)]
    pub source: Source,
    /// Where the scores go: as Parquet if the name ends in `.parquet`, else as CSV. `-` is standard output, as CSV, without the
    /// summary.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// One line of the result.
struct Line<'a> {
    line: u64,
    time_ms: u64,
    ip: &'a str,
    /// 1 (certainly automated) to 99 (certainly human).
    score: Option<u8>,
    /// `scored`, or why there is no score.
    status: &'static str,
    /// That the client is a robot.
    probability: Option<f64>,
}

/// Scores the log.
///
/// # Errors
/// The log or the model cannot be read, the scores cannot be written, or there is no room for the publications.
pub fn run(options: &Options) -> anyhow::Result<()> {
    score(options, &options.source.models()?)
}

/// Scores the log with models.
fn score(options: &Options, models: &ModelSet) -> anyhow::Result<()> {
    let to_out = || format!("--out {}", options.out.display());
    let mut scores = None;
    let mut tallies = Tallies::default();
    options.source.each_by(models, |seen, outcome| {
        let (score, status, probability) = match outcome {
            Ok(scored) => (Some(scored.score), "scored", Some(scored.bot_probability)),
            Err(reason) => (None, reason.as_str(), None),
        };
        let ip = seen.record.ip.to_string();
        tallies.add(seen.record, &ip, score);
        let line =
            Line { line: seen.line, time_ms: seen.record.time_ms, ip: &ip, score, status, probability };
        let scores = match &mut scores {
            Some(scores) => scores,
            none => none.insert(Scores::create(&options.out).with_context(to_out)?),
        };
        scores.write(&line).with_context(to_out)
    })?;
    if let Some(scores) = scores {
        scores.finish().with_context(to_out)?;
    }
    if options.out.as_os_str() == "-" {
        return Ok(());
    }
    output::print(format_args!("{tallies}"))
}

impl Source {
    /// Calls `on` with each request, in the order of their times, and what it would have got at that moment.
    ///
    /// # Errors
    /// The log or the model cannot be read, the log has no request, there is no room for the publications, or `on` fails.
    pub(crate) fn each(
        &self,
        on: impl FnMut(&Seen<'_>, Result<Scored, Unscored>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.each_by(&self.models()?, on)
    }

    fn each_by(
        &self,
        models: &ModelSet,
        mut on: impl FnMut(&Seen<'_>, Result<Scored, Unscored>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let plan = Plan::new(self.config.as_deref(), &self.list)?;
        let replay_options =
            ReplayOptions { lateness_ms: plan.aggregate.lateness_ms, ..ReplayOptions::default() };
        let names = self.log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(" ");
        let replay = Replay::open_all(&self.log, plan.parser.clone(), replay_options)
            .with_context(|| format!("--log {names}"))?;
        anyhow::ensure!(
            replay.summary().requests > 0,
            "--log {names}: no line of it is a request in the combined format or nginx's JSON"
        );
        let published = Published { models: Some(models), policies: None };
        walk(&plan, &replay, published, |client, seen| {
            let answer = client.score(&seen.request, DEFAULT_ROUTE, seen.now);
            on(seen, answer.outcome)
        })
        .map_err(output::closed)?;
        Ok(())
    }

    fn models(&self) -> anyhow::Result<ModelSet> {
        let (bytes, name) = match &self.model {
            Some(path) => {
                let read = std::fs::read(path).with_context(|| format!("--model {}", path.display()))?;
                (read, path.display().to_string())
            }
            None => (crate::DEFAULT_MODEL.to_vec(), "built in".to_owned()),
        };
        let prepared =
            prepare(&bytes, &(&self.bot).into(), false).with_context(|| format!("model {name}"))?;
        Ok(ModelSet::of_one(prepared.named("default", "1")))
    }
}

#[cfg(test)]
mod tests;
