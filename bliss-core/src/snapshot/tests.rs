use rkyv::util::AlignedVec;

use super::*;
use crate::key::hash_key;
use crate::schema::{Dimension, Feature, KeyPart};
use crate::table::{BuildJob, Rows, TableError};

fn schema(features: &[&str]) -> Schema {
    let dimension = |name: &str, key| Dimension {
        name: name.into(),
        key,
        max_age_seconds: 600,
        features: features.iter().map(|f| Feature { default: -1.0, ..Feature::number(f) }).collect(),
    };
    let user_agent = dimension("user_agent", vec![KeyPart::whole("user_agent")]);
    Schema { dimensions: vec![dimension("ip", vec![KeyPart::whole("ip")]), user_agent], ..Schema::default() }
}

fn secret() -> KeySecret {
    KeySecret([7; SECRET_BYTES])
}

fn sequentially(jobs: Vec<BuildJob<'_>>) -> Result<u64, TableError> {
    jobs.into_iter().map(BuildJob::run).sum()
}

fn written(schema: &Schema, current: Option<SnapshotRef<'_>>, change: &Change) -> AlignedVec<64> {
    let writing = Writing::plan(schema, &secret(), current, change).unwrap();
    let mut bytes = AlignedVec::with_capacity(0);
    bytes.resize(writing.bytes() as usize, 0xee);
    writing.write(&mut bytes, 2, sequentially).unwrap();
    bytes
}

fn key(i: u32) -> u64 {
    hash_key(&secret(), "ip", core::iter::once(i.to_le_bytes().as_slice()))
}

fn rows(width: usize, range: core::ops::Range<u32>) -> Rows {
    let mut rows = Rows::new(width);
    range.for_each(|i| {
        rows.push(key(i), i, &(0..width).map(|c| (i * 10 + c as u32) as f32).collect::<Vec<_>>())
    });
    rows
}

fn patch(upserts: Rows, deletes: Vec<u64>) -> Change {
    Change { dimensions: vec![(0, DimensionChange::Patch { upserts, deletes })] }
}

fn values(snapshot: &SnapshotRef<'_>, dimension: usize, i: u32) -> Option<Vec<f32>> {
    snapshot.table(dimension).unwrap().get(key(i)).map(|row| row.values().collect())
}

#[test]
fn goes_on_from_the_current_snapshot() {
    let schema = schema(&["a", "b"]);
    let both =
        vec![(0, DimensionChange::Replace(rows(2, 0..100))), (1, DimensionChange::Replace(rows(2, 0..9)))];
    let first = written(&schema, None, &Change { dimensions: both });
    let first = SnapshotRef::open(&first).unwrap();
    assert_eq!(first.schema_owned().unwrap(), schema);
    assert_eq!(first.secret(), secret());
    assert_eq!(values(&first, 0, 99).unwrap(), [990.0, 991.0]);

    let next = written(&schema, Some(first), &patch(rows(2, 99..5000), vec![key(0)]));
    let next = SnapshotRef::open(&next).unwrap();
    assert_eq!(next.table(0).unwrap().rows(), 4999);
    assert_eq!(values(&next, 0, 0), None);
    assert_eq!(values(&next, 0, 1).unwrap(), [10.0, 11.0]);
    assert_eq!(values(&next, 0, 4999).unwrap(), [49990.0, 49991.0]);
    assert_eq!(next.table(1).unwrap().rows(), 9);

    let replaced = Change { dimensions: vec![(0, DimensionChange::Replace(rows(2, 5..6)))] };
    let replaced = written(&schema, Some(next), &replaced);
    let replaced = SnapshotRef::open(&replaced).unwrap();
    assert_eq!(replaced.table(0).unwrap().rows(), 1);
    assert_eq!(replaced.table(1).unwrap().rows(), 9);
}

#[test]
fn in_place_equals_writing_anew() {
    let schema = schema(&["a", "b"]);
    let first = written(&schema, None, &patch(rows(2, 0..2000), vec![]));
    let change = patch(rows(2, 1500..2600), (0..300).map(key).collect());
    let anew = written(&schema, Some(SnapshotRef::open(&first).unwrap()), &change);
    let mut in_place = first.clone();
    apply_in_place(&mut in_place[..], &change).unwrap();
    let (anew, in_place) = (SnapshotRef::open(&anew).unwrap(), SnapshotRef::open(&in_place).unwrap());
    assert_eq!(anew.table(0).unwrap().rows(), in_place.table(0).unwrap().rows());
    (0..2700).for_each(|i| assert_eq!(values(&anew, 0, i), values(&in_place, 0, i), "{i}"));
}

