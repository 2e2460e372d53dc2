//! The writer of a directory: publishes features, models and policies.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bliss_core::attribute::Value;
use bliss_core::build::{
    BuildJob, Change, DimensionChange, FeaturesBuilder, FeaturesError, ModelSet, PoliciesError, PolicySet,
    SpaceBudget, TableRelocation, Target, apply_in_place, schema_id,
};
use bliss_core::key::{KeyBuilder, KeySecret, SECRET_BYTES};
use bliss_core::publication::features::FeaturesRef;
use bliss_core::publication::frame::FrameError;
use bliss_core::publication::models::{DEFAULT_SAMPLE_ONE_IN, ModelsError, ModelsRef};
use bliss_core::publication::policies::PoliciesRef;
use bliss_core::schema::Schema;
use bliss_core::table::TableError;
use mmap_sync::{Edit, Holding, Options, Standby, Writer};

use crate::{FEATURES, METRICS, MODELS, POLICY};

/// Options of a [`Publisher`].
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// How long a publication waits for readers that still use the copy to be overwritten; then it takes a fresh file.
    pub grace: Duration,
    /// Permissions of the files that readers only read.
    pub mode: u32,
    /// Permissions of the file in which readers announce themselves.
    pub readers_mode: u32,
    /// Group id of the files, those that are there already among them. If `None`, that of the directory if it hands its
    /// group on (set-group-ID), else files keep theirs, and new ones get the group of those that are there.
    pub group: Option<u32>,
    /// Bytes of address space that readers reserve for one copy; mmap-sync's default if `None`.
    pub max_size: Option<u64>,
    /// Threads that build tables; one per core if `None`.
    pub threads: Option<usize>,
    /// Of how many scored requests workers count the inputs of one; 0: of none.
    pub sample_one_in: u32,
    /// The secret that keys are hashed with where nothing is published yet; a new one if `None`.
    pub secret: Option<KeySecret>,
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
            sample_one_in: DEFAULT_SAMPLE_ONE_IN,
            secret: None,
        }
    }
}

impl PublishOptions {
    fn sync(&self, prefix: &Path) -> Options {
        let options = Options::new(prefix)
            .private_directory(true)
            .survive_truncation(true)
            .huge_pages(true)
            .grace(self.grace)
            .mode(self.mode)
            .readers_mode(self.readers_mode)
            .group(self.group);
        self.max_size.map_or(options.clone(), |bytes| options.max_size(bytes))
    }
}

/// A copy that is too large is rebuilt if that saves more than one part in this many.
const MIN_SAVING: u64 = 50;

/// Whether `directory` is on a file system that keeps its files in memory, such as a tmpfs. Elsewhere readers wait for a
/// disk. `None` if it cannot be asked.
pub fn is_in_memory(directory: &Path) -> Option<bool> {
    std::fs::File::open(directory).ok().map(bliss_os::file::is_in_memory)
}

/// Checks that nobody but root and this user could put other files in the place of those that this user publishes in
/// `directory`: it is no link, belongs to this user or root, and nobody else may write in it or replace a directory above it.
/// [`Publisher::open`] and every reader do it too. Nothing is wrong with a directory that does not exist.
///
/// # Errors
/// [`mmap_sync::Error::Directory`] names the directory and what is wrong with it.
pub fn check_directory(directory: &Path) -> Result<(), mmap_sync::Error> {
    Options::new(directory.join(FEATURES)).private_directory(true).check_directory()
}

/// Names of files that are missing in `directory`, where features, models and policies of these generations are published; `None`:
/// nothing of the kind was published yet. Only looks for the names: [`Publisher::keep_in_place`] also finds files that were
/// replaced, and makes them again.
pub fn missing_files(directory: &Path, generations: [Option<u64>; 3]) -> Vec<String> {
    let of = |prefix: &str, generation: Option<u64>| {
        let data = generation.map(|generation| format!("{prefix}_data_{}", generation & 1));
        let others = ["state", "readers", "lock"].map(|name| format!("{prefix}_{name}"));
        others.into_iter().chain(data)
    };
    let published = [FEATURES, MODELS, POLICY].into_iter().zip(generations);
    let names = published.flat_map(|(prefix, generation)| of(prefix, generation)).chain([METRICS.to_owned()]);
    names.filter(|name| directory.join(name).symlink_metadata().is_err()).collect()
}

