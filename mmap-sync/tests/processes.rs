//! Several processes: killed, stopped, forked, of other users, in other PID namespaces.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Dir, Random, is_filled, publish};
use mmap_sync::{Options, Reader};

fn stress() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmap-sync-stress"));
    command.stdout(Stdio::piped()).stdin(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that is killed when the test is done with it, whatever the outcome.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no memory is passed; the child was not waited for, so the pid is its.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // One byte at a time: nothing of the next line is taken.
        let mut byte = [0];
        let output = self.0.stdout.as_mut().unwrap();
        while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0] as char);
        }
        line
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn assert_whole(reader: &Reader) -> u64 {
    let guard = reader.pin().unwrap();
    assert!(is_filled(&guard, guard.generation()), "generation {}", guard.generation());
    guard.generation()
}

/// How many processes a test kills; more by hand.
fn kills() -> u64 {
    std::env::var("MMAP_SYNC_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(500)
}

const CLEAN: [&str; 5] = ["x_data_0", "x_data_1", "x_lock", "x_readers", "x_state"];

#[test]
fn m2_readers_in_processes_check_every_byte() {
    for (bytes, fences) in [("64", false), ("5000", false), ("64", true), ("5000", true)] {
        let dir = Dir::new();
        let mut command = stress();
        if fences {
            command.env("MMAP_SYNC_FENCES", "1");
        }
        let output =
            command.args(["soak", dir.prefix().to_str().unwrap(), "2", "3", bytes]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        eprintln!("{text}");
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        let mut writer = dir.options().membarrier(!fences).open_writer().unwrap();
        publish(&mut writer, 64);
        publish(&mut writer, 64);
        assert_eq!(writer.retired_files(), 0);
        assert_eq!(dir.names(), CLEAN);
    }
}

#[test]
fn m4_readers_killed_at_random_leave_nothing_behind() {
    let dir = Dir::new();
    let mut random = Random::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100_000);
    publish(&mut writer, 100_000);
    let two = dir.allocated();
    let start = || Process::spawn(stress().args(["read", dir.prefix().to_str().unwrap(), "60"]));
    let mut readers: Vec<Process> = (0..3).map(|_| start()).collect();
    for _ in 0..kills() {
        for _ in 0..random.below(4) {
            publish(&mut writer, 100_000 - random.below(1000));
        }
        std::thread::sleep(Duration::from_micros(random.below(4000)));
        let victim = random.below(3) as usize;
        readers[victim].signal(libc::SIGKILL);
        readers[victim] = start();
    }
    for mut reader in readers {
        reader.0.kill().unwrap();
        reader.0.wait().unwrap();
    }
    publish(&mut writer, 100_000);
    writer.heartbeat();
    publish(&mut writer, 100_000);
    assert_eq!(writer.retired_files(), 0);
    assert_eq!(dir.names(), CLEAN);
    assert!(dir.allocated() <= two + 8192, "{} {two}", dir.allocated());
    // No slot is lost: as many as ever were in use can be taken again without one more.
    let size = dir.path().join("x_readers").metadata().unwrap().len();
    let all: Vec<Reader> = (0..1024).map(|_| dir.options().open_reader().unwrap()).collect();
    assert!(all.iter().all(Reader::has_slot));
    assert_eq!(dir.path().join("x_readers").metadata().unwrap().len(), size);
}

#[test]
fn m5_writers_killed_at_random_lose_nothing() {
    let dir = Dir::new();
    let mut random = Random::new();
    let prefix = dir.prefix();
    let prefix = prefix.to_str().unwrap();
    publish(&mut dir.options().open_writer().unwrap(), 50_000);
    let reader = dir.options().open_reader().unwrap();
    let mut _pinned = None;
    let mut last = 0;
    for round in 0..kills() {
        let mut writer = Process::spawn(stress().args(["write", prefix, "60", "50000"]));
        // Some are killed while they start, some only after they have published.
        while round % 4 == 0 && reader.generation() == Some(last.max(1)) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(random.below(5000)));
        if round % 3 == 0 {
            // So that fresh files are made, and writers killed while they make them.
            _pinned = Some(reader.pin().unwrap());
        }
        if round % 20 != 19 {
            writer.signal(libc::SIGKILL);
        } else {
            writer.signal(libc::SIGTERM);
        }
        writer.0.wait().unwrap();
        let now = assert_whole(&reader);
        assert!(now >= last);
        last = now;
        let fresh = dir.options().open_reader().unwrap();
        assert_eq!(assert_whole(&fresh), now);
    }
    assert!(last > kills() / 4);
    drop(_pinned);
    let mut writer = dir.options().open_writer().unwrap();
    assert_eq!(writer.generation(), Some(last));
    for _ in 0..3 {
        publish(&mut writer, 50_000);
    }
    assert_eq!(writer.retired_files(), 0);
    assert_eq!(dir.names(), CLEAN);
    assert!(dir.allocated() < 2 * 50_000 + 400_000);
}

