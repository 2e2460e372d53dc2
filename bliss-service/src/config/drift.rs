//! The section `[drift]`.

use std::path::PathBuf;
use std::time::Duration;

use bliss_core::publication::models::DEFAULT_SAMPLE_ONE_IN;
use serde::Deserialize;

use super::source::{ConfigError, Source};

#[cfg(test)]
pub(super) const SOURCE: &str = include_str!("drift.rs");
#[cfg(test)]
pub(super) const EXAMPLE: &str = "#state = \"/var/lib/bliss/drift.state\"\n";

/// Whether inputs and scores of models still are what they were: docs/service.md, *Drift*. Nothing here changes scores.
#[derive(Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drift {
    /// Of how many scored requests workers count the inputs of one; 0: of none, and nothing is told. 1 where there are few.
    sample_one_in: u32,
    /// The time whose requests are compared with the past, 1s to 7days.
    #[serde(with = "humantime_serde")]
    window: Duration,
    /// How far the site's own past reaches. Changes are told once all hours of a day (a seventh of it) are in it.
    #[serde(with = "humantime_serde")]
    past: Duration,
    /// Fewer counted requests in a window, or in a seventh of the past, tell nothing.
    min_requests: u64,
    /// The population stability index from which on an input has changed against the site's own past. Inputs that have
    /// differed more in it have a higher limit. An alert ends at four tenths of it.
    max_psi: f64,
    /// The same against training, for the traffic as a whole: told once more than half of the inputs are beyond it.
    max_training_psi: f64,
    /// The file in which the past is kept over restarts; by default `drift.state` in `checkpoint.directory`, or in `directory`,
    /// which a reboot empties, where there is no such folder.
    #[cfg_attr(test, serde(skip_serializing))]
    state: Option<PathBuf>,
}

impl Default for Drift {
    fn default() -> Self {
        let DriftOptions { window, past, min_requests, max_psi, max_training_psi, state } =
            DriftOptions::default();
        Self {
            sample_one_in: DEFAULT_SAMPLE_ONE_IN,
            window,
            past,
            min_requests,
            max_psi,
            max_training_psi,
            state,
        }
    }
}

/// What drift is, and from when on it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftOptions {
    /// The time whose requests are compared.
    pub window: Duration,
    /// How far the site's own past reaches.
    pub past: Duration,
    /// Fewer counted requests tell nothing.
    pub min_requests: u64,
    /// The index from which on an input has changed.
    pub max_psi: f64,
    /// The index from which on an input is far from training.
    pub max_training_psi: f64,
    /// Where the past is kept; in the folder of checkpoints, or the published one, if none is named.
    pub state: Option<PathBuf>,
}

impl Default for DriftOptions {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(3600),
            past: Duration::from_secs(7 * 86_400),
            min_requests: 500,
            max_psi: 0.25,
            max_training_psi: 1.0,
            state: None,
        }
    }
}

impl Drift {
    /// The checked options, and of how many requests one is counted.
    pub(super) fn resolve(self, source: Source<'_>) -> Result<(DriftOptions, u32), ConfigError> {
        let Self { sample_one_in, window, past, min_requests, max_psi, max_training_psi, state } = self;
        let day = Duration::from_secs(86_400);
        if window < Duration::from_secs(1) || window > 7 * day {
            return Err(source.whole(format!("drift.window: expected 1s to 7days, found {window:?}")));
        }
        if past < window * 7 || past > 366 * day {
            let message = format!("drift.past: expected seven times drift.window to 366days, found {past:?}");
            return Err(source.whole(message));
        }
        if min_requests == 0 {
            return Err(source.whole("drift.min_requests: expected 1 at least, found 0"));
        }
        for (name, found) in [("max_psi", max_psi), ("max_training_psi", max_training_psi)] {
            if !(found > 0.0 && found.is_finite()) {
                return Err(source.whole(format!("drift.{name}: expected a number above 0, found {found}")));
            }
        }
        let state = state.map(|path| source.file(path));
        Ok((DriftOptions { window, past, min_requests, max_psi, max_training_psi, state }, sample_one_in))
    }
}