/// How a publication was written, from cheapest to dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMethod {
    /// The last two changes were applied to the standby copy.
    InPlace,
    /// The same, and tables that had no room were moved behind the others.
    Grown,
    /// The current copy was copied, and the change applied to it.
    Copied,
    /// All tables were rebuilt: the schema changed, a large table had to grow, a dimension was replaced, or the copy was
    /// larger than 1.3 times its rows.
    Built,
}

/// One published version of the features, the models or the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its generation.
    pub generation: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether readers still held the standby copy after the grace period, so that a fresh file took its place.
    pub fresh_file: bool,
    /// How it was written; models and policies are always [built](PublishMethod::Built).
    pub method: PublishMethod,
}

impl Publication {
    fn new(written: mmap_sync::Publication, method: PublishMethod) -> Self {
        let mmap_sync::Publication { generation, bytes, reset } = written;
        Self { generation, bytes, fresh_file: reset, method }
    }
}

/// Files of older publications that are kept because readers hold them. There are limits to that (64 files, and four times
/// the size of what is published, but at least 256 MiB), beyond which publications fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFiles {
    /// `features`, `models` or `policy`.
    pub publication: &'static str,
    /// How many files.
    pub files: usize,
    /// Bytes that they occupy.
    pub bytes: u64,
    /// Who holds the oldest one.
    pub holder: Option<Holding>,
}

