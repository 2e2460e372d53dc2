//! The keys of one dimension and what they counted.

mod saved;

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use bliss_core::build::{DimensionChange, Rows};
use bliss_core::schema::Dimension;

use super::UnfitDimension;
use super::room::Activity;
use crate::access_log::features::{ATTRIBUTES, Column, Known, Wanted};
use crate::access_log::memory::Memory;
use crate::access_log::population::Population;
use crate::access_log::windows::{Hit, Ring, Totals, WINDOWS};
use crate::keys::DimensionKeys;
use bliss_core::http::Engine;

/// Bytes that a key takes in the maps beside its entry: of keys, of networks, of what changes without a request, of changes.
const MAPS_BYTES: usize = 80;
/// Keys that one request may push out so that the bytes stay within their limit.
const MOST_VICTIMS: usize = 4;

/// How much a dimension may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
}

/// What keys of one network alone take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) keys: usize,
    pub(super) bytes: usize,
}

/// One dimension.
pub(super) struct Table {
    dimension: usize,
    pub(super) keys: DimensionKeys,
    /// The key's attributes by name, so that none is looked up through the keys for each record.
    pub(super) attributes: Vec<String>,
    columns: Vec<Column>,
    pub(super) wanted: Wanted,
    /// From key to its index in `entries`.
    indices: HashMap<u64, usize>,
    pub(super) entries: Vec<Row>,
    /// Of the keys that only this network has asked with.
    pub(super) networks: HashMap<u64, Held>,
    pub(super) limits: Limits,
    /// What all keys take.
    bytes: usize,
    /// Keys that were touched since the last publication.
    dirty: Vec<u64>,
    /// Keys that readers still have and that are gone.
    gone: HashSet<u64>,
    /// When keys change without a record. An entry here counts only if the key's own `due_ms` says the same.
    due: BTreeMap<u64, Vec<u64>>,
    /// The next publication replaces the dimension.
    whole: bool,
    pub(super) random: Cell<u64>,
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Row {
    key: u64,
    /// Where all its requests are from; `None` once they are from several.
    pub(super) network: Option<u64>,
    pub(super) activity: Activity,
    pub(super) last_seen_ms: u64,
    due_ms: u64,
    dirty: bool,
    #[serde(skip)]
    published: bool,
    /// What it takes, as it was counted last; 0: not yet.
    #[serde(skip)]
    pub(super) bytes: usize,
    rings: [Ring; WINDOWS.len()],
    memory: Memory,
    #[serde(with = "crate::access_log::saved::browser")]
    browser: Option<(Engine, u32)>,
}

impl Row {
    /// Bytes that it takes.
    fn measure(&self) -> usize {
        let rings: usize = self.rings.iter().map(Ring::heap_bytes).sum();
        size_of::<Self>() + MAPS_BYTES + self.memory.heap_bytes() + rings
    }

    #[cfg(test)]
    pub(super) fn key(&self) -> u64 {
        self.key
    }
}

impl Table {
    pub(super) fn new(
        at: usize,
        dimension: &Dimension,
        keys: DimensionKeys,
        seed: u64,
        limits: Limits,
    ) -> Result<Self, UnfitDimension> {
        if dimension.is_by_prefix() {
            return Err(UnfitDimension::Prefixes { dimension: dimension.name.clone() });
        }
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
            networks: HashMap::new(),
            limits,
            bytes: 0,
            keys,
            wanted: Wanted::by(&columns),
            columns,
            indices: HashMap::new(),
            entries: Vec::new(),
            dirty: Vec::new(),
            gone: HashSet::new(),
            due: BTreeMap::new(),
            whole: true,
            random: Cell::new(seed),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When keys change next without a record.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due.first_key_value().map(|(due, _)| *due)
    }

    /// Makes the next publication replace the dimension.
    pub(super) fn restate(&mut self) {
        self.whole = true;
    }

    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.networks.clear();
        self.indices.clear();
        self.entries.clear();
        self.dirty.clear();
        self.gone.clear();
        self.due.clear();
        self.whole = true;
    }

