//! The names of the files, made once so that no later step allocates; and opening them with all checks.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bliss_os::{
    Errno,
    directory::{self, Fault, Rules, Why},
    file::{self, Access, FileInfo},
};

use crate::error::{Error, FileKind, FilePath};
use crate::options::Options;

/// The files of one prefix.
#[derive(Debug)]
pub(crate) struct Paths {
    prefix: Arc<Path>,
    pub(crate) state: CString,
    pub(crate) data: [CString; 2],
    pub(crate) readers: CString,
    pub(crate) lock: CString,
    pub(crate) directory: CString,
}

impl Paths {
    pub(crate) fn new(prefix: &Path) -> Result<Paths, Error> {
        let named = |suffix: &str| with_suffix(prefix, suffix);
        let directory = match prefix.parent() {
            _ if prefix.as_os_str().as_bytes().ends_with(b"/") => prefix.to_path_buf(),
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        Ok(Paths {
            prefix: prefix.into(),
            state: named("_state")?,
            data: [named("_data_0")?, named("_data_1")?],
            readers: named("_readers")?,
            lock: named("_lock")?,
            directory: c_string(directory.into_os_string())?,
        })
    }

    pub(crate) fn path_of(&self, file: FileKind) -> FilePath {
        FilePath { prefix: self.prefix.clone(), file }
    }

    pub(crate) fn io(&self, file: FileKind, action: &'static str) -> impl Fn(Errno) -> Error + use<> {
        let path = self.path_of(file);
        move |errno| Error::Io { path: path.clone(), action, errno }
    }

    /// The path of copy 0 or 1.
    pub(crate) fn data(&self, index: u64) -> &CString {
        let [zero, one] = &self.data;
        if index & 1 == 0 { zero } else { one }
    }

    /// `P_old_G`: a copy that was pinned when another took its name.
    pub(crate) fn old(&self, generation: u64) -> Result<CString, Error> {
        with_suffix(&self.prefix, &format!("_old_{generation}"))
    }

    /// A name for a file that is being made; it gets its final name when it is complete.
    pub(crate) fn fresh(&self) -> Result<CString, Error> {
        with_suffix(&self.prefix, "_new")
    }

    /// The generations in the names `P_old_G` that exist.
    pub(crate) fn old_generations(&self) -> Vec<u64> {
        let directory = PathBuf::from(OsString::from_vec(self.directory.as_bytes().to_vec()));
        let prefix = self.prefix.as_os_str().as_bytes();
        let name_start = prefix.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let mut wanted = prefix.get(name_start..).unwrap_or_default().to_vec();
        wanted.extend_from_slice(b"_old_");
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let digits = std::str::from_utf8(name.as_bytes().strip_prefix(&wanted[..])?).ok()?;
                digits.parse().ok()
            })
            .collect()
    }

    /// `fstat`, and the checks of M7: a regular file of the right user.
    pub(crate) fn check_file(
        &self,
        file: FileKind,
        fd: impl AsFd,
        owners: &Owners,
    ) -> Result<FileInfo, Error> {
        let info = file::fstat(fd).map_err(self.io(file, "fstat"))?;
        if !info.is_regular() {
            return Err(Error::NotRegular { path: self.path_of(file), mode: info.mode });
        }
        if !owners.accept(info.owner) {
            return Err(Error::Owner {
                path: self.path_of(file),
                expected: owners.named(),
                found: info.owner,
            });
        }
        Ok(info)
    }

    /// Opens one of the files, with the checks of M7. `None` if there is none.
    pub(crate) fn open(
        &self,
        file: FileKind,
        writable: bool,
        owners: &Owners,
    ) -> Result<Option<(OwnedFd, FileInfo)>, Error> {
        let path = match file {
            FileKind::State => &self.state,
            FileKind::Data(index) => self.data(u64::from(index)),
            FileKind::Readers => &self.readers,
            FileKind::Lock | FileKind::Old(_) | FileKind::Directory => &self.lock,
        };
        let access = if writable { Access::ReadWrite } else { Access::Read };
        match file::open(path, access) {
            Ok(fd) => {
                let info = self.check_file(file, &fd, owners)?;
                Ok(Some((fd, info)))
            }
            Err(libc::ENOENT) => Ok(None),
            Err(errno) => Err(self.explain(file, path, "open", errno)),
        }
    }

    /// A directory or a link in place of a file deserves a better message than the system's.
    pub(crate) fn explain(
        &self,
        file: FileKind,
        path: &CString,
        action: &'static str,
        errno: Errno,
    ) -> Error {
        if matches!(errno, libc::ELOOP | libc::EISDIR | libc::ENXIO | libc::ENODEV)
            && let Ok(info) = file::lstat(path)
            && !info.is_regular()
        {
            return Error::NotRegular { path: self.path_of(file), mode: info.mode };
        }
        Error::Io { path: self.path_of(file), action, errno }
    }

    /// Whose files a reader accepts, once the directory was checked.
    pub(crate) fn reader_owners(&self, options: &Options) -> Result<Owners, Error> {
        let directory = self.check_directory(options, false)?;
        let me = file::effective_user();
        Ok(match options.owner {
            Some(owner) => Owners([owner; 3]),
            None => Owners([directory.map_or(me, |info| info.owner), me, 0]),
        })
    }

    /// Checks that nobody else could put files of their own in the place of these. `None`: there is no directory.
    pub(crate) fn check_directory(&self, options: &Options, own: bool) -> Result<Option<FileInfo>, Error> {
        let me = file::effective_user();
        let trusted = [0, me, options.owner.unwrap_or(me)];
        let rules = Rules { trusted: &trusted, own, private: options.private_directory };
        match directory::check(&self.directory, rules) {
            Ok(info) => Ok(Some(info)),
            Err(Fault { why: Why::System(libc::ENOENT), .. }) => Ok(None),
            Err(Fault { at, why }) => {
                Err(Error::Directory { path: self.path_of(FileKind::Directory), at, why })
            }
        }
    }

    /// Whose files a writer goes on with.
    pub(crate) fn writer_owners(named: Option<u32>) -> Owners {
        Owners([named.unwrap_or_else(file::effective_user); 3])
    }
}

/// Users whose files are accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners([u32; 3]);

impl Owners {
    fn accept(&self, owner: u32) -> bool {
        self.0.contains(&owner)
    }

    fn named(&self) -> u32 {
        let [first, ..] = self.0;
        first
    }
}

fn c_string(path: OsString) -> Result<CString, Error> {
    CString::new(path.into_vec())
        .map_err(|_| Error::Option { option: "prefix", reason: "must not contain a NUL byte" })
}

fn with_suffix(prefix: &Path, suffix: &str) -> Result<CString, Error> {
    let mut name = prefix.as_os_str().to_os_string();
    name.push(suffix);
    c_string(name)
}
