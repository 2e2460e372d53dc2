//! `score`: one row per call through a CatBoost model, by BLISS and by CatBoost's own C API.
//!
//! Rows rotate, so that no branch predictor learns one. *Warm*: row after row. *Displaced*: before each row 4 MB are
//! written, more than the second-level cache holds. All answers are compared before anything is timed, bit by bit.
//!
//! A model that the folder lacks and whose name says its size, such as `trained_250x1000`, is trained below the target
//! directory by Python's `catboost`, where that is installed. Several models on one row are evaluated as a route with
//! shadows is: by [`ModelRef::raw_many`].

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bliss_catboost::{
    Evaluation, InputKind, InstructionSet, ModelRef, Scratch, category_hash, compile, import,
};

use crate::measure::{Times, timer_cost};
use crate::peers::catboost::{self, CatBoost, Words};
use crate::report::{Report, Row};

const PEER: &str = "CatBoost C API";
/// Written before each row where caches are displaced.
const DISPLACED_BYTES: usize = 4 << 20;

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Names of models, as in the folder.
    #[arg(long, value_delimiter = ',', default_values_t = ["bench_200x500", "trained_250x1000", "ctr", "lossguide", "borders1000"].map(String::from))]
    pub models: Vec<String>,
    /// Folder of models with rows and a `manifest.json`; default is `models` in the folder that BLISS_TEST_DATA names, or else the
    /// models of bliss-catboost's tests.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Copies of a model that are evaluated on one row, beside a single one.
    #[arg(long, default_value_t = 5)]
    pub together: usize,
    /// How long each subject is measured.
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// Trains a model on numbers in which all columns matter: PYTHON - FOLDER NAME FLOATS TREES.
const TRAIN: &str = r#"
import json, os, sys
import numpy
from catboost import CatBoostClassifier
folder, name, floats, trees = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random = numpy.random.default_rng(1)
weights = random.normal(size=floats)
def rows(count):
    return random.normal(size=(count, floats)).astype(numpy.float32)
x = rows(10000)
y = (x @ weights + x[:, 0] * x[:, 1] + random.normal(size=len(x)) * 4 > 0).astype(int)
model = CatBoostClassifier(iterations=trees, depth=6, border_count=128, random_seed=1, verbose=False)
model.fit(x, y)
assert model.tree_count_ == trees, model.tree_count_
model.save_model(os.path.join(folder, name + ".cbm"))
rows(1024).tofile(os.path.join(folder, name + ".x.f32"))
# Last, so that what was cut short is trained again.
with open(os.path.join(folder, "manifest.json"), "w") as manifest:
    json.dump({name: {"rows": 1024, "floats": floats, "cats": 0}}, manifest)
"#;
/// Names the interpreter that has the package `catboost`.
const PYTHON: &str = "BLISS_CATBOOST_PYTHON";

