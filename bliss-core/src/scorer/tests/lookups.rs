//! Lookups: statuses, times and keys.

use super::*;

#[test]
fn every_dimension_says_how_it_answered() {
    let mut bench = Bench::new(rows_of_one_client(), &ModelSet::default());
    let network = f32::from_bits(category_hash(b"hosting"));
    let features = bench.features.clone();

    let request = bench.request(&[
        ("ip", "::ffff:192.0.2.1".into()),
        ("tenant", "9".into()),
        ("path", Value::Binary(b"/")),
    ]);
    let (values, statuses) = bench.scorer.look_up(&features, &request, NOW);
    assert_eq!(statuses, [Status::Fresh, Status::Stale, Status::Fresh]);
    assert_eq!(
        values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
        [42.0, network, 5.0, 0.25].map(f32::to_bits)
    );

    let request =
        bench.request(&[("ip", "198.51.100.1".into()), ("tenant", "nine".into()), ("path", "/".into())]);
    let (values, statuses) = bench.scorer.look_up(&features, &request, NOW);
    assert_eq!(statuses, [Status::Missing, Status::Missing, Status::Absent]);
    assert_eq!(values, [0.5, 0.0, -1.0, 7.0]);

    let request = bench.request(&[("tenant", Value::U64(9))]);
    let (_, statuses) = bench.scorer.look_up(&features, &request, NOW);
    assert_eq!(statuses, [Status::Absent; 3]);
}

#[test]
fn time_is_the_callers() {
    let mut bench = Bench::new(rows_of_one_client(), &ModelSet::default());
    let features = bench.features.clone();
    let request =
        bench.request(&[("ip", "192.0.2.1".into()), ("tenant", Value::U64(9)), ("path", "/".into())]);
    let mut at = |now| bench.scorer.look_up(&features, &request, now).1.to_vec();
    // Updated 10 and 601 seconds before NOW, and 60 after; all stale after 600 seconds, or 60 too early.
    assert_eq!(at(NOW + 590), [Status::Fresh, Status::Stale, Status::Fresh]);
    assert_eq!(at(NOW + 591), [Status::Stale, Status::Stale, Status::Fresh]);
    assert_eq!(at(NOW + 661), [Status::Stale, Status::Stale, Status::Stale]);
    assert_eq!(at(NOW - 1), [Status::Fresh, Status::Fresh, Status::Stale]);
}

/// Rows are dated by an exact clock, and read by ones that lag.
#[test]
fn rows_are_fresh_for_readers_whose_clock_lags() {
    let ip = dimension("ip", vec![KeyPart::whole("ip")], vec![Feature::number("x")]);
    let schema = Schema { dimensions: vec![ip], ..Schema::default() };
    let mut bench =
        Bench::new(pack_rows(&schema, &[(0, &["192.0.2.1".into()], 0, &[1.0])]), &ModelSet::default());
    let request = bench.request(&[("ip", "192.0.2.1".into())]);
    let mut at = |now| bench.scorer.look_up(&bench.features, &request, now).1.to_vec();
    assert_eq!(at(NOW - 5), [Status::Fresh]);
    assert_eq!(at(NOW - 6), [Status::Stale]);
}

#[test]
fn keys_made_by_the_caller_find_the_same_rows() {
    let mut bench = Bench::new(rows_of_one_client(), &ModelSet::default());
    let features = bench.features.clone();
    let dimensions = bench.scorer.dimensions();
    let keys = [
        dimensions.key(0, &["192.0.2.1".into()]).unwrap(),
        dimensions.key(1, &["192.0.2.1".into()]).unwrap(),
        dimensions.key(2, &["9".into(), "/".into()]).unwrap(),
    ];
    assert_eq!(dimensions.key(0, &[]), None);
    assert_eq!(dimensions.key(3, &["192.0.2.1".into()]), None);
    let (values, statuses) = bench.scorer.look_up_keys(&features, &keys, NOW);
    assert_eq!((values[0], values[2], values[3]), (42.0, 5.0, 0.25));
    assert_eq!(statuses, [Status::Fresh, Status::Stale, Status::Fresh]);
    let (_, statuses) = bench.scorer.look_up_keys(&features, &keys[..1], NOW);
    assert_eq!(statuses, [Status::Fresh, Status::Absent, Status::Absent]);
}

#[test]
fn more_dimensions_than_a_batch() {
    let names: Vec<_> = (0..64).map(|i| format!("d{i}")).collect();
    let key = || vec![KeyPart::whole("ip")];
    let dimensions = names.iter().map(|n| dimension(n, key(), vec![Feature::number("x")])).collect();
    let schema = Schema { dimensions, ..Schema::default() };
    let ip: [Value<'_>; 1] = ["192.0.2.1".into()];
    let columns: Vec<_> = (0..64).map(|i| [i as f32 + 1.0]).collect();
    let rows: Vec<_> =
        (0..64).filter(|i| i % 3 == 0).map(|i| (i, ip.as_slice(), 0, columns[i].as_slice())).collect();
    let mut bench = Bench::new(pack_rows(&schema, &rows), &ModelSet::default());
    let request = bench.request(&[("ip", ip[0])]);
    let (values, statuses) = bench.scorer.look_up(&bench.features, &request, NOW);
    for i in 0..64 {
        let expected = if i % 3 == 0 { (i as f32 + 1.0, Status::Fresh) } else { (0.0, Status::Missing) };
        assert_eq!((values[i], statuses[i]), expected, "{i}");
    }
}
