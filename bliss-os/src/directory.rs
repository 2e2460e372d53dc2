//! Who could put another directory, or other files, in the place of those that a path leads to.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::retry_on_intr;

use crate::file::{self, FileInfo};
use crate::{Errno, errno, last_errno};

/// Bytes of a path, links on the way included.
const PATH_BYTES: usize = 4096;
/// Bytes of one name. Longer ones do not exist, and would be copied to the heap on their way to the system.
const NAME_BYTES: usize = 255;
/// Links that are followed, as many as the kernel follows.
const MOST_LINKS: u32 = 40;

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// Who may do what to a directory whose files are relied on.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Users who are relied on, root among them if it is.
    pub trusted: &'a [u32],
    /// Whether the directory itself must belong to one of them, as for somebody who writes there. Who only reads there may
    /// find it owned by any user, if only trusted ones could have given it to that user.
    pub own: bool,
    /// Whether nobody but its owner may write in the directory. Otherwise others may if it is sticky, as `/dev/shm` is: then
    /// they can make files there, and not replace any.
    pub private: bool,
}

/// What is wrong with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// With which: so many bytes of the path lead to it. 0: the current directory, or one above it.
    pub at: usize,
    /// What it is.
    pub why: Why,
}

/// What may be wrong with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It cannot be looked at.
    System(Errno),
    /// Something else, with this mode, has its name.
    NotADirectory(u32),
    /// It is a symbolic link.
    Link,
    /// Others than its owner may write in it, by its mode: they could replace what is there.
    Writable(u32),
    /// It belongs to this user, who is not relied on.
    Owner(u32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::System(errno) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(
                    f,
                    "cannot be looked at: {error}; correct the path, or let this user enter the folders above"
                )
            }
            Why::NotADirectory(mode) => write!(f, "is not a directory (mode {mode:#o}); correct the path"),
            Why::Link => f.write_str("is a symbolic link; name the directory that it leads to"),
            Why::Writable(mode) => write!(
                f,
                "may be written by others than its owner (mode {mode:#o}), who could replace what is in it; take that right \
                 from them (chmod go-w), or name another directory"
            ),
            Why::Owner(owner) => write!(
                f,
                "belongs to user {owner}, who is neither root nor the user expected here and could replace what is in it; \
                 remove it, or name a directory that only root could have made, such as one below /run"
            ),
        }
    }
}

/// Walks from the root to `directory`, along the links on the way, and checks at each step who could have made what is found
/// there: in a directory that only its owner may write, those who could write that directory; in a sticky one, the entry's
/// owner. Then `directory` itself by `rules`. Once this passes, nobody else can make the path lead elsewhere.
///
/// Takes a few system calls for each step, and does not allocate.
///
/// # Errors
/// The first directory that breaks a rule.
pub fn check(directory: &CStr, rules: Rules<'_>) -> Result<FileInfo, Fault> {
    let path = directory.to_bytes();
    let mut walk = Walk::new(path)?;
    let found = walk.run(rules.trusted);
    let at = walk.at(path);
    let fault = |why| Fault { at, why };
    let (last, info) = found.map_err(|(last, why)| Fault { at: last.unwrap_or(at), why })?;
    drop(last);
    if rules.own && !rules.trusted.contains(&info.owner) {
        return Err(fault(Why::Owner(info.owner)));
    }
    let sticky = info.mode & STICKY != 0 && !rules.private;
    if info.mode & OTHERS_WRITE != 0 && !sticky {
        return Err(fault(Why::Writable(info.mode)));
    }
    Ok(info)
}

/// What is still to be walked, at the end of a buffer, so that the target of a link can be put before it.
struct Walk {
    rest: [u8; PATH_BYTES],
    start: usize,
    /// Bytes of the path itself that have not been walked.
    left: usize,
}

type Found = Result<(OwnedFd, FileInfo), (Option<usize>, Why)>;

impl Walk {
    fn new(path: &[u8]) -> Result<Walk, Fault> {
        let fault = |errno| Fault { at: 0, why: Why::System(errno) };
        let mut walk = Walk { rest: [0; PATH_BYTES], start: PATH_BYTES, left: path.len() };
        walk.put_before(path).map_err(fault)?;
        if !path.starts_with(b"/") {
            let mut current = [0_u8; PATH_BYTES];
            // SAFETY:
            // - the buffer is writable and as long as is said.
            if unsafe { libc::getcwd(current.as_mut_ptr().cast(), current.len()) }.is_null() {
                return Err(fault(last_errno()));
            }
            let current = CStr::from_bytes_until_nul(&current).map_or(&b""[..], CStr::to_bytes);
            if !current.starts_with(b"/") {
                // Not below the root of this process.
                return Err(fault(libc::ENOENT));
            }
            walk.put_before(current).map_err(fault)?;
        }
        Ok(walk)
    }

