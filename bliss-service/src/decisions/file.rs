//! The file of decisions: appended to, renamed when it is half of what the two may have, and never waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Decision;

/// Its name in the folder of what is kept over a restart. The one before has `.1` behind it.
pub const FILE_NAME: &str = "decisions.jsonl";
/// A longer line is none of ours.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// The file that decisions are written to. For one thread.
#[derive(Debug)]
pub struct DecisionFile {
    path: PathBuf,
    /// Of the file and the one before it together.
    max_bytes: u64,
    open: Option<(File, u64)>,
}

impl DecisionFile {
    /// Writes to `path`; the file is opened with the first decision.
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes, open: None }
    }

    /// Appends a decision.
    ///
    /// # Errors
    /// It cannot be written. The next one opens the file again.
    pub fn append(&mut self, decision: &Decision) -> io::Result<()> {
        let mut line = serde_json::to_vec(decision)?;
        line.push(b'\n');
        let len = line.len() as u64;
        if self.open.as_ref().is_some_and(|(_, bytes)| bytes + len > self.max_bytes / 2) {
            self.open = None;
            std::fs::rename(&self.path, previous(&self.path))?;
        }
        let (mut file, bytes) = match self.open.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        file.write_all(&line)?;
        self.open = Some((file, bytes + len));
        Ok(())
    }
}

/// Opens the file for appending. A line that a killed daemon left unfinished is ended, so that the next one can be read.
fn open(path: &Path) -> io::Result<(File, u64)> {
    use std::os::unix::fs::FileExt as _;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    let mut bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = bytes.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
        bytes += 1;
    }
    Ok((file, bytes))
}

/// The file before.
fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Calls `on` with every decision of the file and of the one before it, the oldest first. Lines that are none are counted and left
/// out.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(path: &Path, mut on: impl FnMut(Decision)) -> io::Result<u64> {
    let mut unread = 0;
    match File::open(previous(path)) {
        Ok(file) => unread += read_file(file, &mut on)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(unread + read_file(File::open(path)?, &mut on)?)
}

fn read_file(file: File, on: &mut impl FnMut(Decision)) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut line, mut unread) = (Vec::new(), 0);
    loop {
        line.clear();
        let mut limited = io::Read::take(&mut reader, MAX_LINE_BYTES);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(unread);
        }
        match serde_json::from_slice(&line) {
            Ok(decision) => on(decision),
            Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Err(_) => unread += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::decision;
    use super::*;

    fn read_all(path: &Path) -> (Vec<Decision>, u64) {
        let mut found = Vec::new();
        let unread = read(path, |decision| found.push(decision)).unwrap();
        (found, unread)
    }

    #[test]
    fn what_is_written_is_read_and_the_oldest_goes_when_there_is_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let one = serde_json::to_vec(&decision(0)).unwrap().len() as u64 + 1;
        let mut file = DecisionFile::new(path.clone(), one * 20);
        for number in 0..55 {
            file.append(&decision(number)).unwrap();
        }
        let (found, unread) = read_all(&path);
        assert_eq!(unread, 0);
        assert!((10..=20).contains(&found.len()), "{}", found.len());
        let numbers: Vec<_> = found.iter().map(|decision| decision.status).collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]) && numbers.ends_with(&[54]),
            "{numbers:?}"
        );
        let bytes: u64 =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= one * 21, "{bytes}");
    }

    /// A line that was cut off by a crash costs no other one.
    #[test]
    fn an_unfinished_line_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        DecisionFile::new(path.clone(), 1 << 20).append(&decision(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..40]].concat()).unwrap();
        DecisionFile::new(path.clone(), 1 << 20).append(&decision(2)).unwrap();
        let (found, unread) = read_all(&path);
        assert_eq!((found, unread), (vec![decision(1), decision(2)], 1));
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join(FILE_NAME), dir.path().join("other"));
        std::fs::write(&other, "mine\n").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(DecisionFile::new(path, 1 << 20).append(&decision(1)).is_err());
        assert_eq!(std::fs::read_to_string(other).unwrap(), "mine\n");
    }
}
