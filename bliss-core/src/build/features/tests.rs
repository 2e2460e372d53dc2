use rkyv::util::AlignedVec;

use super::*;
use crate::build::prefixes::PrefixRows;
use crate::build::table::{BuildJob, Rows};
use crate::key::hash_key;
use crate::key::{KeySecret, SECRET_BYTES};
use crate::prefixes::{Address, Prefix};
use crate::publication::frame::FrameError;
use crate::schema::Schema;
use crate::schema::{Dimension, Feature, KeyPart};
use crate::table::{TableError, TableRef};

fn schema(features: &[&str]) -> Schema {
    let dimension = |name: &str, key| Dimension {
        name: name.into(),
        key,
        max_age_seconds: 600,
        on_stale: Default::default(),
        features: features.iter().map(|f| Feature { default: -1.0, ..Feature::number(f) }).collect(),
    };
    let user_agent = dimension("user_agent", vec![KeyPart::whole("user_agent")]);
    Schema { dimensions: vec![dimension("ip", vec![KeyPart::whole("ip")]), user_agent], ..Schema::default() }
}

fn secret() -> KeySecret {
    KeySecret([7; SECRET_BYTES])
}

fn run_in_turn(jobs: Vec<BuildJob<'_>>) -> Result<u64, TableError> {
    jobs.into_iter().map(BuildJob::run).sum()
}

