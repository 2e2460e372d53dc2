//! The reader of a directory: looks up features and scores requests.

use std::path::Path;

use bliss_core::attribute::Value;
use bliss_core::publication::frame::FrameError;
use bliss_core::publication::models::ModelsError;
use bliss_core::request::{Names, Request};
use bliss_core::score::{Answer, Shadow, Status, Unscored};
use bliss_core::scorer::{Contribution, Explained, Explaining, InputValue, NotExplained, Scorer};
use mmap_sync::{Error, Guard, Options, Reader};

use crate::heartbeat::Heartbeat;
use crate::metrics::{MetricsError, WorkerMetrics};
use crate::{FEATURES, MODELS};

/// Looks up features and scores requests from a directory that a daemon publishes to. A client is used by one thread at a
/// time.
///
/// # Examples
/// ```
/// use bliss_core::request::Request;
/// use bliss_core::score::Unscored;
/// use bliss_store::Client;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let mut client = Client::open(directory)?;
/// let ip = client.names().attribute("ip")?;
/// let mut request = Request::new();
/// request.set_attribute(ip, "192.0.2.1".into());
///
/// // Nothing is published yet: the request is unscored, and passes.
/// let answer = client.score(&request, "", 1_000);
/// assert_eq!(answer.outcome, Err(Unscored::NoSnapshot));
/// println!("{}", client.last_error().ok_or("no error")?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    features: Reader,
    models: Reader,
    names: Names,
    scorer: Scorer,
    bound_features: Bound,
    bound_models: Bound,
    models_bound: u64,
    last_error: Option<ClientError>,
    metrics: WorkerMetrics,
    heartbeat: Heartbeat,
}

/// Options of a [`Client`].
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Bytes of address space to reserve for each published copy; mmap-sync's default if `None`.
    pub max_size: Option<u64>,
}

impl ClientOptions {
    /// Opens `directory` as [`Client::open`] does, with these options.
    ///
    /// # Errors
    /// Those of [`Client::open`], or an option is out of range.
    pub fn open(&self, directory: impl AsRef<Path>) -> Result<Client, Error> {
        let directory = directory.as_ref();
        let reader = |prefix: &str| {
            let options =
                Options::new(directory.join(prefix)).private_directory(true).prefault(true).huge_pages(true);
            let reader =
                self.max_size.map_or(options.clone(), |bytes| options.max_size(bytes)).open_reader()?;
            // From now on `maintain` maps pages, a slice at a time, and requests map none. Pins report errors.
            let _ = reader.maintain();
            Ok(reader)
        };
        Ok(Client {
            features: reader(FEATURES)?,
            models: reader(MODELS)?,
            names: Names::default(),
            scorer: Scorer::new(),
            bound_features: Bound::nothing(Unscored::NoSnapshot),
            bound_models: Bound::nothing(Unscored::NoModels),
            models_bound: 0,
            last_error: None,
            metrics: WorkerMetrics::open(directory),
            heartbeat: Heartbeat::default(),
        })
    }
}

/// Why an answer is unscored because of what is published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is published, or the files cannot be used.
    #[error(transparent)]
    Sync(#[from] Error),
    /// The published features are damaged or of another version.
    #[error("features: {0}")]
    Features(#[from] FrameError),
    /// The published models are damaged or of another version.
    #[error("models: {0}")]
    Models(#[from] ModelsError),
    /// What is published may be long out of date.
    #[error(
        "the daemon's last sign of life is {}, and at most {max_age_seconds} s are allowed (publish.max_heartbeat_age); \
         is bliss-service running?",
        AgeInWords(*age_seconds)
    )]
    OldSnapshot {
        /// How old the last sign of life is, in seconds; `None` if there was none since the system was started.
        age_seconds: Option<u64>,
        /// How old it may be, in seconds.
        max_age_seconds: u32,
    },
}

struct AgeInWords(Option<u64>);

impl core::fmt::Display for AgeInWords {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(seconds) => write!(f, "{seconds} s old"),
            None => f.write_str("from before the system was started"),
        }
    }
}

/// The publication bound last, and the outcome.
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

    /// Whether this publication is bound, with the names registered now.
    fn is_current(&self, guard: &Guard<'_>, names: &Names) -> bool {
        self.generation == Some(guard.generation())
            && !guard.is_switched()
            && self.registered == names.registered()
    }

    fn set(&mut self, guard: &Guard<'_>, names: &Names, outcome: Result<(), Unscored>) {
        *self = Self { generation: Some(guard.generation()), registered: names.registered(), outcome };
    }
}

