//! What stands where in the files. See the crate documentation for the tables.

use std::mem::{offset_of, size_of};

use bliss_os::map::Shared;

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::protocol::CELLS;

pub(crate) const LAYOUT: u32 = 3;
pub(crate) const STATE_MAGIC: u64 = u64::from_le_bytes(*b"mmsyncS\n");
pub(crate) const DATA_MAGIC: u64 = u64::from_le_bytes(*b"mmsyncD\n");
pub(crate) const READERS_MAGIC: u64 = u64::from_le_bytes(*b"mmsyncR\n");

/// Bytes before the payload of a copy, before the slots, and of the whole of `P_state`.
pub(crate) const PAGE: u64 = 4096;

/// Size field of [`InstanceVersion`]: 39 bits.
pub(crate) const MAX_BYTES: u64 = (1 << 39) - 1;

/// Times of publication that `P_state` remembers.
pub(crate) const HISTORY: usize = 64;

/// `State::flags`: the writer has no `membarrier`, so readers must pass fences.
pub(crate) const MUST_FENCE: u64 = 1;

/// The word at the start of `P_state`: which copy is current, how large, and its checksum.
///
/// Data index in bit 0, size in bits 1 to 39, the low 24 bits of the checksum above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceVersion(pub(crate) u64);

impl InstanceVersion {
    pub(crate) const fn new(index: u64, size: u64, checksum: u64) -> Self {
        InstanceVersion((index & 1) | ((size & MAX_BYTES) << 1) | (checksum << 40))
    }

    /// Which copy is current: 0 or 1.
    pub const fn idx(&self) -> usize {
        (self.0 & 1) as usize
    }

    /// Size of the value in bytes.
    pub const fn size(&self) -> usize {
        ((self.0 >> 1) & MAX_BYTES) as usize
    }

    /// Low 24 bits of the checksum.
    pub const fn checksum(&self) -> u64 {
        self.0 >> 40
    }
}

impl From<InstanceVersion> for u64 {
    fn from(version: InstanceVersion) -> u64 {
        version.0
    }
}

/// `P_state`. Written by the writer only; readers map it read-only and use relaxed loads.
#[repr(C)]
pub(crate) struct State {
    /// 0: [`InstanceVersion`].
    pub(crate) version: AtomicU64,
    /// 8
    pub(crate) magic: AtomicU64,
    /// 16
    pub(crate) layout: AtomicU32,
    /// 20: 1 if this file is not written any more because others took its place.
    pub(crate) superseded: AtomicU32,
    /// 24: the word of agreement; 0 before the first publication.
    pub(crate) generation: AtomicU64,
    /// 32: [`MUST_FENCE`].
    pub(crate) flags: AtomicU64,
    /// 40: time of the last publication, nanoseconds since the Unix epoch.
    pub(crate) published_ns: AtomicU64,
    /// 48: last sign of life of the writer, nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) heartbeat_ns: AtomicU64,
    /// 56: pid of the writer, as it sees itself.
    pub(crate) writer_pid: AtomicU64,
    /// 64: boot id of the system on which the heartbeat was stamped.
    pub(crate) boot_id: [AtomicU64; 2],
    /// 80: the number that `P_readers` carries too.
    pub(crate) readers_id: AtomicU64,
    /// 88: fresh files that were needed because a copy was pinned.
    pub(crate) fresh_files: AtomicU64,
    /// 96: scans of `P_readers` that met a reader on the shared counters.
    pub(crate) counted_readers: AtomicU64,
    /// 104: the number under which the copy was published that was current when these files were made; 0 if none was.
    pub(crate) adopted_id: AtomicU64,
    /// 112: zero.
    pub(crate) reserved: [AtomicU64; 114],
    /// 1024: time of publication of generation `g` at index `g % 64`, nanoseconds since the Unix epoch.
    pub(crate) history: [AtomicU64; HISTORY],
}

