//! The one thread that publishes.
//!
//! Origins send what changed and wait for the answer, so there is never more than one update of an origin under way.
//! Updates that come within one publication interval are published together, at most once per interval. If that
//! fails, origins send their changes again and each is published alone, so that one that cannot be published does not
//! delay the others for long.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use bliss_core::build::Change;
use bliss_core::build::{ModelSet, PolicySet};
use bliss_core::key::KeySecret;
use bliss_core::publication::features::FeaturesRef;
use bliss_core::schema::Schema;
use bliss_store::{HeldFiles, Publication, PublishError, PublishOptions, Publisher};
use tokio::sync::oneshot;

use crate::expiry::{Expiry, Removed};
use crate::state::State;
use crate::worker_metrics::WorkerMetrics;

/// How often the daemon tells readers that it is alive.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Something to publish.
enum Command {
    Features { change: Change, done: oneshot::Sender<Result<(), String>> },
    Models { set: ModelSet, done: oneshot::Sender<Result<u64, String>> },
    Policies { set: PolicySet, done: oneshot::Sender<Result<u64, String>> },
}

/// Sends to the publishing thread. The thread ends when all of these are gone.
#[derive(Clone)]
pub struct PublishHandle(Sender<Command>);

/// The answer once the publishing thread has ended, as it does only when the daemon ends.
const GONE: &str = "the daemon is shutting down";

impl PublishHandle {
    /// Sends a change; the answer comes once it is published, or could not be.
    pub fn send(&self, change: Change) -> oneshot::Receiver<Result<(), String>> {
        let (done, answer) = oneshot::channel();
        // If it cannot be sent, `done` is dropped and the answer says so.
        let _ = self.0.send(Command::Features { change, done });
        answer
    }

    /// Publishes a change.
    ///
    /// # Errors
    /// Why it could not be published; what was published before stays.
    pub async fn publish(&self, change: Change) -> Result<(), String> {
        self.send(change).await.unwrap_or_else(|_| Err(GONE.into()))
    }

    /// Publishes models and returns their generation.
    ///
    /// # Errors
    /// Why they could not be published; what was published before stays.
    pub async fn publish_models(&self, set: ModelSet) -> Result<u64, String> {
        let (done, answer) = oneshot::channel();
        let _ = self.0.send(Command::Models { set, done });
        answer.await.unwrap_or_else(|_| Err(GONE.into()))
    }

    /// Publishes policies and returns their generation.
    ///
    /// # Errors
    /// Why they could not be published; what was published before stays.
    pub async fn publish_policies(&self, set: PolicySet) -> Result<u64, String> {
        let (done, answer) = oneshot::channel();
        let _ = self.0.send(Command::Policies { set, done });
        answer.await.unwrap_or_else(|_| Err(GONE.into()))
    }
}

/// What the thread publishes to; a [`Publisher`], or a test's own.
pub(crate) trait Store: Send {
    fn publish(&mut self, change: Change) -> Result<Publication, String>;
    fn publish_models(&mut self, set: &ModelSet) -> Result<u64, String>;
    fn publish_policies(&mut self, set: &PolicySet) -> Result<u64, String>;
    fn heartbeat(&mut self);
    /// Makes files again that somebody removed or replaced. Returns the generations of features, models and policies if it had
    /// to.
    fn keep_in_place(&mut self) -> Result<Option<[Option<u64>; 3]>, String> {
        Ok(None)
    }
    /// What is kept for readers that do not let go.
    fn held_files(&self) -> Vec<HeldFiles> {
        Vec::new()
    }
    /// The features published last, if their schema is the current one.
    fn current(&self) -> Option<FeaturesRef<'_>>;
}

impl Store for Publisher {
    fn publish(&mut self, change: Change) -> Result<Publication, String> {
        Publisher::publish(self, change).map_err(|error| error.to_string())
    }

    fn publish_models(&mut self, set: &ModelSet) -> Result<u64, String> {
        let publication = Publisher::publish_models(self, set).map_err(|error| error.to_string())?;
        Ok(publication.generation)
    }

