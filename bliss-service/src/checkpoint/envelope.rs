//! One file that is whole or not there, and says what it is.
//!
//! ```text
//! 0   "BLISSKEP"
//! 8   version of this head: 1
//! 12  version of the content
//! 16  kind of the content, 8 bytes
//! 24  made at, milliseconds since the epoch
//! 32  fingerprint of what gave the content its meaning
//! 40  identity of the key secret
//! 48  bytes of the content
//! 56  bytes of the content as it is compressed
//! 64  XXH3 of the compressed content
//! 72  XXH3 of the 72 bytes before
//! 80  the content, compressed by zstd
//! ```
//!
//! Numbers are little-endian. A file is written under another name, brought to the disk, renamed, and the folder brought to
//! the disk: a crash at any moment leaves the file before or the new one. The checksums find damage, not malice: who may
//! write the file is its owner.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: [u8; 8] = *b"BLISSKEP";
const HEAD_VERSION: u32 = 1;
const HEAD_BYTES: usize = 80;
/// Fast, and at a few hundred MB a second no work for the disk.
const LEVEL: i32 = 1;
/// Memory of the decoder, as a power of two: what is written needs much less.
const WINDOW_LOG: u32 = 24;
const CHUNK_BYTES: usize = 128 * 1024;
/// Memory for a content is taken so much at a time.
const STEP_BYTES: usize = 16 << 20;
/// A clock may be corrected by so much.
const CLOCK_MS: u64 = 60_000;

/// What a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name in the file.
    pub name: [u8; 8],
    /// The version of its layout and of the rules that it was made by: another one is not read.
    pub version: u32,
}

/// What gave a content its meaning: with another one it would mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Of what was configured when it was made.
    pub fingerprint: u64,
    /// Of the secret that its keys are hashed with; 0: there are none.
    pub secret: u64,
}

/// What is asked of a file that is read.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// What it must be.
    pub kind: Kind,
    /// What it must mean.
    pub meaning: Meaning,
    /// The present, in milliseconds since the epoch.
    pub now_ms: u64,
    /// How old it may be.
    pub max_age_ms: u64,
    /// How long its content may be.
    pub max_bytes: u64,
}

/// A content that was read.
#[derive(Debug)]
pub struct Content {
    /// When it was made, in milliseconds since the epoch.
    pub made_ms: u64,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is none.
    #[error("there is none")]
    Absent,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is another kind of file.
    #[error("it is no such file; remove it, or name another folder")]
    Foreign,
    /// It was written by another version of BLISS.
    #[error(
        "it is of version {found}, and version {expected} is expected: another version of BLISS wrote it"
    )]
    Version {
        /// What is read.
        expected: u32,
        /// What was found.
        found: u32,
    },
    /// The key secret is another one.
    #[error(
        "its keys are hashed with another secret than those published now, so that they cannot be found again"
    )]
    Secret,
    /// What it counts is something else.
    #[error("it was made with other dimensions, features or another format of the log")]
    Meaning,
    /// Nothing in it counts any more.
    #[error("it is {age_hours} hours old, and nothing counts for longer than {max_hours} hours")]
    Old {
        /// How old it is.
        age_hours: u64,
        /// How old it may be.
        max_hours: u64,
    },
    /// It is from the future.
    #[error("it was made {0} s in the future: see to the host's clock")]
    Future(u64),
    /// It is too long.
    #[error("its content has {found} bytes, and at most {most} are read")]
    TooLong {
        /// What was found.
        found: u64,
        /// What is allowed.
        most: u64,
    },
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl Unfit {
    /// It is damaged in this way.
    pub fn damaged(how: impl std::fmt::Display) -> Self {
        Self::Damaged(how.to_string())
    }
}

#[derive(Clone, Copy, Debug)]
struct Head {
    kind: Kind,
    made_ms: u64,
    meaning: Meaning,
    bytes: u64,
    compressed_bytes: u64,
    checksum: u64,
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let Self { kind, made_ms, meaning, bytes, compressed_bytes, checksum } = self;
        let mut head = [0; HEAD_BYTES];
        let numbers = [*made_ms, meaning.fingerprint, meaning.secret, *bytes, *compressed_bytes, *checksum];
        let fields = MAGIC
            .into_iter()
            .chain(HEAD_VERSION.to_le_bytes())
            .chain(kind.version.to_le_bytes())
            .chain(kind.name)
            .chain(numbers.into_iter().flat_map(u64::to_le_bytes));
        head.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        let (fields, sum) = head.split_at_mut(HEAD_BYTES - 8);
        sum.copy_from_slice(&xxh3_64(fields).to_le_bytes());
        head
    }

    fn decode(head: &[u8; HEAD_BYTES], kind: Kind) -> Result<Self, Unfit> {
        let mut rest = head.as_slice();
        if take::<8>(&mut rest) != MAGIC {
            return Err(Unfit::Foreign);
        }
        let version = u32::from_le_bytes(take(&mut rest));
        if version != HEAD_VERSION {
            return Err(Unfit::Version { expected: HEAD_VERSION, found: version });
        }
        let (fields, sum) = head.split_at(HEAD_BYTES - 8);
        if sum != xxh3_64(fields).to_le_bytes() {
            return Err(Unfit::damaged("the checksum of its head does not match"));
        }
        let found = u32::from_le_bytes(take(&mut rest));
        if take::<8>(&mut rest) != kind.name {
            return Err(Unfit::Foreign);
        }
        if found != kind.version {
            return Err(Unfit::Version { expected: kind.version, found });
        }
        let mut number = || u64::from_le_bytes(take(&mut rest));
        Ok(Self {
            kind,
            made_ms: number(),
            meaning: Meaning { fingerprint: number(), secret: number() },
            bytes: number(),
            compressed_bytes: number(),
            checksum: number(),
        })
    }

    fn check(&self, wanted: &Wanted) -> Result<(), Unfit> {
        if self.meaning.secret != wanted.meaning.secret {
            return Err(Unfit::Secret);
        }
        if self.meaning.fingerprint != wanted.meaning.fingerprint {
            return Err(Unfit::Meaning);
        }
        if self.made_ms > wanted.now_ms.saturating_add(CLOCK_MS) {
            return Err(Unfit::Future((self.made_ms - wanted.now_ms) / 1000));
        }
        let age_ms = wanted.now_ms.saturating_sub(self.made_ms);
        if age_ms > wanted.max_age_ms {
            let [age_hours, max_hours] = [age_ms, wanted.max_age_ms].map(|ms| ms / 3_600_000);
            return Err(Unfit::Old { age_hours, max_hours });
        }
        if self.bytes > wanted.max_bytes {
            return Err(Unfit::TooLong { found: self.bytes, most: wanted.max_bytes });
        }
        Ok(())
    }
}

