//! A table as bytes, and back.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Row, Table};
use crate::access_log::aggregate::saved::{put, require, take};
use crate::access_log::features::Wanted;
use crate::access_log::saved::MOST_MS;
use crate::access_log::windows::Ring;
use crate::checkpoint::Unfit;

#[derive(Serialize, Deserialize)]
struct Head {
    rows: u64,
    random: u64,
}

/// The rows of a table that were read.
pub(crate) struct Saved {
    rows: Vec<Row>,
    indices: HashMap<u64, usize>,
    random: u64,
}

impl Row {
    fn is_sound(&self, wanted: &Wanted) -> bool {
        let Self { last_seen_ms, due_ms, rings, memory, .. } = self;
        *last_seen_ms <= MOST_MS
            && (*due_ms == u64::MAX || *due_ms <= 2 * MOST_MS)
            && rings.iter().all(|ring| ring.is_sound())
            && memory.is_sound(&wanted.memory)
    }
}

impl Table {
    /// Appends the keys, at most `max_bytes` in all.
    pub(crate) fn save(&self, mut bytes: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>, String> {
        bytes = put(bytes, &Head { rows: self.entries.len() as u64, random: self.random.get() })?;
        for row in &self.entries {
            bytes = put(bytes, row)?;
            if bytes.len() as u64 > max_bytes {
                return Err(format!(
                    "it would have more than {max_bytes} bytes (`checkpoint.max_bytes`); raise that, or lower `max_keys` or \
                     `max_bytes` of the origin"
                ));
            }
        }
        Ok(bytes)
    }

    /// Reads what [`Self::save`] appended. Of more keys or bytes than are configured now, the most active at `at_ms` stay.
    pub(crate) fn read(&self, rest: &mut &[u8], at_ms: u64) -> Result<Saved, Unfit> {
        let head: Head = take(rest)?;
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..head.rows {
            let mut row: Row = take(rest)?;
            require(row.is_sound(&self.wanted), "a key that cannot be")?;
            row.rings.iter_mut().for_each(Ring::measure);
            rows.push(row);
        }
        let bytes: usize = rows.iter().map(Row::measure).sum();
        if rows.len() > self.limits.keys || bytes > self.limits.bytes {
            rows.sort_by_key(|row| Reverse((row.activity.at(at_ms), row.last_seen_ms)));
            rows.truncate(self.limits.keys);
            let mut bytes = 0_usize;
            rows.retain(|row| {
                let with_it = bytes.saturating_add(row.measure());
                let fits = with_it <= self.limits.bytes;
                bytes = if fits { with_it } else { bytes };
                fits
            });
        }
        let indices: HashMap<_, _> = rows.iter().enumerate().map(|(index, row)| (row.key, index)).collect();
        require(indices.len() == rows.len(), "a key twice")?;
        Ok(Saved { rows, indices, random: head.random })
    }

    /// Holds what was read, and nothing else; the next publication is whole.
    pub(crate) fn fill(&mut self, saved: Saved) {
        self.clear();
        (self.entries, self.indices) = (saved.rows, saved.indices);
        for index in 0..self.entries.len() {
            self.account(index);
        }
        for row in &self.entries {
            if row.due_ms != u64::MAX {
                self.due.entry(row.due_ms).or_default().push(row.key);
            }
            if row.dirty {
                self.dirty.push(row.key);
            }
        }
        self.random.set(saved.random);
    }
}
