//! Whatever is done to a standby copy, and in whatever order: the checksum is that of the bytes.

mod common;

use common::{Dir, fill};
use mmap_sync::{Guard, Options, Reader, Standby, Writer};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Edit(usize, usize),
    /// Through `bytes_mut` or `current_and_bytes_mut`.
    Write(usize, usize, bool),
    Resize(usize),
    CopyCurrent,
    /// A change that panics, and is caught.
    Panic(usize),
}

#[derive(Clone, Debug)]
enum End {
    Publish,
    Abandon,
    Forget,
}

#[derive(Clone, Debug)]
struct Session {
    size: usize,
    /// Writes are named; else nothing is.
    named: bool,
    steps: Vec<Step>,
    end: End,
    /// A reader pins what comes of it, for one session.
    pin: bool,
    reopen: bool,
}

fn session() -> impl Strategy<Value = Session> {
    let size = || prop_oneof![Just(0_usize), 1_usize..200, 4000_usize..4300, 0_usize..20_000];
    let at = || prop_oneof![0_usize..200, 4000_usize..4300, 0_usize..20_000];
    let step = prop_oneof![
        4 => (at(), 0_usize..300).prop_map(|(at, len)| Step::Edit(at, len)),
        2 => (at(), 0_usize..300, any::<bool>()).prop_map(|(at, len, both)| Step::Write(at, len, both)),
        3 => size().prop_map(Step::Resize),
        1 => Just(Step::CopyCurrent),
        1 => at().prop_map(Step::Panic),
    ];
    let end = prop_oneof![6 => Just(End::Publish), 1 => Just(End::Abandon), 1 => Just(End::Forget)];
    (size(), any::<bool>(), prop::collection::vec(step, 0..8), end, any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(size, named, steps, end, pin, reopen)| Session { size, named, steps, end, pin, reopen })
}

fn clip(at: usize, len: usize, size: usize) -> std::ops::Range<usize> {
    at.min(size)..at.saturating_add(len).min(size)
}

fn take(standby: &mut Standby<'_>, step: &Step, named: bool, value: u8) {
    let size = standby.bytes().len();
    match *step {
        Step::Edit(at, len) => standby.edit().change(clip(at, len, size), |bytes| bytes.fill(value)),
        Step::Write(at, len, both) => {
            let range = clip(at, len, size);
            let bytes = if both { standby.current_and_bytes_mut().1 } else { standby.bytes_mut() };
            bytes[range.clone()].fill(value);
            if named {
                standby.touch(range.start as u64..range.end as u64);
            }
        }
        Step::Resize(size) => standby.resize(size as u64).unwrap(),
        Step::CopyCurrent => standby.copy_current().unwrap(),
        Step::Panic(at) => {
            let mut edit = standby.edit();
            let change = std::panic::AssertUnwindSafe(|| {
                edit.change(clip(at, 70, size), |bytes| {
                    bytes.fill(value);
                    std::panic::resume_unwind(Box::new(()));
                });
            });
            std::panic::catch_unwind(change).unwrap_err();
        }
    }
}

fn run(sessions: &[Session]) {
    let dir = Dir::new();
    let options = dir.options().slots(4).max_size(8192);
    let mut writer = options.open_writer().unwrap();
    let keeper = options.open_reader().unwrap();
    let mut kept: Option<Guard<'_>> = None;
    for (number, session) in sessions.iter().enumerate() {
        let value = number as u8 + 1;
        let mut standby = writer.standby(session.size as u64).unwrap();
        if session.named {
            // A byte beyond the end: nothing was changed beside what is named.
            standby.touch(u64::MAX - 1..u64::MAX);
            // What is beyond is of any value, and new.
            if standby.holds().is_none() {
                standby.touch(0..u64::MAX);
            }
        }
        session.steps.iter().for_each(|step| take(&mut standby, step, session.named, value));
        match session.end {
            End::Publish => {
                let bytes = standby.bytes().to_vec();
                standby.publish().unwrap();
                verified(&options, &bytes);
                kept = if session.pin { Some(keeper.pin().unwrap()) } else { None };
            }
            End::Abandon => drop(standby),
            End::Forget => std::mem::forget(standby),
        }
        if session.reopen {
            drop(writer);
            writer = options.open_writer().unwrap();
        }
    }
    drop(kept);
}

fn verified(options: &Options, bytes: &[u8]) {
    let reader = options.clone().verify(true).open_reader().unwrap();
    let guard = reader.pin().expect("the checksum is not that of the bytes");
    assert_eq!(&*guard, bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn m8_the_checksum_is_that_of_the_bytes(sessions in prop::collection::vec(session(), 1..8)) {
        run(&sessions);
    }
}

/// Two publications of so many bytes.
fn twice(dir: &Dir, bytes: usize) -> (Writer, Reader) {
    let mut writer = dir.options().open_writer().unwrap();
    for seed in 1..=2 {
        let mut payload = vec![0; bytes];
        fill(&mut payload, seed);
        writer.write_bytes(&payload).unwrap();
    }
    (writer, dir.options().verify(true).open_reader().unwrap())
}

#[test]
fn m8_bytes_changed_after_a_copy_of_the_current_ones_are_summed() {
    for both in [false, true] {
        for named in [false, true] {
            let dir = Dir::new();
            let (mut writer, reader) = twice(&dir, 10_000);
            let mut standby = writer.standby(0).unwrap();
            standby.copy_current().unwrap();
            let bytes = if both { standby.current_and_bytes_mut().1 } else { standby.bytes_mut() };
            bytes[5000] ^= 1;
            if named {
                standby.touch(5000..5001);
            }
            standby.publish().unwrap();
            reader.pin().unwrap();
        }
    }
}

#[test]
fn m8_a_size_that_changes_to_and_fro_between_edits_is_summed() {
    // In the middle of a word, which counts as filled up with zeros while it is the last one.
    for (there, at) in [(5001, 5000), (20_000, 10_001)] {
        let dir = Dir::new();
        let (mut writer, reader) = twice(&dir, 10_000);
        let mut standby = writer.standby(10_000).unwrap();
        standby.edit().change(10..20, |bytes| bytes.fill(1));
        standby.resize(there).unwrap();
        standby.edit().change(at..at + 1, |bytes| bytes.fill(7));
        standby.resize(10_000).unwrap();
        standby.publish().unwrap();
        reader.pin().unwrap();
    }
}

#[test]
fn nothing_published_is_nothing_to_copy() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let mut standby = writer.standby(100).unwrap();
    standby.bytes_mut().fill(3);
    standby.copy_current().unwrap();
    assert_eq!(standby.bytes(), [3; 100]);
    standby.publish().unwrap();
    verified(&dir.options(), &[3; 100]);
}
