//! The BLISS daemon: fetches features and models, validates them and publishes them to shared memory.

pub mod access_log;
pub mod config;
pub mod keys;
pub mod rows;
