//! Publishing features and models.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bliss_core::attribute::Value;
use bliss_core::build::ModelSet;
use bliss_core::build::{BuildJob, Target};
use bliss_core::build::{
    Change, DimensionChange, FeaturesBuilder, FeaturesError, SpaceBudget, TableRelocation, apply_in_place,
    schema_id,
};
use bliss_core::key::{KeyBuilder, KeySecret, SECRET_BYTES};
use bliss_core::publication::features::FeaturesRef;
use bliss_core::publication::frame::FrameError;
use bliss_core::publication::models::{ModelsError, ModelsRef};
use bliss_core::schema::Schema;
use bliss_core::table::TableError;
use mmap_sync::{Edit, Options, Standby, Writer};

use crate::{FEATURES, MODELS};

/// How publications are made.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// How long a publication waits for readers that are still in the copy to be overwritten.
    pub grace: Duration,
    /// Permissions of the files that readers only read.
    pub mode: u32,
    /// Permissions of the file in which readers announce themselves.
    pub readers_mode: u32,
    /// Group of the files, by number; that of the process if none.
    pub group: Option<u32>,
    /// Address space that readers reserve for one copy, in bytes; the crate's default if none.
    pub max_size: Option<u64>,
    /// Threads that build tables; as many as there are cores if none.
    pub threads: Option<usize>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_millis(10),
            mode: 0o640,
            readers_mode: 0o660,
            group: None,
            max_size: None,
            threads: None,
        }
    }
}

impl PublishOptions {
    fn sync(&self, prefix: &Path) -> Options {
        let options = Options::new(prefix)
            .huge_pages(true)
            .grace(self.grace)
            .mode(self.mode)
            .readers_mode(self.readers_mode)
            .group(self.group);
        self.max_size.map_or(options.clone(), |bytes| options.max_size(bytes))
    }
}

/// A copy that takes too much is written anew where it gets smaller by more than one part in so many.
const WORTH_IT: u64 = 50;

/// How a publication of features was made, from cheapest to dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMethod {
    /// The change, and the one before it, were applied to the copy that was not current.
    InPlace,
    /// The same, and tables that had no room were laid out anew behind the others.
    Grown,
    /// The current copy was copied and the change applied to it.
    Copied,
    /// The tables were built anew, because the schema changed, a large table had to grow, a dimension was replaced, or the
    /// copy took more than 1.3 times the bytes of its rows.
    Built,
}

/// One published version of the features or of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its generation.
    pub generation: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether readers still held the standby copy after the grace period, so that a fresh file took its place.
    pub fresh_file: bool,
    /// How it was written; models are always [built](PublishMethod::Built).
    pub method: PublishMethod,
}

impl Publication {
    fn new(written: mmap_sync::Publication, method: PublishMethod) -> Self {
        let mmap_sync::Publication { generation, bytes, reset } = written;
        Self { generation, bytes, fresh_file: reset, method }
    }
}