/// Why a publication failed. The previous one stays current.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The files cannot be made, locked or written.
    #[error(transparent)]
    Sync(#[from] mmap_sync::Error),
    /// The schema, or rows that do not fit it.
    #[error(transparent)]
    Features(#[from] FeaturesError),
    /// The models or their routes.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The policies, their routes or exceptions.
    #[error(transparent)]
    Policies(#[from] PoliciesError),
    /// The operating system has no random numbers for the key secret.
    #[error("no random numbers for the key secret: {0}")]
    Secret(getrandom::Error),
}

/// Publishes features, models and policies to a directory. A lock on its files ensures that there is one at a time.
///
/// # Examples
/// ```
/// use bliss_core::build::{Change, DimensionChange, ModelSet, Rows};
/// use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
/// use bliss_store::{PublishMethod, PublishOptions, Publisher};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let ip = Dimension {
///     name: "ip".into(),
///     key: vec![KeyPart::whole("ip")],
///     max_age_seconds: 600,
///     on_stale: Default::default(),
///     features: vec![Feature::number("requests_1m")],
/// };
/// let schema = Schema { dimensions: vec![ip], ..Schema::default() };
/// let mut publisher = Publisher::open(directory, &PublishOptions::default(), schema)?;
///
/// // The first publication writes everything, later ones what changed.
/// let first = publisher.publish(Change::default())?;
/// assert_eq!((first.generation, first.method), (1, PublishMethod::Built));
/// let mut upserts = Rows::new(1);
/// upserts.push(publisher.key(0, &["192.0.2.1".into()]).ok_or("not an address")?, 1_000, &[42.0]);
/// let patch = DimensionChange::Patch { upserts, deletes: vec![] };
/// let second = publisher.publish(Change { dimensions: vec![(0, patch)] })?;
/// assert_eq!(second.generation, 2);
///
/// assert_eq!(publisher.publish_models(&ModelSet::default())?.generation, 1);
/// # Ok(())
/// # }
/// ```
pub struct Publisher {
    directory: PathBuf,
    features: Writer,
    models: Writer,
    policies: Writer,
    schema: Schema,
    /// Compared in place of schemas: a default that is NaN does not equal itself.
    schema_id: u64,
    secret: KeySecret,
    threads: usize,
    sample_one_in: u32,
    /// The current generation and the change that led to it, which the other copy still lacks.
    last_change: Option<(u64, Change)>,
    /// Length and needed bytes of a large copy that a rebuild would not make smaller.
    irreducible: Option<(u64, u64)>,
    damaged: Option<FrameError>,
}

impl core::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let generation = self.features.generation();
        f.debug_struct("Publisher").field("generation", &generation).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Opens `directory`, which must exist, and continues from the features published there: dimensions that `schema`
    /// still has keep their rows.
    ///
    /// # Errors
    /// The schema is invalid, another publisher has the directory open, or its files cannot be made or used.
    pub fn open(directory: &Path, options: &PublishOptions, schema: Schema) -> Result<Self, PublishError> {
        schema.validate().map_err(FeaturesError::from)?;
        let features = options.sync(&directory.join(FEATURES)).open_writer()?;
        let models = options.sync(&directory.join(MODELS)).open_writer()?;
        let policies = options.sync(&directory.join(POLICY)).open_writer()?;
        let current = features.current().map(FeaturesRef::open);
        let damaged = current.and_then(Result::err);
        let secret = match (current, options.secret) {
            (Some(Ok(features)), _) => features.secret(),
            (_, Some(secret)) => secret,
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
            directory: directory.to_owned(),
            features,
            models,
            policies,
            schema,
            schema_id,
            secret,
            threads,
            sample_one_in: options.sample_one_in,
            last_change: None,
            irreducible: None,
            damaged,
        })
    }

    /// Why the features found in the directory are not used, if they are damaged or of another version.
    pub fn found_damaged(&self) -> Option<FrameError> {
        self.damaged
    }

    /// The schema of the next publication.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The secret that keys are hashed with.
    pub fn secret(&self) -> &KeySecret {
        &self.secret
    }

    /// The features published last.
    pub fn current(&self) -> Option<FeaturesRef<'_>> {
        self.features.current().and_then(|bytes| FeaturesRef::open(bytes).ok())
    }

    /// The features published last, if their schema is the publisher's.
    pub fn current_by_schema(&self) -> Option<FeaturesRef<'_>> {
        self.current().filter(|current| current.schema_id() == self.schema_id)
    }

    /// The models published last.
    pub fn current_models(&self) -> Option<ModelsRef<'_>> {
        self.models.current().and_then(|bytes| ModelsRef::open(bytes).ok())
    }

    /// The policies published last.
    pub fn current_policies(&self) -> Option<PoliciesRef<'_>> {
        self.policies.current().and_then(|bytes| PoliciesRef::open(bytes).ok())
    }

    /// Generation of the features published last.
    pub fn generation(&self) -> Option<u64> {
        self.features.generation()
    }

    /// Generation of the models published last.
    pub fn models_generation(&self) -> Option<u64> {
        self.models.generation()
    }

    /// Generation of the policies published last.
    pub fn policies_generation(&self) -> Option<u64> {
        self.policies.generation()
    }

    /// The key of a row of dimension `index`, from the values of its key parts in order; `None` if there is no such
    /// dimension, or a value does not fit its part.
    pub fn key(&self, index: usize, values: &[Value<'_>]) -> Option<u64> {
        let builder = KeyBuilder::new(&self.schema, self.schema.dimensions.get(index)?)?;
        if values.len() != builder.parts() {
            return None;
        }
        builder.key(&self.secret, |part| values.get(part).copied()).ok()
    }

    /// Sets the schema of the next publication.
    ///
    /// # Errors
    /// The schema is invalid; the old one stays.
    pub fn set_schema(&mut self, schema: Schema) -> Result<(), PublishError> {
        schema.validate().map_err(FeaturesError::from)?;
        self.schema_id = schema_id(&schema)?;
        self.schema = schema;
        Ok(())
    }

    /// Applies `change` to the current features and publishes the result. The cost of a small change is proportional to
    /// its size, unless a table must grow.
    ///
    /// # Errors
    /// Rows do not fit the schema, or there is no space; the current features stay.
    pub fn publish(&mut self, change: Change) -> Result<Publication, PublishError> {
        let is_patch = change.is_patch() && self.current_by_schema().is_some();
        let patched = if is_patch { self.patch(&change)? } else { None };
        let publication = match patched {
            Some(publication) => publication,
            None => self.build(&change)?,
        };
        // Beyond this size, copying the current copy is cheaper than applying the change again.
        let is_cheap_to_repeat =
            publication.method != PublishMethod::Built && change.len() as u64 <= publication.bytes / 512;
        self.last_change = is_cheap_to_repeat.then_some((publication.generation, change));
        Ok(publication)
    }

    /// Applies `change` to the standby copy and publishes it; `None` if all tables must be rebuilt because the change does
    /// not fit or the copy would be too large.
    fn patch(&mut self, change: &Change) -> Result<Option<Publication>, PublishError> {
        let (Some(generation), threads) = (self.features.generation(), self.threads) else { return Ok(None) };
        change.check(&self.schema)?;
        let len = self.features.current().map_or(0, |bytes| bytes.len() as u64);
        let mut standby = self.features.standby(len)?;
        let last = self.last_change.take().filter(|(made, _)| *made == generation);
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
        if is_rebuild_due(&mut standby, &self.schema, &self.secret, &mut self.irreducible)? {
            return Ok(None);
        }
        let method = if method == PublishMethod::InPlace { changed } else { method };
        Ok(Some(Publication::new(standby.publish()?, method)))
    }

    /// Rebuilds all tables and publishes them.
    fn build(&mut self, change: &Change) -> Result<Publication, PublishError> {
        // Planned twice: for the size, since space is reserved before anything is written, and for the writing, from the
        // standby copy's view of the current one.
        let current = self.features.current().and_then(|bytes| FeaturesRef::open(bytes).ok());
        let bytes = FeaturesBuilder::plan(&self.schema, &self.secret, current, change)?.bytes();
        let mut standby = self.features.standby(bytes)?;
        {
            let (current, dest) = standby.current_and_bytes_mut();
            let current = current.and_then(|bytes| FeaturesRef::open(bytes).ok());
            let builder = FeaturesBuilder::plan(&self.schema, &self.secret, current, change)?;
            builder.write(dest, self.threads, run_in_threads)?;
        }
        Ok(Publication::new(standby.publish()?, PublishMethod::Built))
    }

    /// Publishes models, which replace those published before.
    ///
    /// # Errors
    /// A model is damaged, a name is invalid, or there is no space; the current models stay.
    pub fn publish_models(&mut self, set: &ModelSet) -> Result<Publication, PublishError> {
        let bytes = set.pack_sampled(self.sample_one_in)?;
        Ok(Publication::new(self.models.write_bytes(&bytes)?, PublishMethod::Built))
    }

    /// Publishes policies, their routes and exceptions, and the switch that puts them out of force: they replace those published
    /// before. The next request in every worker is decided by them.
    ///
    /// # Errors
    /// A policy or an exception is wrong, a name is unknown, or there is no space; the current policies stay.
    pub fn publish_policies(&mut self, set: &PolicySet) -> Result<Publication, PublishError> {
        let bytes = set.pack()?;
        Ok(Publication::new(self.policies.write_bytes(&bytes)?, PublishMethod::Built))
    }

    /// Makes the files again if somebody removed or replaced them, and publishes there what was published last. Returns
    /// whether there was anything to do. Call it about once a second.
    ///
    /// Readers of the removed files find the new ones by themselves. `counters` is not among them:
    /// [`MetricsFile::keep_in_place`](crate::MetricsFile::keep_in_place).
    ///
    /// # Errors
    /// The directory is gone, another publisher has taken over, or there is no space. What was published stays here, and
    /// with the readers that have it, so a later call may succeed.
    pub fn keep_in_place(&mut self) -> Result<bool, PublishError> {
        // All, even if one fails.
        let kept = self.writers_mut().map(Writer::keep_in_place);
        kept.into_iter().try_fold(false, |made, kept| Ok(made | kept?))
    }

    /// The directory that it publishes to.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Files found at the opening that could not be given the group or mode of the options; each error names the file and
    /// what to do. They are used as they are.
    pub fn refused_permissions(&self) -> impl Iterator<Item = &mmap_sync::Error> {
        self.writers().into_iter().flat_map(|writer| writer.refused_permissions())
    }

    /// Files found at the opening that were given the group or mode of the options.
    pub fn corrected_permissions(&self) -> impl Iterator<Item = &mmap_sync::Corrected> {
        self.writers().into_iter().flat_map(|writer| writer.corrected_permissions())
    }

    /// Why files in which readers announce themselves (`*_readers`), found damaged at the opening, were made again.
    pub fn unusable_readers(&self) -> impl Iterator<Item = &mmap_sync::Error> {
        self.writers().into_iter().filter_map(|writer| writer.unusable_readers())
    }

    /// What is kept for readers that do not let go of older publications.
    pub fn held_files(&self) -> [HeldFiles; 3] {
        let of = |publication, writer: &Writer| HeldFiles {
            publication,
            files: writer.retired_files(),
            bytes: writer.retired_bytes(),
            holder: writer.holder(),
        };
        [of(FEATURES, &self.features), of(MODELS, &self.models), of(POLICY, &self.policies)]
    }

    /// Tells readers that the publisher is alive. Call it about once a second.
    pub fn heartbeat(&self) {
        self.writers().into_iter().for_each(Writer::heartbeat);
    }

    fn writers(&self) -> [&Writer; 3] {
        [&self.features, &self.models, &self.policies]
    }

    fn writers_mut(&mut self) -> [&mut Writer; 3] {
        [&mut self.features, &mut self.models, &mut self.policies]
    }
}

