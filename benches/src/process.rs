//! Child processes that share memory with the benchmark.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// A forked process. Killed when dropped.
#[derive(Debug)]
pub struct Child(Pid);

impl Child {
    /// Runs `task` in a child process, which then ends. The child must not print, and must not use what another thread may
    /// hold locked; memory may be allocated, since glibc keeps its heap usable after a fork.
    ///
    /// # Errors
    /// Where the process cannot be made.
    pub fn fork(task: impl FnOnce()) -> anyhow::Result<Self> {
        // SAFETY:
        // - the child runs `task` under the conditions above and leaves by `_exit`; a panic aborts it (see below).
        let pid = unsafe { libc::fork() };
        if pid != 0 {
            let pid = Pid::from_raw(pid).filter(|_| pid > 0);
            return Ok(Self(pid.ok_or_else(std::io::Error::last_os_error)?));
        }
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
        // SAFETY:
        // - ends the child at once, without handlers that belong to the parent.
        unsafe { libc::_exit(i32::from(outcome.is_err())) }
    }

    /// Sends `SIGSTOP` and waits until the process stands still.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn stop(&self) -> anyhow::Result<()> {
        kill_process(self.0, Signal::STOP)?;
        let status = waitpid(Some(self.0), WaitOptions::UNTRACED)?;
        anyhow::ensure!(status.is_some_and(|(_, status)| status.stopped()), "the process ended");
        Ok(())
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn go_on(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.0, Signal::CONT)?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Memory that processes share, as words.
#[derive(Debug)]
pub struct Shared {
    map: MmapRaw,
    words: usize,
}

impl Shared {
    /// So many words of zero in a file, which must be as long.
    ///
    /// # Errors
    /// Where it cannot be mapped.
    pub fn in_file(file: &std::fs::File, words: usize) -> anyhow::Result<Self> {
        file.set_len(words as u64 * 8)?;
        Ok(Self { map: MmapOptions::new().len(words * 8).map_raw(file)?, words })
    }

    /// So many words of zero in POSIX shared memory that has no name any more.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn posix(words: usize) -> anyhow::Result<Self> {
        use rustix::shm;
        let name = format!("/bliss-bench-{}-{words}", std::process::id());
        let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        let file: OwnedFd = shm::open(name.as_str(), flags, shm::Mode::RUSR | shm::Mode::WUSR)?;
        shm::unlink(name.as_str())?;
        Self::in_file(&file.into(), words)
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY:
        // - the mapping is page-aligned, as long as this, and lives as long as `self`
        // - whoever else maps it has atomics only, so that no access is a data race; any bits are a value.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.words) }
    }
}
