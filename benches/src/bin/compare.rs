//! Measures BLISS and its peers in one run.

use benches::report::Report;
use benches::{fetch, publish, score, sync};
use clap::{Parser, Subcommand};

/// Measures BLISS and its peers in one run, and prints a table with ratios.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    name: Name,
    /// One JSON object per line instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// The rows of 12 dimensions for one request.
    Fetch(fetch::Options),
    /// All rows, or a change of some of them, published.
    Publish(publish::Options),
    /// Pins, typed reads and writes of the synchronizer alone.
    Sync(sync::Options),
    /// One row per call through CatBoost models.
    Score(score::Options),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.json);
    match arguments.name {
        Name::Fetch(options) => fetch::run(&options, &mut report)?,
        Name::Publish(options) => publish::run(&options, &mut report)?,
        Name::Sync(options) => sync::run(&options, &mut report)?,
        Name::Score(options) => score::run(&options, &mut report)?,
    }
    report.finish();
    Ok(())
}
