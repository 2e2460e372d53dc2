//! Sizes and places of a table's parts, and the arithmetic from a key to its only slot.

use crate::schema::MAX_FEATURES;

/// Offsets are `u64` in the file and `usize` in memory; they are the same on the 64-bit targets we support.
const _: () = assert!(usize::BITS == 64, "feature tables need a 64-bit target");

const MAGIC: u64 = u64::from_le_bytes(*b"BLISSTBL");
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 64;
/// Bytes of a slot before its columns: key and time of update.
pub const SLOT_HEAD_BYTES: usize = 12;
/// The largest region: small enough that the writer can rearrange one in microseconds, large enough that the
/// number of keys per region hardly varies.
const MAX_REGION_SLOTS: u64 = 4096;
/// Slots for each bucket of keys with a pilot of its own. More make fewer pilots, of which more are in the processor's
/// caches, and searching them slower.
const SLOTS_PER_PILOT: u64 = 3;
/// A table is laid out for this share of its slots in use …
const TARGET_LOAD_PERCENT: u64 = 88;
/// … and made anew when more than this share would be.
const MAX_LOAD_PERCENT: u64 = 92;
/// A table with less than this share of its slots in use is made smaller.
const SPARSE_LOAD_PERCENT: u64 = 84;
/// A table that is to have room to double is laid out for this share of its slots in use …
const ROOMY_LOAD_PERCENT: u64 = 45;
/// … and made smaller where it has more slots than so many times its rows.
const ROOMY_SPARSE_SLOTS: u64 = 3;
/// A table by itself has room to double where it has fewer rows than this.
const SMALL_ROWS: u64 = 1500;

/// Why a table's bytes are refused, or cannot take more rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The bytes end before the header, or before the end that the header gives.
    #[error("table is cut off: {expected} bytes expected, {found} found")]
    CutOff {
        /// Bytes that the header (or its size) asks for.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The bytes are no table.
    #[error("not a feature table: it does not begin with the letters BLISSTBL")]
    Magic,
    /// The table has a layout this library does not know.
    #[error(
        "feature table of layout version {found}, this library reads version 1; upgrade the older of daemon and library"
    )]
    Version {
        /// Version found.
        found: u32,
    },
    /// A size in the header contradicts the others or the limits.
    #[error("feature table's header is wrong: {field} is {found}")]
    Header {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// The rows have another width than the table.
    #[error("rows of {found} columns for a table of {expected}")]
    Width {
        /// Columns of the table.
        expected: usize,
        /// Columns of the rows.
        found: usize,
    },
    /// A set of rows that must be unique holds a key twice.
    #[error("key {key:016x} is there twice")]
    Duplicate {
        /// The key.
        key: u64,
    },
    /// No room without laying the table out anew for more rows.
    #[error("feature table is full: {rows} rows wanted, room for {room}")]
    Full {
        /// Rows wanted.
        rows: u64,
        /// Rows that fit.
        room: u64,
    },
    /// Keys so alike that no arrangement of a region holds them; hashed keys never are.
    #[error("feature table cannot place key {key:016x}: too many keys share its region")]
    Crowded {
        /// One of the keys.
        key: u64,
    },
}

/// Sizes of a table's parts. A value of this type is consistent: every slot it can name lies below
/// [`Layout::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    columns: u32,
    stride: u32,
    regions: u32,
    region_slots: u32,
    region_pilots: u32,
}

/// Where a key's pilot lies and what, with the pilot, gives its slot.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    region: u64,
    bucket: u64,
    /// What is left of the key after the region was taken from it; uniform within a region.
    fraction: u64,
}

#[inline]
fn high_product(a: u64, b: u64) -> u64 {
    (u128::from(a).wrapping_mul(u128::from(b)) >> 64) as u64
}

impl Layout {
    /// The layout for `rows` rows of `columns` columns, with room for some more.
    ///
    /// # Errors
    /// Where `columns` is 0 or above [`MAX_FEATURES`], or the table would pass 2^32 regions.
    pub fn for_rows(rows: u64, columns: usize) -> Result<Self, TableError> {
        Self::with_room(rows, columns, rows < SMALL_ROWS)
    }

    /// As [`Self::for_rows`], with room to double where it is to be `roomy`.
    ///
    /// # Errors
    /// As [`Self::for_rows`].
    pub fn with_room(rows: u64, columns: usize, roomy: bool) -> Result<Self, TableError> {
        let load = if roomy { ROOMY_LOAD_PERCENT } else { TARGET_LOAD_PERCENT };
        let slots = rows.saturating_mul(100).div_ceil(load).max(16);
        let regions = slots.div_ceil(MAX_REGION_SLOTS);
        let region_slots = slots.div_ceil(regions);
        let narrow = |field, n: u64| u32::try_from(n).map_err(|_| TableError::Header { field, found: n });
        let wide_columns = columns as u64;
        let layout = Self {
            columns: narrow("columns", wide_columns)?,
            stride: narrow("columns", stride(wide_columns))?,
            regions: narrow("regions", regions)?,
            region_slots: narrow("region_slots", region_slots)?,
            region_pilots: narrow("region_pilots", region_slots.div_ceil(SLOTS_PER_PILOT))?,
        };
        layout.check()?;
        Ok(layout)
    }