/// The next bytes; zeros where there are none.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_first_chunk().map_or(([0; N], &[][..]), |(taken, left)| (*taken, left));
    *rest = left;
    taken
}

/// Writes `content` to `path`, readable by the owner alone, in place of what is there. Returns the bytes of the file.
///
/// # Errors
/// It cannot be written: what was there stays.
pub fn write(path: &Path, kind: Kind, meaning: Meaning, made_ms: u64, content: &[u8]) -> io::Result<u64> {
    let new = new_path(path);
    let written = write_new(&new, kind, meaning, made_ms, content).and_then(|bytes| {
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(bytes)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Always the same, so that crashes leave one file at most.
fn new_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write_new(path: &Path, kind: Kind, meaning: Meaning, made_ms: u64, content: &[u8]) -> io::Result<u64> {
    // One that a crash left, whoever could read it.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&[0; HEAD_BYTES])?;
    let mut encoder = zstd::stream::write::Encoder::new(Summed::new(&mut file), LEVEL)?;
    for chunk in content.chunks(CHUNK_BYTES) {
        encoder.write_all(chunk)?;
    }
    let Summed { sum, bytes: compressed_bytes, .. } = encoder.finish()?;
    let bytes = content.len() as u64;
    let head = Head { kind, made_ms, meaning, bytes, compressed_bytes, checksum: sum.digest() };
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&head.encode())?;
    file.sync_all()?;
    Ok(HEAD_BYTES as u64 + compressed_bytes)
}

/// Sums what is written through it.
struct Summed<W> {
    inner: W,
    sum: Box<Xxh3>,
    bytes: u64,
}

impl<W> Summed<W> {
    fn new(inner: W) -> Self {
        Self { inner, sum: Box::new(Xxh3::new()), bytes: 0 }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads the content of the file at `path`. Takes no more memory than `max_bytes` and a few megabytes, whatever it holds.
///
/// # Errors
/// Why it is not used.
pub fn read(path: &Path, wanted: &Wanted) -> Result<Content, Unfit> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unfit::Absent,
        _ => Unfit::Unreadable(error),
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Unfit::Foreign);
    }
    if metadata.uid() != bliss_os::file::effective_user() && metadata.uid() != 0 {
        return Err(Unfit::Unreadable(io::Error::other("it belongs to another user")));
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unfit::damaged("it ends within its head"),
        _ => Unfit::Unreadable(error),
    })?;
    let head = Head::decode(&head, wanted.kind)?;
    head.check(wanted)?;
    let compressed_bytes = metadata.len().saturating_sub(HEAD_BYTES as u64);
    if compressed_bytes != head.compressed_bytes {
        let expected = head.compressed_bytes;
        return Err(Unfit::damaged(format!("{expected} bytes are expected, {compressed_bytes} are there")));
    }
    if checksum(&mut file)? != head.checksum {
        return Err(Unfit::damaged("its checksum does not match"));
    }
    file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
    let bytes = unpack(&file, head.bytes)?;
    Ok(Content { made_ms: head.made_ms, bytes })
}

fn checksum(file: &mut File) -> io::Result<u64> {
    let (mut sum, mut chunk) = (Box::new(Xxh3::new()), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(sum.digest()),
            Ok(read) => sum.update(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The content, which must have `expected` bytes; memory is taken as they come, in steps, and never more than for these.
fn unpack(file: &File, expected: u64) -> Result<Vec<u8>, Unfit> {
    let damaged = |error: io::Error| Unfit::damaged(format!("it cannot be decompressed: {error}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(CHUNK_BYTES, file))?;
    decoder.window_log_max(WINDOW_LOG)?;
    let (mut bytes, mut left) = (Vec::new(), usize::try_from(expected).unwrap_or(usize::MAX));
    while left > 0 {
        let step = left.min(STEP_BYTES);
        bytes.try_reserve_exact(step).map_err(|error| Unfit::Unreadable(io::Error::other(error)))?;
        let read = decoder.by_ref().take(step as u64).read_to_end(&mut bytes).map_err(damaged)?;
        if read == 0 {
            break;
        }
        left -= read.min(left);
    }
    if left > 0 || decoder.read(&mut [0]).map_err(damaged)? > 0 {
        return Err(Unfit::damaged(format!("its content has not the {expected} bytes that its head says")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
