//! Looking at the files of a prefix from outside: what `mmap-sync inspect` and `mmap-sync verify` print.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use bliss_os::{
    clock,
    file::{self, Access},
    lock::{self},
    map::Map,
};

use crate::checksum;
use crate::error::{Error, FileKind};
use crate::layout::{
    DATA_MAGIC, DataFields, DataHeader, HISTORY, InstanceVersion, LAYOUT, PAGE, SLOT_FENCED, SLOT_FREE,
    State, slot_offset,
};
use crate::options::Options;
use crate::paths::Paths;
use crate::primitive::Ordering;
use crate::protocol;
use crate::reader_slot::ReadersMap;
use crate::state::{open_state, state_of};

/// A pin of a reader.
#[derive(Clone, Debug)]
pub struct PinReport {
    /// The generation that is pinned; all from it on, if it is pending.
    pub generation: u64,
    /// Whether it is a guard, rather than a reader between its two looks at the generation.
    pub committed: bool,
    /// For at least how long: since the next generation was published. `None` if that is not known any more.
    pub held_for: Option<Duration>,
}

/// A slot that has an owner.
#[derive(Clone, Debug)]
pub struct ReaderReport {
    /// The number of the slot.
    pub slot: u32,
    /// The pid of the owner, in its own PID namespace.
    pub pid: u32,
    /// Whether the owner lives.
    pub alive: bool,
    /// Whether it passes fences, rather than rely on the writer's `membarrier`.
    pub fenced: bool,
    /// Time since it was opened.
    pub open_for: Duration,
    /// What it pins.
    pub pins: Vec<PinReport>,
}

/// What the files of a prefix say.
#[derive(Clone, Debug)]
pub struct Report {
    /// The current generation; 0 before the first publication.
    pub generation: u64,
    /// Its size and the low bits of its checksum.
    pub version: InstanceVersion,
    /// Time since it was published, by the clock of the day.
    pub age: Option<Duration>,
    /// Whether a writer holds the lock; `None` if this process may not ask.
    pub writer_alive: Option<bool>,
    /// The last writer's pid, in its own PID namespace.
    pub writer_pid: u64,
    /// Time since the writer's last sign of life.
    pub writer_age: Option<Duration>,
    /// Whether the files are not written any more because others took their place.
    pub superseded: bool,
    /// Fresh files that were needed since the files were made because a copy was pinned.
    pub fresh_files: u64,
    /// Times that the writer met readers without a slot.
    pub counted_readers: u64,
    /// Slots that there are.
    pub slots: u32,
    /// Those with an owner.
    pub readers: Vec<ReaderReport>,
    /// Name, size and memory occupied of each file, in bytes.
    pub files: Vec<(String, u64, u64)>,
}

/// Looks at the files of a prefix; changes nothing.
///
/// # Errors
///
/// [`Error::NotPublished`] if there are no files; otherwise what is wrong with `P_state` or `P_readers`.
pub fn inspect(options: &Options) -> Result<Report, Error> {
    let paths = Paths::new(&options.prefix)?;
    let owners = paths.reader_owners(options)?;
    let (map, _) = open_state(&paths, &owners)?.ok_or(Error::NotPublished)?;
    let state = state_of(&map).ok_or(Error::NotPublished)?;
    let id = state.readers_id.load(Ordering::Relaxed);
    let missing = || paths.io(FileKind::Readers, "open")(libc::ENOENT);
    let (fd, _) = paths.open(FileKind::Readers, true, &owners)?.ok_or_else(missing)?;
    let readers = ReadersMap::new(&paths, &fd, Some(id))?;
    let now = clock::unix_ns();
    let since = |then: u64| Duration::from_nanos(now.saturating_sub(then));
    let published = state.published_ns.load(Ordering::Relaxed);
    let boot_id =
        [0, 1].map(|word: usize| state.boot_id.get(word).map_or(0, |word| word.load(Ordering::Relaxed)));
    let heartbeat = state.heartbeat_ns.load(Ordering::Relaxed);
    Ok(Report {
        generation: state.generation.load(Ordering::Relaxed),
        version: InstanceVersion(state.version.load(Ordering::Relaxed)),
        age: (published != 0).then(|| since(published)),
        writer_alive: file::open(&paths.lock, Access::Read)
            .ok()
            .and_then(|lock| lock::is_locked(&lock, 0).ok()),
        writer_pid: state.writer_pid.load(Ordering::Relaxed),
        writer_age: (Some(boot_id) == clock::boot_id())
            .then(|| Duration::from_nanos(clock::monotonic_ns().saturating_sub(heartbeat))),
        superseded: state.superseded.load(Ordering::Relaxed) != 0,
        fresh_files: state.fresh_files.load(Ordering::Relaxed),
        counted_readers: state.counted_readers.load(Ordering::Relaxed),
        slots: readers.slots(),
        readers: (0..readers.slots()).filter_map(|slot| reader(state, &readers, &fd, slot, &since)).collect(),
        files: files(options),
    })
}

