//! What is known of drift, in a file that outlives the daemon, and a power cut.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::track::Memory;
use crate::checkpoint::envelope::{self, Wanted};
use crate::checkpoint::{Kind, Meaning, Unfit, now_ms};

/// The file's name, where no other is configured.
pub(super) const DEFAULT_NAME: &str = "drift.state";
const KIND: Kind = Kind { name: *b"drift   ", version: 1 };
/// Each model in it says by its number what it is of.
const MEANING: Meaning = Meaning { fingerprint: 0, secret: 0 };
/// Models that are not active of which something is kept: a rollback finds what is known of the one before.
const MOST_KEPT: usize = 16;
/// Larger than any that is written: 17 times 511 rows of 21 stretches.
const MAX_BYTES: u64 = 64 << 20;

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
pub(super) fn read(path: &Path) -> Result<Kept, Unfit> {
    // Its days say how old they are.
    let wanted =
        Wanted { kind: KIND, meaning: MEANING, now_ms: u64::MAX, max_age_ms: u64::MAX, max_bytes: MAX_BYTES };
    match envelope::read(path, &wanted) {
        Err(Unfit::Absent) => Ok(Kept::default()),
        Err(error) => Err(error),
        Ok(content) => serde_json::from_slice(&content.bytes).map(Kept).map_err(Unfit::damaged),
    }
}

/// Replaces the file, whole.
pub(super) fn write(path: &Path, models: &[(u64, Memory)]) -> io::Result<()> {
    let content = serde_json::to_vec(models)?;
    envelope::write(path, KIND, MEANING, now_ms(), &content).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DEFAULT_NAME);
        assert_eq!(read(&path).unwrap().iter().count(), 0);
        write(&path, &[(u64::MAX, Memory::default())]).unwrap();
        write(&path, &[(u64::MAX, Memory::default()), (7, Memory::default())]).unwrap();
        assert_eq!(read(&path).unwrap().iter().count(), 2);
        let whole = fs::read(&path).unwrap();
        // As a power cut could leave it, or a disk, or what wrote JSON before.
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [
            &[],
            &whole[..80],
            &whole[..whole.len() - 1],
            &flipped,
            br#"{"version":1,"models":[]}"#.as_slice(),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(read(&path).is_err());
    }
}
