//! The publishing side.
//!
//! A [`Writer`] holds `P_lock`, the state, and the two copies mapped for writing. [`Writer::standby`] gives the copy
//! that is not current, once nobody pins what it holds, or a fresh file in its place; [`Standby::publish`] switches.
//!
//! # Orderings
//!
//! Those of [`crate::protocol`]: everything that is stored into the copy and its first page comes before the release
//! store of the generation. Stores to other fields of the state are relaxed: they are clocks and hints.

mod adopt;
mod data_file;
mod permissions;
mod slots;
mod standby;
mod typed;

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bliss_os::{
    clock,
    file::{self, FileInfo},
    fork::{self, PrivateFd},
    map::Map,
};

use crate::error::{Error, FileKind, Holding};
use crate::layout::{DataFields, HISTORY, InstanceVersion, MAX_BYTES, PAGE, State};
use crate::options::Options;
use crate::paths::Paths;
use crate::primitive::Ordering;
use crate::protocol::MAX_GENERATION;
use crate::reader_slot::ReadersMap;
use crate::scan::Holder;

use data_file::DataFile;
pub use permissions::Corrected;
use slots::Barrier;
pub use standby::{Edit, Standby};
pub use typed::{Serializer, Sink};

/// A file that was moved away by itself, not removed, is noticed by a publication so long after the last look at it.
const LOOK_NS: u64 = 100_000_000;

/// So many bytes may always be kept for readers that do not let go.
const MIN_RETIRED: u64 = 256 << 20;

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The generation that is current now.
    pub generation: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the standby copy was still pinned after the grace period, so that a fresh file took its place.
    pub reset: bool,
}

/// The one writer of a prefix. Can be sent to another thread, not shared.
///
/// After a fork it belongs to the parent; in the child every method fails with [`Error::Forked`].
pub struct Writer {
    options: Options,
    paths: Paths,
    token: u64,
    state: Map,
    state_fd: OwnedFd,
    state_info: FileInfo,
    generation: u64,
    copies: [Option<DataFile>; 2],
    /// Takes the place of the standby copy at the next publication.
    fresh: Option<DataFile>,
    retired: RefCell<Vec<Retired>>,
    readers: ReadersMap,
    /// Through which slots that readers added are mapped: it carries no lock.
    readers_fd: OwnedFd,
    /// Through which locks of readers are tried.
    readers_lock: PrivateFd,
    readers_info: FileInfo,
    /// When the paths were last looked at.
    looked_ns: u64,
    /// When the standby copy was asked for, before which the lock was found in place.
    begun_ns: u64,
    barrier: Cell<Barrier>,
    boot_id: [u64; 2],
    threads: usize,
    /// Why files that were there keep the group or mode that they had.
    refused_permissions: Vec<Error>,
    corrected_permissions: Vec<Corrected>,
    unusable_readers: Option<Error>,
    /// Held as long as the writer lives.
    lock: Arc<PrivateFd>,
}

/// A copy that was pinned when a fresh file took its name.
struct Retired {
    generation: u64,
    fd: OwnedFd,
    path: CString,
}

impl Options {
    /// Opens the writer: takes `P_lock`, makes the files that are missing, and goes on from what was published last.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if there is another writer; [`Error::Io`], [`Error::NoSpace`]; and if files of this prefix
    /// exist that are not usable (but for `P_readers` beside a good `P_state`, which is made again): [`Error::Foreign`], [`Error::Layout`], [`Error::Corrupt`], [`Error::NotRegular`],
    /// [`Error::Owner`]; [`Error::Directory`] if others could replace the files ([`Options::check_directory`]).
    pub fn open_writer(&self) -> Result<Writer, Error> {
        adopt::open(self)
    }
}

impl Writer {
    /// The last published generation; `None` before the first publication.
    pub fn generation(&self) -> Option<u64> {
        (self.generation != 0).then_some(self.generation)
    }

    /// The bytes of the last publication. `None` if there is none, or if it was lost (see [`Options::verify`]).
    pub fn current(&self) -> Option<&[u8]> {
        self.check_process().ok()?;
        self.current_copy()?.payload()
    }

    fn current_copy(&self) -> Option<&DataFile> {
        let [zero, one] = &self.copies;
        let copy = if self.generation & 1 == 0 { zero } else { one };
        copy.as_ref().filter(|copy| self.generation != 0 && copy.holds == Some(self.generation))
    }

