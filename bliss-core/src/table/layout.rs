//! Sizes and offsets of a table's parts.

use crate::schema::MAX_FEATURES;

/// Offsets are `u64` in the file and `usize` in memory; they are the same on the 64-bit targets we support.
const _: () = assert!(usize::BITS == 64, "feature tables need a 64-bit target");

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"BLISSTBL");
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
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
/// … and rebuilt when more than this share would be.
const MAX_LOAD_PERCENT: u64 = 92;
/// A table with less than this share of its slots in use is made smaller.
const SPARSE_LOAD_PERCENT: u64 = 84;
/// A table that is to have room to double is laid out for this share of its slots in use …
const DOUBLING_LOAD_PERCENT: u64 = 45;
/// … and made smaller where it has more slots than so many times its rows.
const DOUBLING_SPARSE_SLOTS: u64 = 3;
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
    /// No room without laying the table out again for more rows.
    #[error("feature table is full: {rows} rows wanted, room for {room}")]
    Full {
        /// Rows wanted.
        rows: u64,
        /// Rows that fit.
        room: u64,
    },
    /// Keys so alike that no arrangement of a region holds them; hashed keys never are.
    #[error("feature table has no slot for key {key:016x}: too many keys share its region")]
    Crowded {
        /// One of the keys.
        key: u64,
    },
}

/// Sizes of a table's parts. A value of this type is consistent: every slot it can name lies below
/// [`Layout::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(crate) columns: u32,
    pub(crate) stride: u32,
    pub(crate) regions: u32,
    pub(crate) region_slots: u32,
    pub(crate) region_pilots: u32,
}

impl Layout {
    /// The layout for `rows` rows of `columns` columns, with room for some more.
    ///
    /// # Errors
    /// Where `columns` is 0 or above [`MAX_FEATURES`], or the table would pass 2^32 regions.
    pub fn for_rows(rows: u64, columns: usize) -> Result<Self, TableError> {
        Self::with_room(rows, columns, rows < SMALL_ROWS)
    }

    /// As [`Self::for_rows`], with room to double if `room_to_double`.
    ///
    /// # Errors
    /// As [`Self::for_rows`].
    pub fn with_room(rows: u64, columns: usize, room_to_double: bool) -> Result<Self, TableError> {
        let load = if room_to_double { DOUBLING_LOAD_PERCENT } else { TARGET_LOAD_PERCENT };
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

    /// Rows above which the table must be laid out again.
    pub fn max_rows(&self) -> u64 {
        self.slots() as u64 * MAX_LOAD_PERCENT / 100
    }

    /// Whether a table of `rows` rows should be laid out again, smaller; one with `room_to_double` if it is much too
    /// large.
    pub fn is_sparse(&self, rows: u64, room_to_double: bool) -> bool {
        let slots = self.slots() as u64;
        if room_to_double {
            slots > rows * DOUBLING_SPARSE_SLOTS
        } else {
            rows * 100 < slots * SPARSE_LOAD_PERCENT
        }
    }

    /// Where the slots begin.
    pub(crate) fn slots_at(&self) -> usize {
        (HEADER_BYTES + self.regions() * self.region_pilots()).next_multiple_of(64)
    }

    /// Bytes of the slots of one region.
    pub(crate) fn region_bytes(&self) -> usize {
        self.region_slots() * self.stride()
    }
}

/// Offset of the number of rows in the header.
pub(crate) const ROWS_AT: usize = 32;

/// Bytes of a slot: head and columns, padded to the largest power of two up to 64 that costs at most a
/// sixteenth, so that as few slots as possible lie across one line more than they need.
fn stride(columns: u64) -> u64 {
    let bare = SLOT_HEAD_BYTES as u64 + 4 * columns;
    let padded = |align: u64| bare.next_multiple_of(align);
    [64, 32, 16, 8].into_iter().map(padded).find(|&p| (p - bare) * 16 <= bare).unwrap_or(bare)
}

/// The `u32` at `at` of the header; 0 beyond it.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map_or(0, |w| u32::from_le_bytes(*w))
}

/// The `u64` at `at`; 0 beyond the end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    word.map_or(0, |w| u64::from_le_bytes(*w))
}
