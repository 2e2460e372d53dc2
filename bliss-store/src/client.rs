//! The reader of a directory: looks up features, scores requests and decides what to do with them.

use std::path::Path;

use bliss_core::attribute::Value;
use bliss_core::pass::{NoPass, PassText};
use bliss_core::publication::frame::FrameError;
use bliss_core::publication::models::ModelsError;
use bliss_core::request::{Names, Request};
use bliss_core::score::{Answer, Shadow, Status, Unscored};
use bliss_core::scorer::{
    Contribution, Decision, Explained, Explaining, InputValue, NoPolicy, NotExplained, Scorer,
};
use mmap_sync::{Error, Options, Reader};

use crate::binding::Binding;
use crate::heartbeat::Heartbeat;
use crate::metrics::{MetricsError, WorkerMetrics};
use crate::request_ids::RequestIds;
use crate::{FEATURES, MODELS, POLICY};

/// Looks up features, scores requests and decides what to do with them, from a directory that a daemon publishes to. A client is
/// used by one thread at a time.
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
    policies: Reader,
    binding: Binding,
    metrics: WorkerMetrics,
    heartbeat: Heartbeat,
    policy_heartbeat: Heartbeat,
    request_ids: RequestIds,
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
            policies: reader(POLICY)?,
            binding: Binding::new(),
            metrics: WorkerMetrics::open(directory),
            heartbeat: Heartbeat::default(),
            policy_heartbeat: Heartbeat::default(),
            // After the readers, which see to it that a fork is noticed.
            request_ids: RequestIds::new(),
        })
    }
}

