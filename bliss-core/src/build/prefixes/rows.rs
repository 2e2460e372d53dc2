//! Rows of a dimension by prefix, on their way into a publication.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

use super::table::{PrefixTableBuilder, PrefixesError};
use crate::build::table::{Column, write_slot_row};
use crate::prefixes::{HEADER_BYTES, Prefix, PrefixRowsLayout, PrefixRowsRef, ROWS_MAGIC, VERSION};
use crate::table::SLOT_HEAD_BYTES;

/// Prefixes with their rows, in any order. Rows with the same time and values are kept once.
#[derive(Clone, Debug, Default)]
pub struct PrefixRows {
    width: usize,
    prefixes: PrefixTableBuilder,
    rows: Vec<u8>,
    /// The first row with each hash.
    numbers: HashMap<u64, u32, BuildHasherDefault<IsHash>>,
}

/// The hasher of what is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct IsHash(u64);

impl Hasher for IsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl PrefixRows {
    /// No prefixes, with rows of `width` columns.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Number of prefixes pushed.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether no prefix was pushed.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Adds a prefix with the time of its update, in seconds since the Unix epoch, and its values, as many as columns; a category
    /// is the `f32` whose bits are its hash.
    ///
    /// # Errors
    /// [`PrefixesError::Width`]; [`PrefixesError::Value`] for more than 2^30 - 1 different rows.
    pub fn push(&mut self, prefix: Prefix, updated_at: u32, values: &[f32]) -> Result<(), PrefixesError> {
        if values.len() != self.width {
            return Err(PrefixesError::Width { expected: self.width, found: values.len() });
        }
        let stride = SLOT_HEAD_BYTES + 4 * self.width;
        let at = self.rows.len();
        let number = u32::try_from(at / stride).unwrap_or(u32::MAX);
        self.rows.resize(at + stride, 0);
        write_slot_row(&mut self.rows[at..], u64::from(number) + 1, updated_at, values);
        let hash = xxh3_64(&self.rows[at + 8..]);
        let held = *self.numbers.entry(hash).or_insert(number);
        let held_at = held as usize * stride;
        // What another row with this hash holds is kept twice.
        let is_held = held != number && self.rows[held_at + 8..][..stride - 8] == self.rows[at + 8..];
        if is_held {
            self.rows.truncate(at);
        }
        self.prefixes.push(prefix, if is_held { held } else { number })
    }

    /// Lays them out. A prefix may be there twice with the same row.
    ///
    /// # Errors
    /// [`PrefixesError::Duplicate`], [`PrefixesError::TooMany`].
    pub fn build(self) -> Result<BuiltPrefixes, PrefixesError> {
        let table = self.prefixes.build()?;
        Ok(BuiltPrefixes(assemble(self.width, &table, &self.rows)))
    }
}

fn assemble(width: usize, table: &[u8], rows: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + table.len() + rows.len());
    bytes.extend(ROWS_MAGIC.to_le_bytes());
    bytes.extend([VERSION, width as u32].map(u32::to_le_bytes).as_flattened());
    let count = rows.len() / (SLOT_HEAD_BYTES + 4 * width);
    bytes.extend([count, table.len()].map(|number| (number as u64).to_le_bytes()).as_flattened());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(table);
    bytes.extend(rows);
    bytes
}

/// Prefixes and rows as they are published: [`PrefixRows::build`] makes them, off the thread that publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltPrefixes(Vec<u8>);

impl BuiltPrefixes {
    /// No prefixes, with rows of `width` columns.
    ///
    /// # Errors
    /// None in fact: nothing can be there twice.
    pub fn none(width: usize) -> Result<Self, PrefixesError> {
        PrefixRows::new(width).build()
    }

    /// The bytes that are published.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes that are published.
    pub(in crate::build) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// To look things up.
    pub fn open(&self) -> Option<PrefixRowsRef<'_>> {
        PrefixRowsRef::open(&self.0).ok()
    }

    fn layout(&self) -> Option<PrefixRowsLayout> {
        PrefixRowsLayout::read(&self.0).ok()
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.layout().map_or(0, |layout| layout.prefixes() as usize)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.layout().map_or(0, |layout| layout.columns())
    }

    /// The same prefixes, with rows of other columns.
    pub(in crate::build) fn with_columns(old: PrefixRowsRef<'_>, columns: &[Column]) -> Self {
        let mut rows = Vec::new();
        let stride = SLOT_HEAD_BYTES + 4 * columns.len();
        for number in 0..old.layout().rows() {
            // A row that is damaged has the old columns' zeros.
            let row = old.row(number);
            let held: Vec<f32> = row.iter().flat_map(|row| row.values()).collect();
            let values: Vec<f32> = columns
                .iter()
                .map(|column| match *column {
                    Column::Old(i) => held.get(i).copied().unwrap_or_default(),
                    Column::Default(value) => value,
                })
                .collect();
            let at = rows.len();
            rows.resize(at + stride, 0);
            write_slot_row(&mut rows[at..], number + 1, row.map_or(0, |row| row.updated_at), &values);
        }
        let table = &old.bytes()[HEADER_BYTES..old.layout().rows_at()];
        Self(assemble(columns.len(), table, &rows))
    }
}
