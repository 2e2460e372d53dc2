//! What an operator has decided by hand: exceptions, and whether policies act at all. One JSON file in the daemon's folder.
//!
//! `blissctl` writes it, and the daemon looks at it five times a second. So it takes no other way into the daemon, a decision is
//! kept where the daemon hangs or does not run, and only who may write the folder (the daemon's user and root) decides. It is
//! written under another name, brought to the disk and renamed, under a lock against other writers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bliss_core::build::{Exception, Subject};
use bliss_core::policy::exceptions::{ExceptionKind, MAX_AGENT_BYTES};
use bliss_core::prefixes::Prefix;
use bliss_os::lock::{Lock, try_lock};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fingerprint::{Fingerprint, open_regular};

/// The file's name.
pub const FILE: &str = "overrides.json";
/// Decisions about clients, one JSON object a line, for training.
pub const LABELS_FILE: &str = "labels.jsonl";
const LOCK_FILE: &str = "overrides.lock";
const VERSION: u32 = 1;
/// The most exceptions at a time.
pub const MAX_ENTRIES: usize = 65_536;
/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 200;
const MAX_BYTES: u64 = 256 << 20;
/// Labels beyond this are not written.
const MAX_LABEL_BYTES: u64 = 256 << 20;
/// How long another writer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    version: u32,
    /// Grows with each change.
    pub revision: u64,
    /// The number of the last exception that was made.
    last_id: u64,
    /// Since when and why policies do not act; `None`: they do.
    pub off: Option<Off>,
    /// Exceptions; of several for one subject the last one counts.
    pub exceptions: Vec<Entry>,
}

/// Policies do not act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Off {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// An exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// What is done.
    pub kind: Kind,
    /// An address, a network, or a whole user agent.
    pub subject: String,
    /// Whether the subject is a user agent.
    pub is_user_agent: bool,
    /// When it was made.
    pub since: Timestamp,
    /// It holds before this time.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// What an exception does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The client is allowed.
    Allow,
    /// The client is blocked.
    Deny,
    /// The client is challenged.
    Challenge,
}

impl Kind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Challenge => "challenge",
        }
    }

    /// What such a client is in training.
    fn label(self) -> Option<&'static str> {
        match self {
            Self::Allow => Some("person"),
            Self::Deny => Some("robot"),
            Self::Challenge => None,
        }
    }
}

/// Why the file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{path}: cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Somebody else could have written it.
    #[error(
        "{path}: belongs to user {owner} and has mode {mode:o}; expected the daemon's user or root and no right to write for \
         others: give it to the daemon's user, mode 0600"
    )]
    Foreign {
        /// The file.
        path: String,
        /// Whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// It is not what was written.
    #[error("{path}: is damaged: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What was found.
        why: String,
    },
}

/// Whom an exception is for.
///
/// # Errors
/// It looks like an address and is none, or it is too long.
pub fn subject(text: &str) -> Result<Subject, String> {
    let text = text.trim();
    let is_like_address = text.contains(['.', ':'])
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:/".contains(&byte));
    match Prefix::parse(text.as_bytes()) {
        Ok(prefix) => Ok(Subject::Prefix(prefix)),
        Err(error) if is_like_address => Err(format!("{text:?}: {error}")),
        Err(_) if text.is_empty() || text == "-" || text.len() > MAX_AGENT_BYTES => Err(format!(
            "expected an address, a network such as 192.0.2.0/24, or a user agent of 1 to {MAX_AGENT_BYTES} bytes, found {} bytes",
            text.len()
        )),
        Err(_) => Ok(Subject::UserAgent(text.to_owned())),
    }
}

/// A subject as it is written, and whether it is a user agent.
fn written(subject: &Subject) -> (String, bool) {
    match subject {
        Subject::Prefix(prefix) => (prefix.to_string(), false),
        Subject::UserAgent(agent) => (agent.clone(), true),
    }
}

