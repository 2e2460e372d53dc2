//! Group and mode of the files: of new ones, and of those that an earlier writer left with others.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use bliss_os::file;

use super::Writer;
use super::data_file::DataFile;
use crate::error::{Error, FileKind, FilePath};
use crate::options::Options;
use crate::paths::Paths;

/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o777;
/// New files in such a directory get its group.
const SET_GROUP: u32 = 0o2000;

/// A file that was there with another group or mode than the options say, and was given theirs.
#[derive(Clone, Debug)]
pub struct Corrected {
    path: FilePath,
    /// Before and now.
    mode: (u32, u32),
    group: (u32, u32),
}

impl fmt::Display for Corrected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path)?;
        let ((mode, new_mode), (group, new_group)) = (self.mode, self.group);
        if mode != new_mode {
            write!(f, " mode {new_mode:04o} in place of {mode:04o}")?;
        }
        if group != new_group {
            write!(f, " group {new_group} in place of {group}")?;
        }
        Ok(())
    }
}

/// The group that files should have by the options or by their directory.
fn wanted_group(paths: &Paths, options: &Options) -> Option<u32> {
    options.group.or_else(|| {
        let directory = file::stat(&paths.directory).ok()?;
        (directory.mode & SET_GROUP != 0).then_some(directory.group)
    })
}

/// Gives a new file its group.
pub(super) fn set_group(fd: &OwnedFd, kind: FileKind, paths: &Paths, options: &Options) -> Result<(), Error> {
    if let Some(group) = wanted_group(paths, options) {
        return give(fd, group, kind, paths);
    }
    // An administrator may have given the files another group by hand: those that are added later belong with them. If this
    // is refused, they are as they would be without.
    if let Ok(state) = file::lstat(&paths.state)
        && state.is_regular()
        && state.owner == file::effective_user()
    {
        let _ = give(fd, state.group, kind, paths);
    }
    Ok(())
}

fn give(fd: impl AsFd, group: u32, kind: FileKind, paths: &Paths) -> Result<(), Error> {
    let found = file::fstat(&fd).map_err(paths.io(kind, "fstat"))?.group;
    if found == group || group == u32::MAX {
        return Ok(());
    }
    file::fchown_group(&fd, group).map_err(|errno| Error::Group {
        path: paths.path_of(kind),
        expected: group,
        found,
        errno,
    })
}

impl Writer {
    /// Gives the files that were there the group and the mode of the options. What is refused is kept for the caller: the
    /// files stay usable for those who can read them now.
    pub(super) fn correct_permissions(&mut self) {
        let Self { paths, options, state_fd, readers_fd, copies, .. } = &*self;
        let group = wanted_group(paths, options);
        let copies = copies.iter().zip(0..).filter_map(|(copy, index)| {
            Some((FileKind::Data(index), copy.as_ref().map(DataFile::fd)?, options.mode))
        });
        let files = [
            (FileKind::State, state_fd, options.mode),
            (FileKind::Readers, readers_fd, options.readers_mode),
        ];
        let results: Vec<_> = files
            .into_iter()
            .chain(copies)
            .map(|(kind, fd, mode)| correct(fd, kind, group, mode, paths))
            .collect();
        for result in results {
            match result {
                Ok(corrected) => self.corrected_permissions.extend(corrected),
                Err(error) => self.refused_permissions.push(error),
            }
        }
    }
}

/// The group first: while a file has the wrong one, its mode is not widened for it.
fn correct(
    fd: &OwnedFd,
    kind: FileKind,
    group: Option<u32>,
    mode: u32,
    paths: &Paths,
) -> Result<Option<Corrected>, Error> {
    let before = file::fstat(fd).map_err(paths.io(kind, "fstat"))?;
    let given = group.map_or(Ok(()), |group| give(fd, group, kind, paths));
    let mode = if given.is_ok() { mode } else { mode & before.mode };
    if before.mode & PERMISSIONS != mode & PERMISSIONS {
        file::fchmod(fd, mode).map_err(paths.io(kind, "fchmod"))?;
    }
    given?;
    let group = group.unwrap_or(before.group);
    let corrected = Corrected {
        path: paths.path_of(kind),
        mode: (before.mode & PERMISSIONS, mode & PERMISSIONS),
        group: (before.group, group),
    };
    Ok((corrected.mode.0 != corrected.mode.1 || before.group != group).then_some(corrected))
}
