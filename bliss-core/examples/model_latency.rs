//! Nanoseconds per row: BLISS by every path against CatBoost's own C API, one row per call, in one run.
//!
//! ```text
//! cargo run --release -p bliss-core --example model_latency -- LIBRARY FOLDER NAME [displace]
//! ```
//!
//! LIBRARY is `libcatboostmodel.so`: `cargo fetch` the crate `catboost2-sys` 0.1.1 and unpack its `libs.tar` (zstd).
//! FOLDER holds NAME.cbm and its rows as `../shared/data/models` does. With `displace` 4 MB are written before each
//! row. Answers are compared before anything is timed.

use std::error::Error;
use std::ffi::{CString, c_char, c_void};
use std::hint::black_box;
use std::path::Path as FilePath;
use std::time::Instant;

use bliss_core::model::{self, InputKind, ModelRef, Path, Scratch, Task, category_hash};
use libloading::{Library, Symbol};

type Flat = unsafe extern "C" fn(*mut c_void, usize, *const *const f32, usize, *mut f64, usize) -> bool;
type Single = unsafe extern "C" fn(
    *mut c_void,
    *const f32,
    usize,
    *const *const c_char,
    usize,
    *mut f64,
    usize,
) -> bool;

/// A row as both sides want it.
struct Row {
    floats: Vec<f32>,
    cats: Vec<CString>,
    values: Vec<f32>,
}

fn rows(folder: &FilePath, name: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json"))?)?;
    let count = |key: &str| manifest[name][key].as_u64().unwrap_or(0) as usize;
    let (floats, cats) = (count("floats"), count("cats"));
    let x = std::fs::read(folder.join(format!("{name}.x.f32")))?;
    let x: Vec<f32> = x.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let text = if cats > 0 {
        std::fs::read_to_string(folder.join(format!("{name}.cat.tsv")))?
    } else {
        String::new()
    };
    let mut lines = text.lines();
    let mut rows = Vec::new();
    for floats in x.chunks_exact(floats) {
        let words: Vec<&str> = lines.next().map(|l| l.split('\t').collect()).unwrap_or_default();
        let mut values = floats.to_vec();
        values.extend(words.iter().map(|w| f32::from_bits(category_hash(w.as_bytes()))));
        let cats = words.iter().map(|w| CString::new(*w)).collect::<Result<_, _>>()?;
        rows.push(Row { floats: floats.to_vec(), cats, values });
    }
    Ok(rows)
}

