//! An aggregator as bytes, and back.
//!
//! Kept is what later rows are made of: keys by their hashes, counts, distinct values by their hashes, and records that wait
//! for their publication. What follows from it (indices, sums, when keys change) is worked out again.

use std::fmt::Write as _;

use bliss_core::schema::Schema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{AggregateCounters, Aggregator, Population, Prepared, SiteHosts, Table};
use crate::access_log::saved::MOST_MS;
use crate::checkpoint::{Unfit, bounded};

/// Dimensions that an origin may fill; a schema has fewer.
const MOST_DIMENSIONS: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Head {
    published_ms: u64,
    newest_ms: u64,
    counters: AggregateCounters,
    tables: u32,
    pending: u64,
}

/// What tells the dimensions, and what is counted of them, from others. Defaults and limits of features are none of it, nor is
/// how many keys are held.
pub(super) fn fingerprint(schema: &Schema, dimensions: &[usize], tables: &[Table]) -> u64 {
    let mut text = String::new();
    let dimensions = dimensions.iter().filter_map(|at| schema.dimensions.get(*at));
    for (dimension, table) in dimensions.zip(tables) {
        let _ = writeln!(text, "{} {:?} {:?}", dimension.name, dimension.key, table.wanted);
    }
    xxh3_64(text.as_bytes())
}

pub(super) fn keys<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Box<[Option<u64>]>, D::Error> {
    bounded::vec::<D, Option<u64>, MOST_DIMENSIONS>(deserializer).map(Vec::into_boxed_slice)
}

/// Reads the next value.
pub(crate) fn take<'a, T: Deserialize<'a>>(rest: &mut &'a [u8]) -> Result<T, Unfit> {
    let (value, left) = postcard::take_from_bytes(rest).map_err(Unfit::damaged)?;
    *rest = left;
    Ok(value)
}

/// Appends a value.
pub(crate) fn put<T: Serialize + ?Sized>(bytes: Vec<u8>, value: &T) -> Result<Vec<u8>, String> {
    postcard::to_extend(value, bytes).map_err(|error| error.to_string())
}

pub(super) fn require(is_sound: bool, what: &str) -> Result<(), Unfit> {
    if is_sound { Ok(()) } else { Err(Unfit::damaged(what)) }
}

impl Aggregator {
    /// What tells the dimensions and what is counted of them from others: with another one a saved state is not of use.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether a record of this time, of which it is not known whether it was read before the state was saved, may have been.
    pub fn may_be_counted(&self, time_ms: u64) -> bool {
        time_ms <= self.restored_ms
    }

    /// The latest time of a record in the state that was read back; 0: none was.
    pub fn restored_ms(&self) -> u64 {
        self.restored_ms
    }

    /// Appends the state to `bytes`, at most `max_bytes` in all.
    ///
    /// # Errors
    /// It is longer, in words.
    pub fn save(&self, mut bytes: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>, String> {
        let tables = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let pending = self.waiting().count() as u64;
        let Self { published_ms, newest_ms, counters, .. } = *self;
        bytes = put(bytes, &Head { published_ms, newest_ms, counters, tables, pending })?;
        bytes = put(bytes, &self.hosts)?;
        bytes = put(bytes, &self.population)?;
        for record in self.waiting() {
            bytes = put(bytes, record)?;
        }
        for table in &self.tables {
            bytes = table.save(bytes, max_bytes)?;
        }
        Ok(bytes)
    }

    /// Reads the state back that [`Self::save`] gave, with the end of `rest` for its end. The next [`Self::tick`] replaces each
    /// dimension.
    ///
    /// # Errors
    /// It is damaged; nothing has changed.
    pub fn restore(&mut self, mut rest: &[u8]) -> Result<(), Unfit> {
        let head: Head = take(&mut rest)?;
        let mut hosts: SiteHosts = take(&mut rest)?;
        let population: Population = take(&mut rest)?;
        require(head.published_ms <= MOST_MS && head.newest_ms <= MOST_MS, "times that cannot be")?;
        require(usize::try_from(head.tables) == Ok(self.tables.len()), "another number of dimensions")?;
        require(population.is_sound(), "counts that cannot be")?;
        if !hosts.is_sound() {
            // They are learned again within minutes, and the rest is of days.
            tracing::warn!(
                "counts of the site's hosts cannot be; they are learned again, and the rest is kept"
            );
            hosts = SiteHosts::default();
        }
        let mut pending = Vec::new();
        for _ in 0..head.pending {
            let record: Prepared = take(&mut rest)?;
            let is_sound = record.keys.len() == self.tables.len() && record.hit.time_ms <= MOST_MS;
            require(is_sound, "a record that cannot be")?;
            pending.push(record);
        }
        let mut tables = Vec::new();
        for table in &self.tables {
            tables.push(table.read(&mut rest, head.published_ms)?);
        }
        require(rest.is_empty(), "more than is expected")?;
        self.tables.iter_mut().zip(tables).for_each(|(table, saved)| table.fill(saved));
        self.pending_first_ms = pending.iter().map(|record| record.hit.time_ms).min();
        self.pending = pending;
        (self.hosts, self.population) = (hosts, population);
        (self.published_ms, self.counters) = (head.published_ms, head.counters);
        (self.newest_ms, self.restored_ms) = (head.newest_ms, head.newest_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
