//! A writer and readers in processes of their own, and everything that an administrator, a scheduler or a crash may do to them.
//!
//! Payloads carry a number that only rises (the time), their length, and bytes that follow from both: a reader knows of each read whether it
//! is whole and not older than the one before, whichever files it is from.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use mmap_sync::{Error, Guard, Reader, Writer};

use crate::{Outcome, fill, is_filled, options};

/// Readers at a time.
const READERS: usize = 5;

/// Without a value for so many milliseconds, while it runs, a reader or a writer has failed.
const PATIENCE: u32 = 10_000;

/// A writer starts with values of this size; they differ by up to a quarter.
const BYTES: u64 = 20_000;

const FILES: [&str; 4] = ["x_state", "x_data_0", "x_data_1", "x_readers"];

/// Random numbers that can be had again from the seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or(0)
    }
}

/// Nanoseconds that rise from one writer to the next.
fn now() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0))
}

/// The number of a payload that is whole.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let number = u64::from_le_bytes(*number);
    (u64::from_le_bytes(*length) == bytes.len() as u64 && is_filled(rest, number)).then_some(number)
}

/// Publishes one payload; returns whether a fresh file was needed.
fn publish(writer: &mut Writer, number: u64, bytes: u64) -> Result<bool, Error> {
    let mut standby = writer.standby(bytes)?;
    if let Some((head, rest)) = standby.bytes_mut().split_first_chunk_mut::<16>() {
        let words = u128::from(number) | u128::from(bytes) << 64;
        *head = words.to_le_bytes();
        fill(rest, number);
    }
    Ok(standby.publish()?.reset)
}

/// Publishes without pause until it is killed.
pub(crate) fn write(prefix: &str) -> Outcome {
    println!("started");
    let mut failures = 0;
    let mut fails = |error: Error| {
        failures += 1;
        std::thread::sleep(Duration::from_millis(1));
        if failures > PATIENCE { Err(error) } else { Ok(()) }
    };
    let mut writer = loop {
        match options(prefix).open_writer() {
            Ok(writer) => break writer,
            Err(error) => fails(error)?,
        }
    };
    let mut number = 0;
    loop {
        number = now().max(number + 1);
        let result = publish(&mut writer, number, BYTES - number % (BYTES / 4));
        if let Err(error) = result {
            fails(error)?;
        } else if number % 64 == 0 {
            writer.heartbeat();
        }
    }
}

