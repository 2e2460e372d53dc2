//! What the figures were taken on, and how much memory the process takes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;
use serde::Serialize;
use tempfile::TempDir;

/// Processor, compiler and mount of a run.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Compiler, cargo profile, optimisation level and flags.
    pub compiler: String,
    /// Where files of the subjects lie, and on which file system.
    pub mount: String,
    /// Sizes of that mount's pages.
    pub pages: String,
    /// Load average over the last minute when the run began: above 0.3 or so something else was running.
    pub load: String,
}

impl Machine {
    /// The machine this runs on, with files in [`base`].
    pub fn detect() -> Self {
        let cpu = read("/proc/cpuinfo").lines().find_map(|line| {
            line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        });
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            compiler: format!(
                "{}, profile {}, opt-level {}, RUSTFLAGS {}",
                env!("BENCHES_RUSTC"),
                env!("BENCHES_PROFILE"),
                env!("BENCHES_OPT_LEVEL"),
                env!("BENCHES_RUSTFLAGS")
            ),
            mount: format!("{} ({})", base().display(), file_system(&base()).0),
            pages: pages(&base()),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} x {}, Linux {}, load {}", self.cores, self.cpu, self.kernel, self.load)?;
        write!(f, "{}; files on {}, {}", self.compiler, self.mount, self.pages)
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

static BASE: OnceLock<PathBuf> = OnceLock::new();

/// Has temporary directories made in `directory` from now on. Only the first call counts.
pub fn set_base(directory: PathBuf) {
    let _ = BASE.set(directory);
}

/// Where temporary directories are made: what [`set_base`] said, else what the variable `BLISS_BENCH_DIRECTORY` says, else
/// `/dev/shm` where there is one.
pub fn base() -> PathBuf {
    if let Some(directory) = BASE.get() {
        return directory.clone();
    }
    if let Some(directory) = std::env::var_os("BLISS_BENCH_DIRECTORY") {
        return directory.into();
    }
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

/// Mounts a tmpfs with `huge=advise` over [`base`], in a mount namespace of this process alone: nobody else sees it, and it
/// goes with the process, however that ends. To be called before the process has other threads.
///
/// # Errors
/// Where the process may not mount.
pub fn mount_huge() -> anyhow::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags};
    let base = base();
    let why = || format!("mounting a tmpfs with huge=advise over {} (as root only)", base.display());
    // SAFETY:
    // - file descriptors stay shared, which is what `unshare_unsafe` warns of; only mounts are parted.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.with_context(why)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).with_context(why)?;
    let options = c"huge=advise,size=90%,mode=1777";
    rustix::mount::mount("tmpfs", &base, "tmpfs", MountFlags::empty(), options).with_context(why)?;
    Ok(())
}

/// A directory for one subject, gone when dropped.
///
/// # Errors
/// Where it cannot be made.
pub fn directory() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bliss-bench-").tempdir_in(base())?)
}

/// Type and options of the file system that holds a path.
fn file_system(path: &Path) -> (String, String) {
    let mounts = read("/proc/mounts");
    let of = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind, options) = (words.next()?, words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind, options))
    });
    // Of several on one point the last is on top.
    let found = of.max_by_key(|(len, ..)| *len);
    found.map_or_else(Default::default, |(_, kind, options)| (kind.to_owned(), options.to_owned()))
}

/// Sizes of pages on the mount of a path.
fn pages(path: &Path) -> String {
    let (_, options) = file_system(path);
    let small = format!("{} KB pages", rustix::param::page_size() / 1024);
    match options.split(',').find_map(|option| option.strip_prefix("huge=")) {
        None | Some("never") => small,
        Some(huge) => format!("{small}, huge={huge}"),
    }
}

/// Bytes of shared memory that this process has mapped by huge pages.
pub fn huge_page_bytes() -> u64 {
    let rollup = read("/proc/self/smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix("ShmemPmdMapped:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|n| n.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Memory of this process in bytes, as the kernel counts it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The most there was since [`reset_peak`], shared pages that were touched included.
    pub peak: u64,
    /// What there is.
    pub now: u64,
    /// What of that is not shared.
    pub private: u64,
}

/// The memory of this process.
pub fn memory() -> Memory {
    let status = read("/proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix(" kB"));
        number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory { peak: field("VmHWM"), now: field("VmRSS"), private: field("RssAnon") }
}

/// Returns freed memory to the system and restarts [`Memory::peak`].
pub fn reset_peak() {
    // SAFETY:
    // - has no conditions.
    unsafe { libc::malloc_trim(0) };
    // Where the kernel refuses, the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Processor time that this process has used in all its threads, the kernel's share included, in seconds. On a busy
/// machine it says more than the clock.
pub fn cpu_seconds() -> f64 {
    // SAFETY:
    // - a `rusage` of zeros is a value, and is written in place.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
