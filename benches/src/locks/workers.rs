//! A writer and its readers as processes or threads, and what they report.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::mechanisms::{Mechanism, Read, Workers, Write};
use crate::measure::Times;
use crate::process::{Child, Shared};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) readers: usize,
    /// Words of the value.
    pub(super) words: usize,
    /// The writer sleeps so long after each write.
    pub(super) pause: Duration,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Whether the first reader stands still in its critical section meanwhile.
    pub(super) is_stopped: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Of reads that ended in time, those that waited for a stopped reader included; the stopped reader's own are not.
    pub(super) times: Times,
    /// Reads of all readers but a stopped one.
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) elapsed: Duration,
    /// Values of which some words are older than others, and values older than the one read before.
    pub(super) torn: u64,
    /// What the stopped reader needed for its read.
    pub(super) attempts: u64,
}

/// What one worker found, as it crosses processes.
#[derive(Default, Serialize, Deserialize)]
struct Found {
    torn: u64,
    times: Vec<(u64, u64)>,
}

const WAIT: u64 = 0;
const WARM: u64 = 1;
const MEASURE: u64 = 2;
const END: u64 = 3;

/// How long workers may take to begin, or to come into their critical section.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long reads and writes that go on may take when a reader was stopped.
const SETTLE: Duration = Duration::from_millis(20);

/// Shared words, each on a line of its own. All accesses are relaxed, for no other memory depends on them.
#[derive(Clone, Copy)]
struct Control<'a>(&'a [AtomicU64]);

/// Words of a line.
const LINE: usize = 8;
const STATE: usize = 0;
/// Whether the first reader is to stay in its critical section, and whether it does.
const HOLD: usize = 1;
const INSIDE: usize = 2;
/// Attempts of the held read, once it has ended.
const ATTEMPTS: usize = 3;
const READY: usize = 4;
const WRITES: usize = 5;
/// The first reader's reads; the others follow.
const READS: usize = 6;

impl<'a> Control<'a> {
    fn words(readers: usize) -> usize {
        (READS + readers) * LINE
    }

