//! What the test files share.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mmap_sync::{Options, Writer};

/// A directory on a tmpfs where there is one; removed with everything in it.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Dir {
        let shared_memory = Path::new("/dev/shm");
        let parent = if shared_memory.is_dir() { shared_memory.to_path_buf() } else { std::env::temp_dir() };
        Dir(tempfile::Builder::new().prefix("mmap-sync-").tempdir_in(parent).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn prefix(&self) -> PathBuf {
        self.0.path().join("x")
    }

    pub fn options(&self) -> Options {
        Options::new(self.prefix())
    }

    /// Memory that the files in the directory occupy.
    pub fn allocated(&self) -> u64 {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().map_or(0, |data| data.blocks() * 512)).sum()
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A tmpfs of a few megabytes.
pub struct Mount(pub Dir);

impl Mount {
    pub fn new(megabytes: u32) -> Option<Mount> {
        Mount::with(&format!("size={megabytes}m"))
    }

    /// With these options; none where they are refused, or this is not root.
    pub fn with(options: &str) -> Option<Mount> {
        let dir = Dir::new();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) { Some(Mount(dir)) } else { None }
    }

    /// Memory that it occupies, also of files without a name.
    pub fn used(&self) -> u64 {
        let path = std::ffi::CString::new(self.0.path().to_str().unwrap()).unwrap();
        // SAFETY:
        // - `statfs` is a plain C struct of integers; all zeroes is a value of it.
        let mut info: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY:
        // - the path is NUL-terminated, and `info` of the type that the call fills in.
        assert_eq!(unsafe { libc::statfs(path.as_ptr(), &mut info) }, 0);
        (info.f_blocks - info.f_bfree) * info.f_bsize as u64
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// Bytes of which every one depends on the seed, and which carry the seed at the start.
pub fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

/// Whether the bytes are those of [`fill`] with this seed.
pub fn is_filled(bytes: &[u8], seed: u64) -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    bytes.chunks(8).all(|word| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word == &state.to_le_bytes()[..word.len()]
    })
}

/// Numbers for random times; the seed is printed.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = now.as_nanos() as u64;
        eprintln!("seed {seed}");
        Random(seed | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Locks a range for the open file description, alone; says whether nobody else has it.
pub fn lock(file: &std::fs::File, start: u64, len: u64) -> bool {
    lock_as(file, start, len, libc::F_WRLCK)
}

/// The same together with others who share it.
pub fn lock_shared(file: &std::fs::File, start: u64, len: u64) -> bool {
    lock_as(file, start, len, libc::F_RDLCK)
}

fn lock_as(file: &std::fs::File, start: u64, len: u64, kind: libc::c_int) -> bool {
    // SAFETY:
    // - `flock` is a plain C struct of integers; all zeroes is a value of it.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as i16;
    range.l_start = start as i64;
    range.l_len = len as i64;
    // SAFETY:
    // - `range` is the `flock` that the call reads.
    unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(file), libc::F_OFD_SETLK, &range) == 0 }
}

/// Says why a test did not run, also if it passes: the test runner swallows what the print macros write.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}

/// Publishes so many bytes, filled with the number of their generation; whether the standby copy was still pinned.
pub fn publish(writer: &mut Writer, bytes: u64) -> bool {
    let mut standby = writer.standby(bytes).unwrap();
    let next = standby.next_generation();
    fill(standby.bytes_mut(), next);
    standby.publish().unwrap().reset
}

/// Two generations of 10,000 and 9,000 bytes, nobody about.
pub fn written() -> Dir {
    let dir = Dir::new();
    let mut writer = dir.options().slots(4).open_writer().unwrap();
    publish(&mut writer, 10_000);
    publish(&mut writer, 9_000);
    dir
}