/// The folder of a model that is trained here, if its name says of which size: `trained_FLOATSxTREES`.
///
/// # Errors
/// Where there is no Python with `catboost`, or it fails.
fn train(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let size = name.strip_prefix("trained_").and_then(|size| size.split_once('x'));
    let Some((Ok(floats), Ok(trees))) = size.map(|(f, t)| (f.parse::<u16>(), t.parse::<u16>())) else {
        return Ok(None);
    };
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let folder = target.join("bench-models").join(name);
    if folder.join("manifest.json").is_file() {
        return Ok(Some(folder));
    }
    std::fs::create_dir_all(&folder)?;
    let python = std::env::var_os(PYTHON).map_or(target.join("venv/bin/python"), PathBuf::from);
    eprintln!("score: training {name}");
    let mut command = Command::new(&python);
    command.args(["-c", TRAIN]).arg(&folder).arg(name).args([floats.to_string(), trees.to_string()]);
    let output =
        command.output().with_context(|| format!("{}; name another by {PYTHON}", python.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", python.display(), said.lines().last().unwrap_or_default());
    Ok(Some(folder))
}

/// A row as both sides want it.
struct Input {
    floats: Vec<f32>,
    words: Words,
    /// Numbers, then hashes of words.
    values: Vec<f32>,
}

/// A model's file and its rows.
struct Case {
    file: Vec<u8>,
    rows: Vec<Input>,
    has_words: bool,
}

impl Case {
    fn read(folder: &Path, name: &str) -> anyhow::Result<Option<Self>> {
        let manifest = std::fs::read(folder.join("manifest.json")).context("manifest.json of the models")?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
        let Some(model) = manifest.get(name) else { return Ok(None) };
        let count = |key: &str| model[key].as_u64().map_or(0, |n| n as usize);
        let (floats, cats) = (count("floats"), count("cats"));
        let x = std::fs::read(folder.join(format!("{name}.x.f32")))?;
        let x: Vec<f32> = x.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let words = folder.join(format!("{name}.cat.tsv"));
        let words = if cats > 0 { std::fs::read_to_string(words)? } else { String::new() };
        let mut lines = words.lines();
        let mut rows = Vec::new();
        for floats in x.chunks_exact(floats) {
            let words: Vec<&str> = lines.next().map(|line| line.split('\t').collect()).unwrap_or_default();
            let mut values = floats.to_vec();
            values.extend(words.iter().map(|word| f32::from_bits(category_hash(word.as_bytes()))));
            rows.push(Input { floats: floats.to_vec(), words: Words::new(words.into_iter())?, values });
        }
        let file = std::fs::read(folder.join(format!("{name}.cbm")))?;
        ensure!(!rows.is_empty(), "{name} has no rows");
        Ok(Some(Self { file, rows, has_words: cats > 0 }))
    }
}

/// The folder of models.
fn folder(options: &Options) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bliss-catboost/testdata/models");
    let given = || Some(PathBuf::from(std::env::var_os("BLISS_TEST_DATA")?).join("models"));
    options.folder.clone().or_else(given).filter(|folder| folder.is_dir()).unwrap_or(own)
}

/// Measures all models.
///
/// # Errors
/// Where a model cannot be read or answers differ.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let folder = folder(options);
    let library = match catboost::library() {
        Ok(library) => Some(library),
        Err(why) => {
            report.skipped("score", PEER, &format!("its library cannot be had: {why:#}"));
            None
        }
    };
    eprintln!("score: one row per call, rows rotate; the timer's {:.0} ns are in each figure", timer_cost());
    for name in &options.models {
        let folder = match train(name) {
            Ok(trained) => trained.unwrap_or(folder.clone()),
            Err(why) => {
                report.skipped("score", name, &format!("it cannot be trained: {why:#}"));
                continue;
            }
        };
        match Case::read(&folder, name)? {
            Some(case) => one(options, name, &case, library.as_deref(), report)?,
            None => report.skipped("score", name, "it is not in the manifest of the models' folder"),
        }
    }
    Ok(())
}

/// The model with all borders of numbers moved by the smallest step, so many times.
fn moved(file: &[u8], times: usize) -> anyhow::Result<rkyv::util::AlignedVec<64>> {
    let mut model = import(file)?;
    for border in model.floats.iter_mut().flat_map(|float| &mut float.borders) {
        *border = (0..times).fold(*border, |border, _| border.next_down());
    }
    Ok(compile(&model)?)
}

/// Times calls with the number of a row, rows in turn.
fn time(seconds: f64, rows: usize, displaced: &mut [u8], mut call: impl FnMut(usize)) -> Times {
    let mut times = Times::new();
    (0..rows).for_each(&mut call);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    for row in (0..rows).cycle() {
        displaced.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        black_box(&displaced);
        let start = Instant::now();
        call(row);
        let stop = Instant::now();
        times.add(stop - start);
        if stop >= end {
            break;
        }
    }
    times
}

