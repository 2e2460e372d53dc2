//! Whether inputs and scores of models still are what they were: what workers count of sampled requests, compared with the
//! site's own past and with the distribution that the model carries from its training.
//!
//! | module | what it does |
//! |---|---|
//! | `counts` | from workers' slots to what was counted since the last look |
//! | `psi` | how far two distributions are from each other |
//! | `track` | one model: the last window, the past, alerts |
//! | `alert` | what is told, and what to do |
//! | `memory` | what is kept over a restart |
//! | `pages` | `/status` and metrics |
//!
//! Nothing here decides anything: workers score as before whatever is found, and `/readyz` does not change.

mod alert;
mod counts;
mod memory;
mod pages;
mod psi;
mod track;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bliss_catboost::ModelRef;
use bliss_core::build::ModelSet;
use bliss_core::metrics::drift::{PlanId, Planner};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Keep;
use crate::config::{Config, DriftOptions};
use crate::state::State;
use crate::worker_metrics::WorkerMetrics;
use alert::{Kind, advice};
use counts::{Rows, Slots};
use memory::Kept;
use psi::Counts;
use track::{Changes, Row, Track};

pub use pages::DriftStatus;

/// How often workers' counts are looked at, at least.
const LOOK: Duration = Duration::from_secs(10);
/// How often what is known is written down.
const SAVE: Duration = Duration::from_secs(300);
/// Inputs that a line of the log names; `/status` has all.
const NAMED: usize = 5;

/// What the daemon knows of the inputs and scores of the published models.
#[derive(Debug, Default)]
pub struct Drift {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    options: DriftOptions,
    sample_one_in: u32,
    /// Where what is known is kept; nowhere before [`Drift::configure`].
    file: Option<PathBuf>,
    plan: Option<PlanId>,
    models: Vec<Model>,
    slots: Slots,
    /// What is known of models that are not active, or not yet.
    kept: Kept,
}

/// A published model that is active on a route.
#[derive(Debug)]
struct Model {
    name: String,
    version: String,
    /// Of its name, version and rows.
    id: u64,
    rows: Rows,
    /// Inputs without room in workers' slots.
    not_counted: usize,
    /// None for a model that carries no distribution.
    track: Option<Track>,
}

impl Drift {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the options, and what a previous daemon wrote down: in the folder `keep`, which a reboot does not empty, if there
    /// is one. A file that cannot be used is said, and replaced later.
    pub fn configure(&self, config: &Config, keep: Option<&Keep>) {
        let mut inner = self.lock();
        inner.options = config.drift.clone();
        inner.sample_one_in = config.publish.sample_one_in;
        let folder = keep.map_or(config.directory.as_path(), Keep::directory);
        let file = config.drift.state.clone().unwrap_or_else(|| folder.join(memory::DEFAULT_NAME));
        match memory::read(&file) {
            Ok(kept) => inner.kept = kept,
            Err(error) => tracing::warn!(
                "{}: {error}; what was known of drift is lost, and learning starts over",
                file.display()
            ),
        }
        inner.file = Some(file);
    }

    /// Models that are published from now on. Those that stay, or come back, keep what is known of them.
    pub fn learn_models(&self, set: &ModelSet) {
        let mut inner = self.lock();
        let before = std::mem::take(&mut inner.models).into_iter();
        let mut before: Vec<_> = before.filter_map(|model| Some((model.id, model.track?.memory()))).collect();
        let mut planner = Planner::default();
        let mut models = Vec::new();
        for model in &set.models {
            let is_active =
                |route: &bliss_core::build::NamedRoute| route.active.as_ref() == Some(&model.name);
            if !set.routes.iter().any(is_active) {
                continue;
            }
            // What was published can be opened.
            let Ok(opened) = ModelRef::open(&model.compiled) else { continue };
            let distribution = opened.distribution();
            let mut alone = Planner::default();
            alone.add(&model.name, &model.version, distribution);
            let id = alone.finish().map_or(0, PlanId::get);
            let mut named = Model {
                name: model.name.clone(),
                version: model.version.clone(),
                id,
                rows: Rows { first: 0, count: 0 },
                not_counted: 0,
                track: None,
            };
            if !distribution.is_empty() {
                let (first, count) = planner.add(&model.name, &model.version, distribution);
                let names: Vec<_> = opened.inputs().map(|input| input.name.to_owned()).collect();
                let input = |index: usize| names.get(index).cloned().unwrap_or_default();
                let rows = distribution.iter().take(count).map(|row| Row::new(row.input().map(input), row));
                named.rows = Rows { first, count };
                named.not_counted = distribution.len() - count;
                let known = before.extract_if(.., |(known, _)| *known == id).next();
                let known = known.map(|(_, memory)| memory).or_else(|| inner.kept.take(id));
                named.track = Some(Track::new(rows.collect(), known));
            }
            models.push(named);
        }
        inner.models = models;
        inner.kept.put(before);
        let plan = planner.finish();
        if inner.plan != plan {
            inner.slots.forget();
        }
        inner.plan = plan;
    }

