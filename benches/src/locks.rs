//! `locks`: one writer and its readers, by each of the ways that the source post compares.
//!
//! The writer sets all words of a value to the next number; a read copies them all and is checked. Both run without pause, or
//! the writer sleeps between writes: one that never does leaves a seqlock's readers hardly a moment. Each is a process that
//! shares memory with the others, but for `arc-swap`, whose pointers mean nothing in another process: there they are threads.
//!
//! `locks_stopped` is the same while one reader stands still in the middle of its read: by `SIGSTOP`, or, where it is a thread,
//! by holding its guard. Does the writer go on? Do other readers? What becomes of the stopped read? Reads that waited for the
//! stopped reader are in the times.

use std::time::Duration;

use anyhow::ensure;

use crate::report::{Report, Row};

mod mechanisms;
mod workers;

use self::mechanisms::{Locked, Mechanism, Mutex, RwLock, SeqLock, SpinLock, Swap, WaitFree, Workers};
use self::workers::{Plan, run as run_workers};

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How many readers there are beside the writer.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    pub readers: Vec<usize>,
    /// How long the writer sleeps after each write, in microseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100])]
    pub pauses_us: Vec<u64>,
    /// Size of the value.
    #[arg(long, default_value_t = 1024)]
    pub bytes: usize,
    /// How long each is measured, after a tenth of that to warm up.
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// Measures all ways.
///
/// # Errors
/// Where one fails, or a read finds a torn value.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let words = options.bytes.div_ceil(8).max(2);
    each(options, report, &WaitFree::new()?)?;
    each(options, report, &Locked::<Mutex>::new(words)?)?;
    each(options, report, &Locked::<RwLock<false>>::new(words)?)?;
    each(options, report, &Locked::<RwLock<true>>::new(words)?)?;
    each(options, report, &Locked::<SpinLock>::new(words)?)?;
    each(options, report, &SeqLock::new(words)?)?;
    each(options, report, &Swap::new(words))
}

fn each<M: Mechanism>(options: &Options, report: &mut Report, mechanism: &M) -> anyhow::Result<()> {
    let duration = Duration::from_secs_f64(options.seconds);
    let plan = |readers: usize, pause_us: u64, is_stopped| Plan {
        readers,
        words: options.bytes.div_ceil(8).max(2),
        pause: Duration::from_micros(pause_us),
        warm_up: duration / 10,
        duration,
        is_stopped,
    };
    for pause_us in &options.pauses_us {
        for readers in &options.readers {
            let bench = match pause_us {
                0 => format!("locks_{readers}r"),
                us => format!("locks_{readers}r_pause_{us}us"),
            };
            measure(&bench, mechanism, &plan((*readers).max(1), *pause_us, false), report)?;
        }
    }
    let most = |numbers: &mut dyn Iterator<Item = u64>| numbers.max().unwrap_or(0);
    let readers = options.readers.iter().copied().max().unwrap_or(0).max(2);
    let pause = most(&mut options.pauses_us.iter().copied());
    measure("locks_stopped", mechanism, &plan(readers, pause, true), report)
}

fn measure<M: Mechanism>(bench: &str, mechanism: &M, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let found = run_workers(mechanism, plan)?;
    ensure!(found.torn == 0, "{bench}: {}: {} torn reads", M::NAME, found.torn);
    let per_second = |count: u64| (count as f64 / found.elapsed.as_secs_f64()).round();
    let workers = match M::WORKERS {
        Workers::Processes => "processes",
        Workers::Threads => "threads",
    };
    let row = Row::new(bench, M::NAME)
        .with("readers", plan.readers)
        .with("workers", workers)
        .with("value_bytes", plan.words * 8)
        .with_times(&found.times)
        .with("per_second", per_second(found.reads))
        .with("writes_per_second", per_second(found.writes))
        .with("torn_reads", found.torn);
    report.add(if plan.is_stopped {
        row.with("writer", if found.writes == 0 { "waits" } else { "goes on" })
            .with("other_readers", if found.reads == 0 { "wait" } else { "go on" })
            .with("stopped", if found.attempts == 1 { "goes on" } else { "reads again" })
    } else {
        row
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::mechanisms::Nothing;
    use super::*;
    use crate::process::Shared;

    const WORDS: usize = 128;

    fn plan(is_stopped: bool) -> Plan {
        Plan {
            readers: 2,
            words: WORDS,
            pause: Duration::from_micros(20),
            warm_up: Duration::from_millis(20),
            duration: Duration::from_millis(200),
            is_stopped,
        }
    }

    /// Two readers, then one of them stopped: whether the writer and the other reader go on, and the attempts of the stopped.
    fn found<M: Mechanism>(mechanism: &M) -> (bool, bool, u64) {
        let found = run_workers(mechanism, &plan(false)).unwrap();
        assert!(found.torn == 0 && found.reads > 0, "{}: {found:?}", M::NAME);
        let found = run_workers(mechanism, &plan(true)).unwrap();
        assert_eq!(found.torn, 0, "{}", M::NAME);
        (found.writes > 0, found.reads > 0, found.attempts)
    }

    // One test, so that the ways do not wait for each other's cores.
    #[test]
    fn no_way_tears_a_value_and_locks_stall_behind_a_stopped_reader() {
        assert_eq!(found(&WaitFree::new().unwrap()), (true, true, 1));
        assert_eq!(found(&Locked::<Mutex>::new(WORDS).unwrap()), (false, false, 1));
        assert_eq!(found(&Locked::<RwLock<false>>::new(WORDS).unwrap()), (false, true, 1));
        if cfg!(target_env = "gnu") {
            assert_eq!(found(&Locked::<RwLock<true>>::new(WORDS).unwrap()), (false, false, 1));
        }
        assert_eq!(found(&Locked::<SpinLock>::new(WORDS).unwrap()), (false, false, 1));
        let (writer, readers, attempts) = found(&SeqLock::new(WORDS).unwrap());
        assert!(writer && readers && attempts > 1);
        assert_eq!(found(&Swap::new(WORDS)), (true, true, 1));

        let nothing = Nothing(Shared::posix(WORDS).unwrap());
        assert!(run_workers(&nothing, &plan(true)).unwrap().torn > 0, "a torn value is noticed");
    }
}
