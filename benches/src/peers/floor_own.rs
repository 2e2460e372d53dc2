//! The floor on BLISS's own mapping: the lines that a lookup reads, at addresses known beforehand.
//!
//! Of each key the pilot, and the slot in which the key is or would be: its key, its time and its row, on one or two lines.
//! Nothing is hashed, searched or compared while the clock runs, and the slot's lines are asked for before the pilot is
//! there. What is left is what the layout itself costs on the same pages.
//!
//! To find a slot its pilot has to be read, which brings it into the caches. So addresses are computed for a batch of
//! requests before the first is timed: between a pilot's two loads lie as many others as between two lookups of BLISS.

use bliss_core::publication::features::FeaturesRef;
use bliss_core::table::{Locator, SLOT_HEAD_BYTES, prefetch};

use anyhow::Context;
use mmap_sync::{Guard, Options, Reader};

use crate::workload::{DIMENSIONS, VALUES, Vector, WIDTH};

/// Bytes of a slot that a lookup reads: its head and a row.
const SLOT_BYTES: usize = SLOT_HEAD_BYTES + 4 * WIDTH;

/// Where the pilot and the slot of a key are.
pub type Lines<'a> = [(&'a u8, &'a [u8; SLOT_BYTES]); DIMENSIONS];

/// Opens what is published in a directory, mapped as BLISS's clients map it.
///
/// # Errors
/// As [`Options::open_reader`].
pub fn open(directory: &std::path::Path) -> anyhow::Result<Reader> {
    let options = Options::new(directory.join(bliss_store::FEATURES)).prefault(true).huge_pages(true);
    let reader = options.open_reader()?;
    while reader.unpopulated_bytes() > 0 {
        reader.maintain()?;
    }
    Ok(reader)
}

/// The published features and the vector that rows are copied to.
#[derive(Debug)]
pub struct OwnFloor<'a> {
    bytes: &'a [u8],
    tables: Vec<(usize, bliss_core::table::Layout)>,
    vector: Box<Vector>,
}

impl<'a> OwnFloor<'a> {
    /// The floor on what a guard holds.
    ///
    /// # Errors
    /// Where that is no snapshot of the workload.
    pub fn new(guard: &'a Guard<'_>) -> anyhow::Result<Self> {
        let bytes = guard.bytes();
        let snapshot = FeaturesRef::open(bytes)?;
        let table = |dimension| -> anyhow::Result<_> {
            let (at, layout) = snapshot.table_offset(dimension)?;
            Ok((usize::try_from(at)?, layout))
        };
        let tables = (0..DIMENSIONS).map(table).collect::<anyhow::Result<_>>()?;
        Ok(Self { bytes, tables, vector: Box::new([0.0; VALUES]) })
    }

    /// Where the pilots and slots of a request's keys are.
    ///
    /// # Errors
    /// Where one would lie outside the snapshot.
    pub fn lines(&self, keys: &[u64; DIMENSIONS]) -> anyhow::Result<Lines<'a>> {
        let mut lines = [(&0_u8, &[0; SLOT_BYTES]); DIMENSIONS];
        for ((line, key), (table_at, layout)) in lines.iter_mut().zip(keys).zip(&self.tables) {
            let table = self.bytes.get(*table_at..).context("table")?;
            let locator = Locator::new(layout, 0);
            let mut state = locator.start(*key);
            let pilot = table.get(state.offset).context("pilot")?;
            locator.resolve(&mut state, *pilot);
            let slot = table.get(state.offset..).and_then(|slot| slot.first_chunk());
            *line = (pilot, slot.context("slot")?);
        }
        Ok(lines)
    }

    /// Loads the lines and copies the rows. Gives a number that depends on all pilots and keys, so that none is left out.
    #[inline]
    pub fn load(&mut self, lines: &Lines<'_>) -> u64 {
        for (pilot, slot) in lines {
            prefetch(std::slice::from_ref(*pilot), 0);
            prefetch(*slot, 0);
            prefetch(*slot, SLOT_BYTES - 1);
        }
        let mut sum = 0_u64;
        for (values, (pilot, slot)) in self.vector.as_chunks_mut::<WIDTH>().0.iter_mut().zip(lines) {
            let (head, row) = slot.split_at(SLOT_HEAD_BYTES);
            sum ^= u64::from(**pilot) ^ head.first_chunk().map_or(0, |key| u64::from_le_bytes(*key));
            if let Some(row) = row.as_chunks::<4>().0.first_chunk::<WIDTH>() {
                *values = row.map(f32::from_le_bytes);
            }
        }
        sum
    }

    /// The rows that were copied last.
    pub fn values(&self) -> &Vector {
        &self.vector
    }
}
