//! Wait-free publication of a value from one writer process to many reader processes through memory-mapped files.
//!
//! One process publishes bytes, or a value that [`rkyv`] serialises; any number of processes read them in place: no
//! socket, no lock, no copy, no system call, no allocation. A reader may be killed, stopped, forked or slow, and the
//! writer may be killed or meet a full disk: nobody reads a wrong byte, and nobody waits for anybody.
//!
//! ```
//! use mmap_sync::Options;
//!
//! #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
//! struct Limits { version: u32, rates: Vec<f32> }
//!
//! # fn main() -> Result<(), mmap_sync::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let prefix = dir.path().join("limits");
//! // In one process:
//! let mut writer = Options::new(&prefix).open_writer()?;
//! writer.write(&Limits { version: 1, rates: vec![0.5; 1000] })?;
//!
//! // In others:
//! let reader = Options::new(&prefix).open_reader()?;
//! let guard = reader.pin()?;
//! let limits = guard.access::<Limits>()?;
//! assert_eq!(limits.rates[999], 0.5);
//! # Ok(())
//! # }
//! ```
//!
//! [`Writer`], [`Standby`], [`Reader`] and [`Guard`] work on bytes, and on values through [`Writer::write`] and
//! [`Guard::access`]. [`synchronizer::Synchronizer`] is the interface of the published crate of the same idea on top
//! of them. [`inspect`] looks at the files from outside, and so does the program `mmap-sync`.
//!
//! # What is promised
//!
//! | | |
//! |---|---|
//! | M1 | A pin is wait-free: a bounded number of steps, and no shared cache line is written, so readers do not slow each other |
//! | M2 | Never torn: while a [`Guard`] lives its bytes do not change, whatever the writer does and whatever the grace period is |
//! | M3 | The writer is never held up: a copy that is still pinned after the grace period is put aside, and a fresh file takes its name. One long-held guard costs one file, a pin holds no generation but the one that it names, and what is put aside has limits, beyond which the holder is named ([`Error::Held`]). Once nobody pins it its memory is given back, mapped or not |
//! | M4 | A reader killed at any instruction leaves nothing behind, in other PID namespaces too |
//! | M5 | A writer killed at any instruction leaves the last publication readable, and the next writer goes on from it. There is one writer at a time |
//! | M6 | After a fork parent and child never share a slot. A guard alive at the fork belongs to the parent |
//! | M7 | Readers cannot write state or data. No byte in `P_readers`, no length of it and no lock on it makes the writer misbehave or keeps others out; only truncating it kills, and not a writer with [`Options::survive_truncation`]: see below |
//! | M8 | Damaged, foreign or missing files, a full file system and a full control group are errors that say which file and why |
//! | M9 | No `unsafe` for the caller: bytes are validated once per generation, handle and type |
//! | M10 | Values grow up to the reserved size without a new mapping in readers |
//!
//! # Trade-offs
//!
//! * Linux only: open-file-description locks (3.15), punched holes, `MADV_WIPEONFORK` (4.14, else a fork handler does
//!   its work), `membarrier` (4.16, else readers pass fences). 64 bits, little-endian.
//! * Two copies of the value, and one more per generation that somebody holds on to.
//! * A publication costs the writer one `membarrier` call, some 10 µs, so that a pin costs readers no fence. Where the
//!   call is missing or forbidden, a pin costs two fences. A reader that knows nothing of a writer without `membarrier`
//!   counts as pinning everything until its next look at the clock or at a new generation.
//! * A reader holds guards on up to 12 different generations at once ([`Error::TooManyGuards`]).
//! * A handle on which a guard is alive does not move to files that were made again under the same path: the guard's pin
//!   is in the old `P_readers`. If there is always one alive (each dropped after the next one was made), it stays with the
//!   last value of the old files for ever (or gets [`Error::Replaced`]); [`Reader::is_superseded`] and [`Reader::writer_age`] tell.
//!   Drop all guards now and then, or use a handle of its own for what is held for long.
//! * Handles without a slot, when [`Options::max_slots`] are taken or locked or the file cannot grow, use two shared counters.
//!   They are never torn either, but they are not wait-free, they slow each other, and as long as one of them lives the
//!   pins of a killed one stay. [`Reader::has_slot`] and [`inspect::Report::counted_readers`] show them.
//! * rkyv is used with `pointer_width_64`, which Cargo unifies: it holds for every use of rkyv 0.8 in the same build.
//! * `fork` while a [`Standby`] or a [`Guard`] is alive: the child must not use the standby copy, and may look at the
//!   guard's bytes only as long as the parent keeps its guard. A bare `clone` system call runs no fork handlers: the
//!   child keeps the parent's locks open until it uses a handle of its own.
//! * A process that closes descriptors which it did not open takes its readers' locks away, and with them their pins.
//!
//! # How it works
//!
//! There are two data files. One is *current*; the other is the *standby* copy, into which the writer puts the next
//! value before it raises the **generation** in `P_state` by one. The lowest bit of the generation says which copy is
//! current. A reader pins a generation by writing it into a cell of its own slot in `P_readers`, in a way
//! ([`protocol`]) that makes sure that the writer, before it overwrites a copy, sees every pin on what it holds. If
//! there is one, the writer puts the file aside (as `P_old_G`) and makes a fresh one.
//!
//! Each generation lives in exactly one file, and the first page of the file says which generation it holds. So a
//! reader knows that its mapping is the right file by comparing one number, and opens the file by name if it is not. It
//! has pinned the generation before that, so the file cannot be overwritten meanwhile; its name can pass to another
//! file, and then the reader pins what is current by then.
//!
//! A slot belongs to whoever holds the lock on its first byte: an open-file-description lock, taken through a
//! descriptor that is used for nothing else, is not inherited, and is closed by the kernel when its owner dies. The
//! writer tries the lock before it believes a pin that is in its way.
//!
//! A new writer adopts what it finds: the current copy, and the standby copy with the generation that it still holds.
//! A copy that was being written says so in its first page and holds nothing.
//!
//! # Updating in place
//!
//! [`Standby::holds`] says which generation the standby copy still holds: after two publications, the one before the
//! current one. A caller that keeps the changes of the last two generations applies them through [`Standby::edit`],
//! and publishes in time proportional to the change (the technique is known as Left-Right). One that changes whole
//! pages names them with [`Standby::touch`]. [`Standby::copy_current`] catches up with more than two generations.
//!
//! # Orderings
//!
//! Each module with atomics has a section of this name: [`protocol`] and [`scan`] for the agreement itself, which
//! `src/loom_tests.rs` checks in all interleavings, together with broken variants that must be caught. Shared memory is
//! only reached through atomics and, for the payload, through references that the protocol makes exclusive or shared.
//!
//! # The files, byte by byte
//!
//! All numbers are little-endian. `P` is the prefix. Layout version 3.
//!
//! `P_state` (4,096 bytes; written by the writer only, mode [`Options::mode`]):
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | instance version: copy (bit 0), size (39 bits), low 24 bits of the checksum |
//! | 8 | 8 | `mmsyncS\n` |
//! | 16 | 4 | layout version |
//! | 20 | 4 | 1 if other files took the place of these |
//! | 24 | 8 | generation; 0 before the first publication |
//! | 32 | 8 | bit 0: readers must pass fences |
//! | 40 | 8 | time of the last publication, ns since the Unix epoch |
//! | 48 | 8 | last sign of life of the writer, ns of `CLOCK_MONOTONIC` |
//! | 56 | 8 | pid of the writer, in its PID namespace |
//! | 64 | 16 | boot id of the system of the heartbeat |
//! | 80 | 8 | number that `P_readers` carries too, and the copies that are published while it is in use |
//! | 88 | 8 | fresh files that were needed because a copy was pinned |
//! | 96 | 8 | scans that met a reader on the shared counters; these readers share a lock on this byte |
//! | 104 | 8 | number under which the copy was published that was current when these files were made; 0 if none was |
//! | 1024 | 512 | time of publication of generation `g` at `1024 + 8 (g mod 64)`, ns since the Unix epoch |
//!
//! `P_data_0`, `P_data_1`, `P_old_G` (written by the writer only, mode [`Options::mode`]):
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | `mmsyncD\n` |
//! | 8 | 4 | layout version |
//! | 12 | 4 | which copy |
//! | 16 | 8 | generation of the payload; 0 while it is being written, and when the file is given up |
//! | 24 | 8 | payload size in bytes |
//! | 32 | 8 | checksum: the sum over the lines of 64 bytes, each mixed with its index, and of the size ([how](#checksum)) |
//! | 40 | 8 | payload bytes for which room is reserved, also while the payload is being written |
//! | 48 | 8 | time of publication, ns since the Unix epoch |
//! | 56 | 16 | boot id of the system on which it was published |
//! | 72 | 8 | number of the `P_readers` in which those who look into it have their pins |
//! | 80 | 8 | hash of the fields before |
//! | 4096 | | payload |
//!
//! ## Checksum
//!
//! The payload is cut into lines of 64 bytes, the last one filled up with zeros, and a line into eight words. Word `j` of
//! line `i` contributes `low(t) * high(t) + t`, where `t = word ^ (key[j] + i * 0x9e3779b97f4a7c15)` and `low` and `high`
//! are its halves. The keys are the first 64 bytes of pi's fraction, as big-endian words. The checksum is the sum of all
//! contributions and of a hash of the size; everything wraps at 2^64. So it is brought up to date for the lines that
//! change. Every flipped bit changes it; `src/checksum` says why, and has the code.
//!
//! ## Readers and lock
//!
//! `P_readers` (written by readers and writer, mode [`Options::readers_mode`]; grows to 65,536 slots at most, and never shrinks).
//! Slots count up to the first one for which the file system has no room:
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | `mmsyncR\n` |
//! | 8 | 4 | layout version |
//! | 12 | 4 | size of a slot: 128 |
//! | 16 | 8 | number that `P_state` carries too |
//! | 24 | 8 | one more than the highest slot that was ever used |
//! | 64 | 8 | readers without a slot, on copy 0 and on copy 1 (32 bits each); their lock is in `P_state`, which none of them can lock alone |
//! | 4096 + 128 i | 4 | slot i: pid of its owner; the owner's lock is on this byte |
//! | + 4 | 4 | 0 free, 1 the owner passes fences, 2 it relies on `membarrier` |
//! | + 8 | 8 | epoch, raised by the writer to call announcements off |
//! | + 16 | 8 | when it was taken, ns since the Unix epoch |
//! | + 32 | 96 | 12 cells: generation in bits 3 to 63; bits 0 and 1: 1 pinned, 2 pending; bit 2: epoch of the pending pin |
//!
//! `P_lock` is empty, mode 0600; the writer holds the lock on its first byte. `P_new` is a file that is being made.
//!
//! # What an administrator may do
//!
//! * Remove all files of a prefix, or their directory, at any time: readers go on with what they have mapped. The writer
//!   makes the files again at its next publication (if one was moved elsewhere by itself, at one within a tenth of a
//!   second) or [`Writer::keep_in_place`], with the last value in them, and
//!   readers find them within about a second. If `P_readers` is among them, nobody knows any more who looks into the
//!   copies and the files that were put aside: these are never written again, and their memory comes back when the last
//!   reader has unmapped them. If only the current data file is removed, new readers are refused until
//!   then too.
//! * Kill or stop any process. Copy the files elsewhere. Run `mmap-sync inspect` and `verify`.
//! * Change mode and group of the files, within what [`Options`] say: the writer does not change them back before it is opened
//!   again. Then files that exist get the mode of the options, and their group if they name one.
//!
//! What not to do: truncate a file that is in use (every process that has it mapped gets `SIGBUS` when it looks beyond
//! the end; of `P_readers` too: the writer notices at its next sign of life or publication and makes new files, but dies
//! if it falls into the middle of one, unless its options say [`Options::survive_truncation`]; readers die at their next
//! pin); remove `P_lock` and start another writer
//! while one fills its standby copy (the first one notices, and fails with [`Error::Locked`], but not before it publishes,
//! and both may have written into the same copy); write into `P_state` or `P_data_*`; give anybody but the writer the right to write them. Whoever may write
//! `P_readers` can remove other readers' pins, so that they read torn values, call their announcements off, or truncate the
//! file: readers of one prefix trust each other. The writer need not trust them: what a reader does to the head of the file is
//! mended, what it appends is not looked at, and what it holds has limits. On file systems that copy on write (btrfs, zfs) room cannot be reserved: use a tmpfs,
//! ext4 or xfs.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(not(target_os = "linux"))]
compile_error!("mmap-sync needs Linux: open-file-description locks, MADV_WIPEONFORK, punched holes");

#[cfg(not(loom))]
mod checksum;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
mod layout;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod parallel_copy;
#[cfg(not(loom))]
mod paths;
#[doc(hidden)]
pub mod primitive;
#[doc(hidden)]
pub mod protocol;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod reader_slot;
#[doc(hidden)]
pub mod scan;
#[cfg(not(loom))]
mod state;
#[cfg(not(loom))]
pub mod synchronizer;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use {
    error::{DirectoryFault, Error, FileKind, FilePath, Holding},
    layout::InstanceVersion,
    options::{DEFAULT_MAX_SIZE, DEFAULT_SLOTS, Options},
    reader::{Guard, Reader},
    writer::{Corrected, Edit, Publication, Serializer, Sink, Standby, Writer},
};
