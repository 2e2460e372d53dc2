//! Reading features and scores.

use std::path::Path;

use bliss_core::attribute::Value;
use bliss_core::publication::frame::FrameError;
use bliss_core::publication::models::ModelsError;
use bliss_core::request::{Names, Request};
use bliss_core::score::{Answer, Shadow, Status, Unscored};
use bliss_core::scorer::Scorer;
use mmap_sync::{Error, Guard, Options, Reader};

use crate::metrics::{MetricsError, WorkerMetrics};
use crate::{FEATURES, MODELS};

/// Looks up features and scores requests from a directory that a daemon publishes to. For one thread; may move to
/// another one between calls.
#[derive(Debug)]
pub struct Client {
    features: Reader,
    models: Reader,
    names: Names,
    plan: Scorer,
    bound_features: Bound,
    bound_models: Bound,
    models_bound: u64,
    last_error: Option<ClientError>,
    metrics: WorkerMetrics,
}

/// How a directory is opened.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Address space in bytes that is reserved for each of the published copies; the default of mmap-sync if none.
    pub max_size: Option<u64>,
}

impl ClientOptions {
    /// As [`Client::open`], with these options.
    ///
    /// # Errors
    /// As [`Client::open`]; also where an option is out of its range.
    pub fn open(&self, directory: impl AsRef<Path>) -> Result<Client, Error> {
        let directory = directory.as_ref();
        let reader = |prefix: &str| {
            let options = Options::new(directory.join(prefix)).prefault(true).huge_pages(true);
            let reader =
                self.max_size.map_or(options.clone(), |bytes| options.max_size(bytes)).open_reader()?;
            // From here on pages are mapped by `maintain`, a slice at a time, and never by a request. What is wrong, if
            // anything, is told by the pins.
            let _ = reader.maintain();
            Ok(reader)
        };
        Ok(Client {
            features: reader(FEATURES)?,
            models: reader(MODELS)?,
            names: Names::default(),
            plan: Scorer::new(),
            bound_features: Bound::nothing(Unscored::NoSnapshot),
            bound_models: Bound::nothing(Unscored::NoModels),
            models_bound: 0,
            last_error: None,
            metrics: WorkerMetrics::open(directory),
        })
    }
}

