use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::access_log::features::{
    WINDOWED_DIMENSIONS, built_in_dimension, full_dimension, windowed_dimension,
};
use crate::access_log::parse::Parser;
use crate::access_log::windows::WINDOWS;
use bliss_core::build::DimensionChange;
use bliss_core::key::SECRET_BYTES;
use bliss_core::schema::{Feature, KeyPart};

const SECRET: KeySecret = KeySecret([7; SECRET_BYTES]);
const START: u64 = 1_431_857_100_000;

fn schema() -> Schema {
    let dimensions = WINDOWED_DIMENSIONS.iter().map(|name| windowed_dimension(name).unwrap()).collect();
    Schema { dimensions, ..Schema::default() }
}

fn aggregator(options: AggregateOptions) -> Aggregator {
    Aggregator::new(&schema(), &[0, 1, 2, 3], &SECRET, options).unwrap()
}

fn line(time_ms: u64, ip: &str, agent: &str, path: &str) -> String {
    format!(
        r#"{{"msec":{},"remote_addr":"{ip}","status":200,"request":"GET {path} HTTP/1.1","http_user_agent":"{agent}"}}"#,
        time_ms as f64 / 1000.0
    )
}

fn ingest(aggregator: &mut Aggregator, time_ms: u64, ip: &str) {
    let line = line(time_ms, ip, "agent", "/");
    aggregator.ingest(&Parser::default().parse(line.as_bytes()).unwrap());
}

/// What readers have of each dimension: changes applied to a map.
#[derive(Default)]
struct Published(BTreeMap<usize, BTreeMap<u64, Vec<f32>>>);

impl Published {
    fn apply(&mut self, change: Change, schema: &Schema) {
        for (dimension, change) in change.dimensions {
            let width = schema.dimensions[dimension].features.len();
            let rows = self.0.entry(dimension).or_default();
            let upserts = match change {
                DimensionChange::Prefixes(_) => panic!("a log has no networks"),
                DimensionChange::Replace(all) => {
                    rows.clear();
                    all
                }
                DimensionChange::Patch { upserts, deletes } => {
                    for key in deletes {
                        assert!(rows.remove(&key).is_some(), "deletes only what is there");
                        assert!(!upserts.keys.contains(&key), "a key is deleted or upserted");
                    }
                    upserts
                }
            };
            assert_eq!(upserts.values.len(), upserts.keys.len() * width);
            assert_eq!(upserts.updated_at.len(), upserts.keys.len());
            for (key, values) in upserts.keys.iter().zip(upserts.values.chunks(width)) {
                rows.insert(*key, values.to_vec());
            }
            let unique: HashSet<_> = upserts.keys.iter().collect();
            assert_eq!(unique.len(), upserts.keys.len(), "a key comes once in a change");
        }
    }

    fn ip(&self, schema: &Schema, ip: &str, feature: &str) -> Option<f32> {
        let dimension = &schema.dimensions[0];
        let key = DimensionKeys::new(&SECRET, schema, dimension).key(|_| Some(ip.into())).unwrap();
        let column = dimension.features.iter().position(|f| f.name == feature).unwrap();
        self.0.get(&0)?.get(&key).map(|row| row[column])
    }
}

#[test]
fn a_publication_holds_exactly_the_requests_before_it() {
    let schema = schema();
    let mut aggregator = aggregator(AggregateOptions::default());
    let mut published = Published::default();
    for time in [START, START + 999, START + 1000, START + 1001] {
        ingest(&mut aggregator, time, "192.0.2.1");
    }
    let mut at = |at: u64| {
        published.apply(aggregator.tick(at), &schema);
        published.ip(&schema, "192.0.2.1", "requests_1m")
    };
    assert_eq!(at(START), None);
    assert_eq!(at(START + 1), Some(1.0));
    assert_eq!(at(START + 1000), Some(2.0));
    assert_eq!(at(START + 2000), Some(4.0));
}

