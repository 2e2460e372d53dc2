//! The BLISS daemon.
fn main() {}
