//! Building a dimension's table and changing it in place.

mod header;
mod patch;
mod region;
mod rows;
mod writer;

pub use patch::{TableMut, Target};
pub use rows::Rows;
pub(in crate::build) use writer::write_row as write_slot_row;
pub use writer::{BuildJob, Column, Source, build, build_jobs, finish};

#[cfg(test)]
mod tests;
