//! `prefixes`: the longest of a million networks that an address is in, by BLISS and by three libraries.
//!
//! `prefixes_v4` and `prefixes_v6` are lookups. Each address depends on the answer before, so that a lookup begins when the last
//! has ended; percentiles are of averages over 16. `single_p99_ns` is of lookups that are timed alone, the timer's
//! time included. `prefixes_build` is the time from networks in no order to what is looked up, and the memory of that: bytes of the
//! publication or file, for the others what the process grew by.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::machine::{self, memory};
use crate::measure::{Times, batches, timer_cost};
use crate::report::{Report, Row};

pub mod mmdb;
pub mod networks;
pub mod subjects;

use self::networks::Networks;
use self::subjects::{MaxMind, Subject, Table, TableAlone, Trie};

/// Lookups that are timed together.
const BATCH: u32 = 16;

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Networks, of which a fifth is of IPv6.
    #[arg(long, default_value_t = 1_000_000)]
    pub prefixes: usize,
    /// Different numbers that they stand for, below 2^24.
    #[arg(long, default_value_t = 80_000)]
    pub values: u32,
    /// Addresses that are looked up in turn.
    #[arg(long, default_value_t = 1_000_000)]
    pub lookups: usize,
    /// How long each subject is measured.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

/// What all subjects look up.
struct Run<'a> {
    options: &'a Options,
    networks: Networks,
    addresses: [(&'static str, Vec<IpAddr>); 2],
    /// What BLISS answers.
    answers: [Vec<u32>; 2],
}

/// Measures all subjects.
///
/// # Errors
/// Where a subject cannot be built or answers otherwise than BLISS.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    ensure!(
        (1..1 << 24).contains(&options.values),
        "expected 1 to 2^24 - 1 values, found {}",
        options.values
    );
    ensure!(options.prefixes >= 10 && options.lookups > 0, "expected at least 10 prefixes and a lookup");
    let networks = Networks::new(options.prefixes, options.values);
    let addresses = [
        ("prefixes_v4", networks.addresses_v4(options.lookups)),
        ("prefixes_v6", networks.addresses_v6(options.lookups)),
    ];
    eprintln!(
        "prefixes: {} networks of IPv4 and {} of IPv6 with {} values, nine of ten addresses in one; the timer's {:.0} ns are in \
         the figures of single lookups",
        networks.v4.len(),
        networks.v6.len(),
        options.values,
        timer_cost()
    );
    let mut run = Run { options, networks, addresses, answers: [vec![], vec![]] };

    let built = run.build(
        report,
        "bliss",
        |run| subjects::bliss(&run.networks),
        |built, _| built.bytes().len() as u64,
    )?;
    let bliss = built.open().context("what was built")?;
    run.answers = [0, 1].map(|of| run.addresses[of].1.iter().map(|address| bliss.find(*address)).collect());
    run.measure(report, "bliss", &bliss, true)?;
    run.measure(report, "bliss (table alone)", &TableAlone(bliss.table()), false)?;
    drop(built);

    let values = options.values;
    let (max_mind, _) = run.build(
        report,
        "maxminddb",
        |run| MaxMind::new(&run.networks, values),
        |(_, bytes), _| *bytes as u64,
    )?;
    run.measure(report, "maxminddb", &max_mind, true)?;
    drop(max_mind);

    let table = run.build(report, "ip_network_table", |run| Table::new(&run.networks), |_, grown| grown)?;
    run.measure(report, "ip_network_table", &table, true)?;
    drop(table);

    let trie = run.build(report, "prefix-trie", |run| Ok(Trie::new(&run.networks)), |_, grown| grown)?;
    run.measure(report, "prefix-trie", &trie, true)
}

impl Run<'_> {
    /// Builds a subject; `bytes` tells its memory, given what the process grew by.
    fn build<T>(
        &self,
        report: &mut Report,
        subject: &str,
        build: impl FnOnce(&Self) -> anyhow::Result<T>,
        bytes: impl FnOnce(&T, u64) -> u64,
    ) -> anyhow::Result<T> {
        machine::reset_peak();
        let before = memory();
        let start = Instant::now();
        let built = build(self).with_context(|| format!("building {subject}"))?;
        let seconds = start.elapsed().as_secs_f64();
        // What is freed meanwhile is not counted.
        let peak = memory().peak.saturating_sub(before.now);
        machine::reset_peak();
        let grown = memory().private.saturating_sub(before.private);
        let count = self.networks.len() as f64;
        report.add(
            Row::new("prefixes_build", subject)
                .with("prefixes", self.networks.len())
                .with("ns_per_prefix", (seconds * 1e10 / count).round() / 10.0)
                .with("prefixes_per_second", (count / seconds).round())
                .with("bytes", bytes(&built, grown))
                .with("peak_bytes", peak),
        );
        Ok(built)
    }

    fn measure<S: Subject>(
        &self,
        report: &mut Report,
        name: &str,
        subject: &S,
        is_compared: bool,
    ) -> anyhow::Result<()> {
        for ((bench, addresses), answers) in self.addresses.iter().zip(&self.answers) {
            if is_compared {
                for (address, expected) in addresses.iter().zip(answers) {
                    let found = subject.find(*address);
                    ensure!(found == *expected, "{name}: {address}: found {found}, BLISS {expected}");
                }
            }
            let duration = Duration::from_secs_f64(self.options.seconds);
            // The compiler cannot know that this is no dependency.
            let nothing = black_box(0_usize);
            let mut at = 0;
            let mut step = || {
                let found = subject.find(addresses[at]);
                at = (at + 1 + (found as usize & nothing)) % addresses.len();
            };
            batches(duration / 4, BATCH, &mut step);
            let times = batches(duration, BATCH, &mut step);
            let mut single = Times::new();
            for address in addresses {
                let start = Instant::now();
                black_box(subject.find(black_box(*address)));
                single.add(start.elapsed());
            }
            let single = single.percentiles();
            let hits = answers.iter().filter(|answer| **answer != u32::MAX).count();
            report.add(
                Row::new(bench, name)
                    .with("prefixes", self.networks.len())
                    .with("hits_percent", (hits * 100 / answers.len()) as u64)
                    .with("single_p50_ns", single.p50)
                    .with("single_p99_ns", single.p99)
                    .with_times(&times),
            );
        }
        Ok(())
    }
}
