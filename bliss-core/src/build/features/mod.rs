//! Building and changing the features of a publication.

mod builder;
mod change;
mod relocation;
mod space_budget;

pub use builder::{FeaturesBuilder, schema_id};
pub use change::{Change, DimensionChange, FeaturesError, apply_in_place};
pub use relocation::TableRelocation;
pub use space_budget::SpaceBudget;

use crate::publication::features::FeaturesRef;

impl FeaturesRef<'_> {
    /// Rows of all tables together.
    pub fn rows(&self) -> u64 {
        (0..self.metadata.tables.len()).filter_map(|i| self.table(i).ok()).map(|table| table.rows()).sum()
    }
}

#[cfg(test)]
mod tests;
