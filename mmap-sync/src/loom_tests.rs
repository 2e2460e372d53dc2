//! The protocol without files, in every interleaving that loom finds. Run by `mmap-sync/ci/loom.sh`.
//!
//! Files are cells whose accesses loom checks: a writer that overwrites what a reader looks at is found even if the
//! reader would not notice. Each model has its broken variants, which must be found by the same model.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::protocol::{self, FREE, Found};
use crate::scan::{self, Occupied, Slots};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use loom::thread;

/// What is done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Nothing,
    /// The published crate's order: the generation is loaded, and then the pin stored; no second look.
    LoadBeforeRegister,
    /// The reader passes no barrier.
    NoReaderBarrier,
    /// The writer passes no barrier.
    NoWriterBarrier,
    /// The writer scans before the generation that it asks for has been replaced, and not again.
    EarlyScan,
    /// Announcements are called off, but readers do not look at the epoch.
    NoEpochCheck,
    /// Announcements are called off, and believed gone without another barrier.
    NoBarrierAfterRevoking,
    /// The writer does not scan at all.
    NoScan,
    /// The first page is not compared: what is mapped is taken for the pinned generation.
    NoIdentity,
    /// The pin is dropped by a relaxed store.
    RelaxedRelease,
    /// The writer clears a slot without its owner's lock.
    ClearWithoutLock,
}

/// A data file: the generation in its first page, and its bytes.
struct File {
    header: AtomicU64,
    bytes: UnsafeCell<u64>,
}

struct Slot {
    cell: [AtomicU64; 1],
    epoch: AtomicU64,
    taken: AtomicBool,
    locked: AtomicBool,
}

struct Shared {
    generation: AtomicU64,
    /// Which file has the name of copy 0 or 1.
    names: [AtomicUsize; 2],
    files: Vec<File>,
    slots: Vec<Slot>,
    fault: Fault,
}

// SAFETY:
// - the cells are only reached through loom's checked accessors.
unsafe impl Sync for Shared {}
// SAFETY:
// - as above.
unsafe impl Send for Shared {}

impl Shared {
    /// Generation 2 is current in file 0, generation 1 is in file 1.
    fn new(slots: usize, files: usize, fault: Fault) -> Arc<Shared> {
        let file =
            |generation: u64| File { header: AtomicU64::new(generation), bytes: UnsafeCell::new(generation) };
        Arc::new(Shared {
            generation: AtomicU64::new(2),
            names: [AtomicUsize::new(0), AtomicUsize::new(1)],
            files: (0..files).map(|index| file([2, 1].get(index).copied().unwrap_or(0))).collect(),
            slots: (0..slots)
                .map(|_| Slot {
                    cell: [AtomicU64::new(FREE)],
                    epoch: AtomicU64::new(0),
                    taken: AtomicBool::new(true),
                    locked: AtomicBool::new(true),
                })
                .collect(),
            fault,
        })
    }
}

struct Reader {
    shared: Arc<Shared>,
    slot: usize,
    mapped: [usize; 2],
}

impl Reader {
    fn new(shared: &Arc<Shared>, slot: usize) -> Reader {
        Reader { shared: shared.clone(), slot, mapped: [0, 1] }
    }

    fn announce(&self) -> u64 {
        let (shared, slot) = (&self.shared, &self.shared.slots[self.slot]);
        let never = AtomicU64::new(0);
        let epoch = if shared.fault == Fault::NoEpochCheck { &never } else { &slot.epoch };
        match shared.fault {
            Fault::LoadBeforeRegister => {
                let generation = shared.generation.load(Ordering::Acquire);
                slot.cell[0].store(protocol::committed(generation), Ordering::SeqCst);
                fence(Ordering::SeqCst);
                generation
            }
            Fault::NoReaderBarrier => protocol::pin(&shared.generation, &slot.cell[0], epoch, || ()),
            _ => protocol::pin(&shared.generation, &slot.cell[0], epoch, || fence(Ordering::SeqCst)),
        }
    }

