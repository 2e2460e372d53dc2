//! Changing tables in place.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use core::ops::Range;

use super::region::Arrangement;
use super::rows::Rows;
use super::writer::write_row;
use crate::table::layout::{HEADER_BYTES, ROWS_AT, u64_at};
use crate::table::{Layout, Locator, Row, TableError, TableRef, prefetch};

/// Bytes that are changed in place, perhaps of an owner that tracks each change.
pub trait Target {
    /// The bytes as they are now.
    fn bytes(&self) -> &[u8];

    /// Lets `change` change a range of them.
    fn change(&mut self, range: Range<usize>, change: impl FnOnce(&mut [u8]));
}

impl Target for [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn change(&mut self, range: Range<usize>, change: impl FnOnce(&mut [u8])) {
        change(&mut self[range]);
    }
}

/// A table that is changed in place.
#[derive(Debug)]
pub struct TableMut<'a, T: ?Sized> {
    target: &'a mut T,
    at: usize,
    layout: Layout,
    locator: Locator,
}

impl<'a, T: Target + ?Sized> TableMut<'a, T> {
    /// A table at offset `at` of `target`.
    ///
    /// # Errors
    /// Where [`Layout::read`] refuses it.
    pub fn open(target: &'a mut T, at: usize) -> Result<Self, TableError> {
        let layout = Layout::read(target.bytes().get(at..).unwrap_or_default())?;
        Ok(Self { target, at, layout, locator: Locator::new(&layout, 0) })
    }

