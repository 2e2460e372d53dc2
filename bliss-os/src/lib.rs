//! What `mmap-sync` and `bliss-store` ask of the operating system, in safe functions that do not panic and, but for [`cgroup`], do not allocate.
//!
//! | module | |
//! |---|---|
//! | [`cgroup`] | how much memory the control group leaves |
//! | [`bus_error`] | surviving a mapping whose file others shorten |
//! | [`directory`] | whether others could replace a directory or what is in it |
//! | [`file`] | opening, inspecting, naming and reserving files |
//! | [`lock`] | open-file-description locks on single bytes |
//! | [`map`] | shared mappings, and the atomics in them |
//! | [`fork`] | the token of the process, and descriptors that a child of a fork does not keep |
//! | [`membarrier`] | a barrier in all registered processes |
//! | [`clock`] | clocks, the boot id, random numbers |
//!
//! Mappings are those of `memmap2`, calls those of `rustix` where it has a safe wrapper, and of `libc` otherwise.
//!
//! This crate is internal: its interface follows the needs of the two crates above it.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(not(target_os = "linux"))]
compile_error!("bliss-os needs Linux: open-file-description locks, MADV_WIPEONFORK, punched holes");

pub mod bus_error;
pub mod cgroup;
pub mod clock;
pub mod directory;
pub mod file;
pub mod fork;
pub mod lock;
pub mod map;
pub mod membarrier;

/// `errno` of a failed call.
pub type Errno = i32;

/// Of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// `errno` of the last call of the C library.
fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn errno(error: rustix::io::Errno) -> Errno {
    error.raw_os_error()
}

fn offset(value: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| libc::EFBIG)
}
