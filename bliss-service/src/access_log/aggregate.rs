//! Counts log records per dimension and key, and returns at each publication the rows that changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use bliss_core::key::KeySecret;
use bliss_core::schema::{Dimension, Schema};

use super::features::{ATTRIBUTES, Column, attribute, distinct_wanted, hit};
use super::parse::Record;
use super::windows::{DistinctWanted, Hit, LONGEST_MS, Ring, Totals, WINDOWS};
use crate::keys::DimensionKeys;
use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange};

/// A record may be ahead of the last publication by this much more than [`AggregateOptions::lateness_ms`].
const EARLY_MS: u64 = 60_000;
/// Records of a backlog that are held before they are counted.
const BACKLOG_RECORDS: usize = 16 * 1024;

/// Limits of an [`Aggregator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateOptions {
    /// How far behind the last publication a record's time may lie and still count, in milliseconds.
    pub lateness_ms: u64,
    /// Keys that one dimension holds at most; for one more, one that was not seen recently is dropped.
    pub max_keys: usize,
}

impl Default for AggregateOptions {
    fn default() -> Self {
        Self { lateness_ms: 120_000, max_keys: 200_000 }
    }
}

/// What an [`Aggregator`] has done with its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregateCounters {
    /// Records that count.
    pub records: u64,
    /// Records too far behind the last publication.
    pub late_records: u64,
    /// Records too far ahead of the last publication.
    pub early_records: u64,
    /// Keys dropped because their dimension was full.
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
        "dimension `{dimension}`: an access log gives no feature `{feature}`; a feature is named MEASURE_WINDOW, \
         for instance requests_1m, and is a number"
    )]
    Feature {
        /// The dimension.
        dimension: String,
        /// The feature.
        feature: String,
    },
}

/// A record to be counted: what it adds, and its key in each dimension.
struct Prepared {
    hit: Hit,
    keys: Box<[Option<u64>]>,
}

/// Sliding windows over the records of an access log.
///
/// Synchronous and without a clock: the caller passes the time, in milliseconds since the epoch.
pub struct Aggregator {
    options: AggregateOptions,
    tables: Vec<Table>,
    /// Records of the interval that the next publication ends, or of later ones.
    pending: Vec<Prepared>,
    /// The smallest time in `pending`.
    pending_first_ms: Option<u64>,
    /// The last publication; 0 before the first.
    published_ms: u64,
    counters: AggregateCounters,
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
        let tables = dimensions
            .iter()
            .filter_map(|at| schema.dimensions.get(*at).map(|dimension| (*at, dimension)))
            .map(|(at, dimension)| Table::new(at, dimension, DimensionKeys::new(secret, schema, dimension)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            options,
            tables,
            pending: Vec::new(),
            pending_first_ms: None,
            published_ms: 0,
            counters: AggregateCounters::default(),
        })
    }

    /// Takes a record. It is held back until the publication that may hold it.
    pub fn ingest(&mut self, record: &Record<'_>) -> Ingested {
        self.ingest_within(record, self.options.lateness_ms)
    }

    /// Takes a record from before this aggregator started, for instance of an hour of log that was written before the
    /// daemon started: it counts in every window that still reaches back to it.
    pub fn ingest_backlog(&mut self, record: &Record<'_>) -> Ingested {
        // What is older than every window is no late line.
        if record.time_ms.saturating_add(LONGEST_MS) < self.published_ms {
            return Ingested::Late;
        }
        let ingested = self.ingest_within(record, LONGEST_MS);
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
        // Before the first publication there is no clock to be ahead of.
        if self.published_ms > 0
            && record.time_ms > self.published_ms.saturating_add(self.options.lateness_ms + EARLY_MS)
        {
            self.counters.early_records += 1;
            return Ingested::Early;
        }
        self.counters.records += 1;
        let ip: &[u8] = match &record.ip {
            IpAddr::V4(ip) => &ip.octets(),
            IpAddr::V6(ip) => &ip.octets(),
        };
        let keys = self.tables.iter().map(|table| {
            let names = &table.attributes;
            table.keys.key(|at| attribute(record, ip, names.get(at)?)).ok()
        });
        let prepared = Prepared { hit: hit(record, ip), keys: keys.collect() };
        let first = self.pending_first_ms.get_or_insert(record.time_ms);
        *first = (*first).min(record.time_ms);
        self.pending.push(prepared);
        Ingested::Counted
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
        let at_ms = at_ms.max(self.published_ms);
        self.published_ms = at_ms;
        self.count_before(at_ms);
        let seconds = u32::try_from(at_ms / 1000).unwrap_or(u32::MAX);
        let dimensions = self.tables.iter_mut().filter_map(|table| table.publish(at_ms, seconds)).collect();
        Change { dimensions }
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
            for (table, key) in self.tables.iter_mut().zip(&record.keys) {
                if let Some(key) = key {
                    let dropped = table.add(*key, &record.hit, at_ms, self.options.max_keys);
                    self.counters.dropped_keys += u64::from(dropped);
                }
            }
        }
    }

    /// Forgets every record and the clock, and makes the next [`Self::tick`] replace each dimension; for when the
    /// host's clock was set back.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.pending_first_ms = None;
        self.published_ms = 0;
        self.tables.iter_mut().for_each(Table::clear);
    }

    /// Makes the next [`Self::tick`] replace each dimension whole; for when a publication was lost.
    pub fn restate(&mut self) {
        self.tables.iter_mut().for_each(|table| table.whole = true);
    }

    /// The earliest time after which a publication changes a row without a further record. `None` if none will.
    pub fn due_ms(&self) -> Option<u64> {
        let due =
            self.tables.iter().filter_map(|table| table.due.first_key_value().map(|(due, _)| *due)).min();
        [due, self.pending_first_ms].into_iter().flatten().min()
    }

    /// Keys held now, over all dimensions.
    pub fn keys(&self) -> usize {
        self.tables.iter().map(|table| table.indices.len()).sum()
    }

    /// What has been done so far.
    pub fn counters(&self) -> AggregateCounters {
        self.counters
    }
}