fn build_features(schema: &Schema, current: Option<FeaturesRef<'_>>, change: &Change) -> AlignedVec<64> {
    let builder = FeaturesBuilder::plan(schema, &secret(), current, change).unwrap();
    let mut bytes = AlignedVec::with_capacity(0);
    bytes.resize(builder.bytes() as usize, 0xee);
    builder.write(&mut bytes, 2, run_in_turn).unwrap();
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

fn values(features: &FeaturesRef<'_>, dimension: usize, i: u32) -> Option<Vec<f32>> {
    features.table(dimension).unwrap().get(key(i)).map(|row| row.values().collect())
}

#[test]
fn goes_on_from_the_current_snapshot() {
    let schema = schema(&["a", "b"]);
    let both =
        vec![(0, DimensionChange::Replace(rows(2, 0..100))), (1, DimensionChange::Replace(rows(2, 0..9)))];
    let first = build_features(&schema, None, &Change { dimensions: both });
    let first = FeaturesRef::open(&first).unwrap();
    let published: Schema = rkyv::deserialize::<_, rkyv::rancor::Failure>(first.schema()).unwrap();
    assert_eq!(published, schema);
    assert_eq!(first.secret(), secret());
    assert_eq!(values(&first, 0, 99).unwrap(), [990.0, 991.0]);

    let next = build_features(&schema, Some(first), &patch(rows(2, 99..5000), vec![key(0)]));
    let next = FeaturesRef::open(&next).unwrap();
    assert_eq!(next.table(0).unwrap().rows(), 4999);
    assert_eq!(values(&next, 0, 0), None);
    assert_eq!(values(&next, 0, 1).unwrap(), [10.0, 11.0]);
    assert_eq!(values(&next, 0, 4999).unwrap(), [49990.0, 49991.0]);
    assert_eq!(next.table(1).unwrap().rows(), 9);

    let replaced = Change { dimensions: vec![(0, DimensionChange::Replace(rows(2, 5..6)))] };
    let replaced = build_features(&schema, Some(next), &replaced);
    let replaced = FeaturesRef::open(&replaced).unwrap();
    assert_eq!(replaced.table(0).unwrap().rows(), 1);
    assert_eq!(replaced.table(1).unwrap().rows(), 9);
}

#[test]
fn in_place_equals_writing_anew() {
    let schema = schema(&["a", "b"]);
    let first = build_features(&schema, None, &patch(rows(2, 0..2000), vec![]));
    let change = patch(rows(2, 1500..2300), (0..300).map(key).collect());
    let rebuilt = build_features(&schema, Some(FeaturesRef::open(&first).unwrap()), &change);
    let mut in_place = first.clone();
    apply_in_place(&mut in_place[..], 0, &change.dimensions[0].1).unwrap();
    let (rebuilt, in_place) = (FeaturesRef::open(&rebuilt).unwrap(), FeaturesRef::open(&in_place).unwrap());
    assert_eq!(rebuilt.table(0).unwrap().rows(), in_place.table(0).unwrap().rows());
    (0..2700).for_each(|i| assert_eq!(values(&rebuilt, 0, i), values(&in_place, 0, i), "{i}"));
}

#[test]
fn a_table_that_grows_leaves_the_others_alone() {
    let schema = schema(&["a", "b"]);
    let both = vec![
        (0, DimensionChange::Patch { upserts: rows(2, 0..2000), deletes: vec![] }),
        (1, DimensionChange::Replace(rows(2, 0..200_000))),
    ];
    let first = build_features(&schema, None, &Change { dimensions: both });
    let change = patch(rows(2, 1500..5000), (0..300).map(key).collect());
    let (index, change_of) = &change.dimensions[0];
    let mut grown = first.clone();
    let full = apply_in_place(&mut grown[..], *index, change_of).unwrap_err();
    assert!(matches!(full, FeaturesError::Table { error: TableError::Full { .. }, .. }), "{full}");
    let relocation =
        TableRelocation::plan(FeaturesRef::open(&grown).unwrap(), *index, change_of).unwrap().unwrap();
    assert!(relocation.bytes() > first.len() as u64 && relocation.bytes() < first.len() as u64 * 104 / 100);
    grown.resize(relocation.bytes() as usize, 0xdd);
    relocation.write(&mut grown, change_of, 2, run_in_turn).unwrap();
    let changes = relocation.changes().start as usize..relocation.changes().end as usize;
    let other = FeaturesRef::open(&first).unwrap().table_offset(1).unwrap();
    let rebuilt = build_features(&schema, Some(FeaturesRef::open(&first).unwrap()), &change);
    let rebuilt = FeaturesRef::open(&rebuilt).unwrap();
    let grown_ref = FeaturesRef::open(&grown).unwrap();
    assert_eq!(grown_ref.table_offset(1).unwrap(), other, "it stays where it is");
    assert!((changes.end..).contains(&(other.0 as usize)));
    assert_eq!(rebuilt.table(0).unwrap().rows(), grown_ref.table(0).unwrap().rows());
    (0..5100).for_each(|i| assert_eq!(values(&rebuilt, 0, i), values(&grown_ref, 0, i), "{i}"));
    assert_eq!(grown_ref.schema_id(), rebuilt.schema_id());
    assert_eq!(grown_ref.secret(), secret());

    // Where it is most of the features, rebuilding them is cheaper.
    let change = DimensionChange::Patch { upserts: rows(2, 200_000..300_000), deletes: vec![] };
    assert!(TableRelocation::plan(grown_ref, 1, &change).unwrap().is_none());
    assert!(TableRelocation::plan(grown_ref, 0, &DimensionChange::Replace(rows(2, 0..1))).unwrap().is_none());
}

/// Below 100,000 rows there is room; a table that must grow beyond has all of them laid out tight.
#[test]
fn a_snapshot_that_passes_100_000_rows_is_not_grown_but_written_anew() {
    let schema = schema(&["a", "b"]);
    let both = vec![
        (0, DimensionChange::Patch { upserts: rows(2, 0..1000), deletes: vec![] }),
        (1, DimensionChange::Replace(rows(2, 0..95_000))),
    ];
    let first = build_features(&schema, None, &Change { dimensions: both });
    let first = FeaturesRef::open(&first).unwrap();
    let add = |count: u32| DimensionChange::Patch { upserts: rows(2, 1000..1000 + count), deletes: vec![] };
    assert!(TableRelocation::plan(first, 0, &add(2000)).unwrap().is_some());
    assert!(TableRelocation::plan(first, 0, &add(5000)).unwrap().is_none());
    let change = Change { dimensions: vec![(0, add(5000))] };
    let bytes = FeaturesBuilder::plan(&schema, &secret(), Some(first), &change).unwrap().bytes();
    assert!(bytes as f64 <= 1.3 * f64::from(101_000 * (12 + 8)), "{bytes}");
}

/// Each copy takes at most 1.3 times the bytes of keys, times and rows, however they are spread over dimensions.
#[test]
fn space_is_bounded_above_100_000_rows_in_many_dimensions() {
    for dimensions in [2, 12, 64_u32] {
        let features: Vec<_> = (0..16).map(|i| Feature::number(&format!("f{i}"))).collect();
        let dimension = |i: u32| Dimension {
            name: format!("d{i}"),
            key: vec![KeyPart::whole("ip")],
            max_age_seconds: 0,
            on_stale: Default::default(),
            features: features.clone(),
        };
        let schema = Schema { dimensions: (0..dimensions).map(dimension).collect(), ..Schema::default() };
        let each = 100_000_u32.div_ceil(dimensions);
        let all = (0..dimensions as usize).map(|i| (i, DimensionChange::Replace(rows(16, 0..each))));
        let change = Change { dimensions: all.collect() };
        let bytes = FeaturesBuilder::plan(&schema, &secret(), None, &change).unwrap().bytes();
        let ratio = bytes as f64 / f64::from(each * dimensions * (12 + 64));
        assert!(ratio <= 1.3, "{dimensions} dimensions: {ratio}");
    }
}

#[test]
fn columns_follow_their_names() {
    let first = build_features(&schema(&["a", "b"]), None, &patch(rows(2, 0..10), vec![]));
    let next = schema(&["b", "new"]);
    let next = build_features(&next, Some(FeaturesRef::open(&first).unwrap()), &Change::default());
    assert_eq!(values(&FeaturesRef::open(&next).unwrap(), 0, 3).unwrap(), [31.0, -1.0]);

    // Another key makes another dimension: its old rows mean nothing any more.
    let mut other_key = schema(&["a", "b"]);
    other_key.dimensions[0].key = vec![KeyPart::subnet("ip", 24, 48)];
    let next = build_features(&other_key, Some(FeaturesRef::open(&first).unwrap()), &Change::default());
    assert_eq!(FeaturesRef::open(&next).unwrap().table(0).unwrap().rows(), 0);
}

#[test]
fn refusals_name_the_dimension() {
    let schema = schema(&["a", "b"]);
    let mut twice = rows(2, 0..3);
    twice.push(key(0), 1, &[1.0, 1.0]);
    let change = Change { dimensions: vec![(1, DimensionChange::Replace(twice))] };
    let builder = FeaturesBuilder::plan(&schema, &secret(), None, &change).unwrap();
    let mut bytes = vec![0; builder.bytes() as usize];
    let error = builder.write(&mut bytes, 1, run_in_turn).unwrap_err();
    assert!(error.to_string().starts_with("dimension \"user_agent\": key"), "{error}");

    let unknown = Change { dimensions: vec![(2, DimensionChange::Replace(rows(2, 0..1)))] };
    let error = FeaturesBuilder::plan(&schema, &secret(), None, &unknown).unwrap_err();
    assert_eq!(error, FeaturesError::Dimension { index: 2, dimensions: 2 });

    let mut twice = patch(rows(2, 0..1), vec![]);
    twice.dimensions.extend(patch(rows(2, 1..2), vec![]).dimensions);
    assert_eq!(
        FeaturesBuilder::plan(&schema, &secret(), None, &twice).unwrap_err(),
        FeaturesError::Twice { index: 0 }
    );
    assert_eq!(twice.check(&schema), Err(FeaturesError::Twice { index: 0 }));

    let wide = patch(rows(3, 0..1), vec![]);
    let mut bytes = build_features(&schema, None, &Change::default());
    let error = apply_in_place(&mut bytes[..], 0, &wide.dimensions[0].1).unwrap_err();
    assert!(error.to_string().contains("\"ip\": rows of 3 columns for a table of 2"), "{error}");
}

/// Every prefix, every flipped byte of header and metadata: an error or some answer, never a panic.
#[test]
fn damaged_snapshots_are_errors_or_readable() {
    let good = build_features(&schema(&["a", "b"]), None, &patch(rows(2, 0..50), vec![]));
    for len in 0..good.len() {
        let mut cut = AlignedVec::<64>::new();
        cut.extend_from_slice(&good[..len]);
        assert!(FeaturesRef::open(&cut).is_err(), "{len} bytes");
    }
    let tables_at = FeaturesRef::open(&good).unwrap().table_offset(0).unwrap().0 as usize;
    for at in 0..tables_at + 64 {
        for flip in [1u8, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            if let Ok(features) = FeaturesRef::open(&bad) {
                let dimensions = features.schema().dimensions.len();
                (0..dimensions).for_each(|d| (0..60).for_each(|i| drop(values(&features, d, i))));
            }
        }
    }
    let models = |bytes: &mut AlignedVec<64>| bytes[12] = 2;
    let mut other = good.clone();
    models(&mut other);
    assert_eq!(FeaturesRef::open(&other).unwrap_err(), FrameError::Kind { expected: 1, found: 2 });
}

#[test]
fn a_table_of_another_width_than_its_dimension_is_refused() {
    let mut bytes = build_features(&schema(&["a", "b"]), None, &patch(rows(2, 0..50), vec![]));
    let at = FeaturesRef::open(&bytes).unwrap().table_offset(1).unwrap().0 as usize;
    // One column of 4 bytes in slots of 16, which fits where two columns were.
    bytes[at + 12..at + 16].copy_from_slice(&1u32.to_le_bytes());
    bytes[at + 16..at + 20].copy_from_slice(&16u32.to_le_bytes());
    assert_eq!(TableRef::open(&bytes[at..]).unwrap().layout().columns(), 1);
    assert_eq!(FeaturesRef::open(&bytes).unwrap_err(), FrameError::Section { index: 1 });
}

/// The schema of before, with a dimension of networks behind the others.
fn with_networks(features: &[&str]) -> Schema {
    let mut schema = schema(features);
    let networks = Dimension {
        name: "network".into(),
        key: vec![KeyPart::network("ip")],
        ..schema.dimensions[0].clone()
    };
    schema.dimensions.push(networks);
    schema
}

fn networks(width: usize, texts: &[&str]) -> DimensionChange {
    let mut rows = PrefixRows::new(width);
    for (i, text) in texts.iter().enumerate() {
        let values: Vec<f32> = (0..width).map(|c| (i * 10 + c) as f32).collect();
        rows.push(Prefix::parse(text.as_bytes()).unwrap(), i as u32, &values).unwrap();
    }
    DimensionChange::Prefixes(rows.build().unwrap())
}

fn of_address(features: &FeaturesRef<'_>, address: &str) -> Option<(u32, Vec<f32>)> {
    let address: Address = address.parse::<core::net::IpAddr>().unwrap().into();
    features.prefixes(2).unwrap().get(address).map(|row| (row.updated_at, row.values().collect()))
}

#[test]
fn networks_go_on_from_the_current_snapshot() {
    let schema = with_networks(&["a", "b"]);
    let change = networks(2, &["192.0.2.0/24", "192.0.2.128/25", "2001:db8::/32"]);
    let first = build_features(&schema, None, &Change { dimensions: vec![(2, change)] });
    let first = FeaturesRef::open(&first).unwrap();
    assert_eq!(of_address(&first, "192.0.2.200"), Some((1, vec![10.0, 11.0])));
    assert_eq!(first.rows(), 3);

    // Other dimensions change in place, or their tables are rebuilt.
    let mut bytes = build_features(&schema, Some(first), &patch(rows(2, 0..50), vec![]));
    apply_in_place(&mut bytes[..], 0, &patch(rows(2, 50..51), vec![]).dimensions[0].1).unwrap();
    let next = FeaturesRef::open(&bytes).unwrap();
    assert_eq!(values(&next, 0, 50).unwrap(), [500.0, 501.0]);
    assert_eq!(of_address(&next, "192.0.2.1"), Some((0, vec![0.0, 1.0])));
    assert_eq!(SpaceBudget::by(next).bytes(), 51 * 20 + next.prefixes(2).unwrap().bytes().len() as u64);

    // Columns that stay keep their values, new ones have their default.
    let other_columns = build_features(&with_networks(&["b", "c"]), Some(next), &Change::default());
    let other_columns = FeaturesRef::open(&other_columns).unwrap();
    assert_eq!(of_address(&other_columns, "2001:db8::1"), Some((2, vec![21.0, -1.0])));
    assert_eq!(of_address(&other_columns, "198.51.100.1"), None);

    // A dimension whose rows are now found by key instead of by prefix, or the reverse, starts empty.
    let mut exact = schema.clone();
    exact.dimensions[2].key = vec![KeyPart::whole("ip")];
    let exact = build_features(&exact, Some(next), &Change::default());
    assert_eq!(FeaturesRef::open(&exact).unwrap().table(2).unwrap().rows(), 0);
    let back = build_features(&schema, Some(FeaturesRef::open(&exact).unwrap()), &Change::default());
    assert_eq!(of_address(&FeaturesRef::open(&back).unwrap(), "192.0.2.1"), None);
}

#[test]
fn a_change_is_of_the_kind_that_its_dimension_is() {
    let schema = with_networks(&["a", "b"]);
    let refused = |dimension, change| {
        let change = Change { dimensions: vec![(dimension, change)] };
        FeaturesBuilder::plan(&schema, &secret(), None, &change).unwrap_err().to_string()
    };
    assert!(refused(0, networks(2, &["192.0.2.0/24"])).contains("\"ip\": its rows are found by keys"));
    assert!(
        refused(2, DimensionChange::Replace(rows(2, 0..1)))
            .contains("\"network\": its rows are found by prefixes")
    );
    let wide = refused(2, networks(3, &["192.0.2.0/24"]));
    assert!(wide.contains("\"network\": a row of prefixes has 3 values, the dimension 2"), "{wide}");
}

#[test]
fn damaged_networks_are_errors_or_readable() {
    let change =
        networks(2, &["192.0.2.0/24", "192.0.2.128/25", "2001:db8::/32", "2001:db8::1", "10.0.0.0/8"]);
    let good = build_features(&with_networks(&["a", "b"]), None, &Change { dimensions: vec![(2, change)] });
    let at = FeaturesRef::open(&good).unwrap().rows_offset(2).unwrap() as usize;
    for at in at..good.len() {
        for flip in [1u8, 0x40, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            if let Ok(features) = FeaturesRef::open(&bad) {
                for address in ["192.0.2.1", "192.0.2.129", "10.1.2.3", "2001:db8::1", "2001:db8::2", "::"] {
                    of_address(&features, address);
                }
                for number in 0..6 {
                    let _ = features.prefixes(2).unwrap().row(number);
                }
            }
        }
    }
    let mut other = good.clone();
    // Columns of another number than features.
    other[at + 12] = 1;
    assert_eq!(FeaturesRef::open(&other).unwrap_err(), FrameError::Section { index: 2 });
}