/// The first page of a copy.
#[repr(C)]
pub(crate) struct DataHeader {
    /// 0
    pub(crate) magic: AtomicU64,
    /// 8
    pub(crate) layout: AtomicU32,
    /// 12: which copy, 0 or 1.
    pub(crate) index: AtomicU32,
    /// 16: the generation whose bytes these are; 0 while they are being written and once retired.
    pub(crate) generation: AtomicU64,
    /// 24: payload size in bytes.
    pub(crate) bytes: AtomicU64,
    /// 32: checksum of the payload.
    pub(crate) checksum: AtomicU64,
    /// 40: payload bytes for which the file system has reserved room; right also while they are being written.
    pub(crate) reserved_bytes: AtomicU64,
    /// 48: time of publication, nanoseconds since the Unix epoch.
    pub(crate) published_ns: AtomicU64,
    /// 56: boot id of the system on which it was published.
    pub(crate) boot_id: [AtomicU64; 2],
    /// 72: the number of the `P_readers` in which those who look into it have their pins.
    pub(crate) readers_id: AtomicU64,
    /// 80: hash of the fields before it.
    pub(crate) hash: AtomicU64,
}

/// The fields of a [`DataHeader`], read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct DataFields {
    pub(crate) index: u32,
    pub(crate) generation: u64,
    pub(crate) bytes: u64,
    pub(crate) checksum: u64,
    pub(crate) reserved_bytes: u64,
    pub(crate) published_ns: u64,
    pub(crate) boot_id: [u64; 2],
    pub(crate) readers_id: u64,
}

impl DataFields {
    pub(crate) fn hash(&self) -> u64 {
        let words = [
            DATA_MAGIC,
            u64::from(LAYOUT) | (u64::from(self.index) << 32),
            self.generation,
            self.bytes,
            self.checksum,
            self.reserved_bytes,
            self.published_ns,
            self.boot_id[0],
            self.boot_id[1],
            self.readers_id,
        ];
        words.iter().fold(0x6d6d_7379_6e63_4844, |sum, word| {
            let mixed = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 29)
        })
    }
}

impl DataHeader {
    /// The fields, and the hash that stands beside them. Loads are relaxed: the caller pins the generation, or is
    /// the writer.
    pub(crate) fn fields(&self) -> (DataFields, u64) {
        let fields = DataFields {
            index: self.index.load(Ordering::Relaxed),
            generation: self.generation.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            checksum: self.checksum.load(Ordering::Relaxed),
            reserved_bytes: self.reserved_bytes.load(Ordering::Relaxed),
            published_ns: self.published_ns.load(Ordering::Relaxed),
            boot_id: [self.boot_id[0].load(Ordering::Relaxed), self.boot_id[1].load(Ordering::Relaxed)],
            readers_id: self.readers_id.load(Ordering::Relaxed),
        };
        (fields, self.hash.load(Ordering::Relaxed))
    }

    /// Stores everything, the generation last.
    pub(crate) fn store(&self, fields: &DataFields) {
        self.generation.store(0, Ordering::Relaxed);
        self.magic.store(DATA_MAGIC, Ordering::Relaxed);
        self.layout.store(LAYOUT, Ordering::Relaxed);
        self.index.store(fields.index, Ordering::Relaxed);
        self.bytes.store(fields.bytes, Ordering::Relaxed);
        self.checksum.store(fields.checksum, Ordering::Relaxed);
        self.reserved_bytes.store(fields.reserved_bytes, Ordering::Relaxed);
        self.published_ns.store(fields.published_ns, Ordering::Relaxed);
        self.boot_id[0].store(fields.boot_id[0], Ordering::Relaxed);
        self.boot_id[1].store(fields.boot_id[1], Ordering::Relaxed);
        self.readers_id.store(fields.readers_id, Ordering::Relaxed);
        self.hash.store(fields.hash(), Ordering::Relaxed);
        self.generation.store(fields.generation, Ordering::Release);
    }
}

/// The first page of `P_readers`.
#[repr(C)]
pub(crate) struct ReadersHeader {
    /// 0
    pub(crate) magic: AtomicU64,
    /// 8
    pub(crate) layout: AtomicU32,
    /// 12: size of a slot in bytes.
    pub(crate) slot_bytes: AtomicU32,
    /// 16: the number that `P_state` carries too.
    pub(crate) id: AtomicU64,
    /// 24: one more than the highest slot that was ever used.
    pub(crate) high_water: AtomicU64,
    /// 32
    pub(crate) reserved: [AtomicU64; 4],
    /// 64: readers without a slot, per copy.
    pub(crate) counters: [AtomicU32; 2],
}

