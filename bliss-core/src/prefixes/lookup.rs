//! From an address to the value of its longest prefix: safe code, whatever the bytes say.

use super::layout::{
    KIND_BITMAP, KIND_LIST, KIND_SHIFT, KIND_VALUE, NODE_UNIT, PAYLOAD_MASK, Part, PrefixLayout,
    PrefixTableError,
};
use super::prefix::Address;
use crate::table::prefetch;

/// Bytes of a bitmap, before its entries.
pub(crate) const BITMAP_BYTES: usize = 32;
/// Bytes of a cache line.
const LINE: usize = 64;

/// An address as a number.
pub(crate) trait AddressBits: Copy + Ord {
    /// Number of bits.
    const BITS: u32;
    /// The most starts of ranges in a list: as many as take less room than a bitmap would, and for IPv6 few lines.
    const LIST: usize;
    /// Bytes of a start of a range in a list.
    const BYTES: usize;
    /// So many bits behind the first `depth`, of up to 16.
    fn bits_at(self, depth: u32, bits: u32) -> usize;
    /// How many of the starts, little-endian and in ascending order, are not above the address.
    fn count_starts(self, starts: &[u8]) -> usize;
}

impl AddressBits for u32 {
    const BITS: u32 = 32;
    const LIST: usize = 7;
    const BYTES: usize = 4;

    #[inline(always)]
    fn bits_at(self, depth: u32, bits: u32) -> usize {
        let rest = self.checked_shl(depth).unwrap_or(0);
        rest.checked_shr(32 - bits).unwrap_or(0) as usize
    }

    #[inline(always)]
    fn count_starts(self, starts: &[u8]) -> usize {
        starts.as_chunks::<4>().0.iter().map(|start| usize::from(u32::from_le_bytes(*start) <= self)).sum()
    }
}

impl AddressBits for u128 {
    const BITS: u32 = 128;
    const LIST: usize = 6;
    const BYTES: usize = 16;

    #[inline(always)]
    fn bits_at(self, depth: u32, bits: u32) -> usize {
        let rest = self.checked_shl(depth).unwrap_or(0);
        rest.checked_shr(128 - bits).unwrap_or(0) as usize
    }

    #[inline(always)]
    fn count_starts(self, starts: &[u8]) -> usize {
        starts.as_chunks::<16>().0.iter().map(|start| usize::from(u128::from_le_bytes(*start) <= self)).sum()
    }
}

/// The part that an address is looked up in, and where its root entry is.
#[inline(always)]
fn root_of(layout: &PrefixLayout, address: Address) -> (&Part, usize) {
    let (part, index) = match address {
        Address::V4(address) => (&layout.v4, address.bits_at(0, layout.v4.root_bits)),
        Address::V6(address) => (&layout.v6, address.bits_at(0, layout.v6.root_bits)),
    };
    (part, part.at + index * 4)
}

/// Asks for the root entry of an address.
#[inline(always)]
pub(crate) fn prefetch_root(bytes: &[u8], layout: &PrefixLayout, address: Address) {
    prefetch(bytes, root_of(layout, address).1);
}

/// Asks for the node that the root entry of an address leads to.
#[inline(always)]
pub(crate) fn prefetch_node(bytes: &[u8], layout: &PrefixLayout, address: Address) {
    let (part, root) = root_of(layout, address);
    if let Some(entry) = entry_at(bytes, root)
        && entry >> KIND_SHIFT != KIND_VALUE
    {
        prefetch_lines(bytes, part.at + node_at(entry));
    }
}

/// A node's first two lines: all of most lists, and the entries of most bitmaps.
#[inline(always)]
fn prefetch_lines(bytes: &[u8], at: usize) {
    prefetch(bytes, at);
    prefetch(bytes, at + LINE);
}

#[inline(always)]
fn node_at(entry: u32) -> usize {
    (entry & PAYLOAD_MASK) as usize * NODE_UNIT
}

#[inline(always)]
fn entry_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|entry| u32::from_le_bytes(*entry))
}

/// The value of the longest prefix of `address`, in a table whose layout in `bytes` is `layout`.
#[inline(always)]
pub(crate) fn find(bytes: &[u8], layout: &PrefixLayout, address: Address) -> Option<u32> {
    match address {
        Address::V4(address) => find_in(bytes, layout.v4, address),
        Address::V6(address) => find_in(bytes, layout.v6, address),
    }
}

