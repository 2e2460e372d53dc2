//! `lookup`: the rows of 12 dimensions, 16 features each, for one request after the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::machine::{self, memory};
use crate::measure::{Times, timer_cost};
use crate::peers::Lookup;
use crate::peers::bliss::{Bliss, all_rows, changed_rows, publisher};
use crate::peers::bliss_c::BlissC;
use crate::peers::cloudflare::{self, Cloudflare};
use crate::peers::floor::Floor;
use crate::peers::floor_own::{self, OwnFloor};
use crate::peers::hash_map::Maps;
use crate::peers::lmdb::Lmdb;
use crate::peers::memcached::Memcached;
use crate::peers::redis::Redis;
use crate::report::{Report, Row};
use crate::workload::{DIMENSIONS, Distribution, Requests, WIDTH, Workload, is_row};

/// Name of the benchmark.
const LOOKUP: &str = "lookup";
/// Requests whose addresses are computed before the first of them is timed.
const FLOOR_BATCH: usize = 4096;

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
    /// Loads of known addresses in a file of rows alone.
    Floor,
    /// Loads of known addresses in BLISS's own mapping, measured right after BLISS where that is measured too.
    OwnFloor,
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
        Subject::Bliss, Subject::OwnFloor, Subject::BlissC, Subject::Floor, Subject::MmapSync, Subject::HashMap, Subject::Lmdb,
        Subject::Memcached, Subject::Redis])]
    pub subjects: Vec<Subject>,
    /// Also measure BLISS while a publisher changes 1 % of the rows each second.
    #[arg(long)]
    pub publish: bool,
    /// How long each subject is measured in a round, warming up not included.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// How often all subjects are set up and measured again, one after another. Where the machine's memory is shared, or its
    /// pages are scattered, one round may differ from the next by half. Those that take long to fill are measured once.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
}

impl Subject {
    /// Whether setting it up takes seconds, not minutes.
    fn is_quick(self) -> bool {
        matches!(self, Self::Bliss | Self::BlissC | Self::MmapSync | Self::Floor | Self::OwnFloor)
    }
}

/// What all subjects have in common.
struct Run<'a> {
    options: &'a Options,
    workload: Workload,
    timer: f64,
    found: Vec<Found>,
}

/// What was found of a subject in all rounds so far.
struct Found {
    bench: &'static str,
    subject: &'static str,
    times: Times,
    /// The median of each round.
    medians: Vec<f64>,
    /// The rest of its row, as the last round found it.
    fields: Vec<(&'static str, u64)>,
}

/// Measures all subjects.
///
/// # Errors
/// Where a subject fails or gives a wrong answer.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let workload = Workload::new(options.keys);
    let mut run = Run { options, workload, timer: timer_cost(), found: Vec::new() };
    eprintln!(
        "lookup: {DIMENSIONS} dimensions x {WIDTH} f32, {} keys over all, 90 % of lookups present, {:?}; \
         the timer's {:.0} ns are in each figure",
        run.workload.keys(),
        options.distribution,
        run.timer
    );
    for round in 0..options.rounds.max(1) {
        for subject in options.subjects.iter().filter(|s| round == 0 || s.is_quick()) {
            machine::reset_peak();
            run.measure(*subject, round == 0, report)?;
        }
    }
    for found in &run.found {
        report.add(run.row(found));
    }
    Ok(())
}

