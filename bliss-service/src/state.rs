//! What the daemon knows of itself: the source of `/status`, of metrics, and of changes of state in the log.

mod crawlers;
mod feed;
mod files;
mod lists;
mod policy;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bliss_store::{Publication, PublishMethod};
use jiff::Timestamp;
use serde::Serialize;

pub(crate) use crawlers::CrawlerCounts;

use crate::access_log::health::{Problem, ProblemKind};
use crate::config::Config;
use crate::drift::DriftStatus;
use crate::metrics::{Metrics, label};
use crate::origin::OriginKind;
use crate::refusal::{Refusal, without_values};

/// Shared by everything that runs.
#[derive(Debug)]
pub struct State {
    /// What is counted.
    pub metrics: Metrics,
    started: Instant,
    inner: Mutex<Status>,
    publisher_seen: Mutex<Option<Instant>>,
}

/// The answer of `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    version: &'static str,
    directory: String,
    started_at: Timestamp,
    files: files::Files,
    features: Features,
    models_generation: Option<u64>,
    policies_generation: Option<u64>,
    policy: policy::PolicyStatus,
    origins: Vec<OriginStatus>,
    /// Clients that say they are crawlers; absent where they are not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    crawlers: Option<crawlers::CrawlersStatus>,
    models: Vec<ModelStatus>,
    routes: Vec<RouteStatus>,
    drift: Vec<DriftStatus>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Features {
    generation: Option<u64>,
    published_at: Option<Timestamp>,
    bytes: u64,
    dimensions: Vec<DimensionStatus>,
    /// Why the last publication failed; absent once one succeeds.
    failure: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct DimensionStatus {
    name: String,
    origin: String,
    rows: Option<u64>,
}

/// The state of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum OriginState {
    /// Nothing was fetched yet.
    Waiting,
    /// The last fetch was accepted.
    Accepted,
    /// The last fetch was refused; what was accepted before stays.
    Refused,
    /// A replay that reached its end.
    Finished,
}

#[derive(Clone, Debug, Serialize)]
struct OriginStatus {
    name: String,
    kind: &'static str,
    dimensions: Vec<String>,
    state: OriginState,
    last_accepted_at: Option<Timestamp>,
    rows: u64,
    last_refusal: Option<RefusalStatus>,
    /// What is suspicious of the rows that were accepted last.
    warnings: Vec<feed::Warning>,
    #[serde(skip)]
    usual: feed::Usual,
    /// For an access log: the first line that could not be read, and why.
    first_malformed_line: Option<String>,
    /// For an access log: why its requests do not count as they should; absent while they do.
    problem: Option<ProblemStatus>,
    /// For lists: each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lists: Vec<lists::ListStatus>,
}

#[derive(Clone, Debug, Serialize)]
struct ProblemStatus {
    kind: ProblemKind,
    message: String,
    since: Timestamp,
}

#[derive(Clone, Debug, Serialize)]
struct RefusalStatus {
    reason: &'static str,
    message: String,
    since: Timestamp,
    last_at: Timestamp,
    times: u64,
}

#[derive(Clone, Debug, Serialize)]
struct ModelStatus {
    name: String,
    version: String,
    published_at: Option<Timestamp>,
    refusal: Option<RefusalStatus>,
}

#[derive(Clone, Debug, Serialize)]
struct RouteStatus {
    name: String,
    active: String,
    shadow: Vec<String>,
}

