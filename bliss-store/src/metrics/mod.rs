//! Counters of workers in the published directory: the file, its slots, and who holds them.
//!
//! The file `counters` is made by the daemon and written by the workers. What a slot holds is
//! [`bliss_core::metrics`]; little-endian:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 8 | magic `BLISSCNT` |
//! | 8 | 4 | version of the layout |
//! | 12 | 4 | number of slots |
//! | 16 | 4 | bytes of a slot |
//! | 65,536 (1 + i) | 65,536 | slot i |
//!
//! The file is sparse: a slot takes memory once a worker has it. A worker reserves its slot's pages before it writes
//! there, so that a full tmpfs is a worker that does not count, and not one that is killed.
//!
//! # Who has a slot
//!
//! The worker that holds an exclusive open-file-description lock on the slot's first byte, through a descriptor that is
//! never mapped. The kernel takes the lock back when the worker dies, however it dies and in whatever PID namespace; the
//! next one goes on from its counts. A child of a fork loses the descriptor and sees by the token of the process
//! ([`bliss_os::fork`]) that the slot is its parent's: it does not count until its next
//! [`Client::maintain`](crate::Client::maintain), which takes a slot of its own. So it never keeps its parent's lock.
//!
//! # Trust
//!
//! Whoever may write the file can falsify counts, and can end those who have it mapped by truncating it, as with
//! `*_readers` of mmap-sync; so the daemon gives both the same mode and group. No byte in the file leads outside of it.

#[cfg(feature = "publish")]
mod file;
mod worker;

#[cfg(feature = "publish")]
pub use file::{MetricsFile, MetricsFileError};
pub use worker::MetricsError;
pub(crate) use worker::WorkerMetrics;

use bliss_core::metrics::{LAYOUT, SLOT_BYTES};

/// The file's name in the published directory: as released first, so that releases find each other's.
pub const METRICS: &str = "counters";
/// Slots of a file that is made.
#[cfg(feature = "publish")]
const DEFAULT_SLOTS: u32 = 1024;
/// More slots than this are no file of ours.
const MAX_SLOTS: u32 = 65_536;

/// What the file begins with.
const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"BLISSCNT";

/// Where slot `index` begins.
fn slot_offset(index: u32) -> u64 {
    (u64::from(index) + 1) * SLOT_BYTES as u64
}

/// Length of a file of so many slots.
fn file_bytes(slots: u32) -> u64 {
    slot_offset(slots)
}

/// Why a file's head is none of this library's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It is another kind of file.
    #[error("it does not begin with BLISSCNT; it is another kind of file, or damaged")]
    Magic,
    /// Another layout.
    #[error("its layout has version {0}, expected {LAYOUT}; daemon and workers are of different releases")]
    Layout(u32),
    /// Sizes that do not fit together.
    #[error("it has {bytes} bytes and says that it has {slots} slots of {slot_bytes} bytes; it is damaged")]
    Size {
        /// Length of the file.
        bytes: u64,
        /// What the head says.
        slots: u32,
        /// What the head says.
        slot_bytes: u32,
    },
}

/// Checks what the file begins with against its length; gives the number of slots.
fn check_head(head: &[u8; HEADER_BYTES], bytes: u64) -> Result<u32, HeaderError> {
    let word = |at: usize| {
        let word = head.get(at..).and_then(|rest| rest.first_chunk::<4>());
        word.map_or(0, |word| u32::from_le_bytes(*word))
    };
    if !head.starts_with(&MAGIC) {
        return Err(HeaderError::Magic);
    }
    let (layout, slots, slot_bytes) = (word(8), word(12), word(16));
    if layout != LAYOUT {
        return Err(HeaderError::Layout(layout));
    }
    let fits = usize::try_from(slot_bytes) == Ok(SLOT_BYTES) && file_bytes(slots) == bytes;
    if !fits || slots == 0 || slots > MAX_SLOTS {
        return Err(HeaderError::Size { bytes, slots, slot_bytes });
    }
    Ok(slots)
}

#[cfg(feature = "publish")]
fn head(slots: u32) -> [u8; HEADER_BYTES] {
    let mut head = [0; HEADER_BYTES];
    let slot_bytes = u32::try_from(SLOT_BYTES).unwrap_or(u32::MAX);
    let words = [LAYOUT, slots, slot_bytes].into_iter().flat_map(u32::to_le_bytes);
    head.iter_mut().zip(MAGIC.into_iter().chain(words)).for_each(|(to, from)| *to = from);
    head
}
