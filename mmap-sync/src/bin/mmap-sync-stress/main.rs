//! Readers and writers to be killed, stopped and raced; used by the tests, and by hand for longer.
//!
//! ```text
//! mmap-sync-stress soak PREFIX SECONDS READERS BYTES   readers and a writer in processes of their own
//! mmap-sync-stress read PREFIX SECONDS                 checks every byte of every read; prints reads and torn
//! mmap-sync-stress write PREFIX SECONDS BYTES          publishes without pause; prints generation and fresh files
//! mmap-sync-stress hold PREFIX                         pins, says so, waits for a line, checks, says so
//! mmap-sync-stress publish PREFIX BYTES                publishes once
//! mmap-sync-stress chaos DIRECTORY SECONDS [SEED]      kills, stops and starts a writer and readers, and removes their files
//! ```
//!
//! With `MMAP_SYNC_FENCES` in the environment nobody uses `membarrier`: readers pass fences. With `MMAP_SYNC_REFUSED` the kernel
//! refuses it.
//!
//! The payload is made of the generation, so that every read can be checked whole.

mod chaos;
mod seccomp;

use std::io::{BufRead, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use mmap_sync::{Error, Options, Reader};

fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(state.to_le_bytes().get(..word.len()).unwrap_or_default());
    }
}

fn is_filled(bytes: &[u8], seed: u64) -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    bytes.chunks(8).all(|word| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(word) == state.to_le_bytes().get(..word.len())
    })
}

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if std::env::var_os("MMAP_SYNC_REFUSED").is_some() && !seccomp::forbid_membarrier() {
        return Err("the kernel does not let its system calls be filtered".into());
    }
    match args[..] {
        ["soak", prefix, seconds, readers, bytes] => {
            soak(prefix, seconds.parse()?, readers.parse()?, bytes.parse()?)
        }
        ["read", prefix, seconds] => read(prefix, Duration::from_secs_f64(seconds.parse()?)),
        ["write", prefix, seconds, bytes] => {
            write(prefix, Duration::from_secs_f64(seconds.parse()?), bytes.parse()?)
        }
        ["hold", prefix] => hold(prefix),
        ["publish", prefix, bytes] => publish(prefix, bytes.parse()?),
        ["chaos", directory, seconds] => {
            chaos::chaos(directory, seconds.parse()?, u64::from(std::process::id()))
        }
        ["chaos", directory, seconds, seed] => chaos::chaos(directory, seconds.parse()?, seed.parse()?),
        ["chaos-write", prefix] => chaos::write(prefix),
        ["chaos-read", prefix, records, index] => chaos::read(prefix, records, index.parse()?),
        _ => {
            eprintln!(
                "usage: mmap-sync-stress soak|read|write|hold|publish|chaos PREFIX ...; see the source"
            );
            Ok(ExitCode::from(2))
        }
    }
}

fn options(prefix: &str) -> Options {
    Options::new(prefix).membarrier(std::env::var_os("MMAP_SYNC_FENCES").is_none())
}

fn open_reader(prefix: &str) -> Result<Reader, Error> {
    loop {
        let reader = options(prefix).open_reader()?;
        if reader.generation().is_some() {
            return Ok(reader);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read(prefix: &str, time: Duration) -> Outcome {
    let reader = open_reader(prefix)?;
    let start = Instant::now();
    let (mut reads, mut torn, mut last) = (0_u64, 0_u64, 0);
    let mut held = None;
    while start.elapsed() < time {
        for _ in 0..1000 {
            let guard = reader.pin()?;
            let generation = guard.generation();
            if !is_filled(&guard, generation) || generation < last {
                torn += 1;
                eprintln!("torn: generation {generation} after {last}");
            }
            last = generation;
            reads += 1;
        }
        // Now and then a guard is held while the writer goes on.
        if let Some((generation, guard)) = held.replace((last, reader.pin()?)) {
            let generation: u64 = generation;
            let guard: mmap_sync::Guard<'_> = guard;
            if guard.generation() < generation || !is_filled(&guard, guard.generation()) {
                torn += 1;
            }
        }
    }
    println!("reads {reads} torn {torn}");
    Ok(if torn == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(prefix: &str, time: Duration, bytes: u64) -> Outcome {
    let mut writer = options(prefix).open_writer()?;
    let (start, mut fresh) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        let mut standby = writer.standby(bytes)?;
        let next = standby.next_generation();
        // The size changes with the generation, so that a wrong size is noticed too.
        standby.resize(bytes - next % (bytes / 4 + 1))?;
        fill(standby.bytes_mut(), next);
        fresh += u64::from(standby.publish()?.reset);
    }
    println!("generation {} fresh {fresh}", writer.generation().unwrap_or(0));
    Ok(ExitCode::SUCCESS)
}

fn hold(prefix: &str) -> Outcome {
    let reader = open_reader(prefix)?;
    let guard = reader.pin()?;
    println!("held {}", guard.generation());
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let whole = is_filled(&guard, guard.generation());
    println!("{}", if whole { "whole" } else { "torn" });
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn publish(prefix: &str, bytes: u64) -> Outcome {
    let mut writer = options(prefix).open_writer()?;
    let mut standby = writer.standby(bytes)?;
    let next = standby.next_generation();
    fill(standby.bytes_mut(), next);
    let published = standby.publish()?;
    println!("generation {} bytes {}", published.generation, published.bytes);
    Ok(ExitCode::SUCCESS)
}

fn soak(prefix: &str, seconds: f64, readers: usize, bytes: u64) -> Outcome {
    let program = std::env::current_exe()?;
    let seconds = seconds.to_string();
    let spawn = |args: &[&str]| Command::new(&program).args(args).stdout(Stdio::piped()).spawn();
    let writer = spawn(&["write", prefix, &seconds, &bytes.to_string()])?;
    let children: Vec<_> =
        (0..readers).map(|_| spawn(&["read", prefix, &seconds])).collect::<Result<_, _>>()?;
    let (mut failed, mut reads) = (false, 0_u64);
    for child in children {
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        failed |= !output.status.success();
        reads += text.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0_u64);
    }
    let output = writer.wait_with_output()?;
    failed |= !output.status.success();
    print!(
        "reads {reads} torn {} {}",
        if failed { "SOME" } else { "0" },
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
