//! The BLISS daemon: fetches features and models, validates them and publishes them to shared memory.
