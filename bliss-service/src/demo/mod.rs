//! The demonstration: traffic, features, publications and scores, in two processes, on one screen.
//!
//! A log (made up, or a real one) is replayed by its own clock. This process is the daemon's part: it makes features of
//! the requests seen so far and publishes them every second of the log's time. Another process, `bliss-scorer`, scores
//! every request through libblissffi from what is published at that moment. Nothing is left behind.
//!
//! Of made-up traffic it is known who sent it, so that the scores of people and bots stand side by side. Of a real log nobody
//! knows: it shows what the largest clients got, and leaves the judgement to the reader.

mod report;
mod scorer;
mod tally;
pub mod traffic;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bliss_core::build::Change;
use bliss_core::build::{ModelSet, NamedRoute};
use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::schema::Schema;
use bliss_core::score::Unscored;
use bliss_store::{PublishOptions, Publisher};

use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{BUILT_IN_DIMENSIONS, full_dimension};
use crate::access_log::parse::{Format, Parser, Record};
use crate::access_log::replay::{Event, Replay, ReplayOptions};
use crate::model_files::prepare;
use crate::model_tool::BotArgs;
use crate::output;

use report::Report;
use scorer::{Reply, Scorer};
use tally::{Client, Groups, Sender, Tally};
use traffic::Group;

/// The model of the demonstration; its card is beside it.
const MODEL: &[u8] = crate::DEFAULT_MODEL;

/// Options of `blissctl demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Replay this access log (combined format or nginx JSON) instead of made-up traffic.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Print the figures as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Seed of the made-up traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program that scores requests; by default `bliss-scorer` beside this one.
    #[arg(long)]
    scorer: Option<PathBuf>,
    /// A model to use instead of the built-in one (a CatBoost .cbm or JSON file).
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    bot: BotArgs,
}

/// Runs the demonstration and prints what it found.
///
/// # Errors
/// The log or the model cannot be read, there is no space, or the other process fails.
pub fn run(options: &DemoOptions) -> Result<()> {
    let started = Instant::now();
    let scorer = options.scorer.clone().map_or_else(Scorer::default_path, Ok)?;
    let directory = scratch_directory()?;
    let (log, name, labels) = match &options.log {
        Some(path) => (path.clone(), path.display().to_string(), None),
        None => {
            let path = directory.path().join("access.log");
            let requests = traffic::requests(options.seed);
            std::fs::write(&path, traffic::log(&requests))?;
            let name = format!(
                "{} minutes of a small shop, made up with seed {}",
                traffic::SECONDS / 60,
                options.seed
            );
            (path, name, Some(requests.iter().map(|request| request.group).collect::<Vec<_>>()))
        }
    };
    let replay = Replay::open(&log, Parser::new(Format::Auto, &[]), ReplayOptions::default())
        .with_context(|| format!("{}: cannot be read", log.display()))?;
    let summary = replay.summary().clone();
    if let Some((line, error)) = &summary.first_malformed {
        output::note(format_args!("{}:{line}: {error}; such lines are counted and skipped\n", log.display()));
    }
    ensure!(
        summary.requests > 0,
        "{}: no line of it is a request in the combined format or nginx's JSON",
        log.display()
    );

    let (models, model_name) = demo_models(options.model.as_deref(), &options.bot)?;
    let published = directory.path().join("published");
    std::fs::create_dir(&published)?;
    let schema = Schema {
        dimensions: BUILT_IN_DIMENSIONS.iter().filter_map(|name| full_dimension(name)).collect(),
        ..Schema::default()
    };
    let mut publisher = Publisher::open(&published, &PublishOptions::default(), schema)?;
    publisher.publish_models(&models)?;
    publisher.publish(Change::default())?;
    let all: Vec<_> = (0..BUILT_IN_DIMENSIONS.len()).collect();
    let counting = AggregateOptions { is_replay: true, ..AggregateOptions::default() };
    let mut aggregator = Aggregator::new(publisher.schema(), &all, publisher.secret(), counting)?;
    let tally = if labels.is_some() { Tally::Groups(Groups::default()) } else { Tally::default() };
    let mut demo = Demo {
        scorer: Scorer::start(&scorer, &published)?,
        publisher,
        progress: Progress::new(summary.requests),
        batch: Vec::new(),
        seen: 0,
        labels,
        report: Report {
            log: name,
            model: model_name,
            requests: summary.requests,
            malformed: summary.malformed,
            late: summary.late,
            first_ms: summary.first_ms,
            last_ms: summary.last_ms,
            is_built_in_model: options.model.is_none(),
            tally,
            ..Report::default()
        },
    };
    replay.run(&mut aggregator, |event| demo.on(event))?;
    let mut report = demo.finish()?;
    directory.close().context("the temporary directory cannot be removed")?;
    report.seconds = started.elapsed().as_secs_f64();
    if options.json {
        output::print(format_args!("{}\n", report.json()))
    } else {
        output::print(format_args!("{report}\n"))
    }
}

