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

/// The class of bots by the file, or by what is said: the same in every command.
#[test]
fn the_class_of_bots_must_be_known_and_can_be_said() {
    let losses = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bliss-catboost/testdata/losses");
    let file = |name: &str| losses.join(name).to_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(losses.join("losses.json")).unwrap()).unwrap();
    let bytes = |hex: &serde_json::Value| -> Vec<u8> {
        let digits = hex.as_str().unwrap();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    // Model, what is said, and the column of CatBoost's probabilities.
    let table: [(&str, &[&str], usize); 9] = [
        ("text", &["--bot-class", "bot"], 0),
        ("text", &["--bot-class", "1"], 1),
        ("reversed", &["--bot-class", "\"1\""], 0),
        ("text_digits", &[], 1),
        ("no_names", &[], 1),
        ("cross_entropy", &["--bot-class", "0"], 0),
        ("three", &["--bot-class", "crawler"], 1),
        ("labels_named", &["--bot-class", "new"], 2),
        ("one_vs_all", &["--bot-class", "2"], 2),
    ];
    for (name, said, column) in table {
        let (cbm, rows, out) = (file(&format!("{name}.cbm")), path("x.f32"), path("p.f64"));
        std::fs::write(&rows, bytes(&manifest[name]["rows"])).unwrap();
        let eval = ["eval", &cbm, "--probability", "--floats", &rows, "--out", &out];
        good(&[&eval, said].concat());
        let expected = bytes(&manifest[name]["probability"]);
        let columns = expected.len() / 8 / 12;
        let expected: Vec<u8> = expected
            .as_chunks::<8>()
            .0
            .iter()
            .skip(column)
            .step_by(columns)
            .flat_map(|bytes| bytes.to_owned())
            .collect();
        assert!(std::fs::read(&out).unwrap() == expected, "{name} {said:?}");
        let text = good(&[&["inspect", &cbm], said].concat());
        assert!(text.contains(&format!("bots              class {column}")), "{name}: {text}");
        good(&[&["compile", &cbm], said].concat());
    }
    for (name, part) in [
        ("text", "\"bot\" (index 0), \"human\" (index 1), and nothing says which of them is a bot"),
        ("reversed", "set `bot_class`"),
        ("rmse", "loss_function is RMSE"),
        ("uncertainty", "loss_function is RMSEWithUncertainty"),
        ("no_loss", "names no loss_function"),
    ] {
        let cbm = file(&format!("{name}.cbm"));
        let inspected = good(&["inspect", &cbm]);
        assert!(
            inspected.contains("bots              not known: ") && inspected.contains(part),
            "{inspected}"
        );
        let error = bad(&["compile", &cbm]);
        assert!(error.contains(part) && error.contains(&cbm), "{error}");
        let eval = ["eval", &cbm, "--probability", "--floats", &path("x.f32"), "--out", &path("none")];
        assert!(bad(&eval).contains(part));
        assert!(!Path::new(&path("none")).exists());
        let output =
            Command::new(env!("CARGO_BIN_EXE_blissctl")).args(["demo", "--model", &cbm]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(part), "{error}");
    }
    let answered = ["compile", &file("rmse.cbm"), "--answer", "probability"];
    assert!(good(&answered).contains("class 1 is that of bots"));
    assert!(bad(&["compile", &file("rmse.cbm"), "--answer", "maybe"]).contains("log_odds"));
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
