//! Plain hash maps of the standard library in this process, rows inline.

use std::collections::HashMap;

use super::{Lookup, Vector};
use crate::workload::{DIMENSIONS, Values, Workload, values};

/// A map per dimension.
pub struct Maps {
    maps: Vec<HashMap<u64, Values>>,
    vector: Vector,
}

impl Maps {
    /// Fills the maps.
    pub fn new(workload: &Workload) -> Self {
        let maps = (0..DIMENSIONS).map(|d| workload.dimension(d).map(|key| (key, values(key, 0))).collect());
        Self { maps: maps.collect(), vector: Vector::new() }
    }
}

impl Lookup for Maps {
    #[inline]
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool {
        self.vector.present = 0;
        for (dimension, (map, key)) in self.maps.iter().zip(keys).enumerate() {
            self.vector.set(dimension, map.get(key).map(|row| row.as_slice()));
        }
        true
    }

    fn values(&self) -> &[f32] {
        &self.vector.values
    }

    fn present(&self) -> u16 {
        self.vector.present
    }

    fn bytes(&self) -> u64 {
        let slots: usize = self.maps.iter().map(|map| map.capacity() * 8 / 7).sum();
        slots as u64 * (size_of::<(u64, Values)>() as u64 + 1)
    }
}
