//! The machine's floor: rows of one cache line at addresses known beforehand, in a file on the same mount.
//!
//! Nothing is searched, hashed or compared; every row is there. What is left are the cache and TLB misses of one row
//! per dimension, as much at the same time as the processor manages, and the copy into one vector.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::Context;

use super::row_bytes;
use crate::workload::{DIMENSIONS, Vector, WIDTH, Workload, key, values};

/// Bytes of a row: one line.
const ROW_BYTES: usize = 4 * WIDTH;

/// A mapped file of rows of 64 bytes.
#[derive(Debug)]
pub struct Floor {
    start: *const f32,
    bytes: usize,
    workload: Workload,
    vector: Box<Vector>,
}

impl Floor {
    /// Writes the rows and maps them.
    ///
    /// # Errors
    /// Where the file cannot be written or mapped.
    pub fn new(directory: &Path, workload: &Workload) -> anyhow::Result<Self> {
        let path = directory.join("rows");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for dimension in 0..DIMENSIONS {
            let mut rows = vec![[0; ROW_BYTES]; usize::try_from(workload.rows_each)?];
            for row in 0..workload.rows_each {
                rows[workload.scattered(row)] = row_bytes(&values(key(dimension, row), 0));
            }
            out.write_all(rows.as_flattened())?;
        }
        out.flush()?;
        drop(out);
        let file = File::open(&path)?;
        let bytes = usize::try_from(file.metadata()?.len())?;
        // SAFETY:
        // - a new shared mapping of a whole file, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        anyhow::ensure!(start != libc::MAP_FAILED, std::io::Error::last_os_error());
        let vector = Box::new([0.0; DIMENSIONS * WIDTH]);
        Ok(Self { start: start.cast(), bytes, workload: *workload, vector })
    }

    /// Addresses of the rows of a request: what the others have to find.
    ///
    /// # Errors
    /// Where a row is not one of the workload's.
    pub fn addresses(&self, rows: &[u64; DIMENSIONS]) -> anyhow::Result<[*const [f32; WIDTH]; DIMENSIONS]> {
        let mut addresses = [std::ptr::null(); DIMENSIONS];
        for (dimension, (address, row)) in addresses.iter_mut().zip(rows).enumerate() {
            let rows = self.workload.rows_each;
            anyhow::ensure!(*row < rows, "row {row} of {rows}");
            let first = usize::try_from(dimension as u64 * rows).context("row")?;
            let at = (first + self.workload.scattered(*row)) * WIDTH;
            *address = self.start.wrapping_add(at).cast();
        }
        Ok(addresses)
    }

    /// Copies the rows.
    #[inline]
    pub fn look_up(&mut self, addresses: &[*const [f32; WIDTH]; DIMENSIONS]) -> &Vector {
        for (row, address) in self.vector.as_chunks_mut::<WIDTH>().0.iter_mut().zip(addresses) {
            // SAFETY:
            // - the addresses come from `addresses`, which checks that the rows are in the mapping; it lives as long as
            //   `self`, and its file is not written any more.
            // - rows begin at multiples of 64 bytes of a page-aligned mapping.
            *row = unsafe { **address };
        }
        &self.vector
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // SAFETY:
        // - the mapping that `new` made; no reference into it is alive.
        unsafe { libc::munmap(self.start.cast_mut().cast(), self.bytes) };
    }
}
