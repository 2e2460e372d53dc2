//! Opening a writer: taking the lock, making what is missing, and going on from what an earlier writer left.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::data_file::{self, DataFile};
use super::slots::{Barrier, cut_off};
use super::{Retired, Writer};
use bliss_os::{
    clock,
    file::{self, Access, FileInfo},
    fork::{self, PrivateFd},
    lock::Lock,
    map::Map,
    membarrier,
};

use crate::checksum;
use crate::error::{Error, FileKind};
use crate::layout::{
    DATA_MAGIC, DataFields, InstanceVersion, LAYOUT, MUST_FENCE, PAGE, ReadersHeader, STATE_MAGIC, State,
    slot_offset,
};
use crate::options::Options;
use crate::paths::{Owners, Paths};
use crate::primitive::Ordering;
use crate::reader_slot::ReadersMap;
use crate::state::{map_state, state_of};

pub(super) fn owners(options: &Options) -> Owners {
    Paths::writer_owners(options.owner)
}

pub(super) fn open(options: &Options) -> Result<Writer, Error> {
    options.check()?;
    let paths = Paths::new(&options.prefix)?;
    paths.check_directory(options, true)?;
    let lock = take_lock(&paths, &owners(options))?;
    open_locked(options, paths, Arc::new(lock), 0)
}

/// Opens, or makes again what was removed, while `writer` still has the files that had these names: the last
/// publication is carried over, and readers are told to look at the path again.
pub(super) fn reopen(writer: &mut Writer) -> Result<(), Error> {
    let options = writer.options.clone();
    let paths = Paths::new(&options.prefix)?;
    paths.check_directory(&options, true)?;
    // The lock file may still be the one that is locked, or another one, which another writer may hold.
    let lock =
        if writer.has_lock() { writer.lock.clone() } else { Arc::new(take_lock(&paths, &owners(&options))?) };
    if writer.slots_are_lost() {
        // Nobody knows what is pinned. Readers are told to look at the path, where there will be new slots.
        file::unlink(&paths.readers).map_err(paths.io(FileKind::Readers, "unlink"))?;
    }
    let mut new = open_locked(&options, paths, lock, writer.generation)?;
    // In the same state, what it says is what was published last, if by another writer.
    let same_state = new.state_info.same_file(&writer.state_info);
    if let Some(bytes) = writer.current()
        && (new.current_copy().is_none() || new.generation != writer.generation)
        && !(same_state && new.generation > writer.generation)
    {
        new.write_bytes(bytes)?;
    }
    if !same_state {
        writer.state().superseded.store(1, Ordering::Relaxed);
    }
    *writer = new;
    Ok(())
}

fn open_locked(
    options: &Options,
    paths: Paths,
    lock: Arc<PrivateFd>,
    generation: u64,
) -> Result<Writer, Error> {
    fork::init().map_err(paths.io(FileKind::Lock, "pthread_atfork"))?;
    let owners = owners(options);
    file::unlink(&paths.fresh()?).map_err(paths.io(FileKind::Directory, "removing an unfinished file"))?;
    let Files { state, state_fd, state_info, unusable_readers } =
        find_or_make(&paths, &owners, options, generation)?;

    let missing = || paths.io(FileKind::Readers, "open")(libc::ENOENT);
    let (fd, readers_info) = paths.open(FileKind::Readers, true, &owners)?.ok_or_else(missing)?;
    let header = state_of(&state).ok_or_else(missing)?;
    let readers = ReadersMap::of_writer(&paths, &fd, options)?;
    readers.mend_header(header.readers_id.load(Ordering::Relaxed));
    let readers_lock =
        PrivateFd::open(&paths.readers, Access::ReadWrite).map_err(paths.io(FileKind::Readers, "open"))?;
    let everywhere = options.membarrier && membarrier::available();
    let mut writer = Writer {
        options: options.clone(),
        token: fork::token(),
        generation: header.generation.load(Ordering::Relaxed),
        state,
        state_fd,
        state_info,
        looked_ns: 0,
        begun_ns: 0,
        copies: [None, None],
        fresh: None,
        retired: RefCell::new(Vec::new()),
        readers,
        readers_fd: fd,
        readers_lock,
        readers_info,
        barrier: Cell::new(if everywhere { Barrier::Everywhere } else { Barrier::Fence }),
        boot_id: clock::boot_id().unwrap_or_default(),
        threads: options.threads_or_cores(),
        refused_permissions: Vec::new(),
        corrected_permissions: Vec::new(),
        unusable_readers,
        lock,
        paths,
    };
    for index in 0..2 {
        let copy = adopt_copy(&writer, index, &owners)?;
        if let Some(slot) = writer.copies.get_mut(usize::from(index == 1)) {
            *slot = copy;
        }
    }
    adopt_retired(&writer, &owners)?;
    writer.correct_permissions();
    introduce(&writer);
    Ok(writer)
}