    fn word(self, line: usize) -> &'a AtomicU64 {
        &self.0[line * LINE]
    }

    fn get(self, line: usize) -> u64 {
        self.word(line).load(Ordering::Relaxed)
    }

    fn set(self, line: usize, value: u64) {
        self.word(line).store(value, Ordering::Relaxed);
    }

    /// Waits until a word is at least so much.
    fn wait(self, line: usize, value: u64) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.get(line) < value {
            ensure!(Instant::now() < end, "workers did not come so far within {PATIENCE:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Says that a worker is ready, and waits for the beginning.
    fn begin(self) {
        self.word(READY).fetch_add(1, Ordering::Relaxed);
        while self.get(STATE) == WAIT {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Reads of all readers but a stopped one, and writes.
    fn counts(self, plan: &Plan) -> (u64, u64) {
        let first = usize::from(plan.is_stopped);
        ((first..plan.readers).map(|reader| self.get(READS + reader)).sum(), self.get(WRITES))
    }

    /// Takes the workers through a run. `stop` stops the first reader and lets it go on.
    fn conduct(
        self,
        plan: &Plan,
        stop: impl Fn(bool) -> anyhow::Result<()>,
    ) -> anyhow::Result<(u64, u64, Duration)> {
        self.set(STATE, WARM);
        std::thread::sleep(plan.warm_up);
        if plan.is_stopped {
            self.set(HOLD, 1);
            self.wait(INSIDE, 1)?;
            stop(true)?;
            std::thread::sleep(SETTLE);
        }
        self.set(STATE, MEASURE);
        let start = Instant::now();
        let before = self.counts(plan);
        std::thread::sleep(plan.duration);
        let after = self.counts(plan);
        let elapsed = start.elapsed();
        if plan.is_stopped {
            // The end first, so that a read that waited is not one among thousands that follow it.
            self.set(STATE, END);
            self.set(HOLD, 0);
            stop(false)?;
            self.wait(ATTEMPTS, 1)?;
        }
        Ok((after.0 - before.0, after.1 - before.1, elapsed))
    }
}

fn read<M: Mechanism>(
    mechanism: &M,
    control: Control<'_>,
    plan: &Plan,
    index: usize,
) -> anyhow::Result<Found> {
    let mut reader = mechanism.reader()?;
    let mut value = vec![0; plan.words];
    let mut times = Times::new();
    let (mut torn, mut last, mut reads) = (0, 0, 0);
    let is_held = plan.is_stopped && index == 0;
    control.begin();
    while control.get(STATE) != END {
        let mut was_held = false;
        let mut inside = || {
            if is_held && !was_held && control.get(HOLD) == 1 {
                was_held = true;
                control.set(INSIDE, 1);
                while control.get(HOLD) == 1 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        };
        let start = Instant::now();
        let attempts = reader.read(&mut value, &mut inside)?;
        let stop = Instant::now();
        if was_held {
            control.set(ATTEMPTS, attempts);
        }
        if control.get(STATE) >= MEASURE && !is_held {
            times.add(stop - start);
        }
        let first = value.first().copied().unwrap_or_default();
        torn += u64::from(first < last || value.iter().any(|word| *word != first));
        last = first;
        reads += 1;
        control.set(READS + index, reads);
    }
    Ok(Found { torn, times: times.pairs() })
}

fn write<M: Mechanism>(mechanism: &M, control: Control<'_>, plan: &Plan) -> anyhow::Result<Found> {
    let mut writer = mechanism.writer()?;
    let mut value = vec![0; plan.words];
    let mut next = 1;
    let mut write = || {
        value.fill(next);
        next += 1;
        writer.write(&value)
    };
    // Readers find something from the beginning.
    write()?;
    control.begin();
    let mut writes = 0;
    while control.get(STATE) != END {
        write()?;
        writes += 1;
        control.set(WRITES, writes);
        if !plan.pause.is_zero() {
            std::thread::sleep(plan.pause);
        }
    }
    Ok(Found::default())
}

/// Runs one writer and its readers.
///
/// # Errors
/// Where a worker fails.
pub(super) fn run<M: Mechanism>(mechanism: &M, plan: &Plan) -> anyhow::Result<Outcome> {
    let file = tempfile::tempfile().context("a file in the temporary directory")?;
    let shared = Shared::in_file(&file, Control::words(plan.readers))?;
    let control = Control(shared.words());
    let (conducted, found) = match M::WORKERS {
        Workers::Processes => processes(mechanism, control, plan)?,
        Workers::Threads => threads(mechanism, control, plan),
    };
    // A worker's own error says more than that it did not come.
    let found = found.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let (reads, writes, elapsed) = conducted?;
    let mut times = Times::new();
    found.iter().for_each(|found| times.add_pairs(&found.times));
    let torn = found.iter().map(|found| found.torn).sum();
    Ok(Outcome { times, reads, writes, elapsed, torn, attempts: control.get(ATTEMPTS) })
}

type Conducted = anyhow::Result<(u64, u64, Duration)>;

/// A process and the pipe through which its findings come.
struct Process(Child, File);

impl Process {
    fn start(task: impl FnOnce() -> anyhow::Result<Found>) -> anyhow::Result<Self> {
        let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let child = Child::fork(move || {
            let found = task().map_err(|error| format!("{error:#}"));
            let _ = File::from(to).write_all(&serde_json::to_vec(&found).unwrap_or_default());
        })?;
        Ok(Self(child, File::from(from)))
    }

    fn found(mut self) -> anyhow::Result<Found> {
        let mut bytes = Vec::new();
        self.1.read_to_end(&mut bytes)?;
        let found: Result<Found, String> = serde_json::from_slice(&bytes).context("a worker ended early")?;
        found.map_err(|error| anyhow!(error))
    }
}

fn processes<M: Mechanism>(
    mechanism: &M,
    control: Control<'_>,
    plan: &Plan,
) -> anyhow::Result<(Conducted, Vec<anyhow::Result<Found>>)> {
    let mut workers = vec![Process::start(|| write(mechanism, control, plan))?];
    let mut is_ready = control.wait(READY, 1);
    for index in 0..plan.readers {
        workers.push(Process::start(|| read(mechanism, control, plan, index))?);
    }
    is_ready = is_ready.and_then(|()| control.wait(READY, plan.readers as u64 + 1));
    let first_reader = &workers[1].0;
    let conducted = is_ready.and_then(|()| {
        control.conduct(plan, |stop| if stop { first_reader.stop() } else { first_reader.go_on() })
    });
    // Whatever happened, nobody stays where it is.
    control.set(HOLD, 0);
    control.set(STATE, END);
    let _ = first_reader.go_on();
    Ok((conducted, workers.into_iter().map(Process::found).collect()))
}

fn threads<M: Mechanism>(
    mechanism: &M,
    control: Control<'_>,
    plan: &Plan,
) -> (Conducted, Vec<anyhow::Result<Found>>) {
    std::thread::scope(|scope| {
        let mut workers = vec![scope.spawn(move || write(mechanism, control, plan))];
        let mut is_ready = control.wait(READY, 1);
        workers.extend(
            (0..plan.readers).map(|index| scope.spawn(move || read(mechanism, control, plan, index))),
        );
        is_ready = is_ready.and_then(|()| control.wait(READY, plan.readers as u64 + 1));
        let conducted = is_ready.and_then(|()| control.conduct(plan, |_| Ok(())));
        control.set(HOLD, 0);
        control.set(STATE, END);
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (conducted, workers.into_iter().map(join).collect())
    })
}
