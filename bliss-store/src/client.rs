//! Reading features and scores.

use std::path::Path;

use bliss_core::attribute::Value;
use bliss_core::plan::Plan;
use bliss_core::request::{Names, Request};
use bliss_core::score::{Answer, Status, Unscored};
use mmap_sync::{Error, Guard, Options, Reader};

use crate::{FEATURES, MODELS};

/// Looks up features and scores requests from a directory that a daemon publishes to. For one thread; may move to
/// another one between calls.
#[derive(Debug)]
pub struct Client {
    features: Reader,
    models: Reader,
    names: Names,
    plan: Plan,
    bound_features: Bound,
    bound_models: Bound,
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
        let directory = directory.as_ref();
        Ok(Self {
            features: Options::new(directory.join(FEATURES)).open_reader()?,
            models: Options::new(directory.join(MODELS)).open_reader()?,
            names: Names::default(),
            plan: Plan::new(),
            bound_features: Bound::nothing(Unscored::NoSnapshot),
            bound_models: Bound::nothing(Unscored::NoModels),
        })
    }

    /// The names that requests use; register them once, before the first request.
    pub fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// What is bound to the publications seen last: names of dimensions, features and models.
    pub fn plan(&self) -> &Plan {
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

    /// Pins the current features and binds them if they are new.
    fn pin_features<'a>(
        features: &'a Reader,
        names: &Names,
        plan: &mut Plan,
        bound: &mut Bound,
        bound_models: &mut Bound,
    ) -> Result<Guard<'a>, Unscored> {
        let guard =
            features.pin().map_err(|error| reason(&error, Unscored::NoSnapshot, Unscored::BadSnapshot))?;
        if !bound.is(&guard, names) {
            let outcome = plan.bind_snapshot(&guard, names);
            if outcome != Ok(false) {
                bound_models.generation = None;
            }
            bound.set(&guard, names, outcome.map(drop).map_err(|_| Unscored::BadSnapshot));
        }
        bound.outcome.map(|()| guard)
    }

    /// Looks up all dimensions: the features in the order of the schema, and one status per dimension. `now` is in
    /// seconds since the Unix epoch.
    ///
    /// # Errors
    /// Where nothing is published, or it is damaged.
    pub fn look_up(&mut self, request: &Request<'_>, now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self { features, names, plan, bound_features, bound_models, .. } = self;
        let guard = Self::pin_features(features, names, plan, bound_features, bound_models)?;
        Ok(plan.look_up(&guard, request, now))
    }

    /// Looks up by keys that [`Self::key`] made, one per dimension in the order of the schema.
    ///
    /// # Errors
    /// Where nothing is published, or it is damaged.
    pub fn look_up_keys(&mut self, keys: &[u64], now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self { features, names, plan, bound_features, bound_models, .. } = self;
        let guard = Self::pin_features(features, names, plan, bound_features, bound_models)?;
        Ok(plan.look_up_keys(&guard, keys, now))
    }

    /// The key of dimension `index` under the current snapshot's secret; `None` where there is no such dimension or a
    /// value does not fit.
    ///
    /// # Errors
    /// Where nothing is published, or it is damaged.
    pub fn key(&mut self, index: usize, values: &[Value<'_>]) -> Result<Option<u64>, Unscored> {
        let Self { features, names, plan, bound_features, bound_models, .. } = self;
        let _guard = Self::pin_features(features, names, plan, bound_features, bound_models)?;
        Ok(plan.dimensions().key(index, values))
    }

    /// Scores `request` with the active model of `route` (the default route where it is empty or unknown). `now` is in
    /// seconds since the Unix epoch.
    pub fn score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Answer {
        self.try_score(request, route, now).unwrap_or_else(Answer::unscored)
    }

    fn try_score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Result<Answer, Unscored> {
        let Self { features, models, names, plan, bound_features, bound_models } = self;
        let snapshot = Self::pin_features(features, names, plan, bound_features, bound_models)?;
        let models = models.pin().map_err(|error| reason(&error, Unscored::NoModels, Unscored::BadModels))?;
        if !bound_models.is(&models, names) {
            let outcome = plan.bind_models(&models, names).map_err(|_| Unscored::BadModels);
            bound_models.set(&models, names, outcome);
        }
        bound_models.outcome?;
        // SAFETY:
        // - `plan.bind_models` accepted the models of this generation last, as `bound_models` records
        // - while they are pinned, and between pins of one generation, they do not change (M2 of mmap-sync)
        Ok(unsafe { plan.score(&snapshot, &models, request, route, now) })
    }
}

/// Nothing there is one thing, something wrong another.
fn reason(error: &Error, nothing: Unscored, bad: Unscored) -> Unscored {
    if matches!(error, Error::NotPublished) { nothing } else { bad }
}
