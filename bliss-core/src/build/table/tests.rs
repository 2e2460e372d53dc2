use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::table::{Layout, TableError, TableRef};

type Model = HashMap<u64, (u32, Vec<f32>)>;

fn spread(i: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()).max(1)
}

fn row(columns: usize, seed: u64) -> Vec<f32> {
    (0..columns).map(|c| (seed * 31 + c as u64) as f32).collect()
}

fn rows(columns: usize, keys: impl Iterator<Item = u64>) -> Rows {
    let mut rows = Rows::new(columns);
    for (i, key) in keys.enumerate() {
        rows.push(key, i as u32, &row(columns, key >> 40));
    }
    rows
}

fn plain<'a>(upserts: &'a Rows) -> Source<'a> {
    Source { old: None, upserts, last_wins: false, deletes: &[] }
}

fn built(layout: Layout, source: &Source<'_>) -> Vec<u8> {
    let mut bytes = vec![0xaa; layout.bytes()];
    build(&mut bytes, layout, source).unwrap();
    bytes
}

fn contents(table: &TableRef<'_>) -> Model {
    table.iter().map(|(key, row)| (key, (row.updated_at, row.values().collect()))).collect()
}

fn assert_holds(table: &TableRef<'_>, model: &Model) {
    assert_eq!(table.rows(), model.len() as u64);
    for (key, (updated_at, values)) in model {
        let row = table.get(*key).unwrap_or_else(|| panic!("key {key:016x} is missing"));
        assert_eq!((row.updated_at, row.values().collect::<Vec<_>>()), (*updated_at, values.clone()));
    }
    assert_eq!(&contents(table), model);
}

#[test]
fn bulk_build_finds_every_key_at_any_size() {
    for (count, columns) in [(0, 1), (1, 3), (15, 16), (1000, 2), (5000, 16), (60_000, 1), (200_000, 4)] {
        let rows = rows(columns, (0..count).map(spread));
        let layout = Layout::for_rows(count, columns).unwrap();
        let bytes = built(layout, &plain(&rows));
        let table = TableRef::open(&bytes).unwrap();
        assert_eq!(table.rows(), count);
        for i in 0..rows.len() {
            let found = table.get(rows.keys[i]).unwrap();
            assert_eq!(found.updated_at, i as u32);
            assert_eq!(found.values().collect::<Vec<_>>(), rows.row(i));
        }
        assert!((count..count + 10_000).all(|i| table.get(spread(i)).is_none()));
        assert!(table.get(0).is_none());
    }
}

/// Each copy takes at most 1.3 times the bytes of keys, times and rows, right after building and at the fullest.
#[test]
fn space_is_bounded_above_100_000_rows() {
    for columns in [1, 2, 3, 4, 7, 13, 16, 20, 100, 300] {
        for count in [100_000u64, 123_457, 1_000_000, 9_999_999] {
            let layout = Layout::for_rows(count, columns).unwrap();
            let ratio = layout.bytes() as f64 / (count as f64 * (12 + 4 * columns) as f64);
            assert!(ratio <= 1.3, "{columns} columns, {count} rows: {ratio}");
            assert!(layout.max_rows() > count, "{layout:?}");
        }
    }
}

#[test]
fn jobs_in_threads_equal_one_job() {
    let rows = rows(5, (0..100_000).map(spread));
    let layout = Layout::for_rows(rows.len() as u64, 5).unwrap();
    let alone = built(layout, &plain(&rows));
    let mut together = vec![0x55; layout.bytes()];
    let jobs = build_jobs(&mut together, layout, &plain(&rows), 3).unwrap();
    assert_eq!(jobs.len(), 3);
    let made: u64 = std::thread::scope(|s| {
        let running: Vec<_> = jobs.into_iter().map(|job| s.spawn(|| job.run().unwrap())).collect();
        running.into_iter().map(|r| r.join().unwrap()).sum()
    });
    finish(&mut together, &layout, made).unwrap();
    assert_eq!(contents(&TableRef::open(&alone).unwrap()), contents(&TableRef::open(&together).unwrap()));
}

#[test]
fn fills_to_its_limit_in_place_and_then_says_so() {
    let layout = Layout::for_rows(60_000, 2).unwrap();
    let none = Rows::new(2);
    let mut bytes = built(layout, &plain(&none));
    let mut table = TableMut::open(&mut bytes[..], 0).unwrap();
    let room = layout.max_rows();
    for batch in 0..room.div_ceil(1000) {
        let keys = (batch * 1000..(batch * 1000 + 1000).min(room)).map(spread);
        table.apply(&rows(2, keys), &[]).unwrap();
    }
    assert_eq!(table.as_ref().rows(), room);
    assert!((0..room).all(|i| table.as_ref().get(spread(i)).is_some()));
    let error = table.apply(&rows(2, [spread(room)].into_iter()), &[]).unwrap_err();
    assert_eq!(error, TableError::Full { rows: room + 1, room });
    assert_eq!(table.as_ref().rows(), room);
    assert!((0..room).all(|i| table.as_ref().get(spread(i)).is_some()), "a refused row costs no other");
}

