//! `sync`: the synchronizer alone, without feature tables, beside the published crate.
//!
//! Calls of a few nanoseconds are timed in batches of 1,000; their percentiles are of averages over a batch.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cloudflare_mmap_sync::synchronizer::Synchronizer as Cloudflare;
use mmap_sync::Options as SyncOptions;
use mmap_sync::synchronizer::Synchronizer;

mod write;

use self::write::{update, write_large, write_small};
use crate::machine;
use crate::measure::{Times, batches};
use crate::report::{Report, Row};

const BLISS: &str = "bliss";
const CRATE: &str = "mmap-sync 2.0.4";
/// Calls per batch.
const BATCH: u32 = 1000;
/// How long a writer waits for readers.
const GRACE: Duration = Duration::from_millis(100);

/// The value of the published crate's own example, for rkyv 0.8.
#[derive(Clone, Debug, rkyv::Archive, rkyv::Serialize)]
#[allow(missing_docs)]
struct HelloWorld {
    version: u32,
    messages: Vec<String>,
}

/// The same for rkyv 0.7.
mod rkyv_07_value {
    // What its derive makes was written for older editions.
    #![allow(missing_docs, unreachable_pub, unsafe_op_in_unsafe_fn)]

    #[derive(Clone, Debug, rkyv_07::Archive, rkyv_07::Serialize)]
    #[archive(crate = "rkyv_07", check_bytes)]
    pub struct HelloWorld {
        pub version: u32,
        pub messages: Vec<String>,
    }
}

fn messages() -> Vec<String> {
    ["Hello", "World", "!"].map(String::from).into()
}

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of the values that are written, in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 100_000_000, 1_000_000_000])]
    pub sizes: Vec<u64>,
    /// How long each reading subject is measured.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Only these benchmarks: `pin`, `read`, `write`, `update`, `publishing`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
}

/// Measures all of it.
///
/// # Errors
/// Where a subject fails or gives a wrong answer.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let duration = Duration::from_secs_f64(options.seconds);
    if wanted("pin") {
        pins(duration, report)?;
    }
    if wanted("read") {
        typed_reads(duration, report)?;
    }
    if wanted("publishing") {
        read_while_publishing(duration, report)?;
    }
    if wanted("write") {
        write_small(duration, report)?;
    }
    for bytes in &options.sizes {
        if wanted("write") {
            write_large(*bytes, report)?;
        }
    }
    if let Some(bytes) = options.sizes.iter().max().filter(|_| wanted("update")) {
        update(*bytes, report)?;
    }
    Ok(())
}

/// Keeps the calling thread on one core, as far as the system allows.
fn stay_on(core: usize) {
    // SAFETY:
    // - a `cpu_set_t` of zeros is an empty set; both calls get its true size, and 0 means the calling thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        let _ = libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Runs `reader` on as many cores at the same time, and joins their times.
fn on_cores(
    readers: usize,
    reader: impl Fn(&Barrier) -> anyhow::Result<Times> + Sync,
) -> anyhow::Result<Times> {
    let barrier = Barrier::new(readers);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..readers)
            .map(|core| {
                let (barrier, reader) = (&barrier, &reader);
                scope.spawn(move || {
                    stay_on(core);
                    reader(barrier)
                })
            })
            .collect();
        let mut all = Times::new();
        for thread in running {
            let times = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.merge(&times?);
        }
        Ok(all)
    })
}

fn pins(duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    let directory = machine::directory()?;
    let ours = directory.path().join("ours");
    let theirs = directory.path().join("theirs");
    let mut writer = SyncOptions::new(&ours).open_writer()?;
    writer.write_bytes(&[7; 64])?;
    let mut old: Cloudflare = Cloudflare::new(theirs.as_os_str());
    old.write(&[7_u64; 8], GRACE)?;
    for readers in [1, 2] {
        let bench = if readers == 1 { "pin_1_reader" } else { "pin_2_readers" };
        let row = |subject: &str, times: &Times| {
            Row::new(bench, subject).with("readers", readers).with_times(times)
        };
        for (subject, membarrier) in [(BLISS, true), ("bliss (fence)", false)] {
            let times = on_cores(readers, |barrier| {
                let reader = SyncOptions::new(&ours).membarrier(membarrier).open_reader()?;
                let wrong = AtomicU64::new(0);
                barrier.wait();
                let times = batches(duration, BATCH, || match reader.pin() {
                    Ok(guard) => _ = black_box(guard.bytes().as_ptr()),
                    Err(_) => _ = wrong.fetch_add(1, Ordering::Relaxed),
                });
                ensure!(wrong.into_inner() == 0 && *reader.pin()? == [7; 64], "a wrong answer");
                Ok(times)
            })?;
            report.add(row(subject, &times));
        }
        let times = on_cores(readers, |barrier| {
            let mut reader: Cloudflare = Cloudflare::new(theirs.as_os_str());
            let mut wrong = 0;
            barrier.wait();
            let times = batches(duration, BATCH, || {
                // SAFETY:
                // - nobody writes while the guard is alive; the bytes are the archive that this process wrote.
                match unsafe { reader.read::<[u64; 8]>(false) } {
                    Ok(read) => _ = black_box(read.as_ptr()),
                    Err(_) => wrong += 1,
                }
            });
            // SAFETY:
            // - as above.
            let right = unsafe { reader.read::<[u64; 8]>(true) }.is_ok_and(|read| *read == [7; 8]);
            ensure!(wrong == 0 && right, "a wrong answer");
            Ok(times)
        })?;
        report.add(row(CRATE, &times));
    }
    Ok(())
}

