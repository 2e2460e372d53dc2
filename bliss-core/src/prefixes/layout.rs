//! The header of a prefix table, and what its entries and nodes are made of.
//!
//! ```text
//! offset 0     8  magic, the letters BLISSCID
//! offset 8     4  layout version, u32 LE
//! offset 12    4  bits that choose the root entry of IPv4: 0, 8 or 16
//! offset 16    4  bits that choose the root entry of IPv6: 0, 8 or 16
//! offset 24    8  length of the part of IPv4 in bytes
//! offset 32    8  length of the part of IPv6 in bytes
//! offset 40    8  number of prefixes
//! offset 48   16  zero
//! ```

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Read as a little-endian number.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"BLISSCID");
pub(crate) const VERSION: u32 = 1;

/// The kind of an entry is what is left of it beyond this shift.
pub(crate) const KIND_SHIFT: u32 = 30;
pub(crate) const KIND_VALUE: u32 = 0;
pub(crate) const KIND_BITMAP: u32 = 1;
pub(crate) const KIND_LIST: u32 = 2;
/// The rest of an entry.
pub(crate) const PAYLOAD_MASK: u32 = (1 << KIND_SHIFT) - 1;
/// The largest value that a prefix may have.
#[cfg(feature = "build")]
pub(crate) const MAX_VALUE: u32 = PAYLOAD_MASK - 1;
/// Nodes begin at multiples of this, in bytes.
pub(crate) const NODE_UNIT: usize = 16;

/// Why bytes are refused as a prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixTableError {
    /// Shorter than its header or than the header says.
    #[error("prefix table is cut off: {expected} bytes expected, {found} found")]
    CutOff {
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Not a prefix table, or one of another version.
    #[error("not a prefix table of version {VERSION}; upgrade the older of daemon and library")]
    Version,
    /// The header says what cannot be.
    #[error("header of the prefix table is damaged")]
    Header,
}

/// Where the entries and nodes of one family of addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Offset of the root entries, from which nodes are counted.
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    /// Bits that choose the root entry.
    pub(crate) root_bits: u32,
}

/// Sizes of a table's parts, read from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLayout {
    pub(crate) v4: Part,
    pub(crate) v6: Part,
    prefixes: u64,
}

impl PrefixLayout {
    /// Reads the header at the start of `bytes` and checks that they hold what it says, in constant time. What the nodes say is
    /// checked when they are read.
    ///
    /// # Errors
    /// Where they are no prefix table, one of another version, cut off, or damaged.
    pub fn read(bytes: &[u8]) -> Result<Self, PrefixTableError> {
        let found = bytes.len() as u64;
        let header = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or(PrefixTableError::CutOff { expected: HEADER_BYTES as u64, found })?;
        let word = |at: usize| u64_at(header, at);
        let half = |at: usize| u32_at(header, at);
        if word(0) != MAGIC || half(8) != VERSION {
            return Err(PrefixTableError::Version);
        }
        let (v4_bytes, v6_bytes) = (word(24), word(32));
        let whole = [HEADER_BYTES as u64, v4_bytes, v6_bytes].into_iter().try_fold(0, u64::checked_add);
        let expected = whole.ok_or(PrefixTableError::Header)?;
        if expected > found {
            return Err(PrefixTableError::CutOff { expected, found });
        }
        let part = |at: u64, bytes: u64, root_bits: u32| {
            let has_root = matches!(root_bits, 0 | 8 | 16) && bytes >= 4 << root_bits;
            let narrow = |n: u64| usize::try_from(n).map_err(|_| PrefixTableError::Header);
            let part = Part { at: narrow(at)?, bytes: narrow(bytes)?, root_bits };
            if has_root { Ok(part) } else { Err(PrefixTableError::Header) }
        };
        Ok(Self {
            v4: part(HEADER_BYTES as u64, v4_bytes, half(12))?,
            v6: part(HEADER_BYTES as u64 + v4_bytes, v6_bytes, half(16))?,
            prefixes: word(40),
        })
    }

    /// Number of prefixes, as the header says.
    pub fn prefixes(&self) -> u64 {
        self.prefixes
    }

    /// Length of the table in bytes, with its header.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.v4.bytes + self.v6.bytes
    }

    /// The same for bytes in which the table begins at `offset`.
    pub(crate) fn moved(mut self, offset: usize) -> Self {
        self.v4.at = self.v4.at.saturating_add(offset);
        self.v6.at = self.v6.at.saturating_add(offset);
        self
    }
}

pub(crate) use crate::table::layout::{u32_at, u64_at};
