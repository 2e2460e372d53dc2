//! Arranging the keys of one region: finding pilots that send every key to a slot of its own.
//!
//! The search is that of perfect hashing with pilots and eviction. A bucket takes the first pilot under which all
//! its keys fall on free slots; if there is none, it takes the pilot that displaces the least, and the displaced
//! buckets look for new pilots in turn. Buckets of one key find a free slot among 256 nearly always, even when
//! nine slots of ten are taken, so the chains are short.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use crate::table::locator::slot_in_region;
use crate::table::{Layout, TableError};

/// A key of the region and where its row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<S> {
    pub(super) key: u64,
    pub(super) source: S,
}

/// No entry or no bucket, in the lists below.
const NO_INDEX: u16 = u16::MAX;

/// Working memory for arranging one region; reused from region to region.
pub(super) struct Arrangement {
    layout: Layout,
    /// Per entry: what is left of the key within the region.
    fractions: Vec<u64>,
    /// Per entry: the next one of its bucket.
    next: Vec<u16>,
    /// Per entry: its bucket.
    buckets: Vec<u16>,
    /// Per bucket: its first entry, and how many there are.
    heads: Vec<u16>,
    sizes: Vec<u16>,
    pub(super) pilots: Vec<u8>,
    /// Per slot: the entry that has it.
    pub(super) owners: Vec<u16>,
    /// Buckets that look for a pilot.
    waiting: Vec<u16>,
    /// Buckets settled last, which are not displaced again at once.
    recent: [u16; 8],
    recent_at: usize,
}

