use std::collections::BTreeMap;

use bliss_core::build::{Change, DimensionChange};
use bliss_core::key::{KeySecret, SECRET_BYTES};
use proptest::prelude::*;

use super::*;
use crate::access_log::aggregate::AggregateOptions;
use crate::access_log::features::{BUILT_IN_DIMENSIONS, full_dimension};
use crate::access_log::parse::Parser;

const START: u64 = 1_431_857_100_000;
const MAX_BYTES: u64 = 1 << 30;

fn schema() -> Schema {
    let dimensions = BUILT_IN_DIMENSIONS.iter().filter_map(|name| full_dimension(name)).collect();
    Schema { dimensions, ..Schema::default() }
}

fn aggregator(options: AggregateOptions) -> Aggregator {
    let all: Vec<usize> = (0..BUILT_IN_DIMENSIONS.len()).collect();
    Aggregator::new(&schema(), &all, &KeySecret([7; SECRET_BYTES]), options).unwrap()
}

/// A request of a site with people, robots and a scanner that asks for many paths.
fn ingest(aggregator: &mut Aggregator, number: u64, time_ms: u64) {
    let client = number % 23;
    let path = match number % 5 {
        0 => "/style.css".to_owned(),
        1 => "/robots.txt".to_owned(),
        _ if client == 0 => format!("/{number}"),
        _ => format!("/page{}", number % 7),
    };
    let line = format!(
        r#"{{"msec":{},"remote_addr":"192.0.{client}.{}","status":{},"request":"GET {path} HTTP/1.1","http_user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36","http_referer":"https://shop.example/"}}"#,
        time_ms as f64 / 1000.0,
        number % 3,
        if number.is_multiple_of(4) { 404 } else { 200 },
        120 + client % 4,
    );
    aggregator.ingest(&Parser::default().parse(line.as_bytes()).unwrap());
}

/// What readers have, in bits.
type Rows = BTreeMap<(usize, u64), Vec<u32>>;

fn apply(rows: &mut Rows, change: Change, schema: &Schema) {
    for (at, change) in change.dimensions {
        let upserts = match change {
            DimensionChange::Prefixes(_) => panic!("a log has no networks"),
            DimensionChange::Replace(all) => {
                rows.retain(|(of, _), _| *of != at);
                all
            }
            DimensionChange::Patch { upserts, deletes } => {
                deletes.iter().for_each(|key| _ = rows.remove(&(at, *key)));
                upserts
            }
        };
        let width = schema.dimensions[at].features.len();
        for (key, values) in upserts.keys.iter().zip(upserts.values.chunks(width)) {
            rows.insert((at, *key), values.iter().map(|value| value.to_bits()).collect());
        }
    }
}

fn saved() -> (Aggregator, Rows) {
    let (schema, mut before, mut rows) = (schema(), aggregator(AggregateOptions::default()), Rows::new());
    for number in 0..4000_u64 {
        let time_ms = START + number * 700;
        ingest(&mut before, number, time_ms);
        if number.is_multiple_of(3) {
            apply(&mut rows, before.tick(time_ms / 1000 * 1000), &schema);
        }
    }
    (before, rows)
}

#[test]
fn d6_an_aggregator_that_was_read_back_gives_the_same_rows() {
    let schema = schema();
    let (mut before, mut rows) = saved();
    let bytes = before.save(Vec::new(), MAX_BYTES).unwrap();
    let mut back = aggregator(AggregateOptions::default());
    back.restore(&bytes).unwrap();
    assert_eq!((back.keys(), back.counters()), (before.keys(), before.counters()));
    assert_eq!(back.due_ms(), before.due_ms());
    let mut rows_back = Rows::new();
    for number in 4000..9000_u64 {
        let time_ms = START + number * 700 + if number > 6000 { 7_200_000 } else { 0 };
        for (aggregator, rows) in [(&mut before, &mut rows), (&mut back, &mut rows_back)] {
            ingest(aggregator, number, time_ms);
            apply(rows, aggregator.tick(time_ms / 1000 * 1000), &schema);
        }
        if number.is_multiple_of(500) {
            assert!(rows == rows_back, "after {number}");
        }
    }
    assert!(rows == rows_back && rows.len() > 100, "{}", rows.len());
}

#[test]
fn d6_hosts_that_cannot_be_cost_nothing_else() {
    let (mut before, _) = saved();
    before.hosts = SiteHosts::unsound();
    let mut back = aggregator(AggregateOptions::default());
    back.restore(&before.save(Vec::new(), MAX_BYTES).unwrap()).unwrap();
    assert_eq!(back.keys(), before.keys());
    assert!(back.hosts.is_sound());
}

#[test]
fn what_is_too_long_is_not_saved_and_fewer_keys_are_the_most_active() {
    let (before, _) = saved();
    let said = before.save(Vec::new(), 10_000).unwrap_err();
    assert!(said.contains("checkpoint.max_bytes"), "{said}");
    let bytes = before.save(Vec::new(), MAX_BYTES).unwrap();
    let mut few = aggregator(AggregateOptions { max_keys: 5, ..AggregateOptions::default() });
    few.restore(&bytes).unwrap();
    assert!(few.tables.iter().all(|table| table.len() <= 5));
    let held: usize = few.tables.iter().flat_map(|table| table.networks.values()).map(|held| held.keys).sum();
    assert!(held <= few.keys());
}

