//! Snapshots of rows that are accepted and yet suspicious: far fewer rows than before, only zeros, nothing but defaults.
//!
//! They are published all the same; a warning says so once, when it begins, and stays in `/status` until it ends.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::State;
use crate::decode::Given;

/// What is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Many fewer rows than before.
    Shrunk,
    /// There are numbers, and all are 0.
    AllZero,
    /// No row has a value of any feature.
    NoFeatures,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Shrunk, Kind::AllZero, Kind::NoFeatures];

    fn name(self) -> &'static str {
        match self {
            Kind::Shrunk => "shrunk",
            Kind::AllZero => "all_zero",
            Kind::NoFeatures => "no_features",
        }
    }
}

/// A warning in `/status`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Warning {
    kind: Kind,
    dimension: String,
    message: String,
    since: Timestamp,
    last_at: Timestamp,
    times: u64,
    /// Rows when it was last logged.
    #[serde(skip)]
    logged_rows: u64,
}

/// What snapshots of a dimension were like before a warning began, by its index.
pub(super) type Usual = HashMap<usize, Before>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    rows: Option<u64>,
    /// Values, numbers and those of them that are not 0; none before the first snapshot.
    given: Option<Given>,
}

/// What is suspicious of `given`, with old and new numbers.
fn findings(given: &Given, before: &Before, warn_shrink: f64) -> Vec<(Kind, String)> {
    let Given { rows, values, numbers, nonzero, .. } = *given;
    let mut found = Vec::new();
    if let Some(old) = before.rows.filter(|old| has_shrunk(*old, rows, warn_shrink)) {
        let lost = 100.0 * (1.0 - rows as f64 / old as f64);
        found.push((
            Kind::Shrunk,
            format!("{rows} rows, {old} before: {lost:.0} % are gone (warn_shrink = {warn_shrink})"),
        ));
    }
    if given.has_features && rows > 0 && values == 0 {
        let before = before
            .given
            .map_or(String::new(), |old| format!("; {} values in {} rows before", old.values, old.rows));
        found.push((Kind::NoFeatures, format!("none of the {rows} rows has a value of any feature{before}")));
    }
    if numbers > 0 && nonzero == 0 {
        let before = before.given.map_or(String::new(), |old| {
            format!("; {} of {} numbers were not 0 before", old.nonzero, old.numbers)
        });
        found.push((Kind::AllZero, format!("all {numbers} numbers of {rows} rows are 0{before}")));
    }
    found
}

fn has_shrunk(old: u64, new: u64, warn_shrink: f64) -> bool {
    old > 0 && (new as f64) < old as f64 * (1.0 - warn_shrink)
}

impl State {
    /// Published rows of the dimensions of a snapshot, where they are known.
    pub fn dimension_rows(&self, given: &[Given]) -> Vec<Option<u64>> {
        let status = self.lock();
        let rows = |given: &Given| status.features.dimensions.get(given.dimension)?.rows;
        given.iter().map(rows).collect()
    }

    /// Warns of a snapshot that was published and is suspicious; `published` are the rows of its dimensions before it.
    pub fn examine(&self, origin: usize, given: &[Given], published: &[Option<u64>], warn_shrink: f64) {
        let mut status = self.lock();
        let names: Vec<String> = given
            .iter()
            .map(|given| status.features.dimensions.get(given.dimension).map(|found| found.name.clone()))
            .map(Option::unwrap_or_default)
            .collect();
        let Some(found) = status.origins.get_mut(origin) else { return };
        for ((given, published), dimension) in given.iter().zip(published).zip(names) {
            let usual = found.usual.entry(given.dimension).or_default();
            usual.rows = usual.rows.or(*published);
            let findings = findings(given, usual, warn_shrink);
            if !findings.iter().any(|(kind, _)| *kind == Kind::Shrunk) {
                usual.rows = Some(given.rows);
            }
            if findings.is_empty() {
                usual.given = Some(*given);
            }
            let now = Timestamp::now();
            for (kind, message) in &findings {
                let before = found.warnings.iter().position(|w| w.kind == *kind && w.dimension == dimension);
                let before = before.map(|at| found.warnings.remove(at));
                // A second loss is said again.
                let is_new = before.as_ref().is_none_or(|before| {
                    *kind == Kind::Shrunk && has_shrunk(before.logged_rows, given.rows, warn_shrink)
                });
                if is_new {
                    tracing::warn!(
                        origin = found.name,
                        dimension,
                        kind = kind.name(),
                        "suspicious, and published all the same: {message}"
                    );
                }
                found.warnings.push(Warning {
                    kind: *kind,
                    dimension: dimension.clone(),
                    message: message.clone(),
                    since: before.as_ref().map_or(now, |before| before.since),
                    last_at: now,
                    times: before.as_ref().map_or(1, |before| before.times + 1),
                    logged_rows: before.filter(|_| !is_new).map_or(given.rows, |before| before.logged_rows),
                });
            }
            found.warnings.retain(|warning| {
                let goes_on =
                    warning.dimension != dimension || findings.iter().any(|(kind, _)| *kind == warning.kind);
                if !goes_on {
                    tracing::info!(
                        origin = found.name,
                        dimension,
                        kind = warning.kind.name(),
                        rows = given.rows,
                        "no longer suspicious"
                    );
                }
                goes_on
            });
        }
        for kind in Kind::ALL {
            let count = found.warnings.iter().filter(|warning| warning.kind == kind).count();
            let labels = [("origin", found.name.clone()), ("kind", kind.name().into())];
            self.metrics.origin_warnings.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests;
