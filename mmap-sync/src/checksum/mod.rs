//! The checksum of a copy: a [sum over its lines](lines), each mixed with its index.
//!
//! A sum can be brought up to date for what changed: line by line where the bytes of before are at hand
//! ([`Blocks::edit`]), and by blocks of 4 KiB, whose sums are remembered, where they are not ([`Blocks::update`]). It
//! finds damage, not malice: whoever can write the file can write the checksum.

mod lines;

use std::ops::Range;

use crate::parallel_copy::share;

/// Bytes per line.
pub(crate) const LINE: usize = 64;

/// Bytes per block.
pub(crate) const BLOCK: usize = 4096;

/// Copies of at least so many bytes are of no use to the caches, and are made by several threads.
const LARGE: usize = crate::parallel_copy::LARGE;

/// Blocks that a thread takes at a time.
const PIECE: usize = 512;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// The number of the first line of a block.
fn first_line(block: usize) -> u64 {
    (block as u64).wrapping_mul((BLOCK / LINE) as u64)
}

fn block_sum(index: usize, block: &[u8]) -> u64 {
    lines::sum(first_line(index), block)
}

fn finish(sum: u64, bytes: u64) -> u64 {
    sum.wrapping_add(mix(bytes ^ 0x6d6d_7379_6e63))
}

/// The checksum of these bytes.
pub(crate) fn whole(bytes: &[u8]) -> u64 {
    finish(lines::sum(0, bytes), bytes.len() as u64)
}

/// The sums of the blocks of one copy, as it stands.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    sums: Vec<u64>,
    sum: u64,
    /// Bytes that the sums are of.
    bytes: usize,
    /// Whether they are of what the copy holds.
    known: bool,
}

impl Blocks {
    /// Forgets everything; the next update sums all.
    pub(crate) fn forget(&mut self) {
        self.known = false;
    }

    /// Brings the sums up to date and returns the checksum. `touched` are the ranges that changed since the last
    /// update; `None` means all.
    pub(crate) fn update(
        &mut self,
        bytes: &[u8],
        touched: Option<&mut Vec<Range<u64>>>,
        threads: usize,
    ) -> u64 {
        match touched {
            Some(ranges) if self.known => self.update_some(bytes, ranges),
            _ => self.update_all(bytes, threads),
        }
        self.end(bytes.len())
    }

    fn update_all(&mut self, bytes: &[u8], threads: usize) {
        self.begin();
        self.sums.resize(bytes.len().div_ceil(BLOCK), 0);
        let pieces = self.sums.chunks_mut(PIECE).zip(bytes.chunks(PIECE * BLOCK)).enumerate();
        let threads = if bytes.len() < LARGE { 1 } else { threads };
        self.sum = share(pieces, threads, |(piece, (sums, bytes))| {
            sums.iter_mut().zip(bytes.chunks(BLOCK)).enumerate().fold(0_u64, |all, (i, (sum, block))| {
                *sum = block_sum(piece * PIECE + i, block);
                all.wrapping_add(*sum)
            })
        });
    }

    /// Starts again; the blocks follow by [`push`](Self::push) and [`push_copy`](Self::push_copy), in order.
    pub(crate) fn begin(&mut self) {
        self.sums.clear();
        self.sum = 0;
        self.known = false;
    }

