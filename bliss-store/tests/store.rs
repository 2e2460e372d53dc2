//! Publishing and reading through real files.

use std::os::unix::fs::MetadataExt;

use bliss_catboost::ir::Model;
use bliss_catboost::{compile, import};
use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange};
use bliss_core::build::{ModelSet, NamedModel, NamedRoute, PolicySet};
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_core::score::{Status, Unscored};
use bliss_store::{Client, PublishError, PublishMethod, PublishOptions, Publisher, Sweeper};

fn schema(features: usize) -> Schema {
    let features = (0..features).map(|i| Feature::number(&format!("f{i}"))).collect();
    let ip = Dimension {
        name: "ip".into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 600,
        on_stale: Default::default(),
        features,
    };
    Schema { dimensions: vec![ip], ..Schema::default() }
}

fn open(directory: &std::path::Path, schema: Schema) -> Publisher {
    Publisher::open(directory, &PublishOptions::default(), schema).unwrap()
}

fn address(i: u32) -> String {
    std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string()
}

fn rows(publisher: &Publisher, range: std::ops::Range<u32>, value: f32) -> Rows {
    let width = publisher.schema().dimensions[0].features.len();
    let mut rows = Rows::new(width);
    for i in range {
        let key = publisher.key(0, &[address(i).as_str().into()]).unwrap();
        rows.push(key, 1000, &vec![value + i as f32; width]);
    }
    rows
}

fn patch(upserts: Rows, deletes: Vec<u64>) -> Change {
    Change { dimensions: vec![(0, DimensionChange::Patch { upserts, deletes })] }
}

fn value(client: &mut Client, i: u32) -> Result<(f32, Status), Unscored> {
    let ip = client.names().attribute("ip").unwrap();
    let address = address(i);
    let mut request = Request::new();
    request.set_attribute(ip, address.as_str().into());
    client.look_up(&request, 1000).map(|(values, statuses)| (values[0], statuses[0]))
}

#[test]
fn a_client_opened_before_anything_was_published_sees_it_later() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("not/yet");
    let mut client = Client::open(&below).unwrap();
    assert_eq!(value(&mut client, 1), Err(Unscored::NoSnapshot));
    assert_eq!(client.score(&Request::new(), "", 0).outcome, Err(Unscored::NoSnapshot));
    std::fs::create_dir_all(&below).unwrap();
    let mut publisher = open(&below, schema(1));
    publisher.publish(patch(rows(&publisher, 0..10, 0.5), vec![])).unwrap();
    // The path is looked at once a second at most.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while value(&mut client, 1).is_err() && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(value(&mut client, 1), Ok((1.5, Status::Fresh)));
    assert_eq!(client.score(&Request::new(), "", 0).outcome, Err(Unscored::NoModels));
}

/// Many small changes, some that make the table grow, against what a map says, through one client all the while.
#[test]
fn s7_publications_follow_their_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path(), schema(3));
    let mut client = Client::open(directory.path()).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    let mut made = std::collections::BTreeMap::<String, u32>::new();
    // So many rows beside those looked at that a change is small against them.
    publisher.publish(patch(rows(&publisher, 100_000..120_000, 0.0), vec![])).unwrap();
    for round in 0..60u32 {
        let (start, count) = (round * 97 % 1000, 1 + round * 13 % 300);
        let value_of = round as f32 * 10_000.0;
        let upserts = rows(&publisher, start..start + count, value_of);
        expected.extend((start..start + count).map(|i| (i, value_of + i as f32)));
        let gone = (round * 31 % 1000)..(round * 31 % 1000 + 20);
        let deletes: Vec<_> = gone
            .filter(|i| !(start..start + count).contains(i))
            .inspect(|i| _ = expected.remove(i))
            .map(|i| publisher.key(0, &[address(i).as_str().into()]).unwrap())
            .collect();
        let published = publisher.publish(patch(upserts, deletes)).unwrap();
        *made.entry(format!("{:?}", published.method)).or_default() += 1;
        assert_eq!(published.generation, u64::from(round) + 2);
        for i in 0..1400 {
            let found = value(&mut client, i).unwrap();
            assert_eq!(found.1 == Status::Fresh, expected.contains_key(&i), "round {round}, row {i}");
            assert_eq!(found.0, expected.get(&i).copied().unwrap_or(0.0), "round {round}, row {i}");
        }
        assert_eq!(client.features_generation(), Some(published.generation));
    }
    assert!(made["InPlace"] > 40, "{made:?}");
}

