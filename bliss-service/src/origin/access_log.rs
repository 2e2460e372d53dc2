//! Features from the host's own traffic.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bliss_core::key::{KeySecret, SECRET_BYTES};
use serde::Deserialize;
use tokio::sync::oneshot;
use toml::Spanned;

use super::{Context, Resolver, Target};
use crate::access_log::aggregate::{AggregateCounters, AggregateOptions, Aggregator};
use crate::access_log::features::{BUILT_IN_DIMENSIONS, built_in_dimension};
use crate::access_log::follow::{FollowCounters, Follower, Poll, Start};
use crate::access_log::parse::{FieldKind, Format, Malformed, Parser, Record};
use crate::access_log::replay::{Event, Replay, ReplayOptions};
use crate::config::defaults::seconds;
use crate::config::source::ConfigError;
use crate::metrics::{Labels, label};
use crate::refusal::{Reason, Refusal};

/// How often the log is checked for new lines.
const POLL: Duration = Duration::from_millis(100);
/// How long a log that was there may be missing: between the two steps of a rotation there is none.
const MISSING: Duration = Duration::from_secs(2);
/// A clock that goes back by less is waited for.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);

/// Features from the host's own traffic.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    name: Spanned<String>,
    path: PathBuf,
    dimensions: Option<Vec<Spanned<String>>>,
    /// "follow": read what is written to it. "replay": read it once, by its own clock.
    #[serde(default)]
    mode: Mode,
    /// "auto" (a line that begins with { is JSON), "combined" or "json".
    #[serde(default)]
    format: Format,
    /// Own names of JSON fields: time, ip, user_agent, referrer, method, path, request, host, status, bot_action.
    #[serde(default)]
    fields: BTreeMap<FieldKind, String>,
    /// How far behind the last publication a line's time may lie and still count; at most 1h.
    #[serde(default = "seconds::<120>", with = "humantime_serde")]
    lateness: Duration,
    /// Keys that one dimension holds at most; for one more, an old one is dropped and counted in a metric.
    #[serde(default = "max_keys")]
    max_keys: usize,
    /// How much of the log is read at the start, to fill the windows again.
    #[serde(default = "backlog_bytes")]
    backlog_bytes: u64,
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
name = "traffic"
path = "/var/log/nginx/access.log"
dimensions = ["ip", "subnet", "user_agent", "ip_user_agent"]
"#;

fn max_keys() -> usize {
    200_000
}

fn backlog_bytes() -> u64 {
    256 << 20
}

impl Options {
    pub(super) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
        let name = &self.name;
        let built_in =
            || BUILT_IN_DIMENSIONS.iter().map(|built_in| Spanned::new(name.span(), (*built_in).to_owned()));
        let dimensions = self.dimensions.unwrap_or_else(|| built_in().collect());
        for dimension in &dimensions {
            if let Some(built_in) = built_in_dimension(dimension.get_ref()) {
                resolver.declare(dimension, built_in)?;
            }
        }
        if self.max_keys == 0 {
            return Err(resolver.error(name, "max_keys: expected at least 1"));
        }
        if self.lateness > Duration::from_secs(3600) {
            return Err(resolver.error(name, "lateness: expected at most 1h"));
        }
        let fields: Vec<_> = self.fields.into_iter().collect();
        let lateness_ms = self.lateness.as_millis() as u64;
        let log = AccessLog {
            path: resolver.file(self.path),
            mode: self.mode,
            parser: Parser::new(self.format, &fields),
            aggregate: AggregateOptions { lateness_ms, max_keys: self.max_keys },
            backlog_bytes: self.backlog_bytes,
        };
        let indices = resolver.add(name, &dimensions, log)?.dimensions.clone();
        let secret = KeySecret([0; SECRET_BYTES]);
        Aggregator::new(resolver.schema(), &indices, &secret, AggregateOptions::default())
            .map_err(|error| resolver.error(name, error))?;
        Ok(())
    }
}

/// What is done with the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Reads what is written to it, by the clock of the host.
    #[default]
    Follow,
    /// Reads it once, by its own clock.
    Replay,
}

/// `[[origin.access_log]]`, resolved.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// The log.
    pub path: PathBuf,
    /// Whether it is followed or replayed.
    pub mode: Mode,
    /// Reads its lines.
    pub parser: Parser,
    /// How late a line may come, and how many keys are held.
    pub aggregate: AggregateOptions,
    /// How much of a log that is there at the start is read.
    pub backlog_bytes: u64,
}

