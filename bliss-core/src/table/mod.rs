//! The feature table of a dimension: key → (time of update, row of 4-byte columns).
//!
//! A lookup must cost one cache miss, whether the key is there or not, and the table must stay dense, editable
//! in place, and safe to read whatever its bytes say. So each key has exactly one slot where it can be:
//!
//! ```text
//! key ─▶ region (top bits) ─▶ bucket in region ─▶ pilot (1 byte) ─▶ slot in region ─▶ [key | updated_at | row]
//! ```
//!
//! The *pilot* of a bucket of two or three keys is the seed that sends all of them to free slots; it is searched by
//! the writer (see [`region`](self)'s source). Pilots take a third of a byte per slot and stay in the processor's
//! caches, so the only miss is the slot itself: the key and the start of its row in one or two adjacent lines.
//!
//! ```text
//! offset 0    header, 64 bytes (see `layout`)
//! offset 64   pilots: regions × region_pilots bytes, padded to a multiple of 64
//! then        slots: regions × region_slots × stride bytes
//! slot        u64 LE key (0 = empty) | u32 LE updated_at, seconds since the epoch | columns × u32 LE | padding
//! ```
//!
//! Why this layout and what lost against it: `docs/tables.md`.

pub(crate) mod layout;
pub(crate) mod locator;
mod lookup;
mod read;

pub use layout::{Layout, SLOT_HEAD_BYTES, TableError};
pub use locator::{Locator, LookupState};
pub(crate) use lookup::{Buffers, Clock, Instructions, Lookup, LookupEntry, PrefixEntry, look_up};
pub use read::{Row, TableRef, prefetch};