impl Entry {
    fn exception(&self) -> Option<Exception> {
        let subject = if self.is_user_agent {
            Subject::UserAgent(self.subject.clone())
        } else {
            Subject::Prefix(Prefix::parse(self.subject.as_bytes()).ok()?)
        };
        let kind = match self.kind {
            Kind::Allow => ExceptionKind::Allow,
            Kind::Deny => ExceptionKind::Deny,
            Kind::Challenge => ExceptionKind::Challenge,
        };
        let until = u32::try_from(self.until.as_second().max(0)).unwrap_or(u32::MAX);
        let name = format!("{} {}", self.kind.name(), self.id);
        Some(Exception { kind, subject, until, name, status: None, header: None })
    }
}

impl Overrides {
    /// The exceptions as they are published, without those that ran out before `now`.
    pub fn exceptions(&self, now: Timestamp) -> Vec<Exception> {
        let current = self.exceptions.iter().filter(|entry| entry.until > now);
        current.filter_map(Entry::exception).collect()
    }

    /// Adds an exception in place of an older one for the same subject. Returns its number.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(
        &mut self,
        kind: Kind,
        subject: &Subject,
        now: Timestamp,
        until: Timestamp,
        reason: &str,
    ) -> Result<u64, String> {
        let (subject, is_user_agent) = written(subject);
        self.exceptions.retain(|entry| {
            entry.until > now && (entry.is_user_agent != is_user_agent || entry.subject != subject)
        });
        if self.exceptions.len() >= MAX_ENTRIES {
            return Err(format!(
                "there are {MAX_ENTRIES} exceptions, and no more are kept; `blissctl forget` some, or name networks in place of \
                 addresses"
            ));
        }
        self.last_id += 1;
        let (id, reason) = (self.last_id, reason.to_owned());
        self.exceptions.push(Entry { id, kind, subject, is_user_agent, since: now, until, reason });
        Ok(id)
    }

    /// Removes the exception with this number, or those for this subject, and returns them.
    pub fn forget(&mut self, what: &str) -> Vec<Entry> {
        let subject = subject(what).ok().map(|subject| written(&subject));
        let is_meant = |entry: &Entry| {
            what.parse() == Ok(entry.id)
                || subject.as_ref().is_some_and(|(text, is_user_agent)| {
                    *text == entry.subject && *is_user_agent == entry.is_user_agent
                })
        };
        let (gone, kept) = std::mem::take(&mut self.exceptions).into_iter().partition(is_meant);
        self.exceptions = kept;
        gone
    }

    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("expected version {VERSION}, found {}", self.version));
        }
        if self.exceptions.len() > MAX_ENTRIES {
            return Err(format!(
                "expected {MAX_ENTRIES} exceptions at most, found {}",
                self.exceptions.len()
            ));
        }
        match self.exceptions.iter().find(|entry| entry.exception().is_none()) {
            Some(entry) => Err(format!("exception {}: {:?} is no network", entry.id, entry.subject)),
            None => Ok(()),
        }
    }
}

