//! `ipc`: messages to another process and back, by each of the ways that the source post compares.
//!
//! The post ("Every request, every microsecond", 2023) sent a million messages of 1,024 bytes there and back with `ipc-bench`;
//! its averages are in the rows (`post_us`) where the size is the same. Each answer is checked: it is the message with its
//! first byte one higher. A batch of messages is timed as a whole, each sent after the answer to the one before; the figures
//! are per message. Processes that share memory wait in a loop, which gives the core away now and then.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::{EventfdFlags, eventfd};

use crate::machine;
use crate::measure::Times;
use crate::process::{Child, Shared};
use crate::report::{Report, Row};

/// Message size of the post.
const POST_BYTES: usize = 1024;
/// What the post found, in microseconds per round trip.
const POST: [(&str, f64); 8] = [
    ("memory-mapped file", 0.503),
    ("POSIX shared memory", 0.598),
    ("message queue", 4.396),
    ("pipe", 4.733),
    ("FIFO", 5.432),
    ("Unix socket", 5.609),
    ("TCP loopback", 8.74),
    ("eventfd", 9.456),
];

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of messages. An eventfd carries eight bytes always.
    #[arg(long, value_delimiter = ',', default_values_t = [1, POST_BYTES])]
    pub bytes: Vec<usize>,
    /// Messages that are timed together.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000])]
    pub batches: Vec<u32>,
    /// How long each way is measured, after a tenth of that to warm up.
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// One end of a way between two processes.
trait End {
    fn send(&mut self, message: &[u8]) -> std::io::Result<()>;
    fn receive(&mut self, message: &mut [u8]) -> std::io::Result<()>;
}

/// Bytes in, bytes out.
struct Stream<R, W>(R, W);

impl<R: Read, W: Write> End for Stream<R, W> {
    fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.1.write_all(message)
    }

    fn receive(&mut self, message: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact(message)
    }
}

/// A counter for each direction; the first byte of a message is what is counted.
struct Events(OwnedFd, OwnedFd);

impl End for Events {
    fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        // 0 would wake nobody.
        let number = u64::from(message[0]) + 1;
        rustix::io::write(&self.1, &number.to_ne_bytes())?;
        Ok(())
    }

    fn receive(&mut self, message: &mut [u8]) -> std::io::Result<()> {
        let mut number = [0; 8];
        rustix::io::read(&self.0, &mut number)?;
        message[0] = (u64::from_ne_bytes(number) - 1) as u8;
        Ok(())
    }
}

/// A POSIX message queue for each direction.
struct Queues(OwnedFd, OwnedFd);

impl End for Queues {
    fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        // SAFETY:
        // - an open queue, and bytes that are as long as is said.
        let sent = unsafe { libc::mq_send(self.1.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    fn receive(&mut self, message: &mut [u8]) -> std::io::Result<()> {
        let at = message.as_mut_ptr().cast();
        // SAFETY:
        // - an open queue, whose messages are no longer than these bytes.
        let len = unsafe { libc::mq_receive(self.0.as_raw_fd(), at, message.len(), std::ptr::null_mut()) };
        if len >= 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

/// Opens a queue for single messages and takes its name away.
fn queue(direction: &str, bytes: usize) -> std::io::Result<OwnedFd> {
    let name = std::ffi::CString::new(format!("/bliss-bench-{}-{direction}-{bytes}", std::process::id()))?;
    // SAFETY:
    // - zeros are attributes; the name ends in a zero byte; a descriptor that is not negative is open and nobody else's.
    unsafe {
        let mut attributes: libc::mq_attr = std::mem::zeroed();
        attributes.mq_maxmsg = 1;
        attributes.mq_msgsize = bytes as libc::c_long;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        let queue = libc::mq_open(name.as_ptr(), flags, 0o600 as libc::mode_t, &raw mut attributes);
        if queue < 0 {
            return Err(std::io::Error::last_os_error());
        }
        libc::mq_unlink(name.as_ptr());
        Ok(OwnedFd::from_raw_fd(queue))
    }
}

/// Shared words: a number of the last message for each direction, each on a line of its own, then the messages.
struct Words<'a> {
    words: &'a [AtomicU64],
    /// Of the direction in which this end sends, and of the other.
    sends: usize,
    receives: usize,
    sent: u64,
    received: u64,
}

/// Words of each direction's number.
const LINE: usize = 8;

impl<'a> Words<'a> {
    fn ends(words: &'a [AtomicU64]) -> (Self, Self) {
        let end = |sends, receives| Self { words, sends, receives, sent: 0, received: 0 };
        (end(0, 1), end(1, 0))
    }

    fn len(bytes: usize) -> usize {
        2 * (LINE + bytes.div_ceil(8).next_multiple_of(LINE))
    }

    fn direction(&self, direction: usize) -> (&AtomicU64, &[AtomicU64]) {
        let (first, second) = self.words.split_at(self.words.len() / 2);
        let half = if direction == 0 { first } else { second };
        (&half[0], &half[LINE..])
    }
}

impl End for Words<'_> {
    fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.sent += 1;
        let (number, words) = self.direction(self.sends);
        for (word, bytes) in words.iter().zip(message.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        }
        // Release: pairs with the acquire below, so that who sees the number sees the message.
        number.store(self.sent, Ordering::Release);
        Ok(())
    }

    fn receive(&mut self, message: &mut [u8]) -> std::io::Result<()> {
        self.received += 1;
        let (number, words) = self.direction(self.receives);
        let mut turns = 0_u32;
        while number.load(Ordering::Acquire) != self.received {
            turns += 1;
            if turns.is_multiple_of(2000) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        for (bytes, word) in message.chunks_mut(8).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..bytes.len()]);
        }
        Ok(())
    }
}

