//! Building and changing the features of a publication.

mod builder;
mod change;
mod prefixes;
mod relocation;
mod space_budget;

pub use builder::{FeaturesBuilder, schema_id};
pub use change::{Change, DimensionChange, FeaturesError, apply_in_place};
pub use relocation::TableRelocation;
pub use space_budget::SpaceBudget;

use crate::publication::features::FeaturesRef;

impl FeaturesRef<'_> {
    /// Rows and prefixes of all dimensions together.
    pub fn rows(&self) -> u64 {
        (0..self.metadata.tables.len()).filter_map(|i| self.dimension(i).ok()).map(|rows| rows.rows()).sum()
    }
}

#[cfg(test)]
mod tests;
