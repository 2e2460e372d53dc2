//! Building a table, in parts that may run at the same time.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use super::header::region_of;
use super::region::{Arrangement, Entry};
use super::rows::Rows;
use crate::table::layout::{HEADER_BYTES, u64_at};
use crate::table::{Layout, SLOT_HEAD_BYTES, TableError, TableRef, prefetch};

/// So many rows ahead the processor is asked for what building a table reads.
const AHEAD: usize = 16;

/// Where a column of a new table takes its values from, for rows that come from an old table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column {
    /// From this column of the old table.
    Old(usize),
    /// The same value for all.
    Default(f32),
}

/// What a new table is made of: the rows of an old one, changed by deletes and then by upserts.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The old table, if any, and where each new column comes from.
    pub old: Option<(TableRef<'a>, &'a [Column])>,
    /// Rows that are added or replace those of the same key. Of two with the same key the later one counts if
    /// `last_wins`, else that is an error.
    pub upserts: &'a Rows,
    /// Whether `upserts` may hold a key twice.
    pub last_wins: bool,
    /// Keys that are taken out of the old table.
    pub deletes: &'a [u64],
}

/// Where a row's bytes come from. The order decides which of two rows with one key counts: the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowSource {
    /// The slot at this offset of its old region `0`.
    Old(u32, u32),
    /// Not at all: the key is deleted from the old table.
    Deleted,
    /// A row of the upserts.
    New(u32),
}

/// Keys in the order of the regions of a layout: where each region's begin, and the positions in the input.
struct ByRegion {
    starts: Vec<usize>,
    order: Vec<u32>,
}

impl ByRegion {
    fn new(layout: &Layout, keys: &[u64]) -> Result<Self, TableError> {
        if u32::try_from(keys.len()).is_err() {
            return Err(TableError::Full { rows: keys.len() as u64, room: u64::from(u32::MAX) });
        }
        let mut starts = vec![0usize; layout.regions() + 1];
        for &key in keys {
            starts[layout.probe(key).region() + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut at = starts.clone();
        let mut order = vec![0; keys.len()];
        for (i, &key) in keys.iter().enumerate() {
            let next = &mut at[layout.probe(key).region()];
            order[*next] = i as u32;
            *next += 1;
        }
        Ok(Self { starts, order })
    }

    fn region(&self, region: usize) -> &[u32] {
        &self.order[self.starts[region]..self.starts[region + 1]]
    }
}

/// Builds a table of `layout` at the start of `dest`; returns its number of rows.
///
/// # Errors
/// Where the rows do not fit the layout or each other. `dest` then holds nothing of use.
pub fn build(dest: &mut [u8], layout: Layout, source: &Source<'_>) -> Result<u64, TableError> {
    let mut rows = 0;
    for job in build_jobs(dest, layout, source, 1)? {
        rows += job.run()?;
    }
    finish(dest, &layout, rows)?;
    Ok(rows)
}

/// Writes the header of a table whose [`build_jobs`] have all run and made `rows` rows together.
///
/// # Errors
/// Where the rows are more than the layout is for.
pub fn finish(dest: &mut [u8], layout: &Layout, rows: u64) -> Result<(), TableError> {
    if rows > layout.max_rows().max(1) {
        return Err(TableError::Full { rows, room: layout.max_rows() });
    }
    layout.write(dest, rows)
}

/// Part of a [`build`]: some of the regions. Jobs of one build may run at the same time.
pub struct BuildJob<'a> {
    layout: Layout,
    source: Source<'a>,
    upserts: std::sync::Arc<ByRegion>,
    deletes: std::sync::Arc<ByRegion>,
    first_region: usize,
    pilots: &'a mut [u8],
    slots: &'a mut [u8],
}

/// Splits a [`build`] into at most `parts` jobs; after all have run, [`finish`] is called with the sum of their rows.
///
/// # Errors
/// Where `dest` is too short or the rows have another width than the table.
pub fn build_jobs<'a>(
    dest: &'a mut [u8],
    layout: Layout,
    source: &Source<'a>,
    parts: usize,
) -> Result<Vec<BuildJob<'a>>, TableError> {
    source.upserts.check(layout.columns())?;
    if let Some((_, columns)) = source.old
        && columns.len() != layout.columns()
    {
        return Err(TableError::Width { expected: layout.columns(), found: columns.len() });
    }
    let found = dest.len();
    let table = dest
        .get_mut(..layout.bytes())
        .ok_or(TableError::CutOff { expected: layout.bytes() as u64, found: found as u64 })?;
    let upserts = std::sync::Arc::new(ByRegion::new(&layout, &source.upserts.keys)?);
    let deletes = std::sync::Arc::new(ByRegion::new(&layout, source.deletes)?);
    let (head, mut slots) = table.split_at_mut(layout.slots_at());
    let (mut pilots, padding) = head[HEADER_BYTES..].split_at_mut(layout.regions() * layout.region_pilots());
    padding.fill(0);
    let regions_per_job = layout.regions().div_ceil(parts.max(1));
    let mut jobs = Vec::new();
    let mut first_region = 0;
    while first_region < layout.regions() {
        let regions = regions_per_job.min(layout.regions() - first_region);
        let (my_pilots, other_pilots) = pilots.split_at_mut(regions * layout.region_pilots());
        let (my_slots, other_slots) = slots.split_at_mut(regions * layout.region_bytes());
        (pilots, slots) = (other_pilots, other_slots);
        let (upserts, deletes) = (upserts.clone(), deletes.clone());
        let source = *source;
        jobs.push(BuildJob {
            layout,
            source,
            upserts,
            deletes,
            first_region,
            pilots: my_pilots,
            slots: my_slots,
        });
        first_region += regions;
    }
    Ok(jobs)
}