impl Client {
    /// Opens `directory`. It may be empty or not exist yet: answers are unscored until something is published.
    ///
    /// # Errors
    /// Its files cannot be used: another owner or type, damaged, or not readable.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        ClientOptions::default().open(directory)
    }

    /// The names that requests use. Register them once, before the first request.
    pub fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// The scorer, bound to the publications that the last call used: names of dimensions, features and models.
    pub fn scorer(&self) -> &Scorer {
        &self.scorer
    }

    /// Generation of the features that the last answer used.
    pub fn features_generation(&self) -> Option<u64> {
        self.bound_features.generation
    }

    /// Generation of the models that the last answer used.
    pub fn models_generation(&self) -> Option<u64> {
        self.bound_models.generation
    }

    /// How often models were bound. While it is unchanged, so are the names and the order of the scorer's models.
    pub fn models_bound(&self) -> u64 {
        self.models_bound
    }

    /// The last error that left an answer unscored because of what is published. A later success does not clear it.
    pub fn last_error(&self) -> Option<&ClientError> {
        self.last_error.as_ref()
    }

    /// Why this handle's lookups and scores are missing from the daemon's metrics, if they are. It answers all the same,
    /// and [`Self::maintain`] tries again.
    pub fn metrics_error(&self) -> Option<MetricsError> {
        self.metrics.error()
    }

    /// Does in advance what the next request would have to do after a publication: detects replaced files, maps and checks
    /// new pages, up to 4 MiB (half a millisecond) at a time, and unmaps old ones. Call it between requests, about once a
    /// second.
    ///
    /// # Errors
    /// Features or models are missing or damaged.
    pub fn maintain(&mut self) -> Result<(), Unscored> {
        self.metrics.maintain();
        // Pins report errors.
        let _ = (self.features.maintain(), self.models.maintain());
        let bound = self.bind_all(None, |_, _, _| ());
        self.metrics.bind(&self.scorer);
        bound
    }

    /// Pins the current features and binds them if they are new.
    fn pin_features<'a>(
        features: &'a Reader,
        names: &Names,
        scorer: &mut Scorer,
        bound: &mut Bound,
        bound_models: &mut Bound,
        last_error: &mut Option<ClientError>,
    ) -> Result<Guard<'a>, Unscored> {
        let guard = features
            .pin()
            .map_err(|error| reason(error, Unscored::NoSnapshot, Unscored::BadSnapshot, last_error))?;
        if !bound.is_current(&guard, names) {
            let outcome = scorer.bind_features(&guard, names);
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

    /// Looks up all dimensions. Returns the features in the order of the schema, and one status per dimension. `now` is in
    /// seconds since the Unix epoch.
    ///
    /// # Errors
    /// Nothing is published, it is damaged, or the daemon has given no sign of life for too long.
    pub fn look_up(&mut self, request: &Request<'_>, now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self {
            features,
            names,
            scorer,
            bound_features,
            bound_models,
            last_error,
            metrics,
            heartbeat,
            ..
        } = self;
        let guard = Self::pin_features(features, names, scorer, bound_features, bound_models, last_error)?;
        heartbeat.admit(features, scorer, now, last_error)?;
        scorer.look_up(&guard, request, now);
        metrics.count_lookup(scorer);
        Ok(scorer.looked_up())
    }

    /// Looks up keys computed by [`Self::key`], one per dimension in the order of the schema.
    ///
    /// # Errors
    /// Those of [`Self::look_up`].
    pub fn look_up_keys(&mut self, keys: &[u64], now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self {
            features,
            names,
            scorer,
            bound_features,
            bound_models,
            last_error,
            metrics,
            heartbeat,
            ..
        } = self;
        let guard = Self::pin_features(features, names, scorer, bound_features, bound_models, last_error)?;
        heartbeat.admit(features, scorer, now, last_error)?;
        scorer.look_up_keys(&guard, keys, now);
        metrics.count_lookup(scorer);
        Ok(scorer.looked_up())
    }

    /// The key of dimension `index` under the current features' secret; `None` if there is no such dimension or a value does
    /// not fit its part.
    ///
    /// # Errors
    /// Nothing is published, or it is damaged.
    pub fn key(&mut self, index: usize, values: &[Value<'_>]) -> Result<Option<u64>, Unscored> {
        let Self { features, names, scorer, bound_features, bound_models, last_error, .. } = self;
        let _guard = Self::pin_features(features, names, scorer, bound_features, bound_models, last_error)?;
        Ok(scorer.dimensions().key(index, values))
    }

    /// Scores `request` with the active model of `route`, or of the default route if `route` is empty or unknown. `now` is
    /// in seconds since the Unix epoch.
    pub fn score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Answer {
        let answer = self.try_score(request, route, now).unwrap_or_else(|reason| {
            self.scorer.forget();
            Answer::unscored(reason)
        });
        self.metrics.count_score(&self.scorer, &answer);
        answer
    }

    /// The scores that the route's shadow models gave the last scored request, in the order of the publication.
    pub fn shadows(&self) -> &[Shadow] {
        self.scorer.shadows()
    }

    /// Scores `request` as [`Self::score`] does, with the model of this name or else the active one of `route`, and says what the
    /// answer comes from. It is not counted. Reads what is published now, so that the score may be another than a moment ago.
    ///
    /// Off the hot path: takes time in proportion to the model's leaves (a millisecond for 500 trees of depth 6), in memory that
    /// `explaining` holds.
    ///
    /// # Errors
    /// [`NotExplained`]: the request is unscored, there is no such model, or it was published without leaf weights.
    pub fn explain(
        &mut self,
        explaining: &mut Explaining,
        request: &Request<'_>,
        route: &str,
        model: Option<&str>,
        now: u32,
    ) -> Result<Explained, NotExplained> {
        self.bind_all(Some(now), |scorer, features, models| {
            // SAFETY:
            // - `scorer.bind_models` accepted the models of this generation last: `bind_all` ensures it
            // - while pinned, and between pins of one generation, they do not change (M2 of mmap-sync)
            unsafe { scorer.explain(explaining, features, models, request, route, model, now) }
        })?
    }

    /// What each input contributed to the answer that was [explained](Self::explain) last, the largest part first.
    pub fn contributions<'a>(
        &'a self,
        explaining: &'a Explaining,
        explained: &'a Explained,
    ) -> impl ExactSizeIterator<Item = Contribution<'a>> {
        self.scorer.contributions(explaining, explained, &self.names)
    }

    /// Contribution `index` of [`Self::contributions`], without going through those before it.
    pub fn contribution<'a>(
        &'a self,
        explaining: &'a Explaining,
        explained: &'a Explained,
        index: usize,
    ) -> Option<Contribution<'a>> {
        self.scorer.contribution(explaining, explained, &self.names, index)
    }

    /// The inputs of a model, by its index in the publication, with their values for the request that was scored or explained last.
    pub fn inputs(&self, model: usize) -> impl ExactSizeIterator<Item = InputValue<'_>> {
        self.scorer.inputs(model, &self.names)
    }

    fn try_score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Result<Answer, Unscored> {
        self.bind_all(Some(now), |scorer, features, models| {
            // SAFETY:
            // - `scorer.bind_models` accepted the models of this generation last: `bind_all` ensures it
            // - while pinned, and between pins of one generation, they do not change (M2 of mmap-sync)
            unsafe { scorer.score(features, models, request, route, now) }
        })
    }

    /// Pins features and models, binds what is new, and calls `then` with them; for a request at time `now`, only if the
    /// daemon lives.
    #[inline]
    fn bind_all<R>(
        &mut self,
        now: Option<u32>,
        then: impl FnOnce(&mut Scorer, &[u8], &[u8]) -> R,
    ) -> Result<R, Unscored> {
        let Self {
            features,
            models,
            names,
            scorer,
            bound_features,
            bound_models,
            models_bound,
            last_error,
            heartbeat,
            ..
        } = self;
        let reader = &*features;
        let features = Self::pin_features(reader, names, scorer, bound_features, bound_models, last_error)?;
        if let Some(now) = now {
            heartbeat.admit(reader, scorer, now, last_error)?;
        }
        let models = models
            .pin()
            .map_err(|error| reason(error, Unscored::NoModels, Unscored::BadModels, last_error))?;
        if !bound_models.is_current(&models, names) {
            *models_bound += 1;
            let outcome = scorer.bind_models(&models, names).map_err(|error| {
                *last_error = Some(error.into());
                Unscored::BadModels
            });
            bound_models.set(&models, names, outcome);
        }
        bound_models.outcome?;
        Ok(then(scorer, &features, &models))
    }
}

impl Heartbeat {
    /// Refuses requests once the daemon has given no sign of life for longer than the bound features allow.
    #[inline]
    fn admit(
        &mut self,
        features: &Reader,
        scorer: &Scorer,
        now: u32,
        last_error: &mut Option<ClientError>,
    ) -> Result<(), Unscored> {
        let max_age_seconds = scorer.dimensions().max_heartbeat_age_seconds();
        self.check(features, now, max_age_seconds).map_err(|age_seconds| {
            *last_error = Some(ClientError::OldSnapshot { age_seconds, max_age_seconds });
            Unscored::OldSnapshot
        })
    }
}

/// Records `error` and returns the reason: `nothing` if nothing is published, else `bad`.
fn reason(error: Error, nothing: Unscored, bad: Unscored, last_error: &mut Option<ClientError>) -> Unscored {
    let reason = if matches!(error, Error::NotPublished) { nothing } else { bad };
    *last_error = Some(error.into());
    reason
}
