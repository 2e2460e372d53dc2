//! The published crate `mmap-sync` 2.0.4, as its users hold features: hash maps archived by rkyv 0.7, read in place.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use cloudflare_mmap_sync::synchronizer::Synchronizer;

use super::{Lookup, Vector};
use crate::workload::{DIMENSIONS, Workload, values};

/// What is published: a map per dimension.
pub type Features = Vec<HashMap<u64, Vec<f32>>>;

/// How long the crate's writer waits for readers; they are not in the copy that it writes to here.
pub const GRACE: Duration = Duration::from_millis(100);

/// Why a workload is too large for it, if it is.
pub fn too_large(workload: &Workload) -> Option<&'static str> {
    // 84 bytes a row, as measured.
    let bytes = workload.keys().saturating_mul(84);
    (bytes > i32::MAX as u64).then_some("relative pointers of rkyv 0.7 reach no further than 2 GiB")
}

/// All rows, as its user keeps them to publish them.
pub fn all_rows(workload: &Workload) -> Features {
    (0..DIMENSIONS)
        .map(|d| workload.dimension(d).map(|key| (key, values(key, 0).to_vec())).collect())
        .collect()
}

/// A reading `Synchronizer`.
pub struct Cloudflare {
    synchronizer: Synchronizer,
    vector: Vector,
    bytes: u64,
}

impl Cloudflare {
    /// Publishes all rows under `directory` and opens them.
    ///
    /// # Errors
    /// As `Synchronizer::write`.
    pub fn publish(directory: &Path, workload: &Workload) -> anyhow::Result<Self> {
        let prefix = directory.join("features");
        let mut writer: Synchronizer = Synchronizer::new(prefix.as_os_str());
        let (bytes, _) = writer.write(&all_rows(workload), GRACE)?;
        Ok(Self {
            synchronizer: Synchronizer::new(prefix.as_os_str()),
            vector: Vector::new(),
            bytes: bytes as u64,
        })
    }
}

impl Lookup for Cloudflare {
    #[inline]
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool {
        // SAFETY:
        // - nobody writes while the guard is alive: the writer is gone.
        // - the bytes are the archive that this process wrote.
        let Ok(features) = (unsafe { self.synchronizer.read::<Features>(false) }) else { return false };
        self.vector.present = 0;
        for (dimension, (map, key)) in features.iter().zip(keys).enumerate() {
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
        self.bytes
    }
}