/// A table that grows again and again beside a large one; every checksum is verified.
#[test]
fn s7_a_small_table_grows_without_the_others_being_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    let mut two = schema(3);
    two.dimensions.push(Dimension { name: "large".into(), ..two.dimensions[0].clone() });
    let mut publisher = open(directory.path(), two);
    let mut client = Client::open(directory.path()).unwrap();
    let verifying = mmap_sync::Options::new(directory.path().join(bliss_store::FEATURES))
        .verify(true)
        .open_reader()
        .unwrap();
    let large = DimensionChange::Replace(rows(&publisher, 0..300_000, 0.0));
    publisher.publish(Change { dimensions: vec![(1, large)] }).unwrap();
    let mut made = std::collections::BTreeMap::<String, u32>::new();
    let mut known = 0;
    for round in 0..40_u32 {
        let upserts = rows(&publisher, known..known + 300, 0.5);
        known += 300;
        let published = publisher.publish(patch(upserts, vec![])).unwrap();
        *made.entry(format!("{:?}", published.method)).or_default() += 1;
        assert_eq!(verifying.pin().unwrap().generation(), published.generation, "round {round}");
        for i in (0..known + 10).step_by(7) {
            let expected = if i < known { i as f32 + 0.5 } else { 0.0 };
            assert_eq!(value(&mut client, i).unwrap().0, expected, "round {round}, row {i}");
        }
        assert_eq!(publisher.current().unwrap().table(1).unwrap().rows(), 300_000);
        assert!(published.bytes as f64 <= 1.3 * f64::from(300_000 + known) * (12.0 + 4.0 * 3.0) + 50_000.0);
    }
    assert!(made["Grown"] >= 10 && made["InPlace"] >= 10, "{made:?}");
    assert!(made.get("Built").copied().unwrap_or(0) <= 5, "{made:?}");
}

/// From 100,000 rows on a copy takes at most 1.3 times the bytes of keys, times and rows, whatever was added or deleted; and
/// is not rewritten at every turn for that.
#[test]
fn s7_copies_stay_small_whether_rows_come_or_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut two = schema(3);
    two.dimensions.push(Dimension { name: "small".into(), ..two.dimensions[0].clone() });
    let mut publisher = open(directory.path(), two);
    let mut client = Client::open(directory.path()).unwrap();
    let few = DimensionChange::Replace(rows(&publisher, 0..300, 0.0));
    publisher.publish(Change { dimensions: vec![(1, few)] }).unwrap();
    let mut made = std::collections::BTreeMap::<String, u32>::new();
    let (mut from, mut to) = (0, 0);
    let mut check = |publisher: &Publisher, published: &bliss_store::Publication, from: u32, to: u32| {
        *made.entry(format!("{:?}", published.method)).or_default() += 1;
        let held = u64::from(to - from) + 300;
        assert_eq!(publisher.current().unwrap().rows(), held);
        if held >= 100_000 {
            let ratio = published.bytes as f64 / (held * (12 + 12)) as f64;
            assert!(ratio <= 1.3, "{held} rows, {:?}: {ratio}", published.method);
        }
        if held >= 100_000 && published.method == bliss_store::PublishMethod::InPlace {
            for file in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
                let blocks = file.metadata().unwrap().blocks() * 512;
                let is_copy = file.file_name().to_string_lossy().starts_with("features_data");
                // A file keeps up to a mebibyte that it does not need.
                let most = 1.3 * (held * 24) as f64 + f64::from(1 << 20);
                assert!(!is_copy || blocks as f64 <= most, "{file:?}: {blocks} for {held} rows");
            }
        }
        for i in (from.saturating_sub(3000)..to + 3000).step_by(997) {
            let expected = if (from..to).contains(&i) { i as f32 } else { 0.0 };
            assert_eq!(value(&mut client, i).unwrap().0, expected, "row {i} of {from}..{to}");
        }
    };
    while to < 150_000 {
        let upserts = rows(&publisher, to..to + 3000, 0.0);
        to += 3000;
        let published = publisher.publish(patch(upserts, vec![])).unwrap();
        check(&publisher, &published, from, to);
    }
    while to - from > 105_000 {
        let deletes = (from..from + 1000).map(|i| publisher.key(0, &[address(i).as_str().into()]).unwrap());
        let deletes = deletes.collect();
        from += 1000;
        let published = publisher.publish(patch(Rows::new(3), deletes)).unwrap();
        check(&publisher, &published, from, to);
    }
    assert!(made["InPlace"] > 40 && made["Built"] < 35, "{made:?}");
}

