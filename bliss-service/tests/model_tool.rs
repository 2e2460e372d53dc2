//! `blissctl model`: the same bits as CatBoost, and clear errors.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn model(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blissctl")).arg("model").args(arguments).output().unwrap()
}

fn good(arguments: &[&str]) -> String {
    let output = model(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(arguments: &[&str]) -> String {
    let output = model(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("../bliss-catboost/testdata/models")];
    match std::env::var_os("BLISS_TEST_DATA") {
        Some(folder) => folders.push(Path::new(&folder).join("models")),
        None => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: more models; BLISS_TEST_DATA does not name a folder with models/"
            );
        }
    }
    folders
}

#[test]
fn every_model_answers_as_catboost_does_on_every_path() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("raw.f64");
    for folder in folders() {
        let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        for name in manifest.as_object().unwrap().keys() {
            let file = |suffix: &str| folder.join(format!("{name}.{suffix}")).to_str().unwrap().to_owned();
            let (cbm, floats, cats) = (file("cbm"), file("x.f32"), file("cat.tsv"));
            let mut arguments = vec!["eval", &cbm, "--floats", &floats, "--out", out.to_str().unwrap()];
            if Path::new(&cats).exists() {
                arguments.extend(["--cats", &cats]);
            }
            for path in bliss_catboost::InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
                good(&[arguments.as_slice(), &["--path", path.name()]].concat());
                let same = std::fs::read(&out).unwrap() == std::fs::read(file("raw.f64")).unwrap();
                assert!(same, "{name}, {path}");
            }
        }
    }
}

#[test]
fn a_model_is_described_compiled_and_compared() {
    let folder = &folders()[0];
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let text = good(&["inspect", &file("ctr.cbm")]);
    for part in ["trees", "10 numbers, 3 categories", "oblivious", "category"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("compiled");
    good(&["compile", &file("depth1.cbm"), "--out", out.to_str().unwrap()]);
    assert!(std::fs::metadata(out).unwrap().len() > 1000);
    let rows = file("float_nan_min.x.f32");
    let same = good(&["diff", &file("depth1.cbm"), &file("depth1.cbm"), "--floats", &rows]);
    assert!(same.contains(" 0 different; largest difference 0e0"), "{same}");
    let other = good(&["diff", &file("depth1.cbm"), &file("float_nan_min.cbm"), "--floats", &rows]);
    assert!(!other.contains(" 0 different"), "{other}");
}

#[test]
fn bad_input_is_named() {
    let folder = &folders()[0];
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let error = bad(&["inspect", &file("unsupported_text.cbm")]);
    assert!(error.contains("unsupported_text.cbm") && error.contains("text features"), "{error}");
    assert!(bad(&["inspect", &file("absent.cbm")]).contains("absent.cbm"));
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cut.f32"), [0; 41]).unwrap();
    std::fs::write(path("one.tsv"), "a\n").unwrap();
    let eval = |arguments: &[&str]| bad(&[arguments, &["--out", &path("out")]].concat());
    assert!(
        eval(&["eval", &file("depth1.cbm"), "--floats", &path("cut.f32")])
            .contains("41 bytes are not whole rows")
    );
    assert!(eval(&["eval", &file("depth1.cbm")]).contains("--floats"));
    assert!(
        eval(&["eval", &file("depth1.cbm"), "--floats", &file("depth1.x.f32"), "--cats", &path("one.tsv")])
            .contains("no categorical columns")
    );
    assert!(
        eval(&["eval", &file("ctr.cbm"), "--floats", &file("ctr.x.f32"), "--cats", &path("one.tsv")])
            .contains("one.tsv:1: 3 categories expected, 1 found")
    );
    assert!(!Path::new(&path("out")).exists());
}