fn reader(
    state: &State,
    readers: &ReadersMap,
    fd: &OwnedFd,
    index: u32,
    since: &impl Fn(u64) -> Duration,
) -> Option<ReaderReport> {
    let slot = readers.slot(index)?;
    let kind = slot.kind.load(Ordering::Relaxed);
    if kind == SLOT_FREE {
        return None;
    }
    let current = state.generation.load(Ordering::Relaxed);
    let pins = slot.cells.iter().filter_map(|cell| protocol::shown(cell.load(Ordering::Relaxed))).map(
        |(generation, committed)| {
            let next = generation.saturating_add(1);
            let known = next <= current && current - next < HISTORY as u64;
            let at = usize::try_from(next).unwrap_or(0) % HISTORY;
            let replaced = state.history.get(at).map(|time| time.load(Ordering::Relaxed)).filter(|_| known);
            let held_for = if next > current { Some(Duration::ZERO) } else { replaced.map(since) };
            PinReport { generation, committed, held_for }
        },
    );
    Some(ReaderReport {
        slot: index,
        pid: slot.pid.load(Ordering::Relaxed),
        alive: lock::is_locked(fd, slot_offset(index)).unwrap_or(true),
        fenced: kind == SLOT_FENCED,
        open_for: since(slot.opened_ns.load(Ordering::Relaxed)),
        pins: pins.collect(),
    })
}

fn files(options: &Options) -> Vec<(String, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (Some(name), parent) = (options.prefix.file_name(), options.prefix.parent()) else {
        return Vec::new();
    };
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let start = format!("{}_", name.to_string_lossy());
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(&start)?;
            let ours = ["state", "data_0", "data_1", "readers", "lock", "new"].contains(&rest)
                || rest.strip_prefix("old_").is_some_and(|digits| digits.parse::<u64>().is_ok());
            let data = entry.metadata().ok().filter(|_| ours)?;
            Some((name, data.len(), data.blocks() * 512))
        })
        .collect();
    files.sort();
    files
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "unknown".to_string(), |time| format!("{:.3} s", time.as_secs_f64()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "generation   {}", self.generation)?;
        writeln!(f, "size         {} bytes in copy {}", self.version.size(), self.version.idx())?;
        writeln!(f, "checksum     {:#08x} (low 24 bits)", self.version.checksum())?;
        writeln!(f, "age          {}", shown(self.age))?;
        let alive = match self.writer_alive {
            Some(true) => "alive",
            Some(false) => "not running",
            None => "unknown (no right to look at the lock)",
        };
        let (pid, age) = (self.writer_pid, shown(self.writer_age));
        writeln!(f, "writer       {alive}, pid {pid}, last sign of life {age} ago")?;
        if self.superseded {
            writeln!(f, "superseded   another prefix or new files took the place of these")?;
        }
        writeln!(f, "fresh files  {} because of pinned copies", self.fresh_files)?;
        let (taken, slots) = (self.readers.len(), self.slots);
        writeln!(
            f,
            "readers      {taken} of {slots} slots; met without a slot {} times",
            self.counted_readers
        )?;
        for reader in &self.readers {
            let life = if reader.alive { "" } else { ", dead" };
            let fenced = if reader.fenced { ", fenced" } else { "" };
            let open_for = reader.open_for.as_secs_f64();
            writeln!(
                f,
                "  slot {:<5} pid {:<8} open for {open_for:.1} s{fenced}{life}",
                reader.slot, reader.pid
            )?;
            for pin in &reader.pins {
                let kind = if pin.committed { "pins" } else { "announces" };
                let since = pin.held_for.map_or_else(
                    || format!("longer than {HISTORY} publications"),
                    |time| format!("at least {:.3} s", time.as_secs_f64()),
                );
                writeln!(f, "    {kind} generation {} for {since}", pin.generation)?;
            }
        }
        for (name, size, occupied) in &self.files {
            writeln!(f, "file         {name}: {size} bytes, {occupied} occupied")?;
        }
        Ok(())
    }
}

