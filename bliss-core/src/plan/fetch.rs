//! From the keys of a request to its rows: the part of a look-up that waits for memory.

use crate::schema::MAX_DIMENSIONS;
use crate::score::Status;
use crate::table::{Layout, Locator, Row, Sought, copy_columns, prefetch};

/// Dimensions whose cache misses are made to overlap; more take turns.
const BATCH: usize = 16;

/// What every look-up reads of a dimension, side by side with that of the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    locator: Locator,
    /// Places of its features in the vector of values.
    first: u32,
    columns: u32,
    /// `u32::MAX` where rows do not grow old.
    max_age_seconds: u32,
}

impl Hot {
    /// Of a dimension whose features begin at place `first` of the vector of values.
    pub(super) fn new(layout: &Layout, table_at: usize, first: usize, max_age_seconds: u32) -> Self {
        // A schema has no more features than fit; places beyond the vector would be left alone.
        let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self {
            locator: Locator::new(layout, table_at),
            first: narrow(first),
            columns: narrow(layout.columns()),
            max_age_seconds: if max_age_seconds == 0 { u32::MAX } else { max_age_seconds },
        }
    }

    #[inline]
    fn places(&self) -> core::ops::Range<usize> {
        let first = self.first as usize;
        first..first + self.columns as usize
    }
}

/// What a look-up writes, kept from one to the next so that it need not be made ready each time.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The vector of values.
    pub(super) values: Box<[f32]>,
    /// How each dimension answered.
    pub(super) statuses: [Status; MAX_DIMENSIONS],
    sought: [Sought; BATCH],
}

impl Buffers {
    pub(super) fn new(values: usize) -> Self {
        Self {
            values: vec![0.0; values].into(),
            statuses: [Status::Unused; MAX_DIMENSIONS],
            sought: [Sought::NOTHING; BATCH],
        }
    }
}

/// Instructions for which [`fetch`] is compiled. All give the same results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    /// Those that every processor of the architecture has.
    Baseline,
    /// x86-64 with AVX2 and BMI2. Made by [`Self::detect`] alone, where the processor has them.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Instructions {
    /// The fastest that this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            return Self::Avx2;
        }
        Self::Baseline
    }
}

/// The time of a look-up, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: u32,
    /// Rows from later than this are from a clock that is wrong.
    pub(super) latest: u32,
}

impl Clock {
    #[inline]
    fn age(self, updated_at: u32, max_age_seconds: u32) -> Status {
        let is_stale = updated_at > self.latest || self.now.saturating_sub(updated_at) > max_age_seconds;
        if is_stale { Status::Stale } else { Status::Fresh }
    }
}

/// What one look-up is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    pub(super) hot: &'a [Hot],
    pub(super) snapshot: &'a [u8],
    pub(super) clock: Clock,
    /// Values of rows that are not there, as rows hold them.
    pub(super) defaults: &'a [[u8; 4]],
}

