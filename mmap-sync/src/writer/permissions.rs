//! Group and mode of the files: of new ones, and of those that an earlier writer left with others.

use std::os::fd::{AsFd, OwnedFd};

use bliss_os::file::{self, FileInfo};

use super::Writer;
use super::data_file::DataFile;
use crate::error::{Error, FileKind};
use crate::options::Options;
use crate::paths::Paths;

/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o777;
/// New files in such a directory get its group.
const SET_GROUP: u32 = 0o2000;

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
        let corrected = files
            .into_iter()
            .chain(copies)
            .filter_map(|(kind, fd, mode)| correct(fd, kind, group, mode, paths).err());
        self.refused_permissions = corrected.collect();
    }
}

/// The group first: while a file has the wrong one, its mode is not widened for it.
fn correct(fd: &OwnedFd, kind: FileKind, group: Option<u32>, mode: u32, paths: &Paths) -> Result<(), Error> {
    let FileInfo { mode: before, .. } = file::fstat(fd).map_err(paths.io(kind, "fstat"))?;
    let given = group.map_or(Ok(()), |group| give(fd, group, kind, paths));
    let mode = if given.is_ok() { mode } else { mode & before };
    if before & PERMISSIONS != mode & PERMISSIONS {
        file::fchmod(fd, mode).map_err(paths.io(kind, "fchmod"))?;
    }
    given
}