    /// Puts a path before what is left.
    fn put_before(&mut self, path: &[u8]) -> Result<(), Errno> {
        let start = self.start.checked_sub(path.len() + 1).ok_or(libc::ENAMETOOLONG)?;
        let free = self.rest.get_mut(start..self.start).ok_or(libc::ENAMETOOLONG)?;
        free.iter_mut().zip(path.iter().chain(b"/")).for_each(|(to, from)| *to = *from);
        self.start = start;
        Ok(())
    }

    /// The next name. `None`: there is none.
    fn next_name(&mut self) -> Result<Option<([u8; NAME_BYTES], usize)>, Errno> {
        let is_end = |byte: &u8| *byte == b'/';
        let rest = self.rest.get(self.start..).unwrap_or_default();
        let slashes = rest.iter().take_while(|byte| is_end(byte)).count();
        let rest = rest.get(slashes..).unwrap_or_default();
        let len = rest.iter().position(is_end).unwrap_or(rest.len());
        self.start += slashes + len;
        if len == 0 {
            return Ok(None);
        }
        let mut name = [0; NAME_BYTES];
        let to = name.get_mut(..len).ok_or(libc::ENAMETOOLONG)?;
        to.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.left = self.left.min((PATH_BYTES - self.start).saturating_sub(1));
        Ok(Some((name, len)))
    }

    /// Whether nothing but slashes and dots for "here" is left.
    fn is_done(&self) -> bool {
        let rest = self.rest.get(self.start..).unwrap_or_default();
        rest.split(|byte| *byte == b'/').all(|name| name.is_empty() || name == b".")
    }

    /// How many bytes of the path were walked.
    fn at(&self, path: &[u8]) -> usize {
        path.len().saturating_sub(self.left)
    }

    /// The directory at the end, or what is wrong, and if it is wrong with a directory before, with which.
    fn run(&mut self, trusted: &[u32]) -> Found {
        let total = self.left;
        let here = |why| (None, why);
        let system = |errno| (None, Why::System(errno));
        let root = || open(CWD, b"/").and_then(|fd| file::fstat(&fd).map(|info| (fd, info)));
        let (mut directory, mut info) = root().map_err(system)?;
        let mut links = 0;
        loop {
            let before = total.saturating_sub(self.left);
            let Some((name, len)) = self.next_name().map_err(system)? else { return Ok((directory, info)) };
            let name = name.get(..len).unwrap_or_default();
            let next = open(&directory, name).map_err(system)?;
            let found = file::fstat(&next).map_err(system)?;
            if !matches!(name, b"." | b"..") {
                admit(&info, &found, trusted)
                    .map_err(|why| (matches!(why, Why::Writable(_)).then_some(before), why))?;
            }
            match found.mode & libc::S_IFMT {
                libc::S_IFDIR => (directory, info) = (next, found),
                libc::S_IFLNK if self.is_done() => return Err(here(Why::Link)),
                libc::S_IFLNK => {
                    links += 1;
                    let mut target = [0_u8; PATH_BYTES];
                    let len = readlinkat_raw(&next, c"", &mut target[..]).map_err(|e| system(errno(e)))?;
                    let target = target.get(..len).unwrap_or_default();
                    if links > MOST_LINKS || target.is_empty() {
                        return Err(system(libc::ELOOP));
                    }
                    if target.starts_with(b"/") {
                        (directory, info) = root().map_err(system)?;
                    }
                    self.put_before(target).map_err(system)?;
                }
                _ => return Err(here(Why::NotADirectory(found.mode))),
            }
        }
    }
}

/// Whether only trusted users could have made `entry` in `directory`, which only trusted users could have made.
fn admit(directory: &FileInfo, entry: &FileInfo, trusted: &[u32]) -> Result<(), Why> {
    if directory.mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    if directory.mode & STICKY == 0 {
        return Err(Why::Writable(directory.mode));
    }
    if trusted.contains(&entry.owner) || directory.owner == entry.owner {
        return Ok(());
    }
    Err(Why::Owner(entry.owner))
}

