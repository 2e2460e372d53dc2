//! M1: what the path of a pin does not do.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};

use common::{Dir, is_filled, publish};
use mmap_sync::Error;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY:
// - everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY:
        // - the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY:
        // - the caller's obligations are those of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

#[test]
fn m1_no_pin_allocates_not_even_one_that_maps_a_file_or_fails() {
    let dir = Dir::new();
    let early = dir.options().open_reader().unwrap();
    let (count, result) = allocations_of(|| early.pin().map(drop));
    assert!(matches!(result, Err(Error::NotPublished)) && count == 0, "{count}");
    let many: Vec<_> = (0..200).map(|_| dir.options().open_reader().unwrap()).collect();
    let mut writer = dir.options().open_writer().unwrap();
    // The pin that finds the files and takes a slot does not allocate either.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for reader in &many {
        let (count, result) = allocations_of(|| reader.pin().map(drop));
        assert!(matches!(result, Err(Error::NotPublished)) && reader.has_slot() && count == 0, "{count}");
    }
    assert_eq!(
        many.iter().filter(|reader| reader.writer_age().is_some()).count(),
        200,
        "all found the files"
    );
    drop(many);
    let reader = dir.options().open_reader().unwrap();
    let (count, _) = allocations_of(|| reader.pin().map(drop).unwrap_err());
    assert_eq!(count, 0);
    for round in 0..20 {
        publish(&mut writer, 1000 + round);
        // The first pins map the copies; guards held over rounds bring fresh files.
        let (count, guard) = allocations_of(|| reader.pin().unwrap());
        assert_eq!(count, 0, "round {round}");
        publish(&mut writer, 1000);
        publish(&mut writer, 1000);
        let (count, ()) = allocations_of(|| {
            let other = reader.pin().unwrap();
            drop(guard);
            drop(other);
            drop(reader.pin().unwrap());
        });
        assert_eq!(count, 0, "round {round}");
    }
    // The file of the current generation is gone, and another one is in its place.
    publish(&mut writer, 1000);
    let name = format!("x_data_{}", writer.generation().unwrap() & 1);
    let fresh = dir.options().open_reader().unwrap();
    std::fs::write(dir.path().join(name), "something else".repeat(1000)).unwrap();
    let (count, result) = allocations_of(|| fresh.pin().map(drop));
    assert!(
        matches!(result, Err(Error::Foreign { .. } | Error::Corrupt { .. })) && count == 0,
        "{count} {result:?}"
    );
}

#[test]
fn m1_no_pin_makes_a_system_call() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    let (mut from_test, mut to_child) = std::io::pipe().unwrap();
    let (mut from_child, mut to_test) = std::io::pipe().unwrap();
    // SAFETY:
    // - the child runs code of this thread only, and ends by a bare exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let reader = dir.options().open_reader().unwrap();
        // Both copies get mapped, and all pages of the program that are needed.
        let mut good = true;
        for _ in 0..2 {
            good &= reader.pin().is_ok_and(|guard| is_filled(&guard, guard.generation()));
            to_test.write_all(b"1").unwrap();
            from_test.read_exact(&mut [0]).unwrap();
        }
        // From here on anything but read, write and exit kills.
        // SAFETY: no memory is passed.
        good &= unsafe { libc::prctl(libc::PR_SET_SECCOMP, 1) } == 0;
        for _ in 0..50 {
            for _ in 0..10_000 {
                good &= reader.pin().is_ok_and(|guard| is_filled(&guard[..8], guard.generation()));
            }
            good &= reader.pin().is_ok_and(|first| {
                reader.pin().is_ok_and(|second| {
                    is_filled(&first, second.generation()) && reader.generation().is_some()
                })
            });
            good &= to_test.write_all(b"2").is_ok() && from_test.read_exact(&mut [0]).is_ok();
        }
        // SAFETY: no memory is passed. `_exit` would be `exit_group`, which kills here.
        unsafe { libc::syscall(libc::SYS_exit, i64::from(!good)) };
    }
    drop((from_test, to_test));
    let mut answers = 0;
    let mut byte = [0];
    while from_child.read(&mut byte).unwrap() == 1 {
        answers += 1;
        writer.heartbeat();
        publish(&mut writer, 5000 - answers);
        let _ = to_child.write_all(b"!");
    }
    let mut status = 0;
    // SAFETY: `status` is writable and of the type that `waitpid` fills in.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "status {status:#x} after {answers} answers"
    );
    assert_eq!(answers, 52);
}

#[test]
fn m9_a_second_access_neither_validates_nor_allocates() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    writer.write(&vec![String::from("some"), String::from("words")]).unwrap();
    assert_eq!(reader.pin().unwrap().access::<Vec<String>>().unwrap().len(), 2);
    let (count, words) = allocations_of(|| {
        let guard = reader.pin().unwrap();
        guard.access::<Vec<String>>().unwrap().len()
    });
    assert_eq!((count, words), (0, 2));
}
