//! `publish`: all rows, or a change of some of them, published by BLISS and by the published crate.
//!
//! What is timed begins when the rows are at hand in the publisher's own form (columns for BLISS, hash maps for the
//! crate) and ends when readers can see them. Afterwards a reader looks rows up and checks them.

use std::time::Instant;

use cloudflare_mmap_sync::synchronizer::Synchronizer;

use crate::machine::{self, memory};
use crate::peers::bliss::{all_rows, changed_rows, publisher};
use crate::peers::cloudflare;
use crate::report::{Report, Row};
use crate::workload::{DIMENSIONS, NOW, WIDTH, Workload, is_row, key, values};

/// Who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// BLISS.
    Bliss,
    /// The published crate `mmap-sync` 2.0.4, which writes everything each time.
    MmapSync,
}

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rows over all dimensions.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// Who is measured, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Subject::Bliss, Subject::MmapSync])]
    pub subjects: Vec<Subject>,
    /// How often BLISS publishes each change; the crate does it once for each.
    #[arg(long, default_value_t = 11)]
    pub rounds: u64,
}

/// A change by the name of its benchmark, and how many rows of `keys` it has.
fn changes(keys: u64) -> [(&'static str, u64); 3] {
    [("publish_1pct", (keys / 100).max(1)), ("publish_0.1pct", (keys / 1000).max(1)), ("publish_one", 1)]
}

/// Measures all subjects.
///
/// # Errors
/// Where a subject fails, or a reader does not see what was published.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let workload = Workload::new(options.keys);
    eprintln!("publish: {DIMENSIONS} dimensions x {WIDTH} f32, {} keys over all", workload.keys());
    for subject in &options.subjects {
        machine::reset_peak();
        match subject {
            Subject::Bliss => bliss(&workload, options.rounds, report)?,
            Subject::MmapSync => match cloudflare::too_large(&workload) {
                Some(why) => report.skipped("publish", "mmap-sync 2.0.4", why),
                None => crate_2_0_4(&workload, report)?,
            },
        }
    }
    Ok(())
}

/// Publications of all rows.
const ALL_ROUNDS: usize = 5;

/// Times of publications of one kind.
struct Found {
    seconds: Vec<f64>,
    cpu_seconds: f64,
    /// Of what was published.
    bytes: u64,
    /// The most memory that the process had.
    peak: u64,
    /// By how much that is more than it had before, the change and what was mapped of both copies included.
    growth: u64,
}

/// A publication about to be timed.
struct Begun {
    start: Instant,
    cpu_seconds: f64,
    resident: u64,
}

impl Begun {
    fn now() -> Self {
        machine::reset_peak();
        let resident = memory().now;
        Self { cpu_seconds: machine::cpu_seconds(), start: Instant::now(), resident }
    }
}

impl Found {
    fn new() -> Self {
        Self { seconds: Vec::new(), cpu_seconds: 0.0, bytes: 0, peak: 0, growth: 0 }
    }

    fn add(&mut self, begun: &Begun, bytes: u64) {
        self.seconds.push(begun.start.elapsed().as_secs_f64());
        self.cpu_seconds += machine::cpu_seconds() - begun.cpu_seconds;
        self.bytes = bytes;
        let peak = memory().peak;
        self.peak = self.peak.max(peak);
        self.growth = self.growth.max(peak.saturating_sub(begun.resident));
    }

    fn row(mut self, bench: &str, subject: &str, keys: u64, changed: u64) -> Row {
        self.seconds.sort_by(f64::total_cmp);
        let at = |index: usize| self.seconds.get(index).copied().unwrap_or(f64::NAN);
        Row::new(bench, subject)
            .with("keys", keys)
            .with("rows_changed", changed)
            .with("seconds", at(self.seconds.len() / 2))
            .with("min_seconds", at(0))
            .with("max_seconds", at(self.seconds.len() - 1))
            .with("cpu_seconds", self.cpu_seconds / self.seconds.len().max(1) as f64)
            .with("count", self.seconds.len())
            .with("bytes", self.bytes)
            .with("peak_bytes", self.peak)
            .with("growth_bytes", self.growth)
    }
}