#[test]
fn a_key_twice_is_refused_unless_the_last_may_win() {
    let rows = rows(1, [7, 8, 7].into_iter());
    let layout = Layout::for_rows(3, 1).unwrap();
    let mut bytes = vec![0; layout.bytes()];
    assert_eq!(build(&mut bytes, layout, &plain(&rows)), Err(TableError::Duplicate { key: 7 }));
    assert_eq!(build(&mut bytes, layout, &Source { last_wins: true, ..plain(&rows) }), Ok(2));
    assert_eq!(TableRef::open(&bytes).unwrap().get(7).unwrap().updated_at, 2);
}

/// Keys of one region only, as no keyed hash would give: an error, and what was there stays readable.
#[test]
fn crowded_keys_are_an_error_not_a_loop() {
    let layout = Layout::for_rows(100_000, 1).unwrap();
    let crowd = rows(1, 1..=5000);
    let mut bytes = vec![0; layout.bytes()];
    assert!(matches!(build(&mut bytes, layout, &plain(&crowd)), Err(TableError::Crowded { .. })));
    let few = rows(1, 1..=100);
    let mut bytes = built(layout, &plain(&few));
    let mut table = TableMut::open(&mut bytes[..], 0).unwrap();
    assert!(matches!(table.apply(&crowd, &[]), Err(TableError::Crowded { .. })));
    assert!((1..=100).all(|key| table.as_ref().get(key).is_some()));
}

/// Regions get keys by chance: one with far more than its share must still be arranged, at once and key by key.
#[test]
fn a_region_that_is_nearly_full_is_arranged() {
    let layout = Layout::for_rows(3400, 1).unwrap();
    assert_eq!(layout.regions(), 1);
    for seed in 0..10 {
        let keys =
            |share: usize| (0..(layout.slots() * share / 100) as u64).map(move |i| spread(seed << 32 | i));
        let mut arrangement = region::Arrangement::new(layout);
        arrangement.insert_all(keys(98)).unwrap();
        let mut arrangement = region::Arrangement::new(layout);
        arrangement.insert_all(keys(85)).unwrap();
        for key in keys(97).skip(keys(85).count()) {
            arrangement.insert(key).unwrap();
        }
    }
}

/// Keys that differ in one bit only, whichever it is: alike in slot, bucket or region, never confused.
#[test]
fn similar_keys_stay_apart() {
    let base = spread(1);
    let keys: Vec<u64> = (0..64).map(|bit| base ^ 1 << bit).chain([base]).collect();
    for count in [65, 200_000] {
        let rows = rows(1, keys.iter().copied());
        let layout = Layout::for_rows(count, 1).unwrap();
        let bytes = built(layout, &plain(&rows));
        let table = TableRef::open(&bytes).unwrap();
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(table.get(*key).unwrap().updated_at, i as u32);
        }
    }
}

#[test]
fn columns_can_be_reordered_added_and_removed() {
    let old = rows(3, (0..5000).map(spread));
    let old_bytes = built(Layout::for_rows(5000, 3).unwrap(), &plain(&old));
    let old_table = TableRef::open(&old_bytes).unwrap();
    let none = Rows::new(2);
    let columns = [Column::Old(2), Column::Default(9.5)];
    let source = Source { old: Some((old_table, &columns)), upserts: &none, last_wins: true, deletes: &[] };
    let bytes = built(Layout::for_rows(5000, 2).unwrap(), &source);
    let table = TableRef::open(&bytes).unwrap();
    for i in 0..old.len() {
        let values: Vec<_> = table.get(old.keys[i]).unwrap().values().collect();
        assert_eq!(values, [old.row(i)[2], 9.5]);
    }
}

