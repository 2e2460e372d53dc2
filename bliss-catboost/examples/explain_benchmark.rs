//! Times explanations of a model's rows, and CatBoost's own in the same run. Usage:
//!
//! `cargo run --release -p bliss-catboost --features build --example explain_benchmark -- FOLDER [NAME...]`
//!
//! FOLDER holds NAME.cbm, NAME.x.f32 and manifest.json, as the tests' folders do; models with categories are left out. Without
//! NAME.x.f32 rows are made, with values on all sides of the model's borders. What leaf weights cost those who never explain is
//! measured too: bytes, opening, scoring. The interpreter that `BLISS_CATBOOST_PYTHON` names needs the packages catboost and numpy; without it only BLISS is timed. All is one
//! thread. Every value is compared with CatBoost's before anything is timed.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bliss_catboost::{
    BoundedExplainer, Convention, ExplainOptions, ExplainScratch, Explainer, ModelRef, Scratch, compile,
    compile_explainable, import, ir,
};

/// Prints per mode the seconds for 1 row, for the rows, and for many times the rows: what a row costs beyond the set-up is the
/// difference of the last two.
const PYTHON: &str = r#"
import sys, time
import numpy
from catboost import CatBoost, Pool
path, floats, out, rows_path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
model = CatBoost().load_model(path + ".cbm")
names = model.feature_names_
if len(names) != floats:
    names = None
scale, bias = model.get_scale_and_bias()
if scale != 1:
    model.set_scale_and_bias(1, bias)
x = numpy.fromfile(rows_path, "<f4").reshape(-1, floats)
try:
    policy = str(model.get_all_params().get("grow_policy", ""))
except Exception:  # a model that was put together says nothing of its training
    policy = ""