#[test]
fn the_first_publication_replaces_and_later_ones_patch_only_what_changed() {
    let mut aggregator = aggregator(AggregateOptions::default());
    let first = aggregator.tick(START).dimensions;
    assert_eq!(first.len(), 4);
    assert!(
        first
            .iter()
            .all(|(_, change)| matches!(change, DimensionChange::Replace(rows) if rows.keys.is_empty()))
    );
    assert!(aggregator.tick(START + 1000).is_empty());
    ingest(&mut aggregator, START + 1500, "192.0.2.1");
    ingest(&mut aggregator, START + 1500, "192.0.2.2");
    let changes = aggregator.tick(START + 2000).dimensions;
    let upserts: Vec<_> = changes
        .iter()
        .map(|(_, change)| match change {
            DimensionChange::Patch { upserts, deletes } if deletes.is_empty() => upserts.keys.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(upserts, [2, 1, 1, 2], "ip, subnet, user_agent, ip_user_agent");
    assert!(aggregator.tick(START + 3000).is_empty());
    aggregator.restate();
    let whole = aggregator.tick(START + 4000).dimensions;
    assert!(whole.iter().all(|(_, change)| matches!(change, DimensionChange::Replace(_))));
}

#[test]
fn windows_shrink_by_themselves_and_keys_that_left_all_are_deleted() {
    let schema = schema();
    let mut aggregator = aggregator(AggregateOptions::default());
    let mut published = Published::default();
    ingest(&mut aggregator, START, "192.0.2.1");
    let mut publications = 0;
    for second in 1..=3700 {
        let changes = aggregator.tick(START + second * 1000);
        publications += u32::from(!changes.is_empty());
        published.apply(changes, &schema);
        let ip = |feature| published.ip(&schema, "192.0.2.1", feature);
        match second {
            1..55 => assert_eq!(ip("requests_1m"), Some(1.0), "{second}"),
            61..280 => {
                assert_eq!((ip("requests_1m"), ip("requests_5m")), (Some(0.0), Some(1.0)), "{second}");
                assert_eq!(ip("seconds_between_requests_1m"), Some(60.0));
            }
            301..3420 => {
                assert_eq!((ip("requests_5m"), ip("requests_1h")), (Some(0.0), Some(1.0)), "{second}")
            }
            3601.. => assert_eq!(ip("requests_1h"), None, "{second}"),
            _ => (),
        }
    }
    assert_eq!(publications, 4, "the request, and each window that it left");
    assert_eq!((aggregator.keys(), aggregator.due_ms()), (0, None));
}

#[test]
fn late_records_count_within_the_lateness_and_are_counted_as_late_beyond() {
    let schema = schema();
    let mut aggregator = aggregator(AggregateOptions { lateness_ms: 10_000, ..Default::default() });
    let mut published = Published::default();
    published.apply(aggregator.tick(START + 60_000), &schema);
    ingest(&mut aggregator, START + 50_000, "192.0.2.1");
    ingest(&mut aggregator, START + 49_999, "192.0.2.1");
    ingest(&mut aggregator, START + 60_000 + 70_001, "192.0.2.1");
    published.apply(aggregator.tick(START + 61_000), &schema);
    assert_eq!(published.ip(&schema, "192.0.2.1", "requests_1m"), Some(1.0));
    let counters = aggregator.counters();
    assert_eq!((counters.records, counters.late_records, counters.early_records), (1, 1, 1));
}

#[test]
fn a_reset_forgets_and_replaces() {
    let schema = schema();
    let mut aggregator = aggregator(AggregateOptions::default());
    let mut published = Published::default();
    ingest(&mut aggregator, START + 3_600_000, "192.0.2.1");
    published.apply(aggregator.tick(START + 3_601_000), &schema);
    aggregator.reset();
    aggregator.start(START);
    ingest(&mut aggregator, START, "192.0.2.2");
    published.apply(aggregator.tick(START + 1_000), &schema);
    assert_eq!(published.ip(&schema, "192.0.2.1", "requests_1m"), None);
    assert_eq!(published.ip(&schema, "192.0.2.2", "requests_1m"), Some(1.0));
}

#[test]
fn a_backlog_counts_in_the_windows_that_reach_back_to_it() {
    let schema = schema();
    let mut aggregator = aggregator(AggregateOptions { lateness_ms: 1_000, ..Default::default() });
    aggregator.start(START);
    for age_seconds in [4000, 3000, 200, 30] {
        let line = line(START - age_seconds * 1000, "192.0.2.1", "agent", "/");
        aggregator.ingest_backlog(&Parser::default().parse(line.as_bytes()).unwrap());
    }
    let mut published = Published::default();
    published.apply(aggregator.tick(START), &schema);
    let ip = |feature| published.ip(&schema, "192.0.2.1", feature);
    assert_eq!((ip("requests_1m"), ip("requests_5m"), ip("requests_1h")), (Some(1.0), Some(2.0), Some(3.0)));
}

#[test]
fn keys_are_bounded_and_dropped_ones_are_counted_and_deleted() {
    let schema = schema();
    let mut aggregator = aggregator(AggregateOptions { max_keys: 10, ..Default::default() });
    let mut published = Published::default();
    for i in 0..100u64 {
        ingest(&mut aggregator, START + i * 1000, &format!("192.0.2.{i}"));
        published.apply(aggregator.tick(START + i * 1000 + 500), &schema);
        assert!(published.0[&0].len() <= 10);
    }
    assert_eq!(published.0[&0].len(), 10);
    // 90 addresses and 90 pairs of address and agent; one subnet, one agent.
    assert_eq!(aggregator.counters().dropped_keys, 180);
    assert!(published.ip(&schema, "192.0.2.99", "requests_1m").is_some(), "the newest stays");
}

#[test]
fn a_record_without_user_agent_has_no_row_in_its_dimensions() {
    let mut aggregator = aggregator(AggregateOptions::default());
    let line = format!(r#"{{"msec":{},"remote_addr":"192.0.2.1","status":200,"request":"-"}}"#, START / 1000);
    aggregator.ingest(&Parser::default().parse(line.as_bytes()).unwrap());
    let rows: Vec<_> = aggregator
        .tick(START + 1000)
        .dimensions
        .into_iter()
        .map(|(_, change)| match change {
            DimensionChange::Prefixes(_) => panic!("a log has no networks"),
            DimensionChange::Replace(rows) => rows.keys.len(),
            DimensionChange::Patch { .. } => panic!("the first replaces"),
        })
        .collect();
    assert_eq!(rows, [1, 1, 0, 0]);
}

#[test]
fn a_dimension_that_a_log_cannot_fill_is_named() {
    let mut schema = schema();
    schema.dimensions[0].features.push(Feature::number("bytes_1m"));
    let error = |schema: &Schema| {
        Aggregator::new(schema, &[0], &SECRET, AggregateOptions::default()).err().unwrap().to_string()
    };
    assert!(error(&schema).contains("`ip`") && error(&schema).contains("`bytes_1m`"));
    schema.dimensions[0].key = vec![KeyPart::whole("ja3")];
    assert!(error(&schema).contains("`ja3`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model that keeps every record: the published rows are what a count over the window's buckets
    /// gives, whenever the ticks come, and a replay that ticks only when something is due says the same.
    #[test]
    fn rows_equal_a_naive_count(
        gaps in proptest::collection::vec((0u64..200_000, 0u8..4, 0u64..2_000), 1..60),
        max_gap_seconds in 1u64..400,
    ) {
        let schema = schema();
        let mut aggregator = aggregator(AggregateOptions { lateness_ms: 10_000, ..Default::default() });
        let mut published = Published::default();
        let mut records: Vec<(u64, String)> = vec![];
        let mut now = START;
        for (gap, client, late) in gaps {
            let gap = gap.min(max_gap_seconds * 1000);
            now += gap;
            published.apply(aggregator.tick(now), &schema);
            let (time, ip) = (now - late, format!("192.0.2.{client}"));
            ingest(&mut aggregator, time, &ip);
            records.push((time, ip));
            now += 1;
        }
        for step in [0, 7_000, 61_000, 400_000, 3_000_000, 4_000_000] {
            now += step;
            published.apply(aggregator.tick(now), &schema);
            for client in 0..4 {
                let ip = format!("192.0.2.{client}");
                for (window, suffix) in WINDOWS.iter().zip(["1m", "5m", "1h"]) {
                    let oldest = ((now - 1) / window.bucket_ms + 1 - window.buckets) * window.bucket_ms;
                    let times: Vec<_> = records
                        .iter()
                        .filter(|(time, of)| *of == ip && *time >= oldest && *time < now)
                        .map(|(time, _)| *time)
                        .collect();
                    let requests = published.ip(&schema, &ip, &format!("requests_{suffix}"));
                    prop_assert_eq!(requests.unwrap_or(0.0), times.len() as f32);
                    if times.len() > 1 {
                        let span = times.iter().max().unwrap() - times.iter().min().unwrap();
                        let expected = (span as f64 / 1000.0 / (times.len() - 1) as f64) as f32;
                        let between = format!("seconds_between_requests_{suffix}");
                        prop_assert_eq!(published.ip(&schema, &ip, &between), Some(expected));
                    }
                    if suffix == "1h" && times.is_empty() {
                        prop_assert_eq!(requests, None, "no row without a request in any window");
                    }
                }
            }
        }
    }
}

/// A line as the example's configuration for nginx writes it.
fn answered(time_ms: u64, path: &str, status: u16, action: &str) -> String {
    format!(
        r#"{{"msec":{},"remote_addr":"192.0.2.1","status":{status},"request_method":"GET","request_uri":"{path}","http_user_agent":"a","bot_action":"{action}"}}"#,
        time_ms as f64 / 1000.0
    )
}

fn ingest_line(aggregator: &mut Aggregator, line: &str) {
    aggregator.ingest(&Parser::default().parse(line.as_bytes()).unwrap());
}

/// Whether a client is blocked, challenged or limited by us for an hour or not: its features are those of what the server answered.
#[test]
fn p10_a_client_that_we_answered_has_the_features_of_what_the_server_answered() {
    let all = [
        built_in_dimension("ip"),
        full_dimension("ip"),
        full_dimension("ip_user_agent"),
        full_dimension("subnet"),
    ];
    for dimension in all.into_iter().flatten() {
        let schema = Schema { dimensions: vec![dimension], ..Schema::default() };
        let rows = |with_own: bool| {
            let options = AggregateOptions::default();
            let mut aggregator = Aggregator::new(&schema, &[0], &SECRET, options).unwrap();
            let mut published = Published::default();
            let mut seen = Vec::new();
            for second in 0..4200 {
                let at = START + second * 1000;
                // It is served for ten minutes, blocked for an hour, and comes back now and then.
                if second < 600 || second % 700 == 0 {
                    let (path, status) = [("/", 200), ("/a.css", 200), ("/x", 404)][second as usize % 3];
                    ingest_line(&mut aggregator, &answered(at, path, status, "allow"));
                } else if with_own {
                    let (action, status) =
                        [("block", 403), ("challenge", 401), ("rate_limit_key", 429), ("block", 444)]
                            [second as usize % 4];
                    ingest_line(&mut aggregator, &answered(at + 1, "/robots.txt", status, action));
                }
                published.apply(aggregator.tick(at + 1000), &schema);
                if second % 60 == 0 {
                    seen.push(format!("{:?}", published.0));
                }
            }
            seen
        };
        assert!(rows(true) == rows(false), "{}", schema.dimensions[0].name);
    }
}

/// While the server fails for a minute, nobody's errors grow but those that are told to be the server's.
#[test]
fn p10_failures_of_the_server_are_nobodys_errors() {
    let schema = Schema { dimensions: vec![full_dimension("ip").unwrap()], ..Schema::default() };
    let mut aggregator = Aggregator::new(&schema, &[0], &SECRET, AggregateOptions::default()).unwrap();
    let mut published = Published::default();
    for second in 0..120 {
        let status = if second < 60 { 200 } else { 500 + (second % 5) as u16 };
        ingest_line(&mut aggregator, &answered(START + second * 1000, "/", status, ""));
        published.apply(aggregator.tick(START + (second + 1) * 1000), &schema);
        for feature in schema.dimensions[0].features.iter().map(|feature| feature.name.as_str()) {
            let is_of_clients =
                feature.starts_with("client_error_ratio") || feature.starts_with("error_share");
            let value = published.ip(&schema, "192.0.2.1", feature).unwrap();
            assert!(!is_of_clients || value == 0.0, "{feature} is {value} at {second}");
        }
    }
    assert_eq!(published.ip(&schema, "192.0.2.1", "server_error_ratio_1m"), Some(1.0));
}

proptest! {
    /// Whatever is mixed: what a decision of ours answered is in no measure.
    #[test]
    fn own_answers_are_in_no_measure(
        mixture in proptest::collection::vec((1u64..4000, 100u16..600, 0usize..4, 0usize..5), 1..60),
    ) {
        let schema = schema();
        let paths = ["/", "/a.png", "/robots.txt", "/b"];
        let actions = ["", "-", "allow", "block", "challenge"];
        let rows = |with_own: bool| {
            let mut aggregator = aggregator(AggregateOptions::default());
            let mut published = Published::default();
            let mut now = START / 3_600_000 * 3_600_000;
            for (gap, status, path, action) in &mixture {
                now += gap;
                if with_own || *action < 3 {
                    ingest_line(&mut aggregator, &answered(now, paths[*path], *status, actions[*action]));
                }
            }
            published.apply(aggregator.tick(now + 1), &schema);
            format!("{:?}", published.0)
        };
        prop_assert_eq!(rows(true), rows(false));
    }
}