/// A directory in memory, or where temporary files go if there is no such file system.
fn scratch_directory() -> Result<tempfile::TempDir> {
    let named = |parent: &Path| tempfile::Builder::new().prefix("bliss-demo-").tempdir_in(parent);
    let in_memory = named(Path::new("/dev/shm"));
    in_memory.or_else(|_| named(&std::env::temp_dir())).context("no temporary directory can be created")
}

fn demo_models(path: Option<&Path>, bot: &BotArgs) -> Result<(ModelSet, String)> {
    let (bytes, name) = match path {
        Some(path) => {
            let read = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            (read, path.display().to_string())
        }
        None => (MODEL.to_vec(), "default, built in".to_owned()),
    };
    let prepared = prepare(&bytes, &bot.into(), false).with_context(|| format!("model {name}"))?;
    let model = prepared.named("demo", "1");
    let route = NamedRoute { name: DEFAULT_ROUTE.into(), active: Some("demo".into()), shadows: vec![] };
    Ok((ModelSet { models: vec![model], routes: vec![route] }, name))
}

/// A replay under way.
struct Demo {
    publisher: Publisher,
    scorer: Scorer,
    progress: Progress,
    report: Report,
    /// For each line of the log, who sent it, where that is known.
    labels: Option<Vec<Group>>,
    /// For each request of the batch, who sent it.
    batch: Vec<Sender>,
    seen: u64,
}

impl Demo {
    fn on(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Request { line, record } => {
                self.batch.push(self.sender(line, record)?);
                self.scorer.add(record);
                if self.batch.len() >= 1000 {
                    self.score_batch()?;
                }
            }
            Event::Publication { change, .. } => {
                // Requests before this publication are scored before it is made.
                self.score_batch()?;
                self.publisher.publish(change)?;
                self.report.publications += 1;
                self.progress.show(self.seen, self.report.publications);
            }
        }
        Ok(())
    }

    fn sender(&self, line: u64, record: &Record<'_>) -> Result<Sender> {
        let Some(labels) = &self.labels else {
            let user_agent = record.user_agent.as_deref().map(<[u8]>::to_vec);
            return Ok(Sender::Client(Client { ip: record.ip, user_agent }));
        };
        let index = usize::try_from(line)?.checked_sub(1);
        let group = index.and_then(|index| labels.get(index)).context("a line that nobody made")?;
        Ok(Sender::Group(*group, record.ip))
    }

    fn score_batch(&mut self) -> Result<()> {
        let published = self.publisher.generation();
        for (reply, sender) in self.scorer.flush()?.into_iter().zip(self.batch.drain(..)) {
            let read = Some(reply.generation);
            ensure!(read == published, "a request read publication {read:?}, but {published:?} was current");
            self.report.add(&reply, sender);
            self.seen += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Report> {
        self.score_batch()?;
        self.progress.end();
        self.scorer.stop()?;
        let tables = self.publisher.current();
        let rows = |i| tables.and_then(|t| t.table(i).ok()).map_or(0, |table| table.rows());
        self.report.rows = (0..BUILT_IN_DIMENSIONS.len()).map(rows).sum();
        Ok(self.report)
    }
}

impl Report {
    fn add(&mut self, reply: &Reply, sender: Sender) {
        let scored = (reply.status == 0).then_some((reply.score, reply.bot_probability));
        if scored.is_some() {
            self.scored += 1;
        } else {
            let known = Unscored::ALL.into_iter().find(|reason| *reason as i32 == reply.status);
            let reason = known.map_or_else(|| format!("error {}", reply.status), |r| r.as_str().to_owned());
            *self.unscored.entry(reason).or_default() += 1;
        }
        self.tally.add(sender, scored);
        self.fetch_ns.extend(reply.fetch_ns);
        self.score_ns.extend(reply.score_ns);
    }
}

/// One line on standard error that says how far the replay is: in place on a terminal, else now and then.
struct Progress {
    requests: u64,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    fn new(requests: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        output::note(format_args!(
            "replaying {requests} requests: features are published every second of the log's time\n"
        ));
        Self { requests, shown: Instant::now(), terminal }
    }

    fn show(&mut self, seen: u64, publications: u64) {
        let pause = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let percent = seen * 100 / self.requests.max(1);
        let line = format!("{percent:>3} %  {seen} requests scored, {publications} publications");
        if self.terminal {
            output::note(format_args!("\r{line}"));
        } else {
            output::note(format_args!("{line}\n"));
        }
    }

    fn end(&self) {
        if self.terminal {
            output::note(format_args!("\r{:60}\r", ""));
        }
    }
}

#[cfg(test)]
mod tests;
