//! The checksum of a copy: a sum of the hashes of its 4 KiB blocks, each mixed with its place.
//!
//! A sum can be brought up to date for the blocks that changed; the place is mixed in so that blocks which change
//! places do not go unnoticed. It finds damage, not malice: whoever can write the file can write the checksum.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// Bytes per block.
pub(crate) const BLOCK: usize = 4096;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

fn block_hash(index: usize, block: &[u8]) -> u64 {
    mix(xxh3_64(block) ^ mix(index as u64 + 1))
}

fn finish(sum: u64, bytes: u64) -> u64 {
    sum.wrapping_add(mix(bytes ^ 0x6d6d_7379_6e63))
}

/// The checksum of these bytes.
pub(crate) fn whole(bytes: &[u8]) -> u64 {
    let sum = bytes
        .chunks(BLOCK)
        .enumerate()
        .fold(0_u64, |sum, (index, block)| sum.wrapping_add(block_hash(index, block)));
    finish(sum, bytes.len() as u64)
}

/// The hashes of the blocks of one copy, as it stands.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    hashes: Vec<u64>,
    sum: u64,
    /// Bytes that the hashes are of.
    bytes: usize,
    /// Whether they are of what the copy holds.
    known: bool,
}

impl Blocks {
    /// Forgets everything; the next update hashes all.
    pub(crate) fn forget(&mut self) {
        self.known = false;
    }

    /// Brings the hashes up to date and returns the checksum. `touched` are the ranges that changed since the last
    /// update; `None` means all.
    pub(crate) fn update(&mut self, bytes: &[u8], touched: Option<&mut Vec<Range<u64>>>) -> u64 {
        match touched {
            Some(ranges) if self.known => self.update_some(bytes, ranges),
            _ => self.update_all(bytes),
        }
        self.end(bytes.len())
    }

    fn update_all(&mut self, bytes: &[u8]) {
        self.begin();
        bytes.chunks(BLOCK).for_each(|block| self.push(block));
    }

    /// Begins anew; the blocks follow by [`push`](Self::push), in order, while they are still in the cache.
    pub(crate) fn begin(&mut self) {
        self.hashes.clear();
        self.sum = 0;
        self.known = false;
    }

    /// The next block: [`BLOCK`] bytes, or fewer if it is the last.
    pub(crate) fn push(&mut self, block: &[u8]) {
        let hash = block_hash(self.hashes.len(), block);
        self.hashes.push(hash);
        self.sum = self.sum.wrapping_add(hash);
    }

    /// That was all. Returns the checksum.
    pub(crate) fn end(&mut self, bytes: usize) -> u64 {
        self.bytes = bytes;
        self.known = true;
        finish(self.sum, bytes as u64)
    }

    /// Copies, and hashes each block while it is in the cache. Both have the same size. Returns the checksum.
    pub(crate) fn copy(&mut self, to: &mut [u8], from: &[u8]) -> u64 {
        self.begin();
        for (to, from) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)) {
            to.copy_from_slice(from);
            self.push(to);
        }
        self.end(from.len())
    }

    fn update_some(&mut self, bytes: &[u8], ranges: &mut Vec<Range<u64>>) {
        // Where the size changed, the blocks from the shorter end on are others.
        if bytes.len() != self.bytes {
            let shorter = bytes.len().min(self.bytes) as u64;
            let partial = shorter - shorter % BLOCK as u64;
            ranges.push(partial..bytes.len().max(self.bytes) as u64);
        }
        let blocks = bytes.len().div_ceil(BLOCK);
        for gone in self.hashes.drain(blocks.min(self.hashes.len())..) {
            self.sum = self.sum.wrapping_sub(gone);
        }
        self.hashes.resize(blocks, 0);
        ranges.sort_unstable_by_key(|range| range.start);
        let mut next = 0;
        for range in ranges.iter() {
            let from = (usize::try_from(range.start).unwrap_or(usize::MAX) / BLOCK).max(next);
            let to = usize::try_from(range.end).unwrap_or(usize::MAX).div_ceil(BLOCK).min(blocks);
            for (index, hash) in self.hashes.iter_mut().enumerate().take(to).skip(from) {
                let start = index * BLOCK;
                let block = bytes.get(start..bytes.len().min(start + BLOCK)).unwrap_or_default();
                let fresh = block_hash(index, block);
                self.sum = self.sum.wrapping_sub(*hash).wrapping_add(fresh);
                *hash = fresh;
            }
            next = next.max(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_that_change_places_are_noticed() {
        let mut bytes = vec![1_u8; 3 * BLOCK];
        bytes[BLOCK..2 * BLOCK].fill(2);
        let mut swapped = vec![1_u8; 3 * BLOCK];
        swapped[..BLOCK].fill(2);
        assert_ne!(whole(&bytes), whole(&swapped));
        assert_ne!(whole(&[0; 10]), whole(&[0; 11]));
        assert_ne!(whole(&[]), whole(&[0]));
    }

    proptest! {
        #[test]
        fn an_update_equals_a_fresh_sum(
            steps in prop::collection::vec((0_usize..40_000, prop::collection::vec((0_usize..40_000, 0_usize..9_000), 0..4)), 1..12)
        ) {
            let mut blocks = Blocks::default();
            let mut bytes: Vec<u8> = Vec::new();
            for (round, (size, changes)) in steps.into_iter().enumerate() {
                let old = bytes.len();
                bytes.resize(size, round as u8 + 100);
                let mut touched = Vec::new();
                for (start, len) in changes {
                    let (start, end) = (start.min(size), (start + len).min(size));
                    bytes[start..end].fill(round as u8 + 1);
                    touched.push(start as u64..end as u64);
                }
                if old < size { touched.push(old as u64..size as u64); }
                prop_assert_eq!(blocks.update(&bytes, Some(&mut touched)), whole(&bytes));
                let mut copied = vec![0; bytes.len()];
                if round % 4 == 3 {
                    prop_assert_eq!(blocks.copy(&mut copied, &bytes), whole(&bytes));
                    prop_assert_eq!(&copied, &bytes);
                }
            }
        }
    }
}