/// Why there is nothing to read, or why it is not used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The files.
    #[error(transparent)]
    Sync(#[from] Error),
    /// The features in them.
    #[error("features: {0}")]
    Features(#[from] FrameError),
    /// The models in them.
    #[error("models: {0}")]
    Models(#[from] ModelsError),
}

/// Which publication was bound last, and whether that went well.
#[derive(Clone, Copy, Debug)]
struct Bound {
    generation: Option<u64>,
    registered: usize,
    outcome: Result<(), Unscored>,
}

impl Bound {
    fn nothing(reason: Unscored) -> Self {
        Self { generation: None, registered: 0, outcome: Err(reason) }
    }

    /// Whether this publication is bound already, with the names as they are.
    fn is(&self, guard: &Guard<'_>, names: &Names) -> bool {
        self.generation == Some(guard.generation())
            && !guard.is_switched()
            && self.registered == names.registered()
    }

    fn set(&mut self, guard: &Guard<'_>, names: &Names, outcome: Result<(), Unscored>) {
        *self = Self { generation: Some(guard.generation()), registered: names.registered(), outcome };
    }
}

impl Client {
    /// Opens `directory`. Succeeds before anything is published there, or before it exists: answers are unscored until
    /// something is.
    ///
    /// # Errors
    /// Where files are there but cannot be used: of another owner or type, damaged, or not readable.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        ClientOptions::default().open(directory)
    }

    /// The names that requests use; register them once, before the first request.
    pub fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// What is bound to the publications seen last: names of dimensions, features and models.
    pub fn plan(&self) -> &Scorer {
        &self.plan
    }

    /// Generation of the features that the last answer came from.
    pub fn features_generation(&self) -> Option<u64> {
        self.bound_features.generation
    }

    /// Generation of the models that the last answer came from.
    pub fn models_generation(&self) -> Option<u64> {
        self.bound_models.generation
    }

    /// How often models were bound: while it stays the same, so do the names and the order of the plan's models.
    pub fn models_bound(&self) -> u64 {
        self.models_bound
    }

    /// What was the matter when an answer was last unscored because of what is published: the file, what was found
    /// there, and what to do. Stays until another answer is.
    pub fn last_error(&self) -> Option<&ClientError> {
        self.last_error.as_ref()
    }

    /// Why this handle does not count for the daemon's metrics what it looks up and scores, if it does not. That never
    /// keeps it from answering, and [`Self::maintain`] tries again.
    pub fn metrics_error(&self) -> Option<MetricsError> {
        self.metrics.metrics_error()
    }

    /// Does ahead of time what the next request would have to do after a publication: looks whether files were
    /// replaced, maps and checks what is new, up to 4 MiB of pages (half a millisecond) at a time, and unmaps what is old.
    /// For between requests, about once a second.
    ///
    /// # Errors
    /// Where features or models are not there or damaged.
    pub fn maintain(&mut self) -> Result<(), Unscored> {
        self.metrics.maintain();
        // What is wrong, if anything, is told by the pins.
        let _ = (self.features.maintain(), self.models.maintain());
        let bound = self.bind_all(|_, _, _| ());
        self.metrics.bind(&self.plan);
        bound
    }

    /// Pins the current features and binds them if they are new.
    fn pin_features<'a>(
        features: &'a Reader,
        names: &Names,
        plan: &mut Scorer,
        bound: &mut Bound,
        bound_models: &mut Bound,
        last_error: &mut Option<ClientError>,
    ) -> Result<Guard<'a>, Unscored> {
        let guard = features
            .pin()
            .map_err(|error| reason(error, Unscored::NoSnapshot, Unscored::BadSnapshot, last_error))?;
        if !bound.is(&guard, names) {
            let outcome = plan.bind_features(&guard, names);
            if outcome != Ok(false) {
                bound_models.generation = None;
            }
            let outcome = outcome.map(drop).map_err(|error| {
                *last_error = Some(error.into());
                Unscored::BadSnapshot
            });
            bound.set(&guard, names, outcome);
        }
        bound.outcome.map(|()| guard)
    }

    /// Looks up all dimensions: the features in the order of the schema, and one status per dimension. `now` is in
    /// seconds since the Unix epoch.
    ///
    /// # Errors
    /// Where nothing is published, or it is damaged.
    pub fn look_up(&mut self, request: &Request<'_>, now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self { features, names, plan, bound_features, bound_models, last_error, metrics, .. } = self;
        let guard = Self::pin_features(features, names, plan, bound_features, bound_models, last_error)?;
        plan.look_up(&guard, request, now);
        metrics.count_lookup(plan);
        Ok(plan.looked_up())
    }

    /// Looks up by keys that [`Self::key`] made, one per dimension in the order of the schema.
    ///
    /// # Errors
    /// Where nothing is published, or it is damaged.
    pub fn look_up_keys(&mut self, keys: &[u64], now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self { features, names, plan, bound_features, bound_models, last_error, metrics, .. } = self;
        let guard = Self::pin_features(features, names, plan, bound_features, bound_models, last_error)?;
        plan.look_up_keys(&guard, keys, now);
        metrics.count_lookup(plan);
        Ok(plan.looked_up())
    }

    /// The key of dimension `index` under the current snapshot's secret; `None` where there is no such dimension or a
    /// value does not fit.
    ///
    /// # Errors
    /// Where nothing is published, or it is damaged.
    pub fn key(&mut self, index: usize, values: &[Value<'_>]) -> Result<Option<u64>, Unscored> {
        let Self { features, names, plan, bound_features, bound_models, last_error, .. } = self;
        let _guard = Self::pin_features(features, names, plan, bound_features, bound_models, last_error)?;
        Ok(plan.dimensions().key(index, values))
    }

    /// Scores `request` with the active model of `route` (the default route where it is empty or unknown). `now` is in
    /// seconds since the Unix epoch.
    pub fn score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Answer {
        let answer = self.try_score(request, route, now).unwrap_or_else(|reason| {
            self.plan.forget();
            Answer::unscored(reason)
        });
        self.metrics.count_score(&self.plan, &answer);
        answer
    }

    /// What the shadow models of its route said of the request that was scored last, in the order of the publication.
    pub fn shadows(&self) -> &[Shadow] {
        self.plan.shadows()
    }

    fn try_score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Result<Answer, Unscored> {
        self.bind_all(|plan, snapshot, models| {
            // SAFETY:
            // - `plan.bind_models` accepted the models of this generation last, as `bind_all` sees to
            // - while they are pinned, and between pins of one generation, they do not change (M2 of mmap-sync)
            unsafe { plan.score(snapshot, models, request, route, now) }
        })
    }

    /// Pins features and models, binds what is new, and uses them.
    #[inline]
    fn bind_all<R>(&mut self, then: impl FnOnce(&mut Scorer, &[u8], &[u8]) -> R) -> Result<R, Unscored> {
        let Self {
            features,
            models,
            names,
            plan,
            bound_features,
            bound_models,
            models_bound,
            last_error,
            ..
        } = self;
        let snapshot = Self::pin_features(features, names, plan, bound_features, bound_models, last_error)?;
        let models = models
            .pin()
            .map_err(|error| reason(error, Unscored::NoModels, Unscored::BadModels, last_error))?;
        if !bound_models.is(&models, names) {
            *models_bound += 1;
            let outcome = plan.bind_models(&models, names).map_err(|error| {
                *last_error = Some(error.into());
                Unscored::BadModels
            });
            bound_models.set(&models, names, outcome);
        }
        bound_models.outcome?;
        Ok(then(plan, &snapshot, &models))
    }
}

/// Nothing there is one thing, something wrong another.
fn reason(error: Error, nothing: Unscored, bad: Unscored, last_error: &mut Option<ClientError>) -> Unscored {
    let reason = if matches!(error, Error::NotPublished) { nothing } else { bad };
    *last_error = Some(error.into());
    reason
}