oblivious = policy not in ("Lossguide", "Depthwise")
model.get_feature_importance(Pool(x, feature_names=names), type="ShapValues", thread_count=1).astype("<f8").tofile(out)
for mode, rows, times in (("UsePreCalc", len(x), 40), ("NoPreCalc", max(1, len(x) // 16), 4)):
    if mode == "UsePreCalc" and not oblivious:
        continue
    seconds = []
    for data in (x[:1], x[:rows], numpy.tile(x[:rows], (times, 1))):
        pool = Pool(data, feature_names=names)
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            model.get_feature_importance(pool, type="ShapValues", thread_count=1, shap_mode=mode)
            best = min(best, time.perf_counter() - start)
        seconds.append(best)
    print(mode, rows, times, *seconds, flush=True)
"#;

/// Rows that are made where there are none.
const ROWS: usize = 256;

/// Values of all columns of the training data, row by row.
struct Rows {
    columns: usize,
    x: Vec<f32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: explain_benchmark FOLDER [NAME...]")?;
    let folder = Path::new(&folder);
    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        names.push("bench_200x500".into());
    }
    for name in names {
        let path = folder.join(&name);
        let model = import(&std::fs::read(path.with_extension("cbm"))?)?;
        if !model.cats.is_empty() {
            println!("{name}: left out (it has categories)");
            continue;
        }
        let rows = Rows::of(&path, &model)?;
        measure(&path, &name, &model, &rows)?;
    }
    Ok(())
}

impl Rows {
    /// Those of NAME.x.f32, or made ones.
    fn of(path: &Path, model: &ir::Model) -> Result<Self, Box<dyn Error>> {
        let columns = model.floats.iter().map(|float| float.index + 1).max().unwrap_or(0);
        let Ok(bytes) = std::fs::read(path.with_extension("x.f32")) else {
            return Ok(Self { columns, x: made(model, columns) });
        };
        let manifest = std::fs::read_to_string(path.with_file_name("manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name that is UTF-8")?;
        let columns = usize::try_from(manifest[name]["floats"].as_u64().ok_or("not in the manifest")?)?;
        Ok(Self { columns, x: bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect() })
    }
}

/// Values beside borders, chosen at random, always the same.
fn made(model: &ir::Model, columns: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % limit
    };
    let mut x = vec![0.0; ROWS * columns];
    for row in x.chunks_mut(columns) {
        for float in &model.floats {
            let at = below(float.borders.len() + 1);
            if let Some(value) = row.get_mut(float.index) {
                *value = match float.borders.get(at) {
                    Some(border) => *border,
                    None => float.borders.last().map_or(0.0, |border| border + 1.0),
                };
            }
        }
    }
    x
}

fn measure(path: &Path, name: &str, model: &ir::Model, rows: &Rows) -> Result<(), Box<dyn Error>> {
    let (plain, compiled) = (compile(model)?, compile_explainable(model)?);
    let opened = ModelRef::open(&compiled)?;
    let binding = binding(&opened, model)?;
    println!(
        "{name}: {} trees of depth {} at most, {} of {} inputs, {} leaf values",
        opened.trees(),
        opened.depth(),
        opened.inputs().len(),
        rows.columns,
        opened.leaf_values(),
    );
    for (what, bytes) in [("without", &plain), ("with", &compiled)] {
        let opening = best(|| ModelRef::open(black_box(bytes)).map(|_| ()).map_err(Into::into))?;
        let opened = ModelRef::open(bytes)?;
        let (mut scratch, mut out) = (Scratch::for_model(&opened), vec![0.0; opened.output_dimensions()]);
        let score = time(rows, |x| Ok(opened.raw(x, &binding, &mut scratch, &mut out)?))?;
        println!(
            "  {what} leaf weights: {} bytes, opened in {:.0} us, a score {}",
            bytes.len(),
            opening.as_secs_f64() * 1e6,
            nanoseconds(score.as_secs_f64())
        );
    }
    let mut theirs = catboost(path, rows)?;
    if theirs.is_some() && has_values_without_weight(model) {
        println!(
            "  (not compared: leaves without weight have values, so that CatBoost weighs by the given rows)"
        );
        theirs = None;
    }
    for table_bytes in [0, 64 << 20] {
        let start = Instant::now();
        let options = ExplainOptions { convention: Convention::CatBoost, table_bytes };
        let explainer = Explainer::new(opened, options)?;
        let set_up = start.elapsed();
        let worst = compare(&explainer, &binding, rows, theirs.as_deref(), model.scale)?;
        let mut scratch = ExplainScratch::for_explainer(&explainer);
        let mut out = vec![0.0; explainer.outputs()];
        let row = time(rows, |x| Ok(explainer.explain(x, &binding, &mut scratch, &mut out)?))?;
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
    let (mut bounded, mut scratch) = (BoundedExplainer::new(), Scratch::for_model(&opened));
    let mut out = vec![0.0; opened.output_dimensions() * (opened.inputs().len() + 1)];
    let row = time(rows, |x| Ok(bounded.explain(&opened, x, &binding, &mut scratch, &mut out)?))?;
    println!("  BLISS, in a worker, straight from the bytes: {} a row", nanoseconds(row.as_secs_f64()));
    Ok(())
}

/// Whether a leaf that no training data came to has a value: then CatBoost forgets the weights of the file.
fn has_values_without_weight(model: &ir::Model) -> bool {
    let leaves: Vec<&[f64]> = match &model.trees {
        ir::Trees::Oblivious(trees) => trees.iter().map(|tree| tree.leaves.as_slice()).collect(),
        ir::Trees::NonSymmetric(trees) => trees.iter().map(|tree| tree.leaves.as_slice()).collect(),
    };
    let of_tree = |(leaves, weights): (&[f64], &Vec<f64>)| {
        let mut leaves = leaves.chunks(model.dimensions).zip(weights);
        leaves.any(|(values, weight)| *weight == 0.0 && values.iter().any(|value| *value != 0.0))
    };
    leaves.into_iter().zip(&model.leaf_weights).any(of_tree)
}

fn nanoseconds(seconds: f64) -> String {
    format!("{:.0} ns", seconds * 1e9)
}

/// The column of each input.
fn binding(opened: &ModelRef<'_>, model: &ir::Model) -> Result<Vec<u32>, Box<dyn Error>> {
    let is_named = |float: &ir::FloatFeature, name: &str| {
        if float.name.is_empty() { name == format!("float_{}", float.index) } else { name == float.name }
    };
    let column = |name: &str| {
        let found =
            model.floats.iter().find(|float| is_named(float, name)).ok_or("an input without a column")?;
        Ok(u32::try_from(found.index)?)
    };
    opened.inputs().map(|input| column(input.name)).collect()
}

/// Times CatBoost and gives its values, if there is a Python with it.
fn catboost(path: &Path, rows: &Rows) -> Result<Option<Vec<f64>>, Box<dyn Error>> {
    let Ok(python) = std::env::var("BLISS_CATBOOST_PYTHON") else {
        println!("  SKIPPED: CatBoost (set BLISS_CATBOOST_PYTHON)");
        return Ok(None);
    };
    let (values, given) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    let x: Vec<u8> = rows.x.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(given.path(), x)?;
    let output = Command::new(python)
        .args(["-c", PYTHON])
        .arg(path)
        .arg(rows.columns.to_string())
        .arg(values.path())
        .arg(given.path())
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
    binding: &[u32],
    rows: &Rows,
    theirs: Option<&[f64]>,
    scale: f64,
) -> Result<String, Box<dyn Error>> {
    let Some(theirs) = theirs else { return Ok("unknown".into()) };
    let inputs = explainer.model().inputs().len();
    let mut scratch = ExplainScratch::for_explainer(explainer);
    let mut out = vec![0.0; explainer.outputs()];
    let width = explainer.model().output_dimensions() * (rows.columns + 1);
    let mut worst = 0.0_f64;
    for (x, theirs) in rows.x.chunks(rows.columns).zip(theirs.chunks(width)) {
        explainer.explain(x, binding, &mut scratch, &mut out)?;
        for (out, theirs) in out.chunks(inputs + 1).zip(theirs.chunks(rows.columns + 1)) {
            for (value, column) in out.iter().zip(binding) {
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
fn time(
    rows: &Rows,
    mut row: impl FnMut(&[f32]) -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let all = best(|| rows.x.chunks(rows.columns).try_for_each(|x| row(black_box(x))))?;
    Ok(all / u32::try_from(rows.x.len() / rows.columns)?)
}

/// The fastest of several rounds.
fn best(mut round: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 3 || (rounds < 200 && begin.elapsed() < Duration::from_secs(3)) {
        let start = Instant::now();
        round()?;
        best = best.min(start.elapsed());
        rounds += 1;
    }
    Ok(best)
}