/// The standby copy; every change updates its checksum.
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

/// Applies a patch in place, growing tables where it must; `None` if it does not fit, which leaves the copy half changed.
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

/// Whether a copy is too large for its rows, as after many deletes, and a rebuild would make it smaller. If it would not,
/// `irreducible` remembers the copy's length and needed bytes.
fn is_rebuild_due(
    standby: &mut Standby<'_>,
    schema: &Schema,
    secret: &KeySecret,
    irreducible: &mut Option<(u64, u64)>,
) -> Result<bool, PublishError> {
    let edit = standby.edit();
    let features = FeaturesRef::open(edit.bytes()).map_err(FeaturesError::from)?;
    let len = edit.bytes().len() as u64;
    let needed = SpaceBudget::by(features);
    let is_known =
        irreducible.is_some_and(|(of, held)| of == len && needed.bytes() >= held - held / MIN_SAVING);
    if is_known || !needed.is_exceeded_by(len) {
        return Ok(false);
    }
    let unchanged = Change::default();
    let rebuilt = FeaturesBuilder::plan(schema, secret, Some(features), &unchanged)?.bytes();
    let is_smaller = rebuilt < len - len / MIN_SAVING;
    *irreducible = (!is_smaller).then_some((len, needed.bytes()));
    Ok(is_smaller)
}

/// Moves one table behind the others, larger and with the change applied; false if a rebuild is cheaper.
fn grow(
    standby: &mut Standby<'_>,
    index: usize,
    change: &DimensionChange,
    threads: usize,
) -> Result<bool, PublishError> {
    let features = FeaturesRef::open(standby.bytes()).map_err(FeaturesError::from)?;
    let Some(relocation) = TableRelocation::plan(features, index, change)? else { return Ok(false) };
    standby.resize(relocation.bytes())?;
    relocation.write(standby.bytes_mut(), change, threads, run_in_threads)?;
    standby.touch(relocation.changes());
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