    /// Pins, reads twice, lets go. 0 if the writer called every announcement off.
    fn read(&mut self) -> u64 {
        let pinned = self.announce();
        let shared = self.shared.clone();
        let mapped = std::cell::RefCell::new(self.mapped);
        let find = |generation: u64| {
            let index = (generation & 1) as usize;
            let mut file = mapped.borrow()[index];
            let compare = shared.fault != Fault::NoIdentity;
            if compare && shared.files[file].header.load(Ordering::Relaxed) != generation {
                file = shared.names[index].load(Ordering::Acquire);
                mapped.borrow_mut()[index] = file;
            }
            let found = shared.files[file].header.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if found == generation || !compare {
                Ok::<_, (u64, Option<u64>)>(Found::Here(file))
            } else {
                Ok(Found::Other(Some(found)))
            }
        };
        let settled =
            protocol::settle(pinned, 8, find, || self.announce(), |generation, found| (generation, found));
        let Some((generation, file)) = settled.unwrap() else {
            protocol::release(&shared.slots[self.slot].cell[0]);
            return 0;
        };
        self.mapped = mapped.into_inner();
        for _ in 0..2 {
            // SAFETY:
            // - loom checks that nobody writes at the same time.
            let bytes = shared.files[file].bytes.with(|bytes| unsafe { *bytes });
            assert_eq!(bytes, generation);
        }
        let cell = &shared.slots[self.slot].cell[0];
        if shared.fault == Fault::RelaxedRelease {
            cell.store(FREE, Ordering::Relaxed);
        } else {
            protocol::release(cell);
        }
        generation
    }
}

struct Writer {
    shared: Arc<Shared>,
    generation: u64,
    copies: [usize; 2],
    unused: usize,
    retired: Vec<(u64, usize)>,
    /// The result of a scan done too early.
    early: bool,
    /// The next barrier is the first of its scan.
    first: std::cell::Cell<bool>,
}

impl Slots for Writer {
    fn barrier(&self) {
        let first = self.first.replace(false);
        match self.shared.fault {
            Fault::NoWriterBarrier => {}
            Fault::NoBarrierAfterRevoking if !first => {}
            _ => fence(Ordering::SeqCst),
        }
    }

    fn slots(&self) -> u32 {
        self.shared.slots.len() as u32
    }

    fn occupied(&self, index: u32) -> Option<Occupied<'_>> {
        let slot = &self.shared.slots[index as usize];
        slot.taken.load(Ordering::Relaxed).then_some(Occupied {
            cells: &slot.cell,
            epoch: &slot.epoch,
            unknown: false,
        })
    }

    fn clear_if_dead(&self, index: u32) -> bool {
        let slot = &self.shared.slots[index as usize];
        let without = self.shared.fault == Fault::ClearWithoutLock;
        if !without
            && slot.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        slot.cell[0].store(FREE, Ordering::Release);
        slot.taken.store(false, Ordering::Release);
        if !without {
            slot.locked.store(false, Ordering::Release);
        }
        true
    }
}

impl Writer {
    fn new(shared: &Arc<Shared>) -> Writer {
        Writer {
            shared: shared.clone(),
            generation: 2,
            copies: [0, 1],
            unused: 2,
            retired: Vec::new(),
            early: false,
            first: std::cell::Cell::new(true),
        }
    }

    fn is_held(&self, generation: u64) -> bool {
        self.first.set(true);
        match self.shared.fault {
            Fault::NoScan => false,
            Fault::EarlyScan => self.early,
            _ => scan::held(self, &[generation])[0].is_some(),
        }
    }

    fn publish(&mut self) {
        let next = self.generation + 1;
        let index = (next & 1) as usize;
        let shared = self.shared.clone();
        let fresh = self.is_held(next - 2);
        if fresh {
            self.retired.push((next - 2, self.copies[index]));
            self.copies[index] = self.unused;
            self.unused += 1;
        }
        let file = &shared.files[self.copies[index]];
        file.header.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // SAFETY:
        // - loom checks that nobody reads at the same time.
        file.bytes.with_mut(|bytes| unsafe { *bytes = next });
        file.header.store(next, Ordering::Release);
        if fresh {
            shared.names[index].store(self.copies[index], Ordering::Release);
        }
        if shared.fault == Fault::EarlyScan {
            self.early = scan::held(self, &[next - 1])[0].is_some();
        }
        shared.generation.store(next, Ordering::Release);
        self.generation = next;
    }

    /// Punches out retired files that nobody holds.
    fn reclaim(&mut self) {
        let retired = std::mem::take(&mut self.retired);
        let generations: Vec<u64> = retired.iter().map(|(generation, _)| *generation).collect();
        let held = scan::held(self, &generations);
        for ((generation, file), held) in retired.into_iter().zip(held) {
            if held.is_some() {
                self.retired.push((generation, file));
            } else {
                let file = &self.shared.files[file];
                file.header.store(0, Ordering::Relaxed);
                // SAFETY:
                // - loom checks that nobody reads at the same time.
                file.bytes.with_mut(|bytes| unsafe { *bytes = 0 });
            }
        }
    }
}

