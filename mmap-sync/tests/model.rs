//! Random sequences of everything that one process can do, against a plain model: what was published last, and what
//! each guard saw when it was made.

mod common;

use common::Dir;
use mmap_sync::{Error, Guard, Options, Reader, Writer};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Whole, of so many bytes.
    Publish(usize),
    /// By changing some bytes of what the standby copy holds, and its size.
    Update(Vec<usize>, isize),
    /// Prepared, and then not published.
    Abandon(usize),
    Pin(usize),
    Unpin(usize, usize),
    Maintain(usize),
    OpenReader,
    DropReader(usize),
    ReopenWriter,
    /// The writer is dropped with a publication half done.
    BreakWriter(usize),
    Heartbeat,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![0_usize..50, 4000_usize..4200, 0_usize..70_000];
    prop_oneof![
        4 => size.clone().prop_map(Step::Publish),
        4 => (prop::collection::vec(0_usize..70_000, 0..5), -5000_isize..5000).prop_map(|(at, by)| Step::Update(at, by)),
        1 => size.clone().prop_map(Step::Abandon),
        6 => (0_usize..4).prop_map(Step::Pin),
        4 => (0_usize..4, 0_usize..4).prop_map(|(reader, guard)| Step::Unpin(reader, guard)),
        2 => (0_usize..4).prop_map(Step::Maintain),
        1 => Just(Step::OpenReader),
        1 => (0_usize..4).prop_map(Step::DropReader),
        1 => Just(Step::ReopenWriter),
        1 => size.prop_map(Step::BreakWriter),
        1 => Just(Step::Heartbeat),
    ]
}

/// A reader and the guards on it, with what they saw. The guards are dropped first.
struct Handle {
    guards: Vec<(Guard<'static>, u64, Vec<u8>)>,
    reader: Box<Reader>,
    last: Option<u64>,
}

impl Handle {
    fn open(options: &Options) -> Handle {
        Handle { guards: Vec::new(), reader: Box::new(options.open_reader().unwrap()), last: None }
    }

    fn pin(&mut self) -> Result<Guard<'static>, Error> {
        // SAFETY:
        // - the reader is on the heap and lives until the handle is dropped, after the guards.
        let reader: &'static Reader = unsafe { &*std::ptr::from_ref(&*self.reader) };
        reader.pin()
    }
}

/// What was published, per generation that may still be held by the standby copy.
#[derive(Default)]
struct Model {
    generation: u64,
    versions: Vec<Vec<u8>>,
}

impl Model {
    fn publish(&mut self, bytes: Vec<u8>) {
        self.generation += 1;
        self.versions.push(bytes);
    }

    fn current(&self) -> Option<&Vec<u8>> {
        self.versions.last()
    }
}

fn payload(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    common::fill(&mut bytes, seed);
    bytes
}

fn update(writer: &mut Writer, model: &mut Model, at: &[usize], by: isize) {
    let mut next = model.current().cloned().unwrap_or_default();
    next.resize(next.len().saturating_add_signed(by), 0x5a);
    let mut standby = writer.standby(next.len() as u64).unwrap();
    for at in at {
        if let Some(byte) = next.get_mut(*at) {
            *byte = byte.wrapping_add(1);
        }
    }
    match standby.holds() {
        // Only what differs is written, and named.
        Some(held) => {
            assert!(held < model.generation);
            let held = &model.versions[held as usize - 1];
            assert_eq!(standby.held_len(), held.len() as u64);
            let common = held.len().min(next.len());
            assert_eq!(&standby.bytes()[..common], &held[..common], "the copy does not hold what it says");
            // Some by name, the others accounted for.
            // A byte beyond the end: nothing was changed beside what is named.
            standby.touch(u64::MAX - 1..u64::MAX);
            for (at, byte) in next.iter().enumerate().filter(|(at, byte)| held.get(*at) != Some(byte)) {
                if at % 3 == 0 {
                    standby.bytes_mut()[at] = *byte;
                    standby.touch(at as u64..at as u64 + 1);
                } else {
                    standby.edit().change(at..at + 1, |bytes| bytes[0] = *byte);
                }
            }
        }
        None if by >= 0 => {
            standby.copy_current().unwrap();
            let held = model.current().map_or(0, Vec::len);
            assert!(model.generation == 0 || standby.len() == held as u64);
            standby.resize(next.len() as u64).unwrap();
            let mut edit = standby.edit();
            edit.change(held..next.len(), |bytes| bytes.fill(0x5a));
            for (at, byte) in next.iter().enumerate() {
                if edit.bytes()[at] != *byte {
                    edit.change(at..at + 1, |bytes| bytes[0] = *byte);
                }
            }
        }
        None => standby.bytes_mut().copy_from_slice(&next),
    }
    standby.publish().unwrap();
    model.publish(next);
}

