//! CTRs, computed when a model is compiled: a combination's table leads from the key straight to the slots that
//! the trees test, and nothing is divided when a row is evaluated.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::slots::{Slots, Test, Used, place, ranks, slot_number};
use super::{CompileError, narrow};
use crate::model::ir::{Counts, Ctr, CtrKind, CtrTable, Element as IrElement, Model, Split};
use crate::model::layout::{Element, MAX_ROWS, Projection, entry_bytes, first_probe};

/// Marks an empty entry.
const EMPTY: u64 = u64::MAX;

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
    table: &'a CtrTable,
    rows: HashMap<u64, u32>,
    borders: Vec<f32>,
    offset: usize,
}

impl Part<'_> {
    fn fill(&self, row: Option<u32>, bytes: &mut [u8]) {
        let value = self.ctr.value(self.table, row);
        for (i, borders) in self.borders.chunks(MAX_ROWS).enumerate() {
            let count = borders.iter().filter(|b| value > **b).count();
            if let Some(byte) = bytes.get_mut(self.offset + i) {
                *byte = u8::try_from(count).unwrap_or(u8::MAX);
            }
        }
    }
}

/// Adds projections, their elements and their tables, and the tests of all CTR splits.
pub(super) fn compile(
    model: &Model,
    used: &Used,
    cat_inputs: &HashMap<usize, u32>,
    slots: &mut Slots,
) -> Result<(), CompileError> {
    // CTRs whose keys are made alike share a table.
    let mut projections: Vec<(&[IrElement], Vec<usize>)> = Vec::new();
    for &ctr in used.ctrs.keys() {
        let Some(table) = model.ctrs.get(ctr).and_then(|c| model.ctr_tables.get(c.table)) else { continue };
        match projections.iter_mut().find(|(elements, _)| *elements == table.projection) {
            Some((_, ctrs)) => ctrs.push(ctr),
            None => projections.push((&table.projection, vec![ctr])),
        }
    }
    for (elements, ctrs) in projections {
        let first_element = narrow(slots.elements.len(), "elements of combinations")?;
        for element in elements {
            let element = match *element {
                IrElement::Category(cat) => {
                    Element { threshold: 0, at: cat_inputs.get(&cat).copied().unwrap_or(0) }
                }
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
            let (chunk, threshold) = place(rank);
            let slot = slot_number(slots.count + width + chunk)?;
            slots.set_ctr(at, border, Test { slot, threshold });
        }
        let rows = table.keys.iter().copied().collect();
        let chunks = borders.len().div_ceil(MAX_ROWS);
        parts.push(Part { ctr, table, rows, borders, offset: width });
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
    let keys: BTreeSet<u64> =
        parts.iter().flat_map(|p| p.rows.keys().copied()).filter(|k| *k != EMPTY).collect();
    let mut unknown = vec![0; width];
    parts.iter().for_each(|p| p.fill(None, &mut unknown));
    unknown.resize(width.next_multiple_of(8), 0);

    // Two thirds full at most.
    let entries = keys.len() + keys.len() / 2 + 1;
    let mut placed: BTreeMap<usize, u64> = BTreeMap::new();
    let mut probes = 1;
    for &key in &keys {
        let start = usize::try_from(first_probe(key, entries as u64)).unwrap_or(0);
        let free = (0..entries).find(|i| !placed.contains_key(&((start + i) % entries)));
        let Some(steps) = free else { continue };
        placed.insert((start + steps) % entries, key);
        probes = probes.max(steps + 1);
    }
    let stride = entry_bytes(width);
    tables.reserve(entries.saturating_mul(stride));
    let mut row = unknown.clone();
    for at in 0..entries {
        let key = placed.get(&at).copied().unwrap_or(EMPTY);
        row.copy_from_slice(&unknown);
        if key != EMPTY {
            parts.iter().for_each(|p| p.fill(p.rows.get(&key).copied(), &mut row));
        }
        tables.extend_from_slice(&key.to_le_bytes());
        tables.extend_from_slice(&row);
    }
    tables.extend_from_slice(&unknown);
    projection.entries = entries as u64;
    projection.probes = probes as u64;
    Ok(())
}
