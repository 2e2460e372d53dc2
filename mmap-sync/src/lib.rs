//! Wait-free publication of a value from one writer process to many reader processes through memory-mapped files.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(not(target_os = "linux"))]
compile_error!("mmap-sync needs Linux: open-file-description locks, MADV_WIPEONFORK, punched holes");

#[doc(hidden)]
pub mod census;
#[cfg(not(loom))]
mod checksum;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod paths;
#[doc(hidden)]
pub mod primitive;
#[doc(hidden)]
pub mod protocol;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod seat;
#[cfg(not(loom))]
pub mod synchronizer;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use {
    error::{Error, FileKind, Place},
    layout::InstanceVersion,
    options::{DEFAULT_MAX_SIZE, DEFAULT_SLOTS, Options},
    reader::{Guard, Reader},
    writer::{Published, Serializer, Sink, Standby, Writer},
};