#[test]
fn m3_a_stopped_reader_with_a_guard_costs_one_file() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    for _ in 0..2 {
        publish(&mut writer, 10_000);
    }
    let mut holder = Process::spawn(stress().args(["hold", dir.prefix().to_str().unwrap()]));
    assert_eq!(holder.line(), "held 2");
    holder.signal(libc::SIGSTOP);
    let resets = (0..100).filter(|_| publish(&mut writer, 10_000)).count();
    assert_eq!((resets, writer.retired_files()), (1, 1));
    holder.signal(libc::SIGCONT);
    holder.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(holder.line(), "whole");
    assert!(holder.0.wait().unwrap().success());
    writer.heartbeat();
    assert_eq!(dir.names(), CLEAN);
}

#[test]
fn m3_readers_stopped_at_any_instruction_cost_one_file() {
    let dir = Dir::new();
    let mut random = Random::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 64);
    let reader = Process::spawn(stress().args(["read", dir.prefix().to_str().unwrap(), "60"]));
    for _ in 0..200 {
        std::thread::sleep(Duration::from_micros(random.below(2000)));
        reader.signal(libc::SIGSTOP);
        // The signal takes a moment to arrive.
        std::thread::sleep(Duration::from_micros(200));
        while !is_stopped(reader.0.id()) {
            std::thread::yield_now();
        }
        let resets = (0..12).filter(|_| publish(&mut writer, 64)).count();
        // The reader has one cell for the guard that it holds now and then, and one for its reads.
        assert!(resets <= 2 && writer.retired_files() <= 2, "{resets} {}", writer.retired_files());
        reader.signal(libc::SIGCONT);
    }
    drop(reader);
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
}

/// Runs `child` in a forked process and returns its exit code.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY:
    // - the child runs code of this thread only, and ends without unwinding or running exit handlers.
    match unsafe { libc::fork() } {
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(99);
            // SAFETY: no memory is passed.
            unsafe { libc::_exit(code) }
        }
        pid => wait_for(pid),
    }
}

fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is writable and of the type that `waitpid` fills in.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1000 + libc::WTERMSIG(status) }
}

#[test]
fn m6_a_guard_alive_at_the_fork_belongs_to_the_parent() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    let reader = dir.options().open_reader().unwrap();
    let guard = reader.pin().unwrap();
    let mut guard = Some(guard);
    // Dropped before the child uses the handle, and after.
    assert_eq!(in_child(|| guard.take().map_or(1, |guard| i32::from(guard.generation() != 2))), 0);
    let code = in_child(|| {
        let inherited = guard.take().unwrap();
        let own = reader.pin().unwrap();
        let mut good = is_filled(&own, 2) && is_filled(&inherited, 2);
        drop(own);
        drop(inherited);
        // Enough pins for every use of the clock and the cells.
        for _ in 0..1000 {
            good &= reader.pin().is_ok_and(|own| is_filled(&own, 2));
        }
        let many: Vec<_> = (0..20).map(|_| reader.pin().unwrap()).collect();
        good &= many.iter().all(|own| is_filled(own, 2));
        i32::from(!good)
    });
    assert_eq!(code, 0);
    let guard = guard.unwrap();
    let resets = (0..10).filter(|_| publish(&mut writer, 5000)).count();
    assert_eq!(resets, 1, "the child's drop must not have freed the parent's pin");
    assert!(is_filled(&guard, 2));
    assert_eq!(assert_whole(&reader), 12);
}

#[test]
fn m6_the_first_pin_of_a_child_is_in_a_slot_of_its_own() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    let reader = dir.options().open_reader().unwrap();
    // A handle in full use looks at the clock only now and then.
    for _ in 0..10_000 {
        drop(reader.pin().unwrap());
    }
    let code = in_child(|| {
        let _own = reader.pin().unwrap();
        let slots = mmap_sync::inspect::inspect(&dir.options()).unwrap().readers;
        let pids: Vec<u32> = slots.iter().map(|slot| slot.pid).collect();
        // SAFETY: no memory is passed.
        let parent = unsafe { libc::getppid() } as u32;
        let pinned: Vec<usize> = slots.iter().map(|slot| slot.pins.len()).collect();
        i32::from(pids != [parent, std::process::id()] || pinned != [0, 1])
    });
    assert_eq!(code, 0);
}

