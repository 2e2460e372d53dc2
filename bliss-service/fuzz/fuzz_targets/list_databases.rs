//! MaxMind DB files and location databases: any bytes, and good files with bytes changed and an end cut off. Reading them ends, within
//! the limits.
#![no_main]

#[path = "../lists.rs"]
mod lists;
#[allow(dead_code)]
#[path = "../location_file.rs"]
mod location_file;
#[allow(dead_code)]
#[path = "../mmdb_file.rs"]
mod mmdb_file;

use bliss_service::lists::ListFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, changes)) = bytes.split_first() else { return };
    let (format, mut file) = match kind % 6 {
        0 => (ListFormat::Mmdb, mmdb_file::example(24)),
        1 => (ListFormat::Mmdb, mmdb_file::example(28)),
        2 => (ListFormat::Mmdb, mmdb_file::example(32)),
        3 => (ListFormat::Location, location_file::example()),
        4 => return lists::any(ListFormat::Mmdb, changes),
        _ => return lists::any(ListFormat::Location, changes),
    };
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len();
        file[at] = change[2];
    }
    // A last byte that is left over cuts the file.
    if let [cut] = changes.chunks_exact(3).remainder() {
        file.truncate(file.len().saturating_sub(usize::from(*cut)));
    }
    lists::any(format, &file);
});
