//! What the test files share.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::path::Path;

/// On a tmpfs where there is one, as in production.
pub fn directory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs `work` in a child process, which ends with whether it was good.
pub fn in_child(work: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY:
    // - the child runs code of this thread only, and ends by a bare exit
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: no memory is passed.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    child
}

pub fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is writable and of the type that `waitpid` fills in.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status
}
