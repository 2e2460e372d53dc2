//! Measures BLISS and its peers in one run.
fn main() {}