/// Writes the rows of all dimensions, or defaults where there is none, and how each dimension answered. `key` gives the
/// key of a dimension, which is not 0, or what to answer without one; values of [`Status::Unused`] ones stay as they are.
#[inline]
pub(super) fn fetch(
    instructions: Instructions,
    task: Task<'_>,
    key: impl Fn(usize) -> Result<u64, Status>,
    buffers: &mut Buffers,
) {
    match instructions {
        Instructions::Baseline => passes(task, key, buffers),
        #[cfg(target_arch = "x86_64")]
        // SAFETY:
        // - the processor has AVX2 and BMI2, else there would be no such value: `Instructions::detect`
        Instructions::Avx2 => unsafe { passes_avx2(task, key, buffers) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn passes_avx2(task: Task<'_>, key: impl Fn(usize) -> Result<u64, Status>, buffers: &mut Buffers) {
    passes(task, key, buffers);
}

/// Three passes over a batch of dimensions, so that their cache misses overlap: ask for pilots, ask for slots, read.
#[inline(always)]
fn passes(task: Task<'_>, key: impl Fn(usize) -> Result<u64, Status>, buffers: &mut Buffers) {
    let Task { hot, snapshot, clock, defaults } = task;
    let Buffers { values, statuses, sought } = buffers;
    for (batch, (hot, statuses)) in hot.chunks(BATCH).zip(statuses.chunks_mut(BATCH)).enumerate() {
        let first = batch * BATCH;
        for (i, ((hot, sought), status)) in hot.iter().zip(sought.iter_mut()).zip(&mut *statuses).enumerate()
        {
            match key(first + i) {
                Ok(key) => {
                    *sought = hot.locator.seek(key);
                    prefetch(snapshot, sought.at);
                    *status = Status::Missing;
                }
                Err(why) => {
                    *sought = Sought::NOTHING;
                    *status = why;
                }
            }
        }
        for (hot, sought) in hot.iter().zip(sought.iter_mut()) {
            let Some(pilot) = snapshot.get(sought.at) else { continue };
            hot.locator.find(sought, *pilot);
            // The lines between first and last of a wide row come along by themselves when it is copied.
            prefetch(snapshot, sought.at);
            prefetch(snapshot, sought.at + hot.locator.stride() - 1);
        }
        for ((hot, sought), status) in hot.iter().zip(&*sought).zip(statuses) {
            let Some(values) = values.get_mut(hot.places()) else { continue };
            match Row::at(snapshot, sought.at, sought.key, hot.columns as usize) {
                Some(row) => {
                    row.copy_to(values);
                    *status = clock.age(row.updated_at, hot.max_age_seconds);
                }
                None if *status == Status::Unused => {}
                None => {
                    copy_columns(defaults.get(hot.places()).unwrap_or_default(), values);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, dimension, packed, with_default};
    use super::super::{Plan, VECTOR_LEN};
    use super::*;
    use crate::key::{KeySecret, SECRET_BYTES};
    use crate::request::Names;
    use crate::schema::{Dimension, KeyPart, Schema};
    use crate::snapshot::{Change, DimensionChange};
    use crate::table::Rows;

    const ROWS: u64 = 50;

    fn key(dimension: usize, row: u64) -> u64 {
        (dimension as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(row.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    fn value(dimension: usize, row: u64, column: usize) -> f32 {
        (dimension * 10_000 + row as usize * 100 + column) as f32
    }

    /// In some dimensions rows never grow old.
    fn max_age_seconds(dimension: usize) -> u32 {
        if dimension.is_multiple_of(5) { 0 } else { 600 }
    }

    /// One row in four is a second too old.
    fn age(row: u64) -> u32 {
        if row.is_multiple_of(4) { 601 } else { 600 }
    }

    fn expected(dimension: usize, row: u64) -> Status {
        let is_stale = max_age_seconds(dimension) != 0 && age(row) > 600;
        if is_stale { Status::Stale } else { Status::Fresh }
    }

    #[test]
    fn all_instructions_give_the_rows_of_tables_of_any_width() {
        let widths: Vec<usize> = (1..=40).collect();
        let features = |width| (0..width).map(|i| with_default(&format!("f{i}"), -(i as f32))).collect();
        let dimensions = widths.iter().enumerate().map(|(d, w)| Dimension {
            max_age_seconds: max_age_seconds(d),
            ..dimension(&format!("d{w}"), vec![KeyPart::whole("ip")], features(*w))
        });
        let schema = Schema { dimensions: dimensions.collect(), ..Schema::default() };
        let tables = widths.iter().enumerate().map(|(d, width)| {
            let mut rows = Rows::new(*width);
            for row in 0..ROWS {
                let values: Vec<f32> = (0..*width).map(|column| value(d, row, column)).collect();
                rows.push(key(d, row), NOW - age(row), &values);
            }
            (d, DimensionChange::Replace(rows))
        });
        let change = Change { dimensions: tables.collect() };
        let bytes = packed(&schema, &KeySecret([3; SECRET_BYTES]), &change);
        let mut plan = Plan::new();
        plan.bind_snapshot(&bytes, &Names::default()).unwrap();
        if Instructions::detect() == Instructions::Baseline {
            eprintln!("SKIPPED: part of all_instructions: this processor has no AVX2 and BMI2");
        }
        for instructions in [Instructions::Baseline, Instructions::detect()] {
            plan.dimensions.instructions = instructions;
            let mut buffers = Buffers::new(VECTOR_LEN);
            for round in 0..4 * ROWS {
                // Of each dimension another row, one that is not there, none, and the key of empty slots in turn.
                let row = |d: usize| (round + d as u64) % (ROWS + 2);
                let is_there = |d: usize| row(d) < ROWS && !(round + d as u64).is_multiple_of(7);
                let keys: Vec<u64> = (0..widths.len() - 1)
                    .map(|d| if row(d) > ROWS { 0 } else { key(d, if is_there(d) { row(d) } else { 1000 }) })
                    .collect();
                plan.dimensions.look_up_keys(&bytes, &keys, NOW, &mut buffers);
                let mut values = buffers.values.iter().copied();
                for (d, width) in widths.iter().enumerate() {
                    let has_key = d < keys.len();
                    let status = match (has_key, is_there(d)) {
                        (false, _) => Status::Absent,
                        (true, true) => expected(d, row(d)),
                        (true, false) => Status::Missing,
                    };
                    assert_eq!(buffers.statuses[d], status, "{instructions:?}, dimension {d}, round {round}");
                    for column in 0..*width {
                        let there = has_key && is_there(d);
                        let wanted = if there { value(d, row(d), column) } else { -(column as f32) };
                        assert_eq!(
                            values.next(),
                            Some(wanted),
                            "{instructions:?}, {width} columns, {column}"
                        );
                    }
                }
                assert!(values.all(|beyond| beyond == 0.0));
            }
        }
    }
}