#[inline(always)]
fn find_in<A: AddressBits>(bytes: &[u8], part: Part, address: A) -> Option<u32> {
    let bytes = bytes.get(part.at..)?.get(..part.bytes)?;
    let mut entry = entry_at(bytes, address.bits_at(0, part.root_bits) * 4)?;
    let mut depth = part.root_bits;
    // Each bitmap takes 8 bits, so that the walk ends whatever the bytes say.
    while entry >> KIND_SHIFT == KIND_BITMAP && depth < A::BITS {
        let at = node_at(entry);
        prefetch_lines(bytes, at);
        let bitmap = bytes.get(at..)?.first_chunk::<BITMAP_BYTES>()?;
        let run = run_of(bitmap, address.bits_at(depth, 8));
        entry = entry_at(bytes, at + BITMAP_BYTES + run * 4)?;
        depth += 8;
    }
    if entry >> KIND_SHIFT == KIND_LIST {
        entry = list_entry(bytes, node_at(entry), address)?;
    }
    if entry >> KIND_SHIFT == KIND_VALUE { (entry & PAYLOAD_MASK).checked_sub(1) } else { None }
}

/// The run in which bit `bit` lies: how many bits are set up to it, without the first.
#[inline(always)]
fn run_of(bitmap: &[u8; BITMAP_BYTES], bit: usize) -> usize {
    let (words, _) = bitmap.as_chunks::<8>();
    let mut ones = 0;
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // How many bits of this word count, from its lowest on.
        let counted = (bit + 1).saturating_sub(i * 64).min(64);
        let mask = if counted == 64 { u64::MAX } else { (1 << counted) - 1 };
        ones += (word & mask).count_ones() as usize;
    }
    ones.saturating_sub(1)
}

#[inline(always)]
fn list_entry<A: AddressBits>(bytes: &[u8], at: usize, address: A) -> Option<u32> {
    let node = bytes.get(at..)?;
    let (starts, rest) = node.split_first_chunk::<4>()?;
    let count = (u32::from_le_bytes(*starts) as usize).min(A::LIST);
    let (starts, values) = rest.split_at_checked(count * A::BYTES)?;
    entry_at(values, address.count_starts(starts) * 4)
}

/// A prefix table in borrowed bytes.
///
/// Every access is checked against the slice, so that wrong bytes give a wrong answer at worst.
///
/// ```
/// # #[cfg(feature = "build")] {
/// use bliss_core::build::PrefixTableBuilder;
/// use bliss_core::prefixes::{Prefix, PrefixTable};
///
/// let mut builder = PrefixTableBuilder::default();
/// builder.push(Prefix::parse(b"192.0.2.0/24")?, 1)?;
/// builder.push(Prefix::parse(b"192.0.2.128/25")?, 2)?;
/// let bytes = builder.build()?;
///
/// let table = PrefixTable::open(&bytes)?;
/// let address = |text: &str| text.parse::<core::net::IpAddr>().map(Into::into);
/// assert_eq!(table.get(address("192.0.2.1")?), Some(1));
/// assert_eq!(table.get(address("::ffff:192.0.2.129")?), Some(2));
/// assert!(!table.contains(address("198.51.100.1")?));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PrefixTable<'a> {
    bytes: &'a [u8],
    layout: PrefixLayout,
}

impl<'a> PrefixTable<'a> {
    /// A table at the start of `bytes`, which may begin anywhere in memory.
    ///
    /// # Errors
    /// Where [`PrefixLayout::read`] refuses it.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PrefixTableError> {
        Ok(Self { layout: PrefixLayout::read(bytes)?, bytes })
    }

    /// A table whose layout was read from these bytes before. Bytes that do not fit it give wrong answers, no more.
    #[inline]
    pub fn with_layout(bytes: &'a [u8], layout: PrefixLayout) -> Self {
        Self { bytes, layout }
    }

    /// Sizes of its parts.
    pub fn layout(&self) -> &PrefixLayout {
        &self.layout
    }

    /// The table's bytes, with its header and without what may follow it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.get(..self.layout.bytes()).unwrap_or_default()
    }

    /// The value of the longest prefix that `address` is in.
    #[inline]
    pub fn get(&self, address: Address) -> Option<u32> {
        find(self.bytes, &self.layout, address)
    }

    /// Whether `address` is in any prefix.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        self.get(address).is_some()
    }
}
