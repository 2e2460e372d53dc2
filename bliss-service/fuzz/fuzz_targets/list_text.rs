//! Any text as a list of networks: read within its limits or refused, and every network of it can be found.
#![no_main]

#[path = "../lists.rs"]
mod lists;

use bliss_service::lists::ListFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lists::any(ListFormat::Text, bytes));
