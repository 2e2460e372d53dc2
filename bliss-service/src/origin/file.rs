//! A file of rows, read again when it changes.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use super::{Context, Outcome};
use crate::config::{FileOrigin, RowFormat};
use crate::decode::{Accepted, Decoder, Refusal};

/// A file changed this recently may change again without another modification time: longer than a tick of the
/// kernel's clock, or where the file system only keeps whole seconds, longer than one.
const UNSETTLED: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// What tells a file from another one, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Whether the same fingerprint later means the same content.
    settled: bool,
}

impl Fingerprint {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let unsettled = UNSETTLED[usize::from(metadata.mtime_nsec() == 0)];
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            settled: age.is_some_and(|age| age >= unsettled),
        }
    }

    /// Whether this is the content that `before` was.
    pub(crate) fn is_still(&self, before: Option<&Self>) -> bool {
        before.is_some_and(|before| before.settled && self.same_file(before))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn same_file(&self, other: &Self) -> bool {
        Self { settled: other.settled, ..*self } == *other
    }
}

/// Opens a regular file; anything else is an error and never a wait.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Fingerprint)> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, Fingerprint::of(&metadata)))
}

type Read = Result<(Option<Accepted>, Fingerprint), (Refusal, Option<Fingerprint>)>;

pub(super) async fn run(context: Context, options: &FileOrigin, decoder: Arc<Decoder>) {
    // What was read last, and whether it was accepted.
    let mut seen: Option<(Fingerprint, bool)> = None;
    let mut reading: Option<JoinHandle<Read>> = None;
    loop {
        let read = reading.get_or_insert_with(|| {
            let (path, format, decoder) = (options.path.clone(), options.format, decoder.clone());
            let before = seen.map(|(fingerprint, _)| fingerprint);
            tokio::task::spawn_blocking(move || read(&path, format, &decoder, before))
        });
        // A read that hangs is waited for again next time; there is never a second one beside it.
        let done = tokio::select! {
            () = context.stop.cancelled() => return,
            done = tokio::time::timeout(options.timeout, &mut *read) => done,
        };
        if done.is_ok() {
            reading = None;
        }
        let (decoded, fingerprint) = match done {
            Err(_) => (Err(late(options)), None),
            Ok(Err(panic)) => (Err(Refusal::unavailable(format!("reading it failed: {panic}"))), None),
            Ok(Ok(Ok((None, _)))) => {
                let is_accepted = seen.is_some_and(|(_, accepted)| accepted);
                context.state.unchanged(context.place, is_accepted);
                if !context.sleep(options.interval).await {
                    return;
                }
                continue;
            }
            Ok(Ok(Ok((Some(accepted), fingerprint)))) => (Ok(accepted), Some(fingerprint)),
            Ok(Ok(Err((refusal, fingerprint)))) => (Err(refusal), fingerprint),
        };
        seen = match context.conclude(decoded).await {
            Outcome::Published => fingerprint.map(|fingerprint| (fingerprint, true)),
            Outcome::Refused => fingerprint.map(|fingerprint| (fingerprint, false)),
            // A file that went away and comes back as it was need not be read again.
            Outcome::Failed if fingerprint.is_none() => seen,
            Outcome::Failed | Outcome::Unchanged => None,
        };
        if !context.sleep(options.interval).await {
            return;
        }
    }
}

fn late(options: &FileOrigin) -> Refusal {
    let timeout = options.timeout;
    Refusal::unavailable(format!(
        "{}: reading it took longer than {timeout:?} (timeout)",
        options.path.display()
    ))
}

/// Reads the file unless it is as it was `before`.
fn read(path: &Path, format: RowFormat, decoder: &Decoder, before: Option<Fingerprint>) -> Read {
    let unavailable = |error: io::Error| (Refusal::unavailable(format!("{}: {error}", path.display())), None);
    let (file, fingerprint) = open_regular(path).map_err(unavailable)?;
    if fingerprint.is_still(before.as_ref()) {
        return Ok((None, fingerprint));
    }
    let name = path.display().to_string();
    let decoded = decoder.decode(&name, format, BufReader::with_capacity(1 << 18, &file));
    let after = Fingerprint::of(&file.metadata().map_err(unavailable)?);
    if !after.same_file(&fingerprint) {
        return Err((Refusal::unavailable(format!("{name}: it changed while it was read")), None));
    }
    match decoded {
        Ok(accepted) => Ok((Some(accepted), fingerprint)),
        Err(refusal) => Err((refusal, Some(fingerprint))),
    }
}
