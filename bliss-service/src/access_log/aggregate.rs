//! Counts log records per dimension and key, and returns at each publication the rows that changed.

mod catching_up;
mod room;
mod saved;
mod table;

use std::net::IpAddr;

use bliss_core::key::KeySecret;
use bliss_core::schema::Schema;

use super::distinct::ValueHash;
use super::features::{ATTRIBUTES, attribute, hit};
use super::parse::Record;
use super::population::Population;
use super::site::SiteHosts;
use super::windows::Hit;
use crate::keys::DimensionKeys;
use bliss_core::build::Change;
use catching_up::CatchingUp;
pub(crate) use saved::{put, take};
use table::{Limits, Table};

/// A record may be ahead of the last publication by this much more than [`AggregateOptions::lateness_ms`].
const EARLY_MS: u64 = 60_000;
/// Records of a backlog that are held before they are counted.
const BACKLOG_RECORDS: usize = 16 * 1024;

/// Limits of an [`Aggregator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateOptions {
    /// How far behind the last publication a record's time may lie and still count, in milliseconds.
    pub lateness_ms: u64,
    /// Keys that one dimension holds at most; for one more, one that was less active is dropped, or it is not taken.
    pub max_keys: usize,
    /// Bytes that the keys of one dimension take at most; then keys that were less active are dropped.
    pub max_bytes: usize,
    /// Whether distinct values are hashed with a key that everybody knows, so that the same log gives the same counts each
    /// time. Not for a log into which clients still write: they could choose values by their hashes.
    pub is_replay: bool,
}

impl Default for AggregateOptions {
    fn default() -> Self {
        Self { lateness_ms: 120_000, max_keys: 200_000, max_bytes: 512 << 20, is_replay: false }
    }
}

/// What an [`Aggregator`] has done with its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AggregateCounters {
    /// Records that count.
    pub records: u64,
    /// Records too far behind the last publication.
    pub late_records: u64,
    /// Records too far ahead of the last publication.
    pub early_records: u64,
    /// Keys dropped or not taken because their dimension was full.
    pub dropped_keys: u64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingested {
    /// It counts.
    Counted,
    /// It is too far behind the last publication.
    Late,
    /// It is too far ahead of the last publication.
    Early,
}

/// Why an access log cannot fill a dimension.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitDimension {
    /// Its rows name networks, and a log has single addresses.
    #[error(
        "dimension `{dimension}`: an access log counts addresses and fills no dimension with match = \"longest_prefix\"; cut the \
         address to a prefix instead: key = [{{ attr = \"ip\", v4_prefix = 24, v6_prefix = 48 }}]"
    )]
    Prefixes {
        /// The dimension.
        dimension: String,
    },
    /// A log line lacks an attribute of its key.
    #[error(
        "dimension `{dimension}`: an access log has no attribute `{attribute}`; it has {}",
        ATTRIBUTES.join(", ")
    )]
    Attribute {
        /// The dimension.
        dimension: String,
        /// The attribute.
        attribute: String,
    },
    /// A feature's name is not a measure and window.
    #[error(
        "dimension `{dimension}`: an access log gives no feature `{feature}`; a feature is named MEASURE_WINDOW or \
         MEASURE_SPAN, for instance requests_1m or asset_share_h7d, and is a number"
    )]
    Feature {
        /// The dimension.
        dimension: String,
        /// The feature.
        feature: String,
    },
}

/// A record to be counted: what it adds, and its key in each dimension.
#[derive(serde::Serialize, serde::Deserialize)]
struct Prepared {
    hit: Hit,
    #[serde(deserialize_with = "saved::keys")]
    keys: Box<[Option<u64>]>,
}

/// Sliding windows over the records of an access log.
///
/// Synchronous and without a clock: the caller passes the time, in milliseconds since the epoch.
pub struct Aggregator {
    options: AggregateOptions,
    values: ValueHash,
    tables: Vec<Table>,
    hosts: SiteHosts,
    /// Hosts of the site that the configuration names.
    site_hosts: Vec<String>,
    population: Population,
    counts_population: bool,
    /// How far back requests count, in milliseconds.
    reach_ms: u64,
    /// Records of the interval that the next publication ends, or of later ones.
    pending: Vec<Prepared>,
    /// The smallest time in `pending`.
    pending_first_ms: Option<u64>,
    /// The last publication; 0 before the first.
    published_ms: u64,
    counters: AggregateCounters,
    /// The latest time of a record that counts.
    newest_ms: u64,
    /// The same when the state was read back; 0: none was.
    restored_ms: u64,
    catching_up: Option<CatchingUp>,
    /// What tells the dimensions and what is counted of them from others.
    fingerprint: u64,
}