    /// The same table for reading.
    #[inline]
    pub fn as_ref(&self) -> TableRef<'_> {
        TableRef::with_layout(self.bytes(), self.layout)
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.target.bytes()[self.at..]
    }

    #[inline]
    fn change(&mut self, range: Range<usize>, change: impl FnOnce(&mut [u8])) {
        self.target.change(self.at + range.start..self.at + range.end, change);
    }

    /// Takes out the rows of `deletes`, then adds or replaces those of `upserts`, of which the last of a key counts.
    ///
    /// # Errors
    /// [`TableError::Full`] or [`TableError::Crowded`] where the table must be laid out again for more rows; some of
    /// the changes are made then, and making all of them in a new table gives the same as if none were.
    pub fn apply(&mut self, upserts: &Rows, deletes: &[u64]) -> Result<(), TableError> {
        upserts.check(self.layout.columns())?;
        let stride = self.layout.stride();
        let mut rows = self.as_ref().rows();
        for (i, &key) in deletes.iter().enumerate() {
            self.prefetch_ahead(deletes, i);
            if let Some(at) = self.find(key) {
                self.change(at..at + 8, |key| key.fill(0));
                rows = rows.saturating_sub(1);
            }
        }
        let mut inserts = Vec::new();
        for (i, &key) in upserts.keys.iter().enumerate() {
            self.prefetch_ahead(&upserts.keys, i);
            match self.find(key) {
                Some(at) => {
                    let row = |slot: &mut [u8]| write_row(slot, key, upserts.updated_at[i], upserts.row(i));
                    self.change(at..at + stride, row);
                }
                None if key == 0 => {}
                None => inserts.push(i as u32),
            }
        }
        self.set_rows(rows);
        // The last of each key, in the order of the keys and so of the regions.
        inserts.sort_unstable_by_key(|&i| (upserts.keys[i as usize], core::cmp::Reverse(i)));
        inserts.dedup_by_key(|i| upserts.keys[*i as usize]);
        let wanted = rows + inserts.len() as u64;
        if wanted > self.layout.max_rows() {
            return Err(TableError::Full { rows: wanted, room: self.layout.max_rows() });
        }
        let layout = self.layout;
        let region_of = |i: &u32| layout.probe(upserts.keys[*i as usize]).region();
        let mut arrangement = None;
        for of_region in inserts.chunk_by(|a, b| region_of(a) == region_of(b)) {
            let arrangement = arrangement.get_or_insert_with(|| Arrangement::new(layout));
            self.insert_into_region(arrangement, region_of(&of_region[0]), of_region, upserts)?;
            rows += of_region.len() as u64;
            self.set_rows(rows);
        }
        Ok(())
    }

    fn set_rows(&mut self, rows: u64) {
        self.change(ROWS_AT..ROWS_AT + 8, |bytes| bytes.copy_from_slice(&rows.to_le_bytes()));
    }

    /// Asks the processor for what keys after the `i`th will need: the pilot of one, then the slot of one whose pilot was
    /// asked for before.
    fn prefetch_ahead(&self, keys: &[u64], i: usize) {
        let (bytes, locator) = (self.bytes(), &self.locator);
        if let Some(&key) = keys.get(i + 16) {
            prefetch(bytes, locator.start(key).offset);
        }
        if let Some(&key) = keys.get(i + 8) {
            let slot = self.slot_of(key);
            prefetch(bytes, slot);
            prefetch(bytes, slot + locator.stride() - 1);
        }
    }

    /// Offset of the only slot that can hold `key`.
    #[inline]
    fn slot_of(&self, key: u64) -> usize {
        let mut state = self.locator.start(key);
        let pilot = self.bytes().get(state.offset).copied().unwrap_or_default();
        self.locator.resolve(&mut state, pilot);
        state.offset
    }

    /// Offset of the slot that holds `key`.
    fn find(&self, key: u64) -> Option<usize> {
        let slot = self.slot_of(key);
        Row::at(self.bytes(), slot, key, self.layout.columns()).filter(|_| key != 0).map(|_| slot)
    }

    /// Adds rows whose keys are not there; nothing is changed on error.
    fn insert_into_region(
        &mut self,
        arrangement: &mut Arrangement,
        region: usize,
        inserts: &[u32],
        upserts: &Rows,
    ) -> Result<(), TableError> {
        let (stride, pilot_count) = (self.layout.stride(), self.layout.region_pilots());
        let pilots_at = HEADER_BYTES + region * pilot_count;
        let slots_at = self.layout.slots_at() + region * self.layout.region_bytes();
        arrangement.clear();
        arrangement.pilots.copy_from_slice(&self.bytes()[pilots_at..pilots_at + pilot_count]);
        // Entry i came from slot `came_from[i]`; entries beyond are the inserts.
        let mut came_from = Vec::with_capacity(self.layout.region_slots());
        for slot in 0..self.layout.region_slots() {
            let key = u64_at(self.bytes(), slots_at + slot * stride);
            if key != 0 {
                arrangement.add_settled(key, slot)?;
                came_from.push(slot);
            }
        }
        for &i in inserts {
            arrangement.insert(upserts.keys[i as usize])?;
        }
        // Moved rows are copied out before their slots are written.
        let moved: Vec<(usize, usize)> = (0..self.layout.region_slots())
            .filter_map(|slot| Some((slot, arrangement.entry_at(slot)?)))
            .filter(|&(slot, entry)| came_from.get(entry) != Some(&slot))
            .collect();
        let mut held = Vec::with_capacity(moved.len() * stride);
        for &(_, entry) in &moved {
            if let Some(&slot) = came_from.get(entry) {
                let at = slots_at + slot * stride;
                held.extend_from_slice(&self.bytes()[at..at + stride]);
            }
        }
        for (entry, &slot) in came_from.iter().enumerate() {
            if arrangement.entry_at(slot) != Some(entry) {
                let at = slots_at + slot * stride;
                self.change(at..at + 8, |key| key.fill(0));
            }
        }
        let mut held = held.chunks_exact(stride);
        for (slot, entry) in moved {
            let at = slots_at + slot * stride;
            self.change(at..at + stride, |to| match entry.checked_sub(came_from.len()) {
                Some(i) => {
                    let row = inserts[i] as usize;
                    write_row(to, upserts.keys[row], upserts.updated_at[row], upserts.row(row));
                }
                None => to.copy_from_slice(held.next().unwrap_or_default()),
            });
        }
        self.change(pilots_at..pilots_at + pilot_count, |bytes| bytes.copy_from_slice(&arrangement.pilots));
        Ok(())
    }
}