/// Tells readers who writes now.
fn introduce(writer: &Writer) {
    let state = writer.state();
    let [high, low] = writer.boot_id;
    state.boot_id[0].store(high, Ordering::Relaxed);
    state.boot_id[1].store(low, Ordering::Relaxed);
    state.writer_pid.store(u64::from(std::process::id()), Ordering::Relaxed);
    state.superseded.store(0, Ordering::Relaxed);
    match writer.barrier.get() {
        Barrier::Everywhere => {
            state.flags.fetch_and(!MUST_FENCE, Ordering::SeqCst);
        }
        Barrier::Fence => writer.fall_back_to_fences(),
    }
    writer.heartbeat();
}

fn take_lock(paths: &Paths, owners: &Owners) -> Result<PrivateFd, Error> {
    let kind = FileKind::Lock;
    for _ in 0..16 {
        let lock = PrivateFd::open(&paths.lock, Access::Create(0o600))
            .map_err(|errno| paths.explain(kind, &paths.lock, "open", errno))?;
        let info = paths.check_file(kind, lock.get().map_err(paths.io(kind, "fstat"))?, owners)?;
        if !lock.try_lock(Lock::Exclusive, 0).map_err(paths.io(kind, "lock"))? {
            return Err(Error::Locked { path: paths.path_of(kind) });
        }
        // Somebody may have removed the file between opening and locking; then the lock excludes nobody.
        if file::lstat(&paths.lock).is_ok_and(|now| now.same_file(&info)) {
            return Ok(lock);
        }
    }
    Err(Error::Unsettled { path: paths.path_of(kind), attempts: 16 })
}

struct Files {
    state: Map,
    state_fd: OwnedFd,
    state_info: FileInfo,
    unusable_readers: Option<Error>,
}

fn find_or_make(paths: &Paths, owners: &Owners, options: &Options, generation: u64) -> Result<Files, Error> {
    if let Some((state_fd, info)) = paths.open(FileKind::State, true, owners)? {
        let state = map_state(paths, &state_fd, &info, true)?;
        let id = state_of(&state).map(|state| state.readers_id.load(Ordering::Relaxed));
        let mut unusable_readers = None;
        if let Some((fd, info_of_readers)) = paths.open(FileKind::Readers, true, owners)? {
            cut_off(&fd, info_of_readers.size);
            match ReadersMap::of_writer(paths, &fd, options) {
                Ok(readers) if Some(readers.header().id.load(Ordering::Relaxed)) == id => {
                    return Ok(Files { state, state_fd, state_info: info, unusable_readers });
                }
                Ok(_) => {}
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => unusable_readers = Some(error),
            }
        }
        // Somebody removed or damaged `P_readers`, or a writer was killed while it made the files anew. Readers may have
        // pins in a file that nobody sees any more: they are told to look at the path again, and the copies that they may
        // look into, which carry another number than the new files, are left alone.
        let generation = state_of(&state).map_or(0, |state| state.generation.load(Ordering::Relaxed));
        let adopted_id = published_under(paths, owners, generation)?;
        let new = make(paths, options, generation, adopted_id)?;
        if let Some(old) = state_of(&state) {
            old.superseded.store(1, Ordering::Relaxed);
        }
        return Ok(Files { unusable_readers, ..new });
    }
    // Without a state nothing says what other files hold, nor who reads them: they make room, and are not truncated.
    for name in [&paths.data[0], &paths.data[1], &paths.readers] {
        file::unlink(name)
            .map_err(|errno| paths.explain(FileKind::Directory, name, "removing leftovers", errno))?;
    }
    for generation in paths.old_generations() {
        file::unlink(&paths.old(generation)?).map_err(paths.io(FileKind::Old(generation), "unlink"))?;
    }
    make(paths, options, generation, 0)
}

/// The number that the copy of `generation` carries; 0 if there is none. What else is wrong with the file,
/// [`adopt_copy`] says.
fn published_under(paths: &Paths, owners: &Owners, generation: u64) -> Result<u64, Error> {
    let kind = FileKind::Data(u8::from(generation & 1 == 1));
    let Some((fd, info)) = paths.open(kind, false, owners)? else { return Ok(0) };
    Ok(sealed(&fd, &info)
        .filter(|fields| fields.generation == generation)
        .map_or(0, |fields| fields.readers_id))
}

/// What the first page of a copy says, if it is whole.
fn sealed(fd: &OwnedFd, info: &FileInfo) -> Option<DataFields> {
    let map = Map::new(fd, PAGE, false).ok().filter(|_| info.size >= PAGE)?;
    let header = data_file::header(&map)?;
    let (fields, hash) = header.fields();
    (header.magic.load(Ordering::Relaxed) == DATA_MAGIC && fields.hash() == hash).then_some(fields)
}