/// Measures all ways.
///
/// # Errors
/// Where one fails or a wrong answer comes back.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for bytes in options.bytes.iter().map(|bytes| (*bytes).max(1)) {
        let mut run = Run { options, bytes, report };
        let words = Words::len(bytes);
        let file =
            Shared::in_file(&tempfile::tempfile().context("a file in the temporary directory")?, words)?;
        let (ours, theirs) = Words::ends(file.words());
        run.way("memory-mapped file", ours, theirs)?;
        let shared = Shared::posix(words)?;
        let (ours, theirs) = Words::ends(shared.words());
        run.way("POSIX shared memory", ours, theirs)?;

        let (ours, theirs) = UnixStream::pair()?;
        run.way("Unix socket", both(&ours)?, both(&theirs)?)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        let (theirs, _) = listener.accept()?;
        ours.set_nodelay(true)?;
        theirs.set_nodelay(true)?;
        run.way("TCP loopback", Stream(ours.try_clone()?, ours), Stream(theirs.try_clone()?, theirs))?;

        let (there, back) = (rustix::pipe::pipe()?, rustix::pipe::pipe()?);
        let ours = Stream(File::from(back.0), File::from(there.1));
        run.way("pipe", ours, Stream(File::from(there.0), File::from(back.1)))?;

        let directory = machine::directory()?;
        let fifo = |name: &str| -> anyhow::Result<(File, File)> {
            let path = directory.path().join(name);
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
            // Opened for both, so that no end waits for the other.
            let end = || File::options().read(true).write(true).open(&path);
            Ok((end()?, end()?))
        };
        let (there, back) = (fifo("there")?, fifo("back")?);
        run.way("FIFO", Stream(back.0, there.1), Stream(there.0, back.1))?;

        match (queue("there", bytes), queue("back", bytes)) {
            (Ok(there), Ok(back)) => {
                let ours = Queues(back.try_clone()?, there.try_clone()?);
                run.way("message queue", ours, Queues(there, back))?;
            }
            (Err(why), _) | (_, Err(why)) => {
                run.report.skipped("ipc", "message queue", &format!("mq_open: {why}"));
            }
        }
        let (there, back) = (eventfd(0, EventfdFlags::CLOEXEC)?, eventfd(0, EventfdFlags::CLOEXEC)?);
        run.way("eventfd", Events(back.try_clone()?, there.try_clone()?), Events(there, back))?;
    }
    Ok(())
}

fn both(stream: &UnixStream) -> std::io::Result<Stream<UnixStream, UnixStream>> {
    Ok(Stream(stream.try_clone()?, stream.try_clone()?))
}

struct Run<'a> {
    options: &'a Options,
    bytes: usize,
    report: &'a mut Report,
}

impl Run<'_> {
    fn way(&mut self, name: &str, mut ours: impl End, mut theirs: impl End) -> anyhow::Result<()> {
        let mut message = vec![0_u8; self.bytes];
        let mut answer = vec![0_u8; self.bytes];
        let mut held = vec![0_u8; self.bytes];
        let _child = Child::fork(move || {
            while theirs.receive(&mut held).is_ok() {
                held[0] = held[0].wrapping_add(1);
                if theirs.send(&held).is_err() {
                    break;
                }
            }
        })?;
        for batch in &self.options.batches {
            let mut times = Times::new();
            let (mut messages, mut wrong) = (0_u64, 0_u64);
            let duration = Duration::from_secs_f64(self.options.seconds);
            let begin = Instant::now() + duration / 10;
            let end = begin + duration;
            loop {
                let start = Instant::now();
                for _ in 0..(*batch).max(1) {
                    message[0] = message[0].wrapping_add(1);
                    ours.send(&message)?;
                    ours.receive(&mut answer)?;
                    wrong += u64::from(answer[0] != message[0].wrapping_add(1));
                }
                let stop = Instant::now();
                ensure!(wrong == 0, "{name}: a wrong answer");
                if start >= begin {
                    times.add_ns((stop - start).as_nanos() as f64 / f64::from((*batch).max(1)));
                    messages += u64::from((*batch).max(1));
                }
                if stop >= end {
                    let bench = format!("ipc_{}b_{batch}", self.bytes);
                    let per_second = messages as f64 / (stop - begin).as_secs_f64();
                    let row =
                        Row::new(&bench, name).with_times(&times).with("per_second", per_second.round());
                    let post = POST.iter().find(|(way, _)| *way == name && self.bytes == POST_BYTES);
                    self.report.add(post.into_iter().fold(row, |row, (_, us)| row.with("post_us", *us)));
                    break;
                }
            }
        }
        Ok(())
    }
}
