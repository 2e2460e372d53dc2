//! The C library of BLISS: features, bot scores and decisions inside a web server's workers.
//!
//! A thin layer over [`bliss_store::Client`]. What each function does is written once, on the function; cbindgen
//! copies it to `include/bliss_ffi.h`, whose head says what holds for all of them. `docs/ffi.md` is the guide.
//!
//! | module | what it offers |
//! |---|---|
//! | [`codes`] | numbers that functions return |
//! | [`handle`] | opening, closing, the last error |
//! | [`request`] | names, and the values of one request |
//! | [`answer`] | bot scores |
//! | [`decide`] | what is to be done with a request |
//! | [`pass`] | passes for clients that passed a challenge |
//! | [`shadow`] | scores of shadow models |
//! | [`explain`] | what a score comes from |
//! | [`lookup`] | features and keys |
//! | [`names`] | what the publication calls things, for tools |
//!
//! `handle` catches panics; `pointer` checks what C passes; `error` and `message` say why a call fails.

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]
// The names are C's.
#![allow(non_camel_case_types)]

pub mod codes;
mod error;
mod message;
mod pointer;

// In the order in which the header has them.
pub mod handle;

pub mod request;

pub mod answer;

pub mod decide;

pub mod http;

pub mod pass;

pub mod shadow;

pub mod explain;

pub mod lookup;

pub mod names;

use core::ffi::c_char;

/// Version of the binary interface. It changes when a program compiled against an older header no longer works.
pub const BLISS_ABI_VERSION: u32 = 1;

/// The binary interface's version of the library that is loaded: compare it with BLISS_ABI_VERSION of the header.
///
/// Any thread. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn bliss_abi_version() -> u32 {
    BLISS_ABI_VERSION
}

/// The library's version, as text that ends in NUL and lives as long as the library is loaded.
///
/// Any thread. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn bliss_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
