//! What workers count in shared memory, for `/metrics`.
//!
//! Workers count by hashes of names. This module knows the names: those of the configuration, of what a previous daemon
//! published, and of all that this one has published since. Counts of an unknown hash, or of workers without room for an
//! entry, have the label `other`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bliss_core::build::ModelSet;
use bliss_core::metrics::{self, Cells, Kind, MAX_CELLS, Series, SeriesId, Slot};
use bliss_store::{MetricsFile, PublishOptions};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::refusal::without_values;

/// The metrics file, and the names of its hashes.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The directory and how its files are created; none before [`WorkerMetrics::open`].
    location: Option<(PathBuf, PublishOptions)>,
    file: Option<MetricsFile>,
    /// Why the file cannot be opened, as it was logged.
    failure: Option<String>,
    names: BTreeMap<SeriesId, Vec<String>>,
}

/// Label names by kind, in the order of the values.
fn label_names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Lookups => &["dimension"],
        Kind::Unscored => &["route"],
        Kind::Scores | Kind::Shadow => &["route", "model", "version"],
    }
}

type Labels = Vec<(&'static str, String)>;
type Totals = BTreeMap<(Kind, Vec<String>), Cells>;

impl WorkerMetrics {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the file in `directory`, or continues with the one that is there. A failure is logged, and tried again
    /// whenever metrics are read; workers then score without being counted.
    pub fn open(&self, directory: &Path, options: &PublishOptions) {
        let mut inner = self.lock();
        inner.location = Some((directory.to_owned(), options.clone()));
        inner.open();
    }

    /// Makes the file again if somebody removed or replaced it; counts then start at 0. Returns whether it was made.
    pub fn keep_in_place(&self) -> bool {
        let mut inner = self.lock();
        match inner.file.as_mut().map(MetricsFile::keep_in_place) {
            Some(Ok(made)) => made,
            Some(Err(error)) => {
                inner.failed(error.to_string());
                false
            }
            None => {
                inner.open();
                inner.file.is_some()
            }
        }
    }

    /// Why nothing is counted.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Why the file that was found could not be given the configured group or mode.
    pub fn refused_permissions(&self) -> Option<String> {
        Some(self.lock().file.as_ref()?.refused_permissions()?.to_string())
    }

    /// Calls `each` with the number and a copy of every slot that was ever used; with none where the file cannot be read.
    pub fn slots(&self, each: impl FnMut(u32, Slot<'_>)) {
        let mut inner = self.lock();
        let read = inner.file.as_mut().map(|file| file.numbered_slots(each));
        if let Some(Err(error)) = read {
            inner.failed(error.to_string());
        }
    }

    /// Dimensions that are published from now on.
    pub fn learn_dimensions<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut inner = self.lock();
        inner.names.extend(names.map(|name| (SeriesId::lookups(name), vec![name.to_owned()])));
    }

    /// A route that is published from now on: its active model and its shadows, each with its version.
    pub fn learn_route<'a>(
        &self,
        route: &str,
        active: Option<(&'a str, &'a str)>,
        shadows: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut inner = self.lock();
        let labels = |(model, version): (&str, &str)| vec![route.into(), model.into(), version.into()];
        inner.names.insert(SeriesId::unscored(route), vec![route.into()]);
        inner.names.extend(active.map(|model| (SeriesId::scores(route, model.0, model.1), labels(model))));
        inner.names.extend(shadows.map(|model| (SeriesId::shadow(route, model.0, model.1), labels(model))));
    }

    /// Models that are published from now on.
    pub fn learn_models(&self, set: &ModelSet) {
        let version = |name: &String| {
            let found = set.models.iter().find(|model| model.name == *name)?;
            Some((found.name.as_str(), found.version.as_str()))
        };
        for route in &set.routes {
            let active = route.active.as_ref().and_then(version);
            self.learn_route(&route.name, active, route.shadows.iter().filter_map(version));
        }
    }
}