/// Makes `P_readers` and then `P_state`, each complete before it gets its name.
fn make(paths: &Paths, options: &Options, generation: u64, adopted_id: u64) -> Result<Files, Error> {
    let id = clock::random();
    let readers =
        make_file(paths, options, FileKind::Readers, options.readers_mode, slot_offset(options.slots))?;
    let map = Map::new(&readers, PAGE, true).map_err(paths.io(FileKind::Readers, "mmap"))?;
    // SAFETY:
    // - the mapping is a page long and page-aligned; the header consists of atomics.
    let header = unsafe { map.start().cast::<ReadersHeader>().as_ref() };
    header.fill_in(id);
    let fresh = paths.fresh()?;
    file::rename(&fresh, &paths.readers).map_err(paths.io(FileKind::Readers, "rename"))?;

    let fd = make_file(paths, options, FileKind::State, options.mode, PAGE)?;
    let map = Map::new(&fd, PAGE, true).map_err(paths.io(FileKind::State, "mmap"))?;
    // SAFETY:
    // - the mapping is a page long and page-aligned; the state consists of atomics.
    let state = unsafe { map.start().cast::<State>().as_ref() };
    state.layout.store(LAYOUT, Ordering::Relaxed);
    state.readers_id.store(id, Ordering::Relaxed);
    state.adopted_id.store(adopted_id, Ordering::Relaxed);
    state.generation.store(generation, Ordering::Relaxed);
    state.magic.store(STATE_MAGIC, Ordering::Relaxed);
    let info = file::fstat(&fd).map_err(paths.io(FileKind::State, "fstat"))?;
    file::rename(&fresh, &paths.state).map_err(paths.io(FileKind::State, "rename"))?;
    Ok(Files { state: map, state_fd: fd, state_info: info, unusable_readers: None })
}

fn make_file(
    paths: &Paths,
    options: &Options,
    kind: FileKind,
    mode: u32,
    size: u64,
) -> Result<OwnedFd, Error> {
    data_file::create_file(kind, mode, size, paths, options)
}

/// What is under the name of a copy. `None`: nothing of use; the next publication makes a fresh file.
fn adopt_copy(writer: &Writer, index: u64, owners: &Owners) -> Result<Option<DataFile>, Error> {
    let kind = FileKind::Data(u8::from(index == 1));
    let Some((fd, info)) = writer.paths.open(kind, true, owners)? else { return Ok(None) };
    if info.size < PAGE {
        return Ok(None);
    }
    let mut copy = DataFile::adopt(fd, info, index, &writer.paths, &writer.options)?;
    let header = copy.header();
    let magic = header.magic.load(Ordering::Relaxed);
    if magic != DATA_MAGIC {
        return Err(Error::Foreign { path: writer.paths.path_of(kind), expected: DATA_MAGIC, found: magic });
    }
    let layout = header.layout.load(Ordering::Relaxed);
    if layout != LAYOUT {
        return Err(Error::Layout { path: writer.paths.path_of(kind), expected: LAYOUT, found: layout });
    }
    let (fields, hash) = header.fields();
    let room = info.size - PAGE;
    let sound = fields.hash() == hash
        && u64::from(fields.index) == index
        && fields.bytes <= fields.reserved_bytes
        && fields.bytes <= room;
    let generation = fields.generation;
    let ours = fields.readers_id == writer.readers_id();
    let adopted = writer.state().adopted_id.load(Ordering::Relaxed);
    let known = generation != 0
        && (ours || (adopted != 0 && fields.readers_id == adopted))
        && (generation == writer.generation || generation.checked_add(1) == Some(writer.generation));
    copy.foreign_readers = !ours;
    copy.vacant = generation == 0 || generation > writer.generation;
    if sound && known {
        copy.bytes = fields.bytes;
        let reserved = copy.adopt_room(fields.reserved_bytes.min(room / PAGE * PAGE), &writer.paths);
        copy.holds = reserved.is_ok().then_some(generation);
        if generation == writer.generation {
            reserved?;
        }
        let same_boot = fields.boot_id == writer.boot_id && clock::boot_id().is_some();
        if !same_boot && copy.payload().is_some_and(|bytes| checksum::whole(bytes) != fields.checksum) {
            copy.holds = None;
        }
        if copy.holds == Some(writer.generation) {
            // A state that was made again does not have these yet.
            let version = InstanceVersion::new(index, fields.bytes, fields.checksum);
            writer.state().version.store(version.0, Ordering::Relaxed);
            writer.state().published_ns.store(fields.published_ns, Ordering::Relaxed);
        }
    }
    Ok(Some(copy))
}

/// Files that an earlier writer put aside for guards.
fn adopt_retired(writer: &Writer, owners: &Owners) -> Result<(), Error> {
    for generation in writer.paths.old_generations() {
        let path = writer.paths.old(generation)?;
        let kind = FileKind::Old(generation);
        let Ok(fd) = file::open(&path, Access::ReadWrite) else { continue };
        let info = writer.paths.check_file(kind, &fd, owners)?;
        // The earlier writer was killed before the fresh file got its name: the copy goes on under its own.
        let still_named =
            (0..2).any(|index| file::lstat(writer.paths.data(index)).is_ok_and(|data| data.same_file(&info)));
        // Under another number nobody sees its pins; with another generation it is not what its name says. Such a file
        // only loses the name, and its memory comes back when the last reader lets go of it.
        let ours = sealed(&fd, &info).is_some_and(|fields| {
            fields.generation == generation && fields.readers_id == writer.readers_id()
        });
        if still_named || !ours {
            file::unlink(&path).map_err(writer.paths.io(kind, "unlink"))?;
        } else {
            writer.retired.borrow_mut().push(Retired { generation, fd, path });
        }
    }
    Ok(())
}
