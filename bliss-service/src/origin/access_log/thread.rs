//! The thread of one access log origin: follows or replays its logs, counts, publishes, and tells what is wrong.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::keeper::Keeper;
use super::{AccessLog, Context, Mode};
use crate::access_log::aggregate::{AggregateCounters, Aggregator};
use crate::access_log::follow::{FollowCounters, Follower, Polled, Position, Start};
use crate::access_log::health::{Health, Problem};
use crate::access_log::intake::take;
use crate::access_log::parse::Record;
use crate::access_log::replay::{Event, Replay, ReplayOptions};
use crate::checkpoint::now_ms;
use crate::crawlers::Watch;
use crate::decisions::LogWatch;
use crate::metrics::{Labels, label};
use crate::refusal::{Reason, Refusal};

/// Rotated logs are read back so far at the start: what fades over longer is worth less than a late start costs.
const MAX_BACKLOG_MS: u64 = 7 * 24 * 3_600_000;
/// How often the logs are checked for new lines.
const POLL: Duration = Duration::from_millis(100);
/// How often an origin that stays refused says so to `/status` and metrics.
const REFUSED: Duration = Duration::from_secs(1);
/// A clock that goes back by less is waited for.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);

/// The thread of one log.
pub(super) struct LogThread {
    context: Context,
    options: AccessLog,
    aggregator: Aggregator,
    interval_ms: u64,
    /// The answer to the change sent last.
    waiting: Option<oneshot::Receiver<Result<(), String>>>,
    rows: u64,
    keeper: Option<Keeper>,
    /// Takes note of decisions, if anything does.
    decisions: Option<LogWatch>,
    /// Takes note of clients that say they are crawlers, if anything does.
    crawlers: Option<Watch>,
    /// What was told last of what is wrong.
    told: Option<Problem>,
    /// When the origin was refused last.
    refused: Option<Duration>,
    reported: Reported,
}

