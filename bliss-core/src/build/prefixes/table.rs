//! Building a prefix table: its root and nodes from ranges.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use super::ranges::{Network, RangeAddress, flatten, sort};
use crate::prefixes::{
    Address, HEADER_BYTES, KIND_BITMAP, KIND_LIST, KIND_SHIFT, MAGIC, MAX_VALUE, NODE_UNIT, PAYLOAD_MASK,
    Prefix, VERSION,
};

const WORD: usize = 4;
const WORDS_PER_UNIT: usize = NODE_UNIT / WORD;
/// Words of a bitmap.
const BITMAP_WORDS: usize = 8;
/// With so many ranges a root of 8 or 16 bits takes little beside them.
const RANGES_FOR_8_BITS: usize = 64;
const RANGES_FOR_16_BITS: usize = 8192;

/// Why prefixes cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixesError {
    /// Two values for one prefix.
    #[error("prefix {0} is there twice, with different values; remove one")]
    Duplicate(Prefix),
    /// A value beyond what an entry holds.
    #[error("prefix {prefix}: its value {value} is above {MAX_VALUE}")]
    Value {
        /// The prefix.
        prefix: Prefix,
        /// Its value.
        value: u32,
    },
    /// A row of another width than the dimension.
    #[error("a row of prefixes has {found} values, the dimension {expected} features")]
    Width {
        /// Features of the dimension.
        expected: usize,
        /// Values of the row.
        found: usize,
    },
    /// More than offsets of nodes reach, 16 GiB.
    #[error("too many prefixes for one table: {0}")]
    TooMany(usize),
}

/// Prefixes and their values, in any order, on their way into a [`PrefixTable`](crate::prefixes::PrefixTable).
#[derive(Clone, Debug, Default)]
pub struct PrefixTableBuilder {
    v4: Vec<Network<u32>>,
    v6: Vec<Network<u128>>,
}

impl PrefixTableBuilder {
    /// Adds a prefix. A set of prefixes gives all of them one value.
    ///
    /// # Errors
    /// [`PrefixesError::Value`] for one of 2^30 - 1 and more.
    pub fn push(&mut self, prefix: Prefix, value: u32) -> Result<(), PrefixesError> {
        if value > MAX_VALUE {
            return Err(PrefixesError::Value { prefix, value });
        }
        let (bits, entry) = (prefix.bits(), value + 1);
        match prefix.address() {
            Address::V4(address) => self.v4.push(Network { address, bits, entry }),
            Address::V6(address) => self.v6.push(Network { address, bits, entry }),
        }
        Ok(())
    }

    /// Number of prefixes pushed.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether no prefix was pushed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table's bytes, a multiple of 64. A prefix may be there twice with one value.
    ///
    /// # Errors
    /// [`PrefixesError::Duplicate`], [`PrefixesError::TooMany`].
    pub fn build(mut self) -> Result<Vec<u8>, PrefixesError> {
        let duplicate = |address, bits| PrefixesError::Duplicate(Prefix::around(address, bits));
        sort(&mut self.v4).map_err(|n| duplicate(Address::V4(n.address), n.bits))?;
        sort(&mut self.v6).map_err(|n| duplicate(Address::V6(n.address), n.bits))?;
        let prefixes = self.len();
        let too_many = PrefixesError::TooMany(prefixes);
        let (v4, v4_root_bits) = nodes(&flatten(&self.v4)).ok_or_else(|| too_many.clone())?;
        let (v6, v6_root_bits) = nodes(&flatten(&self.v6)).ok_or(too_many)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + (v4.len() + v6.len()) * WORD);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([VERSION, v4_root_bits, v6_root_bits, 0].map(u32::to_le_bytes).as_flattened());
        let numbers = [v4.len() * WORD, v6.len() * WORD, prefixes].map(|number| number as u64);
        bytes.extend(numbers.map(u64::to_le_bytes).as_flattened());
        bytes.resize(HEADER_BYTES, 0);
        for word in v4.into_iter().chain(v6) {
            bytes.extend(word.to_le_bytes());
        }
        Ok(bytes)
    }
}

