//! What a web server's worker loads with the C library: each crate by name, so that none comes in unseen.

use std::collections::BTreeSet;
use std::process::Command;

use repository::root;

/// The crates whose code may be in `libblissffi`. Procedural macros run in the compiler and are not in it.
const IN_THE_C_LIBRARY: [&str; 26] = [
    // Ours.
    "bliss-catboost",
    "bliss-core",
    "bliss-ffi",
    "bliss-os",
    "bliss-store",
    "mmap-sync",
    // Archives in place.
    "bytecheck",
    "hashbrown",
    "munge",
    "ptr_meta",
    "rancor",
    "rend",
    "rkyv",
    "simdutf8",
    // Keys and identifiers.
    "cfg-if",
    "const-hex",
    "cpufeatures",
    "xxhash-rust",
    // Passes.
    "siphasher",
    // Search in texts.
    "memchr",
    // The operating system.
    "bitflags",
    "libc",
    "linux-raw-sys",
    "memmap2",
    "rustix",
    // Errors.
    "thiserror",
];

#[test]
fn the_c_library_is_built_of_these_crates() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // As it is built to be shipped: this package alone, so that no other package's features are added.
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--package", "bliss-ffi", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let found: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let expected: BTreeSet<&str> = IN_THE_C_LIBRARY.into();
    let more: Vec<_> = found.difference(&expected).collect();
    let fewer: Vec<_> = expected.difference(&found).collect();
    assert!(
        more.is_empty() && fewer.is_empty(),
        "libblissffi is built of other crates than this test lists; new: {more:?}, gone: {fewer:?}. Workers of web servers \
         load it: add only what must run there, and then to the list"
    );
}
