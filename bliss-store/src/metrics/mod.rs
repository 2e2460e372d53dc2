//! Workers' metrics in the published directory: the file, its slots, and their owners.
//!
//! The daemon creates the file `counters`, and workers write it. [`bliss_core::metrics`] defines the content of a slot.
//! Little-endian:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 8 | magic `BLISSCNT` |
//! | 8 | 4 | version of the layout |
//! | 12 | 4 | number of slots |
//! | 16 | 4 | bytes of a slot |
//! | 131,072 (1 + i) | 131,072 | slot i |
//!
//! The file is sparse: a slot uses memory once a worker takes it. A worker reserves its slot's pages before it writes
//! there, so on a full tmpfs it does not count, rather than being killed.
//!
//! # Owner of a slot
//!
//! The owner holds an exclusive open-file-description lock on the slot's first byte, through a descriptor that is never
//! mapped. The kernel releases the lock when the worker dies, however it dies and in whatever PID namespace; the next
//! owner continues from its counts. A child of a fork loses the descriptor, and the process token ([`bliss_os::fork`])
//! shows it that the slot is its parent's: it does not count until its next
//! [`Client::maintain`](crate::Client::maintain), which takes a slot of its own. So it never keeps its parent's lock.
//!
//! # Trust
//!
//! Whoever may write the file can falsify counts, and by shortening it kill the workers that count in it, as with
//! `*_readers` of mmap-sync; so the daemon gives both the same mode and group. The daemon maps nothing of it: it reads copies
//! of slots, and replaces a file whose length or header is not its own. No byte in the file makes anyone read or write outside
//! of it.

#[cfg(feature = "publish")]
mod file;
mod worker;

#[cfg(feature = "publish")]
pub use file::{MetricsFile, MetricsFileError};
pub use worker::MetricsError;
pub(crate) use worker::WorkerMetrics;

use bliss_core::metrics::{LAYOUT, SLOT_BYTES};

/// The file's name in the published directory. It stays, since daemon and workers of different releases share it.
pub const METRICS: &str = "counters";
/// Slots of a new file.
#[cfg(feature = "publish")]
const DEFAULT_SLOTS: u32 = 1024;
/// Most slots that a file may have.
const MAX_SLOTS: u32 = 65_536;

const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"BLISSCNT";

/// Offset of slot `index`.
fn slot_offset(index: u32) -> u64 {
    (u64::from(index) + 1) * SLOT_BYTES as u64
}

/// Length of a file with `slots` slots.
fn file_bytes(slots: u32) -> u64 {
    slot_offset(slots)
}

/// Why a file's header is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The magic is missing.
    #[error("it does not begin with BLISSCNT; it is another kind of file, or damaged")]
    Magic,
    /// The layout has another version.
    #[error("its layout has version {0}, expected {LAYOUT}; daemon and workers are of different releases")]
    Layout(u32),
    /// The file's length does not match its header.
    #[error("it has {bytes} bytes, but its header says {slots} slots of {slot_bytes} bytes; it is damaged")]
    Size {
        /// Length of the file.
        bytes: u64,
        /// Slots, by the header.
        slots: u32,
        /// Bytes of a slot, by the header.
        slot_bytes: u32,
    },
}

/// Checks the header against the file's length, and returns the number of slots.
fn check_header(header: &[u8; HEADER_BYTES], bytes: u64) -> Result<u32, HeaderError> {
    let word = |offset: usize| {
        let word = header.get(offset..).and_then(|rest| rest.first_chunk::<4>());
        word.map_or(0, |word| u32::from_le_bytes(*word))
    };
    if !header.starts_with(&MAGIC) {
        return Err(HeaderError::Magic);
    }
    let (layout, slots, slot_bytes) = (word(8), word(12), word(16));
    if layout != LAYOUT {
        return Err(HeaderError::Layout(layout));
    }
    let is_consistent = usize::try_from(slot_bytes) == Ok(SLOT_BYTES) && file_bytes(slots) == bytes;
    if !is_consistent || slots == 0 || slots > MAX_SLOTS {
        return Err(HeaderError::Size { bytes, slots, slot_bytes });
    }
    Ok(slots)
}

#[cfg(feature = "publish")]
fn header(slots: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let slot_bytes = u32::try_from(SLOT_BYTES).unwrap_or(u32::MAX);
    let words = [LAYOUT, slots, slot_bytes].into_iter().flat_map(u32::to_le_bytes);
    header.iter_mut().zip(MAGIC.into_iter().chain(words)).for_each(|(to, from)| *to = from);
    header
}
