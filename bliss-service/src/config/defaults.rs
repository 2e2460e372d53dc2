//! Defaults that options of several origins share.

use std::time::Duration;

pub(crate) fn seconds<const N: u64>() -> Duration {
    Duration::from_secs(N)
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn max_bytes() -> u64 {
    1 << 30
}

pub(crate) fn max_line_bytes() -> u64 {
    1 << 20
}

pub(crate) fn max_decoded_bytes() -> u64 {
    128 << 20
}

pub(crate) fn min_rows() -> u64 {
    1
}

pub(crate) fn warn_shrink() -> f64 {
    0.5
}