/// A change may name a key several times: in a copy that is rewritten since it takes too much there is still room for
/// all of its rows.
#[test]
fn keys_that_a_change_names_several_times_are_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path(), schema(3));
    let mut client = Client::open(directory.path()).unwrap();
    publisher.publish(patch(rows(&publisher, 0..150_000, 0.0), vec![])).unwrap();
    let mut deletes: Vec<u64> = rows(&publisher, 0..60_000, 0.0).keys;
    deletes.extend(deletes.clone());
    let published = publisher.publish(patch(rows(&publisher, 0..40_000, 0.5), deletes.clone())).unwrap();
    assert_eq!(published.method, bliss_store::PublishMethod::Built);
    assert_eq!(publisher.current().unwrap().rows(), 130_000);
    assert!(published.bytes <= 130_000 * 24 * 13 / 10);
    for i in (0..150_000).step_by(991) {
        let expected = match i {
            0..40_000 => i as f32 + 0.5,
            40_000..60_000 => 0.0,
            _ => i as f32,
        };
        assert_eq!(value(&mut client, i).unwrap().0, expected, "row {i}");
    }
    for _ in 0..3 {
        publisher.publish(patch(rows(&publisher, 0..40_000, 0.5), deletes.clone())).unwrap();
    }
    let published = publisher.publish(patch(rows(&publisher, 0..10, 0.5), vec![])).unwrap();
    assert_ne!(published.method, bliss_store::PublishMethod::Built, "once is enough");
}

/// The hash of a category may be a bit pattern that is no number, and so not equal to itself.
#[test]
fn a_default_that_is_no_number_is_no_change_of_the_schema() {
    let directory = tempfile::tempdir().unwrap();
    let mut odd = schema(1);
    odd.dimensions[0].features[0].kind = bliss_core::schema::FeatureKind::Category;
    odd.dimensions[0].features[0].default = f32::from_bits(0xffc1_2345);
    let mut publisher = open(directory.path(), odd);
    let made: Vec<_> = (0..4)
        .map(|i| publisher.publish(patch(rows(&publisher, i..i + 1, 0.0), vec![])).unwrap().method)
        .collect();
    assert_eq!(made[3], bliss_store::PublishMethod::InPlace, "{made:?}");
}

#[test]
fn a_refused_change_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path(), schema(1));
    let mut client = Client::open(directory.path()).unwrap();
    publisher.publish(patch(rows(&publisher, 0..10, 0.5), vec![])).unwrap();
    let mut twice = rows(&publisher, 0..2, 9.0);
    twice.push(twice.keys[0], 1000, &[7.0]);
    let error =
        publisher.publish(Change { dimensions: vec![(0, DimensionChange::Replace(twice))] }).unwrap_err();
    assert!(error.to_string().contains("dimension \"ip\": key"), "{error}");
    let mut wide = Rows::new(2);
    wide.push(5, 1000, &[1.0, 2.0]);
    assert!(publisher.publish(patch(wide, vec![])).is_err());
    assert_eq!(value(&mut client, 3), Ok((3.5, Status::Fresh)));
    publisher.publish(patch(rows(&publisher, 3..4, 1.0), vec![])).unwrap();
    publisher.publish(patch(rows(&publisher, 4..5, 1.0), vec![])).unwrap();
    assert_eq!(value(&mut client, 3), Ok((4.0, Status::Fresh)));
    assert_eq!(value(&mut client, 5), Ok((5.5, Status::Fresh)));
}

