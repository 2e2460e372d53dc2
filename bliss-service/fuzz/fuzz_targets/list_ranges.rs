//! Any bytes as the ranges of a crawler in JSON: read within their limits or refused.
#![no_main]

#[path = "../lists.rs"]
mod lists;

use bliss_service::lists::ListFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lists::any(ListFormat::Json, bytes));