fn bliss(workload: &Workload, rounds: u64, report: &mut Report) -> anyhow::Result<()> {
    let directory = machine::directory()?;
    let mut publisher = publisher(directory.path())?;
    let keys = workload.keys();
    let mut client = bliss_store::Client::open(directory.path())?;
    let mut see = |wanted: &[(usize, u64, u32)]| -> anyhow::Result<()> {
        for (dimension, key, version) in wanted {
            let mut request = [1; DIMENSIONS];
            request[*dimension] = *key;
            let (found, _) =
                client.look_up_keys(&request, NOW).map_err(|reason| anyhow::anyhow!("{reason}"))?;
            anyhow::ensure!(
                found[dimension * WIDTH..][..WIDTH] == values(*key, *version),
                "row {key:x} of dimension {dimension} is not there in version {version}"
            );
        }
        Ok(())
    };

    // Twice into fresh files, then over what they hold.
    let mut found = Found::new();
    for _ in 0..ALL_ROUNDS {
        let change = all_rows(workload);
        let begun = Begun::now();
        let published = publisher.publish(change)?;
        found.add(&begun, published.bytes);
        let some: Vec<_> = workload.changed(1000, 0).map(|(d, key)| (d, key, 0)).collect();
        see(&some)?;
    }
    let first = found.seconds[0];
    report.add(found.row("publish_all", "bliss", keys, keys).with("first_seconds", first));

    let mut round = 0;
    for (bench, count) in changes(keys) {
        let mut found = Found::new();
        let mut made = std::collections::BTreeMap::<String, u64>::new();
        // The first two still bring the copies up to date with what was published before.
        for repeat in 0..rounds + 2 {
            round += 1;
            let change = changed_rows(workload, count, round);
            let some: Vec<_> =
                workload.changed(count, round).take(1000).map(|(d, key)| (d, key, round as u32)).collect();
            let begun = Begun::now();
            let published = publisher.publish(change)?;
            if repeat >= 2 {
                found.add(&begun, published.bytes);
                *made.entry(format!("{:?}", published.method)).or_default() += 1;
            }
            see(&some)?;
        }
        let made = made.iter().map(|(how, n)| format!("{how} {n}")).collect::<Vec<_>>().join(", ");
        report.add(found.row(bench, "bliss", keys, count).with("made", made));
    }
    Ok(())
}

fn crate_2_0_4(workload: &Workload, report: &mut Report) -> anyhow::Result<()> {
    const NAME: &str = "mmap-sync 2.0.4";
    let directory = machine::directory()?;
    let prefix = directory.path().join("features");
    let keys = workload.keys();
    let mut features = cloudflare::all_rows(workload);
    let mut writer: Synchronizer = Synchronizer::new(prefix.as_os_str());
    let mut reader: Synchronizer = Synchronizer::new(prefix.as_os_str());

    let mut found = Found::new();
    for _ in 0..ALL_ROUNDS {
        let begun = Begun::now();
        let (bytes, _) = writer.write(&features, cloudflare::GRACE)?;
        found.add(&begun, bytes as u64);
    }
    let first = found.seconds[0];
    report.add(found.row("publish_all", NAME, keys, keys).with("first_seconds", first));

    for (round, (bench, count)) in (1..).zip(changes(keys)) {
        let mut found = Found::new();
        let begun = Begun::now();
        for (dimension, key) in workload.changed(count, round) {
            features[dimension].insert(key, values(key, round as u32).to_vec());
        }
        let (bytes, _) = writer.write(&features, cloudflare::GRACE)?;
        found.add(&begun, bytes as u64);
        // SAFETY:
        // - nobody writes while the guard is alive.
        // - the bytes are the archive that this process wrote.
        let read = unsafe { reader.read::<cloudflare::Features>(false) }?;
        for (dimension, key) in workload.changed(count, round).take(1000) {
            let row = read[dimension].get(&key);
            anyhow::ensure!(
                row.is_some_and(|row| row[0] == round as f32 && is_row(key, row)),
                "row {key:x} of dimension {dimension} is not there"
            );
        }
        anyhow::ensure!(read[0].get(&key(0, 1 << 40)).is_none(), "a row that was never stored");
        drop(read);
        report.add(found.row(bench, NAME, keys, count));
    }
    Ok(())
}