/// Why something could not be published; what was published before stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The files.
    #[error(transparent)]
    Sync(#[from] mmap_sync::Error),
    /// The features.
    #[error(transparent)]
    Snapshot(#[from] FeaturesError),
    /// The models.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The operating system gave no random numbers for the secret of keys.
    #[error("no random numbers for the secret of keys: {0}")]
    Secret(getrandom::Error),
}

/// Publishes features and models to a directory. There is one at a time; the files lock a second one out.
pub struct Publisher {
    features: Writer,
    models: Writer,
    schema: Schema,
    /// By which schemas are compared: a default that is no number is not equal to itself.
    schema_id: u64,
    secret: KeySecret,
    threads: usize,
    /// What led to the current generation, to be made in the other copy as well.
    last: Option<(u64, Change)>,
    /// Length and needed bytes of a copy that takes much, but would be no smaller if it were written anew.
    no_smaller: Option<(u64, u64)>,
    damaged: Option<FrameError>,
}

impl core::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let generation = self.features.generation();
        f.debug_struct("Publisher").field("generation", &generation).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Opens `directory`, which must exist, and goes on from what is published there: rows of dimensions that `schema`
    /// still has are kept.
    ///
    /// # Errors
    /// Where the schema is wrong, another publisher has the directory, or its files cannot be made or used.
    pub fn open(directory: &Path, options: &PublishOptions, schema: Schema) -> Result<Self, PublishError> {
        schema.validate().map_err(FeaturesError::from)?;
        let features = options.sync(&directory.join(FEATURES)).open_writer()?;
        let models = options.sync(&directory.join(MODELS)).open_writer()?;
        let current = features.current().map(FeaturesRef::open);
        let damaged = current.and_then(Result::err);
        let secret = match current {
            Some(Ok(snapshot)) => snapshot.secret(),
            _ => {
                let mut secret = [0; SECRET_BYTES];
                getrandom::fill(&mut secret).map_err(PublishError::Secret)?;
                KeySecret(secret)
            }
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or_else(cores);
        let schema_id = schema_id(&schema)?;
        Ok(Self {
            features,
            models,
            schema,
            schema_id,
            secret,
            threads,
            last: None,
            no_smaller: None,
            damaged,
        })
    }

    /// Why the features found in the directory were not gone on from, if they were damaged or of another version.
    pub fn found_damaged(&self) -> Option<FrameError> {
        self.damaged
    }

    /// The schema of the next publication.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The secret under which keys are hashed.
    pub fn secret(&self) -> &KeySecret {
        &self.secret
    }

    /// The features published last.
    pub fn current(&self) -> Option<FeaturesRef<'_>> {
        self.features.current().and_then(|bytes| FeaturesRef::open(bytes).ok())
    }

    /// The features published last, if they are by the publisher's schema.
    pub fn current_by_schema(&self) -> Option<FeaturesRef<'_>> {
        self.current().filter(|current| current.schema_id() == self.schema_id)
    }

    /// The models published last.
    pub fn current_models(&self) -> Option<ModelsRef<'_>> {
        self.models.current().and_then(|bytes| ModelsRef::open(bytes).ok())
    }

    /// Generation of the features published last.
    pub fn generation(&self) -> Option<u64> {
        self.features.generation()
    }

    /// Generation of the models published last.
    pub fn models_generation(&self) -> Option<u64> {
        self.models.generation()
    }

    /// The key of a row of dimension `index` for attribute values in the order of its key; `None` where there is no such
    /// dimension, or a value does not fit its kind.
    pub fn key(&self, index: usize, values: &[Value<'_>]) -> Option<u64> {
        let builder = KeyBuilder::new(&self.schema, self.schema.dimensions.get(index)?)?;
        if values.len() != builder.parts() {
            return None;
        }
        builder.key(&self.secret, |part| values.get(part).copied()).ok()
    }

    /// Another schema, from the next publication on.
    ///
    /// # Errors
    /// Where it breaks a rule; the old one stays.
    pub fn set_schema(&mut self, schema: Schema) -> Result<(), PublishError> {
        schema.validate().map_err(FeaturesError::from)?;
        self.schema_id = schema_id(&schema)?;
        self.schema = schema;
        Ok(())
    }

    /// Publishes what `change` makes of the current features. A small change costs in proportion to its size, except
    /// where a table must grow.
    ///
    /// # Errors
    /// Where rows do not fit the schema or each other, or there is no space; the current features stay.
    pub fn publish(&mut self, change: Change) -> Result<Publication, PublishError> {
        let is_patch = change.is_patch() && self.current_by_schema().is_some();
        let patched = if is_patch { self.patch(&change)? } else { None };
        let publication = match patched {
            Some(publication) => publication,
            None => self.build(&change)?,
        };
        // What is dearer to apply again than to copy is not kept.
        let worth_keeping =
            publication.method != PublishMethod::Built && change.len() as u64 <= publication.bytes / 512;
        self.last = worth_keeping.then_some((publication.generation, change));
        Ok(publication)
    }

    /// Applies a change to the copy that is not current; `None` where all tables had better be written anew: because the
    /// change does not fit, or the copy would take too much.
    fn patch(&mut self, change: &Change) -> Result<Option<Publication>, PublishError> {
        let (Some(generation), threads) = (self.features.generation(), self.threads) else { return Ok(None) };
        change.check(self.schema.dimensions.len())?;
        let len = self.features.current().map_or(0, |bytes| bytes.len() as u64);
        let mut standby = self.features.standby(len)?;
        let last = self.last.take().filter(|(led_to, _)| *led_to == generation);
        let behind_by_one = standby.holds().is_some_and(|held| held + 1 == generation);
        let caught_up = match last {
            Some((_, last)) if behind_by_one => {
                standby.resize(standby.held_len())?;
                apply(&mut standby, &last, threads)?
            }
            _ => None,
        };
        let method = match caught_up {
            Some(method) => method,
            None => {
                standby.copy_current()?;
                PublishMethod::Copied
            }
        };
        let Some(changed) = apply(&mut standby, change, threads)? else { return Ok(None) };
        if takes_too_much(&mut standby, &self.schema, &self.secret, &mut self.no_smaller)? {
            return Ok(None);
        }
        let method = if method == PublishMethod::InPlace { changed } else { method };
        Ok(Some(Publication::new(standby.publish()?, method)))
    }

    /// Writes all tables anew.
    fn build(&mut self, change: &Change) -> Result<Publication, PublishError> {
        // Its size first, since the space is reserved before anything is written; then again from the standby copy's
        // view of the current one.
        let current = self.features.current().and_then(|bytes| FeaturesRef::open(bytes).ok());
        let bytes = FeaturesBuilder::plan(&self.schema, &self.secret, current, change)?.bytes();
        let mut standby = self.features.standby(bytes)?;
        {
            let (current, dest) = standby.current_and_bytes_mut();
            let current = current.and_then(|bytes| FeaturesRef::open(bytes).ok());
            let writing = FeaturesBuilder::plan(&self.schema, &self.secret, current, change)?;
            writing.write(dest, self.threads, run_in_threads)?;
        }
        Ok(Publication::new(standby.publish()?, PublishMethod::Built))
    }

    /// Publishes models in place of those published before.
    ///
    /// # Errors
    /// Where a model is damaged, a name is wrong, or there is no space; the current models stay.
    pub fn publish_models(&mut self, set: &ModelSet) -> Result<Publication, PublishError> {
        let bytes = set.pack()?;
        Ok(Publication::new(self.models.write_bytes(&bytes)?, PublishMethod::Built))
    }

    /// Tells readers that the publisher is alive; to be called about once a second.
    pub fn heartbeat(&self) {
        self.features.heartbeat();
        self.models.heartbeat();
    }
}