fn check(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// One reader that reads twice; a writer that publishes twice, overwriting both copies, and punches what it retired.
fn one_reader(fault: Fault) {
    check(4, move || {
        let shared = Shared::new(1, 4, fault);
        let mut writer = Writer::new(&shared);
        let mut reader = Reader::new(&shared, 0);
        let reading = thread::spawn(move || {
            let first = reader.read();
            let second = reader.read();
            assert!(second >= first || second == 0);
        });
        writer.publish();
        writer.publish();
        writer.reclaim();
        reading.join().unwrap();
        writer.reclaim();
        assert!(writer.retired.is_empty(), "an unpinned file was kept");
    });
}

/// A third publication, so that a file is overwritten whose name was changed before.
fn long_run(fault: Fault) {
    check(4, move || {
        let shared = Shared::new(1, 6, fault);
        let mut writer = Writer::new(&shared);
        let mut reader = Reader::new(&shared, 0);
        let reading = thread::spawn(move || {
            reader.read();
            reader.read();
        });
        for _ in 0..4 {
            writer.publish();
            writer.reclaim();
        }
        reading.join().unwrap();
    });
}

fn two_readers(fault: Fault) {
    check(3, move || {
        let shared = Shared::new(2, 4, fault);
        let mut writer = Writer::new(&shared);
        let readers: Vec<_> = (0..2)
            .map(|slot| {
                let mut reader = Reader::new(&shared, slot);
                thread::spawn(move || {
                    reader.read();
                })
            })
            .collect();
        writer.publish();
        writer.publish();
        writer.reclaim();
        for reading in readers {
            reading.join().unwrap();
        }
    });
}

/// A reader has died with its pin in the slot; another takes the slot while the writer clears it.
fn dead_reader(fault: Fault, left: u64) {
    check(3, move || {
        let shared = Shared::new(1, 4, fault);
        shared.slots[0].cell[0].store(left, Ordering::Relaxed);
        shared.slots[0].locked.store(false, Ordering::Relaxed);
        let mut writer = Writer::new(&shared);
        let mut reader = Reader::new(&shared, 0);
        let reading = thread::spawn(move || {
            let slot = &reader.shared.slots[0];
            if slot.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                slot.cell[0].store(FREE, Ordering::Relaxed);
                slot.taken.store(true, Ordering::SeqCst);
                reader.read();
            }
        });
        writer.publish();
        writer.publish();
        reading.join().unwrap();
        writer.reclaim();
    });
}

/// The reader was stopped between its two loads of the generation, and goes on later or never.
fn stopped_reader() {
    check(4, || {
        let shared = Shared::new(1, 2, Fault::Nothing);
        shared.slots[0].cell[0].store(protocol::pending(1, 0), Ordering::Relaxed);
        let mut writer = Writer::new(&shared);
        // Two files are enough: an announcement never costs one.
        for _ in 0..4 {
            writer.publish();
        }
        assert!(writer.retired.is_empty());
    });
}

fn is_caught(model: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(model)).is_err()
}

#[test]
fn m2_one_reader() {
    one_reader(Fault::Nothing);
}

#[test]
fn m2_names_change_under_the_reader() {
    long_run(Fault::Nothing);
}

#[test]
fn m2_two_readers() {
    two_readers(Fault::Nothing);
}

#[test]
fn m4_a_dead_readers_slot_is_taken_while_it_is_cleared() {
    dead_reader(Fault::Nothing, protocol::committed(1));
    dead_reader(Fault::Nothing, protocol::pending(1, 0));
}

#[test]
fn m3_a_reader_stopped_between_its_loads_costs_no_file() {
    stopped_reader();
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    for fault in [
        Fault::LoadBeforeRegister,
        Fault::NoReaderBarrier,
        Fault::NoWriterBarrier,
        Fault::EarlyScan,
        Fault::NoEpochCheck,
        Fault::NoBarrierAfterRevoking,
        Fault::NoScan,
        Fault::RelaxedRelease,
        Fault::NoIdentity,
    ] {
        assert!(is_caught(|| one_reader(fault)), "{fault:?} went unnoticed");
        println!("found: {fault:?}");
    }
    assert!(is_caught(|| dead_reader(Fault::ClearWithoutLock, protocol::committed(1))));
}
