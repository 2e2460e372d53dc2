//! What is told of an input that is not what it was.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::track::Row;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Another distribution than in the site's own past.
    Changed,
    /// NaN where the site's own past had values.
    Lost,
    /// NaN where training had values.
    Missing,
    /// Always the same, where training had several values.
    Constant,
    /// Most inputs are far from training.
    OtherTraffic,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Lost, Self::Changed, Self::Missing, Self::Constant, Self::OtherTraffic];

    /// As in labels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Lost => "lost",
            Self::Missing => "missing",
            Self::Constant => "constant",
            Self::OtherTraffic => "other_traffic",
        }
    }
}

/// An alert: what was, what is, since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Alert {
    /// Since the epoch.
    pub(super) since: Duration,
    /// The bin that the shares are of: the one that rose most.
    pub(super) bin: usize,
    /// The share of requests in it, before or in training, and now.
    pub(super) was: f64,
    pub(super) is: f64,
    pub(super) psi: f64,
    pub(super) limit: f64,
}

impl Alert {
    /// The time that it began.
    pub(super) fn since(&self) -> Timestamp {
        let millis = i64::try_from(self.since.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    }

    /// Which input, was, is, since when.
    pub(super) fn words(&self, kind: Kind, row: &Row) -> String {
        let Self { was, is, psi, limit, .. } = self;
        let (name, bin) = (row.name(), row.bin(self.bin));
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let since = self.since().strftime("%Y-%m-%dT%H:%M:%SZ");
        match kind {
            Kind::Changed => format!(
                "{name} is {bin} in {} of requests, and was in {} in the past (PSI {psi:.2}, limit {limit:.2}; since {since})",
                percent(*is),
                percent(*was)
            ),
            Kind::Lost => format!(
                "{name} is missing (NaN) in {} of requests, and was in {} in the past (since {since})",
                percent(*is),
                percent(*was)
            ),
            Kind::Missing => format!(
                "{name} is missing (NaN) in {} of requests, and was in {} of those in training (since {since})",
                percent(*is),
                percent(*was)
            ),
            Kind::Constant => format!(
                "{name} is {bin} in {} of requests, and was in {} of those in training (since {since})",
                percent(*is),
                percent(*was)
            ),
            Kind::OtherTraffic => format!(
                "{} of the inputs are far from training (PSI {limit:.1} or more); that of scores is {psi:.2} (since {since})",
                percent(*is)
            ),
        }
    }
}

/// What to do, by the source of the input.
pub(super) fn advice(kind: Kind, row: &Row) -> String {
    let source = match (kind, row.input.as_deref().and_then(|name| name.split_once('.'))) {
        (Kind::OtherTraffic, _) => {
            return "the model was trained on other traffic than this site's: train it on the site's own log with `blissctl train`"
                .into();
        }
        (_, Some(("request", _))) => {
            "look at what the web server hands over of requests (its configuration, headers that a proxy drops)".into()
        }
        (_, Some((dimension, _))) => format!(
            "look at the origin that fills dimension {dimension} in /status (the log's format, lookups that are missing or stale)"
        ),
        (_, None) => "look at bliss_scores and at the inputs".into(),
    };
    format!("{source}; if the site's traffic has changed for good, `blissctl train --refresh`")
}

#[cfg(test)]
mod tests {
    use bliss_catboost::DistributionRow;

    use super::*;

    #[test]
    fn d7_an_alert_says_which_input_was_is_since_when_and_what_to_do() {
        let alert = Alert {
            since: Duration::from_millis(1_700_000_000_123),
            bin: 0,
            was: 0.25,
            is: 0.75,
            psi: 1.5,
            limit: 0.5,
        };
        for kind in Kind::ALL {
            for (input, advised) in
                [(Some("ip.x"), "dimension ip "), (Some("request.y"), "web server"), (None, "bliss_scores")]
            {
                let row = Row::new(input.map(str::to_owned), &DistributionRow::default());
                let words = alert.words(kind, &row);
                assert!(words.contains("75 %") && words.contains("since 2023-11-14T22:13:20Z"), "{words}");
                if kind == Kind::OtherTraffic {
                    assert!(
                        words.contains("inputs") && words.contains("1.50") && words.contains("0.5"),
                        "{words}"
                    );
                    assert!(advice(kind, &row).contains("blissctl train"));
                } else {
                    assert!(words.starts_with(row.name()) && words.contains("25 %"), "{words}");
                    let advice = advice(kind, &row);
                    assert!(
                        advice.contains(advised) && advice.contains("blissctl train --refresh"),
                        "{advice}"
                    );
                }
            }
        }
    }
}
