//! Features with some of their bytes changed, and perhaps cut: an error, or features that answer every lookup within its
//! bytes. Each four bytes of the input are three of an offset and one that is put there; an odd number of bytes left over
//! says how much is cut off.
#![no_main]

use std::sync::LazyLock;

use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::scorer::Scorer;
use bliss_core::request::{Names, Request};
use bliss_core::schema::{Dimension, Feature, FeatureKind, KeyPart, Schema};
use bliss_core::build::{Change, DimensionChange, FeaturesBuilder, PrefixRows};
use bliss_core::prefixes::Prefix;
use bliss_core::publication::features::{DimensionRows, FeaturesRef};
use bliss_core::build::{BuildJob, Rows};
use libfuzzer_sys::fuzz_target;
use rkyv::util::AlignedVec;

static FEATURES: LazyLock<AlignedVec<64>> = LazyLock::new(|| {
    let category = Feature { kind: FeatureKind::Category, ..Feature::number("kind") };
    let dimension = |name: &str, key, features| Dimension { name: name.into(), key, max_age_seconds: 60, on_stale: Default::default(), features };
    let schema = Schema {
        dimensions: vec![
            dimension("ip", vec![KeyPart::whole("ip")], vec![Feature::number("a"), category]),
            dimension("both", vec![KeyPart::subnet("ip", 24, 48), KeyPart::whole("path")], vec![Feature::number("b")]),
            dimension("network", vec![KeyPart::network("ip")], vec![Feature::number("c")]),
        ],
        ..Schema::default()
    };
    let rows = |width: usize| {
        let mut rows = Rows::new(width);
        (1..200u64).for_each(|i| rows.push(i.wrapping_mul(0x9e37_79b9_7f4a_7c15), 5, &vec![i as f32; width]));
        rows
    };
    let dimensions = vec![(0, DimensionChange::Replace(rows(2))), (1, DimensionChange::Replace(rows(1))), (2, networks())];
    let change = Change { dimensions };
    let builder = FeaturesBuilder::plan(&schema, &KeySecret([1; SECRET_BYTES]), None, &change).expect("a good schema");
    let mut bytes = AlignedVec::new();
    bytes.resize(builder.bytes() as usize, 0);
    builder.write(&mut bytes, 1, |jobs| jobs.into_iter().map(BuildJob::run).sum()).expect("rows fit");
    bytes
});

/// Enough networks for nodes of each kind.
fn networks() -> DimensionChange {
    let mut rows = PrefixRows::new(1);
    for i in 0..200_u8 {
        for text in [format!("192.0.{}.{i}", i % 3), format!("10.{i}.0.0/16"), format!("2001:db8:{i}::/48"), format!("2001:db8::{i}")] {
            rows.push(Prefix::parse(text.as_bytes()).expect("a network"), 5, &[f32::from(i)]).expect("one value");
        }
    }
    DimensionChange::Prefixes(rows.build().expect("each once"))
}

fuzz_target!(|input: &[u8]| {
    let mut changed = AlignedVec::<64>::new();
    changed.extend_from_slice(&FEATURES);
    let (edits, rest) = input.as_chunks::<4>();
    for [a, b, c, byte] in edits {
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        // Half of the changes hit the front, where headers and metadata are.
        let at = if at.is_multiple_of(2) { at % 2048 } else { at };
        let len = changed.len();
        changed[at % len] = *byte;
    }
    let cut = rest.iter().fold(0usize, |n, b| n * 256 + usize::from(*b)) % changed.len();
    let bytes = &changed[..changed.len() - cut];
    let Ok(features) = FeaturesRef::open(bytes) else { return };
    for index in 0..features.schema().dimensions.len() {
        let table = match features.dimension(index).expect("checked") {
            DimensionRows::Keys(table) => table,
            DimensionRows::Prefixes(prefixes) => {
                for address in ["192.0.2.1", "10.7.0.1", "2001:db8::7", "2001:db8:7::1", "::", "255.255.255.255"] {
                    let address: core::net::IpAddr = address.parse().expect("an address");
                    drop(prefixes.get(address.into()).map(|row| row.values().count()));
                }
                continue;
            }
        };
        (0..400u64).for_each(|i| drop(table.get(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        assert!(table.iter().count() <= table.layout().slots());
    }
    let mut names = Names::default();
    let (ip, path) = (names.attribute("ip").expect("room"), names.attribute("path").expect("room"));
    let mut scorer = Scorer::new();
    if scorer.bind_features(bytes, &names).is_ok() {
        let mut request = Request::new();
        request.set_attribute(ip, "192.0.2.1".into());
        request.set_attribute(path, "/".into());
        let (values, statuses) = scorer.look_up(bytes, &request, 10);
        let _ = (values.len(), statuses.len());
    }
});
