//! `fetch`: the rows of 12 dimensions, 16 features each, for one request after the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::machine::{self, memory};
use crate::measure::{Times, timer_cost};
use crate::peers::Fetch;
use crate::peers::bliss::{Bliss, all_rows, changed_rows, publisher};
use crate::peers::bliss_c::BlissC;
use crate::peers::cloudflare::{self, Cloudflare};
use crate::peers::floor::Floor;
use crate::peers::hash_map::Maps;
use crate::peers::lmdb::Lmdb;
use crate::peers::memcached::Memcached;
use crate::peers::redis::Redis;
use crate::report::{Report, Row};
use crate::workload::{DIMENSIONS, Distribution, Requests, WIDTH, Workload, is_row};

/// Who can be measured; the ratios of the table are against the first that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// BLISS through its Rust crate.
    Bliss,
    /// BLISS through its C library.
    BlissC,
    /// The published crate `mmap-sync` 2.0.4 with maps archived by rkyv.
    MmapSync,
    /// memcached over a Unix socket.
    Memcached,
    /// Redis over a Unix socket.
    Redis,
    /// LMDB through `heed`.
    Lmdb,
    /// The standard library's maps in this process.
    HashMap,
    /// Loads of known addresses.
    Floor,
}

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rows over all dimensions.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// Which rows are asked for.
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub distribution: Distribution,
    /// Who is measured, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [
        Subject::Bliss, Subject::BlissC, Subject::Floor, Subject::MmapSync, Subject::HashMap, Subject::Lmdb, Subject::Memcached,
        Subject::Redis])]
    pub subjects: Vec<Subject>,
    /// Also measure BLISS while a publisher changes 1 % of the rows each second.
    #[arg(long)]
    pub publish: bool,
    /// How long each subject is measured, warming up not included.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// What all subjects have in common.
struct Run<'a> {
    options: &'a Options,
    workload: Workload,
    timer: f64,
}

/// Measures all subjects.
///
/// # Errors
/// Where a subject fails or gives a wrong answer.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let run = Run { options, workload: Workload::new(options.keys), timer: timer_cost() };
    eprintln!(
        "fetch: {DIMENSIONS} dimensions x {WIDTH} f32, {} keys over all, 90 % of look-ups present, {:?}; \
         the timer's {:.0} ns are in each figure",
        run.workload.keys(),
        options.distribution,
        run.timer
    );
    for subject in &options.subjects {
        machine::reset_peak();
        run.measure(*subject, report)?;
    }
    Ok(())
}

