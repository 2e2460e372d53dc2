//! The BLISS daemon: fetches features and models, validates them and publishes them to shared memory.

pub mod access_log;
pub mod category;
pub mod config;
pub mod decode;
pub mod keys;
