//! One module per subject: BLISS and those it is compared with.

pub mod bliss;
pub mod bliss_c;
pub mod catboost;
pub mod cloudflare;
pub mod floor;
pub mod floor_own;
pub mod hash_map;
pub mod lmdb;
pub mod memcached;
pub mod redis;
mod server;

use crate::workload::DIMENSIONS;

/// Somebody who looks up the rows of a request.
///
/// What is timed is [`look_up`](Lookup::look_up) alone: it must leave all values in one vector.
pub trait Lookup {
    /// Looks up one key per dimension; false where that failed.
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool;

    /// The values of the last lookup, zeros where there was no row.
    fn values(&self) -> &[f32];

    /// Bit i is set where the last lookup found a row in dimension i.
    fn present(&self) -> u16;

    /// Bytes that hold the rows, as far as the subject tells.
    fn bytes(&self) -> u64;
}

/// A vector of values and who was found, as most subjects fill it.
#[derive(Debug)]
struct Vector {
    values: crate::workload::Vector,
    present: u16,
}

impl Vector {
    fn new() -> Self {
        Self { values: [0.0; crate::workload::VALUES], present: 0 }
    }

    /// Copies a row, or zeros, into the values of a dimension.
    #[inline]
    fn set(&mut self, dimension: usize, row: Option<&[f32]>) {
        let values = &mut self.values[dimension * crate::workload::WIDTH..][..crate::workload::WIDTH];
        match row {
            Some(row) => values.copy_from_slice(row),
            None => values.fill(0.0),
        }
        self.present |= u16::from(row.is_some()) << dimension;
    }

    /// Copies little-endian bytes of a row, or zeros.
    #[inline]
    fn set_bytes(&mut self, dimension: usize, row: Option<&[u8]>) {
        let values = &mut self.values[dimension * crate::workload::WIDTH..][..crate::workload::WIDTH];
        match row {
            Some(row) => {
                for (to, from) in values.iter_mut().zip(row.as_chunks::<4>().0) {
                    *to = f32::from_le_bytes(*from);
                }
            }
            None => values.fill(0.0),
        }
        self.present |= u16::from(row.is_some()) << dimension;
    }
}

/// The bytes of a row's values.
fn row_bytes(values: &crate::workload::Values) -> [u8; 4 * crate::workload::WIDTH] {
    let mut bytes = [0; 4 * crate::workload::WIDTH];
    for (to, from) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *to = from.to_le_bytes();
    }
    bytes
}
