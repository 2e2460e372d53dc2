//! Models with CatBoost's own answers, for the tests of `bliss_catboost`.
#![allow(dead_code, unreachable_pub)]

pub mod random;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bliss_catboost::{InputKind, ModelRef, category_hash};

/// A model, its rows and CatBoost's answers.
pub struct Case {
    pub name: String,
    pub file: Vec<u8>,
    pub json: Option<Vec<u8>>,
    pub rows: usize,
    pub floats: usize,
    x: Vec<f32>,
    cats: Vec<Vec<String>>,
    pub raw: Vec<f64>,
    pub probability: Option<Vec<f64>>,
}

/// The folder of the models that come with the crate.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/models")
}

/// Folders with models: the crate's own, the folder `models` inside the one that `BLISS_TEST_DATA` names, and what
/// `train_models.py` made in the folder that `BLISS_MODELS` names.
pub fn folders() -> Vec<PathBuf> {
    let mut folders = vec![testdata(), testdata().with_file_name("small")];
    match std::env::var_os("BLISS_TEST_DATA").map(|folder| PathBuf::from(folder).join("models")) {
        Some(models) if models.is_dir() => folders.push(models),
        Some(models) => {
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: the models of {} (no such folder)", models.display());
        }
        None => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: more models (set BLISS_TEST_DATA)");
        }
    }
    folders.extend(std::env::var_os("BLISS_MODELS").map(PathBuf::from));
    folders
}

/// Says that a part of a test was left out.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

fn numbers<const N: usize, T>(path: &Path, convert: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let bytes = std::fs::read(path).ok()?;
    Some(bytes.as_chunks::<N>().0.iter().map(|b| convert(*b)).collect())
}

/// All models of a folder's manifest.
pub fn cases(folder: &Path) -> Vec<Case> {
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let count = |model: &serde_json::Value, key: &str| model[key].as_u64().unwrap() as usize;
    let mut cases = Vec::new();
    for (name, model) in manifest.as_object().unwrap() {
        let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        let (rows, floats, cats) = (count(model, "rows"), count(model, "floats"), count(model, "cats"));
        let text = if cats > 0 { std::fs::read_to_string(file("cat.tsv")).unwrap() } else { String::new() };
        let cats = text.lines().map(|line| line.split('\t').map(Into::into).collect()).collect();
        let case = Case {
            name: name.clone(),
            file: std::fs::read(file("cbm")).unwrap(),
            json: std::fs::read(file("json")).ok(),
            rows,
            floats,
            x: numbers(&file("x.f32"), f32::from_le_bytes).unwrap_or_default(),
            cats,
            raw: numbers(&file("raw.f64"), f64::from_le_bytes).unwrap(),
            probability: numbers(&file("prob.f64"), f64::from_le_bytes),
        };
        assert_eq!(case.x.len(), rows * floats, "{name}: rows of numbers");
        assert_eq!(case.raw.len(), rows * count(model, "dims"), "{name}: answers");
        cases.push(case);
    }
    cases
}

impl Case {
    /// Number of categorical columns.
    pub fn categories(&self) -> usize {
        self.cats.first().map_or(0, Vec::len)
    }

    /// The values of a row: numbers, then the hashes of its categories.
    pub fn values(&self, row: usize) -> Vec<f32> {
        let mut values = self.x[row * self.floats..(row + 1) * self.floats].to_vec();
        if let Some(cats) = self.cats.get(row) {
            values.extend(cats.iter().map(|c| f32::from_bits(category_hash(c.as_bytes()))));
        }
        values
    }

    /// Which of the values each input takes: from its name.
    pub fn binding(&self, model: &ModelRef<'_>) -> Vec<u32> {
        let column = |name: &str, prefix: &str| {
            name.strip_prefix(prefix)
                .unwrap_or_else(|| panic!("{}: input {name}", self.name))
                .parse::<u32>()
                .unwrap()
        };
        model
            .inputs()
            .map(|input| match input.kind {
                InputKind::Float => column(input.name, "float_"),
                InputKind::Category => self.floats as u32 + column(input.name, "cat_"),
            })
            .collect()
    }
}