    /// Reads and checks the header at the start of `bytes`, which may go on beyond the table.
    ///
    /// # Errors
    /// Where the bytes are not a table, or are shorter than the header says.
    pub fn read(bytes: &[u8]) -> Result<Self, TableError> {
        let cut =
            |expected: usize| TableError::CutOff { expected: expected as u64, found: bytes.len() as u64 };
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(cut(HEADER_BYTES))?;
        if u64_at(header, 0) != MAGIC {
            return Err(TableError::Magic);
        }
        let found = u32_at(header, 8);
        if found != VERSION {
            return Err(TableError::Version { found });
        }
        let layout = Self {
            columns: u32_at(header, 12),
            stride: u32_at(header, 16),
            region_slots: u32_at(header, 20),
            region_pilots: u32_at(header, 24),
            regions: u32_at(header, 28),
        };
        layout.check()?;
        if layout.bytes() > bytes.len() {
            return Err(cut(layout.bytes()));
        }
        Ok(layout)
    }

    /// The limits within which all offsets of the table fit `usize` and lie below [`Self::bytes`].
    fn check(&self) -> Result<(), TableError> {
        let wrong = |field, found: u32| Err(TableError::Header { field, found: u64::from(found) });
        if self.columns == 0 || u64::from(self.columns) > MAX_FEATURES as u64 {
            return wrong("columns", self.columns);
        }
        if u64::from(self.stride) != stride(u64::from(self.columns)) {
            return wrong("stride", self.stride);
        }
        if self.region_slots == 0 || u64::from(self.region_slots) > MAX_REGION_SLOTS {
            return wrong("region_slots", self.region_slots);
        }
        if self.region_pilots == 0 || u64::from(self.region_pilots) > MAX_REGION_SLOTS {
            return wrong("region_pilots", self.region_pilots);
        }
        // With at most 2^32 regions of at most 2^12 slots of at most 2^15 bytes no product passes 2^60.
        if self.regions == 0 { wrong("regions", self.regions) } else { Ok(()) }
    }

    /// Writes the header; the rest of the table is the caller's.
    #[cfg(feature = "build")]
    pub(super) fn write(&self, bytes: &mut [u8], rows: u64) -> Result<(), TableError> {
        let found = bytes.len() as u64;
        let header = bytes
            .first_chunk_mut::<HEADER_BYTES>()
            .ok_or(TableError::CutOff { expected: HEADER_BYTES as u64, found })?;
        *header = [0; HEADER_BYTES];
        let words = [VERSION, self.columns, self.stride, self.region_slots, self.region_pilots, self.regions];
        header[..8].copy_from_slice(&MAGIC.to_le_bytes());
        for (to, word) in header[8..32].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        header[ROWS_AT..ROWS_AT + 8].copy_from_slice(&rows.to_le_bytes());
        Ok(())
    }

    /// Number of 4-byte columns of a row.
    pub fn columns(&self) -> usize {
        self.columns as usize
    }

    /// Distance of one slot from the next, in bytes.
    pub fn stride(&self) -> usize {
        self.stride as usize
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.regions as usize
    }

    /// Number of slots of a region.
    pub fn region_slots(&self) -> usize {
        self.region_slots as usize
    }

    /// Number of pilots of a region.
    pub fn region_pilots(&self) -> usize {
        self.region_pilots as usize
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.regions() * self.region_slots()
    }

    /// Length of the table in bytes, with its header.
    pub fn bytes(&self) -> usize {
        self.slots_at() + self.regions() * self.region_bytes()
    }

    /// Rows above which the table must be laid out anew.
    pub fn max_rows(&self) -> u64 {
        self.slots() as u64 * MAX_LOAD_PERCENT / 100
    }

    /// Whether a table of `rows` rows should rather be laid out anew, smaller; one that may be `roomy` if it is much too
    /// large.
    pub fn is_sparse(&self, rows: u64, roomy: bool) -> bool {
        let slots = self.slots() as u64;
        if roomy { slots > rows * ROOMY_SPARSE_SLOTS } else { rows * 100 < slots * SPARSE_LOAD_PERCENT }
    }

    /// Where the slots begin.
    pub(super) fn slots_at(&self) -> usize {
        (HEADER_BYTES + self.regions() * self.region_pilots()).next_multiple_of(64)
    }

    /// Bytes of the slots of one region.
    pub(super) fn region_bytes(&self) -> usize {
        self.region_slots() * self.stride()
    }

    /// The key's region, bucket, and what is left of it.
    #[inline]
    pub fn probe(&self, key: u64) -> Probe {
        Probe::new(key, self.regions, self.region_pilots)
    }