impl super::Kind for AccessLog {
    /// Runs on a thread of its own: counting is work for a processor and not for the runtime's few threads.
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let Target { origin, schema, secret, publish_interval } = target;
        let (done, ended) = oneshot::channel::<()>();
        let log = LogThread {
            reported: Reported::new(&origin.name),
            context,
            aggregator: Aggregator::new(schema, &origin.dimensions, secret, self.aggregate)?,
            options: self.clone(),
            interval_ms: u64::try_from(publish_interval.as_millis()).unwrap_or(u64::MAX).max(1),
            waiting: None,
            rows: 0,
            newest_ms: now_ms(),
        };
        let name = format!("log {}", origin.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let _done = done;
            log.run();
        })?;
        let _ = ended.await;
        thread.join().map_err(|_| anyhow::anyhow!("the access log's thread panicked"))
    }

    /// A replayed log's rows are young by its own clock.
    fn has_own_clock(&self) -> bool {
        self.mode == Mode::Replay
    }
}

/// The thread of one log.
struct LogThread {
    context: Context,
    options: AccessLog,
    aggregator: Aggregator,
    interval_ms: u64,
    /// The answer to the change sent last.
    waiting: Option<oneshot::Receiver<Result<(), String>>>,
    rows: u64,
    /// The time of the line that was read last, for lines whose time cannot be read.
    newest_ms: u64,
    reported: Reported,
}

impl LogThread {
    fn run(self) {
        match self.options.mode {
            Mode::Follow => self.follow(),
            Mode::Replay => self.replay(),
        }
    }

    fn follow(mut self) {
        while !self.context.stop.is_cancelled() {
            self.follow_one_clock();
            self.aggregator.reset();
        }
    }

    /// Follows the log until the daemon ends, or the host's clock was set back so far that what was counted lies in
    /// the future.
    fn follow_one_clock(&mut self) {
        let began = Instant::now();
        let mut follower = Follower::new(&self.options.path, Start::Backlog(self.options.backlog_bytes));
        let mut caught_up = false;
        let mut opened = false;
        let (mut last_ms, mut next_ms) = (0, 0);
        self.reported.followed = FollowCounters::default();
        let mut failing: Option<Instant> = None;
        self.aggregator.start(now_ms() / self.interval_ms * self.interval_ms);
        while !self.context.stop.is_cancelled() {
            let polled = self.poll(&mut follower, began.elapsed(), !caught_up);
            match &polled {
                Ok(Poll::End) => (caught_up, opened) = (true, true),
                Ok(Poll::More) => opened = true,
                Err(error) => {
                    let since = failing.get_or_insert_with(Instant::now);
                    if !opened || since.elapsed() > MISSING {
                        let message = format!("{}: {error}", self.options.path.display());
                        self.context.state.refused(self.context.index, &Refusal::unavailable(message));
                    }
                }
            }
            if polled.is_ok() {
                failing = None;
            }
            let now_ms = now_ms();
            if now_ms + CLOCK_SET_BACK.as_millis() as u64 <= last_ms {
                tracing::warn!("the clock was set back: the access log is counted from the start");
                return;
            }
            // What a previous daemon published stays until the log has been read.
            if now_ms >= next_ms && opened && (caught_up || polled.is_err()) {
                let at_ms = now_ms / self.interval_ms * self.interval_ms;
                (last_ms, next_ms) = (at_ms, at_ms + self.interval_ms);
                self.tick(at_ms, polled.is_ok());
            }
            self.report(&follower.counters());
            if !matches!(polled, Ok(Poll::More)) {
                let until_next = Duration::from_millis(next_ms.saturating_sub(self::now_ms()));
                std::thread::sleep(POLL.min(until_next).max(Duration::from_millis(1)));
            }
        }
    }

