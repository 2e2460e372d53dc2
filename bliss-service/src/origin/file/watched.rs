//! A file that is read again when it changes.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::fingerprint::{Fingerprint, open_regular};
use crate::origin::Outcome;
use crate::origin::look::{Decode, Look};
use crate::refusal::Refusal;

type Read<T> = Result<(Option<T>, Fingerprint), (Refusal, Option<Fingerprint>)>;

/// A file that is looked at again and again.
pub(in crate::origin) struct Watched<D: Decode> {
    path: PathBuf,
    timeout: Duration,
    decoder: Arc<D>,
    /// What was read last, and whether it was accepted.
    seen: Option<(Fingerprint, bool)>,
    /// What was read and is not judged yet.
    pending: Option<Fingerprint>,
    reading: Option<JoinHandle<Read<D::Output>>>,
}

impl<D: Decode> Watched<D> {
    pub(in crate::origin) fn new(path: PathBuf, timeout: Duration, decoder: Arc<D>) -> Self {
        Self { path, timeout, decoder, seen: None, pending: None, reading: None }
    }

    /// Looks once; unless it is unchanged, [`Self::settle`] follows.
    pub(in crate::origin) async fn look(&mut self) -> Look<D::Output> {
        self.pending = None;
        let before = self.seen.map(|(fingerprint, _)| fingerprint);
        let read = self.reading.get_or_insert_with(|| {
            let (path, decoder) = (self.path.clone(), self.decoder.clone());
            tokio::task::spawn_blocking(move || read(&path, &*decoder, before))
        });
        // A read that hangs is waited for again next time; there is never a second one beside it.
        let done = tokio::time::timeout(self.timeout, read).await;
        if done.is_ok() {
            self.reading = None;
        }
        match done {
            Err(_) => Look::Read(Err(self.late()), None),
            Ok(Err(panic)) => {
                Look::Read(Err(Refusal::unavailable(format!("reading it failed: {panic}"))), None)
            }
            Ok(Ok(Ok((None, _)))) => {
                Look::Unchanged { is_accepted: self.seen.is_some_and(|(_, accepted)| accepted) }
            }
            Ok(Ok(Ok((Some(decoded), fingerprint)))) => {
                self.pending = Some(fingerprint);
                let (seconds, nanoseconds) = fingerprint.modified();
                let changed = i32::try_from(nanoseconds).ok().and_then(|n| Timestamp::new(seconds, n).ok());
                Look::Read(Ok(decoded), changed)
            }
            Ok(Ok(Err((refusal, fingerprint)))) => {
                self.pending = fingerprint;
                Look::Read(Err(refusal), None)
            }
        }
    }

    /// What became of what was read.
    pub(in crate::origin) fn settle(&mut self, outcome: Outcome) {
        let fingerprint = self.pending.take();
        self.seen = match outcome {
            Outcome::Published => fingerprint.map(|fingerprint| (fingerprint, true)),
            Outcome::Refused => fingerprint.map(|fingerprint| (fingerprint, false)),
            // A file that disappears and comes back unchanged need not be read again.
            Outcome::Failed if fingerprint.is_none() => self.seen,
            Outcome::Failed | Outcome::Unchanged => None,
        };
    }

    fn late(&self) -> Refusal {
        let (path, timeout) = (self.path.display(), self.timeout);
        Refusal::unavailable(format!("{path}: reading it took longer than {timeout:?} (timeout)"))
    }
}

/// Reads the file unless it is as it was `before`.
fn read<D: Decode>(path: &Path, decoder: &D, before: Option<Fingerprint>) -> Read<D::Output> {
    let unavailable = |error: io::Error| (Refusal::unavailable(format!("{}: {error}", path.display())), None);
    let (file, fingerprint) = open_regular(path).map_err(unavailable)?;
    if fingerprint.is_still(before.as_ref()) {
        return Ok((None, fingerprint));
    }
    let name = path.display().to_string();
    let decoded = decoder.decode(&name, BufReader::with_capacity(1 << 18, &file));
    let after = Fingerprint::of(&file.metadata().map_err(unavailable)?);
    if !after.same_file(&fingerprint) {
        return Err((Refusal::unavailable(format!("{name}: it changed during the read")), None));
    }
    match decoded {
        Ok(decoded) => Ok((Some(decoded), fingerprint)),
        Err(refusal) => Err((refusal, Some(fingerprint))),
    }
}
