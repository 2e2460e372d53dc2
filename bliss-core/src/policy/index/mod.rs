//! Which rules may hold for a request, found without asking each of them.
//!
//! A rule holds if all its conditions do. For each thing that conditions look at (the score, the method, the host, the path, a
//! feature) there is a table from its values to the set of rules that are still possible: those that do not look at it, and those
//! whose conditions on it hold. The sets of what a request is, intersected, are its candidates; [`super::decide`] asks these
//! alone, in their order and whole. So the index leaves rules out and answers nothing, and a decision costs as much as the things
//! that rules look at, not as the rules.
//!
//! Not in the index, and left to the rules themselves: times, shares of clients, passes, and conditions of which any of several features
//! is enough.
#![allow(missing_docs)] // rkyv's derive makes undocumented types.

#[cfg(feature = "build")]
mod build;

use rkyv::rend::u64_le;
use rkyv::{Archive, Serialize};

use super::compiled::MAX_RULES;
use super::decide::{Facts, Seen};

/// Words of a set.
const WORDS: usize = MAX_RULES / 64;
/// Scores, and 0 for a request without one.
pub(super) const SCORES: usize = 100;

/// A set of rules: bit `n % 64` of word `n / 64` for rule `n`.
pub(super) type Bits = [u64; WORDS];
type ArchivedBits = [u64_le; WORDS];

#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Index {
    /// For each score the rules that it leaves possible; the first is that of no score.
    pub(super) scores: Vec<Bits>,
    pub(super) methods: Texts,
    /// By the hash of the host.
    pub(super) hosts: Numbers,
    pub(super) paths: Paths,
    /// Those that most rules look at come first.
    pub(super) sources: Vec<Numbers>,
}

/// The rules that look at something, and those possible for some texts and for every other one.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Texts {
    pub(super) looking: Bits,
    pub(super) other: Bits,
    pub(super) texts: Vec<(String, Bits)>,
}

/// The same of numbers, or of anything that has a number.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Numbers {
    /// The feature; of no meaning for hosts.
    pub(super) source: u32,
    /// Whether numbers are bits of a hash, not those of a quantity.
    pub(super) is_category: bool,
    pub(super) looking: Bits,
    pub(super) missing: Bits,
    pub(super) unbound: Bits,
    /// [Ranks](rank) in their order.
    pub(super) keys: Vec<u32>,
    /// Below the first key, at it, between it and the next, and so on, above the last.
    pub(super) cells: Vec<Bits>,
}

/// Paths and prefixes of paths, as a tree of what they have in common: a path is followed from the root, which is the first node.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Paths {
    pub(super) looking: Bits,
    /// For paths that are not known.
    pub(super) other: Bits,
    /// Children of one node lie side by side, and behind it.
    pub(super) nodes: Vec<PathNode>,
    /// The first byte of each node's text.
    pub(super) firsts: Vec<u8>,
}

#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct PathNode {
    /// What it adds to the text of its parent.
    pub(super) text: Vec<u8>,
    pub(super) children: u32,
    pub(super) first_child: u32,
    /// For the path that ends here.
    pub(super) equal: Bits,
    /// For one that goes on as no child does.
    pub(super) longer: Bits,
}

