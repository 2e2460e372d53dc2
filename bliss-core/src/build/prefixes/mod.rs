//! Building tables of prefixes.

mod ranges;
mod rows;
mod table;

pub use rows::{BuiltPrefixes, PrefixRows};
pub use table::{PrefixTableBuilder, PrefixesError};

#[cfg(test)]
pub(crate) mod tests;
