//! Writes of small and of large values, and updates of a large one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cloudflare_mmap_sync::synchronizer::Synchronizer as Cloudflare;
use mmap_sync::Options as SyncOptions;
use mmap_sync::synchronizer::Synchronizer;

use super::{BATCH, BLISS, CRATE, GRACE, HelloWorld, messages, rkyv_07_value};
use crate::machine;
use crate::measure::batches;
use crate::report::{Report, Row};

/// Numbers of a row of the values that are written.
const WIDTH: usize = 16;

pub(super) fn write_small(duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    let directory = machine::directory()?;
    let ours = directory.path().join("ours");
    let theirs = directory.path().join("theirs");
    let mut wrong = 0_u64;

    let value = HelloWorld { version: 7, messages: messages() };
    let mut writer = Synchronizer::new(&ours);
    let times = batches(duration, BATCH, || wrong += u64::from(writer.write(&value, GRACE).is_err()));
    report.add(Row::new("write_small", BLISS).with_times(&times));

    let value = rkyv_07_value::HelloWorld { version: 7, messages: messages() };
    let mut writer: Cloudflare = Cloudflare::new(theirs.as_os_str());
    let times = batches(duration, BATCH, || wrong += u64::from(writer.write(&value, GRACE).is_err()));
    report.add(Row::new("write_small", CRATE).with_times(&times));

    ensure!(wrong == 0, "{wrong} failed");
    ensure!(Synchronizer::new(&ours).read::<HelloWorld>()?.version == 7, "a wrong answer");
    Ok(())
}

/// `1mb`, `100mb`, `1gb`, or the number of bytes.
fn size_name(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. if bytes.is_multiple_of(1_000_000_000) => format!("{}gb", bytes / 1_000_000_000),
        1_000_000.. if bytes.is_multiple_of(1_000_000) => format!("{}mb", bytes / 1_000_000),
        _ => format!("{bytes}b"),
    }
}

fn seconds_row(bench: &str, subject: &str, bytes: u64, mut seconds: Vec<f64>, cpu_seconds: f64) -> Row {
    let first = seconds.first().copied().unwrap_or(f64::NAN);
    seconds.sort_by(f64::total_cmp);
    let at = |index: usize| seconds.get(index).copied().unwrap_or(f64::NAN);
    Row::new(bench, subject)
        .with("seconds", at(seconds.len() / 2))
        .with("first_seconds", first)
        .with("min_seconds", at(0))
        .with("max_seconds", at(seconds.len() - 1))
        .with("cpu_seconds", cpu_seconds / seconds.len().max(1) as f64)
        .with("count", seconds.len())
        .with("value_bytes", bytes)
}

/// Who writes large values.
trait Large {
    /// Publishes the numbers as a `Vec<f32>`.
    #[expect(clippy::ptr_arg, reason = "what is serialised is a Vec")]
    fn typed(&mut self, value: &Vec<f32>) -> anyhow::Result<()>;
    /// Publishes their bytes as they are.
    fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()>;
    /// Whether a reader sees these numbers, at the indexes that are looked at.
    fn is_there(&mut self, value: &[f32], typed: bool) -> anyhow::Result<bool>;
}

struct Ours(mmap_sync::Writer, mmap_sync::Reader);

impl Large for Ours {
    fn typed(&mut self, value: &Vec<f32>) -> anyhow::Result<()> {
        self.0.write(value)?;
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write_bytes(bytes)?;
        Ok(())
    }

    fn is_there(&mut self, value: &[f32], typed: bool) -> anyhow::Result<bool> {
        let guard = self.1.pin()?;
        let middle = value.len() / 2;
        if typed {
            let found = guard.access::<Vec<f32>>()?;
            return Ok(found.len() == value.len() && found[middle].to_native() == value[middle]);
        }
        let found = guard.bytes().as_chunks::<4>().0;
        Ok(found.len() == value.len() && f32::from_le_bytes(found[middle]) == value[middle])
    }
}

struct Theirs(Cloudflare, Cloudflare);

impl Large for Theirs {
    fn typed(&mut self, value: &Vec<f32>) -> anyhow::Result<()> {
        self.0.write(value, GRACE)?;
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write_raw::<Vec<f32>>(bytes, GRACE)?;
        Ok(())
    }

    fn is_there(&mut self, value: &[f32], typed: bool) -> anyhow::Result<bool> {
        if typed {
            // SAFETY:
            // - nobody writes while the guard is alive; the bytes are the archive that this process wrote.
            let found = unsafe { self.1.read::<Vec<f32>>(false) }?;
            let middle = value.len() / 2;
            return Ok(found.len() == value.len() && found[middle] == value[middle]);
        }
        // SAFETY:
        // - as above; the root of an archive comes last, so these are the last bytes, which are numbers.
        let found = unsafe { self.1.read::<[f32; 4]>(false) }?;
        Ok(value.ends_with(&*found))
    }
}

fn ours(prefix: &Path) -> anyhow::Result<Ours> {
    let options = SyncOptions::new(prefix).grace(GRACE);
    Ok(Ours(options.open_writer()?, options.open_reader()?))
}

fn theirs(prefix: &Path) -> Theirs {
    Theirs(Cloudflare::new(prefix.as_os_str()), Cloudflare::new(prefix.as_os_str()))
}

