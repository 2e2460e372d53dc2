//! Rows in memory, on their way into a table.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use crate::table::{TableError, prefetch};

/// Rows in memory: columns of one dimension, in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    width: usize,
    /// Keys, one per row.
    pub keys: Vec<u64>,
    /// Times of update, one per row, in seconds since the Unix epoch.
    pub updated_at: Vec<u32>,
    /// Values, `width` per row; a category is the `f32` whose bits are its hash.
    pub values: Vec<f32>,
}

impl Rows {
    /// No rows, of `width` columns each.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Where `values` is not `width` long.
    pub fn push(&mut self, key: u64, updated_at: u32, values: &[f32]) {
        assert_eq!(values.len(), self.width, "a row has as many values as the dimension has features");
        self.keys.push(key);
        self.updated_at.push(updated_at);
        self.values.extend_from_slice(values);
    }

    /// The values of row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Asks the processor for row `i`.
    #[inline]
    pub(super) fn prefetch(&self, i: usize) {
        prefetch(&self.updated_at, i);
        prefetch(&self.values, i * self.width);
        prefetch(&self.values, (i + 1) * self.width - 1);
    }

    pub(super) fn check(&self, columns: usize) -> Result<(), TableError> {
        let whole = self.updated_at.len() == self.len() && self.values.len() == self.len() * self.width;
        if self.width == columns && whole {
            Ok(())
        } else {
            let found = if whole { self.width } else { self.values.len() / self.len().max(1) };
            Err(TableError::Width { expected: columns, found })
        }
    }
}