    /// Counts a record; returns how many keys were dropped for it, itself among them if it was not taken.
    pub(super) fn add(&mut self, key: u64, network: u64, hit: &Hit, at_ms: u64) -> u64 {
        let mut dropped = 0;
        let index = match self.indices.get(&key) {
            Some(index) => *index,
            None => {
                if self.entries.len() >= self.limits.keys || self.bytes >= self.limits.bytes {
                    dropped = 1;
                    if !self.make_room(network, hit.time_ms) {
                        return dropped;
                    }
                }
                let index = self.entries.len();
                self.entries.push(Row {
                    key,
                    network: Some(network),
                    activity: Activity::default(),
                    last_seen_ms: 0,
                    due_ms: u64::MAX,
                    dirty: false,
                    published: self.gone.remove(&key),
                    rings: Default::default(),
                    memory: Memory::new(&self.wanted.memory),
                    browser: hit.browser,
                    bytes: 0,
                });
                self.indices.insert(key, index);
                index
            }
        };
        let entry = &mut self.entries[index];
        if let Some(only) = entry.network.take_if(|only| *only != network) {
            forget(&mut self.networks, only, entry.bytes);
        }
        entry.activity.add(hit.time_ms);
        entry.last_seen_ms = entry.last_seen_ms.max(hit.time_ms);
        for (at, (window, ring)) in WINDOWS.iter().zip(&mut entry.rings).enumerate() {
            if self.wanted.windows[at] {
                ring.add(window, self.wanted.distinct[at], hit, at_ms);
            }
        }
        entry.memory.add(&self.wanted.memory, hit);
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(key);
        }
        self.account(index);
        let mut victims = 0;
        while self.bytes > self.limits.bytes && victims < MOST_VICTIMS {
            let Some(index) = self.indices.get(&key).copied() else { break };
            self.shrink(index, hit.time_ms);
            victims += 1;
        }
        dropped + victims as u64
    }

    /// Counts what the key at `index` takes now.
    fn account(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let now = entry.measure();
        let before = std::mem::replace(&mut entry.bytes, now);
        self.bytes = (self.bytes + now).saturating_sub(before);
        if let Some(network) = entry.network {
            let held = self.networks.entry(network).or_default();
            held.keys += usize::from(before == 0);
            held.bytes = (held.bytes + now).saturating_sub(before);
        }
    }

    /// The same after sums were made of its buckets for a publication, which are not kept where there is no room.
    fn account_published(&mut self, index: usize) {
        self.account(index);
        if self.bytes > self.limits.bytes
            && let Some(entry) = self.entries.get_mut(index)
        {
            entry.rings.iter_mut().for_each(Ring::forget_sum);
            self.account(index);
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        if let Some(network) = entry.network {
            forget(&mut self.networks, network, entry.bytes);
        }
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        self.indices.remove(&entry.key);
        if entry.published {
            self.gone.insert(entry.key);
        }
        if let Some(moved) = self.entries.get(index) {
            self.indices.insert(moved.key, index);
        }
    }

    pub(super) fn publish(
        &mut self,
        at_ms: u64,
        seconds: u32,
        population: &mut Population,
    ) -> Option<(usize, DimensionChange)> {
        let site_ips = if self.wanted.site_ips { population.ips() } else { 0 };
        let mut sink = Sink { rows: Rows::new(self.columns.len()), seconds, population, site_ips };
        if !self.whole {
            self.settle(at_ms, Some(&mut sink));
            let rows = sink.rows;
            let mut deletes: Vec<_> = self.gone.drain().collect();
            deletes.sort_unstable();
            let is_change = !rows.is_empty() || !deletes.is_empty();
            return is_change.then_some((self.dimension, DimensionChange::Patch { upserts: rows, deletes }));
        }
        self.settle(at_ms, None);
        self.whole = false;
        self.gone.clear();
        for index in 0..self.entries.len() {
            if let Some(entry) = self.entries.get_mut(index) {
                entry.published = true;
                sink.push(entry, &self.columns, &self.wanted);
            }
            self.account_published(index);
        }
        Some((self.dimension, DimensionChange::Replace(sink.rows)))
    }

    /// Forgets what is over at publication `at_ms`, and passes what changed.
    pub(super) fn settle(&mut self, at_ms: u64, mut sink: Option<&mut Sink<'_>>) {
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
        // What is removed first decides which keys make room later: not when they came, or in which order they were read back.
        changed.sort_unstable();
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
            entry.memory.expire(&self.wanted.memory, at_ms);
            if entry.rings.iter().all(Ring::is_empty) && entry.memory.is_over(&self.wanted.memory, at_ms) {
                self.remove(index);
                continue;
            }
            let due = WINDOWS.iter().zip(&entry.rings).filter_map(|(window, ring)| ring.due_ms(window));
            // What is over already changes nothing any more.
            let of_memory = entry.memory.due_ms(&self.wanted.memory, at_ms);
            if let Some(due) = due.chain(of_memory).min()
                && due != entry.due_ms
            {
                entry.due_ms = due;
                self.due.entry(due).or_default().push(key);
            }
            if let Some(sink) = &mut sink {
                entry.published = true;
                sink.push(entry, &self.columns, &self.wanted);
            }
            self.account_published(index);
        }
    }
}

/// One key less of this network, which took `bytes`.
fn forget(networks: &mut HashMap<u64, Held>, network: u64, bytes: usize) {
    if let Entry::Occupied(mut held) = networks.entry(network) {
        let Held { keys, bytes: all } = held.get_mut();
        (*keys, *all) = (keys.saturating_sub(1), all.saturating_sub(bytes));
        if *keys == 0 {
            held.remove();
        }
    }
}

/// The rows of a publication.
pub(super) struct Sink<'a> {
    rows: Rows,
    seconds: u32,
    population: &'a Population,
    site_ips: usize,
}

impl Sink<'_> {
    fn push(&mut self, entry: &mut Row, columns: &[Column], wanted: &Wanted) {
        let mut totals = [Totals::default(); WINDOWS.len()];
        for (at, (totals, ring)) in totals.iter_mut().zip(&mut entry.rings).enumerate() {
            if wanted.windows[at] {
                *totals = ring.totals(wanted.distinct[at]);
            }
        }
        let known = Known {
            totals: &totals,
            plan: &wanted.memory,
            memory: &entry.memory,
            staleness: entry.browser.and_then(|browser| self.population.staleness(browser)),
            site_ips: self.site_ips,
        };
        self.rows.keys.push(entry.key);
        self.rows.updated_at.push(self.seconds);
        self.rows.values.extend(columns.iter().map(|column| column.value(&known)));
    }
}