fn run(steps: Vec<Step>, max_size: u64, slots: u32, membarrier: bool) {
    let dir = Dir::new();
    // Every checksum is verified: those of updates are brought up to date by blocks.
    let options =
        dir.options().max_size(max_size).slots(slots).max_slots(8).membarrier(membarrier).verify(true);
    let mut writer = Some(options.open_writer().unwrap());
    let mut handles: Vec<Handle> = Vec::new();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        let writing = writer.as_mut().unwrap();
        match step {
            Step::Publish(len) => {
                let bytes = payload(len, number as u64);
                writing.write_bytes(&bytes).unwrap();
                model.publish(bytes);
            }
            Step::Update(at, by) => update(writing, &mut model, &at, by),
            Step::Abandon(len) => writing.standby(len as u64).unwrap().bytes_mut().fill(0xee),
            Step::Pin(handle) => {
                let Some(handle) = handles.get_mut(handle) else { continue };
                let last = handle.last;
                match handle.pin() {
                    Ok(guard) => {
                        assert_eq!(guard.generation(), model.generation);
                        assert_eq!(Some(&*guard), model.current().map(Vec::as_slice));
                        assert_eq!(guard.is_switched(), last != Some(model.generation));
                        handle.last = Some(model.generation);
                        let bytes = guard.to_vec();
                        handle.guards.push((guard, model.generation, bytes));
                    }
                    Err(Error::NotPublished) => assert_eq!(model.generation, 0),
                    Err(Error::TooManyGuards { .. }) => assert!(handle.guards.len() >= 12),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Unpin(handle, guard) => {
                let Some(handle) = handles.get_mut(handle) else { continue };
                if guard < handle.guards.len() {
                    handle.guards.remove(guard);
                }
            }
            Step::Maintain(handle) => {
                let Some(handle) = handles.get_mut(handle) else { continue };
                match handle.reader.maintain() {
                    Ok(()) | Err(Error::NotPublished | Error::TooManyGuards { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::OpenReader if handles.len() < 4 => {
                handles.push(Handle::open(&options.clone().prefault(number % 2 == 0)));
            }
            Step::OpenReader => {}
            Step::DropReader(handle) => {
                if handle < handles.len() {
                    handles.remove(handle);
                }
            }
            Step::ReopenWriter => {
                drop(writer.take());
                writer = Some(options.open_writer().unwrap());
            }
            Step::BreakWriter(len) => {
                let mut standby = writing.standby(len as u64).unwrap();
                standby.bytes_mut().fill(0xdd);
                std::mem::forget(standby);
                drop(writer.take());
                writer = Some(options.open_writer().unwrap());
            }
            Step::Heartbeat => writing.heartbeat(),
        }
        let writing = writer.as_ref().unwrap();
        assert_eq!(writing.generation().unwrap_or(0), model.generation);
        assert_eq!(writing.current(), model.current().map(Vec::as_slice));
        for handle in &handles {
            for (guard, generation, bytes) in &handle.guards {
                assert_eq!(guard.generation(), *generation);
                assert_eq!(&**guard, &bytes[..], "a guard changed");
            }
        }
    }
    handles.clear();
    let mut writer = writer.unwrap();
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    writer.write_bytes(b"a").unwrap();
    assert!(!writer.write_bytes(b"b").unwrap().reset);
    assert!(
        dir.names().iter().all(|name| !name.contains("_old_") && !name.contains("_new")),
        "{:?}",
        dir.names()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn all_sequences_agree_with_the_model(
        steps in prop::collection::vec(step(), 1..80),
        small in any::<bool>(),
        few in any::<bool>(),
        membarrier in any::<bool>(),
    ) {
        run(steps, if small { 10_000 } else { 1 << 30 }, if few { 2 } else { 8 }, membarrier);
    }
}
