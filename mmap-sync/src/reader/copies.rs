//! The mappings of a reader: of each copy the current file, and files that guards still look into.

use std::cell::Cell;
use std::ptr::NonNull;

use crate::checksum;
use crate::error::{Error, FileKind};
use crate::layout::{DATA_MAGIC, DataFields, DataHeader, LAYOUT, PAGE};
use crate::options::Options;
use crate::paths::Paths;
use crate::primitive::{Ordering, fence};
use crate::protocol::{CELLS, Found};
use crate::sys::{self, Map};

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
                if fields.bytes.saturating_add(PAGE) <= map.len() {
                    return context.view(map, &fields, entry).map(Found::Here);
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
        let paths = context.paths;
        let kind = FileKind::Data(u8::from(index == 1));
        let owners = paths.reader_owners(context.options.owner);
        let Some((fd, info)) = paths.open(kind, false, &owners)? else {
            return Ok(Found::Other(None));
        };
        if info.size < PAGE {
            return Err(context.corrupt(index, "the file size", PAGE, info.size));
        }
        let wanted = info.size.max(context.options.max_size.saturating_add(PAGE));
        let map = match Map::new(sys::raw(&fd), wanted, false) {
            Ok(map) => map,
            Err(_) => Map::new(sys::raw(&fd), info.size, false).map_err(paths.io(kind, "mmap"))?,
        };
        let Some(header) = header(&map) else {
            return Err(context.corrupt(index, "the file size", PAGE, info.size));
        };
        let magic = header.magic.load(Ordering::Relaxed);
        if magic != DATA_MAGIC {
            return Err(Error::Foreign { place: paths.place(kind), expected: DATA_MAGIC, found: magic });
        }
        let layout = header.layout.load(Ordering::Relaxed);
        if layout != LAYOUT {
            return Err(Error::Layout { place: paths.place(kind), expected: LAYOUT, found: layout });
        }
        let found = header.generation.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if found != generation {
            return Ok(Found::Other(Some(found)));
        }
        let (fields, hash) = header.fields();
        context.check(&fields, hash, generation)?;
        // The size was taken before the header was read, and the file may have grown in between: ask again.
        let size = sys::fstat(sys::raw(&fd)).map_err(paths.io(kind, "fstat"))?.size;
        let needed = fields.bytes.saturating_add(PAGE);
        if needed > size {
            return Err(context.corrupt(index, "the file size", needed, size));
        }
        if needed > map.len() {
            return Ok(Found::Other(Some(found)));
        }
        if context.options.huge_pages {
            let _ = map.advise(0, map.len(), libc::MADV_HUGEPAGE);
        }
        if context.options.prefault {
            let _ = map.advise(0, needed, libc::MADV_POPULATE_READ);
        }
        self.discard(&in_use);
        let Some(free) = self.entries.iter().position(Option::is_none) else {
            return Err(Error::TooManyGuards { limit: CELLS });
        };
        let entry = u8::try_from(free).unwrap_or(u8::MAX);
        let view = context.view(&map, &fields, entry)?;
        if let Some(slot) = self.entries.get_mut(free) {
            *slot = Some(Entry { map, keep: false });
        }
        if let Some(current) = self.current.get_mut(usize::from(index == 1)) {
            *current = Some(entry);
        }
        Ok(Found::Here(view))
    }

    fn current(&self, index: u64) -> Option<u8> {
        let [zero, one] = self.current;
        if index == 0 { zero } else { one }
    }

    fn map(&self, entry: u8) -> Option<&Map> {
        self.entries.get(usize::from(entry))?.as_ref().map(|entry| &entry.map)
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
    // SAFETY:
    // - `at` checks bounds and alignment; whoever made the mapping checked that the file has a first page.
    // - the header consists of atomics, for which any bytes are a value, and which the writer may change.
    map.at::<DataHeader>(0).map(|header| unsafe { header.as_ref() })
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
}

impl Context<'_> {
    fn corrupt(&self, index: u64, what: &'static str, expected: u64, found: u64) -> Error {
        let place = self.paths.place(FileKind::Data(u8::from(index == 1)));
        Error::Corrupt { place, what, expected, found }
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
            // It belongs to files that were made anew under the same path, whose writer does not see our pins.
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
        let Some(start) =
            map.at::<u8>(PAGE).filter(|_| fields.bytes.saturating_add(PAGE) <= map.len()).or_else(|| {
                // An empty payload in a file of one page has no byte to point to.
                (len == 0).then_some(map.start())
            })
        else {
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
                    place: self.paths.place(FileKind::Data(u8::from(index == 1))),
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
