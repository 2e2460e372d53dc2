//! What a client has bound, and to which generation of what is published.

use bliss_core::request::Names;
use bliss_core::score::Unscored;
use bliss_core::scorer::{NoPolicy, Scorer};
use mmap_sync::{Error, Guard, Reader};

use crate::client::ClientError;
use crate::heartbeat::Heartbeat;

/// Names, scorer, and what they were bound to last.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) names: Names,
    pub(crate) scorer: Scorer,
    pub(crate) features: Bound<Unscored>,
    pub(crate) models: Bound<Unscored>,
    pub(crate) policies: Bound<NoPolicy>,
    /// How often models were bound.
    pub(crate) models_bound: u64,
    pub(crate) last_error: Option<ClientError>,
}

/// The publication bound last, and the outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<E> {
    pub(crate) generation: Option<u64>,
    registered: usize,
    outcome: Result<(), E>,
}

impl<E> Bound<E> {
    fn nothing(reason: E) -> Self {
        Self { generation: None, registered: 0, outcome: Err(reason) }
    }

    /// Whether this publication is bound, with the names registered now.
    fn is_current(&self, guard: &Guard<'_>, names: &Names) -> bool {
        self.generation == Some(guard.generation())
            && !guard.is_switched()
            && self.registered == names.registered()
    }

    fn set(&mut self, guard: &Guard<'_>, names: &Names, outcome: Result<(), E>) {
        *self = Self { generation: Some(guard.generation()), registered: names.registered(), outcome };
    }
}

impl Binding {
    pub(crate) fn new() -> Self {
        Self {
            names: Names::default(),
            scorer: Scorer::new(),
            features: Bound::nothing(Unscored::NoSnapshot),
            models: Bound::nothing(Unscored::NoModels),
            policies: Bound::nothing(NoPolicy::NotPublished),
            models_bound: 0,
            last_error: None,
        }
    }

    /// Pins the current features and binds them if they are new.
    pub(crate) fn pin_features<'a>(&mut self, reader: &'a Reader) -> Result<Guard<'a>, Unscored> {
        let guard = match reader.pin() {
            Ok(guard) => guard,
            Err(error) => return Err(self.reason(error, Unscored::NoSnapshot, Unscored::BadSnapshot)),
        };
        if !self.features.is_current(&guard, &self.names) {
            let outcome = self.scorer.bind_features(&guard, &self.names);
            if outcome != Ok(false) {
                self.models.generation = None;
                self.policies.generation = None;
            }
            let outcome = outcome.map(drop).map_err(|error| {
                self.last_error = Some(error.into());
                Unscored::BadSnapshot
            });
            self.features.set(&guard, &self.names, outcome);
        }
        self.features.outcome.map(|()| guard)
    }

    /// Pins the current models and binds them if they are new, after the features.
    pub(crate) fn pin_models<'a>(&mut self, reader: &'a Reader) -> Result<Guard<'a>, Unscored> {
        let guard = match reader.pin() {
            Ok(guard) => guard,
            Err(error) => return Err(self.reason(error, Unscored::NoModels, Unscored::BadModels)),
        };
        if !self.models.is_current(&guard, &self.names) {
            self.models_bound += 1;
            let outcome = self.scorer.bind_models(&guard, &self.names).map_err(|error| {
                self.last_error = Some(error.into());
                Unscored::BadModels
            });
            self.models.set(&guard, &self.names, outcome);
        }
        self.models.outcome.map(|()| guard)
    }

    /// Pins the current policies and binds them if they are new, after the features.
    pub(crate) fn pin_policies<'a>(&mut self, reader: &'a Reader) -> Result<Guard<'a>, NoPolicy> {
        let guard = match reader.pin() {
            Ok(guard) => guard,
            // No reason for an answer without a score, which the last error is to explain.
            Err(Error::NotPublished) => return Err(NoPolicy::NotPublished),
            Err(error) => return Err(self.reason(error, NoPolicy::NotPublished, NoPolicy::BadPolicy)),
        };
        if !self.policies.is_current(&guard, &self.names) {
            let outcome = self.scorer.bind_policies(&guard, &self.names).map_err(|error| {
                self.last_error = Some(ClientError::Policies(error));
                NoPolicy::BadPolicy
            });
            self.policies.set(&guard, &self.names, outcome);
        }
        self.policies.outcome.map(|()| guard)
    }

    /// Refuses what was pinned once the daemon has given no sign of life for longer than the bound features allow, for the reason
    /// `old`.
    #[inline]
    pub(crate) fn admit<E>(
        &mut self,
        heartbeat: &mut Heartbeat,
        reader: &Reader,
        now: u32,
        old: E,
    ) -> Result<(), E> {
        let max_age_seconds = self.scorer.dimensions().max_heartbeat_age_seconds();
        heartbeat.check(reader, now, max_age_seconds).map_err(|age_seconds| {
            self.last_error = Some(ClientError::OldSnapshot { age_seconds, max_age_seconds });
            old
        })
    }

    /// Records `error` and returns the reason: `nothing` if nothing is published, else `bad`.
    fn reason<E>(&mut self, error: Error, nothing: E, bad: E) -> E {
        let reason = if matches!(error, Error::NotPublished) { nothing } else { bad };
        self.last_error = Some(error.into());
        reason
    }
}
