//! The rows of a dimension by the prefixes that they belong to.
//!
//! ```text
//! offset 0     8  magic, the letters BLISSNET
//! offset 8     4  layout version, u32 LE
//! offset 12    4  columns
//! offset 16    8  rows, u64 LE: prefixes with the same time and values share one
//! offset 24    8  length of the prefix table in bytes, a multiple of 64
//! offset 32   32  zero
//! offset 64       the prefix table, whose values are numbers of rows
//! then            rows, each as in a slot of a table: u64 LE number + 1 | u32 LE updated_at | columns × u32 LE
//! ```

use super::layout::{HEADER_BYTES, PrefixLayout, PrefixTableError, VERSION, u32_at, u64_at};
use super::lookup::{PrefixTable, find};
use super::prefix::Address;
use crate::schema::MAX_FEATURES;
use crate::table::{Row, SLOT_HEAD_BYTES};

/// Read as a little-endian number.
pub(crate) const ROWS_MAGIC: u64 = u64::from_le_bytes(*b"BLISSNET");

/// Sizes of the parts, read from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixRowsLayout {
    /// Counted from where the header begins.
    pub(crate) table: PrefixLayout,
    rows_at: usize,
    rows: u64,
    columns: usize,
}

impl PrefixRowsLayout {
    /// Reads the header at the start of `bytes` and checks that they hold what it says, in constant time.
    ///
    /// # Errors
    /// Where they are something else, of another version, cut off, or damaged.
    pub fn read(bytes: &[u8]) -> Result<Self, PrefixTableError> {
        let found = bytes.len() as u64;
        if u64_at(bytes, 0) != ROWS_MAGIC || u32_at(bytes, 8) != VERSION {
            return Err(PrefixTableError::Version);
        }
        let (columns, rows, table_bytes) = (u32_at(bytes, 12), u64_at(bytes, 16), u64_at(bytes, 24));
        let columns = usize::try_from(columns).map_err(|_| PrefixTableError::Header)?;
        let stride = SLOT_HEAD_BYTES as u64 + 4 * columns as u64;
        let rows_at = table_bytes.checked_add(HEADER_BYTES as u64);
        let end = rows_at
            .and_then(|at| at.checked_add(rows.checked_mul(stride)?))
            .ok_or(PrefixTableError::Header)?;
        if end > found {
            return Err(PrefixTableError::CutOff { expected: end, found });
        }
        let rows_at = rows_at.and_then(|at| usize::try_from(at).ok()).ok_or(PrefixTableError::Header)?;
        let table = PrefixLayout::read(bytes.get(HEADER_BYTES..rows_at).ok_or(PrefixTableError::Header)?)?;
        if table.bytes() + HEADER_BYTES != rows_at || columns > MAX_FEATURES {
            return Err(PrefixTableError::Header);
        }
        Ok(Self { table: table.moved(HEADER_BYTES), rows_at, rows, columns })
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of prefixes.
    pub fn prefixes(&self) -> u64 {
        self.table.prefixes()
    }

    /// Number of rows: prefixes with the same time and values share one.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        // As many rows as `read` found.
        self.rows_at + self.rows as usize * self.stride()
    }

    /// Offset of the first row.
    pub(crate) fn rows_at(&self) -> usize {
        self.rows_at
    }

    pub(crate) fn stride(&self) -> usize {
        SLOT_HEAD_BYTES + 4 * self.columns
    }
}

/// Prefixes and their rows in borrowed bytes. Wrong bytes give a wrong answer at worst.
#[derive(Clone, Copy, Debug)]
pub struct PrefixRowsRef<'a> {
    bytes: &'a [u8],
    layout: PrefixRowsLayout,
}

impl<'a> PrefixRowsRef<'a> {
    /// Prefixes and rows at the start of `bytes`.
    ///
    /// # Errors
    /// Where [`PrefixRowsLayout::read`] refuses them.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PrefixTableError> {
        Ok(Self { layout: PrefixRowsLayout::read(bytes)?, bytes })
    }

    /// Sizes of the parts.
    pub fn layout(&self) -> &PrefixRowsLayout {
        &self.layout
    }

    /// All bytes, without what may follow them.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.get(..self.layout.bytes()).unwrap_or_default()
    }

    /// The prefixes alone, with the numbers of their rows.
    pub fn table(&self) -> PrefixTable<'a> {
        PrefixTable::with_layout(self.bytes, self.layout.table)
    }

    /// The row of the longest prefix that `address` is in.
    #[inline]
    pub fn get(&self, address: Address) -> Option<Row<'a>> {
        let locator = PrefixLocator::new(&self.layout, 0);
        let (key, at) = locator.find(self.bytes, address)?;
        Row::at(self.bytes, at, key, self.layout.columns)
    }

    /// The row of this number.
    pub fn row(&self, number: u64) -> Option<Row<'a>> {
        let at = usize::try_from(number).ok()?.checked_mul(self.layout.stride())?;
        Row::at(self.bytes, self.layout.rows_at.checked_add(at)?, number + 1, self.layout.columns)
    }
}

/// What a lookup needs of the layout, with offsets in the publication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixLocator {
    pub(crate) table: PrefixLayout,
    rows_at: usize,
    pub(crate) stride: usize,
}

impl PrefixLocator {
    pub(crate) fn new(layout: &PrefixRowsLayout, offset: usize) -> Self {
        Self {
            table: layout.table.moved(offset),
            rows_at: layout.rows_at().saturating_add(offset),
            stride: layout.stride(),
        }
    }

    /// Key and offset of the row of `address`, as of a slot of a table.
    #[inline(always)]
    pub(crate) fn find(&self, bytes: &[u8], address: Address) -> Option<(u64, usize)> {
        let number = find(bytes, &self.table, address)?;
        // Below 2^30 times at most 2^15 bytes.
        Some((u64::from(number) + 1, self.rows_at.checked_add(number as usize * self.stride)?))
    }
}