impl Run<'_> {
    fn measure(&self, subject: Subject, report: &mut Report) -> anyhow::Result<()> {
        let directory = machine::directory()?;
        let (directory, workload) = (directory.path(), &self.workload);
        match subject {
            Subject::Bliss => self.bliss(directory, report)?,
            Subject::BlissC => self.bliss_c(directory, report)?,
            Subject::MmapSync => match cloudflare::too_large(workload) {
                Some(why) => report.skipped("fetch", "mmap-sync 2.0.4", why),
                None => {
                    let mut peer = Cloudflare::publish(directory, workload)?;
                    self.add("mmap-sync 2.0.4", &mut peer, self.pages(), report)?;
                }
            },
            Subject::HashMap => self.add("HashMap", &mut Maps::new(workload), 10_000, report)?,
            Subject::Lmdb => self.add("lmdb", &mut Lmdb::new(directory, workload)?, self.pages(), report)?,
            Subject::Memcached => match Memcached::start(directory, workload)? {
                Some(mut peer) => self.add("memcached", &mut peer, 2_000, report)?,
                None => report.skipped("fetch", "memcached", "it is not installed"),
            },
            Subject::Redis => match Redis::start(directory, workload)? {
                Some(mut peer) => self.add("redis", &mut peer, 2_000, report)?,
                None => report.skipped("fetch", "redis", "redis-server is not installed"),
            },
            Subject::Floor => {
                let mut floor = Floor::new(directory, workload)?;
                let times = self.floor(&mut floor)?;
                report.add(self.row("fetch", "floor", &times, floor.bytes()));
            }
        }
        Ok(())
    }

    fn bliss(&self, directory: &std::path::Path, report: &mut Report) -> anyhow::Result<()> {
        let mut publisher = publisher(directory)?;
        let bytes = publisher.publish(all_rows(&self.workload))?.bytes;
        machine::reset_peak();
        self.add("bliss", &mut Bliss::open(directory, bytes)?, self.pages(), report)?;
        if self.options.publish {
            self.while_publishing(directory, bytes, publisher, report)?;
        }
        Ok(())
    }

    fn bliss_c(&self, directory: &std::path::Path, report: &mut Report) -> anyhow::Result<()> {
        let mut publisher = publisher(directory)?;
        let bytes = publisher.publish(all_rows(&self.workload))?.bytes;
        machine::reset_peak();
        match BlissC::open(directory, bytes) {
            Ok(mut peer) => self.add("bliss C ABI", &mut peer, self.pages(), report),
            Err(why) => {
                report.skipped("fetch", "bliss C ABI", &format!("{why:#}"));
                Ok(())
            }
        }
    }

    /// Requests after which nearly all pages of a mapping were touched once.
    fn pages(&self) -> u64 {
        (self.workload.keys() / 20).max(10_000)
    }

    fn row(&self, bench: &str, subject: &str, times: &Times, bytes: u64) -> Row {
        Row::new(bench, subject)
            .with("keys", self.workload.keys())
            .with("distribution", format!("{:?}", self.options.distribution).to_lowercase())
            .with_times(&times.percentiles())
            .with("bytes", bytes)
            .with("timer_cost_ns", self.timer)
    }

    fn add(&self, name: &str, peer: &mut impl Fetch, warm: u64, report: &mut Report) -> anyhow::Result<()> {
        let times = self.times(peer, warm)?;
        report.add(self.row("fetch", name, &times, peer.bytes()).with("resident_bytes", memory().now));
        Ok(())
    }

    /// Each request is made, looked up against the clock, and checked.
    fn times(&self, peer: &mut impl Fetch, warm: u64) -> anyhow::Result<Times> {
        let mut requests = Requests::new(&self.workload, self.options.distribution, 1)?;
        for _ in 0..warm {
            let request = requests.next_request();
            anyhow::ensure!(peer.fetch(&request.keys), "a look-up failed");
            request.check(peer.values(), peer.present())?;
        }
        let mut times = Times::new();
        let end = Instant::now() + Duration::from_secs_f64(self.options.seconds);
        loop {
            let request = requests.next_request();
            let start = Instant::now();
            let done = peer.fetch(&request.keys);
            let stop = Instant::now();
            times.add(stop - start);
            anyhow::ensure!(done, "a look-up failed");
            request.check(peer.values(), peer.present())?;
            if stop >= end {
                return Ok(times);
            }
        }
    }

    fn floor(&self, floor: &mut Floor) -> anyhow::Result<Times> {
        let mut requests = Requests::new(&self.workload, self.options.distribution, 1)?;
        let mut times = Times::new();
        let mut warm = self.pages();
        let mut end = Instant::now();
        loop {
            let request = requests.next_request();
            let addresses = floor.addresses(&request.rows)?;
            let start = Instant::now();
            let vector = floor.fetch(&addresses);
            let stop = Instant::now();
            for (dimension, row) in vector.as_chunks::<WIDTH>().0.iter().enumerate() {
                let key = crate::workload::key(dimension, request.rows[dimension]);
                anyhow::ensure!(is_row(key, row), "the floor read a wrong row");
            }
            if warm > 0 {
                warm -= 1;
                end = stop + Duration::from_secs_f64(self.options.seconds);
                continue;
            }
            times.add(stop - start);
            if stop >= end {
                return Ok(times);
            }
        }
    }

    /// The same while another thread publishes 1 % of the rows anew each second.
    fn while_publishing(
        &self,
        directory: &std::path::Path,
        bytes: u64,
        mut publisher: bliss_store::Publisher,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (stop, publications) = (AtomicBool::new(false), AtomicU64::new(0));
        let count = self.workload.keys() / 100;
        let times = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| -> anyhow::Result<()> {
                let mut due = Instant::now();
                for round in 1.. {
                    let change = changed_rows(&self.workload, count, round);
                    while Instant::now() < due {
                        if stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    due += Duration::from_secs(1);
                    publisher.publish(change)?;
                    publications.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            // Two publications first, so that both copies are mapped and known.
            while publications.load(Ordering::Relaxed) < 2 && !publishing.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let measured =
                Bliss::open(directory, bytes).and_then(|mut peer| self.times(&mut peer, self.pages()));
            stop.store(true, Ordering::Relaxed);
            publishing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(measured)
        })?;
        let made = publications.into_inner();
        report.add(self.row("fetch_publishing", "bliss", &times, bytes).with("publications", made));
        Ok(())
    }
}
