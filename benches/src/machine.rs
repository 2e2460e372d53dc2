//! What the figures were taken on, and how much memory the process takes.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

/// Processor, compiler and mount of a run.
#[derive(Clone, Debug, Serialize)]
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
            mount: format!("{} ({})", base().display(), file_system(&base())),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} x {}, Linux {}, load {}", self.cores, self.cpu, self.kernel, self.load)?;
        write!(f, "{}; files on {}", self.compiler, self.mount)
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Where temporary directories are made: what the variable `BLISS_BENCH_DIRECTORY` says, else `/dev/shm` where there is one.
pub fn base() -> PathBuf {
    if let Some(directory) = std::env::var_os("BLISS_BENCH_DIRECTORY") {
        return directory.into();
    }
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

/// A directory for one subject, gone when dropped.
///
/// # Errors
/// Where it cannot be made.
pub fn directory() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bliss-bench-").tempdir_in(base())?)
}

fn file_system(path: &Path) -> String {
    let mounts = read("/proc/mounts");
    let of = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    of.max_by_key(|(len, _)| *len).map_or("unknown", |(_, kind)| kind).to_owned()
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

/// Gives freed memory back to the system and starts [`Memory::peak`] anew.
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
