//! The other process: `bliss-scorer`, which scores requests through libblissffi.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::access_log::parse::Record;

/// Texts of the whole request, in the order in which they are sent.
const TEXTS: [&str; 16] = [
    "http.ip",
    "http.method",
    "http.target",
    "http.scheme",
    "http.host",
    "http.user_agent",
    "http.referrer",
    "http.accept",
    "http.accept_language",
    "http.accept_encoding",
    "http.sec_fetch_site",
    "http.sec_fetch_mode",
    "http.sec_fetch_dest",
    "http.sec_ch_ua",
    "http.sec_ch_ua_mobile",
    "http.sec_ch_ua_platform",
];
const ABSENT: u32 = u32::MAX;
/// Bytes of each shadow model's answer; the demo shows none.
const SHADOW_BYTES: u64 = 20;

/// A running `bliss-scorer`. It reads every request of a batch before the next publication is made.
pub(super) struct Scorer {
    child: Child,
    output: BufReader<ChildStdout>,
    batch: Vec<u8>,
    requests: u32,
}

/// The library's answer for one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) status: i32,
    pub(super) score: u8,
    pub(super) bot_probability: f64,
    pub(super) generation: u64,
    pub(super) fetch_ns: Option<u32>,
    pub(super) score_ns: Option<u32>,
}

impl Scorer {
    /// Starts the program at `path` on the publications in `directory`.
    pub(super) fn start(path: &Path, directory: &Path) -> Result<Self> {
        let mut child = Command::new(path)
            .arg(directory)
            .args(TEXTS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot be started", path.display()))?;
        let output = child.stdout.take().map(BufReader::new).context("bliss-scorer has no output")?;
        Ok(Self { child, output, batch: vec![0; 4], requests: 0 })
    }

    /// `bliss-scorer` in the folder of this program.
    pub(super) fn default_path() -> Result<PathBuf> {
        let path = std::env::current_exe()?.with_file_name("bliss-scorer");
        if !path.exists() {
            bail!(
                "{}: not found; build it with `cargo build -p bliss-ffi`, or name it with --scorer",
                path.display()
            );
        }
        Ok(path)
    }

    /// Adds a request to the batch.
    pub(super) fn add(&mut self, record: &Record<'_>) {
        let ip = record.ip.to_string();
        let now = u32::try_from(record.time_ms / 1000).unwrap_or(u32::MAX);
        self.batch.extend(now.to_le_bytes());
        let http = record.http(&[]);
        let values: [Option<&[u8]>; TEXTS.len()] = [
            Some(ip.as_bytes()),
            http.method,
            http.target,
            http.scheme,
            http.host,
            http.user_agent,
            http.referrer,
            http.accept,
            http.accept_language,
            http.accept_encoding,
            http.sec_fetch_site,
            http.sec_fetch_mode,
            http.sec_fetch_dest,
            http.sec_ch_ua,
            http.sec_ch_ua_mobile,
            http.sec_ch_ua_platform,
        ];
        for value in values {
            match value.and_then(|v| Some((v, u32::try_from(v.len()).ok()?))) {
                Some((bytes, len)) => {
                    self.batch.extend(len.to_le_bytes());
                    self.batch.extend(bytes);
                }
                None => self.batch.extend(ABSENT.to_le_bytes()),
            }
        }
        self.requests += 1;
    }

    /// Has the batch scored, and starts the next one.
    pub(super) fn flush(&mut self) -> Result<Vec<Reply>> {
        if self.requests == 0 {
            return Ok(Vec::new());
        }
        self.batch[..4].copy_from_slice(&self.requests.to_le_bytes());
        let input = self.child.stdin.as_mut().context("bliss-scorer has no input")?;
        input.write_all(&self.batch).and_then(|()| input.flush()).context("bliss-scorer ended")?;
        let replies = (0..self.requests)
            .map(|_| self.reply())
            .collect::<io::Result<_>>()
            .context("bliss-scorer ended")?;
        self.batch.truncate(4);
        self.requests = 0;
        Ok(replies)
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut bytes = [0; 32];
        self.output.read_exact(&mut bytes)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut shadows = [0; 4];
        self.output.read_exact(&mut shadows)?;
        let shadows = u64::from(u32::from_le_bytes(shadows)) * SHADOW_BYTES;
        io::copy(&mut self.output.by_ref().take(shadows), &mut io::sink())?;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Ok(Reply {
            status: word(0).cast_signed(),
            score: u8::try_from(word(4)).unwrap_or(u8::MAX),
            bot_probability: f64::from_bits(long(8)),
            generation: long(16),
            fetch_ns: Some(word(24)).filter(|ns| *ns > 0),
            score_ns: Some(word(28)).filter(|ns| *ns > 0),
        })
    }

    /// Ends the program and waits for it.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("bliss-scorer ended with {status}") }
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        // After `stop` it is gone already, and this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
