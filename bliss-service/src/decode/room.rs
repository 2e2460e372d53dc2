//! The room for a snapshot that its control group and the file system of the publication leave.
//!
//! The writer of the publication compares exactly before it writes. What is here ends the reading of a snapshot that could not
//! be published anyway, before the kernel ends the daemon.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bliss_os::cgroup;

use crate::refusal::{Reason, Refusal};

/// Rows are compared with the room each time they have grown by as much.
pub(crate) const STEP: u64 = 8 << 20;
/// Memory that stays free for everything else.
const RESERVE: u64 = 2 * STEP;

/// Where the room is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    directory: PathBuf,
    memory: fn() -> Option<u64>,
    files: fn(&Path) -> Option<u64>,
}

impl Room {
    /// That of a publication in `directory`.
    pub(crate) fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), memory: cgroup::available, files }
    }

    /// Whether rows of `bytes` may go on growing.
    ///
    /// # Errors
    /// How much room there is, and where.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Refusal> {
        // The copies there are will be overwritten.
        let held = held(&self.directory);
        let wrong = |room: u64, what: String| {
            Refusal::new(
                Reason::Unpublished,
                format!("the rows so far take {bytes} bytes, and {what} has room for {room} more; {ADVICE}"),
            )
        };
        if let Some(room) = (self.memory)()
            && (room < RESERVE || room.saturating_add(held) < bytes)
        {
            return Err(wrong(room, "the daemon's control group (its limit of memory)".to_owned()));
        }
        match (self.files)(&self.directory) {
            Some(room) if room.saturating_add(held) < bytes => {
                Err(wrong(room, format!("the file system of {}", self.directory.display())))
            }
            _ => Ok(()),
        }
    }
}

const ADVICE: &str = "make more room or the snapshot smaller";

/// Bytes that are free in the file system of `directory`. `None`: not known, or without a limit.
fn files(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of the published copies of features.
fn held(directory: &Path) -> u64 {
    let copies = [0, 1].map(|copy| directory.join(format!("{}_data_{copy}", bliss_store::FEATURES)));
    copies.iter().filter_map(|path| path.symlink_metadata().ok()).map(|found| found.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_a_snapshot_without_room_is_refused_before_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let room = |memory, files| Room { directory: dir.path().to_owned(), memory, files };
        let refused = |room: Room, bytes: u64| room.check(bytes).map_err(|refusal| refusal.message);
        assert_eq!(refused(room(|| None, |_| None), u64::MAX), Ok(()));
        assert_eq!(refused(room(|| Some(100 << 20), |_| Some(100 << 20)), 100 << 20), Ok(()));
        let message = refused(room(|| Some(100 << 20), |_| None), (100 << 20) + 1).unwrap_err();
        assert!(message.contains("control group") && message.contains("104857601 bytes"), "{message}");
        assert!(refused(room(|| Some(RESERVE - 1), |_| None), 1).unwrap_err().contains("control group"));
        let message = refused(room(|| None, |_| Some(5)), 6).unwrap_err();
        assert!(message.contains(&format!("the file system of {} has room for 5", dir.path().display())));
        // What is published makes room for what follows.
        std::fs::write(dir.path().join("features_data_0"), vec![1; 1 << 20]).unwrap();
        assert_eq!(refused(room(|| None, |_| Some(5)), 1 << 20), Ok(()));
        assert!(files(dir.path()).is_some() && files(Path::new("/no/such")).is_none());
    }
}
