use std::collections::HashMap;

use super::*;
use crate::access_log::aggregate::AggregateOptions;
use crate::access_log::features::windowed_dimension;
use bliss_core::build::DimensionChange;
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::Schema;

fn aggregator() -> Aggregator {
    let schema = Schema { dimensions: vec![windowed_dimension("ip").unwrap()], ..Schema::default() };
    Aggregator::new(&schema, &[0], &KeySecret([1; SECRET_BYTES]), AggregateOptions::default()).unwrap()
}

fn line(time: &str, path: &str) -> String {
    format!("192.0.2.1 - - [17/May/2015:{time} +0000] \"GET {path} HTTP/1.1\" 200 1 \"-\" \"agent\"\n")
}

fn open(text: &str, options: ReplayOptions) -> (tempfile::TempDir, Replay) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, text).unwrap();
    let replay = Replay::open(&path, Parser::default(), options).unwrap();
    (dir, replay)
}

/// For each request, in the order of the replay: its line, and `requests_1m` of its address as it reads it.
fn read(replay: &Replay) -> Vec<(u64, Option<f32>)> {
    let mut rows: HashMap<u64, f32> = HashMap::new();
    let mut read = vec![];
    let mut last_at = 0;
    replay
        .run::<io::Error>(&mut aggregator(), |event| {
            match event {
                Event::Publication { at_ms, change } => {
                    assert!(at_ms > last_at && at_ms % replay.interval_ms == 0);
                    last_at = at_ms;
                    for (_, change) in change.dimensions {
                        let (upserts, deletes) = match change {
                            DimensionChange::Prefixes(_) => panic!("a log has no networks"),
                            DimensionChange::Replace(rows) => (rows, vec![]),
                            DimensionChange::Patch { upserts, deletes } => (upserts, deletes),
                        };
                        deletes.iter().for_each(|key| {
                            rows.remove(key);
                        });
                        rows.extend(
                            upserts.keys.iter().zip(upserts.values.chunks(27)).map(|(k, v)| (*k, v[0])),
                        );
                    }
                }
                Event::Request { line, record } => {
                    assert!(last_at <= record.time_ms);
                    read.push((line, rows.values().next().copied()));
                }
            }
            Ok(())
        })
        .unwrap();
    read
}

#[test]
fn a_request_reads_what_was_published_before_it_and_never_itself() {
    let text =
        [line("10:00:00", "/1"), line("10:00:00", "/2"), line("10:00:01", "/3"), line("10:00:10", "/4")];
    let (_dir, replay) = open(&text.concat(), ReplayOptions::default());
    assert_eq!(read(&replay), [(1, None), (2, None), (3, Some(2.0)), (4, Some(3.0))]);
}

#[test]
fn lines_are_replayed_in_the_order_of_their_times() {
    let text =
        [line("10:00:05", "/1"), line("10:00:00", "/2"), line("10:00:05", "/3"), line("10:00:02", "/4")];
    let (_dir, replay) = open(&text.concat(), ReplayOptions::default());
    assert_eq!(read(&replay), [(2, None), (4, Some(1.0)), (1, Some(2.0)), (3, Some(2.0))]);
}

#[test]
fn lines_that_are_too_late_read_and_do_not_count() {
    let options = ReplayOptions { lateness_ms: 3_000, ..Default::default() };
    let text =
        [line("10:00:05", "/1"), line("10:00:01", "/2"), line("10:00:02", "/3"), line("10:00:06", "/4")];
    let (_dir, replay) = open(&text.concat(), options);
    assert_eq!(read(&replay), [(2, None), (3, None), (1, Some(1.0)), (4, Some(2.0))]);
    assert_eq!(replay.summary().late, 1);
}

#[test]
fn rows_change_between_requests_by_themselves() {
    let text = [line("10:00:00", "/1"), line("10:10:00", "/2"), line("12:10:00", "/3")];
    let (_dir, replay) = open(&text.concat(), ReplayOptions::default());
    assert_eq!(read(&replay), [(1, None), (2, Some(0.0)), (3, None)]);
}

#[test]
fn broken_lines_are_counted_with_the_first_of_them_and_skipped() {
    let long = "x".repeat(3 * MAX_LINE_BYTES);
    let text = format!("{}garbage\n\n{long}\n{}no end", line("10:00:00", "/1"), line("10:00:01", "/2"));
    let (_dir, replay) = open(&text, ReplayOptions::default());
    assert_eq!(read(&replay), [(1, None), (5, Some(1.0))]);
    let summary = replay.summary();
    assert_eq!((summary.requests, summary.malformed), (2, 3));
    assert_eq!(summary.first_malformed.as_ref().unwrap().0, 2);
}

#[test]
fn the_real_log_is_replayed_whole() {
    let Some(path) = crate::test_support::real_log("the_real_log_is_replayed_whole") else { return };
    let replay = Replay::open(&path, Parser::default(), ReplayOptions::default()).unwrap();
    let summary = replay.summary();
    assert_eq!((summary.requests, summary.malformed, summary.late), (5000, 0, 0));
    assert_eq!(read(&replay).len(), 5000);
}

#[test]
fn an_empty_log_has_no_events_but_the_first_publication() {
    let (_dir, replay) = open("", ReplayOptions::default());
    assert!(read(&replay).is_empty());
    assert_eq!(replay.summary(), &Summary::default());
}
