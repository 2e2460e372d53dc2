//! CatBoost's own C API, from the shared library that the crate `catboost2-sys` 0.1.1 carries.
//!
//! The library is not linked and not kept here: cargo fetches the crate, the library is unpacked below the target
//! directory, and loaded at run time.

use std::ffi::{CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use libloading::Library;

/// Names another `libcatboostmodel.so`.
const VARIABLE: &str = "BLISS_CATBOOST_LIBRARY";

const MANIFEST: &str = "\
[package]
name = \"catboost-peer\"
version = \"0.0.0\"
edition = \"2021\"

[lib]
path = \"lib.rs\"

[dependencies]
catboost2-sys = \"=0.1.1\"

[workspace]
";

/// The library: the one that `BLISS_CATBOOST_LIBRARY` names, else the crate's, unpacked.
///
/// # Errors
/// Where the crate cannot be fetched or unpacked (that needs `cargo`, `tar` and `zstd`).
pub fn library() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/catboost-peer");
    let library = folder.join("libcatboostmodel.so");
    if library.is_file() {
        return Ok(library);
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("Cargo.toml"), MANIFEST)?;
    std::fs::write(folder.join("lib.rs"), "")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    let output = cargo.output().context("running cargo")?;
    ensure!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let source = packages.iter().find(|p| p["name"] == "catboost2-sys").context("no catboost2-sys")?;
    let archive = Path::new(source["manifest_path"].as_str().context("no path")?).with_file_name("libs.tar");
    // Unpacked under another name and then renamed, so that nobody finds half of it.
    let part = tempfile::tempdir_in(&folder)?;
    let mut tar = Command::new("tar");
    tar.args(["--use-compress-program=zstd", "-xf"]).arg(&archive).arg("-C").arg(part.path());
    let output = tar.arg("libcatboostmodel.so").output().context("running tar")?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr).trim());
    std::fs::rename(part.path().join("libcatboostmodel.so"), &library)?;
    Ok(library)
}

type Flat = unsafe extern "C" fn(*mut c_void, usize, *const *const f32, usize, *mut f64, usize) -> bool;
type Single = unsafe extern "C" fn(
    *mut c_void,
    *const f32,
    usize,
    *const *const c_char,
    usize,
    *mut f64,
    usize,
) -> bool;

/// A model that CatBoost's library loaded.
pub struct CatBoost {
    handle: *mut c_void,
    delete: unsafe extern "C" fn(*mut c_void),
    flat: Flat,
    single: Single,
    /// Never unloaded: it leaves destructors behind that threads run when they end.
    _library: ManuallyDrop<Library>,
}

impl CatBoost {
    /// Loads a `.cbm` into the library.
    ///
    /// # Errors
    /// Where the file is no such library, or it refuses the model.
    pub fn load(library: &Path, model: &[u8]) -> anyhow::Result<Self> {
        // SAFETY:
        // - the file is CatBoost's library, which runs nothing of ours when it is loaded.
        let library = unsafe { Library::new(library) }?;
        // SAFETY:
        // - the types are those of CatBoost's `c_api.h`; the library is kept as long as they are.
        // - the model's bytes are alive during the call.
        unsafe {
            let create = *library.get::<unsafe extern "C" fn() -> *mut c_void>(b"ModelCalcerCreate")?;
            let load = *library.get::<unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> bool>(
                b"LoadFullModelFromBuffer",
            )?;
            let delete = *library.get::<unsafe extern "C" fn(*mut c_void)>(b"ModelCalcerDelete")?;
            let flat = *library.get::<Flat>(b"CalcModelPredictionFlat")?;
            let single = *library.get::<Single>(b"CalcModelPredictionSingle")?;
            let loaded =
                Self { handle: create(), delete, flat, single, _library: ManuallyDrop::new(library) };
            if !load(loaded.handle, model.as_ptr().cast(), model.len()) {
                bail!("CatBoost's library refuses the model");
            }
            Ok(loaded)
        }
    }

    /// Evaluates a row of numbers; false where that failed.
    #[inline]
    pub fn flat(&self, floats: &[f32], out: &mut [f64]) -> bool {
        let row = floats.as_ptr();
        // SAFETY:
        // - the handle is alive; the pointers are valid for the lengths that go with them.
        unsafe { (self.flat)(self.handle, 1, &row, floats.len(), out.as_mut_ptr(), out.len()) }
    }

    /// Evaluates a row of numbers and strings; false where that failed.
    #[inline]
    pub fn single(&self, floats: &[f32], words: &Words, out: &mut [f64]) -> bool {
        let (cats, len) = (words.pointers.as_ptr(), words.pointers.len());
        // SAFETY:
        // - the handle is alive; the pointers are valid for the lengths that go with them, and those of the strings as
        //   long as `words`, which owns them.
        unsafe {
            (self.single)(self.handle, floats.as_ptr(), floats.len(), cats, len, out.as_mut_ptr(), out.len())
        }
    }
}

impl Drop for CatBoost {
    fn drop(&mut self) {
        // SAFETY:
        // - made by `ModelCalcerCreate` of the same library, and not deleted before.
        unsafe { (self.delete)(self.handle) };
    }
}

/// Strings as the library takes them.
#[derive(Debug)]
pub struct Words {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Words {
    /// Of these strings.
    ///
    /// # Errors
    /// Where one holds a NUL.
    pub fn new<'a>(words: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let owned = words.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pointers: owned.iter().map(|word| word.as_ptr()).collect(), _owned: owned })
    }
}
