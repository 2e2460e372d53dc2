use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const KIND: Kind = Kind { name: *b"test    ", version: 3 };
const MEANING: Meaning = Meaning { fingerprint: 5, secret: 7 };
const NOW: u64 = 1_431_857_100_000;
const WANTED: Wanted =
    Wanted { kind: KIND, meaning: MEANING, now_ms: NOW, max_age_ms: 1000, max_bytes: 100_000 };

fn content() -> Vec<u8> {
    (0..20_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
}

fn written(folder: &Path) -> PathBuf {
    let path = folder.join("x.checkpoint");
    write(&path, KIND, MEANING, NOW, &content()).unwrap();
    path
}

#[test]
fn what_was_written_is_read_and_nobody_else_may() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let found = read(&path, &WANTED).unwrap();
    assert_eq!((found.made_ms, found.bytes), (NOW, content()));
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(metadata.len() < content().len() as u64 / 2, "it is compressed");
    std::fs::write(new_path(&path), "left by a crash").unwrap();
    write(&path, KIND, MEANING, NOW, b"").unwrap();
    assert_eq!(read(&path, &WANTED).unwrap().bytes, b"");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
}

#[test]
fn each_reason_to_begin_without_it_has_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let said = |wanted: Wanted| read(&path, &wanted).unwrap_err().to_string();
    let other = Meaning { fingerprint: 6, ..MEANING };
    for (wanted, expected) in [
        (Wanted { kind: Kind { name: *b"other   ", ..KIND }, ..WANTED }, "no such file"),
        (Wanted { kind: Kind { version: 4, ..KIND }, ..WANTED }, "of version 3, and version 4"),
        (Wanted { meaning: other, ..WANTED }, "other dimensions"),
        (Wanted { meaning: Meaning { secret: 8, ..MEANING }, ..WANTED }, "another secret"),
        (Wanted { now_ms: NOW + 7_200_000, ..WANTED }, "2 hours old"),
        (Wanted { now_ms: NOW - 120_000, ..WANTED }, "120 s in the future"),
        (Wanted { max_bytes: 79_999, ..WANTED }, "80000 bytes, and at most 79999"),
    ] {
        assert!(said(wanted).contains(expected), "{expected}: {}", said(wanted));
    }
    assert!(matches!(read(&dir.path().join("none"), &WANTED), Err(Unfit::Absent)));
    assert!(matches!(read(dir.path(), &WANTED), Err(Unfit::Foreign)));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(read(&link, &WANTED), Err(Unfit::Unreadable(_))));
}

/// As if the disk were full at any byte.
#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    // Nothing can be written under this name.
    std::fs::create_dir(new_path(&path)).unwrap();
    write(&path, KIND, MEANING, NOW, b"new").unwrap_err();
    assert_eq!(read(&path, &WANTED).unwrap().bytes, content());
}

#[test]
fn d6_every_prefix_and_more_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let whole = std::fs::read(&path).unwrap();
    for len in (0..200).chain((200..whole.len()).step_by(97)) {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(read(&path, &WANTED).is_err(), "{len} bytes");
    }
    std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert!(read(&path, &WANTED).is_err());
}

/// A file whose checksums are right and whose lengths lie.
#[test]
fn d6_a_bomb_takes_no_more_memory_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb");
    write(&path, KIND, MEANING, NOW, &vec![0; 10_000_000]).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() < 10_000);
    let head: &[u8; HEAD_BYTES] = bytes.first_chunk().unwrap();
    let head = Head { bytes: 1000, ..Head::decode(head, KIND).unwrap() };
    bytes[..HEAD_BYTES].copy_from_slice(&head.encode());
    std::fs::write(&path, bytes).unwrap();
    let said = read(&path, &WANTED).unwrap_err().to_string();
    assert!(said.contains("1000 bytes that its head says"), "{said}");
}

/// Of several steps, and not one step more: doubling would take as much again.
#[test]
fn d6_a_content_takes_no_more_memory_than_it_has_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long");
    let mut long: Vec<u8> =
        (0..u32::try_from(STEP_BYTES).unwrap()).flat_map(u32::to_le_bytes).take(2 * STEP_BYTES + 5).collect();
    write(&path, KIND, MEANING, NOW, &long).unwrap();
    let wanted = Wanted { max_bytes: 1 << 30, ..WANTED };
    let found = read(&path, &wanted).unwrap().bytes;
    assert!(found == long);
    assert!(found.capacity() < long.len() + 4096, "{} for {}", found.capacity(), long.len());
    for (cut, says) in [(4, 2 * STEP_BYTES + 5), (STEP_BYTES, 2 * STEP_BYTES + 5), (5, 2 * STEP_BYTES)] {
        long.truncate(2 * STEP_BYTES + 5 - cut);
        // Its head says more, or as much.
        write(&path, KIND, MEANING, NOW, &long).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let head = Head::decode(bytes.first_chunk().unwrap(), KIND).unwrap();
        let head = Head { bytes: says as u64, ..head };
        bytes[..HEAD_BYTES].copy_from_slice(&head.encode());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path, &wanted).is_ok(), long.len() == says, "{cut}");
    }
}

proptest! {
    #[test]
    fn d6_no_flipped_bit_passes(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(read(&path, &WANTED).is_err());
    }
}