/// One dimension.
struct Table {
    dimension: usize,
    keys: DimensionKeys,
    /// The key's attributes by name, so that none is looked up through the keys for each record.
    attributes: Vec<String>,
    columns: Vec<Column>,
    wanted: [DistinctWanted; WINDOWS.len()],
    /// From key to its index in `entries`.
    indices: HashMap<u64, usize>,
    entries: Vec<Entry>,
    /// Keys that were touched since the last publication.
    dirty: Vec<u64>,
    /// Keys that readers still have and that are gone.
    gone: HashSet<u64>,
    /// When keys change without a record. An entry here counts only if the key's own `due_ms` says the same.
    due: BTreeMap<u64, Vec<u64>>,
    /// The next publication replaces the dimension.
    whole: bool,
    random: u64,
}

struct Entry {
    key: u64,
    last_seen_ms: u64,
    due_ms: u64,
    dirty: bool,
    published: bool,
    rings: [Ring; WINDOWS.len()],
}

impl Table {
    fn new(at: usize, dimension: &Dimension, keys: DimensionKeys) -> Result<Self, UnfitDimension> {
        if let Some(unfit) = keys.attributes().find(|name| !ATTRIBUTES.contains(name)) {
            let (dimension, attribute) = (dimension.name.clone(), unfit.to_owned());
            return Err(UnfitDimension::Attribute { dimension, attribute });
        }
        let column = |feature| Column::new(feature).ok_or(feature);
        let columns: Vec<_> =
            dimension.features.iter().map(column).collect::<Result<_, _>>().map_err(|feature| {
                UnfitDimension::Feature { dimension: dimension.name.clone(), feature: feature.name.clone() }
            })?;
        Ok(Self {
            dimension: at,
            attributes: keys.attributes().map(str::to_owned).collect(),
            keys,
            wanted: distinct_wanted(&columns),
            columns,
            indices: HashMap::new(),
            entries: Vec::new(),
            dirty: Vec::new(),
            gone: HashSet::new(),
            due: BTreeMap::new(),
            whole: true,
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    fn clear(&mut self) {
        self.indices.clear();
        self.entries.clear();
        self.dirty.clear();
        self.gone.clear();
        self.due.clear();
        self.whole = true;
    }

    /// Counts a record; returns whether another key was dropped for it.
    fn add(&mut self, key: u64, hit: &Hit, at_ms: u64, max_keys: usize) -> bool {
        let mut dropped = false;
        let index = match self.indices.get(&key) {
            Some(index) => *index,
            None => {
                if self.entries.len() >= max_keys.max(1) {
                    dropped = true;
                    self.remove(self.oldest_of_a_few());
                    self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                }
                let index = self.entries.len();
                self.entries.push(Entry {
                    key,
                    last_seen_ms: 0,
                    due_ms: u64::MAX,
                    dirty: false,
                    published: self.gone.remove(&key),
                    rings: Default::default(),
                });
                self.indices.insert(key, index);
                index
            }
        };
        let entry = &mut self.entries[index];
        entry.last_seen_ms = entry.last_seen_ms.max(hit.time_ms);
        for ((window, ring), wanted) in WINDOWS.iter().zip(&mut entry.rings).zip(self.wanted) {
            ring.add(window, wanted, hit, at_ms);
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(key);
        }
        dropped
    }

    /// The index of the key that was not seen for longest, among eight taken at random: a flood of new keys pushes out
    /// old and rare ones first, at a cost that does not grow with the table.
    fn oldest_of_a_few(&self) -> usize {
        let len = self.entries.len();
        let at = |i: u64| {
            let mixed =
                (self.random ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            ((u128::from(mixed) * len as u128) >> 64) as usize
        };
        (0..8).map(at).min_by_key(|index| self.entries[*index].last_seen_ms).unwrap_or(0)
    }

    fn remove(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        self.indices.remove(&entry.key);
        if entry.published {
            self.gone.insert(entry.key);
        }
        if let Some(moved) = self.entries.get(index) {
            self.indices.insert(moved.key, index);
        }
    }

    fn publish(&mut self, at_ms: u64, seconds: u32) -> Option<(usize, DimensionChange)> {
        // Keys with a bucket that has left its window.
        let mut changed = std::mem::take(&mut self.dirty);
        while let Some(first) = self.due.first_entry()
            && *first.key() < at_ms
        {
            let (due, keys) = first.remove_entry();
            for key in keys {
                if let Some(index) = self.indices.get(&key)
                    && let entry = &mut self.entries[*index]
                    && entry.due_ms == due
                {
                    entry.due_ms = u64::MAX;
                    if !entry.dirty {
                        entry.dirty = true;
                        changed.push(key);
                    }
                }
            }
        }
        let mut rows = Rows::new(self.columns.len());
        for key in changed {
            // A dropped key may be here, and one that came back may be here twice.
            let Some(index) = self.indices.get(&key).copied() else { continue };
            let entry = &mut self.entries[index];
            if !std::mem::take(&mut entry.dirty) {
                continue;
            }
            for (window, ring) in WINDOWS.iter().zip(&mut entry.rings) {
                ring.expire(window, at_ms);
            }
            if entry.rings.iter().all(Ring::is_empty) {
                self.remove(index);
                continue;
            }
            let due = WINDOWS.iter().zip(&entry.rings).filter_map(|(window, ring)| ring.due_ms(window)).min();
            if let Some(due) = due
                && due != entry.due_ms
            {
                entry.due_ms = due;
                self.due.entry(due).or_default().push(key);
            }
            if !self.whole {
                entry.published = true;
                push_row(&mut rows, entry, seconds, &self.columns, self.wanted);
            }
        }
        if self.whole {
            self.whole = false;
            self.gone.clear();
            for entry in &mut self.entries {
                entry.published = true;
                push_row(&mut rows, entry, seconds, &self.columns, self.wanted);
            }
            return Some((self.dimension, DimensionChange::Replace(rows)));
        }
        let mut deletes: Vec<_> = self.gone.drain().collect();
        deletes.sort_unstable();
        (!rows.is_empty() || !deletes.is_empty())
            .then_some((self.dimension, DimensionChange::Patch { upserts: rows, deletes }))
    }
}

fn push_row(
    rows: &mut Rows,
    entry: &mut Entry,
    seconds: u32,
    columns: &[Column],
    wanted: [DistinctWanted; WINDOWS.len()],
) {
    let mut totals = [Totals::default(); WINDOWS.len()];
    for ((totals, ring), wanted) in totals.iter_mut().zip(&mut entry.rings).zip(wanted) {
        *totals = ring.totals(wanted);
    }
    rows.keys.push(entry.key);
    rows.updated_at.push(seconds);
    rows.values.extend(columns.iter().map(|column| column.value(&totals[column.window])));
}

#[cfg(test)]
mod tests;