/// The folder that the file is in, and what was read of it.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Makes the folder if its parent exists and it does not.
    ///
    /// # Errors
    /// It cannot be made; the text says where.
    pub fn make(&self) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(io::Error::new(error.kind(), format!("{}: {error}", self.0.display())))
            }
            _ => Ok(()),
        }
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    /// The file with labels.
    pub fn labels(&self) -> PathBuf {
        self.0.join(LABELS_FILE)
    }

    /// What the file is now; `None`: there is none.
    pub(crate) fn look(&self) -> Option<Fingerprint> {
        std::fs::symlink_metadata(self.file()).ok().map(|metadata| Fingerprint::of(&metadata))
    }

    /// Reads the file; without one there are no exceptions, and policies act.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or somebody else could have written it.
    pub fn read(&self) -> Result<Overrides, Unusable> {
        let path = self.file();
        let shown = path.display().to_string();
        let unreadable = |error| Unusable::Unreadable { path: shown.clone(), error };
        let (file, fingerprint) = match open_regular(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overrides::default().begun()),
            Err(error) => return Err(unreadable(error)),
        };
        let damaged = |why: String| Unusable::Damaged { path: shown.clone(), why };
        let metadata = file.metadata().map_err(unreadable)?;
        let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid())
            // root acts for the daemon's user, to whom the folder belongs.
            || (rustix::process::geteuid().is_root() && self.owner().is_ok_and(|(uid, _)| uid == metadata.uid()));
        if !is_ours || metadata.mode() & 0o022 != 0 {
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            return Err(Unusable::Foreign { path: shown.clone(), owner, mode });
        }
        if fingerprint.bytes() > MAX_BYTES {
            return Err(damaged(format!("{} bytes, expected {MAX_BYTES} at most", fingerprint.bytes())));
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(unreadable)?;
        let found: Overrides = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        found.check().map_err(damaged)?;
        Ok(found)
    }

    /// Takes a damaged file out of the way and returns its new name.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.0.join(format!("{FILE}.damaged-{}", Timestamp::now().as_second()));
        std::fs::rename(self.file(), &aside)?;
        Ok(aside)
    }

    /// Changes the file while no other does. A damaged one is set aside and begun anew, of which `say` is told.
    ///
    /// # Errors
    /// The folder cannot be written, another program keeps it locked, or `change` says why not.
    pub fn change<T>(
        &self,
        say: &mut dyn FnMut(String),
        change: impl FnOnce(&mut Overrides) -> Result<T, String>,
    ) -> Result<(T, Overrides), String> {
        let shown = self.0.display();
        let _lock = self.lock().map_err(|error| {
            format!("{shown}: cannot be written: {error}; run this as root or as the daemon's user")
        })?;
        let mut overrides = match self.read() {
            Ok(overrides) => overrides,
            Err(damaged @ Unusable::Damaged { .. }) => {
                let aside =
                    self.set_aside().map_err(|error| format!("{damaged}; it cannot be renamed: {error}"))?;
                say(format!("{damaged}; it is kept as {}, and a new one begun", aside.display()));
                Overrides::default().begun()
            }
            Err(error) => return Err(error.to_string()),
        };
        let result = change(&mut overrides)?;
        self.write(&mut overrides).map_err(|error| format!("{shown}: cannot be written: {error}"))?;
        Ok((result, overrides))
    }

    fn lock(&self) -> io::Result<File> {
        let path = self.0.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        self.give(&lock)?;
        let began = Instant::now();
        loop {
            match try_lock(&lock, Lock::Exclusive, 0) {
                Ok(true) => return Ok(lock),
                Ok(false) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                Ok(false) => return Err(io::Error::other("another program keeps it locked")),
                Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    fn owner(&self) -> io::Result<(u32, u32)> {
        let metadata = std::fs::metadata(&self.0)?;
        Ok((metadata.uid(), metadata.gid()))
    }

    /// Gives a file that root made to whom the folder belongs, so that the daemon can read it.
    fn give(&self, file: &File) -> io::Result<()> {
        let (owner, group) = self.owner()?;
        if rustix::process::geteuid().is_root() && file.metadata()?.uid() != owner {
            fchown(file, Some(owner), Some(group))?;
        }
        Ok(())
    }

    fn write(&self, overrides: &mut Overrides) -> io::Result<()> {
        let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        overrides.revision = now.max(overrides.revision + 1);
        let text = serde_json::to_vec(overrides).map_err(io::Error::other)?;
        let new = self.0.join(format!("{FILE}.new"));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        self.give(&file)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, self.file())?;
        File::open(&self.0)?.sync_all()
    }

    /// Adds what was decided about a client to the labels for training; `None` takes an earlier label back.
    ///
    /// # Errors
    /// The file cannot be written, or is too long.
    pub fn label(&self, kind: Option<Kind>, entry: &Entry) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            at: Timestamp,
            label: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            network: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            user_agent: Option<&'a str>,
            reason: &'a str,
        }
        let (network, user_agent) = match entry.is_user_agent {
            true => (None, Some(entry.subject.as_str())),
            false => (Some(entry.subject.as_str()), None),
        };
        let label = kind.and_then(Kind::label);
        let line = Line { at: Timestamp::now(), label, network, user_agent, reason: &entry.reason };
        let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
        text.push(b'\n');
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = options.open(self.labels())?;
        if file.metadata()?.len() > MAX_LABEL_BYTES {
            return Err(io::Error::other(format!("more than {MAX_LABEL_BYTES} bytes; remove old lines")));
        }
        self.give(&file)?;
        file.write_all(&text)?;
        file.sync_all()
    }
}

impl Overrides {
    fn begun(self) -> Self {
        Self { version: VERSION, ..self }
    }
}

#[cfg(test)]
mod tests;