impl Inner {
    fn open(&mut self) {
        let Some((directory, options)) = &self.location else { return };
        match MetricsFile::open(directory, options) {
            Ok(file) => (self.file, self.failure) = (Some(file), None),
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn failed(&mut self, error: String) {
        self.file = None;
        let before = self.failure.replace(error.clone());
        if before.is_none_or(|before| without_values(&before) != without_values(&error)) {
            tracing::warn!("{error}; workers score without being counted");
        }
    }

    /// The sum over all workers, including dead ones.
    fn totals(&mut self) -> Totals {
        if self.file.is_none() {
            self.open();
        }
        let mut totals = Totals::new();
        let Some(file) = &mut self.file else { return totals };
        let names = &self.names;
        let summed = file.slots(|slot| {
            for (series, cells) in slot.entries() {
                let other = |kind: Kind| (kind, vec!["other".to_owned(); label_names(kind).len()]);
                let key = match series {
                    Series::Of(id) => match (id.kind(), names.get(&id)) {
                        (Some(kind), Some(labels)) => (kind, labels.clone()),
                        (Some(kind), None) => other(kind),
                        (None, _) => continue,
                    },
                    Series::Other(kind) => other(kind),
                    Series::NoRoute => (Kind::Unscored, vec![String::new()]),
                };
                let total = totals.entry(key).or_insert([0; MAX_CELLS]);
                // Sums of differences are in two's complement.
                total.iter_mut().zip(cells).for_each(|(sum, count)| *sum = sum.wrapping_add(count));
            }
        });
        if let Err(error) = summed {
            self.failed(error.to_string());
        }
        totals
    }
}

/// The bands of a shadow's differences.
fn difference_bands() -> impl Iterator<Item = String> {
    let mut first = -98;
    metrics::DIFFERENCE_BANDS.into_iter().map(move |last| {
        let band = if first == last { format!("{last}") } else { format!("{first}..{last}") };
        first = last + 1;
        band
    })
}

impl Collector for WorkerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.lock().totals();
        let of = |kind: Kind| {
            let of_kind = totals.iter().filter(move |((found, _), _)| *found == kind);
            of_kind.map(move |((_, values), cells)| {
                let labels: Labels = label_names(kind).iter().copied().zip(values.iter().cloned()).collect();
                (labels, cells)
            })
        };
        counter(
            &mut encoder,
            "lookups",
            "Lookups by workers, by how the dimension answered.",
            of(Kind::Lookups).flat_map(|(labels, cells)| {
                metrics::lookups(cells)
                    .map(|(status, count)| (with(&labels, "status", status.as_str()), count))
            }),
        )?;
        counter(
            &mut encoder,
            "unscored",
            "Requests without a score, by reason; the route is empty where none was found.",
            of(Kind::Unscored).flat_map(|(labels, cells)| {
                metrics::unscored(cells)
                    .map(move |(reason, count)| (with(&labels, "reason", reason.as_str()), count))
            }),
        )?;
        let mut scores =
            encoder.encode_descriptor("scores", "Scores that workers gave.", None, MetricType::Histogram)?;
        for (labels, cells) in of(Kind::Scores) {
            let (bands, sum) = metrics::scores(cells);
            let mut buckets: Vec<_> = bands.map(|(last, count)| (f64::from(last), count)).collect();
            buckets.push((f64::INFINITY, 0));
            let count = buckets.iter().fold(0_u64, |sum, (_, count)| sum.wrapping_add(*count));
            scores
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum as f64, count, &buckets, None)?;
        }
        counter(
            &mut encoder,
            "shadow_differences",
            "Requests by how much a shadow model's score is above the active one's.",
            of(Kind::Shadow).flat_map(|(labels, cells)| {
                let bands = difference_bands().zip(metrics::differences(cells).0);
                bands.map(move |(band, (_, count))| (with(&labels, "band", &band), count))
            }),
        )?;
        let help = "Sum of the differences of shadow and active score; divided by their number, the mean.";
        let mut sums = encoder.encode_descriptor("shadow_difference_sum", help, None, MetricType::Gauge)?;
        for (labels, cells) in of(Kind::Shadow) {
            sums.encode_family(&labels)?.encode_gauge(&metrics::differences(cells).1)?;
        }
        counter(
            &mut encoder,
            "shadow_unscored",
            "Requests to which a shadow model gave no score, by reason.",
            of(Kind::Shadow).flat_map(|(labels, cells)| {
                metrics::shadow_unscored(cells)
                    .map(move |(reason, count)| (with(&labels, "reason", reason.as_str()), count))
            }),
        )
    }
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in series {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}