impl Aggregator {
    /// An aggregator that fills the dimensions of the valid `schema` at the indices `dimensions`.
    ///
    /// # Errors
    /// [`UnfitDimension`] names a key or a feature that a log does not have.
    pub fn new(
        schema: &Schema,
        dimensions: &[usize],
        secret: &KeySecret,
        options: AggregateOptions,
    ) -> Result<Self, UnfitDimension> {
        let values = if options.is_replay { ValueHash::fixed() } else { ValueHash::of(secret) };
        let seed = values.hash(b"which keys make room");
        let tables = dimensions
            .iter()
            .filter_map(|at| schema.dimensions.get(*at).map(|dimension| (*at, dimension)))
            .map(|(at, dimension)| {
                let limits = Limits { keys: options.max_keys.max(1), bytes: options.max_bytes };
                Table::new(at, dimension, DimensionKeys::new(secret, schema, dimension), seed, limits)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let fingerprint = saved::fingerprint(schema, dimensions, &tables);
        Ok(Self {
            fingerprint,
            newest_ms: 0,
            restored_ms: 0,
            catching_up: None,
            reach_ms: tables.iter().map(|table| table.wanted.reach_ms()).max().unwrap_or(0),
            counts_population: tables.iter().any(|table| table.wanted.staleness || table.wanted.site_ips),
            hosts: SiteHosts::default(),
            site_hosts: schema.site_hosts.clone(),
            population: Population::default(),
            options,
            values,
            tables,
            pending: Vec::new(),
            pending_first_ms: None,
            published_ms: 0,
            counters: AggregateCounters::default(),
        })
    }

    /// Takes a record. It is held back until the publication that may hold it. What a decision of ours answered is in no count.
    pub fn ingest(&mut self, record: &Record<'_>) -> Ingested {
        if record.own_answer {
            return Ingested::Counted;
        }
        self.ingest_within(record, self.options.lateness_ms)
    }

    /// Takes a record from before this aggregator started, for instance of an hour of log that was written before the
    /// daemon started: it counts in every window that still reaches back to it.
    pub fn ingest_backlog(&mut self, record: &Record<'_>) -> Ingested {
        if record.own_answer {
            return Ingested::Counted;
        }
        if let Some(state) = self.catching_up.take() {
            return self.ingest_caught_up(record, state);
        }
        // What is older than every window is no late line.
        if record.time_ms.saturating_add(self.reach_ms) < self.published_ms {
            return Ingested::Late;
        }
        let ingested = self.ingest_within(record, self.reach_ms);
        if self.pending.len() >= BACKLOG_RECORDS {
            self.count_before(self.published_ms);
        }
        ingested
    }

    fn ingest_within(&mut self, record: &Record<'_>, lateness_ms: u64) -> Ingested {
        if record.time_ms.saturating_add(lateness_ms) < self.published_ms {
            self.counters.late_records += 1;
            return Ingested::Late;
        }
        if self.is_ahead(record.time_ms, self.published_ms) {
            self.counters.early_records += 1;
            return Ingested::Early;
        }
        let prepared = self.prepare(record);
        self.hold(prepared);
        Ingested::Counted
    }

    /// Whether a record is too far ahead of a clock, if there is one: before the first publication there is none.
    fn is_ahead(&self, time_ms: u64, clock_ms: u64) -> bool {
        clock_ms > 0 && time_ms > clock_ms.saturating_add(self.options.lateness_ms + EARLY_MS)
    }

    fn prepare(&mut self, record: &Record<'_>) -> Prepared {
        let ip: &[u8] = match &record.ip {
            IpAddr::V4(ip) => &ip.octets(),
            IpAddr::V6(ip) => &ip.octets(),
        };
        let keys = self.tables.iter().map(|table| {
            let names = &table.attributes;
            table.keys.key(|at| attribute(record, ip, names.get(at)?)).ok()
        });
        let is_site = |host: &[u8]| self.hosts.is_site(&self.site_hosts, host);
        let prepared = Prepared { hit: hit(record, ip, &self.values, is_site), keys: keys.collect() };
        self.hosts.learn(record);
        prepared
    }

    /// Holds a record that counts until its publication.
    fn hold(&mut self, record: Prepared) {
        let time_ms = record.hit.time_ms;
        self.counters.records += 1;
        self.newest_ms = self.newest_ms.max(time_ms);
        let first = self.pending_first_ms.get_or_insert(time_ms);
        *first = (*first).min(time_ms);
        self.pending.push(record);
    }

    /// Sets the clock of an aggregator that has not published yet, so that [`Self::ingest_backlog`] knows what is
    /// too old.
    pub fn start(&mut self, now_ms: u64) {
        self.published_ms = self.published_ms.max(now_ms);
    }

    /// Publication `at_ms`: counts every record with a time before it, and returns the rows that changed since the
    /// previous publication. The first one replaces each dimension, including what a previous process left in it.
    ///
    /// `at_ms` never decreases; a smaller one counts as the previous one.
    pub fn tick(&mut self, at_ms: u64) -> Change {
        self.end_catching_up(at_ms);
        let at_ms = at_ms.max(self.published_ms);
        self.published_ms = at_ms;
        self.count_before(at_ms);
        let seconds = u32::try_from(at_ms / 1000).unwrap_or(u32::MAX);
        let Self { tables, population, .. } = self;
        let dimensions = tables.iter_mut().filter_map(|table| table.publish(at_ms, seconds, population));
        let dimensions = dimensions.collect();
        Change { dimensions }
    }

    /// Makes every publication up to `until_ms` that would change something, without its rows.
    fn advance(&mut self, until_ms: u64, interval_ms: u64) {
        let last = until_ms / interval_ms * interval_ms;
        while self.published_ms < last {
            let due = self.due_ms().map(|due| (due / interval_ms + 1) * interval_ms);
            let at_ms = due.map_or(last, |due| due.min(last)).max(self.published_ms);
            self.published_ms = at_ms;
            self.count_before(at_ms);
            self.tables.iter_mut().for_each(|table| table.settle(at_ms, None));
        }
    }

    /// Counts the pending records with a time before `at_ms`, in the order of their times.
    fn count_before(&mut self, at_ms: u64) {
        if self.pending_first_ms.is_none_or(|first| first >= at_ms) {
            return;
        }
        let (mut now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|record| record.hit.time_ms < at_ms);
        now.sort_by_key(|record| record.hit.time_ms);
        self.pending_first_ms = later.iter().map(|record| record.hit.time_ms).min();
        self.pending = later;
        for record in &now {
            if self.counts_population {
                self.population.add(&record.hit, at_ms);
            }
            for (table, key) in self.tables.iter_mut().zip(&record.keys) {
                if let Some(key) = key {
                    let dropped = table.add(*key, record.hit.network, &record.hit, at_ms);
                    self.counters.dropped_keys += dropped;
                }
            }
        }
        if self.counts_population {
            self.population.renew(at_ms);
        }
    }

    /// Forgets every record and the clock, and makes the next [`Self::tick`] replace each dimension; for when the
    /// host's clock was set back.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.pending_first_ms = None;
        self.published_ms = 0;
        (self.newest_ms, self.restored_ms, self.catching_up) = (0, 0, None);
        self.hosts = SiteHosts::default();
        self.population = Population::default();
        self.tables.iter_mut().for_each(Table::clear);
    }

    /// Makes the next [`Self::tick`] replace each dimension whole; for when a publication was lost.
    pub fn restate(&mut self) {
        self.tables.iter_mut().for_each(Table::restate);
    }

    /// The earliest time after which a publication changes a row without a further record. `None` if none will.
    pub fn due_ms(&self) -> Option<u64> {
        let due = self.tables.iter().filter_map(Table::due_ms).min();
        [due, self.pending_first_ms].into_iter().flatten().min()
    }

    /// How far back requests count, in milliseconds: what lies farther back need not be read.
    pub fn reach_ms(&self) -> u64 {
        self.reach_ms
    }

    /// Keys held now, over all dimensions.
    pub fn keys(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// Bytes that the keys take, over all dimensions: an estimate that counts what is allocated for each.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(Table::bytes).sum()
    }

    /// What has been done so far.
    pub fn counters(&self) -> AggregateCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