#[test]
fn s14_a_lower_limit_of_bytes_holds_after_a_restart_and_the_most_active_stay() {
    let (before, _) = saved();
    let bytes = before.save(Vec::new(), MAX_BYTES).unwrap();
    let table = |aggregator: &Aggregator| {
        let of = |table: &Table| table.entries.iter().map(|row| (row.activity.at(START), row.key())).max();
        aggregator.tables.iter().map(|table| (table.bytes(), of(table))).collect::<Vec<_>>()
    };
    let most = table(&before).iter().map(|(bytes, _)| *bytes).max().unwrap();
    let max_bytes = most / 3;
    let mut few = aggregator(AggregateOptions { max_bytes, ..AggregateOptions::default() });
    few.restore(&bytes).unwrap();
    assert!(table(&few).iter().all(|(bytes, _)| (1..=max_bytes).contains(bytes)));
    assert!(few.keys() * 5 > before.keys() && few.keys() < before.keys());
    for ((_, stays), (_, active)) in table(&few).into_iter().zip(table(&before)) {
        assert_eq!(stays.map(|(activity, _)| activity), active.map(|(activity, _)| activity));
    }
}

/// Which keys make room in full dimensions is chosen at random, and both choose the same.
#[test]
fn d6_full_dimensions_that_were_read_back_drop_the_same_keys() {
    let schema = schema();
    let options = AggregateOptions { max_keys: 40, ..AggregateOptions::default() };
    let (mut before, mut rows) = (aggregator(options), Rows::new());
    let mut back = None;
    let mut rows_back = Rows::new();
    for number in 0..6000_u64 {
        // After thirty days what did not come back on the day after is gone, and there is room again.
        let days = u64::from(number > 3200) + 29 * u64::from(number > 3230);
        let minutes = 24 * 60 * days + 2 * u64::from(number > 3180);
        let time_ms = START + number * 700 + minutes * 60_000;
        if number == 3201 {
            let mut read = aggregator(options);
            read.restore(&before.save(Vec::new(), MAX_BYTES).unwrap()).unwrap();
            back = Some(read);
        }
        let both = [Some((&mut before, &mut rows)), back.as_mut().map(|back| (back, &mut rows_back))];
        for (aggregator, rows) in both.into_iter().flatten() {
            ingest(aggregator, number, time_ms);
            apply(rows, aggregator.tick(time_ms / 1000 * 1000), &schema);
        }
    }
    assert!(before.counters().dropped_keys > 1000, "{:?}", before.counters());
    assert_eq!(before.counters(), back.unwrap().counters());
    assert!(rows == rows_back);
}

#[test]
fn other_dimensions_and_features_have_another_fingerprint() {
    let of = |schema: &Schema| {
        let all: Vec<usize> = (0..schema.dimensions.len()).collect();
        let options = AggregateOptions { max_keys: 7, ..AggregateOptions::default() };
        Aggregator::new(schema, &all, &KeySecret([7; SECRET_BYTES]), options).unwrap().fingerprint()
    };
    let same = of(&schema());
    assert_eq!(same, aggregator(AggregateOptions::default()).fingerprint());
    let mut other = schema();
    other.dimensions[0].features[0].default = 3.0;
    other.dimensions[0].features[0].max = Some(7.0);
    other.dimensions[0].max_age_seconds = 1;
    assert_eq!(of(&other), same, "what rows are made of is the same");
    other.dimensions[2].features.retain(|feature| feature.name != "age_30d");
    assert_ne!(of(&other), same);
    let mut other = schema();
    other.dimensions[1].key[0].v4_prefix = Some(23);
    assert_ne!(of(&other), same);
}

#[test]
fn d6_no_prefix_of_a_state_is_taken_for_one() {
    let (before, _) = saved();
    let bytes = before.save(Vec::new(), MAX_BYTES).unwrap();
    let mut back = aggregator(AggregateOptions::default());
    for len in (0..2000).chain((2000..bytes.len()).step_by(1009)) {
        assert!(back.restore(&bytes[..len]).is_err(), "{len}");
    }
    assert!(back.restore(&[&bytes[..], b"x"].concat()).is_err());
    assert_eq!(back.keys(), 0, "nothing has changed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is in a state whose checksum is right: an error, or counts that go on without a panic.
    #[test]
    fn d6_a_damaged_state_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        thread_local! { static BYTES: Vec<u8> = saved().0.save(Vec::new(), MAX_BYTES).unwrap(); }
        let mut bytes = BYTES.with(Clone::clone);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut back = aggregator(AggregateOptions::default());
        if back.restore(&bytes).is_ok() {
            for number in 0..50_u64 {
                let time_ms = START + 2_800_000 + number * 70_000;
                ingest(&mut back, number, time_ms);
                back.tick(time_ms);
            }
        }
    }
}