    /// Reads what workers have counted, at `now` since the epoch. What begins and what ends is in the log.
    pub fn look(&self, workers: &WorkerMetrics, now: Duration) {
        let mut inner = self.lock();
        let Inner { options, plan, models, slots, .. } = &mut *inner;
        let Some(plan) = *plan else { return };
        let rows: Vec<Rows> = models.iter().map(|model| model.rows).collect();
        let mut sums: Vec<_> = rows.iter().map(|rows| vec![Counts::default(); rows.count]).collect();
        workers.slots(|index, slot| slots.look(index, slot, plan, &rows, &mut sums));
        for (model, counts) in models.iter_mut().zip(sums) {
            let Some(track) = &mut model.track else { continue };
            let changes = track.take(now, &counts, options);
            model.log(&changes);
        }
    }

    /// Writes down what is known. A failure is in the log.
    pub fn save(&self) {
        let (file, known) = {
            let inner = self.lock();
            let Some(file) = inner.file.clone() else { return };
            let active = inner.models.iter();
            let active = active.filter_map(|model| Some((model.id, model.track.as_ref()?.memory())));
            (file, inner.kept.iter().cloned().chain(active).collect::<Vec<_>>())
        };
        if !known.is_empty()
            && let Err(error) = memory::write(&file, &known)
        {
            tracing::warn!("{}: {error}; after a restart, learning about drift starts over", file.display());
        }
    }
}

impl Model {
    /// One line for each kind of alert that began or ended, with the worst inputs first.
    fn log(&self, changes: &Changes) {
        let Some(track) = &self.track else { return };
        let (model, version) = (&self.name, &self.version);
        for kind in Kind::ALL {
            let mut began: Vec<_> = changes.began.iter().filter(|(found, _)| *found == kind).collect();
            let psi = |row: usize| track.alert(kind, row).map_or(0.0, |(_, alert)| alert.psi);
            began.sort_by(|(_, a), (_, b)| psi(*b).total_cmp(&psi(*a)));
            let words = began.iter().filter_map(|(_, row)| track.alert(kind, *row));
            let words: Vec<_> = words.take(NAMED).map(|(row, alert)| alert.words(kind, row)).collect();
            if let Some((_, (row, _))) = began.first().and_then(|(_, at)| Some((at, track.alert(kind, *at)?)))
            {
                let more = began.len().saturating_sub(NAMED);
                let more = if more > 0 { format!("; and {more} more, see /status") } else { String::new() };
                tracing::warn!(
                    model,
                    version,
                    drift = kind.name(),
                    "drift begins: {}{more}. What to do: {}",
                    words.join("; "),
                    advice(kind, row)
                );
            }
            let ended = changes.ended.iter().filter(|(found, _, _)| *found == kind);
            let ended: Vec<_> = ended.filter_map(|(_, row, _)| Some(track.rows.get(*row)?.name())).collect();
            if !ended.is_empty() {
                tracing::info!(model, version, drift = kind.name(), "drift is over: {}", ended.join(", "));
            }
        }
    }
}

/// Looks at what workers count until the daemon ends.
pub async fn run(config: Arc<Config>, state: Arc<State>, stop: CancellationToken) {
    let interval = (config.drift.window / 12).min(LOOK).max(Duration::from_millis(50));
    let mut saved = SystemTime::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(interval) => (),
        }
        let now = SystemTime::now();
        let is_due = now.duration_since(saved).is_ok_and(|age| age >= SAVE);
        let seen = state.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            seen.metrics.drift.look(&seen.metrics.workers, since);
            if is_due {
                seen.metrics.drift.save();
            }
        });
        if let Err(panic) = looked.await {
            tracing::error!("workers' counts of inputs could not be looked at: {panic}");
        }
        if is_due || now < saved {
            saved = now;
        }
    }
    let _ = tokio::task::spawn_blocking(move || state.metrics.drift.save()).await;
}

#[cfg(test)]
mod tests;
