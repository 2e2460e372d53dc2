//! Networks of addresses: CIDR prefix → value, by the longest prefix that matches.
//!
//! A [`PrefixTable`] maps prefixes to small numbers (those of rows, of lists); [`PrefixRowsRef`] is the table of a dimension
//! that is matched so: a `PrefixTable` and the rows that its values count.
//!
//! When it is built, prefixes that overlap become ranges that do not: each address lies in one. A lookup goes from the root
//! by 16 bits of the address to a node that says what the next 8 bits lead to, until an entry is a value:
//!
//! ```text
//! entry    u32 LE: top 2 bits kind (0 value, 1 bitmap, 2 list), the rest value + 1 (0: no prefix matches), or where the node
//!          is, in units of 16 bytes from the start of its part
//! bitmap   256 bits: bit i is set where the entry for byte i is another than that for byte i - 1;
//!          then an entry for each bit that is set
//! list     u32 LE number of starts n; n starts of ranges, as little-endian addresses of 4 or 16 bytes; n + 1 values (entries):
//!          of the addresses before the first start, from it on, from the second on, …
//! ```
//!
//! A node with few ranges in it is a list, which ends the walk at once: a lone address takes one list rather than a bitmap for
//! each byte that is left. IPv4 takes at most two bitmaps, IPv6 at most fourteen, below a root of 16 bits; small tables have a
//! root of 8 or 0 bits.
//!
//! ```text
//! offset 0    header, 64 bytes (see `layout`)
//! offset 64   the part of IPv4: root entries, nodes; padded to a multiple of 64
//! then        the part of IPv6, likewise
//! ```
//!
//! An IPv4-mapped IPv6 address is its IPv4 address, a prefix within `::ffff:0:0/96` likewise; a shorter IPv6 prefix matches no
//! IPv4 address.

mod layout;
mod lookup;
mod prefix;
mod rows;

pub use layout::{PrefixLayout, PrefixTableError};
pub use lookup::PrefixTable;
pub use prefix::{Address, Prefix, PrefixError};
pub use rows::{PrefixRowsLayout, PrefixRowsRef};

#[cfg(feature = "build")]
pub(crate) use layout::{
    HEADER_BYTES, KIND_BITMAP, KIND_LIST, KIND_SHIFT, MAGIC, MAX_VALUE, NODE_UNIT, PAYLOAD_MASK, VERSION,
};
#[cfg(feature = "build")]
pub(crate) use lookup::AddressBits;
pub(crate) use lookup::{prefetch_node, prefetch_root};
pub(crate) use rows::PrefixLocator;
#[cfg(feature = "build")]
pub(crate) use rows::ROWS_MAGIC;