    fn publish_policies(&mut self, set: &PolicySet) -> Result<u64, String> {
        let publication = Publisher::publish_policies(self, set).map_err(|error| error.to_string())?;
        Ok(publication.generation)
    }

    fn heartbeat(&mut self) {
        Publisher::heartbeat(self);
    }

    fn keep_in_place(&mut self) -> Result<Option<[Option<u64>; 3]>, String> {
        let mut kept = Publisher::keep_in_place(self);
        if kept.is_err() && !self.directory().exists() {
            make_directory(self.directory()).map_err(|error| error.to_string())?;
            kept = Publisher::keep_in_place(self);
        }
        match kept {
            Ok(made) => {
                let generations = [self.generation(), self.models_generation(), self.policies_generation()];
                Ok(made.then_some(generations))
            }
            Err(error) => Err(cannot_open(self.directory(), &error).to_string()),
        }
    }

    fn held_files(&self) -> Vec<HeldFiles> {
        Publisher::held_files(self).to_vec()
    }

    fn current(&self) -> Option<FeaturesRef<'_>> {
        // A previous daemon's schema may have had other dimensions.
        self.current_by_schema()
    }
}

/// Rows or prefixes of each dimension.
fn rows(current: Option<FeaturesRef<'_>>) -> Vec<u64> {
    let Some(current) = current else { return Vec::new() };
    let dimensions = current.schema().dimensions.len();
    (0..dimensions).map(|index| current.dimension(index).map_or(0, |rows| rows.rows())).collect()
}

/// A directory that this process publishes to.
pub struct Opened {
    publisher: Publisher,
    /// The secret of the keys there.
    pub secret: KeySecret,
}

#[cfg(test)]
impl Opened {
    pub(crate) fn into_publisher(self) -> Publisher {
        self.publisher
    }
}

/// Opens `directory` for publishing; creates it if its parent exists.
///
/// # Errors
/// It cannot be created or written, or another daemon publishes to it.
pub fn open(
    directory: &Path,
    options: &PublishOptions,
    schema: &Schema,
    state: &State,
) -> anyhow::Result<Opened> {
    let shown = directory.display();
    make_directory(directory)?;
    let publisher = Publisher::open(directory, options, schema.clone())
        .map_err(|error| cannot_open(directory, &error))?;
    if let Some(error) = publisher.found_damaged() {
        tracing::warn!("directory {shown}: what is published there is unusable and is replaced: {error}");
    }
    if let (Some(generation), Some(_)) = (publisher.generation(), publisher.current()) {
        // The rows of a new schema are unknown until the first publication.
        tracing::info!(generation, "continuing from the features published in {shown}");
        state.found_published(generation, &rows(publisher.current_by_schema()));
    }
    if let Some(generation) = publisher.models_generation() {
        state.found_models(generation);
    }
    if let Some(generation) = publisher.policies_generation() {
        state.found_policies(generation);
    }
    // After the publisher, whose lock keeps a second daemon out.
    let workers = &state.metrics.workers;
    workers.open(directory, options);
    workers.learn_dimensions(schema.dimensions.iter().map(|dimension| dimension.name.as_str()));
    learn_published(&publisher, workers);
    for error in publisher.unusable_readers() {
        tracing::warn!("made again, with the file as it was left to those who have it: {error}");
    }
    for corrected in publisher.corrected_permissions() {
        tracing::warn!("{corrected}, as publish.mode, publish.readers_mode and publish.group say");
    }
    let refused = publisher.refused_permissions().map(ToString::to_string);
    let refused = refused.chain(workers.refused_permissions()).collect();
    state.opened(refused, bliss_store::is_in_memory(directory));
    let secret = *publisher.secret();
    Ok(Opened { publisher, secret })
}

/// Creates the directory if its parent exists and it does not.
fn make_directory(directory: &Path) -> anyhow::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            let shown = directory.display();
            anyhow::bail!(
                "directory {shown}: cannot be created: {error}; create it and give it to the daemon's user (systemd does with \
                 `RuntimeDirectory=`), or correct `directory`"
            )
        }
        // Workers run as other users; the files' own modes say who may read them. The process's umask does not count.
        Ok(()) => Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?),
    }
}