    /// The copy that is not current, with room for `bytes` bytes.
    ///
    /// If it is still pinned, waits for the grace period of the options, and then takes a fresh file.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Io`]; what is published stays as it is.
    pub fn standby(&mut self, bytes: u64) -> Result<Standby<'_>, Error> {
        let grace = self.options.grace;
        self.standby_within(bytes, grace)
    }

    /// Like [`standby`](Self::standby), with another grace period.
    ///
    /// # Errors
    ///
    /// As [`standby`](Self::standby).
    pub fn standby_within(&mut self, bytes: u64, grace: Duration) -> Result<Standby<'_>, Error> {
        self.check_process()?;
        if bytes > MAX_BYTES {
            return Err(Error::TooLarge { bytes, limit: MAX_BYTES });
        }
        let looked = !self.seems_in_place();
        if looked {
            self.keep_in_place()?;
        }
        self.prepare(bytes, grace, looked)
    }

    /// The same once the files are in place; `looked`: all names were compared just now.
    fn prepare(&mut self, bytes: u64, grace: Duration, looked: bool) -> Result<Standby<'_>, Error> {
        self.begun_ns = clock::monotonic_ns();
        self.heartbeat();
        if self.generation >= MAX_GENERATION {
            let (what, expected, found) = ("the generation", MAX_GENERATION - 1, self.generation);
            return Err(Error::Corrupt { path: self.paths.path_of(FileKind::State), what, expected, found });
        }
        self.fresh = None;
        let next = self.generation + 1;
        let index = usize::from(next & 1 == 1);
        let vacant = self.copies.get(index).and_then(Option::as_ref).is_some_and(|copy| copy.vacant);
        let holder = if vacant { None } else { self.holder_after(next.saturating_sub(2), grace) };
        let pinned = holder.is_some();
        let name = self.paths.data(next);
        let usable = !pinned
            && self
                .copies
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|copy| !copy.foreign_readers && copy.has_name(name, looked));
        if usable {
            if let Some(Some(copy)) = self.copies.get_mut(index) {
                copy.make_room(bytes, &self.paths, &self.options)?;
            }
        } else {
            // It gets a name, which had better not be another writer's.
            if !looked && self.keep_in_place()? {
                return self.standby_within(bytes, grace);
            }
            if let Some(holder) = holder {
                self.check_retired(next, holder)?;
            }
            self.fresh = Some(DataFile::create(next & 1, bytes, &self.paths, &self.options)?);
        }
        Standby::begin(self, bytes, pinned)
    }

    /// Publishes these bytes.
    ///
    /// # Errors
    ///
    /// As [`standby`](Self::standby).
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<Publication, Error> {
        let mut standby = self.standby(bytes.len() as u64)?;
        standby.fill(bytes);
        standby.publish()
    }

    /// Gives a sign of life, and gives memory back that readers have let go of. To be called once a second: readers
    /// that hear nothing for three seconds look whether the files were replaced.
    pub fn heartbeat(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.state().heartbeat_ns.store(clock::monotonic_ns(), Ordering::Relaxed);
        // Another writer may have come if the lock file was removed: then this is for that one to do.
        if !self.slots_are_lost() && !self.retired.borrow().is_empty() && self.has_lock() {
            self.reclaim();
        }
    }

    /// Makes the files again if somebody removed or replaced them, and publishes the last bytes there. Says whether it
    /// had to. [`standby`](Self::standby) does it too; call this now and then if publications are rare.
    ///
    /// # Errors
    ///
    /// As [`Options::open_writer`]: the directory may be missing, or another writer may have taken over. What was
    /// published stays with the readers that have it.
    pub fn keep_in_place(&mut self) -> Result<bool, Error> {
        self.check_process()?;
        let is_ours = |path, mine: &FileInfo| file::lstat(path).is_ok_and(|info| info.same_file(mine));
        if is_ours(&self.paths.state, &self.state_info)
            && is_ours(&self.paths.readers, &self.readers_info)
            && self.has_lock()
            && !self.slots_are_lost()
        {
            self.looked_ns = clock::monotonic_ns();
            return self.keep_current_in_place();
        }
        // If that fails, the next publication looks again.
        self.looked_ns = 0;
        adopt::reopen(self)?;
        Ok(true)
    }

    /// Publishes the last bytes again if the file that holds them has lost its name: who comes now would not find them.
    fn keep_current_in_place(&mut self) -> Result<bool, Error> {
        let name = self.paths.data(self.generation);
        let Some(lost) = self.current_copy().filter(|copy| !copy.has_name(name, true)) else {
            return Ok(false);
        };
        let bytes = lost.bytes;
        // They go to the other name as the next generation, so that readers come over too.
        let grace = self.options.grace;
        let mut standby = self.prepare(bytes, grace, true)?;
        standby.copy_current()?;
        standby.publish()?;
        Ok(true)
    }

    /// Files found at the opening that should have another group or mode by the options and could not be given it; each
    /// error names the file.
    pub fn refused_permissions(&self) -> &[Error] {
        &self.refused_permissions
    }

    /// Files found at the opening that were given the group or mode of the options.
    pub fn corrected_permissions(&self) -> &[Corrected] {
        &self.corrected_permissions
    }

    /// Whether the lock file is in place, the others have names, and all paths were looked at not long ago: to look at
    /// them costs more than all the rest of a small publication.
    fn seems_in_place(&self) -> bool {
        let has_name = |fd| file::fstat(fd).is_ok_and(|info| info.links > 0);
        clock::monotonic_ns().saturating_sub(self.looked_ns) < LOOK_NS
            && has_name(&self.state_fd)
            && self.has_lock()
            && self.readers_lock.info().is_ok_and(|info| info.links > 0)
            && !self.slots_are_lost()
    }

    /// Files that are kept for guards beside the two copies.
    pub fn retired_files(&self) -> usize {
        self.retired.borrow().len()
    }

    /// Bytes that these files occupy.
    pub fn retired_bytes(&self) -> u64 {
        self.retired.borrow().iter().map(|retired| occupied(&retired.fd)).sum()
    }

    /// Who holds the oldest of these files. Looks at all reader slots.
    pub fn holder(&self) -> Option<Holding> {
        self.check_process().ok()?;
        let oldest = self.retired.borrow().iter().map(|retired| retired.generation).min()?;
        if self.slots_are_lost() {
            return None;
        }
        let held = self.held(&[oldest]).first().copied().flatten();
        held.map(|holder| self.holding(holder))
    }

    /// Why the `P_readers` that was found at the opening, beside a good `P_state`, was made again.
    pub fn unusable_readers(&self) -> Option<&Error> {
        self.unusable_readers.as_ref()
    }

    /// Says that this prefix will not be written any more, because another one took its place.
    pub fn supersede(self) {
        if self.check_process().is_ok() {
            self.state().superseded.store(1, Ordering::Relaxed);
        }
    }

    /// Whether the lock file is still the one that is locked.
    fn has_lock(&self) -> bool {
        let Ok(named) = file::lstat(&self.paths.lock) else { return false };
        self.lock.info().is_ok_and(|mine| mine.same_file(&named))
    }

    /// Whether another lock file is in its place, so that there may be another writer.
    fn lock_is_replaced(&self) -> bool {
        let mine = self.lock.info();
        file::lstat(&self.paths.lock).is_ok_and(|named| !mine.is_ok_and(|mine| mine.same_file(&named)))
    }

    fn check_process(&self) -> Result<(), Error> {
        if fork::token() == self.token { Ok(()) } else { Err(Error::Forked) }
    }

    fn state(&self) -> &State {
        // SAFETY:
        // - the mapping is one page long and page-aligned (`map_state`).
        // - the state consists of atomics, for which any bytes are a value.
        unsafe { self.state.start().cast::<State>().as_ref() }
    }

    /// The number of the `P_readers` whose pins this writer sees.
    fn readers_id(&self) -> u64 {
        self.state().readers_id.load(Ordering::Relaxed)
    }

    /// Through what a living reader holds `generation` at the end of the grace period.
    fn holder_after(&self, generation: u64, grace: Duration) -> Option<Holder> {
        if generation == 0 {
            return None;
        }
        let start = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            let held = self.held(&[generation]).first().copied().flatten();
            let left = grace.saturating_sub(start.elapsed());
            if held.is_none() || left.is_zero() {
                return held;
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// Whether one more copy, which is held, may be put aside for generation `next`.
    fn check_retired(&self, next: u64, holder: Holder) -> Result<(), Error> {
        let files = self.retired_files();
        let copy = self.copies.get(usize::from(next & 1 == 1)).and_then(Option::as_ref);
        let bytes = self.retired_bytes().saturating_add(copy.map_or(0, |copy| occupied(copy.fd())));
        let (max_files, set) = (self.options.max_retired_files, self.options.max_retired_bytes);
        let current = self.current_copy().map_or(0, |copy| copy.bytes);
        let max_bytes = set.unwrap_or(MIN_RETIRED.max(current.saturating_mul(4)));
        if files < max_files && bytes <= max_bytes {
            return Ok(());
        }
        let path = self.paths.path_of(FileKind::Data(u8::from(next & 1 == 1)));
        Err(Error::Held { path, holder: self.holding(holder), files, bytes, max_files, max_bytes })
    }

    /// Releases the memory of retired files that nobody pins.
    fn reclaim(&self) {
        let generations: Vec<u64> = self.retired.borrow().iter().map(|retired| retired.generation).collect();
        let held = self.held(&generations);
        let mut held = held.into_iter();
        self.retired.borrow_mut().retain(|retired| {
            let keep = held.next().is_none_or(|holder| holder.is_some());
            if !keep {
                retired.punch();
            }
            keep
        });
    }

    /// Makes the prepared copy current. Everything that can fail comes before the first store that readers see.
    fn switch(&mut self, bytes: u64, checksum: u64, reset: bool) -> Result<Publication, Error> {
        let generation = self.generation + 1;
        let index = usize::from(generation & 1 == 1);
        // The names, and perhaps the files, may be another writer's since the copy was asked for. If no time has passed
        // nobody can have come, but for the names it is too much of a risk.
        let at_once = clock::monotonic_ns() == self.begun_ns;
        if (self.fresh.is_some() || !at_once) && self.lock_is_replaced() {
            return Err(Error::Locked { path: self.paths.path_of(FileKind::Lock) });
        }
        if self.fresh.is_some() {
            self.rename_fresh(index, generation)?;
            let fresh = self.fresh.take();
            if let Some(copy) = self.copies.get_mut(index) {
                *copy = fresh;
            }
            let fresh_files = &self.state().fresh_files;
            if reset {
                fresh_files.store(fresh_files.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            }
        }
        let now = clock::unix_ns();
        let (boot_id, readers_id) = (self.boot_id, self.readers_id());
        if let Some(Some(copy)) = self.copies.get_mut(index) {
            let fields = DataFields {
                generation,
                bytes,
                checksum,
                published_ns: now,
                boot_id,
                readers_id,
                ..DataFields::default()
            };
            copy.seal(fields);
        }
        let state = self.state();
        if let Some(slot) = state.history.get(usize::try_from(generation).unwrap_or(0) % HISTORY) {
            slot.store(now, Ordering::Relaxed);
        }
        state.published_ns.store(now, Ordering::Relaxed);
        state.heartbeat_ns.store(clock::monotonic_ns(), Ordering::Relaxed);
        state.version.store(InstanceVersion::new(generation & 1, bytes, checksum).0, Ordering::Relaxed);
        state.generation.store(generation, Ordering::Release);
        self.generation = generation;
        Ok(Publication { generation, bytes, reset })
    }

    /// Gives the fresh file its name; the file that had it is kept under another one for those who look into it.
    fn rename_fresh(&mut self, index: usize, generation: u64) -> Result<(), Error> {
        let name = self.paths.data(generation);
        let kept = generation.saturating_sub(2);
        let (new, aside) = (self.paths.fresh()?, self.paths.old(kept)?);
        if self.fresh.as_ref().is_some_and(|fresh| fresh.is_replaced(&new)) {
            return Err(Error::Locked { path: self.paths.path_of(FileKind::Lock) });
        }
        let old = self.copies.get_mut(index);
        let pinned = old.as_ref().is_some_and(|old| old.as_ref().is_some_and(|old| !old.foreign_readers));
        if pinned {
            file::unlink(&aside).map_err(self.paths.io(FileKind::Old(kept), "unlink"))?;
            match file::link(name, &aside) {
                Ok(()) | Err(libc::ENOENT) => {}
                Err(errno) => return Err(self.paths.io(FileKind::Old(kept), "link")(errno)),
            }
        }
        let kind = FileKind::Data(u8::from(index == 1));
        if let Err(errno) = file::rename(&new, name) {
            if pinned {
                // The copy goes on under its own name, and must not be found under that of a retired one.
                let _ = file::unlink(&aside);
            }
            return Err(self.paths.io(kind, "rename")(errno));
        }
        if let Some(old) = old.and_then(Option::take)
            && pinned
        {
            self.retired.get_mut().push(Retired { generation: kept, fd: old.into_fd(), path: aside });
        }
        Ok(())
    }
}

/// Bytes that an open file occupies.
fn occupied(fd: &OwnedFd) -> u64 {
    file::fstat(fd).map_or(0, |info| info.allocated)
}

impl Retired {
    /// Gives the memory back, mapped or not, and forgets the name. The first page stays: readers look at it.
    fn punch(&self) {
        // Best effort: what fails here is memory that the last reader's death releases.
        if let Ok(info) = file::fstat(&self.fd)
            && info.size >= PAGE
            && let Ok(map) = Map::new(&self.fd, PAGE, true)
            && let Some(header) = data_file::header(&map)
        {
            // No reader is to make pages again that are given back.
            let (fields, _) = header.fields();
            let fields = DataFields { reserved_bytes: 0, ..fields };
            header.reserved_bytes.store(0, Ordering::Relaxed);
            header.hash.store(fields.hash(), Ordering::Relaxed);
            // It comes before the generation goes, without which the next writer would not do it again if this one were
            // killed here.
            let _ = file::punch(&self.fd, PAGE, info.size.saturating_sub(PAGE));
            header.generation.store(0, Ordering::Relaxed);
        }
        let _ = file::unlink(&self.path);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("prefix", &self.options.prefix)
            .field("generation", &self.generation)
            .field("retired_files", &self.retired_files())
            .finish_non_exhaustive()
    }
}
