//! Times explanations of a model's rows, and CatBoost's own in the same run. Usage:
//!
//! `cargo run --release -p bliss-catboost --features build --example explain_benchmark -- FOLDER [NAME...]`
//!
//! FOLDER holds NAME.cbm, NAME.x.f32 and manifest.json, as the tests' folders do; models with categories are left out. The
//! interpreter that `BLISS_CATBOOST_PYTHON` names needs the packages catboost and numpy; without it only BLISS is timed. All is one
//! thread. Every value is compared with CatBoost's before anything is timed.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bliss_catboost::{
    Convention, ExplainOptions, ExplainScratch, Explainer, ModelRef, compile, compile_explainable, import,
};

/// Prints per mode the seconds for 1 row, for the rows, and for many times the rows: what a row costs beyond the set-up is the
/// difference of the last two.
const PYTHON: &str = r#"
import sys, time
import numpy
from catboost import CatBoost, Pool
path, floats, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
model = CatBoost().load_model(path + ".cbm")
scale, bias = model.get_scale_and_bias()
if scale != 1:
    model.set_scale_and_bias(1, bias)
x = numpy.fromfile(path + ".x.f32", "<f4").reshape(-1, floats)
oblivious = not numpy.any([g in str(model.get_all_params().get("grow_policy", "")) for g in ("Lossguide", "Depthwise")])
model.get_feature_importance(Pool(x), type="ShapValues", thread_count=1).astype("<f8").tofile(out)
for mode, rows, times in (("UsePreCalc", len(x), 40), ("NoPreCalc", max(1, len(x) // 16), 4)):
    if mode == "UsePreCalc" and not oblivious:
        continue
    seconds = []
    for data in (x[:1], x[:rows], numpy.tile(x[:rows], (times, 1))):
        pool = Pool(data)
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            model.get_feature_importance(pool, type="ShapValues", thread_count=1, shap_mode=mode)
            best = min(best, time.perf_counter() - start)
        seconds.append(best)
    print(mode, rows, times, *seconds, flush=True)
"#;

struct Rows {
    columns: usize,
    x: Vec<f32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: explain_benchmark FOLDER [NAME...]")?;
    let folder = Path::new(&folder);
    let manifest: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("manifest.json"))?)?;
    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        names.push("bench_200x500".into());
    }
    for name in names {
        let case = manifest.get(&name).ok_or(format!("{name} is not in the manifest"))?;
        if case["cats"].as_u64() != Some(0) {
            println!("{name}: left out (it has categories)");
            continue;
        }
        let columns = usize::try_from(case["floats"].as_u64().unwrap_or(0))?;
        let bytes = std::fs::read(folder.join(format!("{name}.x.f32")))?;
        let x = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        measure(folder, &name, &Rows { columns, x })?;
    }
    Ok(())
}

fn measure(folder: &Path, name: &str, rows: &Rows) -> Result<(), Box<dyn Error>> {
    let path = folder.join(name);
    let model = import(&std::fs::read(path.with_extension("cbm"))?)?;
    let compiled = compile_explainable(&model)?;
    let opened = ModelRef::open(&compiled)?;
    println!(
        "{name}: {} trees, {} of {} inputs, {} leaf values; {} bytes compiled, {} with weights",
        opened.trees(),
        opened.inputs().len(),
        rows.columns,
        opened.leaf_values(),
        compile(&model)?.len(),
        compiled.len()
    );
    let theirs = catboost(&path, rows)?;
    for table_bytes in [0, 64 << 20] {
        let start = Instant::now();
        let options = ExplainOptions { convention: Convention::CatBoost, table_bytes };
        let explainer = Explainer::new(opened, options)?;
        let set_up = start.elapsed();
        let worst = compare(&explainer, rows, theirs.as_deref(), model.scale)?;
        let row = time(&explainer, rows)?;
        println!(
            "  BLISS, {} of {} trees in tables: {} a row; set-up {:.1} ms, {} bytes; furthest from CatBoost {worst}",
            explainer.tables(),
            opened.trees(),
            nanoseconds(row.as_secs_f64()),
            set_up.as_secs_f64() * 1e3,
            explainer.size_bytes(),
        );
        if explainer.tables() == 0 && table_bytes > 0 {
            println!("  (no tree has a table)");
        }
    }
    Ok(())
}

