//! What the daemon keeps on disk over a restart or a reboot.
//!
//! [`envelope`] is a file with a head that says what it is, of which version, what gave its content its meaning, and when
//! it was made; with a checksum over the compressed content; written so that there is always a whole one. What the content
//! is, its maker knows. [`Keep`] is the folder with these files: who may use it, and the secret of the keys.
//! [`bounded`] reads collections of which the length is limited.
//!
//! Everything here blocks on the file system and belongs on a thread that may wait.

pub(crate) mod bounded;
pub mod envelope;
mod keep;

pub use envelope::{Kind, Meaning, Unfit};
pub use keep::{DEFAULT_DIRECTORY, Keep, KeepOptions};
pub(crate) use keep::{identity, now_ms};
