//! Models: read, compiled and published, again when a file changes.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bliss_catboost::ir::Model;
use bliss_catboost::{
    BotError, BotOptions, CompileError, ImportError, ModelRef, Scratch, compile, compile_explainable, import,
};
use bliss_core::build::{ModelSet, NamedModel, NamedRoute};
use bliss_core::publication::models::MAX_CLASSES;
use bliss_core::schema::Schema;
use bliss_core::scorer::OPTIONAL_INPUTS;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::DEFAULT_MODEL;
use crate::config::{self, Config};
use crate::fingerprint::{Fingerprint, open_regular};
use crate::policy::gate::gate;
use crate::policy::trial::Side;
use crate::publish::PublishHandle;
use crate::refusal::{Reason, Refusal};
use crate::state::State;

/// How often the files are checked.
const INTERVAL: Duration = Duration::from_secs(2);
/// The largest file that is read.
pub(crate) const MAX_BYTES: u64 = 4 << 30;

/// A model's file as it was read last.
#[derive(Default)]
struct Known {
    seen: Option<Fingerprint>,
    /// The last good one.
    good: Option<Good>,
}

/// A good model, and the hash of the file that it came from.
struct Good {
    digest: u128,
    model: NamedModel,
}

/// Publishes the models of `config`, and again whenever one of their files changes, until the daemon ends.
///
/// A model whose file is bad keeps its last good version. Until every model has had one, nothing is published, so that
/// what a previous daemon published stays.
///
/// `in_force` has the configuration whose policies are in force. Models that would hold up too many clients with them, by its gate,
/// are refused, and those that were published stay until a file changes again.
pub async fn run(
    config: Arc<Config>,
    in_force: watch::Receiver<Arc<Config>>,
    state: Arc<State>,
    publisher: PublishHandle,
    stop: CancellationToken,
) {
    let mut known: Vec<Known> = config.models.iter().map(|_| Known::default()).collect();
    let mut unpublished = false;
    // What is compared with, where the gate asks for that; and whether the files are refused by it.
    let (mut published, mut is_held) = (None::<Arc<ModelSet>>, false);
    loop {
        for (index, model) in config.models.iter().enumerate() {
            let Known { seen, good } = &known[index];
            let (task, seen, digest) = (model.clone(), *seen, good.as_ref().map(|good| good.digest));
            let read = tokio::task::spawn_blocking(move || read(&task, seen, digest)).await;
            match read.unwrap_or_else(|panic| Err((Refusal::unavailable(format!("{panic}")), None))) {
                Ok(Read::Unchanged) => (),
                Ok(Read::Same(seen)) => {
                    if !is_held {
                        state.model_accepted(index);
                    }
                    known[index].seen = Some(seen);
                }
                Ok(Read::New(good, seen)) => {
                    state.model_accepted(index);
                    known[index] = Known { seen: Some(seen), good: Some(good) };
                    (unpublished, is_held) = (true, false);
                }
                Err((refusal, seen)) => {
                    state.model_refused(index, &refusal);
                    known[index].seen = seen;
                }
            }
        }
        let models: Vec<_> =
            known.iter().filter_map(|known| Some(known.good.as_ref()?.model.clone())).collect();
        if unpublished && models.len() == known.len() {
            let set = Arc::new(ModelSet { models, routes: routes(&config) });
            if let Some(before) = published.clone() {
                let (config, was, now) = (in_force.borrow().clone(), before.clone(), set.clone());
                let compared = tokio::task::spawn_blocking(move || {
                    let side = |models| Side { config: &config, models: Some(models) };
                    gate(side(&now), side(&before))
                });
                let compared = compared
                    .await
                    .unwrap_or_else(|panic| Err(Refusal::unavailable(format!("policy_gate: {panic}"))));
                if let Err(refusal) = compared {
                    let changed = |(was, is): (&NamedModel, &NamedModel)| {
                        was.compiled.as_slice() != is.compiled.as_slice()
                    };
                    let pairs = was.models.iter().zip(&set.models);
                    for (index, _) in pairs.enumerate().filter(|(_, pair)| changed(*pair)) {
                        state.model_refused(index, &refusal);
                    }
                    (unpublished, is_held) = (false, true);
                    continue;
                }
            }
            let kept = (in_force.borrow().gate.hours > 0).then(|| set.clone());
            let set = Arc::try_unwrap(set).unwrap_or_else(|shared| ModelSet::clone(&shared));
            match publisher.publish_models(set).await {
                Ok(generation) => {
                    unpublished = false;
                    published = kept;
                    state.models_published(generation);
                }
                Err(_) if stop.is_cancelled() => return,
                Err(error) => state.publish_failed(&format!("models: {error}")),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => (),
        }
    }
}

/// Name of the model that comes with BLISS, where no other is configured.
const DEFAULT_NAME: &str = "default";

/// Whether the features that the model that comes with BLISS takes are there.
pub(crate) fn default_fits(schema: &Schema) -> bool {
    let Ok(prepared) = prepare(DEFAULT_MODEL, &BotOptions::default(), false) else { return false };
    let Ok(model) = ModelRef::open(&prepared.compiled) else { return false };
    model.inputs().all(|input| match input.name.split_once('.') {
        _ if OPTIONAL_INPUTS.contains(&input.name) => true,
        Some(("request", _)) => true,
        _ => schema.feature(input.name).is_some(),
    })
}

/// Publishes the model that comes with BLISS for every route.
pub async fn publish_default(state: Arc<State>, publisher: PublishHandle, stop: CancellationToken) {
    let prepared = match prepare(DEFAULT_MODEL, &BotOptions::default(), true) {
        Ok(prepared) => prepared,
        Err(error) => return state.publish_failed(&format!("the default model: {error}")),
    };
    let model = prepared.named(DEFAULT_NAME, env!("CARGO_PKG_VERSION"));
    let set = ModelSet::of_one(model);
    loop {
        match publisher.publish_models(set.clone()).await {
            Ok(generation) => {
                tracing::info!("no [[model]] is configured: the model that comes with BLISS answers");
                state.models_published(generation);
                return stop.cancelled().await;
            }
            Err(_) if stop.is_cancelled() => return,
            Err(error) => state.publish_failed(&format!("models: {error}")),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => (),
        }
    }
}

/// The routes as they are published.
pub(crate) fn routes(config: &Config) -> Vec<NamedRoute> {
    let named = |route: &config::Route| NamedRoute {
        name: route.name.clone(),
        active: Some(route.active.clone()),
        shadows: route.shadow.clone(),
    };
    config.routes.iter().map(named).collect()
}

/// The result of checking a model's file.
enum Read {
    /// It has not changed.
    Unchanged,
    /// It was rewritten with the content of the last good one.
    Same(Fingerprint),
    /// It is another model.
    New(Good, Fingerprint),
}

fn read(
    model: &config::Model,
    seen: Option<Fingerprint>,
    digest: Option<u128>,
) -> Result<Read, (Refusal, Option<Fingerprint>)> {
    let name = format!("model `{}`, {}", model.name, model.path.display());
    let unavailable = |error: std::io::Error| (Refusal::unavailable(format!("{name}: {error}")), None);
    let (mut file, fingerprint) = open_regular(&model.path).map_err(unavailable)?;
    if fingerprint.is_still(seen.as_ref()) {
        return Ok(Read::Unchanged);
    }
    if fingerprint.bytes() > MAX_BYTES {
        let message = format!("{name}: {} bytes, expected {MAX_BYTES} at most", fingerprint.bytes());
        return Err((Refusal::new(Reason::TooLarge, message), Some(fingerprint)));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unavailable)?;
    let found = xxhash_rust::xxh3::xxh3_128(&bytes);
    if digest == Some(found) {
        return Ok(Read::Same(fingerprint));
    }
    let prepared = prepare(&bytes, &model.bot, model.explain).map_err(|error| {
        (Refusal::new(Reason::Undecodable, format!("{name}: {error}")), Some(fingerprint))
    })?;
    if model.explain && !prepared.is_explainable() {
        tracing::warn!("{name}: {NOT_EXPLAINABLE}");
    }
    let model = prepared.named(&model.name, &model.version);
    Ok(Read::New(Good { digest: found, model }, fingerprint))
}

/// Said of a model whose scores are to be explained and cannot be.
pub(crate) const NOT_EXPLAINABLE: &str = "its file does not hold the weights of its leaves, so that it gives scores but they \
     cannot be explained; save it with CatBoost's save_model as it was trained, or set explain = false";

/// A model that is ready to be published.
#[derive(Debug)]
pub struct Prepared {
    /// As it was read.
    pub model: Model,
    /// The class of bots.
    pub bot_class: u32,
    /// The form that is evaluated.
    pub compiled: rkyv::util::AlignedVec<64>,
}

impl Prepared {
    /// Whether it was compiled with the weights of its leaves.
    pub fn is_explainable(&self) -> bool {
        ModelRef::open(&self.compiled).is_ok_and(|opened| opened.is_explainable())
    }

    /// The model as it is published.
    pub fn named(self, name: &str, version: &str) -> NamedModel {
        let Self { bot_class, compiled, .. } = self;
        NamedModel { name: name.to_owned(), version: version.to_owned(), bot_class, compiled }
    }
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The bytes are no model that is supported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Its answers are no probabilities of a bot, or nothing says of which class.
    #[error(transparent)]
    Bot(#[from] BotError),
    /// It is too large to compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It would be refused by workers, with all models that are published beside it.
    #[error("it has {found} {what}, which is more than a worker takes; train a smaller one")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
    },
}

/// Prepares a model for publication from the bytes of its file. The daemon, `check`, the demo and `blissctl model` all
/// read models by this. With `explain` it is compiled with the weights of its leaves, if its file has them: without, it
/// scores all the same.
///
/// # Errors
/// [`PrepareError`] says what is wrong with the file, or what must be said about it.
pub fn prepare(file: &[u8], bot: &BotOptions, explain: bool) -> Result<Prepared, PrepareError> {
    let mut model = import(file)?;
    let bot_class = model.select_bot(bot)?;
    let compiled = match explain.then(|| compile_explainable(&model)) {
        None | Some(Err(CompileError::LeafWeights(_))) => compile(&model)?,
        Some(compiled) => compiled?,
    };
    if model.dimensions > MAX_CLASSES {
        return Err(PrepareError::TooLarge { what: "classes", found: model.dimensions });
    }
    // What was compiled just now can be opened.
    let fits = ModelRef::open(&compiled).is_ok_and(|opened| Scratch::bounded().reserve_within(&opened));
    if !fits {
        return Err(PrepareError::TooLarge {
            what: "trees, or inputs or borders for them",
            found: model.trees.len(),
        });
    }
    Ok(Prepared { model, bot_class, compiled })
}

#[cfg(test)]
mod tests;
