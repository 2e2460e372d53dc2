//! The mappings of a reader: of each copy the current file, and files that guards still look into.

use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use bliss_os::{
    file::{self, FileInfo},
    map::{Advice, Map},
};

use crate::checksum;
use crate::error::{Error, FileKind};
use crate::layout::{DATA_MAGIC, DataFields, DataHeader, LAYOUT, PAGE};
use crate::options::Options;
use crate::paths::Paths;
use crate::primitive::{Ordering, fence};
use crate::protocol::{CELLS, Found};

/// One per cell that may hold a guard, the two current ones, and a new one.
const ENTRIES: usize = CELLS + 3;

/// Where the bytes of a generation are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: usize,
    /// The entry in [`Copies`].
    pub(crate) entry: u8,
}

struct Entry {
    map: Map,
    /// The file that is mapped.
    info: FileInfo,
    /// It was mapped before it was known to be long enough for what it would hold.
    ahead: bool,
    /// Bytes from the start of the file on whose pages were mapped ahead of time.
    populated: u64,
    /// Guards of before a fork may look into it: it is never unmapped.
    keep: bool,
}

pub(crate) struct Copies {
    entries: [Option<Entry>; ENTRIES],
    current: [Option<u8>; 2],
}

impl Copies {
    pub(crate) const fn new() -> Copies {
        Copies { entries: [const { None }; ENTRIES], current: [None; 2] }
    }

    /// The bytes of `generation`, which the caller has pinned.
    pub(crate) fn find(
        &mut self,
        generation: u64,
        context: &Context<'_>,
        in_use: impl Fn(u8) -> bool,
    ) -> Result<Found<View>, Error> {
        let index = generation & 1;
        if let Some(entry) = self.current(index)
            && let Some(map) = self.map(entry)
            && let Some(header) = header(map)
        {
            let found = header.generation.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if found == generation {
                let (fields, hash) = header.fields();
                context.check(&fields, hash, generation)?;
                let needed = fields.bytes.saturating_add(PAGE);
                if needed <= map.len() && self.is_long_enough(entry, needed, context.paths.data(index)) {
                    let view = context.view(map, &fields, entry)?;
                    if let Some(entry) = self.entry_mut(entry) {
                        entry.ahead = false;
                    }
                    return Ok(Found::Here(view));
                }
                // It has outgrown the mapping: map more of it.
            }
        }
        self.open(generation, context, in_use)
    }

    fn open(
        &mut self,
        generation: u64,
        context: &Context<'_>,
        in_use: impl Fn(u8) -> bool,
    ) -> Result<Found<View>, Error> {
        let index = generation & 1;
        let kind = FileKind::Data(u8::from(index == 1));
        let Some(Opened { fd, map, info }) = context.open(index)? else {
            return Ok(Found::Other(None));
        };
        let Some(header) = header(&map) else {
            return Err(context.corrupt(index, "the file size", PAGE, info.size));
        };
        let found = header.generation.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if found != generation {
            return Ok(Found::Other(Some(found)));
        }
        let (fields, hash) = header.fields();
        context.check(&fields, hash, generation)?;
        // The size was taken before the header was read, and the file may have grown in between: ask again.
        let size = file::fstat(&fd).map_err(context.paths.io(kind, "fstat"))?.size;
        let needed = fields.bytes.saturating_add(PAGE);
        if needed > size {
            return Err(context.corrupt(index, "the file size", needed, size));
        }
        if needed > map.len() {
            return Ok(Found::Other(Some(found)));
        }
        let populated =
            if context.populate && map.advise(0, needed, Advice::PopulateRead).is_ok() { needed } else { 0 };
        self.discard(&in_use);
        let Some(entry) = self.vacant() else { return Err(Error::TooManyGuards { limit: CELLS }) };
        let view = context.view(&map, &fields, entry)?;
        self.put(index, entry, Entry { map, info, ahead: false, populated, keep: false });
        Ok(Found::Here(view))
    }

