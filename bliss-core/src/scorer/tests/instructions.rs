//! Lookups against tables of every width, with every instruction set.

use super::{NOW, dimension, pack_change, with_default};
use crate::build::Rows;
use crate::build::{Change, DimensionChange};
use crate::key::{KeySecret, SECRET_BYTES};
use crate::request::Names;
use crate::schema::{Dimension, KeyPart, Schema};
use crate::score::Status;
use crate::scorer::{OPTIONAL_AT, Scorer, VECTOR_LEN};
use crate::table::{Buffers, Instructions};

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
        on_stale: Default::default(),
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
    let bytes = pack_change(&schema, &KeySecret([3; SECRET_BYTES]), &change);
    let mut scorer = Scorer::new();
    scorer.bind_features(&bytes, &Names::default()).unwrap();
    if Instructions::detect() == Instructions::Baseline {
        eprintln!("SKIPPED: part of all_instructions: this processor has no AVX2 and BMI2");
    }
    for instructions in [Instructions::Baseline, Instructions::detect()] {
        scorer.dimensions.instructions = instructions;
        let mut buffers = Buffers::new(VECTOR_LEN, OPTIONAL_AT);
        for round in 0..4 * ROWS {
            // Of each dimension another row, one that is not there, none, and the key of empty slots in turn.
            let row = |d: usize| (round + d as u64) % (ROWS + 2);
            let is_there = |d: usize| row(d) < ROWS && !(round + d as u64).is_multiple_of(7);
            let keys: Vec<u64> = (0..widths.len() - 1)
                .map(|d| if row(d) > ROWS { 0 } else { key(d, if is_there(d) { row(d) } else { 1000 }) })
                .collect();
            scorer.dimensions.look_up_keys(&bytes, &keys, NOW, &mut buffers);
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
                    assert_eq!(values.next(), Some(wanted), "{instructions:?}, {width} columns, {column}");
                }
            }
            // Nothing is written behind the columns: what is NaN from the start stays so.
            let behind = OPTIONAL_AT - widths.iter().sum::<usize>();
            assert!(values.by_ref().take(behind).all(|beyond| beyond == 0.0));
            assert!(values.all(f32::is_nan));
        }
    }
}
