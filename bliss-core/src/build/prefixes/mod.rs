//! Building tables of prefixes.

mod ranges;
mod table;

pub use table::{PrefixTableBuilder, PrefixesError};

#[cfg(test)]
mod tests;
