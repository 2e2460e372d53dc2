use std::collections::BTreeMap;

use bliss_core::build::DimensionChange;
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::Schema;

use super::super::AggregateOptions;
use super::*;
use crate::access_log::features::{BUILT_IN_DIMENSIONS, full_dimension};
use crate::access_log::parse::Parser;

const START: u64 = 1_431_856_800_000;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const END: u64 = START + 600 * MINUTE;

fn aggregator() -> Aggregator {
    let dimensions: Vec<_> = BUILT_IN_DIMENSIONS.iter().filter_map(|name| full_dimension(name)).collect();
    let all: Vec<usize> = (0..dimensions.len()).collect();
    let schema = Schema { dimensions, ..Schema::default() };
    let secret = KeySecret([7; SECRET_BYTES]);
    let mut aggregator = Aggregator::new(&schema, &all, &secret, AggregateOptions::default()).unwrap();
    aggregator.start(START);
    aggregator
}

/// A line: when it was written, and the time in it.
type Written = (u64, u64);

fn line(number: usize, time_ms: u64) -> String {
    format!(
        r#"{{"msec":{},"remote_addr":"192.0.2.{}","status":200,"request":"GET /{number} HTTP/1.1","http_user_agent":"a"}}"#,
        time_ms as f64 / 1000.0,
        number % 5,
    )
}

/// All rows in bits.
fn rows(aggregator: &mut Aggregator) -> BTreeMap<(usize, u64), Vec<u32>> {
    aggregator.restate();
    let mut all = BTreeMap::new();
    for (at, change) in aggregator.tick(END).dimensions {
        let DimensionChange::Replace(rows) = change else { panic!("restated") };
        let width = rows.values.len() / rows.keys.len().max(1);
        for (key, values) in rows.keys.iter().zip(rows.values.chunks(width.max(1))) {
            all.insert((at, *key), values.iter().map(|value| value.to_bits()).collect());
        }
    }
    all
}

/// The lines give the same when they are followed and when they are caught up with; returns what became of them.
fn assert_same(what: &str, lines: &[Written]) -> (u64, u64, u64) {
    let (mut live, mut late) = (aggregator(), aggregator());
    let mut clock_ms = START;
    late.catch_up(SECOND, END);
    for (number, (written_ms, time_ms)) in lines.iter().enumerate() {
        while clock_ms + SECOND <= *written_ms {
            clock_ms += SECOND;
            live.tick(clock_ms);
        }
        let line = line(number, *time_ms);
        let record = Parser::default();
        let record = record.parse(line.as_bytes()).unwrap();
        live.ingest(&record);
        late.ingest_backlog(&record);
    }
    while clock_ms < END {
        clock_ms += SECOND;
        live.tick(clock_ms);
    }
    assert!(rows(&mut live) == rows(&mut late), "{what}");
    assert_eq!(live.counters(), late.counters(), "{what}");
    let counters = live.counters();
    (counters.records, counters.late_records, counters.early_records)
}

/// As many right lines, one each so often.
fn right(lines: u64, each_ms: u64) -> Vec<Written> {
    (1..=lines).map(|number| (START + number * each_ms, START + number * each_ms)).collect()
}

#[test]
fn d6_a_line_with_a_wrong_time_does_not_make_others_late() {
    let lines = |wrong: &[(usize, u64)]| {
        let mut lines = right(400, 7 * SECOND);
        wrong.iter().for_each(|(at, time_ms)| lines[*at].1 = *time_ms);
        lines
    };
    let hour = START + 60 * MINUTE;
    assert_eq!(assert_same("right", &lines(&[])), (400, 0, 0));
    assert_eq!(assert_same("an hour ahead", &lines(&[(50, hour)])), (399, 0, 1));
    assert_eq!(assert_same("a year ahead", &lines(&[(50, hour + 525_600 * MINUTE)])), (399, 0, 1));
    assert_eq!(assert_same("the first", &lines(&[(0, hour)])), (399, 0, 1));
    let several = [(50, hour), (51, hour + 1), (52, hour), (60, hour), (62, hour + 300 * MINUTE), (64, hour)];
    assert_eq!(assert_same("several", &lines(&several)), (394, 0, 6));
    assert_eq!(assert_same("an hour behind", &lines(&[(399, START)])), (399, 1, 0));
}

#[test]
fn d6_nobody_may_ask_for_hours() {
    assert_eq!(assert_same("each quarter", &right(39, 15 * MINUTE)), (39, 0, 0));
    let mut lines = right(30, SECOND);
    for hours in 1..9 {
        lines.extend(right(2 + 7 * (hours % 2), SECOND).iter().map(|(a, b)| {
            let later = hours * 60 * MINUTE;
            (a + later, b + later)
        }));
    }
    assert_eq!(assert_same("each hour a few", &lines), (30 + 4 * 9 + 4 * 2, 0, 0));
}

/// What is written while the backlog is read is not early, and what has no time is of the clock's.
#[test]
fn d6_what_is_written_while_the_backlog_is_read_counts() {
    let mut aggregator = aggregator();
    aggregator.catch_up(SECOND, START + MINUTE);
    let mut ingest = |time_ms: u64| {
        let line = line(1, time_ms);
        let parser = Parser::default();
        let ingested = aggregator.ingest_backlog(&parser.parse(line.as_bytes()).unwrap());
        aggregator.catch_up_until(START + 10 * MINUTE);
        ingested
    };
    assert_eq!(ingest(START + 5 * MINUTE), Ingested::Early);
    assert_eq!(ingest(START + 2 * MINUTE), Ingested::Counted);
    assert_eq!(ingest(START + 5 * MINUTE), Ingested::Counted);
    assert_eq!(aggregator.backlog_ms(), Some(START + 5 * MINUTE));
    aggregator.tick(START + 10 * MINUTE);
    assert_eq!((aggregator.counters().records, aggregator.backlog_ms()), (2, None));
}

/// Publications may be farther apart than a line may be ahead of one.
#[test]
fn a_long_interval_holds_no_lines_back() {
    let mut aggregator = aggregator();
    aggregator.catch_up(10 * MINUTE, END);
    for (number, (_, time_ms)) in right(580, MINUTE).into_iter().enumerate() {
        let line = line(number, time_ms);
        aggregator.ingest_backlog(&Parser::default().parse(line.as_bytes()).unwrap());
        assert!(aggregator.waiting().count() <= 10 + VOTES, "{number}");
    }
    assert!(aggregator.backlog_ms().unwrap() > END - 60 * MINUTE);
}
