//! The part `drift` of `/status`, and metrics.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde::Serialize;

use super::alert::{Kind, advice};
use super::track::Knowledge;
use super::{Drift, Model};

/// Inputs of a model that have metrics: the most important ones, and those with an alert.
const SHOWN: usize = 20;

/// What is known of a model's inputs and scores.
#[derive(Clone, Debug, Serialize)]
pub struct DriftStatus {
    model: String,
    version: String,
    /// How far what is known goes; `not_told` where nothing can be told.
    state: &'static str,
    message: String,
    /// Counted requests of the last window.
    requests: u64,
    /// Inputs without room in workers' slots.
    not_counted: usize,
    alerts: Vec<AlertStatus>,
    /// Scores, then the most important inputs and those with an alert.
    inputs: Vec<InputStatus>,
}

#[derive(Clone, Debug, Serialize)]
struct AlertStatus {
    kind: Kind,
    input: String,
    since: Timestamp,
    message: String,
    advice: String,
}

#[derive(Clone, Debug, Serialize)]
struct InputStatus {
    input: String,
    psi_past: Option<f64>,
    limit: Option<f64>,
    psi_training: Option<f64>,
    missing_share: f64,
}

/// Indices are for people: three digits behind the point.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

impl Drift {
    /// For `/status`.
    pub fn status(&self) -> Vec<DriftStatus> {
        let inner = self.lock();
        let status = |model: &Model| {
            let (state, message) = match (&model.track, inner.sample_one_in) {
                (_, 0) => ("not_told", "drift.sample_one_in is 0: workers count no inputs".into()),
                (None, _) => (
                    "not_told",
                    "the model carries no distribution of its training; train it again with this version of `blissctl train`".into(),
                ),
                (Some(track), _) => match track.knowledge() {
                    Knowledge::TooFewRequests => {
                        let least = inner.options.min_requests;
                        let found = track.requests();
                        let message = format!(
                            "{found} requests were counted in the last {}, expected {least}; where traffic is low, \
                             drift.sample_one_in = 1 and a longer drift.window help",
                            humantime_serde::re::humantime::format_duration(inner.options.window)
                        );
                        ("too_few_requests", message)
                    }
                    Knowledge::Learning => (
                        "learning",
                        "changes are told once all hours of a day (UTC) are in the past; compared with training only until then".into(),
                    ),
                    Knowledge::Watching => ("watching", String::new()),
                },
            };
            let track = model.track.as_ref();
            let alerts = track.into_iter().flat_map(|track| track.alerts());
            let alerts: Vec<_> = alerts
                .map(|(kind, row, alert)| AlertStatus {
                    kind,
                    input: row.input.clone().unwrap_or_else(|| "score".into()),
                    since: alert.since(),
                    message: alert.words(kind, row),
                    advice: advice(kind, row),
                })
                .collect();
            DriftStatus {
                model: model.name.clone(),
                version: model.version.clone(),
                state,
                message,
                requests: track.map_or(0, |track| track.requests()),
                not_counted: model.not_counted,
                alerts,
                inputs: shown(model),
            }
        };
        inner.models.iter().map(status).collect()
    }
}

/// Scores, the most important inputs, and those with an alert.
fn shown(model: &Model) -> Vec<InputStatus> {
    let Some(track) = &model.track else { return Vec::new() };
    let alerts: Vec<_> = track.alerts().map(|(_, row, _)| row.name().to_owned()).collect();
    let rows = track
        .judged()
        .enumerate()
        .filter(|(at, (row, _))| *at <= SHOWN || alerts.iter().any(|name| name == row.name()));
    rows.map(|(_, (row, judged))| InputStatus {
        input: row.input.clone().unwrap_or_else(|| "score".into()),
        psi_past: judged.past.map(|(psi, _)| rounded(psi)),
        limit: judged.past.map(|(_, limit)| rounded(limit)),
        psi_training: judged.training.map(rounded),
        missing_share: rounded(judged.missing),
    })
    .collect()
}

impl Collector for Drift {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = self.lock();
        let labels = |model: &Model| vec![("model", model.name.clone()), ("version", model.version.clone())];
        let with = |model: &Model, name: &'static str, value: &str| {
            let mut labels = labels(model);
            labels.push((name, value.to_owned()));
            labels
        };
        let tracked = || inner.models.iter().filter_map(|model| Some((model, model.track.as_ref()?)));

        let help = "Counted requests of the last window, of which drift is told";
        let mut requests =
            encoder.encode_descriptor("model_drift_requests", help, None, MetricType::Gauge)?;
        for (model, track) in tracked() {
            let count = i64::try_from(track.requests()).unwrap_or(i64::MAX);
            requests.encode_family(&labels(model))?.encode_gauge(&count)?;
        }
        let help = "Inputs, scores among them, that are not what they were, by kind: lost, changed, missing, constant, other_traffic";
        let mut alerts = encoder.encode_descriptor("model_drift", help, None, MetricType::Gauge)?;
        for (model, track) in tracked() {
            for kind in Kind::ALL {
                let count = track.alerts().filter(|(found, _, _)| *found == kind).count();
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                alerts.encode_family(&with(model, "kind", kind.name()))?.encode_gauge(&count)?;
            }
        }
        let rows: Vec<_> =
            tracked().flat_map(|(model, _)| shown(model).into_iter().map(move |row| (model, row))).collect();
        let against = |row: &InputStatus| [("past", row.psi_past), ("training", row.psi_training)];
        let help = "How far an input is from the site's own past, or from training (population stability index); the most \
                    important inputs and those with an alert";
        let mut psi = encoder.encode_descriptor("model_input_psi", help, None, MetricType::Gauge)?;
        for (model, row) in rows.iter().filter(|(_, row)| row.input != "score") {
            for (against, value) in against(row) {
                let Some(value) = value else { continue };
                let mut labels = with(model, "input", &row.input);
                labels.push(("against", against.to_owned()));
                psi.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        let help =
            "How far scores are from the site's own past, or from training (population stability index)";
        let mut psi = encoder.encode_descriptor("model_score_psi", help, None, MetricType::Gauge)?;
        for (model, row) in rows.iter().filter(|(_, row)| row.input == "score") {
            for (against, value) in against(row) {
                let Some(value) = value else { continue };
                psi.encode_family(&with(model, "against", against))?.encode_gauge(&value)?;
            }
        }
        let help = "Looks at a worker's slot that told nothing, since its counts do not fit together; now and then when models change or a worker is slow, more says that something else writes there";
        let mut implausible =
            encoder.encode_descriptor("drift_implausible", help, None, MetricType::Counter)?;
        implausible.encode_counter::<NoLabelSet, _, u64>(&inner.slots.implausible, None)
    }
}