/// The standby copy, whose checksum is brought up to date with each change.
struct Editing<'a>(Edit<'a>);

impl Target for Editing<'_> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    #[inline]
    fn change(&mut self, range: Range<usize>, change: impl FnOnce(&mut [u8])) {
        self.0.change(range, change);
    }
}

/// Applies a patch, in place or with tables that grow; `None` where it does not fit, and the copy is then of no use as
/// it is.
fn apply(
    standby: &mut Standby<'_>,
    change: &Change,
    threads: usize,
) -> Result<Option<PublishMethod>, PublishError> {
    let mut method = PublishMethod::InPlace;
    for (index, change) in &change.dimensions {
        match apply_in_place(&mut Editing(standby.edit()), *index, change) {
            Ok(()) => {}
            Err(FeaturesError::Table {
                error: TableError::Full { .. } | TableError::Crowded { .. }, ..
            }) => {
                method = PublishMethod::Grown;
                if !grow(standby, *index, change, threads)? {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(method))
}

/// Whether a copy takes more than it may for its rows, as when many were deleted, and would be smaller if it were written
/// anew. `no_smaller` holds its length and what it must hold when it would not have been.
fn takes_too_much(
    standby: &mut Standby<'_>,
    schema: &Schema,
    secret: &KeySecret,
    no_smaller: &mut Option<(u64, u64)>,
) -> Result<bool, PublishError> {
    let edit = standby.edit();
    let snapshot = FeaturesRef::open(edit.bytes()).map_err(FeaturesError::from)?;
    let len = edit.bytes().len() as u64;
    let needed = SpaceBudget::by(snapshot);
    let is_known = no_smaller.is_some_and(|(of, held)| of == len && needed.bytes() >= held - held / WORTH_IT);
    if is_known || !needed.is_exceeded_by(len) {
        return Ok(false);
    }
    let unchanged = Change::default();
    let anew = FeaturesBuilder::plan(schema, secret, Some(snapshot), &unchanged)?.bytes();
    let is_worth_it = anew < len - len / WORTH_IT;
    *no_smaller = (!is_worth_it).then_some((len, needed.bytes()));
    Ok(is_worth_it)
}

/// Lays one table out anew, with the change made; false where that is not worth it.
fn grow(
    standby: &mut Standby<'_>,
    index: usize,
    change: &DimensionChange,
    threads: usize,
) -> Result<bool, PublishError> {
    let snapshot = FeaturesRef::open(standby.bytes()).map_err(FeaturesError::from)?;
    let Some(growth) = TableRelocation::plan(snapshot, index, change)? else { return Ok(false) };
    standby.resize(growth.bytes())?;
    growth.write(standby.bytes_mut(), change, threads, run_in_threads)?;
    standby.touch(growth.changes());
    Ok(true)
}

fn run_in_threads(jobs: Vec<BuildJob<'_>>) -> Result<u64, TableError> {
    if jobs.len() < 2 {
        return jobs.into_iter().map(BuildJob::run).sum();
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = jobs.into_iter().map(|job| scope.spawn(|| job.run())).collect();
        running.into_iter().map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    })
}
