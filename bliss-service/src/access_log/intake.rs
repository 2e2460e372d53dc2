//! From a line of a live log to counts, and to what is told of it.

use super::aggregate::{Aggregator, Ingested};
use super::follow::Line;
use super::health::{Health, Outcome};
use super::parse::{ParseError, Parser, Record};

/// Counts a line, and notes in `health` what became of it. A line that can only be read in part counts for its address, at
/// the time of the line before it if its own cannot be read. Calls `on` with a line that is no backlog, and what it says. Returns why
/// a line cannot be read.
pub fn take(
    line: Line<'_>,
    parser: &Parser,
    aggregator: &mut Aggregator,
    health: &mut Health,
    now_ms: u64,
    on: impl FnOnce(&[u8], &Record<'_>),
) -> Option<ParseError> {
    let Line { bytes, is_backlog, is_doubtful, note: newest_ms } = line;
    if bytes.is_empty() {
        return None;
    }
    let ingest = |aggregator: &mut Aggregator, record: &_| {
        if is_backlog { aggregator.ingest_backlog(record) } else { aggregator.ingest(record) }
    };
    match parser.parse(bytes) {
        Ok(record) => {
            *newest_ms = record.time_ms;
            if is_doubtful && aggregator.may_be_counted(record.time_ms) {
                return None;
            }
            let outcome = match ingest(aggregator, &record) {
                Ingested::Counted => Outcome::Counted,
                Ingested::Late => Outcome::Late(record.time_ms),
                Ingested::Early => Outcome::Early(record.time_ms),
            };
            health.line(bytes, outcome, is_backlog, now_ms);
            if !is_backlog {
                on(bytes, &record);
            }
            None
        }
        Err(malformed) => {
            health.line(bytes, Outcome::Malformed(&malformed), is_backlog, now_ms);
            if let Some(partial) = malformed.partial.filter(|_| !is_doubtful) {
                let clock_ms = aggregator.backlog_ms().filter(|_| is_backlog).unwrap_or(now_ms);
                let before_ms = if *newest_ms == 0 { clock_ms } else { *newest_ms };
                ingest(aggregator, &partial.record(before_ms));
            }
            Some(malformed.error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access_log::aggregate::AggregateOptions;
    use crate::access_log::features::windowed_dimension;
    use crate::access_log::health::{HealthOptions, ProblemKind};
    use bliss_core::key::{KeySecret, SECRET_BYTES};
    use bliss_core::schema::Schema;

    const NOW: u64 = 1_431_857_100_000;
    const MINUTE: u64 = 60_000;

    fn json(time_ms: u64) -> String {
        format!(
            r#"{{"msec":{},"remote_addr":"192.0.2.1","status":200,"request":"GET / HTTP/1.1"}}"#,
            time_ms as f64 / 1000.0
        )
    }

    fn aggregator() -> Aggregator {
        let schema = Schema { dimensions: vec![windowed_dimension("ip").unwrap()], ..Schema::default() };
        let secret = KeySecret([7; SECRET_BYTES]);
        let mut aggregator = Aggregator::new(&schema, &[0], &secret, AggregateOptions::default()).unwrap();
        aggregator.start(NOW);
        aggregator
    }

    /// A rotated file that begins with a line without a time.
    #[test]
    fn d6_a_line_without_a_time_in_a_backlog_makes_no_other_late() {
        let mut aggregator = aggregator();
        aggregator.catch_up(1000, NOW + 60 * MINUTE);
        let mut health = Health::new(HealthOptions::default(), NOW, Duration::ZERO);
        let good = json(NOW + MINUTE);
        let (now, mut note) = (NOW + 60 * MINUTE, 0);
        for bytes in [&b"192.0.2.1 GET / 200"[..], good.as_bytes()] {
            let line = Line { bytes, is_backlog: true, is_doubtful: false, note: &mut note };
            take(line, &Parser::default(), &mut aggregator, &mut health, now, |_, _| ());
        }
        let counters = aggregator.counters();
        assert_eq!((counters.records, counters.late_records, counters.early_records), (2, 0, 0));
    }

    /// A minute of a site's lines, of which nine in ten are like this, and what is told of them.
    #[test]
    fn what_becomes_of_lines_is_told() {
        let cases = [
            ("good", json(NOW), None),
            ("as late as may be", json(NOW - 2 * MINUTE), None),
            ("later", json(NOW - 2 * MINUTE - 1), Some(ProblemKind::Late)),
            ("held back for hours by buffer=", json(NOW - 180 * MINUTE), Some(ProblemKind::Late)),
            ("a clock that is a little ahead", json(NOW + 3 * MINUTE), None),
            ("another time zone", json(NOW + 60 * MINUTE), Some(ProblemKind::Early)),
            ("another format", "17/May/2015 GET / 200".to_owned(), Some(ProblemKind::Malformed)),
            ("an address and no more", "192.0.2.1 GET / 200".to_owned(), Some(ProblemKind::Malformed)),
            ("half a line", json(NOW)[..40].to_owned(), Some(ProblemKind::Malformed)),
            (
                "no field for the address",
                r#"{"msec":1431857100,"status":200}"#.to_owned(),
                Some(ProblemKind::Malformed),
            ),
            ("empty lines", String::new(), None),
        ];
        for (name, line, expected) in cases {
            let mut aggregator = aggregator();
            let mut health = Health::new(HealthOptions::default(), NOW, Duration::ZERO);
            let mut note = 0;
            for number in 0..100 {
                let good = json(NOW);
                let bytes = if number % 10 == 0 { good.as_bytes() } else { line.as_bytes() };
                let line = Line { bytes, is_backlog: false, is_doubtful: false, note: &mut note };
                let error = take(line, &Parser::default(), &mut aggregator, &mut health, NOW, |_, _| ());
                assert_eq!(
                    error.is_some(),
                    number % 10 > 0 && expected == Some(ProblemKind::Malformed),
                    "{name}"
                );
            }
            assert_eq!(health.problem(&[], 1, NOW, Duration::ZERO), None, "{name}: the minute is not over");
            let told = health.problem(&[], 1, NOW + MINUTE, Duration::ZERO);
            assert_eq!(told.map(|problem| problem.kind), expected, "{name}");
        }
    }
}