fn nanoseconds(seconds: f64) -> String {
    format!("{:.0} ns", seconds * 1e9)
}

fn binding(explainer: &Explainer<'_>) -> Result<Vec<u32>, Box<dyn Error>> {
    let column = |name: &str| name.trim_start_matches("float_").parse::<u32>();
    Ok(explainer.model().inputs().map(|input| column(input.name)).collect::<Result<_, _>>()?)
}

/// Times CatBoost and gives its values, if there is a Python with it.
fn catboost(path: &Path, rows: &Rows) -> Result<Option<Vec<f64>>, Box<dyn Error>> {
    let Ok(python) = std::env::var("BLISS_CATBOOST_PYTHON") else {
        println!("  SKIPPED: CatBoost (set BLISS_CATBOOST_PYTHON)");
        return Ok(None);
    };
    let values = tempfile::NamedTempFile::new()?;
    let output = Command::new(python)
        .args(["-c", PYTHON])
        .arg(path)
        .arg(rows.columns.to_string())
        .arg(values.path())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [mode, count, times, one, some, more] = words[..] else { continue };
        let (count, times): (f64, f64) = (count.parse()?, times.parse()?);
        let one: f64 = one.parse()?;
        let (some, more): (f64, f64) = (some.parse()?, more.parse()?);
        println!(
            "  CatBoost {mode}: {} a row beyond the first {count} ({} a row of {count} with set-up; one row alone {:.1} ms)",
            nanoseconds((more - some) / ((times - 1.0) * count)),
            nanoseconds(some / count),
            one * 1e3,
        );
    }
    let bytes = std::fs::read(values.path())?;
    Ok(Some(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()))
}

/// The largest difference from CatBoost's values over all rows.
fn compare(
    explainer: &Explainer<'_>,
    rows: &Rows,
    theirs: Option<&[f64]>,
    scale: f64,
) -> Result<String, Box<dyn Error>> {
    let Some(theirs) = theirs else { return Ok("unknown".into()) };
    let (binding, inputs) = (binding(explainer)?, explainer.model().inputs().len());
    let mut scratch = ExplainScratch::for_explainer(explainer);
    let mut out = vec![0.0; explainer.outputs()];
    let width = explainer.model().output_dimensions() * (rows.columns + 1);
    let mut worst = 0.0_f64;
    for (x, theirs) in rows.x.chunks(rows.columns).zip(theirs.chunks(width)) {
        explainer.explain(x, &binding, &mut scratch, &mut out)?;
        for (out, theirs) in out.chunks(inputs + 1).zip(theirs.chunks(rows.columns + 1)) {
            for (value, column) in out.iter().zip(&binding) {
                worst = worst.max((value / scale - theirs[*column as usize]).abs());
            }
        }
    }
    if worst > 1e-9 {
        return Err(format!("{worst} away from CatBoost").into());
    }
    Ok(format!("{worst:.1e}"))
}

/// The fastest of several rounds, per row.
fn time(explainer: &Explainer<'_>, rows: &Rows) -> Result<Duration, Box<dyn Error>> {
    let binding = binding(explainer)?;
    let mut scratch = ExplainScratch::for_explainer(explainer);
    let mut out = vec![0.0; explainer.outputs()];
    let mut best = Duration::MAX;
    let begin = Instant::now();
    let (count, mut rounds) = (rows.x.len() / rows.columns, 0);
    while rounds < 3 || (rounds < 200 && begin.elapsed() < Duration::from_secs(3)) {
        let start = Instant::now();
        for x in rows.x.chunks(rows.columns) {
            explainer.explain(black_box(x), &binding, &mut scratch, &mut out)?;
            black_box(&out);
        }
        best = best.min(start.elapsed() / u32::try_from(count)?);
        rounds += 1;
    }
    Ok(best)
}