fn typed_reads(duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    let directory = machine::directory()?;
    let ours = directory.path().join("ours");
    let theirs = directory.path().join("theirs");
    Synchronizer::new(&ours).write(&HelloWorld { version: 7, messages: messages() }, GRACE)?;
    let value = rkyv_07_value::HelloWorld { version: 7, messages: messages() };
    let mut old: Cloudflare = Cloudflare::new(theirs.as_os_str());
    old.write(&value, GRACE)?;

    let mut reader = Synchronizer::new(&ours);
    let mut wrong = 0_u64;
    let times = batches(duration, BATCH, || {
        let right = reader.read::<HelloWorld>().is_ok_and(|read| {
            black_box(read.version.to_native()) == 7 && black_box(read.messages.len()) == 3
        });
        wrong += u64::from(!right);
    });
    report.add(Row::new("read_typed", BLISS).with_times(&times));
    for (subject, check) in [("mmap-sync 2.0.4", false), ("mmap-sync 2.0.4 (check_bytes)", true)] {
        let mut reader: Cloudflare = Cloudflare::new(theirs.as_os_str());
        let times = batches(duration, BATCH, || {
            // SAFETY:
            // - nobody writes while the guard is alive; the bytes are the archive that this process wrote.
            let read = unsafe { reader.read::<rkyv_07_value::HelloWorld>(check) };
            let right =
                read.is_ok_and(|read| black_box(read.version) == 7 && black_box(read.messages.len()) == 3);
            wrong += u64::from(!right);
        });
        report.add(Row::new("read_typed", subject).with_times(&times));
    }
    ensure!(wrong == 0, "{wrong} wrong answers");
    Ok(())
}

/// One reader on one core, timed call by call, while a writer on the other publishes without pause.
fn read_while_publishing(duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    const BENCH: &str = "read_while_publishing";
    let directory = machine::directory()?;
    let ours = directory.path().join("ours");
    let theirs = directory.path().join("theirs");
    let stop = AtomicBool::new(false);
    let beside = |write: &mut (dyn FnMut(u64) -> anyhow::Result<()> + Send),
                  read: &mut dyn FnMut() -> anyhow::Result<[u64; 8]>|
     -> anyhow::Result<(Times, u64, u64)> {
        stop.store(false, Ordering::Relaxed);
        write(1)?;
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| -> anyhow::Result<u64> {
                stay_on(1);
                for version in 2.. {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(version - 2);
                    }
                    write(version)?;
                }
                Ok(0)
            });
            let mut times = Times::new();
            let mut torn = 0;
            let end = Instant::now() + duration;
            let outcome = loop {
                let start = Instant::now();
                let found = read();
                let now = Instant::now();
                times.add(now - start);
                match found {
                    Ok([first, rest @ ..]) => torn += u64::from(rest.iter().any(|n| *n != first)),
                    Err(error) => break Err(error),
                }
                if now >= end {
                    break Ok(());
                }
            };
            stop.store(true, Ordering::Relaxed);
            let published = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            outcome.map(|()| (times, published, torn))
        })
    };
    let row = |subject: &str, (times, published, torn): (Times, u64, u64)| {
        Row::new(BENCH, subject).with_times(&times).with("publications", published).with("torn_reads", torn)
    };

    let mut writer = SyncOptions::new(&ours).open_writer()?;
    let reader = SyncOptions::new(&ours).open_reader()?;
    let found = beside(
        &mut |version| {
            writer.write_bytes([version.to_le_bytes(); 8].as_flattened())?;
            Ok(())
        },
        &mut || {
            let guard = reader.pin()?;
            let words = guard.bytes().as_chunks::<8>().0.first_chunk::<8>().context("size")?;
            Ok(words.map(u64::from_le_bytes))
        },
    )?;
    ensure!(found.2 == 0, "{} torn reads", found.2);
    report.add(row(BLISS, found));

    let mut writer: Cloudflare = Cloudflare::new(theirs.as_os_str());
    let mut reader: Cloudflare = Cloudflare::new(theirs.as_os_str());
    let found = beside(
        &mut |version| {
            writer.write(&[version; 8], Duration::from_secs(1))?;
            Ok(())
        },
        &mut || {
            // SAFETY:
            // - numbers without pointers among them: whatever the writer does meanwhile, the worst is a torn value,
            //   which is counted.
            let read = unsafe { reader.read::<[u64; 8]>(false) }?;
            Ok(*read)
        },
    )?;
    report.add(row(CRATE, found));
    Ok(())
}
