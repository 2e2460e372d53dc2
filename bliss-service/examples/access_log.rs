//! How fast an access log is counted, how much memory its keys take, and what a checkpoint of them costs.
//!
//! ```sh
//! cargo run --profile demo -p bliss-service --example access_log -- access.log 2000000 [windows=false]
//! ```
//!
//! The lines of the log are repeated as often as needed, each time at later times and from other addresses, a hundred a second,
//! in a temporary file, which is then read line by line, parsed and counted, with the rows of a publication each second.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use bliss_core::build::DimensionChange;
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::{Dimension, Schema};
use bliss_service::access_log::aggregate::{AggregateOptions, Aggregator};
use bliss_service::access_log::features::{
    BUILT_IN_DIMENSIONS, built_in_dimension, full_dimension, windowed_dimension,
};
use bliss_service::access_log::parse::Parser;

const LINES_PER_SECOND: u64 = 100;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let log = args.next().context("expected a log, and how many lines to make of it")?;
    let lines: u64 = args.next().unwrap_or("2000000".into()).parse()?;
    let windows = args.next().is_none_or(|option| option != "windows=false");
    let mut file = make(&log, lines)?;
    let of = if windows { full_dimension } else { built_in_dimension };
    println!("{lines} lines, {} bytes, windows={windows}", file.metadata()?.len());

    let started = Instant::now();
    for_each_line(&mut file, |_| {})?;
    println!("read: {:.2} s", started.elapsed().as_secs_f64());
    let parser = Parser::default();
    let started = Instant::now();
    for_each_line(&mut file, |line| drop(std::hint::black_box(parser.parse(line))))?;
    println!("read and parsed: {:.2} s", started.elapsed().as_secs_f64());

    let four = &BUILT_IN_DIMENSIONS[..4];
    println!(
        "four dimensions of windows alone, what was counted before features with memory (by the code of today):"
    );
    count(&mut file, &parser, four, windowed_dimension, false)?;
    println!("as a backlog: {:.2} s", backlog(&mut file, &parser, &BUILT_IN_DIMENSIONS, of)?);
    let (mut aggregator, _) = count(&mut file, &parser, &BUILT_IN_DIMENSIONS, of, true)?;
    let started = Instant::now();
    let saved = aggregator.save(Vec::new(), u64::MAX).map_err(anyhow::Error::msg)?;
    let save = started.elapsed();
    let started = Instant::now();
    let packed = zstd::encode_all(saved.as_slice(), 1)?.len();
    let pack = started.elapsed();
    let started = Instant::now();
    aggregator.restore(&saved)?;
    println!(
        "checkpoint of {} keys: {:.1} MB made in {:.0} ms (the pause), {:.1} MB compressed in {:.0} ms, read back in {:.0} ms",
        aggregator.keys(),
        saved.len() as f64 / 1e6,
        save.as_secs_f64() * 1e3,
        packed as f64 / 1e6,
        pack.as_secs_f64() * 1e3,
        started.elapsed().as_secs_f64() * 1e3,
    );
    drop(aggregator);
    for name in BUILT_IN_DIMENSIONS {
        count(&mut file, &parser, &[name], of, false)?;
    }
    Ok(())
}

/// Seconds in which the log is counted as the past of a daemon that starts: the rows are made once, at its end.
fn backlog(
    file: &mut File,
    parser: &Parser,
    names: &[&str],
    of: fn(&str) -> Option<Dimension>,
) -> Result<f64> {
    let dimensions: Vec<_> = names.iter().filter_map(|name| of(name)).collect();
    let all: Vec<usize> = (0..dimensions.len()).collect();
    let schema = Schema { dimensions, ..Schema::default() };
    let options = AggregateOptions { is_replay: true, ..AggregateOptions::default() };
    let mut aggregator = Aggregator::new(&schema, &all, &KeySecret([7; SECRET_BYTES]), options)?;
    let mut end_ms = 0;
    for_each_line(file, |line| end_ms = parser.parse(line).map_or(end_ms, |record| record.time_ms + 1000))?;
    let started = Instant::now();
    aggregator.start(end_ms);
    for_each_line(file, |line| {
        if let Ok(record) = parser.parse(line) {
            aggregator.ingest_backlog(&record);
        }
    })?;
    drop(std::hint::black_box(aggregator.tick(end_ms)));
    Ok(started.elapsed().as_secs_f64())
}