#[test]
fn m6_an_inherited_handle_has_a_slot_of_its_own_when_the_parent_is_killed() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 5000);
    publish(&mut writer, 5000);
    let (mut to_grandchild, mut from_test) = std::io::pipe().unwrap();
    let (from_grandchild, mut to_test) = std::io::pipe().unwrap();
    let prefix = dir.prefix();
    // SAFETY:
    // - the child runs code of this thread only, and ends without unwinding or running exit handlers.
    let parent = unsafe { libc::fork() };
    if parent == 0 {
        let reader = Options::new(&prefix).open_reader().unwrap();
        let guard = reader.pin().unwrap();
        // SAFETY:
        // - as above.
        if unsafe { libc::fork() } == 0 {
            // The grandchild: says that it is there, waits for the death of its parent, and reads on.
            drop(from_test);
            let mut byte = [0];
            to_test.write_all(&[1]).unwrap();
            let _ = from_grandchild;
            while to_grandchild.read(&mut byte).unwrap() == 1 {
                let own = reader.pin().unwrap();
                let whole = is_filled(&own, own.generation());
                to_test.write_all(&[if whole { own.generation() as u8 } else { 0 }]).unwrap();
            }
            drop(guard);
            // SAFETY: no memory is passed.
            unsafe { libc::_exit(0) };
        }
        loop {
            // SAFETY: no memory is passed.
            unsafe { libc::pause() };
        }
    }
    drop(to_test);
    drop(to_grandchild);
    let mut answers = BufReader::new(from_grandchild);
    let mut byte = [0];
    answers.read_exact(&mut byte).unwrap();
    // The parent holds generation 2.
    for _ in 0..4 {
        publish(&mut writer, 5000);
    }
    assert_eq!(writer.retired_files(), 1);
    // SAFETY: no memory is passed; the child was not waited for.
    assert_eq!(unsafe { libc::kill(parent, libc::SIGKILL) }, 0);
    wait_for(parent);
    for round in 0..10 {
        from_test.write_all(b"?").unwrap();
        answers.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], 6 + round);
        publish(&mut writer, 5000);
    }
    // The grandchild lives, and does not keep its parent's pin alive.
    writer.heartbeat();
    assert_eq!(writer.retired_files(), 0);
    drop(from_test);
    assert_eq!(answers.fill_buf().unwrap().len(), 0);
}

#[test]
fn m6_the_writer_belongs_to_the_parent() {
    let dir = Dir::new();
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    let (mut read, mut write) = std::io::pipe().unwrap();
    // SAFETY:
    // - the child runs code of this thread only, and ends without unwinding or running exit handlers.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(write);
        let refused =
            matches!(writer.standby(1), Err(mmap_sync::Error::Forked)) && writer.current().is_none();
        let _ = read.read(&mut [0]);
        drop(writer);
        // SAFETY: no memory is passed.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    // The child lives, and the lock is free as soon as the parent lets go of it.
    drop(writer);
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 100);
    write.write_all(b"!").unwrap();
    assert_eq!(wait_for(child), 0);
    publish(&mut writer, 100);
}

#[test]
fn m4_a_reader_in_another_pid_namespace_is_recognised_as_dead() {
    let dir = Dir::new();
    let probe = Command::new("unshare").args(["-p", "-f", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        common::skipped("a PID namespace needs root and `unshare`");
        return;
    }
    let mut writer = dir.options().open_writer().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    let mut command = Command::new("unshare");
    command
        .args(["-p", "-f", "--kill-child", env!("CARGO_BIN_EXE_mmap-sync-stress"), "hold"])
        .arg(dir.prefix());
    command.stdout(Stdio::piped()).stdin(Stdio::piped());
    let mut holder = Process::spawn(&mut command);
    assert_eq!(holder.line(), "held 2");
    for _ in 0..5 {
        publish(&mut writer, 1000);
    }
    assert_eq!(writer.retired_files(), 1);
    holder.signal(libc::SIGKILL);
    holder.0.wait().unwrap();
    // The process inside dies a moment after `unshare`.
    let start = std::time::Instant::now();
    while writer.retired_files() > 0 && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
        writer.heartbeat();
    }
    assert_eq!(writer.retired_files(), 0);
}

#[test]
fn m7_a_reader_of_another_user_needs_only_the_group() {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        common::skipped("becoming another user needs root");
        return;
    }
    let dir = Dir::new();
    let group = 54_321;
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = dir.path().join("stress");
    std::fs::copy(env!("CARGO_BIN_EXE_mmap-sync-stress"), &program).unwrap();
    let mut writer = dir.options().group(Some(group)).open_writer().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    let run = |gid: u32| {
        let mut command = Command::new(&program);
        command.arg("hold").arg(dir.prefix()).uid(65_534).gid(gid);
        command.stdout(Stdio::piped()).stdin(Stdio::piped()).stderr(Stdio::piped());
        Process::spawn(&mut command)
    };
    let mut holder = run(group);
    assert_eq!(holder.line(), "held 2");
    let resets = (0..10).filter(|_| publish(&mut writer, 1000)).count();
    assert_eq!(resets, 1);
    holder.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(holder.line(), "whole");
    // Without the group there is a clear error.
    let mut stranger = run(65_534);
    assert_eq!(stranger.line(), "");
    let mut error = String::new();
    stranger.0.stderr.as_mut().unwrap().read_to_string(&mut error).unwrap();
    assert!(error.contains("x_state") || error.contains("errno: 13"), "{error}");
}
