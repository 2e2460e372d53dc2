//! BLISS through its C interface: `libblissffi.so`, loaded at run time and called as a web server's worker does.

use std::ffi::c_char;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bliss_core::score::Status;
use blissffi::codes::bliss_result_e;
use blissffi::handle::{bliss_options_t, bliss_t};
use blissffi::lookup::bliss_features_t;
use libloading::Library;

use super::Lookup;
use crate::workload::{DIMENSIONS, NOW, VALUES};

type Open = unsafe extern "C" fn(
    *const c_char,
    usize,
    *const bliss_options_t,
    *mut *mut bliss_t,
    *mut c_char,
    usize,
) -> bliss_result_e;
type LookupKeys =
    unsafe extern "C" fn(*mut bliss_t, *const u64, usize, u32, *mut bliss_features_t) -> bliss_result_e;
type Close = unsafe extern "C" fn(*mut bliss_t);

/// A handle of the C library.
pub struct BlissC {
    handle: *mut bliss_t,
    features: bliss_features_t,
    lookup_keys: LookupKeys,
    close: Close,
    bytes: u64,
    /// Never unloaded, as in a web server's worker.
    _library: ManuallyDrop<Library>,
}

/// The shared library that was built with this program.
fn library() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("folder of the program")?;
    let paths = [folder.join("deps/libblissffi.so"), folder.join("libblissffi.so")];
    paths.into_iter().find(|path| path.is_file()).context("libblissffi.so is not beside the program")
}

impl BlissC {
    /// Opens what is published in a directory, `bytes` long.
    ///
    /// # Errors
    /// Where the library is missing or refuses.
    pub fn open(directory: &Path, bytes: u64) -> anyhow::Result<Self> {
        let path = directory.as_os_str().as_bytes();
        let mut handle = std::ptr::null_mut();
        // SAFETY:
        // - the library is ours, built from the same source, so that names have the types that they have here.
        // - all pointers are valid for the lengths that go with them; options and message may be NULL.
        let (library, lookup_keys, close, opened) = unsafe {
            let library = Library::new(library()?)?;
            let open = *library.get::<Open>(b"bliss_open")?;
            let lookup_keys = *library.get::<LookupKeys>(b"bliss_lookup_keys")?;
            let close = *library.get::<Close>(b"bliss_close")?;
            let (options, message) = (std::ptr::null(), std::ptr::null_mut());
            let opened = open(path.as_ptr().cast(), path.len(), options, &raw mut handle, message, 0);
            (library, lookup_keys, close, opened)
        };
        ensure!(opened == bliss_result_e::BLISS_OK, "bliss_open: {opened:?}");
        let features = bliss_features_t {
            size: size_of::<bliss_features_t>(),
            generation: 0,
            values: std::ptr::null(),
            value_count: 0,
            statuses: std::ptr::null(),
            dimension_count: 0,
        };
        let mut peer =
            Self { handle, features, lookup_keys, close, bytes, _library: ManuallyDrop::new(library) };
        let found = peer.look_up(&[1; DIMENSIONS]);
        let features = &peer.features;
        ensure!(
            found && features.value_count == VALUES,
            "the snapshot has {} features",
            features.value_count
        );
        Ok(peer)
    }
}

impl Lookup for BlissC {
    #[inline]
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool {
        // SAFETY:
        // - the handle is open and this thread's; keys and features are valid for the call.
        let found = unsafe {
            (self.lookup_keys)(self.handle, keys.as_ptr(), keys.len(), NOW, &raw mut self.features)
        };
        found == bliss_result_e::BLISS_OK
    }

    fn values(&self) -> &[f32] {
        // SAFETY:
        // - the array of the last lookup, which stays valid until the next call with the handle.
        unsafe { std::slice::from_raw_parts(self.features.values, self.features.value_count) }
    }

    fn present(&self) -> u16 {
        // SAFETY:
        // - as above; statuses are bytes.
        let statuses =
            unsafe { std::slice::from_raw_parts(self.features.statuses, self.features.dimension_count) };
        let fresh = statuses.iter().enumerate().filter(|(_, status)| **status == Status::Fresh as u8);
        fresh.map(|(dimension, _)| 1 << dimension).sum()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for BlissC {
    fn drop(&mut self) {
        // SAFETY:
        // - the handle is open, and this is the last call with it.
        unsafe { (self.close)(self.handle) };
    }
}
