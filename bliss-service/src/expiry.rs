//! Rows that are no longer updated are removed: `publish.expire_after_max_ages`.
//!
//! Rows are checked before they are published, and published rows a slice at a time, at most once a second, with the next
//! publication or, if there is none, by one of its own. So no publication waits for a scan of tens of millions of rows, and
//! a removed row returns only when its origin has a newer one.

use std::time::{Duration, Instant, SystemTime};

use bliss_core::build::Change;
use bliss_core::publication::features::FeaturesRef;
use bliss_store::Sweeper;

use crate::config::Config;
use crate::metrics::{Metrics, label};

/// Slots of tables that are checked at once: some milliseconds' work.
const SLICE_SLOTS: usize = 65_536;
/// How often a slice is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Seconds since the Unix epoch; a test's own.
pub(crate) type Clock = Box<dyn Fn() -> u32 + Send>;

/// Removes expired rows.
pub struct Expiry {
    sweeper: Sweeper,
    /// Names of the dimensions.
    names: Vec<String>,
    clock: Clock,
    interval: Duration,
    swept: Option<Instant>,
}

impl Expiry {
    /// An expiry by `config`; `None` if nothing ever expires.
    pub fn new(config: &Config) -> Option<Self> {
        let clock = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
        };
        Self::with_clock(config, Box::new(clock), INTERVAL)
    }

    pub(crate) fn with_clock(config: &Config, clock: Clock, interval: Duration) -> Option<Self> {
        let multiple = config.expire_after_max_ages;
        if multiple == 0 {
            return None;
        }
        // Rows with a clock of their own do not expire by the host's.
        let is_replayed = |index: usize| {
            config
                .origins
                .iter()
                .any(|origin| origin.kind.has_own_clock() && origin.dimensions.contains(&index))
        };
        let dimensions = config.schema.dimensions.iter().enumerate();
        let limits = dimensions.map(|(index, dimension)| match dimension.max_age_seconds {
            0 => None,
            _ if is_replayed(index) => None,
            max_age => Some(max_age.saturating_mul(multiple)),
        });
        let sweeper = Sweeper::new(limits.collect(), SLICE_SLOTS);
        let names = config.schema.dimensions.iter().map(|dimension| dimension.name.clone()).collect();
        Some(Self { sweeper, names, clock, interval, swept: None })
    }

    /// Whether a slice may be checked.
    pub(crate) fn is_due(&self) -> bool {
        self.swept.is_none_or(|swept| swept.elapsed() >= self.interval)
    }

    /// Removes expired rows from `change`, and adds deletes of those in the next slice of `current`, the features published
    /// last.
    pub(crate) fn apply(&mut self, current: Option<FeaturesRef<'_>>, change: &mut Change) -> Removed {
        let now = (self.clock)();
        let mut removed = self.sweeper.admit(change, now);
        if self.is_due() {
            self.swept = Some(Instant::now());
            if let Some(current) = current {
                removed.extend(Sweeper::join(self.sweeper.next(current, now), change, current));
            }
        }
        Removed(removed)
    }

    /// Counts what was removed, once that is published.
    pub(crate) fn count(&self, removed: &Removed, metrics: &Metrics) {
        for (index, rows) in &removed.0 {
            let Some(name) = self.names.get(*index) else { continue };
            metrics.expired_rows.get_or_create(&label("dimension", name)).inc_by(*rows);
            tracing::debug!(dimension = name, rows, "expired");
        }
    }
}

/// How many rows of which dimension were removed.
#[derive(Debug)]
pub(crate) struct Removed(bliss_store::Expired);

#[cfg(test)]
mod tests;
