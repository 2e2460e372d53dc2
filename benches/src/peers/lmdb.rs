//! LMDB through `heed`: one read transaction and 12 gets per request.

use std::path::Path;

use anyhow::Context;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags};

use super::{Lookup, Vector, row_bytes};
use crate::workload::{DIMENSIONS, Workload, values};

/// An environment with one database, whose keys are a dimension and a key.
pub struct Lmdb {
    env: Env,
    rows: Database<'static, Bytes, Bytes>,
    vector: Vector,
    bytes: u64,
}

#[inline]
fn name(dimension: usize, key: u64) -> [u8; 9] {
    let mut name = [dimension as u8; 9];
    name[1..].copy_from_slice(&key.to_be_bytes());
    name
}

impl Lmdb {
    /// Stores all rows under `directory`.
    ///
    /// # Errors
    /// Where LMDB refuses something.
    pub fn new(directory: &Path, workload: &Workload) -> anyhow::Result<Self> {
        let map_size = (64 << 20) + usize::try_from(workload.keys())? * 160;
        // SAFETY:
        // - the directory is this benchmark's own: nobody else opens or changes the files.
        // - without syncing, a crash may damage the file, which is of no use then anyhow.
        let env = unsafe {
            EnvOpenOptions::new()
                .map_size(map_size.next_multiple_of(4096))
                .flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP)
                .open(directory)?
        };
        let transaction = env.write_txn()?;
        let created = env.create_databases_and_commit(transaction, |opener, transaction| {
            let rows: Database<'_, Bytes, Bytes> = opener.create_database(transaction, None)?;
            for dimension in 0..DIMENSIONS {
                let mut keys: Vec<u64> = workload.dimension(dimension).collect();
                keys.sort_unstable();
                for key in keys {
                    let row = row_bytes(&values(key, 0));
                    rows.put_with_flags(transaction, PutFlags::APPEND, &name(dimension, key), &row)?;
                }
            }
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(rows))
        })?;
        let rows = created.unwrap_commit();
        let bytes = env.real_disk_size().context("size")?;
        Ok(Self { env, rows, vector: Vector::new(), bytes })
    }

    #[inline]
    fn get(&mut self, keys: &[u64; DIMENSIONS]) -> Result<(), heed::Error> {
        let transaction = self.env.read_txn()?;
        self.vector.present = 0;
        for (dimension, key) in keys.iter().enumerate() {
            self.vector.set_bytes(dimension, self.rows.get(&transaction, &name(dimension, *key))?);
        }
        Ok(())
    }
}

impl Lookup for Lmdb {
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool {
        self.get(keys).is_ok()
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