    fn poll(&mut self, follower: &mut Follower, now: Duration, backlog: bool) -> io::Result<Poll> {
        let Self { aggregator, options, context, newest_ms, .. } = self;
        let mut ingest = |record: &Record<'_>| {
            if backlog { aggregator.ingest_backlog(record) } else { aggregator.ingest(record) }
        };
        follower.poll(now, |line| {
            if line.is_empty() {
                return;
            }
            match options.parser.parse(line) {
                Ok(record) => {
                    *newest_ms = record.time_ms;
                    ingest(&record);
                }
                Err(Malformed { error, partial }) => {
                    context.state.malformed_line(context.index, &error);
                    if let Some(partial) = partial {
                        ingest(&partial.record(*newest_ms));
                    }
                }
            }
        })
    }

    /// Publication `at_ms`, unless the one before has not been answered yet; what changed meanwhile comes with the
    /// next one.
    fn tick(&mut self, at_ms: u64, healthy: bool) {
        let mut healthy = healthy;
        if let Some(answer) = &mut self.waiting {
            match answer.try_recv() {
                Ok(Ok(())) => (),
                Err(oneshot::error::TryRecvError::Empty) => return,
                Ok(Err(error)) => {
                    // Not accepted before one is published: that would be two lines of the log each time.
                    healthy = false;
                    self.unpublished(error);
                }
                Err(oneshot::error::TryRecvError::Closed) => return,
            }
            self.waiting = None;
        }
        let change = self.aggregator.tick(at_ms);
        if healthy {
            let is_first = self.rows == 0;
            self.rows = self.aggregator.keys() as u64;
            if !change.is_empty() || is_first {
                let newest = u32::try_from(at_ms / 1000).unwrap_or(u32::MAX);
                self.context.state.accepted(self.context.index, self.rows, newest, 0);
            } else {
                self.context.state.unchanged(self.context.index, true);
            }
        }
        if !change.is_empty() {
            self.waiting = Some(self.context.publisher.send(change));
        }
    }

    fn unpublished(&mut self, error: String) {
        self.context.state.refused(self.context.index, &Refusal::new(Reason::Unpublished, error));
        self.aggregator.restate();
    }

    fn replay(mut self) {
        let lateness_ms = self.options.aggregate.lateness_ms;
        let options = ReplayOptions { interval_ms: self.interval_ms, lateness_ms };
        let replayed =
            Replay::open(&self.options.path, self.options.parser.clone(), options).and_then(|replay| {
                let summary = replay.summary().clone();
                if let Some((line, error)) = &summary.first_malformed {
                    self.context.state.malformed_line(self.context.index, &format!("line {line}: {error}"));
                    self.reported.malformed(&self.context, summary.malformed - 1);
                }
                self.play(&replay)?;
                Ok(summary)
            });
        let index = self.context.index;
        match replayed {
            Ok(summary) => {
                let newest = u32::try_from(summary.last_ms / 1000).unwrap_or(u32::MAX);
                self.context.state.accepted(index, self.aggregator.keys() as u64, newest, 0);
                self.context.state.finished(index);
            }
            Err(_) if self.context.stop.is_cancelled() => (),
            Err(error) => {
                let message = format!("{}: {error}", self.options.path.display());
                self.context.state.refused(index, &Refusal::unavailable(message));
            }
        }
    }

    fn play(&mut self, replay: &Replay) -> io::Result<()> {
        let Self { aggregator, context, .. } = self;
        replay.run(aggregator, |event| match event {
            Event::Request { .. } => Ok(()),
            Event::Publication { change, .. } => match context.publisher.send(change).blocking_recv() {
                Ok(Ok(())) if !context.stop.is_cancelled() => Ok(()),
                Ok(Err(error)) => Err(io::Error::other(error)),
                _ => Err(io::Error::other("the daemon is shutting down")),
            },
        })?;
        self.report(&FollowCounters::default());
        Ok(())
    }

    fn report(&mut self, followed: &FollowCounters) {
        self.reported.report(&self.context, followed, &self.aggregator);
    }
}

/// What was added to the metrics so far.
struct Reported {
    label: Labels<1>,
    followed: FollowCounters,
    aggregated: AggregateCounters,
}

impl Reported {
    fn new(name: &str) -> Self {
        Self {
            label: label("origin", name),
            followed: FollowCounters::default(),
            aggregated: AggregateCounters::default(),
        }
    }

    fn malformed(&self, context: &Context, lines: u64) {
        context.state.metrics.log_malformed_lines.get_or_create(&self.label).inc_by(lines);
    }

    fn report(&mut self, context: &Context, followed: &FollowCounters, aggregator: &Aggregator) {
        let metrics = &context.state.metrics;
        let aggregated = aggregator.counters();
        let counters = [
            (&metrics.log_lines, aggregated.records, self.aggregated.records),
            (&metrics.log_late_lines, aggregated.late_records, self.aggregated.late_records),
            (&metrics.log_early_lines, aggregated.early_records, self.aggregated.early_records),
            (&metrics.log_dropped_keys, aggregated.dropped_keys, self.aggregated.dropped_keys),
            (&metrics.log_rotations, followed.rotations, self.followed.rotations),
            (&metrics.log_truncations, followed.truncations, self.followed.truncations),
            (&metrics.log_read_bytes, followed.bytes, self.followed.bytes),
        ];
        for (metric, now, before) in counters {
            metric.get_or_create(&self.label).inc_by(now.saturating_sub(before));
        }
        metrics.log_keys.get_or_create(&self.label).set(aggregator.keys() as i64);
        (self.followed, self.aggregated) = (*followed, aggregated);
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