    /// The next block: [`BLOCK`] bytes, or fewer if it is the last.
    pub(crate) fn push(&mut self, block: &[u8]) {
        let sum = block_sum(self.sums.len(), block);
        self.sums.push(sum);
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Copies the next blocks. Both have the same size, a multiple of [`BLOCK`] unless they are the last.
    pub(crate) fn push_copy(&mut self, to: &mut [u8], from: &[u8], threads: usize) {
        let before = self.sums.len();
        self.sums.resize(before + from.len().div_ceil(BLOCK), 0);
        let large = from.len() >= LARGE;
        let sums = self.sums.get_mut(before..).unwrap_or_default().chunks_mut(PIECE);
        let pieces = sums.zip(to.chunks_mut(PIECE * BLOCK).zip(from.chunks(PIECE * BLOCK))).enumerate();
        let sum = share(pieces, if large { threads } else { 1 }, |(piece, (sums, (to, from)))| {
            lines::copy_blocks(before + piece * PIECE, to, from, sums, large)
        });
        self.sum = self.sum.wrapping_add(sum);
    }

    /// That was all. Returns the checksum.
    pub(crate) fn end(&mut self, bytes: usize) -> u64 {
        self.bytes = bytes;
        self.known = true;
        finish(self.sum, bytes as u64)
    }

    /// Copies everything. Both have the same size. Returns the checksum.
    pub(crate) fn copy(&mut self, to: &mut [u8], from: &[u8], threads: usize) -> u64 {
        self.begin();
        self.push_copy(to, from, threads);
        self.end(from.len())
    }

    /// Before bytes of another size than that of the last update are edited: a line that one of both sizes cuts off has
    /// another sum in each, so that the blocks from there on are left to the next update.
    pub(crate) fn fit(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let whole = bytes.min(self.bytes) / BLOCK;
        self.keep(whole);
        self.bytes = whole * BLOCK;
    }

    /// Forgets all blocks beyond so many.
    fn keep(&mut self, blocks: usize) {
        for gone in self.sums.drain(blocks.min(self.sums.len())..) {
            self.sum = self.sum.wrapping_sub(gone);
        }
    }

    /// Lets `change` change a range of `bytes`, which is all that they differ in from what the sums are of, beside what
    /// the next [`update`](Self::update) is passed; they [fit](Self::fit). If `change` panics, the sums are forgotten.
    pub(crate) fn edit<R>(
        &mut self,
        bytes: &mut [u8],
        range: Range<usize>,
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        if !self.known {
            return change(bytes.get_mut(range).unwrap_or_default());
        }
        let around = range.start / LINE * LINE..range.end.next_multiple_of(LINE).min(bytes.len());
        self.known = false;
        self.account(bytes, around.clone(), u64::wrapping_sub);
        let changed = change(bytes.get_mut(range).unwrap_or_default());
        self.account(bytes, around, u64::wrapping_add);
        self.known = true;
        changed
    }

    /// Adds the lines of a range to the sums, or subtracts them.
    #[inline]
    fn account(&mut self, bytes: &[u8], lines: Range<usize>, add: impl Fn(u64, u64) -> u64) {
        let mut start = lines.start;
        while start < lines.end {
            let block = start / BLOCK;
            let end = lines.end.min((block + 1) * BLOCK);
            let sum = lines::sum((start / LINE) as u64, bytes.get(start..end).unwrap_or_default());
            // Beyond the blocks that are known there is nothing to keep up to date.
            if let Some(known) = self.sums.get_mut(block) {
                *known = add(*known, sum);
                self.sum = add(self.sum, sum);
            }
            start = end;
        }
    }

    fn update_some(&mut self, bytes: &[u8], ranges: &mut Vec<Range<u64>>) {
        // Where the size changed, the blocks from the shorter end on are others.
        if bytes.len() != self.bytes {
            let shorter = bytes.len().min(self.bytes) as u64;
            let partial = shorter - shorter % BLOCK as u64;
            ranges.push(partial..bytes.len().max(self.bytes) as u64);
        }
        let blocks = bytes.len().div_ceil(BLOCK);
        self.keep(blocks);
        self.sums.resize(blocks, 0);
        ranges.sort_unstable_by_key(|range| range.start);
        let mut next = 0;
        for range in ranges.iter() {
            let from = (usize::try_from(range.start).unwrap_or(usize::MAX) / BLOCK).max(next);
            let to = usize::try_from(range.end).unwrap_or(usize::MAX).div_ceil(BLOCK).min(blocks);
            for (index, sum) in self.sums.iter_mut().enumerate().take(to).skip(from) {
                let start = index * BLOCK;
                let block = bytes.get(start..bytes.len().min(start + BLOCK)).unwrap_or_default();
                let fresh = block_sum(index, block);
                self.sum = self.sum.wrapping_sub(*sum).wrapping_add(fresh);
                *sum = fresh;
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
    fn lines_that_change_places_are_noticed() {
        for distance in [LINE, BLOCK, 3 * BLOCK] {
            let mut bytes = vec![1_u8; 5 * BLOCK];
            let mut swapped = bytes.clone();
            bytes[distance..distance + LINE].fill(2);
            swapped[..LINE].fill(2);
            assert_ne!(whole(&bytes), whole(&swapped));
        }
        assert_ne!(whole(&[0; 10]), whole(&[0; 11]));
        assert_ne!(whole(&[]), whole(&[0]));
    }

    #[test]
    fn several_threads_come_to_the_same_sum() {
        let from: Vec<u8> = (0..LARGE + 3 * BLOCK + 77).map(|i| ((i * 31) >> 3) as u8).collect();
        let mut to = vec![0; from.len()];
        for threads in [1, 2, 3, 7] {
            let mut blocks = Blocks::default();
            to.fill(0);
            assert_eq!(blocks.copy(&mut to, &from, threads), whole(&from), "{threads} threads");
            assert_eq!(to, from);
            assert_eq!(Blocks::default().update(&from, None, threads), whole(&from), "{threads} threads");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Resize(usize),
        Touch(usize, usize),
        Edit(usize, usize),
        Update,
        Copy,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0_usize..40_000).prop_map(Step::Resize),
            3 => (0_usize..40_000, 0_usize..9_000).prop_map(|(at, len)| Step::Touch(at, len)),
            3 => (0_usize..40_000, 0_usize..200).prop_map(|(at, len)| Step::Edit(at, len)),
            1 => (0_usize..40_000, 0_usize..9_000).prop_map(|(at, len)| Step::Edit(at, len)),
            3 => Just(Step::Update),
            1 => Just(Step::Copy),
        ]
    }

    proptest! {
        #[test]
        fn an_update_equals_a_fresh_sum(steps in prop::collection::vec(step(), 1..60)) {
            let mut blocks = Blocks::default();
            let mut bytes: Vec<u8> = vec![7; 10_000];
            let mut touched = Vec::new();
            blocks.update(&bytes, None, 1);
            for (round, step) in steps.into_iter().enumerate() {
                let value = round as u8 + 1;
                let clip = |at: usize, len: usize, size: usize| at.min(size)..(at + len).min(size);
                match step {
                    Step::Resize(size) => {
                        // What was cut off and comes back is another.
                        touched.push(size.min(bytes.len()) as u64..40_000);
                        bytes.resize(size, value);
                    }
                    Step::Touch(at, len) => {
                        let range = clip(at, len, bytes.len());
                        bytes[range.clone()].fill(value);
                        touched.push(range.start as u64..range.end as u64);
                    }
                    Step::Edit(at, len) => {
                        let range = clip(at, len, bytes.len());
                        blocks.fit(bytes.len());
                        blocks.edit(&mut bytes, range, |bytes| bytes.fill(value));
                    }
                    Step::Update => {
                        prop_assert_eq!(blocks.update(&bytes, Some(&mut touched), 1), whole(&bytes));
                        touched.clear();
                    }
                    Step::Copy => {
                        let from: Vec<u8> = bytes.iter().map(|b| b ^ value).collect();
                        prop_assert_eq!(blocks.copy(&mut bytes, &from, 1), whole(&from));
                        touched.clear();
                    }
                }
            }
            prop_assert_eq!(blocks.update(&bytes, Some(&mut touched), 1), whole(&bytes));
        }
    }
}