#[test]
fn a_second_publisher_is_refused_and_the_next_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path(), schema(2));
    publisher.publish(patch(rows(&publisher, 0..10, 0.5), vec![])).unwrap();
    let second = Publisher::open(directory.path(), &PublishOptions::default(), schema(2));
    assert!(matches!(second, Err(PublishError::Sync(mmap_sync::Error::Locked { .. }))));
    let secret = *publisher.secret();
    drop(publisher);

    // With another column more: rows and keys go on.
    let mut publisher = open(directory.path(), schema(3));
    assert!(*publisher.secret() == secret);
    let mut client = Client::open(directory.path()).unwrap();
    assert_eq!(value(&mut client, 9), Ok((9.5, Status::Fresh)));
    let published = publisher.publish(Change::default()).unwrap();
    assert_eq!((published.method, published.generation), (PublishMethod::Built, 2));
    assert_eq!(value(&mut client, 9), Ok((9.5, Status::Fresh)));
    assert_eq!(client.scorer().dimensions().width(), 3);
}

#[test]
fn models_come_and_go_while_serving() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path(), schema(1));
    let mut client = Client::open(directory.path()).unwrap();
    publisher.publish(patch(rows(&publisher, 0..10, 0.5), vec![])).unwrap();
    let cbm = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/scale_bias.cbm");
    let mut model = import(&std::fs::read(cbm).unwrap()).unwrap();
    let gone = model.floats.iter().position(|f| !f.borders.is_empty()).unwrap();
    model.floats.iter_mut().for_each(|f| f.name = "ip.f0".into());
    let set = |model: &Model, version: &str| ModelSet {
        models: vec![NamedModel {
            name: "demo".into(),
            version: version.into(),
            bot_class: 1,
            compiled: compile(model).unwrap(),
        }],
        routes: vec![NamedRoute { name: "default".into(), active: Some("demo".into()), shadows: vec![] }],
    };
    publisher.publish_models(&set(&model, "1")).unwrap();
    assert!((1..=99).contains(&client.score(&Request::new(), "", 1000).outcome.unwrap().score));
    assert_eq!(client.scorer().models().models()[0].version(), "1");
    model.floats[gone].name = "ip.gone".into();
    publisher.publish_models(&set(&model, "2")).unwrap();
    assert_eq!(client.score(&Request::new(), "", 1000).outcome, Err(Unscored::MissingInput));
    assert_eq!(client.scorer().models().models()[0].missing_input(), Some("ip.gone"));
    assert_eq!(client.models_generation(), Some(2));
}

/// The generations begin again then, so that the number alone does not tell another model from the one that is bound.
#[test]
fn a_remade_directory_is_bound_anew_even_where_maintenance_saw_it_first() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("published");
    let cbm = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/");
    let publish = |model: &str| {
        std::fs::create_dir(&directory).unwrap();
        let mut publisher = open(&directory, schema(1));
        publisher.publish(patch(rows(&publisher, 0..10, 0.5), vec![])).unwrap();
        let mut model = import(&std::fs::read(format!("{cbm}{model}.cbm")).unwrap()).unwrap();
        model.floats.iter_mut().for_each(|f| f.name = "ip.f0".into());
        let name = format!("with {} trees", model.trees.len());
        let compiled = compile(&model).unwrap();
        let models = vec![NamedModel { name: name.clone(), version: "1".into(), bot_class: 1, compiled }];
        let routes = vec![NamedRoute { name: "default".into(), active: Some(name), shadows: vec![] }];
        publisher.publish_models(&ModelSet { models, routes }).unwrap();
    };
    publish("scale_bias");
    let mut client = Client::open(&directory).unwrap();
    let before = client.score(&Request::new(), "", 1000).outcome.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    publish("depth1");
    // The path is looked at once the writer has given no sign of life for some seconds.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let after = loop {
        client.maintain().unwrap();
        let after = client.score(&Request::new(), "", 1000).outcome.unwrap();
        if after != before || std::time::Instant::now() > patience {
            break after;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert_eq!(client.models_generation(), Some(1));
    assert_ne!(after, before);
    let mut fresh = Client::open(&directory).unwrap();
    assert_eq!(fresh.score(&Request::new(), "", 1000).outcome.unwrap(), after);
}

