//! The folder of what is kept.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bliss_core::key::{KeySecret, SECRET_BYTES, hash_key};
use bliss_os::lock::{Lock, try_lock};

use super::envelope::{self, Kind, Meaning, Unfit, Wanted};

/// Where packages keep what a reboot must not lose; systemd makes it (`StateDirectory=bliss`).
pub const DEFAULT_DIRECTORY: &str = "/var/lib/bliss";

const SECRET: Kind = Kind { name: *b"secret  ", version: 1 };
const SECRET_FILE: &str = "key-secret";
const LOCK_FILE: &str = "lock";

/// What is kept where, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepOptions {
    /// The folder; `None`: nothing is kept.
    pub directory: Option<PathBuf>,
    /// The time between two checkpoints.
    pub interval: Duration,
    /// Bytes that the content of one may have before it is compressed.
    pub max_bytes: u64,
}

impl Default for KeepOptions {
    fn default() -> Self {
        Self { directory: None, interval: Duration::from_secs(60), max_bytes: 1 << 30 }
    }
}

/// A folder that this process keeps things in, and no other process at the same time.
///
/// # Orderings
/// `asked` is a number that grows with each request for checkpoints; no other memory depends on it, so relaxed is enough.
#[derive(Debug)]
pub struct Keep {
    directory: PathBuf,
    options: KeepOptions,
    asked: AtomicU64,
    /// Its lock is held while this lives.
    _lock: File,
}

impl Keep {
    /// Opens the folder of `options`; makes one that was configured if its parent exists. `None`: nothing is kept, since none
    /// is configured, or the default one is not there.
    ///
    /// # Errors
    /// It cannot be used; what it is and what to do, in words.
    pub fn open(options: &KeepOptions) -> Result<Option<Self>, String> {
        let Some(directory) = &options.directory else { return Ok(None) };
        let shown = directory.display();
        let advice = "give it to the daemon's user (systemd does with `StateDirectory=`), or correct `checkpoint.directory`";
        if !directory.is_dir() {
            if directory == Path::new(DEFAULT_DIRECTORY) {
                return Ok(None);
            }
            let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
            made.map_err(|error| format!("{shown}: cannot be created: {error}; {advice}"))?;
        }
        let mut lock = OpenOptions::new();
        let lock = lock.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(directory.join(LOCK_FILE));
        let lock = lock.map_err(|error| format!("{shown}: cannot be written: {error}; {advice}"))?;
        match try_lock(&lock, Lock::Exclusive, 0) {
            Ok(true) => {}
            Ok(false) => {
                return Err(format!(
                    "{shown}: another daemon uses it; give each a `checkpoint.directory` of its own"
                ));
            }
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(format!("{shown}: cannot be locked: {error}; {advice}"));
            }
        }
        let (directory, options) = (directory.clone(), options.clone());
        Ok(Some(Self { directory, options, asked: AtomicU64::new(0), _lock: lock }))
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How often, and how much.
    pub fn options(&self) -> &KeepOptions {
        &self.options
    }

    /// The file of the origin `name`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.checkpoint"))
    }

    /// Asks for checkpoints now.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// How often was asked so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The secret of the keys, as it was kept.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn secret(&self) -> Result<KeySecret, Unfit> {
        let wanted = Wanted {
            kind: SECRET,
            meaning: Meaning { fingerprint: 0, secret: 0 },
            // It never gets old.
            now_ms: u64::MAX,
            max_age_ms: u64::MAX,
            max_bytes: SECRET_BYTES as u64,
        };
        let content = envelope::read(&self.directory.join(SECRET_FILE), &wanted)?;
        let secret = <[u8; SECRET_BYTES]>::try_from(content.bytes.as_slice());
        secret.map(KeySecret).map_err(|_| Unfit::damaged(format!("expected {SECRET_BYTES} bytes")))
    }

    /// Keeps the secret of the keys, unless it is kept: without it what else is kept means nothing after a reboot.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_secret(&self, secret: &KeySecret) -> io::Result<()> {
        if self.secret().is_ok_and(|kept| kept == *secret) {
            return Ok(());
        }
        let meaning = Meaning { fingerprint: 0, secret: 0 };
        envelope::write(&self.directory.join(SECRET_FILE), SECRET, meaning, now_ms(), &secret.0).map(|_| ())
    }
}

/// What tells a secret from another one, and nothing else of it.
pub(crate) fn identity(secret: &KeySecret) -> u64 {
    hash_key(secret, "identity of the secret", std::iter::empty())
}

/// The present, in milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path) -> KeepOptions {
        KeepOptions { directory: Some(directory.to_owned()), ..KeepOptions::default() }
    }

    #[test]
    fn a_folder_has_one_daemon_and_keeps_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        let keep = Keep::open(&options(&folder)).unwrap().unwrap();
        let said = Keep::open(&options(&folder)).unwrap_err();
        assert!(said.contains("another daemon"), "{said}");
        assert!(matches!(keep.secret(), Err(Unfit::Absent)));
        let secret = KeySecret([5; SECRET_BYTES]);
        keep.keep_secret(&secret).unwrap();
        drop(keep);
        let keep = Keep::open(&options(&folder)).unwrap().unwrap();
        assert_eq!(keep.secret().unwrap(), secret);
        std::fs::write(folder.join(SECRET_FILE), "something else").unwrap();
        assert!(matches!(keep.secret(), Err(Unfit::Damaged(_))));
        keep.keep_secret(&secret).unwrap();
        assert_eq!(keep.secret().unwrap(), secret);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let said = Keep::open(&options(Path::new("/proc/bliss/state"))).unwrap_err();
        assert!(said.contains("/proc/bliss/state") && said.contains("StateDirectory"), "{said}");
        assert!(Keep::open(&KeepOptions::default()).unwrap().is_none());
    }
}
