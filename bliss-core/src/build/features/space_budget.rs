//! How much room the tables of the features are given beside what they must hold.

use crate::publication::features::{DimensionRows, FeaturesRef};
use crate::table::SLOT_HEAD_BYTES;

/// Below so many rows over all tables each of them has room to double: memory hardly matters then, and a table that moves
/// because it grows is out of its readers' caches.
const SMALL_TOTAL_ROWS: u64 = 100_000;
/// From there on only the smallest tables have it, which together hold at most one of so many bytes.
const SMALLEST_TABLES_ONE_IN: u64 = 60;
/// From [`SMALL_TOTAL_ROWS`] on features that take more than so many percent of what they must hold are too large. Tables that
/// are rewritten only where they are sparse stay below, as far as it is rows that take the room: with 1.3 times
/// promised, what is left is for tables that have hardly any.
const MAX_PERCENT: u64 = 127;

/// What the tables of the features must hold: keys, times of update and columns of all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceBudget {
    /// Rows, and bytes of all of them, of each table.
    tables: Vec<(u64, u64)>,
}

impl SpaceBudget {
    /// By all tables of the features.
    pub fn by(features: FeaturesRef<'_>) -> Self {
        let mut budget = Self::default();
        for index in 0..features.metadata.tables.len() {
            match features.dimension(index) {
                Ok(DimensionRows::Keys(table)) => budget.add(table.rows(), table.layout().columns()),
                Ok(DimensionRows::Prefixes(prefixes)) => budget.add_whole(prefixes.bytes().len()),
                Err(_) => budget.add(0, 0),
            }
        }
        budget
    }

    /// Takes up the next table.
    pub(super) fn add(&mut self, rows: u64, columns: usize) {
        self.tables.push((rows, bytes(rows, columns)));
    }

    /// Takes up a dimension that is laid out without room to grow.
    pub(super) fn add_whole(&mut self, bytes: usize) {
        self.tables.push((0, bytes as u64));
    }

    /// Says that one of the tables has other rows.
    pub(super) fn set(&mut self, index: usize, rows: u64, columns: usize) {
        if let Some(table) = self.tables.get_mut(index) {
            *table = (rows, bytes(rows, columns));
        }
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.1))
    }

    /// Whether all tables are to have room to double.
    pub(super) fn all_have_room_to_double(&self) -> bool {
        self.tables.iter().fold(0_u64, |sum, table| sum.saturating_add(table.0)) < SMALL_TOTAL_ROWS
    }

    /// Whether one of the tables, of so many rows and columns, is to have room to double.
    pub(super) fn has_room_to_double(&self, rows: u64, columns: usize) -> bool {
        let not_larger = self.tables.iter().filter(|table| table.1 <= bytes(rows, columns));
        let not_larger = not_larger.fold(0_u64, |sum, table| sum.saturating_add(table.1));
        self.all_have_room_to_double() || not_larger.saturating_mul(SMALLEST_TABLES_ONE_IN) <= self.bytes()
    }

    /// Whether features of this length take more than they may, so that they should be rebuilt if that makes them
    /// smaller.
    pub fn is_exceeded_by(&self, len: u64) -> bool {
        !self.all_have_room_to_double() && len.saturating_mul(100) > self.bytes().saturating_mul(MAX_PERCENT)
    }
}

fn bytes(rows: u64, columns: usize) -> u64 {
    rows.saturating_mul((SLOT_HEAD_BYTES + 4 * columns) as u64)
}