/// Rows far older than their dimension's `max_age` go a slice at a time; the others stay, whatever is published meanwhile.
#[test]
fn expired_rows_are_removed_in_slices() {
    let directory = tempfile::tempdir().unwrap();
    let mut two = schema(1);
    let forever = Dimension { name: "forever".into(), max_age_seconds: 0, ..two.dimensions[0].clone() };
    two.dimensions.insert(0, forever);
    two.dimensions.push(Dimension { name: "other".into(), ..two.dimensions[1].clone() });
    let mut publisher = open(directory.path(), two);
    let aged = |count: u64, updated_at: &dyn Fn(u64) -> u32| {
        let mut rows = Rows::new(1);
        (1..=count).for_each(|i| rows.push(i << 40, updated_at(i), &[i as f32]));
        DimensionChange::Replace(rows)
    };
    let half_old = |i: u64| if i.is_multiple_of(2) { 1000 } else { 5000 };
    let dimensions = vec![(0, aged(100, &|_| 0)), (1, aged(3000, &half_old)), (2, aged(10, &|_| 1000))];
    publisher.publish(Change { dimensions }).unwrap();
    // Limit: 2 × 600 seconds.
    let mut sweeper = Sweeper::new(vec![None, Some(1200), Some(1200)], 500);
    let mut removed = Vec::new();
    for _ in 0..40 {
        let snapshot = publisher.current().unwrap();
        let mut change = Change::default();
        let expired = Sweeper::join(sweeper.next(snapshot, 2201), &mut change, snapshot);
        assert_eq!(expired.iter().map(|(_, rows)| rows).sum::<u64>(), change.len() as u64);
        removed.push(change.len());
        if !change.is_empty() {
            publisher.publish(change).unwrap();
        }
    }
    assert_eq!(removed.iter().sum::<usize>(), 1510);
    assert!(removed.iter().all(|&n| n <= 500), "{removed:?}");
    let snapshot = publisher.current().unwrap();
    let rows: Vec<_> = (0..3).map(|d| snapshot.table(d).unwrap().rows()).collect();
    assert_eq!(rows, [100, 1500, 0]);
    assert!(snapshot.table(1).unwrap().iter().all(|(_, row)| row.updated_at == 5000));
    assert!(sweeper.next(snapshot, 2200).is_empty());
}

#[test]
fn what_comes_expired_is_left_out_and_what_a_change_says_goes_before_what_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path(), schema(2));
    let rows = |ages: &[(u64, u32)]| {
        let mut rows = Rows::new(2);
        ages.iter()
            .for_each(|(key, updated_at)| rows.push(*key, *updated_at, &[*key as f32, *updated_at as f32]));
        rows
    };
    let sweeper = Sweeper::new(vec![Some(100)], 1000);
    let replace =
        |ages: &[(u64, u32)]| Change { dimensions: vec![(0, DimensionChange::Replace(rows(ages)))] };
    let mut change = replace(&[(1, 899), (2, 900), (3, 5), (4, 1000), (5, 899), (6, 2000)]);
    assert_eq!(sweeper.admit(&mut change, 1000), [(0, 3)]);
    assert_eq!(change, replace(&[(2, 900), (4, 1000), (6, 2000)]));
    assert_eq!(sweeper.admit(&mut change, 1000), []);
    // An upsert with an old row takes out what is there.
    let mut change = patch(rows(&[(7, 1000), (2, 899)]), vec![9]);
    assert_eq!(sweeper.admit(&mut change, 1000), [(0, 1)]);
    assert_eq!(change, patch(rows(&[(7, 1000)]), vec![9, 2]));
    // Without a limit everything is admitted.
    assert_eq!(Sweeper::new(vec![None], 1000).admit(&mut replace(&[(1, 0)]), u32::MAX), []);

    publisher.publish(replace(&[(1, 800), (2, 800), (3, 800), (4, 1000)])).unwrap();
    let snapshot = publisher.current().unwrap();
    let found = sweeper.clone().next(snapshot, 1000);
    let mut change = patch(rows(&[(2, 1000)]), vec![3]);
    assert_eq!(Sweeper::join(found.clone(), &mut change, snapshot), [(0, 1)]);
    assert_eq!(change, patch(rows(&[(2, 1000)]), vec![3, 1]));
    let mut change = replace(&[(8, 1000)]);
    assert_eq!(Sweeper::join(found, &mut change, snapshot), []);
    assert_eq!(change, replace(&[(8, 1000)]));
}

