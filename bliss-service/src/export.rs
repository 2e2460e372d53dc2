//! Training rows without skew: for each request of a log, the vector that a worker would have read at that moment.
//!
//! The log is replayed; every publication goes to a directory of shared memory, and every request is looked up there
//! by the library that web servers use. So training sees what serving sees, defaults, stale rows and all.

mod parquet;
mod rows;
pub mod text;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bliss_core::http::RequestValue;
use bliss_core::request::Request;
use bliss_core::schema::Schema;
use bliss_store::{Client, PublishOptions, Publisher};

use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{BUILT_IN_DIMENSIONS, full_dimension};
use crate::access_log::parse::Parser;
use crate::access_log::replay::{Event, Replay, ReplayOptions, Rewrite, Summary};
use crate::access_log::site::SiteHosts;
use crate::config::Config;
use crate::origin::OriginKind;
use crate::output;

use self::parquet::Parquet;
use self::rows::{Columns, Csv, Row, Rows};

/// Options of `blissctl features`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The access log: combined format, or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// Where the rows go: as Parquet if the name ends in `.parquet`, else as CSV. `-` is standard output, as CSV.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Take dimensions and options from the access log origin of this configuration; by default the built-in
    /// dimensions.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
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

/// What is computed, and how lines are read.
struct Plan {
    schema: Schema,
    dimensions: Vec<usize>,
    parser: Parser,
    aggregate: AggregateOptions,
}

impl Plan {
    fn new(config: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = config else {
            let dimensions = BUILT_IN_DIMENSIONS.iter().filter_map(|name| full_dimension(name)).collect();
            return Ok(Self {
                schema: Schema { dimensions, ..Schema::default() },
                dimensions: (0..BUILT_IN_DIMENSIONS.len()).collect(),
                parser: Parser::default(),
                aggregate: AggregateOptions { is_replay: true, ..AggregateOptions::default() },
            });
        };
        let config = Config::read(path)?;
        let found = config.origins.iter().find_map(|origin| match &origin.kind {
            OriginKind::AccessLog(options) => Some((origin, options)),
            _ => None,
        });
        let Some((origin, options)) = found else {
            anyhow::bail!("{}: there is no [[origin.access_log]] to take features from", path.display());
        };
        // Other origins' rows are not in the log: their dimensions are left out.
        let indices = origin.dimensions.iter();
        let dimensions = indices.map(|index| config.schema.dimensions[*index].clone()).collect::<Vec<_>>();
        Ok(Self {
            dimensions: (0..dimensions.len()).collect(),
            schema: Schema { dimensions, ..config.schema },
            parser: options.parser.clone(),
            aggregate: AggregateOptions { is_replay: true, ..options.aggregate },
        })
    }
}

/// Writes the rows.
///
/// # Errors
/// The log cannot be read, the rows cannot be written, or there is no room for the publications.
pub fn run(options: &Options) -> anyhow::Result<Exported> {
    let plan = Plan::new(options.config.as_deref())?;
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
    let directory = Scratch::new()?;
    let publish_options = PublishOptions { grace: Duration::ZERO, ..PublishOptions::default() };
    let mut publisher = Publisher::open(&directory.0, &publish_options, plan.schema.clone())?;
    let mut aggregator = Aggregator::new(&plan.schema, &plan.dimensions, publisher.secret(), plan.aggregate)?;
    let mut client = Client::open(&directory.0)?;
    let http_id = client.names().http()?;
    let mut hosts = SiteHosts::default();
    let known = &plan.schema.site_hosts;

    let mut publications = 0;
    replay.run::<anyhow::Error>(&mut aggregator, |event| {
        match event {
            Event::Publication { change, .. } => {
                publisher.publish(change)?;
                publications += 1;
            }
            Event::Request { line, record } => {
                let ip: &[u8] = match &record.ip {
                    IpAddr::V4(ip) => &ip.octets(),
                    IpAddr::V6(ip) => &ip.octets(),
                };
                let mut request = Request::new();
                let http = record.http(ip);
                request.set_http(&http_id, http);
                let request_values = http.values(RequestValue::ALL_BITS, |host| hosts.is_site(known, host));
                let now = u32::try_from(record.time_ms / 1000).unwrap_or(u32::MAX);
                let (values, statuses) = client
                    .look_up(&request, now)
                    .map_err(|reason| anyhow::anyhow!("line {line} cannot be looked up: {reason}"))?;
                rows.write(&Row { line, record, request_values: &request_values, values, statuses })?;
                hosts.learn(record);
            }
        }
        Ok(())
    })?;
    rows.finish()?;
    Ok(publications)
}

/// A folder for the publications, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        // No two processes share an id; the random part is for what a killed one left behind.
        let random = getrandom::u32().unwrap_or_default();
        let path = parent.join(format!("bliss-features-{}-{random:08x}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