/// Fastest of many short rounds, in nanoseconds per call: the one that other processes disturbed least; `call` gets
/// the row's number.
fn time(rows: usize, displaced: &mut [u8], mut call: impl FnMut(usize)) -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..if displaced.is_empty() { 300 } else { 15 } {
        if displaced.is_empty() {
            let start = Instant::now();
            (0..rows).for_each(&mut call);
            rounds.push(start.elapsed().as_nanos() as f64 / rows as f64);
        } else {
            let mut total = 0;
            for row in 0..rows {
                displaced.iter_mut().step_by(64).for_each(|b| *b = b.wrapping_add(1));
                black_box(&displaced);
                let start = Instant::now();
                call(row);
                total += start.elapsed().as_nanos();
            }
            rounds.push(total as f64 / rows as f64);
        }
    }
    rounds.into_iter().fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, library, folder, name, rest @ ..] = args.as_slice() else {
        return Err("usage: model_latency LIBRARY FOLDER NAME [displace]".into());
    };
    let folder = FilePath::new(folder);
    let mut displaced = vec![0_u8; if rest.is_empty() { 0 } else { 4 << 20 }];
    let file = std::fs::read(folder.join(format!("{name}.cbm")))?;
    let rows = rows(folder, name)?;

    let compiled = model::compile(&model::import(&file)?)?;
    let opened = ModelRef::open(&compiled)?;
    let floats = rows.first().map_or(0, |r| r.floats.len()) as u32;
    let column = |name: &str| name.rsplit('_').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let binding: Vec<u32> = opened
        .inputs()
        .map(|i| column(i.name) + if i.kind == InputKind::Category { floats } else { 0 })
        .collect();
    let mut scratch = Scratch::for_model(&opened);
    let mut out = vec![0.0; opened.output_dimensions()];
    println!(
        "{name}: {} trees, depth {}, {} inputs, {} KB compiled, {} rows{}",
        opened.trees(),
        opened.depth(),
        binding.len(),
        compiled.len() / 1024,
        rows.len(),
        if displaced.is_empty() { "" } else { ", 4 MB displaced" }
    );

    // SAFETY:
    // - the library is CatBoost's, as the usage says; the types are those of its header
    let library = unsafe { Library::new(library)? };
    // SAFETY:
    // - signatures as in c_api.h; pointers are valid for the lengths that go with them
    unsafe {
        let create: Symbol<'_, unsafe extern "C" fn() -> *mut c_void> = library.get(b"ModelCalcerCreate")?;
        let load: Symbol<'_, unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> bool> =
            library.get(b"LoadFullModelFromBuffer")?;
        let flat: Symbol<'_, Flat> = library.get(b"CalcModelPredictionFlat")?;
        let single: Symbol<'_, Single> = library.get(b"CalcModelPredictionSingle")?;
        let handle = create();
        if !load(handle, file.as_ptr().cast(), file.len()) {
            return Err("CatBoost's library cannot load the model".into());
        }
        let cats: Vec<Vec<*const c_char>> =
            rows.iter().map(|r| r.cats.iter().map(|c| c.as_ptr()).collect()).collect();
        let mut peer = vec![0.0_f64; out.len()];
        let mut best = f64::INFINITY;
        for (label, use_flat) in [("C API, flat", true), ("C API, single", false)] {
            if use_flat && !cats[0].is_empty() {
                continue;
            }
            let mut call = |row: usize| {
                let row_floats = rows[row].floats.as_ptr();
                let done = if use_flat {
                    flat(handle, 1, &row_floats, floats as usize, peer.as_mut_ptr(), peer.len())
                } else {
                    let (cats, len) = (cats[row].as_ptr(), cats[row].len());
                    single(handle, row_floats, floats as usize, cats, len, peer.as_mut_ptr(), peer.len())
                };
                assert!(done, "CatBoost's library failed");
                black_box(&peer);
            };
            let found = time(rows.len(), &mut displaced, &mut call);
            best = best.min(found);
            println!("  {label:<16} {found:8.1} ns");
        }
        for path in Path::ALL.into_iter().filter(|p| p.is_available()) {
            let opened = opened.with_path(path)?;
            for (row, cats) in rows.iter().zip(&cats) {
                let len = cats.len();
                single(
                    handle,
                    row.floats.as_ptr(),
                    floats as usize,
                    cats.as_ptr(),
                    len,
                    peer.as_mut_ptr(),
                    out.len(),
                );
                opened.raw(&row.values, &binding, &mut scratch, &mut out)?;
                assert!(out.iter().zip(&peer).all(|(a, b)| a.to_bits() == b.to_bits()), "answers differ");
            }
            let found = time(rows.len(), &mut displaced, |row| {
                // What a scoring call does: opens the bytes that it opened before, and evaluates.
                let model = ModelRef::open_unchecked(&compiled).with_path(path).unwrap_or(opened);
                let _ = black_box(model.raw(&rows[row].values, &binding, &mut scratch, &mut out));
                black_box(&out);
            });
            println!("  {:<16} {found:8.1} ns  {:5.2}x", path.name(), best / found);
            if !displaced.is_empty() {
                continue;
            }
            // Five models of the same inputs, each with leaves of its own.
            let copies = [(); 5].map(|()| compiled.clone());
            let mut outs = [(); 5].map(|()| vec![0.0; out.len()]);
            scratch.reserve_for_many([opened; 5]);
            let turn = time(rows.len(), &mut displaced, |row| {
                for (copy, out) in copies.iter().zip(&mut outs) {
                    let model = ModelRef::open_unchecked(copy).with_path(path).unwrap_or(opened);
                    let _ = black_box(model.raw(&rows[row].values, &binding, &mut scratch, out));
                }
                black_box(&outs);
            });
            println!("  {:<16} {turn:8.1} ns  {:5.2}x of one", format!("five in turn, {path}"), turn / found);
            let five = time(rows.len(), &mut displaced, |row| {
                let mut at = copies.iter().zip(&mut outs);
                let mut tasks = [(); 5].map(|()| {
                    let (copy, out) = at.next().expect("five");
                    let model = ModelRef::open_unchecked(copy).with_path(path).unwrap_or(opened);
                    Task { model, binding: &binding, out }
                });
                let _ = black_box(ModelRef::raw_many(&mut tasks, &rows[row].values, &mut scratch));
                black_box(&outs);
            });
            println!("  {:<16} {five:8.1} ns  {:5.2}x of one", format!("five, {path}"), five / found);
        }
    }
    Ok(())
}