/// Why an answer is unscored, or no policy was asked, because of what is published.
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
    /// The published policies are damaged or of another version.
    #[error("policies: {0}")]
    Policies(FrameError),
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
        &mut self.binding.names
    }

    /// The scorer, bound to the publications that the last call used: names of dimensions, features and models.
    pub fn scorer(&self) -> &Scorer {
        &self.binding.scorer
    }

    /// Generation of the features that the last answer used.
    pub fn features_generation(&self) -> Option<u64> {
        self.binding.features.generation
    }

    /// Generation of the models that the last answer used.
    pub fn models_generation(&self) -> Option<u64> {
        self.binding.models.generation
    }

    /// Generation of the policies that the last decision used.
    pub fn policies_generation(&self) -> Option<u64> {
        self.binding.policies.generation
    }

    /// How often models were bound. While it is unchanged, so are the names and the order of the scorer's models.
    pub fn models_bound(&self) -> u64 {
        self.binding.models_bound
    }

    /// The last error that left an answer unscored, or no policy to ask, because of what is published. A later success does not clear it.
    pub fn last_error(&self) -> Option<&ClientError> {
        self.binding.last_error.as_ref()
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
    /// Features or models are missing or damaged. (Whether a policy is there, decisions tell.)
    pub fn maintain(&mut self) -> Result<(), Unscored> {
        self.metrics.maintain();
        // Pins report errors.
        let _ = (self.features.maintain(), self.models.maintain(), self.policies.maintain());
        let bound = self.bind_all(None, |_, _, _| ());
        // After the features, to which they are bound.
        let _ = self.binding.pin_policies(&self.policies);
        self.metrics.bind(&self.binding.scorer);
        bound
    }

    /// Looks up all dimensions. Returns the features in the order of the schema, and one status per dimension. `now` is in
    /// seconds since the Unix epoch.
    ///
    /// # Errors
    /// Nothing is published, it is damaged, or the daemon has given no sign of life for too long.
    pub fn look_up(&mut self, request: &Request<'_>, now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self { features, binding, metrics, heartbeat, .. } = self;
        let guard = binding.pin_features(features)?;
        binding.admit(heartbeat, features, now, Unscored::OldSnapshot)?;
        let scorer = &mut binding.scorer;
        scorer.look_up(&guard, request, now);
        metrics.count_lookup(scorer);
        Ok(scorer.looked_up())
    }

    /// Looks up keys computed by [`Self::key`], one per dimension in the order of the schema.
    ///
    /// # Errors
    /// Those of [`Self::look_up`].
    pub fn look_up_keys(&mut self, keys: &[u64], now: u32) -> Result<(&[f32], &[Status]), Unscored> {
        let Self { features, binding, metrics, heartbeat, .. } = self;
        let guard = binding.pin_features(features)?;
        binding.admit(heartbeat, features, now, Unscored::OldSnapshot)?;
        let scorer = &mut binding.scorer;
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
        let Self { features, binding, .. } = self;
        let _guard = binding.pin_features(features)?;
        Ok(binding.scorer.dimensions().key(index, values))
    }

    /// Scores `request` with the active model of `route`, or of the default route if `route` is empty or unknown. `now` is
    /// in seconds since the Unix epoch.
    pub fn score(&mut self, request: &Request<'_>, route: &str, now: u32) -> Answer {
        let answer = self.try_score(request, route, now).unwrap_or_else(|reason| {
            self.binding.scorer.forget();
            Answer::unscored(reason)
        });
        self.metrics.count_score(&self.binding.scorer, &answer);
        answer
    }

    /// Scores `request` as [`Self::score`] does, and asks the policy of `route`, or that of the default route if `route` is empty or
    /// has none, what to do with it. `now` is in seconds since the Unix epoch.
    ///
    /// The request is decided by what is published at this moment, so that the next one after a publication follows it. A failure
    /// of ours blocks nobody: where no policy can be read, or the daemon has given no sign of life for too long, everything is
    /// allowed ([`Decision::no_policy`]); where features cannot, no condition on them holds.
    ///
    /// ```
    /// use bliss_core::build::{Exception, PolicySet, Subject};
    /// use bliss_core::policy::{compiled::Action, exceptions::ExceptionKind};
    /// use bliss_core::prefixes::Prefix;
    /// use bliss_core::{request::Request, schema::Schema};
    /// use bliss_store::{Client, PublishOptions, Publisher};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// let mut publisher = Publisher::open(directory, &PublishOptions::default(), Schema::default())?;
    /// let exceptions = vec![Exception {
    ///     kind: ExceptionKind::Deny,
    ///     subject: Subject::Prefix(Prefix::parse(b"192.0.2.0/24")?),
    ///     until: 2_000,
    ///     name: "scanner".into(),
    ///     status: None,
    ///     header: None,
    /// }];
    /// publisher.publish_policies(&PolicySet { exceptions, ..PolicySet::default() })?;
    ///
    /// let mut client = Client::open(directory)?;
    /// let ip = client.names().attribute("ip")?;
    /// let mut request = Request::new();
    /// request.set_attribute(ip, "192.0.2.1".into());
    /// let decision = client.decide(&request, "", 1_999);
    /// assert_eq!((decision.action, decision.status), (Action::Block, 403));
    /// assert_eq!((decision.rule, decision.exception), ("exception", Some("scanner")));
    /// assert_eq!(client.decide(&request, "", 2_000).rule, "unscored", "it has run out");
    /// # Ok(())
    /// # }
    /// ```
    pub fn decide(&mut self, request: &Request<'_>, route: &str, now: u32) -> Decision<'_> {
        let Self { features, models, policies, binding, metrics, heartbeat, policy_heartbeat, .. } = self;
        let pinned_features = binding.pin_features(features).and_then(|guard| {
            binding.admit(heartbeat, features, now, Unscored::OldSnapshot)?;
            Ok(guard)
        });
        // After the features, to which both are bound.
        let pinned_policies = binding.pin_policies(policies).and_then(|guard| {
            binding.admit(policy_heartbeat, policies, now, NoPolicy::OldPolicy)?;
            Ok(guard)
        });
        let pinned_models = match &pinned_features {
            Ok(_) => binding.pin_models(models),
            Err(reason) => Err(*reason),
        };
        let features = pinned_features.as_deref().map_err(|reason| *reason);
        let models = pinned_models.as_deref().map_err(|reason| *reason);
        let policies = pinned_policies.as_deref().map_err(|reason| *reason);
        // SAFETY:
        // - `bind_models` and `bind_policies` of the scorer accepted these generations last: `pin_models` and `pin_policies` ensure it
        // - while pinned, and between pins of one generation, they do not change (M2 of mmap-sync)
        let answer = unsafe { binding.scorer.decide(features, models, policies, request, route, now) };
        metrics.count_score(&binding.scorer, &answer);
        binding.scorer.decision()
    }

    /// What the last [`Self::decide`] came to.
    pub fn decision(&self) -> Decision<'_> {
        self.binding.scorer.decision()
    }

    /// A pass for the client at `ip` with this user agent, who passed a challenge: a text to be set as a cookie, and to be told with
    /// its next requests ([`bliss_core::http::HttpRequest::pass`]), which nothing challenges then but rules that say so. It holds from
    /// `now`, in seconds since the Unix epoch, for so many seconds, for this address (of IPv6 the first 64 bits), this user agent and
    /// this installation's secret alone. Whoever calls this vouches for it that the client passed.
    ///
    /// ```
    /// use bliss_core::http::HttpRequest;
    /// use bliss_core::pass::Pass;
    /// use bliss_core::{request::Request, schema::Schema};
    /// use bliss_store::{Client, PublishOptions, Publisher};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// let mut publisher = Publisher::open(directory, &PublishOptions::default(), Schema::default())?;
    /// publisher.publish(bliss_core::build::Change { dimensions: vec![] })?;
    ///
    /// let mut client = Client::open(directory)?;
    /// let pass = client.pass(Some("192.0.2.1".into()), b"Mozilla/5.0", 3600, 1_000)?;
    ///
    /// let whole = client.names().http()?;
    /// let http = HttpRequest {
    ///     ip: Some("192.0.2.1".into()),
    ///     user_agent: Some(b"Mozilla/5.0"),
    ///     pass: Some(Pass::Cookie(pass.as_str().as_bytes())),
    ///     ..HttpRequest::default()
    /// };
    /// let mut request = Request::new();
    /// request.set_http(&whole, http);
    /// assert_eq!(client.decide(&request, "", 4_599).challenge_passed, Some(true));
    /// assert_eq!(client.decide(&request, "", 4_600).challenge_passed, Some(false), "it has run out");
    ///
    /// request.set_http(&whole, HttpRequest { ip: Some("192.0.2.2".into()), ..http });
    /// assert_eq!(client.decide(&request, "", 1_000).challenge_passed, Some(false), "it is another's");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No features can be read, with which the secret comes; there is no address; or it is not for 1 second to 30 days.
    pub fn pass(
        &mut self,
        ip: Option<Value<'_>>,
        user_agent: &[u8],
        valid_seconds: u32,
        now: u32,
    ) -> Result<PassText, NoPass> {
        let Self { features, binding, .. } = self;
        let _guard = binding.pin_features(features)?;
        binding.scorer.pass(ip, user_agent, valid_seconds, now)
    }

    /// An id for a request at time `now`, in seconds since the Unix epoch, for logs: 4 bytes the time, 8 bytes this client, drawn at
    /// random when it is opened, and 4 bytes a number that counts up, the first byte of each on top. It takes no system call, and
    /// is no secret.
    pub fn next_request_id(&mut self, now: u32) -> [u8; 16] {
        self.request_ids.next(now)
    }

    /// The scores that the route's shadow models gave the last scored request, in the order of the publication.
    pub fn shadows(&self) -> &[Shadow] {
        self.binding.scorer.shadows()
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
        self.binding.scorer.contributions(explaining, explained, &self.binding.names)
    }

    /// Contribution `index` of [`Self::contributions`], without going through those before it.
    pub fn contribution<'a>(
        &'a self,
        explaining: &'a Explaining,
        explained: &'a Explained,
        index: usize,
    ) -> Option<Contribution<'a>> {
        self.binding.scorer.contribution(explaining, explained, &self.binding.names, index)
    }

    /// The inputs of a model, by its index in the publication, with their values for the request that was scored or explained last.
    pub fn inputs(&self, model: usize) -> impl ExactSizeIterator<Item = InputValue<'_>> {
        self.binding.scorer.inputs(model, &self.binding.names)
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
        let Self { features: reader, models, binding, heartbeat, .. } = self;
        let features = binding.pin_features(reader)?;
        if let Some(now) = now {
            binding.admit(heartbeat, reader, now, Unscored::OldSnapshot)?;
        }
        let models = binding.pin_models(models)?;
        Ok(then(&mut binding.scorer, &features, &models))
    }
}
