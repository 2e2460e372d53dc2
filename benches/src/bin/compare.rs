//! Measures BLISS and its peers in one run.

use std::path::PathBuf;

use anyhow::Context;
use benches::records::{self, Record};
use benches::report::Report;
use benches::{chart, decide, ipc, locks, lookup, machine, prefixes, publish, score, sync};
use clap::{CommandFactory, Parser, Subcommand};

/// Measures BLISS and its peers in one run, and prints a table with ratios.
#[derive(Debug, Parser)]
#[command(arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    name: Option<Name>,
    /// One JSON object per line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Write a record of the run, with machine, commit and distributions, into this folder [default: benches/records].
    #[arg(long, global = true, value_name = "FOLDER", num_args = 0..=1, require_equals = true)]
    record: Option<Option<PathBuf>>,
    /// Draw this run as one HTML file; without a benchmark, of each the newest in benches/records.
    #[arg(long, global = true, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Where files of the subjects lie, in place of /dev/shm.
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
    /// Mount a tmpfs with huge=advise there, for this process alone (as root).
    #[arg(long, global = true)]
    huge: bool,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// The rows of 12 dimensions for one request.
    #[command(alias = "fetch")]
    Lookup(lookup::Options),
    /// The longest prefix of an address, of a million networks.
    Prefixes(prefixes::Options),
    /// All rows, or a change of some of them, published.
    Publish(publish::Options),
    /// Pins, typed reads and writes of the synchronizer alone.
    Sync(sync::Options),
    /// One row per call through CatBoost models.
    Score(score::Options),
    /// A policy beside the score.
    Decide(decide::Options),
    /// Messages to another process and back, by the ways of the source post.
    Ipc(ipc::Options),
    /// One writer and its readers, by locks and without, and with a stopped reader.
    Locks(locks::Options),
    /// Draws records of earlier runs as one HTML file: of each benchmark the newest.
    Report {
        /// The file to write.
        file: PathBuf,
        /// Records [default: all in benches/records].
        records: Vec<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let drawn = match (&arguments.name, &arguments.report) {
        (Some(Name::Report { file, records }), _) => Some((file, records.as_slice())),
        (None, Some(file)) => Some((file, [].as_slice())),
        _ => None,
    };
    if let Some((file, records)) = drawn {
        let records =
            if records.is_empty() { records::all(&records::folder())? } else { records::read(records)? };
        return write(file, &chart::page(&records));
    }
    let Some(name) = arguments.name else {
        let why = "name a benchmark to run, or --report FILE.html to draw earlier runs";
        Arguments::command().error(clap::error::ErrorKind::MissingSubcommand, why).exit();
    };
    if let Some(directory) = arguments.directory {
        machine::set_base(directory);
    }
    if arguments.huge {
        machine::mount_huge()?;
    }
    let mut report = Report::new(arguments.json);
    match name {
        Name::Lookup(options) => lookup::run(&options, &mut report)?,
        Name::Prefixes(options) => prefixes::run(&options, &mut report)?,
        Name::Publish(options) => publish::run(&options, &mut report)?,
        Name::Sync(options) => sync::run(&options, &mut report)?,
        Name::Score(options) => score::run(&options, &mut report)?,
        Name::Decide(options) => decide::run(&options, &mut report)?,
        Name::Ipc(options) => ipc::run(&options, &mut report)?,
        Name::Locks(options) => locks::run(&options, &mut report)?,
        Name::Report { .. } => {}
    }
    report.finish();
    let record = Record::of(&report, std::env::args().skip(1));
    record.print_goals();
    if let Some(folder) = arguments.record {
        let path = record.write(&folder.unwrap_or_else(records::folder))?;
        eprintln!("recorded in {}", path.display());
    }
    if let Some(file) = arguments.report {
        write(&file, &chart::page(&[record]))?;
    }
    Ok(())
}

fn write(file: &std::path::Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}
