//! Looking at a mapping whose file others may shorten, without being killed for it.
//!
//! Who looks at a page beyond the end of the file, or at one for which the file system has no room, gets `SIGBUS`. Asking for
//! the length before is no help against somebody who shortens it a moment later. So a process may have such pages replaced:
//! the handler of this module puts a page of zeros in the place of the one that is not there, for mappings that are
//! [watched](watch), remembers that it did, and leaves every other bus error to the handler that there was before.
//!
//! # Orderings
//!
//! A range is stored before its length, which is a release; the handler loads the length first, by an acquire. So it sees the
//! range that belongs to it, or none. [`Watched::was_replaced`] pairs with the handler's release store of the flag: in the
//! thread that had the error, in which it matters, the order of the program would do.

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::map::Map;
use crate::{Errno, Result, last_errno};

/// Mappings that can be watched at once.
const RANGES: usize = 64;

/// A mapping that is watched. A length of 0: free; `TAKEN`: being filled in.
struct Range {
    start: AtomicUsize,
    len: AtomicUsize,
    replaced: AtomicBool,
}

const TAKEN: usize = usize::MAX;

static WATCHED: [Range; RANGES] = [const {
    Range { start: AtomicUsize::new(0), len: AtomicUsize::new(0), replaced: AtomicBool::new(false) }
}; RANGES];

/// What the handler needs: the size of a page, and the handler that there was before.
struct Installed {
    page: usize,
    before: libc::sigaction,
}

static INSTALLED: OnceLock<std::result::Result<Installed, Errno>> = OnceLock::new();

/// A mapping is watched as long as this lives. To be dropped before the mapping.
#[derive(Debug)]
pub struct Watched(usize);

impl Watched {
    /// Whether a page of it was not there when it was looked at, so that zeros took its place.
    pub fn was_replaced(&self) -> bool {
        WATCHED.get(self.0).is_some_and(|range| range.replaced.load(Ordering::Acquire))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(range) = WATCHED.get(self.0) {
            range.len.store(0, Ordering::Release);
        }
    }
}

/// Watches a mapping. The first call sets this process's handler of `SIGBUS`; whoever sets another one later ends the watch.
///
/// # Errors
/// The handler cannot be set, or too many mappings are watched (`ENOMEM`).
pub fn watch(map: &Map) -> Result<Watched> {
    INSTALLED.get_or_init(install).as_ref().map_err(|errno| *errno)?;
    let len = usize::try_from(map.len()).map_err(|_| libc::EFBIG)?;
    for (index, range) in WATCHED.iter().enumerate() {
        if range.len.compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            range.replaced.store(false, Ordering::Relaxed);
            range.start.store(map.start().as_ptr().addr(), Ordering::Relaxed);
            range.len.store(len, Ordering::Release);
            return Ok(Watched(index));
        }
    }
    Err(libc::ENOMEM)
}

fn install() -> std::result::Result<Installed, Errno> {
    // SAFETY:
    // - the call takes no memory.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = usize::try_from(page).ok().filter(|page| page.is_power_of_two()).ok_or(libc::EINVAL)?;
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY:
    // - a null pointer leaves the handler as it is; `before` is the `sigaction` that is filled in.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) } != 0 {
        return Err(last_errno());
    }
    // SAFETY:
    // - the call filled it in, and a `sigaction` of zeros is a value too.
    let before = unsafe { before.assume_init() };
    let mut action = before;
    action.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY:
    // - `action` is a whole `sigaction` with a handler of the three arguments that `SA_SIGINFO` promises; the handler calls
    //   nothing that may not be called in a signal handler.
    if unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } != 0 {
        return Err(last_errno());
    }
    Ok(Installed { page, before })
}

/// Allocates nothing, locks nothing, and leaves `errno` as it was.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(Ok(Installed { page, before })) = INSTALLED.get() else {
        // Between the call that set the handler and the note of it. The access is made again, and comes here again.
        return;
    };
    // SAFETY:
    // - the system passes a valid `siginfo_t` with an address to a handler of `SIGBUS`; sent by another process the signal
    //   has none, and whatever is read then is an integer, compared with ranges.
    let address = unsafe { (*info).si_addr() }.addr();
    for range in &WATCHED {
        let len = range.len.load(Ordering::Acquire);
        let start = range.start.load(Ordering::Relaxed);
        // One that is let go of and taken again meanwhile is not that of the mapping that is looked at, which is watched.
        let same = range.len.load(Ordering::Acquire) == len;
        if !same || len == 0 || len == TAKEN || address.wrapping_sub(start) >= len {
            continue;
        }
        if replace_page(address & !(page - 1), *page) {
            range.replaced.store(true, Ordering::Release);
            return;
        }
    }
    // SAFETY:
    // - the handler of before, with the arguments it was set up for; the default and "ignore" are set again, and then the
    //   access that failed is made again and ends the process, as it would have.
    unsafe {
        match before.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = *before;
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(libc::SIGBUS, &default, std::ptr::null_mut());
                // One that another process sent is not made again by itself.
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

/// Puts a page of zeros, of this process alone, in the place of one.
fn replace_page(address: usize, len: usize) -> bool {
    let address = std::ptr::without_provenance_mut::<libc::c_void>(address);
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY:
    // - the location of `errno` is this thread's own.
    // - the page lies in a mapping that is watched, which lives as long as it is; all that is in it are atomics, for which
    //   zeros are a value.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let mapped = libc::mmap(address, len, protection, flags, -1, 0);
        *errno = before;
        mapped != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_is_cut_off_reads_as_zeros_and_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let map = Map::new(&file, 1 << 20, true).unwrap();
        let other = Map::new(&file, 1 << 20, true).unwrap();
        let (watched, other_watched) = (watch(&map).unwrap(), watch(&other).unwrap());
        let word = |at| map.get::<AtomicU64>(at).unwrap();
        word(8).store(7, Ordering::Relaxed);
        word(1 << 19).store(8, Ordering::Relaxed);
        assert!(!watched.was_replaced());
        file.set_len(4096).unwrap();
        // Looked at and written to.
        assert_eq!(word(1 << 19).load(Ordering::Relaxed), 0);
        word((1 << 20) - 8).store(9, Ordering::Relaxed);
        assert!(watched.was_replaced() && !other_watched.was_replaced());
        assert_eq!((word(8).load(Ordering::Relaxed), word((1 << 20) - 8).load(Ordering::Relaxed)), (7, 9));
        // And once more in the page that took the place.
        assert_eq!(word(1 << 19).load(Ordering::Relaxed), 0);
        drop(watched);
        let again = watch(&map).unwrap();
        assert!(!again.was_replaced());
    }

    #[test]
    fn other_bus_errors_end_the_process_as_before() {
        const CHILD: &str = "BLISS_TEST_BUS_ERROR";
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        if std::env::var_os(CHILD).is_some() {
            let watched_map = Map::new(&file, 4096, true).unwrap();
            let _watched = watch(&watched_map).unwrap();
            let map = Map::new(&file, 8192, true).unwrap();
            file.set_len(0).unwrap();
            assert_eq!(watched_map.get::<AtomicU64>(0).unwrap().load(Ordering::Relaxed), 0);
            let value = map.get::<AtomicU64>(4096).unwrap().load(Ordering::Relaxed);
            panic!("still there after a bus error: {value}");
        }
        let name = "bus_error::tests::other_bus_errors_end_the_process_as_before";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}
