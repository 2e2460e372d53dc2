//! How much memory a snapshot may take.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bliss_os::cgroup;

use crate::refusal::{Reason, Refusal};

/// How large a snapshot of rows may and must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, before and after decompression.
    pub max_bytes: u64,
    /// Bytes of one line of JSON, or one record of CSV.
    pub max_line_bytes: u64,
    /// Bytes of the decoded rows: see [`row_bytes`].
    pub max_decoded_bytes: u64,
    /// The most rows, over all dimensions, if `max_decoded_bytes` is not to decide.
    pub max_rows: Option<u64>,
    /// The fewest rows, so that a file that is empty for a moment removes nothing.
    pub min_rows: u64,
    /// Where they are to be published: its file system must have room. Not looked at if empty.
    pub directory: PathBuf,
}

/// Bytes of a decoded row beside its values: key, time, and what finds a key that appears twice.
const ROW_BYTES: u64 = 52;

/// Bytes that one decoded row of a dimension with so many features takes.
pub fn row_bytes(features: usize) -> u64 {
    ROW_BYTES + 4 * features as u64
}

/// What decoded rows may take at most, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) bytes: u64,
    limit: Limit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Limit {
    Option,
    ControlGroup(u64),
    FileSystem(PathBuf),
}

impl Limits {
    /// The least of what the options, this process's control group and the directory's file system allow now.
    pub(super) fn room(&self) -> Room {
        let option = Room { bytes: self.max_decoded_bytes, limit: Limit::Option };
        // Tables grow by doubling, and what is published takes memory too.
        let group =
            cgroup::available().map(|left| Room { bytes: left / 2, limit: Limit::ControlGroup(left) });
        let published = free_for_features(&self.directory)
            .map(|bytes| Room { bytes, limit: Limit::FileSystem(self.directory.clone()) });
        [group, published]
            .into_iter()
            .flatten()
            .fold(option, |least, other| if other.bytes < least.bytes { other } else { least })
    }
}

/// Bytes that the features in this directory may take: what is free, and the copy that is written next. `None` if that is not
/// known.
fn free_for_features(directory: &Path) -> Option<u64> {
    let free = rustix::fs::statvfs(directory).ok()?;
    let copies = ["features_data_0", "features_data_1"];
    let copy =
        copies.iter().filter_map(|name| Some(fs::metadata(directory.join(name)).ok()?.blocks() * 512)).max();
    Some(free.f_bavail.saturating_mul(free.f_frsize).saturating_add(copy.unwrap_or(0)))
}

impl Room {
    pub(super) fn exceeded(&self, rows: u64) -> Refusal {
        Refusal::new(Reason::TooLarge, format!("after {rows} rows: {self}"))
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        match &self.limit {
            Limit::Option => write!(
                f,
                "decoded rows take more than {bytes} bytes (max_decoded_bytes); raise it if the origin is to send so many"
            ),
            Limit::ControlGroup(left) => write!(
                f,
                "decoded rows take more than {bytes} bytes, half of the {left} that the control group leaves; raise its limit \
                 if the origin is to send so many"
            ),
            Limit::FileSystem(directory) => write!(
                f,
                "decoded rows take more than the {bytes} bytes for which {} has room; make the file system larger if the origin \
                 is to send so many",
                directory.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_the_least_room_decides() {
        let dir = tempfile::tempdir().unwrap();
        let limits = |max_decoded_bytes, directory: &Path| Limits {
            max_bytes: 1,
            max_line_bytes: 1,
            max_decoded_bytes,
            max_rows: None,
            min_rows: 0,
            directory: directory.to_owned(),
        };
        assert_eq!(limits(1000, Path::new("")).room(), Room { bytes: 1000, limit: Limit::Option });
        let free = free_for_features(dir.path()).unwrap();
        let room = limits(u64::MAX, dir.path()).room();
        assert!(room.bytes < u64::MAX && room.limit != Limit::Option, "{room}");
        // The copy that is overwritten is room.
        fs::write(dir.path().join("features_data_1"), vec![1; 1 << 20]).unwrap();
        fs::File::open(dir.path().join("features_data_1")).unwrap().sync_all().unwrap();
        let with = free_for_features(dir.path()).unwrap();
        assert!(with + (64 << 20) > free, "{with} {free}");
        assert_eq!(free_for_features(Path::new("/nonexistent")), None);
        assert_eq!(row_bytes(30), 172);
    }
}
