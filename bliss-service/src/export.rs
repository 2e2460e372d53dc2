//! Training rows without skew: for each request of a log, the vector that a worker would have read at that moment.
//!
//! The log is replayed; every publication goes to a directory of shared memory, and every request is looked up there
//! by the library that web servers use. So training sees what serving sees, defaults, stale rows and all.

pub mod lists;
mod parquet;
mod progress;
mod rows;
pub mod text;
pub(crate) mod walk;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;

use crate::access_log::replay::{Replay, ReplayOptions, Rewrite, Summary};
use crate::output;

use self::lists::ListFile;
use self::parquet::Parquet;
use self::progress::Progress;
use self::rows::{Columns, Csv, Row, Rows};
use self::walk::{Plan, Published, walk};

/// Options of `blissctl features`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The access log: combined format, or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// Where the rows go: as Parquet if the name ends in `.parquet`, else as CSV. `-` is standard output, as CSV.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Take dimensions and options from the access log origin and the lists of this configuration; by default the built-in
    /// dimensions.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A list of networks as the feature `lists.NAME`, such as hosting=/usr/share/libloc-location/location.db; several times for
    /// several. Today's list is used for the whole log.
    #[arg(long, value_name = "NAME=FILE")]
    pub list: Vec<ListFile>,
    /// Other user agents for some lines: a CSV file with the columns `line` and `user_agent`; a line without one is left out.
    #[arg(long, value_name = "FILE")]
    pub rewrite: Option<PathBuf>,
    /// The time between two publications, by the log's clock.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub interval_seconds: u32,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// What the log held.
    pub log: Summary,
    /// Publications made.
    pub publications: u64,
    /// Columns of each row.
    pub columns: usize,
}

/// Writes the rows.
///
/// # Errors
/// The log cannot be read, the rows cannot be written, or there is no room for the publications.
pub fn run(options: &Options) -> anyhow::Result<Exported> {
    let plan = Plan::new(options.config.as_deref(), &options.list)?;
    let interval_ms = u64::from(options.interval_seconds) * 1000;
    let replay_options = ReplayOptions { interval_ms, lateness_ms: plan.aggregate.lateness_ms };
    let names = options.log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(" ");
    let mut replay = Replay::open_all(&options.log, plan.parser.clone(), replay_options)
        .with_context(|| format!("--log {names}"))?;
    if let Some(rewrite) = &options.rewrite {
        replay.set_rewrite(Rewrite::read(rewrite).context("--rewrite")?);
    }
    let to_out = || format!("--out {}", options.out.display());
    let columns = Columns::new(&plan.schema);
    let publications = if options.out == Path::new("-") {
        Csv::new(&columns, std::io::stdout().lock())
            .and_then(|rows| write(&plan, &replay, Box::new(rows)))
            .map_err(output::closed)
    } else {
        File::create(&options.out).map_err(anyhow::Error::from).and_then(|file| {
            let rows: Box<dyn Rows> = if is_parquet(&options.out) {
                Box::new(Parquet::new(&columns, file)?)
            } else {
                Box::new(Csv::new(&columns, file)?)
            };
            write(&plan, &replay, rows)
        })
    };
    let exported = Exported {
        log: replay.summary().clone(),
        publications: publications.with_context(to_out)?,
        columns: columns.len(),
    };
    let Summary { requests, malformed, late, first_malformed, .. } = &exported.log;
    output::note(format_args!(
        "{requests} requests with {} columns, {} publications, {late} lines too late to count\n",
        exported.columns, exported.publications
    ));
    if let Some((line, error)) = first_malformed {
        let log = names;
        anyhow::ensure!(
            exported.log.requests > 0,
            "{log}: none of {malformed} lines can be read; the first, line {line}: {error}"
        );
        output::note(format_args!(
            "{malformed} lines cannot be read, the first: {log}, line {line}: {error}\n"
        ));
    }
    Ok(exported)
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Writes every row, and returns how many publications were made.
fn write(plan: &Plan, replay: &Replay, mut rows: Box<dyn Rows + '_>) -> anyhow::Result<u64> {
    let mut progress = Progress::new(replay.summary().requests, Instant::now());
    let publications = walk(plan, replay, Published::default(), |client, seen| {
        let (line, record) = (seen.line, seen.record);
        let (values, statuses) = client
            .look_up(&seen.request, seen.now)
            .map_err(|reason| anyhow::anyhow!("line {line} cannot be looked up: {reason}"))?;
        rows.write(&Row { line, record, request_values: &seen.values, values, statuses })?;
        if let Some(words) = progress.add(Instant::now()) {
            output::note(format_args!("{words}\n"));
        }
        Ok(())
    })?;
    rows.finish()?;
    Ok(publications)
}

#[cfg(test)]
mod tests;