impl BuildJob<'_> {
    /// Builds the regions of this job; returns their number of rows.
    ///
    /// # Errors
    /// Where a key is there twice and must not be, or a region cannot take its keys.
    pub fn run(self) -> Result<u64, TableError> {
        let Self { layout, source, upserts, deletes, first_region, pilots, slots } = self;
        let mut arrangement = Arrangement::new(layout);
        let mut entries = Vec::new();
        let mut rows = 0;
        let regions = pilots.chunks_mut(layout.region_pilots()).zip(slots.chunks_mut(layout.region_bytes()));
        for (i, (pilots, slots)) in regions.enumerate() {
            gather(&layout, &source, first_region + i, &upserts, &deletes, &mut entries)?;
            arrangement.clear();
            arrangement.insert_all(entries.iter().map(|e: &Entry<RowSource>| e.key))?;
            pilots.copy_from_slice(&arrangement.pilots);
            for (slot, bytes) in slots.chunks_exact_mut(layout.stride()).enumerate() {
                // Rows come in any order, so that each is waited for unless it was asked for before.
                if let Some(RowSource::New(i)) =
                    arrangement.entry_at(slot + AHEAD).map(|entry| entries[entry].source)
                {
                    source.upserts.prefetch(i as usize);
                }
                match arrangement.entry_at(slot) {
                    Some(entry) => write_slot(bytes, &entries[entry], &source),
                    None => bytes[..8].fill(0),
                }
            }
            rows += entries.len() as u64;
        }
        Ok(rows)
    }
}

/// Collects the entries of one region of the new table, each key once.
fn gather(
    layout: &Layout,
    source: &Source<'_>,
    region: usize,
    upserts: &ByRegion,
    deletes: &ByRegion,
    entries: &mut Vec<Entry<RowSource>>,
) -> Result<(), TableError> {
    entries.clear();
    if let Some((old, _)) = source.old {
        let stride = old.layout().stride();
        for old_region in overlapping(layout, old.layout(), region) {
            for (i, slot) in region_of(&old, old_region).chunks_exact(stride).enumerate() {
                let key = u64_at(slot, 0);
                if key != 0 && layout.probe(key).region() == region {
                    entries
                        .push(Entry { key, source: RowSource::Old(old_region as u32, (i * stride) as u32) });
                }
            }
        }
    }
    entries.extend(
        deletes
            .region(region)
            .iter()
            .map(|&i| Entry { key: source.deletes[i as usize], source: RowSource::Deleted }),
    );
    let upserts = upserts.region(region);
    entries.extend(upserts.iter().enumerate().map(|(at, &i)| {
        if let Some(&later) = upserts.get(at + AHEAD) {
            prefetch(&source.upserts.keys, later as usize);
        }
        Entry { key: source.upserts.keys[i as usize], source: RowSource::New(i) }
    }));
    entries.sort_unstable_by_key(|e| (e.key, e.source));
    if !source.last_wins {
        let twice = |w: &&[Entry<RowSource>]| {
            w[0].key == w[1].key
                && matches!((w[0].source, w[1].source), (RowSource::New(_), RowSource::New(_)))
        };
        if let Some(w) = entries.windows(2).find(twice) {
            return Err(TableError::Duplicate { key: w[0].key });
        }
    }
    // Of equal keys keep the last: an upsert before a delete before the old row.
    entries.reverse();
    entries.dedup_by_key(|e| e.key);
    entries.retain(|e| e.source != RowSource::Deleted && e.key != 0);
    Ok(())
}

/// Regions of the old table that may hold keys of a region of the new one: regions are ranges of keys.
fn overlapping(new: &Layout, old: &Layout, region: usize) -> core::ops::RangeInclusive<usize> {
    let edge = |r: usize| ((r as u128) << 64).div_ceil(new.regions() as u128);
    let first = u64::try_from(edge(region)).unwrap_or(u64::MAX);
    let last = u64::try_from(edge(region + 1) - 1).unwrap_or(u64::MAX);
    old.probe(first).region()..=old.probe(last).region()
}

fn write_slot(slot: &mut [u8], entry: &Entry<RowSource>, source: &Source<'_>) {
    match entry.source {
        RowSource::New(i) => {
            write_row(slot, entry.key, source.upserts.updated_at[i as usize], source.upserts.row(i as usize));
        }
        RowSource::Old(region, at) => {
            let Some((old, columns)) = source.old else { return };
            let from = &region_of(&old, region as usize)[at as usize..][..old.layout().stride()];
            slot[..SLOT_HEAD_BYTES].copy_from_slice(&from[..SLOT_HEAD_BYTES]);
            let from = from[SLOT_HEAD_BYTES..].as_chunks::<4>().0;
            let (to, padding) = slot[SLOT_HEAD_BYTES..].split_at_mut(columns.len() * 4);
            padding.fill(0);
            for (to, column) in to.as_chunks_mut::<4>().0.iter_mut().zip(columns) {
                *to = match *column {
                    Column::Old(i) => from[i],
                    Column::Default(value) => value.to_le_bytes(),
                };
            }
        }
        RowSource::Deleted => {}
    }
}

pub(in crate::build) fn write_row(slot: &mut [u8], key: u64, updated_at: u32, values: &[f32]) {
    slot[..8].copy_from_slice(&key.to_le_bytes());
    slot[8..SLOT_HEAD_BYTES].copy_from_slice(&updated_at.to_le_bytes());
    let (columns, padding) = slot[SLOT_HEAD_BYTES..].split_at_mut(values.len() * 4);
    padding.fill(0);
    for (to, value) in columns.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *to = value.to_le_bytes();
    }
}