    /// Maps the file of the copy that is not current before a generation in it is, if there is one that can become so;
    /// says whether there is. What cells remember of the mapping before is of generations that are not current again.
    pub(crate) fn map_ahead(
        &mut self,
        index: u64,
        context: &Context<'_>,
        in_use: impl Fn(u8) -> bool,
    ) -> Result<bool, Error> {
        let entry = self.current(index).and_then(|entry| self.entry(entry));
        if let Some(entry) = entry
            && reserved(&entry.map).is_none_or(|reserved| reserved <= entry.map.len())
            && file::lstat(context.paths.data(index)).is_ok_and(|info| info.same_file(&entry.info))
        {
            return Ok(true);
        }
        let Some(Opened { map, info, .. }) = context.open(index)? else { return Ok(false) };
        let [ours, _] = context.readers_ids;
        if header(&map).is_none_or(|header| header.readers_id.load(Ordering::Relaxed) != ours) {
            // Its writer does not go on with it.
            return Ok(false);
        }
        self.discard(in_use);
        let Some(entry) = self.vacant() else { return Ok(false) };
        self.put(index, entry, Entry { map, info, ahead: true, populated: 0, keep: false });
        Ok(true)
    }

    /// Maps so many bytes of those pages of a copy that are not mapped yet. Returns how many are left, and takes what it
    /// did from `budget`.
    pub(crate) fn populate(&mut self, index: u64, budget: &mut u64) -> u64 {
        let Some(entry) = self.current(index).and_then(|entry| self.entry_mut(entry)) else { return 0 };
        // Only what is reserved: under a hole, which is memory that the writer gave back, a page would be made.
        let Some(end) = reserved(&entry.map).map(|end| end.min(entry.map.len())) else { return 0 };
        entry.populated = entry.populated.min(end);
        let len = (end - entry.populated).min(*budget);
        *budget -= len;
        // What is refused (before Linux 5.14, or because the file was cut off) is left to page faults.
        let done = len == 0 || entry.map.advise(entry.populated, len, Advice::PopulateRead).is_ok();
        entry.populated = if done { entry.populated + len } else { end };
        end - entry.populated
    }

    /// Whether a file that was mapped ahead is as long as it should be.
    fn is_long_enough(&self, entry: u8, needed: u64, name: &CStr) -> bool {
        self.entry(entry).is_some_and(|entry| {
            !entry.ahead
                || file::lstat(name).is_ok_and(|info| info.same_file(&entry.info) && info.size >= needed)
        })
    }

    /// The number of an entry that is not used.
    fn vacant(&self) -> Option<u8> {
        u8::try_from(self.entries.iter().position(Option::is_none)?).ok()
    }

    /// Makes an entry that is not used that of the current file of a copy.
    fn put(&mut self, index: u64, entry: u8, with: Entry) {
        if let Some(slot) = self.entries.get_mut(usize::from(entry)) {
            *slot = Some(with);
        }
        if let Some(current) = self.current.get_mut(usize::from(index == 1)) {
            *current = Some(entry);
        }
    }

    fn current(&self, index: u64) -> Option<u8> {
        let [zero, one] = self.current;
        if index == 0 { zero } else { one }
    }

    fn entry(&self, entry: u8) -> Option<&Entry> {
        self.entries.get(usize::from(entry))?.as_ref()
    }

    fn entry_mut(&mut self, entry: u8) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(entry))?.as_mut()
    }

    fn map(&self, entry: u8) -> Option<&Map> {
        self.entry(entry).map(|entry| &entry.map)
    }

    /// Unmaps what is neither current nor looked into. What was replaced last stays until the next time: by then
    /// the writer has punched it out, and unmapping is cheap.
    pub(crate) fn discard(&mut self, in_use: impl Fn(u8) -> bool) {
        let current = self.current;
        for (number, slot) in self.entries.iter_mut().enumerate() {
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            if !current.contains(&Some(number)) && !in_use(number) {
                close(slot);
            }
        }
    }

    /// Unmaps everything; nothing is looked into.
    pub(crate) fn clear(&mut self) {
        self.current = [None; 2];
        self.entries.iter_mut().for_each(close);
    }

    /// After a fork: what the parent's guards look into stays mapped for good.
    pub(crate) fn keep(&mut self, in_use: impl Fn(u8) -> bool) {
        for (number, slot) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = slot
                && in_use(u8::try_from(number).unwrap_or(u8::MAX))
            {
                entry.keep = true;
            }
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.clear();
    }
}

fn close(slot: &mut Option<Entry>) {
    if let Some(entry) = slot.take()
        && entry.keep
    {
        std::mem::forget(entry.map);
    }
}

fn header(map: &Map) -> Option<&DataHeader> {
    map.get(0)
}

/// End of what is reserved of a file, which its first page says also while the bytes are being written.
fn reserved(map: &Map) -> Option<u64> {
    let (fields, hash) = header(map)?.fields();
    (fields.generation == 0 || fields.hash() == hash).then(|| fields.reserved_bytes.saturating_add(PAGE))
}

