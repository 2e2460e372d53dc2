//! What is known of drift, in a file that outlives the daemon.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::track::Memory;
use crate::fingerprint::open_regular;

/// The file's name in the published directory, where no other is configured.
pub(super) const DEFAULT_NAME: &str = "drift.json";
const VERSION: u32 = 1;
/// Models that are not active of which something is kept: a rollback finds what is known of the one before.
const MOST_KEPT: usize = 16;
/// Larger than any that is written: 17 times 511 rows of 21 stretches.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    models: Vec<(u64, Memory)>,
}

/// What is known of models that are not active, by model, the newest last.
#[derive(Debug, Default)]
pub(super) struct Kept(VecDeque<(u64, Memory)>);

impl Kept {
    pub(super) fn take(&mut self, id: u64) -> Option<Memory> {
        let at = self.0.iter().position(|(kept, _)| *kept == id)?;
        self.0.remove(at).map(|(_, memory)| memory)
    }

    /// Keeps what is known of models that are no longer active.
    pub(super) fn put(&mut self, models: impl IntoIterator<Item = (u64, Memory)>) {
        self.0.extend(models);
        self.0.drain(..self.0.len().saturating_sub(MOST_KEPT));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(u64, Memory)> {
        self.0.iter()
    }
}

/// What the file has; nothing where there is none.
pub(super) fn read(path: &Path) -> io::Result<Kept> {
    let (file, fingerprint) = match open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        opened => opened?,
    };
    if fingerprint.bytes() > MAX_BYTES {
        let message = format!("expected {MAX_BYTES} bytes at most, found {}", fingerprint.bytes());
        return Err(io::Error::other(message));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    let File { version, models } = serde_json::from_slice(&text)?;
    if version != VERSION {
        return Err(io::Error::other(format!("expected version {VERSION}, found {version}")));
    }
    Ok(Kept(models.into()))
}

/// Replaces the file, whole.
pub(super) fn write(path: &Path, models: Vec<(u64, Memory)>) -> io::Result<()> {
    let text = serde_json::to_vec(&File { version: VERSION, models })?;
    let fresh = path.with_extension("json.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&text)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drift.json");
        assert_eq!(read(&path).unwrap().iter().count(), 0);
        write(&path, vec![(u64::MAX, Memory::default())]).unwrap();
        write(&path, vec![(u64::MAX, Memory::default()), (7, Memory::default())]).unwrap();
        assert_eq!(read(&path).unwrap().iter().count(), 2);
        let text = fs::read_to_string(&path).unwrap();
        for bad in ["", "{}", &text[..text.len() - 1], &text.replace("\"version\":1", "\"version\":2")] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(read(&path).is_err());
    }
}