impl State {
    /// The state of a daemon that begins with `config`.
    pub fn new(config: &Config) -> Self {
        let name_of = |index: &usize| config.schema.dimensions[*index].name.clone();
        let origin_of = |index: usize| {
            let origin = config.origins.iter().find(|origin| origin.dimensions.contains(&index));
            origin.map(|origin| origin.name.clone()).unwrap_or_default()
        };
        let dimensions = config.schema.dimensions.iter().enumerate().map(|(index, dimension)| {
            DimensionStatus { name: dimension.name.clone(), origin: origin_of(index), rows: None }
        });
        let origins = config.origins.iter().map(|origin| OriginStatus {
            name: origin.name.clone(),
            kind: origin.kind.name(),
            dimensions: origin.dimensions.iter().map(name_of).collect(),
            state: OriginState::Waiting,
            last_accepted_at: None,
            rows: 0,
            last_refusal: None,
            warnings: Vec::new(),
            usual: feed::Usual::new(),
            first_malformed_line: None,
            problem: None,
            lists: lists::of(&origin.kind),
        });
        let models = config.models.iter().map(|model| ModelStatus {
            name: model.name.clone(),
            version: model.version.clone(),
            published_at: None,
            refusal: None,
        });
        let routes = config.routes.iter().map(|route| RouteStatus {
            name: route.name.clone(),
            active: route.active.clone(),
            shadow: route.shadow.clone(),
        });
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            directory: config.directory.display().to_string(),
            started_at: Timestamp::now(),
            files: files::Files::default(),
            features: Features { dimensions: dimensions.collect(), ..Default::default() },
            models_generation: None,
            policies_generation: None,
            policy: policy::PolicyStatus::default(),
            origins: origins.collect(),
            crawlers: None,
            models: models.collect(),
            routes: routes.collect(),
            drift: Vec::new(),
        };
        let state = Self {
            metrics: Metrics::new(),
            started: Instant::now(),
            inner: Mutex::new(status),
            publisher_seen: Mutex::new(None),
        };
        for origin in &config.origins {
            state.metrics.origin_refused.get_or_create(&label("origin", &origin.name)).set(0);
            if matches!(origin.kind, OriginKind::AccessLog(_)) {
                state.metrics.log_problem(&origin.name, None);
            }
        }
        for model in &config.models {
            state.metrics.model_refused.get_or_create(&label("model", &model.name)).set(0);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy for `/status`.
    pub fn status(&self) -> Status {
        let mut status = self.lock().clone();
        status.look_for_files();
        status.drift = self.metrics.drift.status();
        status
    }

    /// The publisher is alive.
    pub fn publisher_alive(&self) {
        *self.publisher_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the publisher was last alive.
    pub fn publisher_silence(&self) -> Duration {
        let seen = *self.publisher_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.unwrap_or(self.started).elapsed()
    }

    /// Whether readers find features and every access log counts, and if not, why.
    pub fn ready(&self) -> Result<(), String> {
        // Workers score without being counted.
        let counts = self.metrics.workers.failure().is_none();
        let status = self.lock();
        let problems = status.origins.iter().filter_map(|origin| {
            let problem = origin.problem.as_ref()?;
            Some(format!("origin {}: {}: {}", origin.name, problem.kind.name(), problem.message))
        });
        let problems: Vec<_> = problems.collect();
        if status.features.generation.is_some() {
            let files = status.files_ready(counts).err();
            let problems: Vec<_> = problems.into_iter().chain(files).collect();
            return if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) };
        }
        let waiting = status.origins.iter().filter(|origin| origin.state != OriginState::Accepted);
        let waiting: Vec<_> = waiting.map(|origin| origin.name.as_str()).collect();
        let waiting = format!("nothing is published yet; waiting for: {}", waiting.join(", "));
        Err([vec![waiting], problems].concat().join("\n"))
    }