impl Run<'_> {
    fn measure(&mut self, subject: Subject, is_first: bool, report: &Report) -> anyhow::Result<()> {
        let directory = machine::directory()?;
        let (directory, workload) = (directory.path(), self.workload);
        let skipped = |subject, why: &str| {
            if is_first {
                report.skipped(LOOKUP, subject, why);
            }
        };
        match subject {
            Subject::Bliss => self.bliss(directory)?,
            Subject::BlissC => {
                // Alive while it is read, as for the Rust crate.
                let mut publisher = publisher(directory)?;
                let bytes = publisher.publish(all_rows(&workload))?.bytes;
                match BlissC::open(directory, bytes) {
                    Ok(mut peer) => self.add("bliss C ABI", &mut peer, self.pages())?,
                    Err(why) => skipped("bliss C ABI", &format!("{why:#}")),
                }
            }
            Subject::MmapSync => match cloudflare::too_large(&workload) {
                Some(why) => skipped("mmap-sync 2.0.4", why),
                None => {
                    let mut peer = Cloudflare::publish(directory, &workload)?;
                    self.add("mmap-sync 2.0.4", &mut peer, self.pages())?;
                }
            },
            Subject::HashMap => self.add("HashMap", &mut Maps::new(&workload), 10_000)?,
            Subject::Lmdb => self.add("lmdb", &mut Lmdb::new(directory, &workload)?, self.pages())?,
            Subject::Memcached => match Memcached::start(directory, &workload)? {
                Some(mut peer) => self.add("memcached", &mut peer, 2_000)?,
                None => skipped("memcached", "it is not installed"),
            },
            Subject::Redis => match Redis::start(directory, &workload)? {
                Some(mut peer) => self.add("redis", &mut peer, 2_000)?,
                None => skipped("redis", "redis-server is not installed"),
            },
            Subject::OwnFloor if self.options.subjects.contains(&Subject::Bliss) => {}
            Subject::OwnFloor => {
                let mut publisher = publisher(directory)?;
                let bytes = publisher.publish(all_rows(&workload))?.bytes;
                self.own_floor(directory, bytes)?;
            }
            Subject::Floor => {
                let mut floor = Floor::new(directory, &workload)?;
                let times = self.floor(&mut floor)?;
                self.keep(LOOKUP, "floor", &times, vec![("bytes", floor.bytes())]);
            }
        }
        Ok(())
    }

    fn bliss(&mut self, directory: &std::path::Path) -> anyhow::Result<()> {
        let mut publisher = publisher(directory)?;
        let bytes = publisher.publish(all_rows(&self.workload))?.bytes;
        machine::reset_peak();
        self.add("bliss", &mut Bliss::open(directory, bytes)?, self.pages())?;
        if self.options.subjects.contains(&Subject::OwnFloor) {
            self.own_floor(directory, bytes)?;
        }
        if self.options.publish {
            self.while_publishing(directory, bytes, publisher)?;
        }
        Ok(())
    }

    /// Requests after which nearly all pages of a mapping were touched once.
    fn pages(&self) -> u64 {
        (self.workload.keys() / 20).max(10_000)
    }

    fn row(&self, found: &Found) -> Row {
        let row = Row::new(found.bench, found.subject)
            .with("keys", self.workload.keys())
            .with("distribution", format!("{:?}", self.options.distribution).to_lowercase())
            .with_times(&found.times)
            .with("timer_cost_ns", self.timer)
            .with("round_p50_ns", found.medians.clone());
        found.fields.iter().fold(row, |row, (name, value)| row.with(name, *value))
    }

    /// Puts the times of a round to those of the rounds before.
    fn keep(
        &mut self,
        bench: &'static str,
        subject: &'static str,
        times: &Times,
        fields: Vec<(&'static str, u64)>,
    ) {
        let index = self.found.iter().position(|found| (found.bench, found.subject) == (bench, subject));
        let index = index.unwrap_or_else(|| {
            self.found.push(Found {
                bench,
                subject,
                times: Times::new(),
                medians: Vec::new(),
                fields: Vec::new(),
            });
            self.found.len() - 1
        });
        let median = times.percentiles().p50;
        eprintln!("  {bench}: {subject}: p50 {median:.0} ns");
        if let Some(found) = self.found.get_mut(index) {
            found.times.merge(times);
            found.medians.push(median.round());
            found.fields = fields;
        }
    }

    fn add(&mut self, name: &'static str, peer: &mut impl Lookup, warm: u64) -> anyhow::Result<()> {
        let times = self.times(peer, warm)?;
        self.keep(LOOKUP, name, &times, vec![("bytes", peer.bytes()), ("resident_bytes", memory().now)]);
        Ok(())
    }

    /// Each request is made, looked up against the clock, and checked.
    fn times(&self, peer: &mut impl Lookup, warm: u64) -> anyhow::Result<Times> {
        let mut requests = Requests::new(&self.workload, self.options.distribution, 1)?;
        for _ in 0..warm {
            let request = requests.next_request();
            anyhow::ensure!(peer.look_up(&request.keys), "a lookup failed");
            request.check(peer.values(), peer.present())?;
        }
        let mut times = Times::new();
        let end = Instant::now() + Duration::from_secs_f64(self.options.seconds);
        loop {
            let request = requests.next_request();
            let start = Instant::now();
            let done = peer.look_up(&request.keys);
            let stop = Instant::now();
            times.add(stop - start);
            anyhow::ensure!(done, "a lookup failed");
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
            let vector = floor.look_up(&addresses);
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

    fn own_floor(&mut self, directory: &std::path::Path, bytes: u64) -> anyhow::Result<()> {
        let reader = floor_own::open(directory)?;
        let guard = reader.pin()?;
        let mut floor = OwnFloor::new(&guard)?;
        let mut requests = Requests::new(&self.workload, self.options.distribution, 1)?;
        let mut batch = Vec::with_capacity(FLOOR_BATCH);
        let mut times = Times::new();
        let mut warm = self.pages();
        let mut end = Instant::now();
        loop {
            batch.clear();
            for _ in 0..FLOOR_BATCH {
                let request = requests.next_request();
                batch.push((request, floor.lines(&request.keys)?));
            }
            for (request, lines) in &batch {
                let start = Instant::now();
                std::hint::black_box(floor.load(lines));
                let stop = Instant::now();
                for (dimension, row) in floor.values().as_chunks::<WIDTH>().0.iter().enumerate() {
                    let is_absent = request.present >> dimension & 1 == 0;
                    anyhow::ensure!(
                        is_absent || is_row(request.keys[dimension], row),
                        "the floor read a wrong row"
                    );
                }
                if warm > 0 {
                    warm -= 1;
                    end = stop + Duration::from_secs_f64(self.options.seconds);
                    continue;
                }
                times.add(stop - start);
                if stop >= end {
                    let fields = vec![("bytes", bytes), ("huge_page_bytes", machine::huge_page_bytes())];
                    self.keep(LOOKUP, "floor (own mapping)", &times, fields);
                    return Ok(());
                }
            }
        }
    }

    /// The same while another thread publishes 1 % of the rows again each second.
    fn while_publishing(
        &mut self,
        directory: &std::path::Path,
        bytes: u64,
        mut publisher: bliss_store::Publisher,
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
        self.keep("lookup_publishing", "bliss", &times, vec![("bytes", bytes), ("publications", made)]);
        Ok(())
    }
}
