//! CTRs, computed when a model is compiled: a combination's table leads from the key straight to the slots that
//! the trees test, and nothing is divided when a row is evaluated.

use std::collections::{BTreeSet, HashMap};

use super::error::{CompileError, narrow};
use super::slots::{Slots, Test, chunk_and_threshold, slot_number};
use super::used::{Used, ranks};
use crate::build::ir::{Counts, Ctr, CtrKind, CtrTable, Element as IrElement, Model, Split};
use crate::layout::{Element, MAX_ROWS, Projection, entry_bytes, first_probe};

/// Marks an empty entry.
const EMPTY: u64 = u64::MAX;

/// Entries that a lookup may have to visit. With random keys, a table that is two thirds full needs some two hundred
/// at ten million keys; keys that were made to collide are refused.
const MAX_PROBES: usize = 1024;

/// Tables with wider entries than this must not be larger than [`WIDE_TABLE_BYTES`]: a file could otherwise ask for as
/// many bytes as its keys times its CTRs.
const WIDE_ENTRY_BYTES: usize = 512;
const WIDE_TABLE_BYTES: usize = 64 << 20;

impl Ctr {
    /// The value for a key's counts, or for a key that the table lacks.
    pub(crate) fn value(&self, table: &CtrTable, row: Option<u32>) -> f32 {
        match &table.counts {
            Counts::Means(means) => {
                let found = row.and_then(|r| means.get(r as usize));
                found.map_or_else(
                    || self.quotient(0.0, 0.0),
                    |(sum, count)| self.quotient(*sum, *count as f32),
                )
            }
            Counts::Totals { denominator, counts } => {
                let count = row.and_then(|r| counts.get(r as usize)).copied().unwrap_or(0);
                self.quotient(count as f32, *denominator as f32)
            }
            Counts::Classes { classes, counts } => {
                let own = row.and_then(|r| counts.chunks_exact((*classes).max(1)).nth(r as usize));
                let own = own.unwrap_or_default();
                let total = own.iter().fold(0_i32, |sum, n| sum.wrapping_add(*n));
                let good: &[i32] = match table.kind {
                    CtrKind::Buckets => own.get(self.target_border..=self.target_border).unwrap_or_default(),
                    _ if *classes == 2 => own.get(1..).unwrap_or_default(),
                    _ => own.get(self.target_border + 1..).unwrap_or_default(),
                };
                let good = good.iter().fold(0_i32, |sum, n| sum.wrapping_add(*n));
                self.quotient(good as f32, total as f32)
            }
        }
    }

    fn quotient(&self, count: f32, total: f32) -> f32 {
        ((count + self.prior_numerator) / (total + self.prior_denominator) + self.shift) * self.scale
    }
}

/// A CTR's part of a row: which bytes it fills, and its borders in each.
struct Part<'a> {
    ctr: &'a Ctr,
    table: usize,
    counts: &'a CtrTable,
    borders: Vec<f32>,
    offset: usize,
}

/// The rows of each table that a projection's CTRs look at, by key.
type Rows = HashMap<usize, HashMap<u64, u32>>;

impl Part<'_> {
    fn fill(&self, row: Option<u32>, bytes: &mut [u8]) {
        let value = self.ctr.value(self.counts, row);
        for (i, borders) in self.borders.chunks(MAX_ROWS).enumerate() {
            // Borders ascend. NaN exceeds none of them.
            let count = borders.partition_point(|b| value > *b);
            if let Some(byte) = bytes.get_mut(self.offset + i) {
                *byte = u8::try_from(count).unwrap_or(u8::MAX);
            }
        }
    }
}

/// Adds projections, their elements and their tables, and the tests of all CTR splits.
pub(super) fn compile(model: &Model, used: &Used, slots: &mut Slots) -> Result<(), CompileError> {
    // CTRs whose keys are made alike share a table.
    let mut known: HashMap<&[IrElement], usize> = HashMap::new();
    let mut projections: Vec<(&[IrElement], Vec<usize>)> = Vec::new();
    for &ctr in used.ctrs.keys() {
        let Some(table) = model.ctrs.get(ctr).and_then(|c| model.ctr_tables.get(c.table)) else { continue };
        let at = *known.entry(&table.projection).or_insert(projections.len());
        match projections.get_mut(at) {
            Some((_, ctrs)) => ctrs.push(ctr),
            None => projections.push((&table.projection, vec![ctr])),
        }
    }
    for (elements, ctrs) in projections {
        let first_element = narrow(slots.elements.len(), "elements of combinations")?;
        for element in elements {
            let element = match *element {
                IrElement::Category(cat) => Element { threshold: 0, at: slots.cat_input(cat) },
                IrElement::Above(float, border) => element_of(slots.test(Split::Float(float, border))?),
                IrElement::Equals(cat, value) => element_of(slots.test(Split::OneHot(cat, value))?),
            };
            slots.elements.push(element);
        }
        let (parts, width) = parts(model, used, &ctrs, slots)?;
        let mut projection = Projection {
            first_element,
            elements: narrow(elements.len(), "elements of combinations")?,
            first_slot: narrow(slots.count, "slots")?,
            slots: narrow(width, "slots")?,
            table: slots.tables.len() as u64,
            ..Projection::default()
        };
        push_table(&parts, width, &mut projection, &mut slots.tables)?;
        slots.projections.push(projection);
        slots.count += width;
    }
    Ok(())
}

