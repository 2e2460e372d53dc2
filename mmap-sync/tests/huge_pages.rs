//! Huge pages, where a file system gives them to those who ask.

mod common;

use common::{Mount, is_filled, publish};

/// Of this process's mappings of files below `path`: how many bytes are mapped by huge pages, and how many mappings ask for
/// them.
fn huge(path: &str) -> (u64, u32) {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_ours = false;
    let (mut bytes, mut asking) = (0, 0);
    for line in smaps.lines() {
        if let Some(kilobytes) = line.strip_prefix("ShmemPmdMapped:") {
            let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse().unwrap();
            bytes += if is_ours { kilobytes << 10 } else { 0 };
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            asking += u32::from(is_ours && flags.split(' ').any(|flag| flag == "hg"));
        } else if !line.split(' ').next().is_some_and(|word| word.ends_with(':')) {
            is_ours = line.contains(path);
        }
    }
    (bytes, asking)
}

#[test]
fn huge_pages_are_used_where_the_file_system_has_them_for_those_who_ask() {
    let Some(mount) = Mount::with("size=128m,huge=advise") else {
        common::skipped("mounting a tmpfs with huge pages needs root and a kernel that has them");
        return;
    };
    let path = mount.0.path().to_str().unwrap().to_owned();
    for (prefix, asks) in [("one", false), ("other", true)] {
        let options = mmap_sync::Options::new(mount.0.path().join(prefix)).prefault(true).huge_pages(asks);
        let mut writer = options.open_writer().unwrap();
        publish(&mut writer, 16 << 20);
        let reader = options.open_reader().unwrap();
        assert!(is_filled(&reader.pin().unwrap(), 1));
        while reader.unpopulated_bytes() > 0 {
            reader.maintain().unwrap();
        }
        let (bytes, asking) = huge(&format!("{path}/{prefix}_data"));
        assert!(if asks { asking >= 2 } else { asking == 0 && bytes == 0 }, "{asking} ask, {bytes} bytes");
        if asks && bytes == 0 {
            common::skipped("part: this kernel gave no huge page, as when memory is in small pieces");
        }
        // They grow, shrink and are put aside like others.
        let guard = reader.pin().unwrap();
        for (generation, bytes) in [(2, 24 << 20), (3, 1000), (4, 20 << 20), (5, 3 << 20)] {
            publish(&mut writer, bytes);
            assert!(is_filled(&reader.pin().unwrap(), generation));
        }
        assert!(is_filled(&guard, 1));
    }
}