/// Counts the log into these dimensions.
fn count(
    file: &mut File,
    parser: &Parser,
    names: &[&str],
    of: fn(&str) -> Option<Dimension>,
    is_whole: bool,
) -> Result<(Aggregator, u64)> {
    let dimensions: Vec<_> = names.iter().filter_map(|name| of(name)).collect();
    let all: Vec<usize> = (0..dimensions.len()).collect();
    let schema = Schema { dimensions, ..Schema::default() };
    let options = AggregateOptions { is_replay: true, ..AggregateOptions::default() };
    let mut aggregator = Aggregator::new(&schema, &all, &KeySecret([7; SECRET_BYTES]), options)?;
    let (mut published, mut rows, mut keys) = (0, 0, HashMap::new());
    let before = resident_bytes();
    let started = Instant::now();
    for_each_line(file, |line| {
        let Ok(record) = parser.parse(line) else { return };
        let at = record.time_ms / 1000 * 1000;
        if at > published {
            published = at;
            for (at, change) in aggregator.tick(published).dimensions {
                let (DimensionChange::Replace(upserts) | DimensionChange::Patch { upserts, .. }) = change
                else {
                    continue;
                };
                rows += upserts.keys.len() as u64;
                *keys.entry(at).or_insert(0) += upserts.keys.len();
            }
        }
        aggregator.ingest(&record);
    })?;
    let took = started.elapsed().as_secs_f64();
    let (held, bytes) = (aggregator.keys(), aggregator.bytes());
    if is_whole {
        println!(
            "read, parsed and counted: {took:.2} s, {rows} rows of {held} keys, {bytes} bytes by estimate"
        );
    } else {
        println!(
            "{:14} {:6.2} s {held:8} keys {:6} bytes a key by estimate, {:6} of the process, {} dropped",
            names.join(", "),
            took,
            bytes / held.max(1),
            resident_bytes().saturating_sub(before) / held.max(1),
            aggregator.counters().dropped_keys
        );
    }
    Ok((aggregator, rows))
}

fn for_each_line(file: &mut File, mut on: impl FnMut(&[u8])) -> Result<()> {
    file.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        on(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    Ok(())
}

/// The log's lines in the combined format, again and again.
fn make(log: &str, lines: u64) -> Result<File> {
    let text = std::fs::read(log).with_context(|| log.to_owned())?;
    let parts: Vec<_> = text.split(|byte| *byte == b'\n').filter_map(parts).collect();
    anyhow::ensure!(!parts.is_empty(), "{log}: no line is in the combined format");
    let file = tempfile::tempfile()?;
    let mut out = BufWriter::new(&file);
    let mut addresses = HashMap::new();
    for number in 0..lines {
        let count = parts.len() as u64;
        let (address, rest) = parts[usize::try_from(number % count)?];
        let next = addresses.len() as u64;
        let address = *addresses.entry(address).or_insert(next);
        let (round, seconds) = (number / count, 1_431_857_100 + number / LINES_PER_SECOND);
        let time = jiff::Timestamp::from_second(i64::try_from(seconds)?)?.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let (a, b, c) = (round % 200 + 11, address / 250, address % 250);
        write!(out, "{a}.{}.{b}.{c} - - [{time}", round / 200)?;
        out.write_all(rest)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    drop(out);
    Ok(file)
}

/// The address, and what comes after the time.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let address = line.split(|byte| *byte == b' ').next()?;
    let end = line.iter().position(|byte| *byte == b']')?;
    Some((address, &line[end..]))
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