/// Names of what a previous daemon published, by which workers count until this one publishes.
fn learn_published(publisher: &Publisher, workers: &WorkerMetrics) {
    if let Some(features) = publisher.current() {
        workers.learn_dimensions(features.schema().dimensions.iter().map(|dimension| &*dimension.name));
    }
    let Some(models) = publisher.current_models() else { return };
    let models = models.metadata();
    let model = |index: u32| {
        let found = models.models.get(usize::try_from(index).ok()?)?;
        Some((&*found.name, &*found.version))
    };
    for route in models.routes.iter() {
        let active = route.active.as_ref().and_then(|index| model(index.to_native()));
        let shadows = route.shadows.iter().filter_map(|index| model(index.to_native()));
        workers.learn_route(&route.name, active, shadows);
    }
}

fn cannot_open(directory: &Path, error: &PublishError) -> anyhow::Error {
    let shown = directory.display();
    match error {
        PublishError::Sync(mmap_sync::Error::Locked { .. }) => anyhow::anyhow!(
            "directory {shown}: another daemon publishes to it; stop that one, or give this one another `directory`: \
             {error}"
        ),
        _ => anyhow::anyhow!("directory {shown}: cannot publish to it: {error}"),
    }
}

/// Starts the publishing thread. The receiver resolves when it ends, which it does after the last handle is gone;
/// before that, only a panic can end it.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    opened: Opened,
    interval: Duration,
    expiry: Option<Expiry>,
    state: Arc<State>,
) -> std::io::Result<(PublishHandle, oneshot::Receiver<()>)> {
    start_with(opened.publisher, interval, expiry, state)
}

pub(crate) fn start_with(
    store: impl Store + 'static,
    interval: Duration,
    expiry: Option<Expiry>,
    state: Arc<State>,
) -> std::io::Result<(PublishHandle, oneshot::Receiver<()>)> {
    let (sender, receiver) = channel();
    let (ending, ended) = oneshot::channel();
    std::thread::Builder::new().name("publish".into()).spawn(move || {
        // Dropped at the end, by a panic too.
        let _ending: oneshot::Sender<()> = ending;
        PublishThread {
            store,
            interval,
            expiry,
            state,
            receiver,
            last_slot: None,
            alone: false,
            looked: None,
        }
        .run();
    })?;
    Ok((PublishHandle(sender), ended))
}

struct PublishThread<S> {
    store: S,
    interval: Duration,
    /// Removes expired rows, if configured.
    expiry: Option<Expiry>,
    state: Arc<State>,
    receiver: Receiver<Command>,
    /// The interval, counted from the epoch, in which the last publication was.
    last_slot: Option<u128>,
    /// Publish each update alone, since one of them may be what fails.
    alone: bool,
    /// When it was last looked whether the files are in place.
    looked: Option<Instant>,
}

type Waiting = (Change, oneshot::Sender<Result<(), String>>);