/// Where a number is among others.
pub(super) fn rank(value: f32) -> u32 {
    // Both zeros are one.
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The same for hosts in upper and lower case; others may share it.
pub(super) fn host_rank(host: &[u8]) -> u32 {
    let mut hash = host.len() as u64;
    for part in host.chunks(8) {
        let mut word = [0; 8];
        word.iter_mut().zip(part).for_each(|(to, from)| *to = from | 0x20);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
    // The upper half.
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// Rules that may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidates(Bits);

impl Candidates {
    #[inline]
    fn keep(&mut self, bits: &ArchivedBits) {
        self.0.iter_mut().zip(bits).for_each(|(word, bits)| *word &= bits.to_native());
    }

    /// Whether some of them look at something.
    #[inline]
    fn look(&self, looking: &ArchivedBits) -> bool {
        self.0.iter().zip(looking).fold(0, |any, (word, bits)| any | word & bits.to_native()) != 0
    }
}

impl Iterator for Candidates {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let (at, word) = self.0.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        // At most 63.
        let bit = word.trailing_zeros() as usize;
        *word &= *word - 1;
        Some(at * 64 + bit)
    }
}

impl ArchivedIndex {
    /// Whether the index has the parts that a compiler makes.
    pub(super) fn is_sound(&self) -> bool {
        let numbers = |numbers: &ArchivedNumbers| numbers.cells.len() == numbers.keys.len() * 2 + 1;
        self.scores.len() == SCORES && numbers(&self.hosts) && self.sources.iter().all(numbers)
    }

    pub(super) fn has_methods(&self) -> bool {
        self.methods.looking.iter().any(|word| word.to_native() != 0)
    }

    pub(super) fn has_hosts(&self) -> bool {
        self.hosts.looking.iter().any(|word| word.to_native() != 0)
    }

    pub(super) fn has_paths(&self) -> bool {
        self.paths.looking.iter().any(|word| word.to_native() != 0)
    }

    /// The rules that may hold. Where damaged bytes lack a set, no rule is left out for it.
    #[inline]
    pub(super) fn candidates(&self, facts: &Facts<'_>, value: &impl Fn(usize) -> Seen) -> Candidates {
        let mut candidates = Candidates([u64::MAX; WORDS]);
        if let Some(bits) = self.scores.get(usize::from(facts.score.unwrap_or(0))) {
            candidates.keep(bits);
        }
        if candidates.look(&self.methods.looking) {
            candidates.keep(self.methods.of(facts.method));
        }
        if candidates.look(&self.paths.looking) {
            candidates.keep(self.paths.of(facts.path));
        }
        if candidates.look(&self.hosts.looking) {
            candidates.keep(match facts.host {
                Some(host) => self.hosts.of(host_rank(host)),
                None => &self.hosts.unbound,
            });
        }
        for numbers in self.sources.iter() {
            if candidates.look(&numbers.looking) {
                let seen = usize::try_from(numbers.source.to_native()).map_or(Seen::Unbound, value);
                candidates.keep(numbers.seen(seen));
            }
        }
        candidates
    }
}

impl ArchivedTexts {
    #[inline]
    fn of(&self, text: Option<&[u8]>) -> &ArchivedBits {
        let found = self.texts.iter().find(|known| Some(known.0.as_bytes()) == text);
        found.map_or(&self.other, |known| &known.1)
    }
}

impl ArchivedNumbers {
    #[inline]
    fn seen(&self, seen: Seen) -> &ArchivedBits {
        match seen {
            Seen::Is(value) if self.is_category => self.of(value.to_bits()),
            // Compares with nothing.
            Seen::Is(value) if value.is_nan() => &self.unbound,
            Seen::Is(value) => self.of(rank(value)),
            Seen::Missing => &self.missing,
            Seen::Unbound => &self.unbound,
        }
    }

    #[inline]
    fn of(&self, rank: u32) -> &ArchivedBits {
        let below = self.keys.partition_point(|key| key.to_native() < rank);
        let is_at = self.keys.get(below).is_some_and(|key| key.to_native() == rank);
        self.cells.get(below * 2 + usize::from(is_at)).unwrap_or(&self.unbound)
    }
}

impl ArchivedPaths {
    #[inline]
    fn of(&self, path: Option<&[u8]>) -> &ArchivedBits {
        let (Some(mut rest), Some(mut node)) = (path, self.nodes.first()) else { return &self.other };
        // Each child takes a byte at least.
        while let Some(first) = rest.first() {
            let children = node.children(self.firsts.as_slice());
            let Some(at) = children.1.iter().position(|byte| byte == first) else { return &node.longer };
            let Some(child) = self.nodes.get(children.0 + at) else { return &node.longer };
            match rest.strip_prefix(child.text.as_slice()) {
                Some(after) if after.len() < rest.len() => (rest, node) = (after, child),
                _ => return &node.longer,
            }
        }
        &node.equal
    }
}

impl ArchivedPathNode {
    /// Where its children begin, and their first bytes.
    #[inline]
    fn children<'a>(&self, firsts: &'a [u8]) -> (usize, &'a [u8]) {
        let native = |n: rkyv::rend::u32_le| usize::try_from(n.to_native()).unwrap_or(usize::MAX);
        let (from, count) = (native(self.first_child), native(self.children));
        (from, firsts.get(from..).and_then(|rest| rest.get(..count)).unwrap_or_default())
    }
}