impl Arrangement {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            fractions: Vec::new(),
            next: Vec::new(),
            buckets: Vec::new(),
            heads: vec![NO_INDEX; layout.region_pilots()],
            sizes: vec![0; layout.region_pilots()],
            pilots: vec![0; layout.region_pilots()],
            owners: vec![NO_INDEX; layout.region_slots()],
            waiting: Vec::new(),
            recent: [NO_INDEX; 8],
            recent_at: 0,
        }
    }

    /// Forgets all entries and pilots.
    pub(super) fn clear(&mut self) {
        self.fractions.clear();
        self.next.clear();
        self.buckets.clear();
        self.waiting.clear();
        self.heads.fill(NO_INDEX);
        self.sizes.fill(0);
        self.pilots.fill(0);
        self.owners.fill(NO_INDEX);
        self.recent = [NO_INDEX; 8];
    }

    /// The entry in `slot`, as the index that [`Self::add_entry`] gave; `None` if it is free, or there is no such slot.
    pub(super) fn entry_at(&self, slot: usize) -> Option<usize> {
        self.owners.get(slot).copied().filter(|&e| e != NO_INDEX).map(usize::from)
    }

    /// Takes up a key without giving it a slot; returns its index.
    fn add_entry(&mut self, key: u64) -> Result<u16, TableError> {
        let entry = u16::try_from(self.fractions.len()).ok().filter(|&e| usize::from(e) < self.owners.len());
        let entry = entry.ok_or(TableError::Crowded { key })?;
        let probe = self.layout.probe(key);
        let bucket = probe.bucket as usize;
        self.fractions.push(probe.fraction);
        self.buckets.push(bucket as u16);
        self.next.push(self.heads[bucket]);
        self.heads[bucket] = entry;
        self.sizes[bucket] += 1;
        Ok(entry)
    }

    /// Takes up a key that already has `slot` under the pilots of the region.
    pub(super) fn add_settled(&mut self, key: u64, slot: usize) -> Result<(), TableError> {
        let entry = self.add_entry(key)?;
        self.owners[slot] = entry;
        Ok(())
    }

    /// Takes up a key and finds a slot for it, moving others if need be.
    pub(super) fn insert(&mut self, key: u64) -> Result<(), TableError> {
        let entry = self.add_entry(key)?;
        let bucket = self.buckets[usize::from(entry)];
        let slot = self.slot_of(entry, self.pilots[usize::from(bucket)]);
        if self.owners[slot] == NO_INDEX {
            self.owners[slot] = entry;
            return Ok(());
        }
        self.free_slots(bucket);
        self.waiting.push(bucket);
        self.settle_waiting(key)
    }

    /// Takes up all `keys` of an empty region and finds slots for them, largest buckets first.
    pub(super) fn insert_all(&mut self, keys: impl Iterator<Item = u64>) -> Result<(), TableError> {
        let mut last = 0;
        for key in keys {
            self.add_entry(key)?;
            last = key;
        }
        self.waiting.extend((0..self.sizes.len() as u16).filter(|&b| self.sizes[usize::from(b)] > 0));
        // The largest last, since `settle_waiting` takes from the end.
        let sizes = &self.sizes;
        self.waiting.sort_unstable_by_key(|&b| sizes[usize::from(b)]);
        self.settle_waiting(last)
    }

    fn slot_of(&self, entry: u16, pilot: u8) -> usize {
        slot_in_region(self.fractions[usize::from(entry)], pilot, self.owners.len() as u32) as usize
    }

    fn entries_of(&self, bucket: u16) -> impl Iterator<Item = u16> + '_ {
        let head = Some(self.heads[usize::from(bucket)]).filter(|&e| e != NO_INDEX);
        core::iter::successors(head, |&e| Some(self.next[usize::from(e)]).filter(|&e| e != NO_INDEX))
    }

    /// Frees the slots of a bucket's entries.
    fn free_slots(&mut self, bucket: u16) {
        let pilot = self.pilots[usize::from(bucket)];
        let mut entry = self.heads[usize::from(bucket)];
        while entry != NO_INDEX {
            let slot = self.slot_of(entry, pilot);
            if self.owners[slot] == entry {
                self.owners[slot] = NO_INDEX;
            }
            entry = self.next[usize::from(entry)];
        }
    }

    /// Finds pilots for all waiting buckets.
    fn settle_waiting(&mut self, key: u64) -> Result<(), TableError> {
        let mut steps = 100 * self.pilots.len() + 1000;
        while let Some(bucket) = self.waiting.pop() {
            let pilot = self.find_pilot(bucket).ok_or(TableError::Crowded { key })?;
            self.pilots[usize::from(bucket)] = pilot;
            let mut entry = self.heads[usize::from(bucket)];
            while entry != NO_INDEX {
                let slot = self.slot_of(entry, pilot);
                let owner = self.owners[slot];
                if owner != NO_INDEX {
                    let displaced = self.buckets[usize::from(owner)];
                    self.free_slots(displaced);
                    self.waiting.push(displaced);
                }
                self.owners[slot] = entry;
                entry = self.next[usize::from(entry)];
            }
            self.recent[self.recent_at % self.recent.len()] = bucket;
            self.recent_at = self.recent_at.wrapping_add(1);
            steps -= 1;
            if steps == 0 {
                return Err(TableError::Crowded { key });
            }
        }
        Ok(())
    }

    /// The first pilot under which the bucket displaces none, else the one that displaces the least.
    fn find_pilot(&self, bucket: u16) -> Option<u8> {
        // Start elsewhere each time, so that two buckets that displace each other do not go round in circles.
        let start = (self.recent_at as u8).wrapping_mul(37);
        let pilots = || (0..=u8::MAX).map(|p| p.wrapping_add(start));
        if let Some(free) = pilots().find(|&pilot| self.is_free(bucket, pilot)) {
            return Some(free);
        }
        let mut best = None;
        for pilot in pilots() {
            if let Some(cost) = self.displacement_cost(bucket, pilot, best.map_or(u32::MAX, |(cost, _)| cost))
            {
                best = Some((cost, pilot));
            }
        }
        best.map(|(_, pilot)| pilot)
    }

    /// Whether all keys of the bucket fall on free slots under `pilot`, each on one of its own. Most pilots are ruled
    /// out by the first key.
    fn is_free(&self, bucket: u16, pilot: u8) -> bool {
        self.entries_of(bucket).all(|entry| self.owners[self.slot_of(entry, pilot)] == NO_INDEX)
            && !self.has_collision(bucket, pilot)
    }

    /// Whether two keys of the bucket fall on one slot under `pilot`.
    fn has_collision(&self, bucket: u16, pilot: u8) -> bool {
        self.entries_of(bucket).enumerate().any(|(i, entry)| {
            let slot = self.slot_of(entry, pilot);
            self.entries_of(bucket).take(i).any(|earlier| self.slot_of(earlier, pilot) == slot)
        })
    }

    /// How much the bucket would displace under `pilot`: the squares of the sizes of displaced buckets; `None` where
    /// two of its own keys meet, or the cost would not be below `limit`.
    fn displacement_cost(&self, bucket: u16, pilot: u8, limit: u32) -> Option<u32> {
        let mut cost = 0u32;
        for entry in self.entries_of(bucket) {
            let owner = self.owners[self.slot_of(entry, pilot)];
            if owner != NO_INDEX {
                let displaced = self.buckets[usize::from(owner)];
                let size = u32::from(self.sizes[usize::from(displaced)]);
                let penalty = if self.recent.contains(&displaced) { 1000 } else { 0 };
                cost = cost.saturating_add(size * size + penalty);
                if cost >= limit {
                    return None;
                }
            }
        }
        if self.has_collision(bucket, pilot) { None } else { Some(cost) }
    }
}
