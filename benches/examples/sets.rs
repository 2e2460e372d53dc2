//! A set of millions of ids (a segment): as a dimension of one column, and as Roaring bitmaps. One run prints bytes for each id and
//! nanoseconds for each lookup; half of the lookups are of ids that are in the set, each depends on the answer before.
//!
//! `cargo run --release -p benches --example sets [IDS]` (default 5,000,000). Decision 0021 has the figures.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, ensure};
use bliss_core::build::{Rows, Source, build, finish};
use bliss_core::table::{Layout, TableRef};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use roaring::{RoaringBitmap, RoaringTreemap};

const LOOKUPS: usize = 4_000_000;

/// Looks all keys up, in three passes of which the fastest counts.
fn measure(
    name: &str,
    ids: usize,
    bytes: u64,
    keys: &[(u64, bool)],
    has: impl Fn(u64) -> bool,
) -> anyhow::Result<()> {
    let mut best = f64::MAX;
    for _ in 0..3 {
        let (mut found, mut wrong, mut last) = (0_usize, 0_usize, 0_u64);
        let start = Instant::now();
        for (key, is_in) in keys {
            // 0, but the processor does not know.
            let is = has(black_box(key ^ (last >> 1)));
            last = u64::from(is);
            found += usize::from(is);
            wrong += usize::from(is != *is_in);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / keys.len() as f64);
        ensure!(name.contains("32 bits") || wrong == 0, "{name}: {wrong} of {found} answers are wrong");
        black_box(wrong);
    }
    let wrong = keys.iter().filter(|(key, is_in)| has(*key) != *is_in).count();
    println!(
        "{name:<44} {:>7.2} bytes/id {best:>7.1} ns/lookup {wrong:>6} wrong of {}",
        bytes as f64 / ids as f64,
        keys.len()
    );
    Ok(())
}

/// Ids in a set, and keys to look up with whether they are in it.
fn keys(ids: &[u64], other: impl Fn(&mut SmallRng) -> u64) -> Vec<(u64, bool)> {
    let held: std::collections::HashSet<u64> = ids.iter().copied().collect();
    let mut random = SmallRng::seed_from_u64(2);
    let mut key = |_| {
        let key = if random.random() { ids[random.random_range(0..ids.len())] } else { other(&mut random) };
        (key, held.contains(&key))
    };
    (0..LOOKUPS).map(&mut key).collect()
}

fn one_column(ids: &[u64]) -> anyhow::Result<Vec<u8>> {
    let mut rows = Rows::new(1);
    ids.iter().for_each(|id| rows.push(*id, 7, &[1.0]));
    let layout = Layout::for_rows(ids.len() as u64, 1)?;
    let mut bytes = vec![0; layout.bytes()];
    let source = Source { old: None, upserts: &rows, last_wins: true, deletes: &[] };
    let held = build(&mut bytes, layout, &source)?;
    finish(&mut bytes, &layout, held)?;
    Ok(bytes)
}

fn main() -> anyhow::Result<()> {
    let count: usize =
        std::env::args().nth(1).map_or(Ok(5_000_000), |text| text.parse()).context("the number of ids")?;
    let mut random = SmallRng::seed_from_u64(1);

    // As keys of rows are: hashes of 64 bits.
    let mut hashed: Vec<u64> = (0..count).map(|_| random.random::<u64>() | 1).collect();
    hashed.sort_unstable();
    hashed.dedup();
    let asked = keys(&hashed, |random| random.random::<u64>() | 1);
    println!("{} ids, keyed hashes of 64 bits", hashed.len());
    let bytes = one_column(&hashed)?;
    let table = TableRef::open(&bytes)?;
    measure("dimension of one column", hashed.len(), bytes.len() as u64, &asked, |key| {
        table.get(key).is_some()
    })?;
    let tree: RoaringTreemap = hashed.iter().copied().collect();
    measure("RoaringTreemap", hashed.len(), tree.serialized_size() as u64, &asked, |key| tree.contains(key))?;
    drop(tree);
    let low: RoaringBitmap = hashed.iter().map(|key| (*key >> 32) as u32).collect();
    measure(
        "RoaringBitmap of their upper 32 bits",
        hashed.len(),
        low.serialized_size() as u64,
        &asked,
        |key| low.contains((key >> 32) as u32),
    )?;

    // As a shop numbers its customers: half of the numbers up to twice as many.
    let most = 2 * count as u64;
    let numbers: Vec<u64> = (1..most).filter(|_| random.random()).collect();
    let asked = keys(&numbers, |random| random.random_range(1..most));
    println!("{} ids, half of the numbers up to {most}", numbers.len());
    let bytes = one_column(&numbers.iter().map(|id| spread(*id)).collect::<Vec<_>>())?;
    let table = TableRef::open(&bytes)?;
    measure("dimension of one column", numbers.len(), bytes.len() as u64, &asked, |id| {
        table.get(spread(id)).is_some()
    })?;
    let dense: RoaringBitmap = numbers.iter().map(|id| *id as u32).collect();
    measure("RoaringBitmap", numbers.len(), dense.serialized_size() as u64, &asked, |id| {
        dense.contains(id as u32)
    })?;
    Ok(())
}

/// A number as a key: an invertible mix, in place of the keyed hash.
fn spread(id: u64) -> u64 {
    let mixed = (id ^ id >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}