#[test]
fn columns_follow_their_names() {
    let first = written(&schema(&["a", "b"]), None, &patch(rows(2, 0..10), vec![]));
    let next = schema(&["b", "new"]);
    let next = written(&next, Some(SnapshotRef::open(&first).unwrap()), &Change::default());
    assert_eq!(values(&SnapshotRef::open(&next).unwrap(), 0, 3).unwrap(), [31.0, -1.0]);

    // Another key makes another dimension: its old rows mean nothing any more.
    let mut other_key = schema(&["a", "b"]);
    other_key.dimensions[0].key = vec![KeyPart::subnet("ip", 24, 48)];
    let next = written(&other_key, Some(SnapshotRef::open(&first).unwrap()), &Change::default());
    assert_eq!(SnapshotRef::open(&next).unwrap().table(0).unwrap().rows(), 0);
}

#[test]
fn refusals_name_the_dimension() {
    let schema = schema(&["a", "b"]);
    let mut twice = rows(2, 0..3);
    twice.push(key(0), 1, &[1.0, 1.0]);
    let change = Change { dimensions: vec![(1, DimensionChange::Replace(twice))] };
    let writing = Writing::plan(&schema, &secret(), None, &change).unwrap();
    let mut bytes = vec![0; writing.bytes() as usize];
    let error = writing.write(&mut bytes, 1, sequentially).unwrap_err();
    assert!(error.to_string().starts_with("dimension \"user_agent\": key"), "{error}");

    let unknown = Change { dimensions: vec![(2, DimensionChange::Replace(rows(2, 0..1)))] };
    let error = Writing::plan(&schema, &secret(), None, &unknown).unwrap_err();
    assert_eq!(error, SnapshotError::Dimension { index: 2, dimensions: 2 });

    let mut twice = patch(rows(2, 0..1), vec![]);
    twice.dimensions.extend(patch(rows(2, 1..2), vec![]).dimensions);
    assert_eq!(
        Writing::plan(&schema, &secret(), None, &twice).unwrap_err(),
        SnapshotError::Twice { index: 0 }
    );
    let mut bytes = written(&schema, None, &Change::default());
    let before = bytes.clone();
    assert_eq!(apply_in_place(&mut bytes[..], &twice), Err(SnapshotError::Twice { index: 0 }));
    assert_eq!(bytes.as_slice(), before.as_slice());

    let wide = patch(rows(3, 0..1), vec![]);
    let mut bytes = written(&schema, None, &Change::default());
    let error = apply_in_place(&mut bytes[..], &wide).unwrap_err();
    assert!(error.to_string().contains("\"ip\": rows of 3 columns for a table of 2"), "{error}");
}

/// Every prefix, every flipped byte of header and metadata: an error or some answer, never a panic.
#[test]
fn damaged_snapshots_are_errors_or_readable() {
    let good = written(&schema(&["a", "b"]), None, &patch(rows(2, 0..50), vec![]));
    for len in 0..good.len() {
        let mut cut = AlignedVec::<64>::new();
        cut.extend_from_slice(&good[..len]);
        assert!(SnapshotRef::open(&cut).is_err(), "{len} bytes");
    }
    let tables_at = SnapshotRef::open(&good).unwrap().table_place(0).unwrap().0 as usize;
    for at in 0..tables_at + 64 {
        for flip in [1u8, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            if let Ok(snapshot) = SnapshotRef::open(&bad) {
                let dimensions = snapshot.schema().dimensions.len();
                (0..dimensions).for_each(|d| (0..60).for_each(|i| drop(values(&snapshot, d, i))));
            }
        }
    }
    let models = |bytes: &mut AlignedVec<64>| bytes[12] = 2;
    let mut other = good.clone();
    models(&mut other);
    assert_eq!(SnapshotRef::open(&other).unwrap_err(), FrameError::Kind { expected: 1, found: 2 });
}

#[test]
fn a_table_of_another_width_than_its_dimension_is_refused() {
    let mut bytes = written(&schema(&["a", "b"]), None, &patch(rows(2, 0..50), vec![]));
    let at = SnapshotRef::open(&bytes).unwrap().table_place(1).unwrap().0 as usize;
    // One column of 4 bytes in slots of 16, which fits where two columns were.
    bytes[at + 12..at + 16].copy_from_slice(&1u32.to_le_bytes());
    bytes[at + 16..at + 20].copy_from_slice(&16u32.to_le_bytes());
    assert_eq!(TableRef::open(&bytes[at..]).unwrap().layout().columns(), 1);
    assert_eq!(SnapshotRef::open(&bytes).unwrap_err(), FrameError::Section { index: 1 });
}