impl LogThread {
    pub(super) fn new(
        context: Context,
        name: &str,
        options: AccessLog,
        aggregator: Aggregator,
        interval: Duration,
        keeper: Option<Keeper>,
    ) -> Self {
        let decisions = context.decisions.as_ref().map(|watch| watch.of_log(&options.parser));
        let crawlers = context.claims.as_ref().map(|claims| claims.watch());
        Self {
            context,
            options,
            aggregator,
            decisions,
            crawlers,
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1),
            waiting: None,
            rows: 0,
            keeper,
            told: None,
            refused: None,
            reported: Reported::new(name),
        }
    }

    pub(super) fn run(self) {
        match self.options.mode {
            Mode::Follow => self.follow(),
            Mode::Replay => self.replay(),
        }
    }

    fn follow(mut self) {
        let positions = self.keeper.as_mut().and_then(|keeper| keeper.restore(&mut self.aggregator));
        let began = Instant::now();
        let mut following = self.begin(positions, now_ms(), Duration::ZERO);
        while !self.context.stop.is_cancelled() {
            match self.step(&mut following, now_ms(), began.elapsed()) {
                Step::Again => {}
                Step::Wait => {
                    let until_next = Duration::from_millis(following.next_ms.saturating_sub(now_ms()));
                    std::thread::sleep(POLL.min(until_next).max(Duration::from_millis(1)));
                }
                Step::ClockSetBack => {
                    tracing::warn!("the clock was set back: the access log is counted from the start");
                    self.aggregator.reset();
                    following = self.begin(None, now_ms(), began.elapsed());
                }
            }
        }
        self.end(&following);
    }

    /// Begins to follow the logs: where the files were left at `positions`, or with the backlog.
    pub(super) fn begin(
        &mut self,
        positions: Option<Vec<Position>>,
        now_ms: u64,
        now: Duration,
    ) -> Following {
        let since_ms = now_ms.saturating_sub(self.aggregator.reach_ms().min(MAX_BACKLOG_MS));
        let start = Start::Backlog { bytes: self.options.backlog_bytes, since_ms };
        let follower = Follower::new(self.options.paths.clone(), start);
        let health = Health::new(self.options.health, now_ms, now);
        let last_ms = now_ms / self.interval_ms * self.interval_ms;
        self.reported.followed = FollowCounters::default();
        self.reported.aggregated = self.aggregator.counters();
        let is_restored = positions.is_some();
        // Lines of several logs are not in the order of their times.
        if is_restored && self.options.paths.only().is_some() {
            self.aggregator.catch_up(self.interval_ms, last_ms);
        } else {
            self.aggregator.start(last_ms);
        }
        let follower = follower.resume(positions.unwrap_or_default());
        Following { follower, health, is_restored, caught_up: false, last_ms: 0, next_ms: 0 }
    }

    /// Reads what is new, and publishes if it is time. `now_ms` is the host's clock, `now` any monotonic one.
    pub(super) fn step(&mut self, following: &mut Following, now_ms: u64, now: Duration) -> Step {
        let Following { follower, health, .. } = following;
        self.aggregator.catch_up_until(now_ms / self.interval_ms * self.interval_ms);
        let polled = self.poll(follower, health, now_ms, now);
        following.caught_up |= (follower.has_opened() || following.is_restored) && !polled.more;
        if now_ms + CLOCK_SET_BACK.as_millis() as u64 <= following.last_ms {
            return Step::ClockSetBack;
        }
        let bytes = follower.counters().bytes;
        let problem = health.problem(&polled.unread, bytes, now_ms, now);
        let problem = problem.or_else(|| self.keeper.as_ref().and_then(Keeper::problem));
        let is_refused = self.tell(problem, now);
        // What a previous daemon published stays until the logs have been read, and if nothing in them counts.
        let counts = !health.is_undecodable() || self.aggregator.counters().records > 0;
        if now_ms >= following.next_ms && following.caught_up && counts {
            let at_ms = now_ms / self.interval_ms * self.interval_ms;
            (following.last_ms, following.next_ms) = (at_ms, at_ms + self.interval_ms);
            self.tick(at_ms, !is_refused);
        }
        let metrics = &self.context.state.metrics;
        metrics.log_files.get_or_create(&self.reported.label).set(follower.open_files() as i64);
        self.report(&follower.counters());
        if let Some(keeper) = self.keeper.as_mut().filter(|_| following.caught_up) {
            keeper.tend(&self.aggregator, follower);
        }
        if polled.more { Step::Again } else { Step::Wait }
    }

    /// Keeps what was counted, if all of the backlog was: else what was kept before tells more.
    pub(super) fn end(&mut self, following: &Following) {
        if let Some(keeper) = self.keeper.as_mut().filter(|_| following.caught_up) {
            keeper.finish(&self.aggregator, &following.follower);
            if let Some(problem) = keeper.problem() {
                tracing::warn!("{}", problem.message);
            }
        }
    }

    fn poll(&mut self, follower: &mut Follower, health: &mut Health, now_ms: u64, now: Duration) -> Polled {
        let Self { aggregator, options, context, decisions, crawlers, .. } = self;
        follower.poll(now, |line| {
            let on = |line: &[u8], record: &Record<'_>| {
                if let Some(decisions) = decisions {
                    decisions.offer(line, record);
                }
                if let Some(crawlers) = crawlers {
                    crawlers.offer(record);
                }
            };
            if let Some(error) = take(line, &options.parser, aggregator, health, now_ms, on) {
                context.state.malformed_line(context.index, &error);
            }
        })
    }

    /// Tells what is wrong; returns whether the origin is refused for it.
    fn tell(&mut self, problem: Option<Problem>, now: Duration) -> bool {
        let reason = problem.as_ref().and_then(|problem| problem.kind.refusal());
        let is_new = self.told != problem;
        if is_new {
            self.context.state.log_problem(self.context.index, problem.as_ref());
        }
        if let (Some(reason), Some(problem)) = (reason, &problem)
            && (is_new || self.refused.is_none_or(|at| now.saturating_sub(at) >= REFUSED))
        {
            self.context.state.refused(self.context.index, &Refusal::new(reason, problem.message.clone()));
            self.refused = Some(now);
        }
        self.told = problem;
        reason.is_some()
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

    /// Waits until what was sent is published.
    #[cfg(test)]
    pub(super) fn answered(&mut self) {
        if let Some(answer) = self.waiting.take() {
            answer.blocking_recv().unwrap().unwrap();
        }
    }

    /// Waits until the checkpoint is written.
    #[cfg(test)]
    pub(super) fn kept(&mut self) {
        self.keeper.iter_mut().for_each(Keeper::wait);
    }

    /// What was told last.
    #[cfg(test)]
    pub(super) fn problem(&self) -> Option<Problem> {
        self.told.clone()
    }

    fn unpublished(&mut self, error: String) {
        self.context.state.refused(self.context.index, &Refusal::new(Reason::Unpublished, error));
        self.aggregator.restate();
    }

    fn replay(mut self) {
        let lateness_ms = self.options.aggregate.lateness_ms;
        let options = ReplayOptions { interval_ms: self.interval_ms, lateness_ms };
        let path = self.options.paths.only().unwrap_or(Path::new("")).to_owned();
        let replayed = Replay::open(&path, self.options.parser.clone(), options).and_then(|replay| {
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
                let message = format!("{}: {error}", path.display());
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

/// The logs as they are followed.
pub(super) struct Following {
    follower: Follower,
    health: Health,
    is_restored: bool,
    /// The backlog has been read.
    caught_up: bool,
    last_ms: u64,
    next_ms: u64,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next one at once: there is more to read.
    Again,
    /// A moment's wait.
    Wait,
    /// The host's clock was set back so far that what was counted lies in the future.
    ClockSetBack,
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
