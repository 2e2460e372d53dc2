//! What only the writer asks of a layout.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use crate::table::layout::{HEADER_BYTES, MAGIC, ROWS_AT, VERSION};
use crate::table::locator::Probe;
use crate::table::{Layout, TableError, TableRef};

impl Layout {
    /// Writes the header; the rest of the table is the caller's.
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

    /// The key's region and bucket.
    #[inline]
    pub(super) fn probe(&self, key: u64) -> Probe {
        Probe::new(key, self.regions, self.region_pilots)
    }
}

impl Probe {
    /// Index of the region.
    pub(super) fn region(&self) -> usize {
        self.region as usize
    }
}

/// Bytes of the slots of region `region`.
pub(super) fn region_of<'a>(table: &TableRef<'a>, region: usize) -> &'a [u8] {
    let layout = table.layout();
    let bytes = layout.region_bytes();
    let start = layout.slots_at() + region * bytes;
    table.bytes().get(start..start + bytes).unwrap_or_default()
}