/// The bytes of numbers.
fn bytes_of(numbers: &[f32]) -> &[u8] {
    // SAFETY:
    // - the same memory, for as long; an `f32` has no padding, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// The number at an index of a value in its `version`th state.
fn number(index: usize, version: usize) -> f32 {
    ((index & 0xffff) + version) as f32
}

/// A `Vec<f32>` through the typed interface of both, and its bytes through the raw one. The first two writes of each
/// go to fresh files.
pub(super) fn write_large(bytes: u64, report: &mut Report) -> anyhow::Result<()> {
    let rounds = if bytes >= 500_000_000 { 5 } else { 11 };
    let len = usize::try_from(bytes)? / 4;
    let mut value: Vec<f32> = (0..len).map(|i| number(i, 0)).collect();
    for typed in [true, false] {
        let bench = format!("write_{}{}", if typed { "" } else { "raw_" }, size_name(bytes));
        for subject in [BLISS, CRATE] {
            machine::reset_peak();
            let directory = machine::directory()?;
            let prefix = directory.path().join("value");
            let mut writer: Box<dyn Large> =
                if subject == BLISS { Box::new(ours(&prefix)?) } else { Box::new(theirs(&prefix)) };
            let (mut seconds, mut cpu) = (Vec::new(), 0.0);
            for round in 0..rounds {
                for index in [len / 2, len - 1] {
                    value[index] = number(index, round);
                }
                let (start, before) = (Instant::now(), machine::cpu_seconds());
                if typed {
                    writer.typed(&value)?
                } else {
                    writer.raw(bytes_of(&value))?
                }
                seconds.push(start.elapsed().as_secs_f64());
                cpu += machine::cpu_seconds() - before;
                ensure!(writer.is_there(&value, typed)?, "{bench}: {subject}: a wrong answer");
            }
            report.add(seconds_row(&bench, subject, bytes, seconds, cpu));
        }
    }
    Ok(())
}

/// The rows that change in a round: 1 in 100, side by side or spread over all.
fn changed(rows: usize, round: usize, scattered: bool) -> impl Iterator<Item = usize> {
    let count = (rows / 100).max(1);
    (0..count)
        .map(move |i| if scattered { (i * 100 + round * 37) % rows } else { (round * count + i) % rows })
}

/// 1 % of a value changed, in rows of 64 bytes. What is new is at hand as a list of rows before the time is taken.
pub(super) fn update(bytes: u64, report: &mut Report) -> anyhow::Result<()> {
    const ROUNDS: usize = 9;
    const AHEAD: usize = 12;
    let rows = usize::try_from(bytes)? / (4 * WIDTH);
    let len = rows * WIDTH;
    let delta = |round: usize, scattered: bool| -> Vec<(usize, [f32; WIDTH])> {
        let new = |row| (row, std::array::from_fn(|i| number(row * WIDTH + i, round)));
        changed(rows, round, scattered).map(new).collect()
    };
    let change = |value: &mut [f32], delta: &[(usize, [f32; WIDTH])]| {
        delta.iter().for_each(|(row, new)| value[row * WIDTH..][..WIDTH].copy_from_slice(new));
    };
    let range = |row: usize| row * 4 * WIDTH..(row + 1) * 4 * WIDTH;
    for scattered in [false, true] {
        let shape = if scattered { "scattered" } else { "contiguous" };
        let bench = format!("update_1pct_{shape}_{}", size_name(bytes));
        let mut value: Vec<f32> = (0..len).map(|i| number(i, 0)).collect();

        machine::reset_peak();
        let directory = machine::directory()?;
        let mut both = ours(&directory.path().join("value"))?;
        both.raw(bytes_of(&value))?;
        both.raw(bytes_of(&value))?;
        let (mut seconds, mut cpu) = (Vec::new(), 0.0);
        let mut last = Vec::new();
        for round in 1..=ROUNDS {
            let now = delta(round, scattered);
            change(&mut value, &now);
            let (start, before) = (Instant::now(), machine::cpu_seconds());
            let mut standby = both.0.standby(len as u64 * 4)?;
            ensure!(standby.held_len() == len as u64 * 4, "the standby copy holds nothing");
            let mut edit = standby.edit();
            // The copy lacks what the round before changed, too.
            for delta in [&last, &now] {
                for (i, (row, new)) in delta.iter().enumerate() {
                    delta.get(i + AHEAD).into_iter().for_each(|(row, _)| edit.ask_ahead(range(*row)));
                    edit.change(range(*row), |bytes| bytes.copy_from_slice(bytes_of(new)));
                }
            }
            standby.publish()?;
            seconds.push(start.elapsed().as_secs_f64());
            cpu += machine::cpu_seconds() - before;
            ensure!(
                *both.1.pin()? == *bytes_of(&value),
                "{bench}: round {round}: the copy is not what it should be"
            );
            last = now;
        }
        report.add(seconds_row(&bench, BLISS, bytes, seconds, cpu));
        drop(both);

        for typed in [true, false] {
            let directory = machine::directory()?;
            let mut both = theirs(&directory.path().join("value"));
            let (mut seconds, mut cpu) = (Vec::new(), 0.0);
            // Over what the files hold, as above: the first two go to fresh files.
            for round in 0..ROUNDS + 2 {
                change(&mut value, &delta(round, scattered));
                let (start, before) = (Instant::now(), machine::cpu_seconds());
                if typed {
                    both.typed(&value)?
                } else {
                    both.raw(bytes_of(&value))?
                }
                if round >= 2 {
                    seconds.push(start.elapsed().as_secs_f64());
                    cpu += machine::cpu_seconds() - before;
                }
                ensure!(both.is_there(&value, typed)?, "{bench}: {CRATE}: a wrong answer");
            }
            let subject = if typed { CRATE } else { "mmap-sync 2.0.4 (write_raw)" };
            report.add(seconds_row(&bench, subject, bytes, seconds, cpu));
        }
    }
    Ok(())
}