/// A file of a copy, of at least a page, and one of ours by its first words.
struct Opened {
    fd: OwnedFd,
    map: Map,
    info: FileInfo,
}

/// What is needed to open and judge a copy.
pub(crate) struct Context<'a> {
    pub(crate) paths: &'a Paths,
    pub(crate) options: &'a Options,
    /// The numbers under which what these files say may have been published.
    pub(crate) readers_ids: [u64; 2],
    /// Of this system.
    pub(crate) boot_id: Option<[u64; 2]>,
    /// Generations whose checksum was found right, so that it is done once.
    pub(crate) verified: &'a Cell<u64>,
    /// Whether the pages of a file are mapped with it.
    pub(crate) populate: bool,
}

impl Context<'_> {
    /// Maps the file that has the name of a copy. `None`: there is none.
    fn open(&self, index: u64) -> Result<Option<Opened>, Error> {
        let paths = self.paths;
        let kind = FileKind::Data(u8::from(index == 1));
        let owners = paths.reader_owners(self.options)?;
        let Some((fd, info)) = paths.open(kind, false, &owners)? else { return Ok(None) };
        if info.size < PAGE {
            return Err(self.corrupt(index, "the file size", PAGE, info.size));
        }
        let wanted = info.size.max(self.options.max_size.saturating_add(PAGE));
        let map = match Map::new(&fd, wanted, false) {
            Ok(map) => map,
            Err(_) => Map::new(&fd, info.size, false).map_err(paths.io(kind, "mmap"))?,
        };
        let Some(header) = header(&map) else {
            return Err(self.corrupt(index, "the file size", PAGE, info.size));
        };
        let magic = header.magic.load(Ordering::Relaxed);
        if magic != DATA_MAGIC {
            return Err(Error::Foreign { path: paths.path_of(kind), expected: DATA_MAGIC, found: magic });
        }
        let layout = header.layout.load(Ordering::Relaxed);
        if layout != LAYOUT {
            return Err(Error::Layout { path: paths.path_of(kind), expected: LAYOUT, found: layout });
        }
        if self.options.huge_pages {
            let _ = map.advise(0, map.len(), Advice::HugePage);
        }
        Ok(Some(Opened { fd, map, info }))
    }

    fn corrupt(&self, index: u64, what: &'static str, expected: u64, found: u64) -> Error {
        let path = self.paths.path_of(FileKind::Data(u8::from(index == 1)));
        Error::Corrupt { path, what, expected, found }
    }

    fn check(&self, fields: &DataFields, hash: u64, generation: u64) -> Result<(), Error> {
        let index = generation & 1;
        if fields.hash() != hash {
            return Err(self.corrupt(index, "the hash of the header", hash, fields.hash()));
        }
        if u64::from(fields.index) != index {
            return Err(self.corrupt(index, "the number of the copy", index, u64::from(fields.index)));
        }
        let [ours, adopted] = self.readers_ids;
        if fields.readers_id != ours && (fields.readers_id != adopted || adopted == 0) {
            // It belongs to files that were made again under the same path, whose writer does not see our pins.
            return Err(self.corrupt(index, "the number of P_readers", ours, fields.readers_id));
        }
        if fields.bytes > fields.reserved_bytes {
            return Err(self.corrupt(index, "the payload size", fields.reserved_bytes, fields.bytes));
        }
        Ok(())
    }

    fn view(&self, map: &Map, fields: &DataFields, entry: u8) -> Result<View, Error> {
        let index = fields.generation & 1;
        let len = usize::try_from(fields.bytes)
            .map_err(|_| self.corrupt(index, "the payload size", 0, fields.bytes))?;
        let Some(start) = map.range(PAGE, len).map(NonNull::cast::<u8>) else {
            return Err(self.corrupt(index, "the payload size", map.len(), fields.bytes));
        };
        let other_boot = self.boot_id != Some(fields.boot_id);
        if (self.options.verify || other_boot) && self.verified.get() != fields.generation {
            // SAFETY:
            // - `start` and `len` lie inside the mapping and the file, checked above and by the caller.
            // - the caller has pinned the generation, so the writer leaves the bytes alone.
            let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), len) };
            let found = checksum::whole(bytes);
            if found != fields.checksum {
                return Err(Error::Checksum {
                    path: self.paths.path_of(FileKind::Data(u8::from(index == 1))),
                    generation: fields.generation,
                    expected: fields.checksum,
                    found,
                });
            }
            self.verified.set(fields.generation);
        }
        Ok(View { start, len, entry })
    }
}
