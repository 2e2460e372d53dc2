//! Dimensions that are matched by the longest prefix, beside others.

use proptest::prelude::*;

use super::*;
use crate::build::PrefixRows;
use crate::build::prefixes::tests::{near_address, near_prefix};
use crate::prefixes::{Address, Prefix};
use crate::request::AttributeId;
use crate::table::Instructions;

fn networks(rows: &[(Prefix, i64, f32)]) -> DimensionChange {
    let mut prefixes = PrefixRows::new(2);
    for (prefix, age, value) in rows {
        prefixes.push(*prefix, (i64::from(NOW) - age) as u32, &[*value, -*value]).unwrap();
    }
    DimensionChange::Prefixes(prefixes.build().unwrap())
}

/// Dimensions by key, and so many by network around them.
fn mixed(count: usize) -> Schema {
    let network = |i: usize| {
        dimension(
            &format!("n{i}"),
            vec![KeyPart::network("ip")],
            vec![with_default("a", 0.5), with_default("b", 0.25)],
        )
    };
    let mut dimensions = schema().dimensions;
    (0..count).for_each(|i| dimensions.insert(i * 2 % (dimensions.len() + 1), network(i)));
    Schema { dimensions, ..schema() }
}

fn scorer(features: &[u8], instructions: Instructions) -> (Scorer, AttributeId) {
    let (mut scorer, mut names) = (Scorer::new(), Names::default());
    for name in ["ip", "tenant", "path"] {
        names.attribute(name).unwrap();
    }
    scorer.dimensions.instructions = instructions;
    scorer.bind_features(features, &names).unwrap();
    (scorer, names.attribute("ip").unwrap())
}

proptest! {
    /// The same rows by 20 dimensions, so that they are looked up in several batches, and with every set of instructions.
    #[test]
    fn p7_a_prefix_dimension_answers_as_a_naive_matcher_does(
        rows in proptest::collection::btree_map(near_prefix(), (0..3_i64, 0..9_u8), 0..60),
        addresses in proptest::collection::vec(near_address(), 30),
    ) {
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(prefix, (age, value))| (prefix, age * 400, f32::from(value)))
            .collect();
        let schema = mixed(20);
        let by_prefix = |(at, d): (usize, &Dimension)| d.is_by_prefix().then(|| (at, networks(&rows)));
        let dimensions = schema.dimensions.iter().enumerate().filter_map(by_prefix).collect();
        let features = pack_change(&schema, &KeySecret([3; SECRET_BYTES]), &Change { dimensions });
        for instructions in [Instructions::Baseline, Instructions::detect()] {
            let (mut scorer, ip) = scorer(&features, instructions);
            for address in &addresses {
                let text = address.to_string();
                let mut request = Request::new();
                request.set_attribute(ip, text.as_str().into());
                let matching = rows.iter().filter(|(prefix, ..)| prefix.contains(Address::from(*address)));
                let expected = match matching.max_by_key(|(prefix, ..)| prefix.bits()) {
                    Some((_, age, value)) if *age > 600 => ([*value, -*value], Status::Stale),
                    Some((_, _, value)) => ([*value, -*value], Status::Fresh),
                    None => ([0.5, 0.25], Status::Missing),
                };
                let (values, statuses) = scorer.look_up(&features, &request, NOW);
                let mut at = 0;
                for (d, status) in schema.dimensions.iter().zip(statuses) {
                    if d.is_by_prefix() {
                        prop_assert_eq!((&values[at..at + 2], *status), (expected.0.as_slice(), expected.1), "{}", text);
                    }
                    at += d.features.len();
                }
            }
        }
    }
}

#[test]
fn a_request_without_an_address_is_absent_and_keys_find_no_network() {
    let schema = mixed(1);
    let prefix = Prefix::parse(b"0.0.0.0/0").unwrap();
    let change = Change { dimensions: vec![(0, networks(&[(prefix, 0, 3.0)]))] };
    let features = pack_change(&schema, &KeySecret([3; SECRET_BYTES]), &change);
    let (mut scorer, ip) = scorer(&features, Instructions::detect());
    let mut request = Request::new();
    assert_eq!(scorer.look_up(&features, &request, NOW).1[0], Status::Absent);
    request.set_attribute(ip, "192.0.2.1".into());
    let (values, statuses) = scorer.look_up(&features, &request, NOW);
    assert_eq!((&values[..2], statuses[0]), ([3.0, -3.0].as_slice(), Status::Fresh));
    request.set_attribute(ip, "unix:".into());
    let (values, statuses) = scorer.look_up(&features, &request, NOW);
    assert_eq!((&values[..2], statuses[0]), ([0.5, 0.25].as_slice(), Status::Absent));
    assert_eq!(scorer.look_up_keys(&features, &[1, 2, 3, 4], NOW).1[0], Status::Absent);
    assert_eq!(scorer.dimensions().key(0, &["192.0.2.1".into()]), None);
}

/// What no model of a route takes is not looked up.
#[test]
fn an_unused_dimension_of_networks_stays_as_it_is() {
    let schema = mixed(1);
    let prefix = Prefix::parse(b"0.0.0.0/0").unwrap();
    let change = Change { dimensions: vec![(0, networks(&[(prefix, 0, 3.0)]))] };
    let features = pack_change(&schema, &KeySecret([3; SECRET_BYTES]), &change);
    let (mut scorer, ip) = scorer(&features, Instructions::detect());
    let mut request = Request::new();
    request.set_attribute(ip, "192.0.2.1".into());
    for (mask, status) in [(!1, Status::Unused), (1, Status::Fresh)] {
        let Scorer { dimensions, buffers, .. } = &mut scorer;
        dimensions.look_up(&features, &request, NOW, mask, buffers);
        assert_eq!((buffers.statuses[0], buffers.values[0]), (status, if mask == 1 { 3.0 } else { 0.0 }));
    }
}