/// Opens a name only to look at it, a link itself if it is one.
fn open(directory: impl std::os::fd::AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| openat(&directory, name, flags, Mode::empty())).map_err(errno)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;

    use super::*;

    const STRANGER: u32 = 54_321;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What is found, and of a fault the path that it is at.
    fn ask(path: &Path, own: bool, private: bool) -> Result<(), (String, Why)> {
        let trusted = [0, file::effective_user()];
        let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let found = check(&c_path, Rules { trusted: &trusted, own, private });
        found.map(drop).map_err(|Fault { at, why }| {
            let text = String::from_utf8_lossy(&path.as_os_str().as_bytes()[..at]).into_owned();
            (text.trim_end_matches('/').to_owned(), why)
        })
    }

    #[test]
    fn what_others_may_write_is_refused_wherever_it_is_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let (above, below) = (dir.path().join("above"), dir.path().join("above/below"));
        fs::create_dir_all(&below).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        mode(&above, 0o755);
        for (of_below, refused, refused_if_private) in [
            (0o700, false, false),
            (0o755, false, false),
            (0o2750, false, false),
            (0o1777, false, true),
            (0o1770, false, true),
            (0o777, true, true),
            (0o770, true, true),
            (0o702, true, true),
        ] {
            mode(&below, of_below);
            for (private, refused) in [(false, refused), (true, refused_if_private)] {
                let found = ask(&below, true, private);
                match found {
                    Ok(()) => assert!(!refused, "{of_below:o} {private}"),
                    Err((at, Why::Writable(mode))) => {
                        assert!(refused && at == text(&below) && mode & 0o7777 == of_below, "{at} {mode:o}");
                    }
                    other => panic!("{of_below:o}: {other:?}"),
                }
            }
        }
        mode(&below, 0o755);
        for (of_above, refused) in [(0o1777, false), (0o775, true), (0o777, true), (0o703, true)] {
            mode(&above, of_above);
            let found = ask(&below, true, true).map_err(|(at, why)| (at, matches!(why, Why::Writable(_))));
            assert_eq!(found, if refused { Err((text(&above), true)) } else { Ok(()) }, "{of_above:o}");
        }
    }

    #[test]
    fn links_are_followed_on_the_way_and_are_no_directory_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("real/below")).unwrap();
        symlink("real", at("link")).unwrap();
        symlink(at("link"), at("absolute")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        for good in
            ["real", "real/", "real/.", "link/below", "absolute/below/", "link/../real", "link//below/."]
        {
            assert_eq!(ask(&at(good), true, true), Ok(()), "{good}");
        }
        for (bad, is) in [("link", "link"), ("link/", "link"), ("link/.", "link"), ("absolute", "absolute")] {
            let (found, why) = ask(&at(bad), true, true).unwrap_err();
            assert_eq!((Path::new(&found), why), (&*at(is), Why::Link), "{bad}");
        }
        assert!(matches!(ask(&at("file"), true, true), Err((_, Why::NotADirectory(_)))));
        assert!(matches!(ask(&at("file/x"), true, true), Err((_, Why::NotADirectory(_) | Why::System(_)))));
        assert_eq!(ask(&at("none/x"), true, true).unwrap_err().1, Why::System(libc::ENOENT));
        assert_eq!(ask(&at("loop/x"), true, true).unwrap_err().1, Why::System(libc::ELOOP));
        let long = at(&"x".repeat(5000));
        assert_eq!(ask(&long, true, true).unwrap_err().1, Why::System(libc::ENAMETOOLONG));
        assert_eq!(ask(&at(&"x".repeat(256)), true, true).unwrap_err().1, Why::System(libc::ENAMETOOLONG));
        // Where others may write, a link tells where another directory is.
        mode(&at("real"), 0o777);
        let (found, why) = ask(&at("link/below"), true, true).unwrap_err();
        assert!(Path::new(&found) == at("link") && matches!(why, Why::Writable(_)), "{found} {why:?}");
        assert_eq!(ask(Path::new("."), false, false), Ok(()), "the crate's own");
    }

    #[test]
    fn a_strangers_directory_is_refused_where_a_stranger_could_have_made_it() {
        if file::effective_user() != 0 {
            use std::io::Write as _;
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: directories of others: only root may give them away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (shared, theirs) = (dir.path().join("shared"), dir.path().join("shared/theirs"));
        fs::create_dir_all(theirs.join("below")).unwrap();
        mode(&shared, 0o755);
        chown(&theirs, Some(STRANGER), None).unwrap();
        // Root made it for them.
        assert_eq!(ask(&theirs, false, true), Ok(()));
        assert_eq!(ask(&theirs, true, true).unwrap_err().1, Why::Owner(STRANGER));
        mode(&shared, 0o1777);
        for own in [false, true] {
            for path in [theirs.clone(), theirs.join("below"), theirs.join("below/..")] {
                let (at, why) = ask(&path, own, true).unwrap_err();
                assert_eq!((Path::new(&at), why), (&*theirs, Why::Owner(STRANGER)), "{path:?}");
            }
        }
        // And a link of theirs leads where they want.
        let link = shared.join("link");
        symlink(dir.path(), &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(STRANGER), None).unwrap();
        let (at, why) = ask(&link.join("shared"), false, false).unwrap_err();
        assert_eq!((Path::new(&at), why), (&*link, Why::Owner(STRANGER)));
        // A sticky directory's owner may do there what they want, and is trusted if the directory is.
        chown(&shared, Some(STRANGER), None).unwrap();
        assert_eq!(ask(&theirs, false, true), Ok(()));
    }
}
