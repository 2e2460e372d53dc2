//! `blissctl score`: what every request of a log would have got, and a summary for people.

mod summary;
mod table;

use std::path::PathBuf;

use anyhow::Context as _;
use bliss_core::build::ModelSet;
use bliss_core::publication::models::DEFAULT_ROUTE;

use crate::access_log::replay::{Replay, ReplayOptions};
use crate::export::walk::{Plan, walk};
use crate::model_files::prepare;
use crate::model_tool::BotArgs;
use crate::output;
use summary::Tallies;
use table::Scores;

/// Options of `blissctl score`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The access log: combined format, or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// The model, as CatBoost saves it; by default the one that comes with BLISS.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Take dimensions and options from the access log origin of this configuration; by default the built-in dimensions.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the scores go: as Parquet if the name ends in `.parquet`, else as CSV. `-` is standard output, as CSV, without the
    /// summary.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How the model's answers are read.
    #[command(flatten)]
    pub bot: BotArgs,
}

/// One line of the result.
struct Scored<'a> {
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
    score(options, &models(options)?)
}

/// Scores the log with models.
fn score(options: &Options, models: &ModelSet) -> anyhow::Result<()> {
    let plan = Plan::new(options.config.as_deref())?;
    let replay_options =
        ReplayOptions { lateness_ms: plan.aggregate.lateness_ms, ..ReplayOptions::default() };
    let names = options.log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(" ");
    let replay = Replay::open_all(&options.log, plan.parser.clone(), replay_options)
        .with_context(|| format!("--log {names}"))?;
    let summary = replay.summary();
    anyhow::ensure!(
        summary.requests > 0,
        "--log {names}: no line of it is a request in the combined format or nginx's JSON"
    );
    let to_out = || format!("--out {}", options.out.display());
    let mut scores = Scores::create(&options.out).with_context(to_out)?;
    let mut tallies = Tallies::default();
    walk(&plan, &replay, Some(models), |client, seen| {
        let answer = client.score(&seen.request, DEFAULT_ROUTE, seen.now);
        let (score, status, probability) = match answer.outcome {
            Ok(scored) => (Some(scored.score), "scored", Some(scored.bot_probability)),
            Err(reason) => (None, reason.as_str(), None),
        };
        let ip = seen.record.ip.to_string();
        tallies.add(seen.record, &ip, score);
        let scored =
            Scored { line: seen.line, time_ms: seen.record.time_ms, ip: &ip, score, status, probability };
        scores.write(&scored).with_context(to_out)
    })
    .map_err(output::closed)?;
    scores.finish().with_context(to_out)?;
    if options.out.as_os_str() == "-" {
        return Ok(());
    }
    output::print(format_args!("{tallies}"))
}

fn models(options: &Options) -> anyhow::Result<ModelSet> {
    let (bytes, name) = match &options.model {
        Some(path) => {
            let read = std::fs::read(path).with_context(|| format!("--model {}", path.display()))?;
            (read, path.display().to_string())
        }
        None => (crate::DEFAULT_MODEL.to_vec(), "built in".to_owned()),
    };
    let prepared = prepare(&bytes, &(&options.bot).into(), false).with_context(|| format!("model {name}"))?;
    Ok(ModelSet::of_one(prepared.named("default", "1")))
}

#[cfg(test)]
mod tests;