    /// Rows of the origin at index `origin` were accepted and published.
    pub fn accepted(&self, origin: usize, rows: u64, newest_updated_at: u32, key_collisions: u64) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        let by_name = label("origin", &found.name);
        let metrics = &self.metrics;
        metrics.fetches.get_or_create(&[by_name[0].clone(), ("outcome", "accepted".into())]).inc();
        metrics.origin_refused.get_or_create(&by_name).set(0);
        metrics.origin_rows.get_or_create(&by_name).set(rows as i64);
        metrics.key_collisions.get_or_create(&by_name).inc_by(key_collisions);
        let now = Timestamp::now();
        metrics.origin_accepted_timestamp.get_or_create(&by_name).set(now.as_millisecond() as f64 / 1000.0);
        metrics.origin_newest_timestamp.get_or_create(&by_name).set(f64::from(newest_updated_at));
        match found.state {
            OriginState::Accepted => tracing::debug!(origin = found.name, rows, "accepted"),
            OriginState::Refused => tracing::info!(origin = found.name, rows, "accepted again"),
            _ => tracing::info!(origin = found.name, rows, "accepted"),
        }
        if key_collisions > 0 {
            tracing::warn!(origin = found.name, key_collisions, "rows left out: keys collide");
        }
        found.state = OriginState::Accepted;
        found.last_accepted_at = Some(now);
        found.rows = rows;
    }

    /// The origin has nothing new; if what it has was accepted before, it is again.
    pub fn unchanged(&self, origin: usize, is_accepted: bool) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        let by_name = label("origin", &found.name);
        self.metrics.fetches.get_or_create(&[by_name[0].clone(), ("outcome", "unchanged".into())]).inc();
        if is_accepted && found.state == OriginState::Refused {
            tracing::info!(origin = found.name, "available again, and unchanged");
            self.metrics.origin_refused.get_or_create(&by_name).set(0);
            found.state = OriginState::Accepted;
        }
    }

    /// What the origin fetched is refused. Logged when the state changes, not at each retry.
    pub fn refused(&self, origin: usize, refusal: &Refusal) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        let by_name = label("origin", &found.name);
        let metrics = &self.metrics;
        metrics.fetches.get_or_create(&[by_name[0].clone(), ("outcome", "refused".into())]).inc();
        metrics.refusals.get_or_create(&[by_name[0].clone(), ("reason", refusal.reason.name().into())]).inc();
        metrics.origin_refused.get_or_create(&by_name).set(1);
        let is_new = found.state != OriginState::Refused || !same(found.last_refusal.as_ref(), refusal);
        if is_new {
            let reason = refusal.reason.name();
            tracing::error!(
                origin = found.name,
                reason,
                "refused; what was accepted before stays: {}",
                refusal.message
            );
        }
        found.last_refusal = Some(noted(found.last_refusal.take(), refusal, is_new));
        found.state = OriginState::Refused;
    }

    /// A replay reached its end.
    pub fn finished(&self, origin: usize) {
        let mut status = self.lock();
        if let Some(found) = status.origins.get_mut(origin) {
            tracing::info!(origin = found.name, "the log was replayed to its end");
            found.state = OriginState::Finished;
        }
    }

    /// A line of an access log cannot be read; only the first is logged.
    pub fn malformed_line(&self, origin: usize, error: &dyn std::fmt::Display) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        self.metrics.log_malformed_lines.get_or_create(&label("origin", &found.name)).inc();
        if found.first_malformed_line.is_none() {
            tracing::warn!(
                origin = found.name,
                "a line is skipped, and further ones without a message: {error}"
            );
            found.first_malformed_line = Some(error.to_string());
        }
    }

    /// What is wrong with an access log. Logged when it begins, when another kind takes its place, and when it ends, unless
    /// it is also a refusal, which [`Self::refused`] logs.
    pub fn log_problem(&self, origin: usize, problem: Option<&Problem>) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        let before = found.problem.take();
        let (kind, kind_before) = (problem.map(|found| found.kind), before.as_ref().map(|found| found.kind));
        if kind != kind_before {
            if let Some(before) = kind_before.filter(|kind| kind.refusal().is_none()) {
                tracing::info!(
                    origin = found.name,
                    problem = before.name(),
                    "this problem of the log is over"
                );
            }
            if let Some(problem) = problem.filter(|problem| problem.kind.refusal().is_none()) {
                tracing::warn!(origin = found.name, problem = problem.kind.name(), "{}", problem.message);
            }
            self.metrics.log_problem(&found.name, kind);
        }
        found.problem = problem.map(|problem| ProblemStatus {
            kind: problem.kind,
            message: problem.message.clone(),
            since: before
                .filter(|before| before.kind == problem.kind)
                .map_or_else(Timestamp::now, |before| before.since),
        });
    }

    /// Features were published, with `rows` rows in each dimension, in the time `took`.
    pub fn published(&self, published: &Publication, rows: &[u64], took: Duration) {
        let Publication { generation, bytes, fresh_file, method } = *published;
        let now = Timestamp::now();
        let metrics = &self.metrics;
        let method = match method {
            PublishMethod::InPlace => "in_place",
            PublishMethod::Grown => "grown",
            PublishMethod::Copied => "copied",
            PublishMethod::Built => "built",
        };
        metrics.publications.get_or_create(&label("made", method)).inc();
        metrics.publication_seconds.observe(took.as_secs_f64());
        metrics.published_timestamp.set(now.as_millisecond() as f64 / 1000.0);
        metrics.published_bytes.set(bytes as i64);
        metrics.fresh_files.inc_by(u64::from(fresh_file));
        let mut status = self.lock();
        if status.features.failure.take().is_some() {
            tracing::info!(generation, "published again");
        }
        status.features.published_at = Some(now);
        status.features.bytes = bytes;
        self.found(&mut status, generation, rows);
        tracing::debug!(generation, made = method, "published");
    }

    /// Features that a previous daemon published were found.
    pub fn found_published(&self, generation: u64, rows: &[u64]) {
        self.found(&mut self.lock(), generation, rows);
    }

    fn found(&self, status: &mut Status, generation: u64, rows: &[u64]) {
        self.metrics.generation.set(generation as i64);
        status.features.generation = Some(generation);
        for (dimension, rows) in status.features.dimensions.iter_mut().zip(rows) {
            self.metrics.dimension_rows.get_or_create(&label("dimension", &dimension.name)).set(*rows as i64);
            dimension.rows = Some(*rows);
        }
    }

    /// Features could not be published.
    pub fn publish_failed(&self, error: &str) {
        self.metrics.publication_failures.inc();
        let mut status = self.lock();
        let before = status.features.failure.replace(error.to_owned());
        let is_new = before.is_none_or(|before| without_values(&before) != without_values(error));
        // Where the files cannot be kept, the log has that as the cause.
        if is_new && !status.files_have_failed() {
            tracing::error!("cannot publish; what was published before stays: {error}");
        }
    }

    /// The models were published.
    pub fn models_published(&self, generation: u64) {
        self.metrics.models_generation.set(generation as i64);
        let mut status = self.lock();
        status.models_generation = Some(generation);
        for model in &mut status.models {
            model.published_at = Some(Timestamp::now());
        }
        tracing::info!(generation, "models published");
    }

    /// Models that a previous daemon published were found.
    pub fn found_models(&self, generation: u64) {
        self.metrics.models_generation.set(generation as i64);
        self.lock().models_generation = Some(generation);
    }

    /// Policies were published, or those of a previous daemon found.
    pub fn found_policies(&self, generation: u64) {
        self.lock().policies_generation = Some(generation);
    }

    /// The file of the model at index `model` is good.
    pub fn model_accepted(&self, model: usize) {
        let mut status = self.lock();
        let Some(found) = status.models.get_mut(model) else { return };
        self.metrics.model_refused.get_or_create(&label("model", &found.name)).set(0);
        found.refusal = None;
    }

    /// The file of the model at index `model` is refused.
    pub fn model_refused(&self, model: usize, refusal: &Refusal) {
        let mut status = self.lock();
        let Some(found) = status.models.get_mut(model) else { return };
        self.metrics.model_refused.get_or_create(&label("model", &found.name)).set(1);
        self.metrics.model_refusals.get_or_create(&label("model", &found.name)).inc();
        let is_new = !same(found.refusal.as_ref(), refusal);
        if is_new {
            tracing::error!(
                model = found.name,
                "model refused; what was published before stays: {}",
                refusal.message
            );
        }
        found.refusal = Some(noted(found.refusal.take(), refusal, is_new));
    }
}

/// Whether it is the refusal of before: its kind, whatever values it was about.
fn same(before: Option<&RefusalStatus>, now: &Refusal) -> bool {
    before.is_some_and(|before| {
        before.reason == now.reason.name() && without_values(&before.message) == without_values(&now.message)
    })
}

fn noted(before: Option<RefusalStatus>, refusal: &Refusal, is_new: bool) -> RefusalStatus {
    let now = Timestamp::now();
    let before = before.filter(|_| !is_new);
    RefusalStatus {
        reason: refusal.reason.name(),
        message: refusal.message.clone(),
        since: before.as_ref().map_or(now, |before| before.since),
        last_at: now,
        times: before.map_or(1, |before| before.times + 1),
    }
}