/// The words of a part, and the bits of its root; `None` where it would be too large.
fn nodes<A: RangeAddress>(ranges: &[(A, u32)]) -> Option<(Vec<u32>, u32)> {
    let root_bits = match ranges.len() {
        0..RANGES_FOR_8_BITS => 0,
        RANGES_FOR_8_BITS..RANGES_FOR_16_BITS => 8,
        _ => 16,
    };
    let root_entries = 1_usize << root_bits;
    let mut nodes = Nodes { words: vec![0; root_entries.next_multiple_of(WORDS_PER_UNIT)], runs: Vec::new() };
    let ((_, first), rest) = ranges.split_first()?;
    if root_bits == 0 {
        nodes.words[0] = nodes.span(rest, *first, 0)?;
    } else {
        nodes.collect_runs(rest, *first, 0, root_bits)?;
        let runs = core::mem::take(&mut nodes.runs);
        let ends = runs.iter().skip(1).map(|(at, _)| *at).chain([root_entries]);
        for (&(from, entry), to) in runs.iter().zip(ends) {
            nodes.words[from..to].fill(entry);
        }
    }
    nodes.align(NODE_UNIT * 4);
    Some((nodes.words, root_bits))
}

/// Nodes that are being laid out, one behind the other.
struct Nodes {
    words: Vec<u32>,
    /// First index and entry of each run of the nodes that are being made, the innermost one's at the end.
    runs: Vec<(usize, u32)>,
}

impl Nodes {
    /// The entry for the addresses that share their first `depth` bits: of those from the first on it is `entry`, `ranges`
    /// begin beyond.
    fn span<A: RangeAddress>(&mut self, ranges: &[(A, u32)], entry: u32, depth: u32) -> Option<u32> {
        if ranges.is_empty() {
            return Some(entry);
        }
        if ranges.len() <= A::LIST {
            self.align(NODE_UNIT);
            let node = self.entry(KIND_LIST)?;
            self.words.push(ranges.len() as u32);
            ranges.iter().for_each(|(start, _)| self.words.extend(start.words()));
            self.words.push(entry);
            self.words.extend(ranges.iter().map(|(_, entry)| *entry));
            return Some(node);
        }
        let own = self.runs.len();
        self.collect_runs(ranges, entry, depth, 8)?;
        // So that the bitmap lies in one line.
        self.align(BITMAP_WORDS * WORD);
        let node = self.entry(KIND_BITMAP)?;
        let mut bitmap = [0_u32; BITMAP_WORDS];
        for (at, _) in &self.runs[own..] {
            bitmap[at / 32] |= 1 << (at % 32);
        }
        self.words.extend(bitmap);
        self.words.extend(self.runs.drain(own..).map(|(_, entry)| entry));
        Some(node)
    }

    /// Adds the runs of entries by the `bits` bits after the first `depth`.
    fn collect_runs<A: RangeAddress>(
        &mut self,
        mut ranges: &[(A, u32)],
        mut entry: u32,
        depth: u32,
        bits: u32,
    ) -> Option<()> {
        let own = self.runs.len();
        let mut next = 0;
        while let Some(&(start, _)) = ranges.first() {
            let child = start.bits_at(depth, bits);
            let (mut inside, rest) =
                ranges.split_at(ranges.partition_point(|(start, _)| start.bits_at(depth, bits) == child));
            if next < child {
                self.run(own, next, entry);
            }
            if let Some(((start, first), others)) = inside.split_first()
                && start.begins(depth + bits)
            {
                (entry, inside) = (*first, others);
            }
            let node = self.span(inside, entry, depth + bits)?;
            self.run(own, child, node);
            entry = inside.last().map_or(entry, |(_, last)| *last);
            (next, ranges) = (child + 1, rest);
        }
        if next < 1 << bits {
            self.run(own, next, entry);
        }
        Some(())
    }

    /// From index `at` on the entry is this one.
    fn run(&mut self, own: usize, at: usize, entry: u32) {
        if self.runs.len() == own || self.runs.last().is_none_or(|(_, last)| *last != entry) {
            self.runs.push((at, entry));
        }
    }

    /// The entry that leads to the node that begins here.
    fn entry(&self, kind: u32) -> Option<u32> {
        let unit = u32::try_from(self.words.len() / WORDS_PER_UNIT).ok()?;
        (unit <= PAYLOAD_MASK).then_some(kind << KIND_SHIFT | unit)
    }

    fn align(&mut self, bytes: usize) {
        self.words.resize(self.words.len().next_multiple_of(bytes / WORD), 0);
    }
}