/// Every set of files, removed under a publisher that has nothing new to say: all is there again, for readers of before too.
#[test]
fn removed_files_are_published_again_with_all_their_content() {
    let in_memory = std::path::Path::new("/dev/shm");
    let folder = || if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    let sets: [&[&str]; 12] = [
        &[],
        &["models_"],
        &["policy_"],
        &["policy_state"],
        &["policy_data"],
        &["features_"],
        &["models_state"],
        &["features_state"],
        &["features_data"],
        &["models_data"],
        &["features_readers", "models_readers"],
        &["features_lock", "models_lock"],
    ];
    for removed in sets {
        let directory = folder().unwrap();
        let path = directory.path();
        let mut publisher = open(path, schema(1));
        publisher.publish(patch(rows(&publisher, 0..1000, 0.5), vec![])).unwrap();
        publisher.publish_models(&ModelSet::default()).unwrap();
        publisher.publish_policies(&PolicySet { off: true, ..PolicySet::default() }).unwrap();
        bliss_store::MetricsFile::open(path, &PublishOptions::default()).unwrap();
        let generations = |publisher: &Publisher| {
            [publisher.generation(), publisher.models_generation(), publisher.policies_generation()]
        };
        let missing = |publisher: &Publisher| bliss_store::missing_files(path, generations(publisher));
        assert_eq!(missing(&publisher), Vec::<String>::new());
        let mut old = Client::open(path).unwrap();
        assert_eq!(value(&mut old, 7), Ok((7.5, Status::Fresh)));
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name != "counters"
                && (removed.is_empty() || removed.iter().any(|prefix| name.starts_with(prefix)))
            {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        assert!(!missing(&publisher).is_empty(), "{removed:?}");
        assert!(publisher.keep_in_place().unwrap(), "{removed:?}");
        assert!(!publisher.keep_in_place().unwrap(), "{removed:?}");
        assert_eq!(missing(&publisher), Vec::<String>::new(), "{removed:?}");
        let mut new = Client::open(path).unwrap();
        for i in [0, 7, 999] {
            assert_eq!(value(&mut new, i), Ok((0.5 + i as f32, Status::Fresh)), "{removed:?}");
        }
        assert!(publisher.current_models().is_some());
        assert!(publisher.current_policies().is_some_and(|policies| policies.metadata().is_off));
        publisher.publish(patch(rows(&publisher, 0..10, 9.5), vec![])).unwrap();
        assert_eq!(value(&mut new, 7), Ok((16.5, Status::Fresh)), "{removed:?}");
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while value(&mut old, 7) != Ok((16.5, Status::Fresh)) {
            assert!(
                std::time::Instant::now() < patience,
                "{removed:?}: a reader of before sees what is published now"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn a_file_system_in_memory_is_told_from_a_disk() {
    let in_memory = |path: &str| bliss_store::is_in_memory(std::path::Path::new(path));
    if std::path::Path::new("/dev/shm").is_dir() {
        assert_eq!(in_memory("/dev/shm"), Some(true));
    }
    assert_eq!(in_memory("/proc"), Some(false));
    assert_eq!(in_memory("/no/such/directory"), None);
}