/// The byte of `P_state` that readers without a slot lock, shared. They may only read that file, so that none of them can
/// exclude the others, as it could in `P_readers`.
pub(crate) const COUNTERS_LOCK: u64 = offset_of!(State, counted_readers) as u64;

/// Slots that are looked at at most, whatever the size of `P_readers`.
pub(crate) const MAX_SLOTS: u32 = 1 << 16;

/// A reader's slot: two cache lines, since neighbouring lines are fetched in pairs.
#[repr(C, align(128))]
pub(crate) struct Slot {
    /// 0: pid of the owner, as it sees itself.
    pub(crate) pid: AtomicU32,
    /// 4: [`SLOT_FREE`], [`SLOT_FENCED`] or [`SLOT_UNFENCED`].
    pub(crate) kind: AtomicU32,
    /// 8: moved by the writer to call announcements off.
    pub(crate) epoch: AtomicU64,
    /// 16: when it was taken, nanoseconds since the Unix epoch.
    pub(crate) opened_ns: AtomicU64,
    /// 24
    pub(crate) reserved: AtomicU64,
    /// 32: the cells.
    pub(crate) cells: [AtomicU64; CELLS],
}

/// Nobody's slot.
pub(crate) const SLOT_FREE: u32 = 0;
/// The owner passes a fence of its own.
pub(crate) const SLOT_FENCED: u32 = 1;
/// The owner relies on the writer's `membarrier`.
pub(crate) const SLOT_UNFENCED: u32 = 2;

pub(crate) const SLOT_BYTES: u64 = size_of::<Slot>() as u64;

/// Where slot `index` starts; also the offset of the byte that its owner locks.
pub(crate) const fn slot_offset(index: u32) -> u64 {
    PAGE + (index as u64) * SLOT_BYTES
}

// SAFETY:
// - it consists of atomics, for which any bytes are a value, without padding (asserted below).
unsafe impl Shared for State {}
// SAFETY:
// - as for `State`.
unsafe impl Shared for DataHeader {}
// SAFETY:
// - as for `State`.
unsafe impl Shared for ReadersHeader {}
// SAFETY:
// - as for `State`.
unsafe impl Shared for Slot {}

const _: () = {
    assert!(cfg!(target_endian = "little") && cfg!(target_pointer_width = "64"));
    assert!(offset_of!(State, generation) == 24);
    assert!(offset_of!(State, boot_id) == 64);
    assert!(offset_of!(State, adopted_id) == 104);
    assert!(offset_of!(State, history) == 1024);
    assert!(size_of::<State>() == 1536);
    assert!(offset_of!(DataHeader, readers_id) == 72 && offset_of!(DataHeader, hash) == 80);
    assert!(offset_of!(ReadersHeader, counters) == 64 && size_of::<ReadersHeader>() == 72);
    assert!(size_of::<DataHeader>() == 88);
    assert!(SLOT_BYTES == 128);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_version_packs_index_size_and_checksum() {
        for (index, size, checksum) in
            [(0, 0, 0), (1, MAX_BYTES, u64::MAX), (1, 12345, 0xabcdef), (0, 1 << 38, 1)]
        {
            let version = InstanceVersion::new(index, size, checksum);
            assert_eq!(version.idx() as u64, index);
            assert_eq!(version.size() as u64, size);
            assert_eq!(version.checksum(), checksum & 0xff_ffff);
        }
    }

    #[test]
    fn the_hash_covers_every_field() {
        let fields = DataFields { index: 1, generation: 3, bytes: 10, ..Default::default() };
        let mut others = vec![fields; 9];
        others[0].index = 0;
        others[1].generation ^= 1 << 63;
        others[2].bytes ^= 1;
        others[3].checksum ^= 1;
        others[4].reserved_bytes ^= 1 << 40;
        others[5].published_ns ^= 1;
        others[6].boot_id[0] ^= 1;
        others[7].boot_id[1] ^= 1 << 63;
        others[8].readers_id ^= 1 << 40;
        assert!(others.iter().all(|other| other.hash() != fields.hash()));
    }
}