impl<S: Store> PublishThread<S> {
    fn run(mut self) {
        let mut waiting: Vec<Waiting> = Vec::new();
        loop {
            self.alive();
            match self.receiver.recv_timeout(HEARTBEAT) {
                Ok(command) => self.take(command, &mut waiting),
                Err(RecvTimeoutError::Timeout) => self.sweep(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while !waiting.is_empty() {
                match self.receiver.recv_timeout(self.wait()) {
                    Ok(command) => self.take(command, &mut waiting),
                    Err(_) if self.wait().is_zero() => {
                        // An origin that waits for its answer keeps its handle, so nothing is lost on disconnection.
                        self.publish(std::mem::take(&mut waiting));
                    }
                    Err(RecvTimeoutError::Timeout) => self.alive(),
                    // The daemon ends: what waits is abandoned, and its origins are gone.
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn alive(&mut self) {
        self.store.heartbeat();
        self.state.publisher_alive();
        self.state.metrics.held_files(&self.store.held_files());
        if self.looked.is_none_or(|at| at.elapsed() >= HEARTBEAT) {
            self.look();
        }
    }

    /// Makes files again that somebody removed or replaced, and reports it.
    fn look(&mut self) {
        let missing = self.state.missing_files();
        let (kept, counters) = (self.store.keep_in_place(), self.state.metrics.workers.keep_in_place());
        self.looked = Some(Instant::now());
        if let Ok(Some([features, models, policies])) = kept {
            if let Some(generation) = features.filter(|_| self.store.current().is_some()) {
                self.state.found_published(generation, &rows(self.store.current()));
            }
            if let Some(generation) = models {
                self.state.found_models(generation);
            }
            if let Some(generation) = policies {
                self.state.found_policies(generation);
            }
        }
        match kept {
            Ok(made) => {
                if made.is_some() || counters {
                    self.state.files_made_again(&missing);
                }
                self.state.files_in_place();
            }
            Err(error) => self.state.files_failed(&error),
        }
    }

    fn take(&mut self, command: Command, waiting: &mut Vec<Waiting>) {
        match command {
            Command::Features { change, done } => waiting.push((change, done)),
            Command::Models { set, done } => {
                // Before workers see them.
                self.state.metrics.workers.learn_models(&set);
                self.look();
                let published = self.store.publish_models(&set);
                if published.is_ok() {
                    self.state.metrics.drift.learn_models(&set);
                }
                let _ = done.send(published);
            }
            Command::Policies { set, done } => {
                self.look();
                let _ = done.send(self.store.publish_policies(&set));
            }
        }
    }

    fn slot(&self) -> u128 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() / self.interval.as_nanos().max(1)
    }

    /// Time until a publication is due: zero if this interval has had none, else until shortly after the next interval
    /// starts, so that it includes what access logs send at its start.
    fn wait(&self) -> Duration {
        if self.last_slot.is_none_or(|last| last < self.slot()) {
            return Duration::ZERO;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let interval = self.interval.as_nanos().max(1);
        let rest = interval - now.as_nanos() % interval;
        let rest = Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX));
        (rest + (self.interval / 10).min(Duration::from_millis(20))).min(HEARTBEAT)
    }

    fn publish(&mut self, waiting: Vec<Waiting>) {
        self.last_slot = Some(self.slot());
        if self.alone || waiting.len() == 1 {
            let mut failed = false;
            for (change, done) in waiting {
                let result = self.publish_one(change);
                failed |= result.is_err();
                let _ = done.send(result);
            }
            self.alone &= failed;
            return;
        }
        let (changes, done): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let dimensions = changes.into_iter().flat_map(|change: Change| change.dimensions).collect();
        let result = self.publish_one(Change { dimensions });
        self.alone = result.is_err();
        done.into_iter().for_each(|done: oneshot::Sender<_>| drop(done.send(result.clone())));
    }

    /// Removes expired rows if there is nothing else to publish.
    fn sweep(&mut self) {
        // Not twice in an interval.
        if self.last_slot.is_some_and(|last| last >= self.slot()) {
            return;
        }
        let Some(expiry) = self.expiry.as_mut().filter(|expiry| expiry.is_due()) else { return };
        let mut change = Change::default();
        let removed = expiry.apply(self.store.current(), &mut change);
        if !change.is_empty() {
            self.last_slot = Some(self.slot());
            // If it fails, `/status` says so, and the next round finds these rows again.
            let _ = self.publish_changed(change, Some(removed));
        }
    }

    fn publish_one(&mut self, mut change: Change) -> Result<(), String> {
        let removed = self.expiry.as_mut().map(|expiry| expiry.apply(self.store.current(), &mut change));
        self.publish_changed(change, removed)
    }

    fn publish_changed(&mut self, change: Change, removed: Option<Removed>) -> Result<(), String> {
        // A publication would make the files again too, but those of features only, and without a word.
        self.look();
        let began = Instant::now();
        match self.store.publish(change) {
            Ok(published) => {
                let rows = rows(self.store.current());
                let took = began.elapsed();
                if let (Some(expiry), Some(removed)) = (&self.expiry, &removed) {
                    expiry.count(removed, &self.state.metrics);
                }
                self.state.published(&published, &rows, took);
                Ok(())
            }
            Err(error) => {
                self.state.publish_failed(&error);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
