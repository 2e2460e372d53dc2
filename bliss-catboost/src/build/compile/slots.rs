//! Where each split's answer comes from: a slot (a byte) and the threshold that it is compared with.

use std::collections::HashMap;

use super::error::{CompileError, narrow};
use super::used::{Used, ranks};
use crate::build::ir::{Model, NanMode, Split};
use crate::layout::{Element, Group, LANES, MAX_ROWS, MAX_SLOTS, OneHot, Projection, Row};

/// A test of a slot: true where the slot is at least the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) slot: u16,
    pub(super) threshold: u8,
}

/// Inputs, slots, and what fills them.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) input_names: Vec<String>,
    pub(super) float_inputs: usize,
    pub(super) lanes: Vec<u32>,
    pub(super) groups: Vec<Group>,
    pub(super) rows: Vec<Row>,
    pub(super) one_hots: Vec<OneHot>,
    pub(super) projections: Vec<Projection>,
    pub(super) elements: Vec<Element>,
    pub(super) tables: Vec<u8>,
    pub(super) count: usize,
    /// Input of each categorical feature.
    cat_inputs: HashMap<usize, u32>,
    floats: HashMap<(usize, usize), Test>,
    equals: HashMap<(usize, u32), Test>,
    ctrs: HashMap<(usize, usize), Test>,
}

/// Which of several slots a rank falls into, and the threshold there.
pub(super) fn chunk_and_threshold(rank: usize) -> (usize, u8) {
    let (chunk, within) = ((rank - 1) / MAX_ROWS, (rank - 1) % MAX_ROWS);
    (chunk, u8::try_from(within + 1).unwrap_or(u8::MAX))
}

/// A lane: an input and at most [`MAX_ROWS`] of its borders.
struct Lane {
    feature: usize,
    chunk: usize,
    input: u32,
    borders: Vec<f32>,
    nan: NanMode,
}

impl Slots {
    /// The inputs, and the slots of numbers and of categories that are compared with a value.
    pub(super) fn of_inputs(model: &Model, used: &Used) -> Result<Self, CompileError> {
        let mut slots = Self::default();
        let mut lanes = Vec::new();
        let mut float_ranks = Vec::new();
        for (&feature, indexes) in &used.floats {
            let Some(float) = model.floats.get(feature) else { continue };
            let input = narrow(slots.input_names.len(), "inputs")?;
            slots.input_names.push(name(&float.name, "float", float.index));
            let (borders, ranks) = ranks(&float.borders, indexes);
            for (chunk, borders) in borders.chunks(MAX_ROWS).enumerate() {
                lanes.push(Lane { feature, chunk, input, borders: borders.to_vec(), nan: float.nan });
            }
            float_ranks.push((feature, ranks));
        }
        slots.float_inputs = slots.input_names.len();
        for &cat in &used.cats {
            let Some(feature) = model.cats.get(cat) else { continue };
            slots.cat_inputs.insert(cat, narrow(slots.input_names.len(), "inputs")?);
            slots.input_names.push(name(&feature.name, "cat", feature.index));
        }

        // Lanes with as many borders side by side: a group takes as many rows as its longest lane.
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.borders.len()));
        let mut lane_slots = HashMap::new();
        for (slot, lane) in lanes.iter().enumerate() {
            lane_slots.insert((lane.feature, lane.chunk), slot);
        }
        for group in lanes.chunks(LANES) {
            slots.push_group(group)?;
        }
        slots.count = slots.lanes.len();
        for (feature, ranks) in float_ranks {
            for (border, rank) in ranks {
                let (chunk, threshold) = chunk_and_threshold(rank);
                let slot = lane_slots.get(&(feature, chunk)).copied().unwrap_or(0);
                slots.floats.insert((feature, border), Test { slot: slot_number(slot)?, threshold });
            }
        }
        for &(cat, value) in &used.equals {
            let slot = slot_number(slots.count)?;
            slots.equals.insert((cat, value), Test { slot, threshold: 1 });
            slots.one_hots.push(OneHot { input: slots.cat_input(cat), value });
            slots.count += 1;
        }
        Ok(slots)
    }

    /// The input that a categorical feature is.
    pub(super) fn cat_input(&self, cat: usize) -> u32 {
        self.cat_inputs.get(&cat).copied().unwrap_or(0)
    }

    /// Fails where there are more slots than a slot's number can name.
    pub(super) fn check_count(&self) -> Result<(), CompileError> {
        slot_number(self.count.saturating_sub(1)).map(drop)
    }

    fn push_group(&mut self, lanes: &[Lane]) -> Result<(), CompileError> {
        let rows = lanes.iter().map(|l| l.borders.len()).max().unwrap_or(0);
        let mut group = Group {
            first_row: narrow(self.rows.len(), "rows of borders")?,
            rows: u16::try_from(rows).unwrap_or(u16::MAX),
            nan_largest: 0,
        };
        for (i, lane) in lanes.iter().enumerate() {
            self.lanes.push(lane.input);
            if lane.nan == NanMode::Largest {
                group.nan_largest |= 1 << i;
            }
        }
        self.lanes.resize(self.lanes.len().next_multiple_of(LANES), 0);
        for row in 0..rows {
            let mut borders = [f32::INFINITY; LANES];
            for (border, lane) in borders.iter_mut().zip(lanes) {
                *border = lane.borders.get(row).copied().unwrap_or(f32::INFINITY);
            }
            self.rows.push(Row(borders));
        }
        self.groups.push(group);
        Ok(())
    }

    pub(super) fn test(&self, split: Split) -> Result<Test, CompileError> {
        let found = match split {
            Split::Float(float, border) => self.floats.get(&(float, border)),
            Split::OneHot(cat, value) => self.equals.get(&(cat, value)),
            Split::Ctr(ctr, border) => self.ctrs.get(&(ctr, border)),
        };
        found.copied().ok_or_else(|| CompileError::Inconsistent(format!("{split:?} has no slot")))
    }

    pub(super) fn set_ctr(&mut self, ctr: usize, border: usize, test: Test) {
        self.ctrs.insert((ctr, border), test);
    }
}

pub(super) fn slot_number(slot: usize) -> Result<u16, CompileError> {
    u16::try_from(slot).map_err(|_| CompileError::TooLarge {
        what: "slots (a feature takes one per 254 borders, a tested category value one)",
        found: slot as u64,
        limit: MAX_SLOTS as u64,
    })
}

fn name(given: &str, kind: &str, index: usize) -> String {
    if given.is_empty() { format!("{kind}_{index}") } else { given.into() }
}
