//! Bit-equal to CatBoost on every row of every model that comes with its answers.

mod model_common;

use bliss_core::model::{self, ModelRef, Path, Scratch};
use model_common::{Case, cases, folders};

fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|path| {
        if !path.is_available() {
            eprintln!("SKIPPED: the {path} path (this processor lacks its instructions)");
        }
        path.is_available()
    })
}

/// Number of different bits over all rows of a case, compiled from this model.
fn check(case: &Case, model: &model::Model) {
    let compiled = model::compile(model).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let binding = case.binding(&opened);
    let dimensions = opened.output_dimensions();
    let mut scratch = Scratch::for_model(&opened);
    for path in paths() {
        let opened = opened.with_path(path).unwrap();
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
            if let Some(expected) = &case.probability {
                let found = ModelRef::probability(out[0]);
                assert_eq!(
                    found.to_bits(),
                    expected[row].to_bits(),
                    "{} {path} row {row}: probability",
                    case.name
                );
                assert_eq!(opened.class_probability(&out, 1).to_bits(), found.to_bits());
            }
        }
    }
}

#[test]
fn every_row_of_every_cbm_is_bit_equal_to_catboost() {
    let mut models = 0;
    for folder in folders() {
        for case in cases(&folder) {
            let model = model::import(&case.file).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            check(&case, &model);
            models += 1;
        }
    }
    assert!(models > 0);
}