    /// Offset of the probe's pilot in the table.
    #[inline]
    pub fn pilot_at(&self, probe: &Probe) -> usize {
        HEADER_BYTES + (probe.region * u64::from(self.region_pilots) + probe.bucket) as usize
    }

    /// Offset of the only slot that can hold the probe's key, given its pilot.
    #[inline]
    pub fn slot_at(&self, probe: &Probe, pilot: u8) -> usize {
        let slot = probe.region * u64::from(self.region_slots)
            + slot_in_region(probe.fraction, pilot, self.region_slots);
        self.slots_at() + slot as usize * self.stride()
    }
}

impl Probe {
    #[inline]
    fn new(key: u64, regions: u32, region_pilots: u32) -> Self {
        let regions = u64::from(regions);
        let fraction = key.wrapping_mul(regions);
        // Mixed, so that keys that differ in low bits only do not all share a bucket.
        let mixed = fraction.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bucket = high_product(mixed, u64::from(region_pilots));
        Self { region: high_product(key, regions), bucket, fraction }
    }

    /// Number of the region.
    pub fn region(&self) -> usize {
        self.region as usize
    }

    /// Number of the bucket within its region.
    #[cfg(feature = "build")]
    pub(super) fn bucket(&self) -> usize {
        self.bucket as usize
    }

    #[cfg(feature = "build")]
    pub(super) fn fraction(&self) -> u64 {
        self.fraction
    }
}

/// A table's place in a snapshot, reduced to what a lookup needs, so that those of all dimensions take few cache lines.
#[derive(Clone, Copy, Debug)]
pub struct Locator {
    pilots_at: usize,
    slots_at: usize,
    regions: u32,
    region_pilots: u32,
    region_slots: u32,
    stride: u32,
    region_bytes: u32,
}

/// A key on its way to its slot.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    /// The key; 0 is no row's.
    pub key: u64,
    fraction: u64,
    /// Offset in the snapshot of the region's slots.
    region_at: usize,
    /// Offset in the snapshot of the key's pilot, and after [`Locator::find`] of its slot.
    pub at: usize,
}

impl Sought {
    /// No key: it is found nowhere.
    pub const NOTHING: Self = Self { key: 0, fraction: 0, region_at: 0, at: usize::MAX };
}

impl Locator {
    /// For the table of this layout at offset `table_at` of a snapshot.
    pub fn new(layout: &Layout, table_at: usize) -> Self {
        Self {
            pilots_at: table_at + HEADER_BYTES,
            slots_at: table_at + layout.slots_at(),
            regions: layout.regions,
            region_pilots: layout.region_pilots,
            region_slots: layout.region_slots,
            stride: layout.stride,
            // At most 2^12 slots of at most 2^15 bytes.
            region_bytes: layout.region_slots * layout.stride,
        }
    }

    /// Distance of one slot from the next, in bytes.
    #[inline]
    pub fn stride(&self) -> usize {
        self.stride as usize
    }

    /// Begins to look for `key`: where its pilot is.
    #[inline]
    pub fn seek(&self, key: u64) -> Sought {
        let probe = Probe::new(key, self.regions, self.region_pilots);
        Sought {
            key,
            fraction: probe.fraction,
            region_at: self.slots_at + probe.region as usize * self.region_bytes as usize,
            at: self.pilots_at + (probe.region * u64::from(self.region_pilots) + probe.bucket) as usize,
        }
    }

    /// Goes on with the pilot: where the only slot is that can hold the key.
    #[inline]
    pub fn find(&self, sought: &mut Sought, pilot: u8) {
        let slot = slot_in_region(sought.fraction, pilot, self.region_slots);
        sought.at = sought.region_at + slot as usize * self.stride();
    }
}

/// The slot within a region of a key with this fraction, under this pilot: below `region_slots`.
#[inline]
pub(super) fn slot_in_region(fraction: u64, pilot: u8, region_slots: u32) -> u64 {
    let seeded = fraction ^ (u64::from(pilot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The high half of the product depends on every bit of `seeded`.
    let mixed = seeded.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    (mixed * u64::from(region_slots)) >> 32
}

/// Offset of the number of rows in the header.
pub(super) const ROWS_AT: usize = 32;

/// Bytes of a slot: head and columns, padded to the largest power of two up to 64 that costs at most a
/// sixteenth, so that as few slots as possible lie across one line more than they need.
fn stride(columns: u64) -> u64 {
    let bare = SLOT_HEAD_BYTES as u64 + 4 * columns;
    let padded = |align: u64| bare.next_multiple_of(align);
    [64, 32, 16, 8].into_iter().map(padded).find(|&p| (p - bare) * 16 <= bare).unwrap_or(bare)
}

/// The `u32` at `at` of the header; 0 beyond it.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map_or(0, |w| u32::from_le_bytes(*w))
}

/// The `u64` at `at`; 0 beyond the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    word.map_or(0, |w| u64::from_le_bytes(*w))
}
