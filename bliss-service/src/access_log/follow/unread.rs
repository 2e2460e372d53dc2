//! What an operator is told of a log that cannot be opened.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why a log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// There is no such file, or no longer; else it may not be read.
    pub is_missing: bool,
    /// Which file, why, and what to do.
    pub message: String,
}

/// What an operator needs to know of a log that cannot be opened.
pub(super) fn unread(path: &Path, error: &io::Error) -> Unread {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; correct its path, or see whether the web server writes it".to_owned(),
        io::ErrorKind::PermissionDenied => {
            let group = group_of(path).unwrap_or_else(|| "adm".to_owned());
            format!(
                "; make the daemon's user a member of the group that may read it, and restart the daemon, \
                 for instance `usermod -aG {group} bliss`"
            )
        }
        _ => String::new(),
    };
    Unread { is_missing, message: format!("{}: {error}{advice}", path.display()) }
}

/// The name of the group of `path` or, if that cannot be seen, of its folder; not that of root, which nobody should join.
fn group_of(path: &Path) -> Option<String> {
    let gid = path.ancestors().find_map(|path| std::fs::metadata(path).ok())?.gid();
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(gid)).then(|| name.to_owned())
    });
    found.filter(|_| gid != 0)
}