fn one(
    options: &Options,
    name: &str,
    case: &Case,
    library: Option<&Path>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let compiled = compile(&import(&case.file)?)?;
    let opened = ModelRef::open(&compiled)?;
    let floats = case.rows[0].floats.len() as u32;
    let column = |name: &str| name.rsplit('_').next().and_then(|n| n.parse::<u32>().ok());
    let binding = opened
        .inputs()
        .map(|input| {
            let first = if input.kind == InputKind::Category { floats } else { 0 };
            column(input.name).map(|c| first + c).with_context(|| format!("{name}: input {}", input.name))
        })
        .collect::<Result<Vec<u32>, _>>()?;
    let mut scratch = Scratch::for_model(&opened);
    let mut out = vec![0.0; opened.output_dimensions()];
    let rows = case.rows.len();
    let describe = |row: Row| {
        row.with("trees", opened.trees()).with("depth", opened.depth()).with("inputs", binding.len())
    };

    let peers = match library {
        Some(library) => (0..options.together.max(1))
            .map(|_| CatBoost::load(library, &case.file))
            .collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let paths: Vec<InstructionSet> =
        InstructionSet::ALL.into_iter().rev().filter(|path| path.is_available()).collect();
    let mut expected = vec![0.0; out.len()];
    if let Some(peer) = peers.first() {
        for path in &paths {
            let opened = opened.with_instruction_set(*path).context("path")?;
            for (number, row) in case.rows.iter().enumerate() {
                ensure!(peer.single(&row.floats, &row.words, &mut expected), "{PEER} failed");
                opened.raw(&row.values, &binding, &mut scratch, &mut out)?;
                let same = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                ensure!(same, "{name}, {path}, row {number}: {out:?} instead of {expected:?}");
            }
        }
    }

    // As published: several models lie at several addresses. Copies fill the same slots; models whose borders differ a
    // little each fill their own.
    let copies = vec![compiled.clone(); options.together.max(1)];
    let others = (0..options.together).map(|by| moved(&case.file, by)).collect::<Result<Vec<_>, _>>()?;
    for (state, displaced_bytes) in [("", 0), ("_displaced", DISPLACED_BYTES)] {
        let mut displaced = vec![0_u8; displaced_bytes];
        for together in [1, options.together] {
            if together == 0 || (together > 1 && name != options.models[0]) {
                continue;
            }
            let count = if together == 1 { String::new() } else { format!("{together}x_") };
            let bench = format!("score_{count}{name}{state}");
            let sets = [(&copies, ""), (&others, " (other borders)")];
            let sets = &sets[..if together == 1 { 1 } else { 2 }];
            for (path, (set, which)) in paths.iter().flat_map(|path| sets.iter().map(move |set| (path, set)))
            {
                let models = set[..together]
                    .iter()
                    .map(|copy| ModelRef::open(copy)?.with_instruction_set(*path))
                    .collect::<Result<Vec<_>, _>>()?;
                let mut failed = 0;
                scratch.reserve_for_many(models.iter().copied());
                let mut outs = vec![vec![0.0; opened.output_dimensions()]; together];
                let mut tasks: Vec<_> = models
                    .iter()
                    .zip(&mut outs)
                    .map(|(model, out)| Evaluation { model: *model, binding: &binding, out })
                    .collect();
                for values in case.rows.iter().map(|row| &row.values).filter(|_| together > 1) {
                    ModelRef::raw_many(&mut tasks, values, &mut scratch)?;
                    for task in &tasks {
                        task.model.raw(values, &binding, &mut scratch, &mut out)?;
                        ensure!(*task.out == out[..], "{name}, {path}: together and alone differ");
                    }
                }
                let times = time(options.seconds, rows, &mut displaced, |row| {
                    let values = &case.rows[row].values;
                    let evaluated = match tasks.as_mut_slice() {
                        [task] => task.model.raw(values, task.binding, &mut scratch, task.out),
                        tasks => ModelRef::raw_many(tasks, values, &mut scratch),
                    };
                    failed += usize::from(evaluated.is_err());
                    black_box(&tasks);
                });
                ensure!(failed == 0, "{name}, {path}: {failed} failed");
                let subject = format!("bliss {path}{which}");
                report.add(describe(Row::new(&bench, &subject).with_times(&times)));
            }
            if peers.is_empty() {
                continue;
            }
            let mut measure = |subject: &str, call: &dyn Fn(&CatBoost, &Input, &mut [f64]) -> bool| {
                let mut failed = 0;
                let times = time(options.seconds, rows, &mut displaced, |row| {
                    for peer in &peers[..together] {
                        failed += usize::from(!call(peer, &case.rows[row], &mut expected));
                        black_box(&expected);
                    }
                });
                ensure!(failed == 0, "{subject}, {name}: {failed} failed");
                report.add(describe(Row::new(&bench, subject).with_times(&times)));
                Ok(())
            };
            if !case.has_words {
                measure(PEER, &|peer, row, out| peer.flat(&row.floats, out))?;
            }
            let subject = if case.has_words { PEER.to_owned() } else { format!("{PEER} (single)") };
            measure(&subject, &|peer, row, out| peer.single(&row.floats, &row.words, out))?;
        }
    }
    Ok(())
}