/// Checks everything that can be checked in the files of a prefix: one line per file, and the errors. With a writer
/// about, only the current copy is looked at; it is pinned meanwhile.
pub fn verify(options: &Options) -> (Vec<String>, Vec<Error>) {
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    let report = match inspect(options) {
        Ok(report) => report,
        Err(error) => return (lines, vec![error]),
    };
    lines.push(format!("state and readers: sound, generation {}", report.generation));
    match options.clone().verify(true).open_reader() {
        Ok(reader) => match reader.pin() {
            Ok(guard) => lines.push(format!(
                "current copy: generation {}, {} bytes, checksum right",
                guard.generation(),
                guard.len()
            )),
            Err(Error::NotPublished) => lines.push("current copy: nothing has been published".to_string()),
            Err(error) => errors.push(error),
        },
        Err(error) => errors.push(error),
    }
    if report.writer_alive != Some(false) {
        lines.push("other copy: not looked at, since a writer may be writing it".to_string());
        return (lines, errors);
    }
    match standby(options, report.generation) {
        Ok(line) => lines.push(format!("other copy: {line}")),
        Err(error) => errors.push(error),
    }
    (lines, errors)
}

/// The copy that is not current, with no writer about.
fn standby(options: &Options, current: u64) -> Result<String, Error> {
    let paths = Paths::new(&options.prefix)?;
    let owners = paths.reader_owners(options)?;
    let index = (current + 1) & 1;
    let kind = FileKind::Data(u8::from(index == 1));
    let Some((fd, info)) = paths.open(kind, false, &owners)? else { return Ok("none".to_string()) };
    let corrupt = |what, expected, found| Error::Corrupt { path: paths.path_of(kind), what, expected, found };
    if info.size < PAGE {
        return Err(corrupt("the file size", PAGE, info.size));
    }
    let map = Map::new(&fd, info.size, false).map_err(paths.io(kind, "mmap"))?;
    let header = map.get::<DataHeader>(0).ok_or_else(|| corrupt("the file size", PAGE, info.size))?;
    let (magic, layout) = (header.magic.load(Ordering::Relaxed), header.layout.load(Ordering::Relaxed));
    if magic != DATA_MAGIC {
        return Err(Error::Foreign { path: paths.path_of(kind), expected: DATA_MAGIC, found: magic });
    }
    if layout != LAYOUT {
        return Err(Error::Layout { path: paths.path_of(kind), expected: LAYOUT, found: layout });
    }
    let (fields, hash) = header.fields();
    if fields.generation == 0 {
        return Ok("holds nothing (a publication was abandoned or has not begun)".to_string());
    }
    if fields.hash() != hash {
        return Err(corrupt("the hash of the header", hash, fields.hash()));
    }
    let needed = fields.bytes.saturating_add(PAGE);
    if needed > info.size {
        return Err(corrupt("the file size", needed, info.size));
    }
    let bytes = usize::try_from(fields.bytes).unwrap_or(0);
    // SAFETY:
    // - the range lies inside the mapping and the file, checked above.
    // - the writer's lock was free a moment ago; a writer that comes now would make the checksum wrong, no more.
    let bytes = unsafe { std::slice::from_raw_parts(map.start().as_ptr().add(PAGE as usize), bytes) };
    let found = checksum::whole(bytes);
    if found != fields.checksum {
        let (generation, expected) = (fields.generation, fields.checksum);
        return Err(Error::Checksum { path: paths.path_of(kind), generation, expected, found });
    }
    Ok(format!("generation {}, {} bytes, checksum right", fields.generation, fields.bytes))
}

/// Gives a copy the boot id of another system, so that tests can see what happens after a reboot.
///
/// # Errors
///
/// Those of reading and writing the file.
#[doc(hidden)]
pub fn stamp_boot_id(file: &Path, boot_id: [u64; 2]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file)?;
    let mut page = [0_u64; 11];
    for (index, word) in page.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, index as u64 * 8)?;
        *word = u64::from_le_bytes(bytes);
    }
    let [_, layout_and_index, generation, bytes, checksum, reserved_bytes, published_ns, _, _, readers_id, _] =
        page;
    let index = u32::try_from(layout_and_index >> 32).unwrap_or(0);
    let fields =
        DataFields { index, generation, bytes, checksum, reserved_bytes, published_ns, boot_id, readers_id };
    let [high, low] = boot_id;
    for (at, word) in [(56, high), (64, low), (80, fields.hash())] {
        file.write_all_at(&word.to_le_bytes(), at)?;
    }
    Ok(())
}
