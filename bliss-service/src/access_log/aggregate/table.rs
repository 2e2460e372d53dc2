//! The keys of one dimension and what they counted.

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
    /// How many keys only this network has asked with.
    pub(super) networks: HashMap<u64, u32>,
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

pub(super) struct Row {
    key: u64,
    /// Where all its requests are from; `None` once they are from several.
    pub(super) network: Option<u64>,
    pub(super) activity: Activity,
    pub(super) last_seen_ms: u64,
    due_ms: u64,
    dirty: bool,
    published: bool,
    rings: [Ring; WINDOWS.len()],
    memory: Memory,
    browser: Option<(Engine, u32)>,
}

impl Table {
    pub(super) fn new(
        at: usize,
        dimension: &Dimension,
        keys: DimensionKeys,
        seed: u64,
    ) -> Result<Self, UnfitDimension> {
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

    /// When keys change next without a record.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due.first_key_value().map(|(due, _)| *due)
    }

    /// Makes the next publication replace the dimension.
    pub(super) fn restate(&mut self) {
        self.whole = true;
    }

    pub(super) fn clear(&mut self) {
        self.networks.clear();
        self.indices.clear();
        self.entries.clear();
        self.dirty.clear();
        self.gone.clear();
        self.due.clear();
        self.whole = true;
    }

    /// Counts a record; returns whether another key was dropped for it, or it was not taken.
    pub(super) fn add(&mut self, key: u64, network: u64, hit: &Hit, at_ms: u64, max_keys: usize) -> bool {
        let mut dropped = false;
        let index = match self.indices.get(&key) {
            Some(index) => *index,
            None => {
                if self.entries.len() >= max_keys.max(1) {
                    dropped = true;
                    if !self.make_room(network, hit.time_ms, max_keys) {
                        return true;
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
                });
                self.indices.insert(key, index);
                *self.networks.entry(network).or_default() += 1;
                index
            }
        };
        let entry = &mut self.entries[index];
        if let Some(only) = entry.network.take_if(|only| *only != network) {
            forget(&mut self.networks, only);
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
        dropped
    }

    pub(super) fn remove(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        if let Some(network) = entry.network {
            forget(&mut self.networks, network);
        }
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
            if !self.whole {
                entry.published = true;
                push_row(&mut rows, entry, seconds, &self.columns, &self.wanted, population, site_ips);
            }
        }
        if self.whole {
            self.whole = false;
            self.gone.clear();
            for entry in &mut self.entries {
                entry.published = true;
                push_row(&mut rows, entry, seconds, &self.columns, &self.wanted, population, site_ips);
            }
            return Some((self.dimension, DimensionChange::Replace(rows)));
        }
        let mut deletes: Vec<_> = self.gone.drain().collect();
        deletes.sort_unstable();
        (!rows.is_empty() || !deletes.is_empty())
            .then_some((self.dimension, DimensionChange::Patch { upserts: rows, deletes }))
    }
}

/// One key less of this network.
fn forget(networks: &mut HashMap<u64, u32>, network: u64) {
    if let Entry::Occupied(mut keys) = networks.entry(network) {
        *keys.get_mut() -= 1;
        if *keys.get() == 0 {
            keys.remove();
        }
    }
}

fn push_row(
    rows: &mut Rows,
    entry: &mut Row,
    seconds: u32,
    columns: &[Column],
    wanted: &Wanted,
    population: &Population,
    site_ips: usize,
) {
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
        staleness: entry.browser.and_then(|browser| population.staleness(browser)),
        site_ips,
    };
    rows.keys.push(entry.key);
    rows.updated_at.push(seconds);
    rows.values.extend(columns.iter().map(|column| column.value(&known)));
}
