//! Bit-equal to CatBoost on every row of every model that comes with its answers.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use bliss_catboost::{InstructionSet, ModelRef, Scratch, compile, import, ir};
use common::{Case, cases, folders};

fn instruction_sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|path| {
        if !path.is_available() {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {path} instructions (this processor lacks its instructions)"
            );
        }
        path.is_available()
    })
}

/// Number of different bits over all rows of a case, compiled from this model.
fn check(case: &Case, model: &ir::Model) {
    let compiled = compile(model).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let binding = case.binding(&opened);
    let dimensions = opened.output_dimensions();
    let mut scratch = Scratch::for_model(&opened);
    for path in instruction_sets() {
        let opened = opened.with_instruction_set(path).unwrap();
        let mut out = vec![0.0; dimensions];
        for row in 0..case.rows {
            opened.raw(&case.values(row), &binding, &mut scratch, &mut out).unwrap();
            for (k, out) in out.iter().enumerate() {
                let expected = case.raw[row * dimensions + k];
                assert_eq!(
                    out.to_bits(),
                    expected.to_bits(),
                    "{} {path} row {row} dimension {k}: {out} instead of {expected}",
                    case.name
                );
            }
            let Some(expected) = &case.probability else { continue };
            for k in 0..dimensions {
                let class = if dimensions == 1 { 1 } else { k };
                let (found, expected) =
                    (opened.class_probability(&out, class), expected[row * dimensions + k]);
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{} {path} row {row}: probability of class {class}: {found} instead of {expected}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn every_row_of_every_cbm_is_bit_equal_to_catboost() {
    let mut models = 0;
    for folder in folders() {
        for case in cases(&folder) {
            let model = import(&case.file).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            check(&case, &model);
            models += 1;
        }
    }
    assert!(models > 0);
}

#[test]
fn every_row_of_every_json_export_is_bit_equal_to_catboost() {
    let mut models = 0;
    for folder in folders() {
        for case in cases(&folder) {
            let Some(json) = &case.json else { continue };
            let model = import(json).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            check(&case, &model);
            models += 1;
        }
    }
    assert!(models > 0);
}

/// Trains models of many kinds with the `catboost` package of Python, where it is installed
/// (`BLISS_CATBOOST_PYTHON` names the interpreter), with other random numbers than the ones that are kept.
#[test]
fn models_trained_anew_are_bit_equal_to_catboost() {
    let python = std::env::var("BLISS_CATBOOST_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import catboost, numpy"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: training models ({python} has no package catboost; set BLISS_CATBOOST_PYTHON)"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = common::testdata().with_file_name("train_models.py");
    let seed = std::process::id().to_string();
    let status =
        Command::new(&python).arg(script).arg(folder.path()).arg(&seed).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "training failed (seed {seed})");
    for case in cases(folder.path()) {
        eprintln!("{} (seed {seed})", case.name);
        for file in [Some(&case.file), case.json.as_ref()].into_iter().flatten() {
            check(&case, &import(file).unwrap_or_else(|e| panic!("{}: {e}", case.name)));
        }
    }
}

/// Nothing of the compiler's memory gets into what is published, and a model that is read again is the same.
#[test]
fn a_model_compiles_to_the_same_bytes_each_time() {
    for case in common::cases(&common::testdata()) {
        let Ok(model) = import(&case.file) else { continue };
        let first = compile(&model).unwrap();
        for _ in 0..4 {
            // So that memory that was not written looks different from one time to the next.
            let _dirt: Vec<_> = (0..64u8).map(|i| vec![i; usize::from(i) * 97]).collect();
            assert!(compile(&model).unwrap().as_slice() == first.as_slice(), "{}", case.name);
        }
    }
}