/// Reads without pause until it is killed, and writes how often, and how often it was wrong, into its record.
pub(crate) fn read(prefix: &str, records: &str, index: u64) -> Outcome {
    println!("started");
    let records = File::options().write(true).open(records)?;
    let mut random = Random(index);
    let (mut reads, mut wrong, mut last, mut failures) = (0_u64, 0_u64, 0_u64, 0_u32);
    loop {
        let reader = options(prefix).open_reader();
        let mut held: VecDeque<(u64, Guard<'_>)> = VecDeque::new();
        // A handle of its own each time.
        for _ in 0..random.below(20_000) {
            let pinned = reader.as_ref().map_err(Clone::clone).and_then(Reader::pin);
            let guard = match pinned {
                Ok(guard) => guard,
                Err(error) => {
                    failures += 1;
                    if failures > PATIENCE {
                        return Err(error.into());
                    }
                    // A guard keeps a handle from moving to files that were made again.
                    held.clear();
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
            };
            (failures, reads) = (0, reads + 1);
            match number_of(&guard) {
                Some(number) if number >= last => last = number,
                found => {
                    wrong += 1;
                    eprintln!("reader {index}: generation {}: {found:?} after {last}", guard.generation());
                }
            }
            if reads % 256 == 0 || wrong > 0 {
                records
                    .write_all_at(&(u128::from(reads) | u128::from(wrong) << 64).to_le_bytes(), index * 16)?;
            }
            // Now and then a guard is held while the writer goes on.
            if random.below(50) == 0 {
                held.push_back((last, guard));
            }
            if (held.len() > 3 || random.below(100) == 0)
                && let Some((number, guard)) = held.pop_front()
                && number_of(&guard) != Some(number)
            {
                wrong += 1;
                eprintln!("reader {index}: a guard on {number} shows something else");
            }
            if random.below(200) == 0 {
                let _ = reader.as_ref().map(Reader::maintain);
            }
        }
    }
}

/// How a process is started.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Plain,
    /// Without `membarrier`, by option.
    Fences,
    /// `membarrier` is refused by the kernel.
    Refused,
    /// In a PID namespace of its own.
    Namespace,
}

/// A writer or reader.
struct Process {
    child: Child,
    how: How,
    stopped_until: Option<Instant>,
}

impl Process {
    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        if pid > 0 {
            // SAFETY:
            // - no memory is passed; the child was not waited for, so the pid is its.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Kills it, and waits until nobody of it is left; an error if it ended by itself.
    fn kill(&mut self) -> io::Result<()> {
        let mut output = self.child.stdout.take();
        if self.how == How::Namespace
            && let Some(output) = &mut output
        {
            // `unshare` must have said that its child shall die with it.
            output.read_exact(&mut [0])?;
        }
        let ended = self.child.try_wait()?;
        self.child.kill()?;
        self.child.wait()?;
        // What is in another namespace dies a moment after the process that made it.
        if let Some(output) = &mut output {
            output.read_to_end(&mut Vec::new())?;
        }
        match ended {
            Some(status) => Err(io::Error::other(format!("a process ended by itself: {status}"))),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was done.
#[derive(Default, Debug)]
struct Done {
    readers_killed: u64,
    writers_killed: u64,
    stopped: u64,
    files_removed: u64,
    directories_replaced: u64,
    most_files: usize,
}

struct Chaos {
    random: Random,
    /// The directory of the publication, in which there is a prefix `x`.
    run: PathBuf,
    records: PathBuf,
    program: PathBuf,
    namespaces: bool,
    started: u64,
    done: Done,
}

/// Does everything for so long, in a new directory in `parent`.
pub(crate) fn chaos(parent: &str, seconds: f64, seed: u64) -> Outcome {
    let parent = Path::new(parent);
    let probe = Command::new("unshare").args(["-p", "-f", "true"]).stderr(Stdio::null()).status();
    let mut chaos = Chaos {
        random: Random(seed),
        run: parent.join("run"),
        records: parent.join("records"),
        program: std::env::current_exe()?,
        namespaces: probe.is_ok_and(|status| status.success()),
        started: 0,
        done: Done::default(),
    };
    if !chaos.namespaces {
        println!("SKIPPED: PID namespaces need root and `unshare`");
    }
    File::create(&chaos.records)?;
    make_directory(&chaos.run)?;
    let start = Instant::now();
    let mut writer = chaos.start_writer()?;
    let mut readers = (0..READERS).map(|_| chaos.start_reader()).collect::<io::Result<Vec<_>>>()?;
    while start.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(Duration::from_micros(chaos.random.below(8000)));
        for process in readers.iter_mut().chain([&mut writer]) {
            if process.stopped_until.is_some_and(|until| until < Instant::now()) {
                process.stopped_until = None;
                process.signal(libc::SIGCONT);
            }
        }
        let victim = chaos.random.index(READERS);
        match chaos.random.below(100) {
            0..45 => {
                let new = chaos.start_reader()?;
                if let Some(reader) = readers.get_mut(victim) {
                    std::mem::replace(reader, new).kill()?;
                    chaos.done.readers_killed += 1;
                }
            }
            45..75 => {
                // One writer at a time: the next one is started when this one is gone.
                writer.kill()?;
                chaos.done.writers_killed += 1;
                chaos.pause(500);
                writer = chaos.start_writer()?;
            }
            75..85 => {
                let stopped = readers.get_mut(victim);
                chaos.stop(stopped);
            }
            85..89 => chaos.stop(Some(&mut writer)),
            89..98 => chaos.remove_files()?,
            98 => chaos.replace_directory()?,
            _ => chaos.done.most_files = chaos.done.most_files.max(fs::read_dir(&chaos.run)?.count()),
        }
    }
    writer.kill()?;
    for reader in &mut readers {
        reader.kill()?;
    }
    chaos.settle()?;
    chaos.report(start)
}

impl Chaos {
    fn start(&mut self, arguments: &[&str]) -> io::Result<Process> {
        let how = match self.random.below(8) {
            0 => How::Fences,
            1 => How::Refused,
            2 if self.namespaces => How::Namespace,
            _ => How::Plain,
        };
        let mut command = if how == How::Namespace {
            let mut command = Command::new("unshare");
            command.args(["-p", "-f", "--kill-child"]).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        match how {
            How::Fences => _ = command.env("MMAP_SYNC_FENCES", "1"),
            How::Refused => _ = command.env("MMAP_SYNC_REFUSED", "1"),
            How::Namespace | How::Plain => {}
        }
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        Ok(Process { child, how, stopped_until: None })
    }

    fn start_writer(&mut self) -> io::Result<Process> {
        let prefix = self.prefix();
        self.start(&["chaos-write", &prefix])
    }

    fn start_reader(&mut self) -> io::Result<Process> {
        let (prefix, records) = (self.prefix(), self.records.to_string_lossy().into_owned());
        self.started += 1;
        let index = (self.started - 1).to_string();
        self.start(&["chaos-read", &prefix, &records, &index])
    }

    fn prefix(&self) -> String {
        self.run.join("x").to_string_lossy().into_owned()
    }

    fn pause(&mut self, microseconds: u64) {
        std::thread::sleep(Duration::from_micros(self.random.below(microseconds)));
    }

    fn stop(&mut self, process: Option<&mut Process>) {
        // Of another namespace only the process that made it would be stopped.
        let Some(process) = process.filter(|process| process.how != How::Namespace) else { return };
        process.signal(libc::SIGSTOP);
        process.stopped_until = Some(Instant::now() + Duration::from_millis(self.random.below(100)));
        self.done.stopped += 1;
    }

    /// Removes some files, or moves them away. Never the lock alone: that is for one writer at a time.
    fn remove_files(&mut self) -> io::Result<()> {
        let set = self.random.below(16);
        for (at, name) in FILES.iter().enumerate() {
            let from = self.run.join(name);
            if set & 1 << at == 0 {
                continue;
            }
            let result = if self.random.below(2) == 0 {
                fs::remove_file(from)
            } else {
                fs::rename(from, self.run.with_file_name("moved"))
            };
            match result {
                Ok(()) => self.done.files_removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn replace_directory(&mut self) -> io::Result<()> {
        let gone = self.run.with_file_name("gone");
        let _ = fs::remove_dir_all(&gone);
        fs::rename(&self.run, &gone)?;
        self.pause(2000);
        self.done.directories_replaced += 1;
        make_directory(&self.run)
    }

    /// Nothing is left of all that: no file that was put aside, and no slot that cannot be taken.
    fn settle(&self) -> Outcome {
        let prefix = self.prefix();
        let mut writer = options(&prefix).open_writer()?;
        for _ in 0..3 {
            publish(&mut writer, now(), BYTES)?;
            writer.heartbeat();
        }
        let reader = options(&prefix).open_reader()?;
        let whole = number_of(&reader.pin()?).is_some();
        let mut names = Vec::new();
        let mut bytes = 0;
        for entry in fs::read_dir(&self.run)? {
            let entry = entry?;
            bytes += entry.metadata()?.blocks() * 512;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let clean = ["x_data_0", "x_data_1", "x_lock", "x_readers", "x_state"];
        if !whole || names != clean || writer.retired_files() != 0 || bytes > 4 * BYTES + 400_000 {
            return Err(format!(
                "left behind: {names:?}, {bytes} bytes, {} files put aside, whole: {whole}",
                writer.retired_files()
            )
            .into());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, start: Instant) -> Outcome {
        let records = fs::read(&self.records)?;
        let (mut reads, mut wrong) = (0, 0);
        for record in records.chunks_exact(8).collect::<Vec<_>>().chunks_exact(2) {
            let word = |at: usize| {
                let bytes = record.get(at).and_then(|bytes| <[u8; 8]>::try_from(*bytes).ok());
                bytes.map_or(0, u64::from_le_bytes)
            };
            reads += word(0);
            wrong += word(1);
        }
        let Done { readers_killed, writers_killed, stopped, files_removed, directories_replaced, most_files } =
            self.done;
        println!(
            "{:.0} s, reads {reads} wrong {wrong}: {writers_killed} writers and {readers_killed} readers killed, {stopped} \
             stopped, {files_removed} files removed or moved, {directories_replaced} directories replaced; at most \
             {most_files} files at a time",
            start.elapsed().as_secs_f64()
        );
        Ok(if wrong == 0 && reads > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)
}
