//! From a log to a model that scores, and the default model's own answers.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bliss_catboost::{ModelRef, Scratch, compile, import};
use bliss_core::score::bot_score;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[derive(serde::Deserialize)]
struct Row {
    inputs: HashMap<String, Option<f32>>,
    raw: f64,
    probability: f64,
    score: u8,
}

/// Calibration travels in the file: what training said a reader must give is what is given here, to the bit.
#[test]
fn d5_the_default_model_answers_as_its_fixture_says() {
    let models = repository().join("models");
    let compiled = compile(&import(&fs::read(models.join("default.cbm")).unwrap()).unwrap()).unwrap();
    let model = ModelRef::open(&compiled).unwrap();
    let mut scratch = Scratch::for_model(&model);
    let binding: Vec<u32> = (0..model.inputs().len() as u32).collect();
    let text = fs::read_to_string(models.join("default.fixture.jsonl")).unwrap();
    let mut rows = 0;
    for line in text.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let values: Vec<f32> =
            model.inputs().map(|input| row.inputs[input.name].unwrap_or(f32::NAN)).collect();
        let mut raw = [0.0];
        model.raw(&values, &binding, &mut scratch, &mut raw).unwrap();
        assert_eq!(raw[0].to_bits(), row.raw.to_bits(), "row {rows}");
        let probability = model.class_probability(&raw, 1);
        assert!((probability - row.probability).abs() < 1e-12, "row {rows}");
        assert_eq!(bot_score(probability), Some(row.score), "row {rows}");
        rows += 1;
    }
    assert!(rows >= 100, "{rows}");
}

/// Trains on a real log, twice, and scores the log with what came out.
#[test]
fn d5_a_model_is_trained_on_a_log_and_serves_it() {
    let python = std::env::var("BLISS_CATBOOST_PYTHON");
    let data = std::env::var("BLISS_TEST_DATA");
    let (Ok(python), Ok(data)) = (python, data) else {
        eprintln!("SKIPPED: BLISS_CATBOOST_PYTHON and BLISS_TEST_DATA are not set");
        return;
    };
    let log = Path::new(&data).join("access.log");
    let package = repository().join("train");
    let has_package =
        Command::new(&python).args(["-c", "import bliss_train.cli"]).env("PYTHONPATH", &package).status();
    if !log.exists() || !has_package.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no access.log, or the packages of train/requirements.txt are not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let blissctl = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_blissctl"))
            .args(arguments)
            .env("BLISS_TRAIN_PYTHON", &python)
            .env("PYTHONPATH", &package)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        String::from_utf8(output.stdout).unwrap()
    };
    let log = log.to_str().unwrap();
    for out in ["one", "two"] {
        blissctl(&["train", "--log", log, "--out", out, "--base", "none", "--seed", "7"]);
    }
    for file in ["model.cbm", "card.md", "report.html", "policy.toml"] {
        let of = |out: &str| fs::read(dir.path().join(out).join(file)).unwrap();
        assert!(of("one") == of("two"), "{file}: the same seed gives the same bytes");
    }
    // Once more, beside the model that is active: the new one is handed over as the shadow, and the active one stays.
    fs::copy(dir.path().join("one/model.cbm"), dir.path().join("active.cbm")).unwrap();
    fs::write(dir.path().join("beside.cbm"), "an older one").unwrap();
    let model =
        |name: &str| format!("[[model]]\nname = \"{name}\"\nversion = \"1\"\npath = \"{name}.cbm\"\n");
    let config = format!(
        "[[origin.access_log]]\nname = \"log\"\npath = \"{log}\"\n{}{}[[route]]\nname = \"default\"\nactive = \
         \"active\"\nshadow = [\"beside\"]\n",
        model("active"),
        model("beside")
    );
    fs::write(dir.path().join("bliss.toml"), config).unwrap();
    let arguments = ["train", "--log", log, "--out", "three", "--base", "none", "--seed", "8"];
    let refresh = ["--refresh", "--even-if-worse", "--config", "bliss.toml"];
    let said = blissctl(&[&arguments[..], &refresh[..]].concat());
    assert!(
        said.contains("| AUC, robots against people |") && said.contains("shadow model `beside`"),
        "{said}"
    );
    let file = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(file("beside.cbm") == file("three/model.cbm") && file("active.cbm") == file("one/model.cbm"));
    let carried = import(&file("beside.cbm")).unwrap().distribution.unwrap();
    assert!(carried.requests == 5000 && carried.inputs.len() > 10, "{}", carried.requests);

    let said = blissctl(&["score", "--log", log, "--model", "one/model.cbm", "--out", "scores.csv"]);
    assert!(said.starts_with("5000 requests of "), "{said}");
    assert!(said.contains("5000 have a score"), "{said}");
}