fn element_of(test: Test) -> Element {
    Element { threshold: u32::from(test.threshold), at: u32::from(test.slot) }
}

/// The CTRs of a projection side by side, and how many slots they fill; sets their tests.
fn parts<'a>(
    model: &'a Model,
    used: &Used,
    ctrs: &[usize],
    slots: &mut Slots,
) -> Result<(Vec<Part<'a>>, usize), CompileError> {
    let mut parts = Vec::new();
    let mut width = 0;
    for &at in ctrs {
        let (Some(ctr), Some(indexes)) = (model.ctrs.get(at), used.ctrs.get(&at)) else { continue };
        let Some(table) = model.ctr_tables.get(ctr.table) else { continue };
        let (borders, ranks) = ranks(&ctr.borders, indexes);
        for (border, rank) in ranks {
            let (chunk, threshold) = chunk_and_threshold(rank);
            let slot = slot_number(slots.count + width + chunk)?;
            slots.set_ctr(at, border, Test { slot, threshold });
        }
        let chunks = borders.len().div_ceil(MAX_ROWS);
        parts.push(Part { ctr, table: ctr.table, counts: table, borders, offset: width });
        width += chunks;
    }
    Ok((parts, width))
}

/// Appends the hash table of a projection: keys of all its CTRs, each with its row of slots.
fn push_table(
    parts: &[Part<'_>],
    width: usize,
    projection: &mut Projection,
    tables: &mut Vec<u8>,
) -> Result<(), CompileError> {
    let mut rows = Rows::new();
    for part in parts {
        rows.entry(part.table).or_insert_with(|| part.counts.keys.iter().copied().collect());
    }
    let keys: BTreeSet<u64> = rows.values().flat_map(|r| r.keys().copied()).filter(|k| *k != EMPTY).collect();
    let mut unknown = vec![0; width];
    parts.iter().for_each(|p| p.fill(None, &mut unknown));
    unknown.resize(width.next_multiple_of(8), 0);

    // Two thirds full at most.
    let entries = keys.len() + keys.len() / 2 + 1;
    let stride = entry_bytes(width);
    let bytes = entries.saturating_mul(stride);
    if stride > WIDE_ENTRY_BYTES && bytes > WIDE_TABLE_BYTES {
        let (what, limit) = ("bytes of CTRs over one combination of features", WIDE_TABLE_BYTES as u64);
        return Err(CompileError::TooLarge { what, found: bytes as u64, limit });
    }
    let mut settled = vec![EMPTY; entries];
    let mut probes = 1;
    for &key in &keys {
        let start = usize::try_from(first_probe(key, entries as u64)).unwrap_or(0);
        let (before, from) = settled.split_at_mut(start.min(entries));
        let candidates = from.iter_mut().chain(before).take(MAX_PROBES).enumerate();
        let mut free = candidates.filter(|(_, entry)| **entry == EMPTY);
        let Some((steps, entry)) = free.next() else {
            let (what, found) = ("CTR keys that collide", MAX_PROBES as u64 + 1);
            return Err(CompileError::TooLarge { what, found, limit: MAX_PROBES as u64 });
        };
        *entry = key;
        probes = probes.max(steps + 1);
    }
    tables.reserve(bytes);
    let mut row = unknown.clone();
    for key in settled {
        row.copy_from_slice(&unknown);
        if key != EMPTY {
            for part in parts {
                part.fill(rows.get(&part.table).and_then(|r| r.get(&key)).copied(), &mut row);
            }
        }
        tables.extend_from_slice(&key.to_le_bytes());
        tables.extend_from_slice(&row);
    }
    tables.extend_from_slice(&unknown);
    projection.entries = entries as u64;
    projection.probes = probes as u64;
    Ok(())
}