#[test]
fn wrong_headers_are_named() {
    let rows = rows(2, (0..100).map(spread));
    let good = built(Layout::for_rows(100, 2).unwrap(), &plain(&rows));
    assert!(matches!(TableRef::open(&good[..63]), Err(TableError::CutOff { expected: 64, found: 63 })));
    assert!(matches!(TableRef::open(&good[..good.len() - 1]), Err(TableError::CutOff { .. })));
    let with = |at: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        TableRef::open(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 1), TableError::Magic);
    assert_eq!(with(8, 2), TableError::Version { found: 2 });
    for (at, field) in
        [(12, "columns"), (16, "stride"), (20, "region_slots"), (24, "region_pilots"), (28, "regions")]
    {
        assert_eq!(with(at, 0), TableError::Header { field, found: 0 });
        let huge = with(at, u32::MAX);
        let cut_off = matches!(huge, TableError::CutOff { .. });
        assert!(cut_off || matches!(huge, TableError::Header { field: f, .. } if f == field), "{huge:?}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Apply { upserts: Vec<(u16, u32)>, deletes: Vec<u16> },
    Rebuild { spare: u64, upserts: Vec<(u16, u32)>, deletes: Vec<u16> },
}

fn op() -> impl Strategy<Value = Op> {
    let upserts = || proptest::collection::vec((0..3000u16, any::<u32>()), 0..400);
    let deletes = || proptest::collection::vec(0..3000u16, 0..200);
    prop_oneof![
        4 => (upserts(), deletes()).prop_map(|(upserts, deletes)| Op::Apply { upserts, deletes }),
        1 => (0..9000u64, upserts(), deletes())
            .prop_map(|(spare, upserts, deletes)| Op::Rebuild { spare, upserts, deletes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of changes in place and rebuilds, against a `HashMap`.
    #[test]
    fn equals_a_hash_map(columns in 1usize..6, ops in proptest::collection::vec(op(), 1..12)) {
        let mut model = Model::new();
        let layout = Layout::for_rows(0, columns).unwrap();
        let none = Rows::new(columns);
        let mut bytes = built(layout, &plain(&none));
        let same: Vec<_> = (0..columns).map(Column::Old).collect();
        for op in ops {
            let (upserts, deletes, spare) = match op {
                Op::Apply { upserts, deletes } => (upserts, deletes, None),
                Op::Rebuild { spare, upserts, deletes } => (upserts, deletes, Some(spare)),
            };
            let mut changes = Rows::new(columns);
            for (key, at) in &upserts {
                changes.push(spread(u64::from(*key)), *at, &row(columns, u64::from(*at)));
            }
            let deletes: Vec<_> = deletes.iter().map(|&k| spread(u64::from(k))).collect();
            deletes.iter().for_each(|k| { model.remove(k); });
            for i in 0..changes.len() {
                model.insert(changes.keys[i], (changes.updated_at[i], changes.row(i).to_vec()));
            }
            // Not at the start of the bytes.
            let mut target = [&[0xcc; 64], &bytes[..]].concat();
            let applied = match spare {
                None => TableMut::open(&mut target[..], 64).unwrap().apply(&changes, &deletes),
                Some(_) => Err(TableError::Magic),
            };
            bytes.copy_from_slice(&target[64..]);
            prop_assert_eq!(&target[..64], &[0xcc; 64]);
            match applied {
                Ok(()) => {}
                // As a publisher does: lay out again, from a table in which part of the change may be made already.
                Err(_) => {
                    let old = TableRef::open(&bytes).unwrap();
                    let layout = Layout::for_rows(model.len() as u64 + spare.unwrap_or(0), columns).unwrap();
                    let source =
                        Source { old: Some((old, &same)), upserts: &changes, last_wins: true, deletes: &deletes };
                    bytes = built(layout, &source);
                }
            }
            assert_holds(&TableRef::open(&bytes).unwrap(), &model);
        }
    }

    /// Whatever the bytes say, reading ends and stays inside them.
    #[test]
    fn mutated_bytes_are_harmless(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..50),
        cut in any::<prop::sample::Index>(),
    ) {
        let rows = rows(3, (0..500).map(spread));
        let mut bytes = built(Layout::for_rows(500, 3).unwrap(), &plain(&rows));
        for (at, byte) in flips {
            // Half of the flips hit the header.
            let at = if byte & 1 == 0 { at.index(64) } else { at.index(bytes.len()) };
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 16);
        if let Ok(table) = TableRef::open(&bytes) {
            (0..1000).for_each(|i| { let _ = table.get(spread(i)).map(|r| r.values().count()); });
            let _ = table.iter().count();
        }
    }
}

/// Key 0 marks an empty slot, and no hashed key is 0: such a row is nowhere.
#[test]
fn a_row_without_a_key_is_ignored() {
    let layout = Layout::for_rows(10, 1).unwrap();
    let first = rows(1, [5, 0, 6].into_iter());
    let mut bytes = built(layout, &plain(&first));
    let mut table = TableMut::open(&mut bytes[..], 0).unwrap();
    assert_eq!(table.as_ref().rows(), 2);
    table.apply(&rows(1, [0, 7].into_iter()), &[0]).unwrap();
    assert_eq!(table.as_ref().rows(), 3);
    assert_eq!(table.as_ref().iter().count(), 3);
    assert!(table.as_ref().get(0).is_none());
}
