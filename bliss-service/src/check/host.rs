//! What this host lets the user do who runs the check: nothing here changes a file.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{getegid, geteuid, getgroups};

use crate::fingerprint::open_regular;

/// The user who runs the check, as whom the daemon is taken to run.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) user: u32,
    pub(super) groups: Vec<u32>,
    /// Whether files may be given to any group: root may, unless its capabilities were taken.
    pub(super) gives_any_group: bool,
}

impl Host {
    pub(super) fn current() -> Self {
        let mut groups: Vec<u32> =
            getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
        groups.push(getegid().as_raw());
        let user = geteuid();
        Self {
            user: user.as_raw(),
            groups,
            gives_any_group: has_chown_capability().unwrap_or_else(|| user.is_root()),
        }
    }

    /// Whether files of the daemon may be given to `group`.
    pub(super) fn check_group(&self, group: u32) -> Result<(), String> {
        if self.gives_any_group || self.groups.contains(&group) {
            return Ok(());
        }
        Err(format!(
            "user id {} is not a member of group {group} and may not give files to it; make it a member (usermod -aG), \
             or run the daemon as root",
            self.user
        ))
    }

    /// Whether the daemon could publish in `directory`, or make it.
    pub(super) fn check_directory(&self, directory: &Path) -> Result<(), String> {
        let shown = directory.display();
        let user = self.user;
        match std::fs::metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => {
                Err(format!("{shown} is a file; name a directory, or remove the file"))
            }
            Ok(_) => {
                access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
                    format!(
                        "{shown} cannot be written by user id {user}: {error}; give it to that user, or name another"
                    )
                })?;
                bliss_store::check_directory(directory).map_err(|error| error.to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = parent(directory);
                let cannot = |why: String| format!("{shown} is not there and cannot be made: {why}");
                match std::fs::metadata(parent) {
                    Ok(metadata) if metadata.is_dir() => access(parent, Access::WRITE_OK | Access::EXEC_OK)
                        .map_err(|error| {
                            cannot(format!(
                                "user id {user} cannot write to {}: {error}; make it for that user",
                                parent.display()
                            ))
                        }),
                    Ok(_) => Err(cannot(format!("{} is a file; name another", parent.display()))),
                    Err(error) => Err(cannot(format!("{}: {error}; make that folder", parent.display()))),
                }
            }
            Err(error) => Err(format!("{shown}: {error}; name another, or let user id {user} enter it")),
        }
    }

    /// Whether a file that the daemon reads is there and can be read.
    pub(super) fn check_file(&self, path: &Path) -> Result<(), String> {
        let shown = path.display();
        let Err(error) = open_regular(path) else { return Ok(()) };
        Err(match error.kind() {
            io::ErrorKind::NotFound => format!("{shown} is not there; correct the path, or make the file"),
            io::ErrorKind::PermissionDenied => format!(
                "{shown} cannot be read by user id {}: {error}; make that user a member of the file's group (logs have \
                 `adm` on Debian), and let it enter the folders above",
                self.user
            ),
            _ => format!("{shown} cannot be read: {error}; name a regular file"),
        })
    }
}

/// The folder above; the current one for a name alone.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether `directory`, or what of the path to it is there, is on a file system of a disk.
pub(super) fn is_on_disk(directory: &Path) -> bool {
    let nearest =
        directory.ancestors().filter(|path| !path.as_os_str().is_empty()).find(|path| path.exists());
    // Where that is not known, there is nothing to warn of.
    bliss_store::is_in_memory(nearest.unwrap_or(Path::new("."))) == Some(false)
}

/// Whether this process has the capability `CAP_CHOWN`, bit 0 of its effective ones.
fn has_chown_capability() -> Option<bool> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(u64::from_str_radix(line.trim(), 16).ok()? & 1 == 1)
}
