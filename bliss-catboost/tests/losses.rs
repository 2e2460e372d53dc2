//! Which class is the bot, and is the answer a probability: by the file's own loss and classes, bit-equal to CatBoost's
//! probability of that class, or refused by name.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use bliss_catboost::ir::Model;
use bliss_catboost::{AnswerKind, BotClass, BotError, BotOptions, ModelRef, Scratch, compile, import};

/// A model with CatBoost's own probabilities, as `train_losses.py` writes it.
struct Case {
    name: String,
    files: Vec<Vec<u8>>,
    loss: String,
    classes: Vec<String>,
    rows: Vec<f32>,
    /// Of each class, row after row.
    probability: Option<Vec<f64>>,
}

fn bytes(hex: &serde_json::Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    digits.as_chunks::<2>().0.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("losses.json")).unwrap();
    let manifest: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let case = |(name, case): (&String, &serde_json::Value)| {
        let file = |ending: &str| std::fs::read(folder.join(format!("{name}.{ending}"))).ok();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let doubles = |hex| bytes(hex).as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Case {
            name: name.clone(),
            files: ["cbm", "json"].into_iter().filter_map(file).collect(),
            loss: text(&case["loss"]),
            classes: case["classes"].as_array().unwrap().iter().map(text).collect(),
            rows: bytes(&case["rows"]).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            probability: (!case["probability"].is_null()).then(|| doubles(&case["probability"])),
        }
    };
    manifest.iter().map(case).collect()
}

fn class(class: BotClass) -> BotOptions {
    BotOptions { class: Some(class), answer: None }
}

/// For each row, its raw values and the probability of the class that `options` select.
fn evaluate(case: &Case, file: &[u8], options: &BotOptions) -> Result<Vec<(Vec<f64>, f64)>, BotError> {
    let mut model = import(file).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let class = model.select_bot(options)? as usize;
    let compiled = compile(&model).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let column = |name: &str| ["d.a", "d.b"].iter().position(|known| *known == name).unwrap() as u32;
    let binding: Vec<u32> = opened.inputs().map(|input| column(input.name)).collect();
    let mut scratch = Scratch::for_model(&opened);
    let mut raw = vec![0.0; opened.output_dimensions()];
    let row = |row: &[f32; 2]| {
        opened.raw(row, &binding, &mut scratch, &mut raw).unwrap();
        (raw.clone(), opened.class_probability(&raw, class))
    };
    Ok(case.rows.as_chunks().0.iter().map(row).collect())
}

fn bits(values: impl Iterator<Item = f64>) -> Vec<u64> {
    values.map(f64::to_bits).collect()
}

fn check(case: &Case) {
    let name = &case.name;
    for file in &case.files {
        let model = import(file).unwrap();
        assert_eq!((&model.loss, &model.class_names), (&case.loss, &case.classes), "{name}");
        match &case.probability {
            Some(expected) => check_classes(case, file, expected),
            None => check_refused(case, file, model.dimensions),
        }
    }
}

/// Each class by its name gives CatBoost's probability of it.
fn check_classes(case: &Case, file: &[u8], expected: &[f64]) {
    let name = &case.name;
    let columns = expected.len() / (case.rows.len() / 2);
    let of_class = |k: usize| bits(expected.iter().skip(k).step_by(columns).copied());
    let found = |options: &BotOptions| {
        evaluate(case, file, options).map(|rows| bits(rows.into_iter().map(|(_, probability)| probability)))
    };
    for (k, class_name) in case.classes.iter().enumerate() {
        // CatBoost adds a column for "not this label" where there is one label.
        let column = if case.classes.len() == 1 { 1 } else { k };
        let by_name = found(&class(BotClass::Name(class_name.clone())));
        assert_eq!(by_name, Ok(of_class(column)), "{name}: class {class_name}");
        let by_index = found(&class(BotClass::Index(k as u32)));
        if case.classes.iter().any(|other| *other == k.to_string() && other != class_name) {
            let error = by_index.unwrap_err().to_string();
            assert!(error.contains("may mean either of two classes"), "{name}: {error}");
        } else {
            assert_eq!(by_index, Ok(of_class(column)), "{name}: class {k}");
        }
    }
    let without = found(&BotOptions::default());
    if case.classes == ["0", "1"] || case.classes.is_empty() {
        assert_eq!(without, Ok(of_class(1)), "{name}");
        assert_eq!(found(&class(BotClass::Index(0))), Ok(of_class(0)), "{name}");
    } else {
        let error = without.unwrap_err().to_string();
        assert!(error.contains("bot_class"), "{name}: {error}");
        for class in &case.classes {
            assert!(error.contains(&format!("{class:?}")), "{name}: {error}");
        }
    }
    let probability = BotOptions { class: None, answer: Some(AnswerKind::Probability) };
    let error = found(&probability).unwrap_err().to_string();
    assert!(error.contains(&case.loss) && error.contains("remove `answer`"), "{name}: {error}");
}

/// Refused by name, unless it is said how its answers are read.
fn check_refused(case: &Case, file: &[u8], dimensions: usize) {
    let name = &case.name;
    for index in [None, Some(BotClass::Index(0))] {
        let options = BotOptions { class: index, answer: None };
        let error = evaluate(case, file, &options).unwrap_err().to_string();
        let what = if case.loss.is_empty() { "no loss_function" } else { &case.loss };
        assert!(error.contains(what) && error.contains("`answer`"), "{name}: {error}");
    }
    let several = dimensions > 1;
    for answer in [AnswerKind::Probability, AnswerKind::LogOdds] {
        let without = evaluate(case, file, &BotOptions { class: None, answer: Some(answer) });
        assert_eq!(without.is_err(), several, "{name}: which of several answers it is must be said");
        let chosen = BotOptions { class: Some(BotClass::Index(1)), answer: Some(answer) };
        for (raw, found) in evaluate(case, file, &chosen).unwrap() {
            let raw = if several { raw[1] } else { raw[0] };
            let expected = match answer {
                AnswerKind::Probability => raw,
                AnswerKind::LogOdds => ModelRef::probability(raw),
            };
            assert_eq!(found.to_bits(), expected.to_bits(), "{name}");
        }
    }
}

#[test]
fn every_class_has_catboosts_probability_and_other_losses_are_refused_by_name() {
    let folder = common::testdata().with_file_name("losses");
    let cases = cases(&folder);
    assert!(cases.len() == 15);
    cases.iter().for_each(check);
}

#[test]
fn models_trained_anew_of_every_loss_are_read_or_refused() {
    let python = std::env::var("BLISS_CATBOOST_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import catboost, numpy"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        common::skipped(&format!(
            "training models ({python} has no package catboost; set BLISS_CATBOOST_PYTHON)"
        ));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = common::testdata().with_file_name("train_losses.py");
    let seed = std::process::id().to_string();
    let mut command = Command::new(&python);
    command.arg(script).arg(folder.path()).arg(&seed).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "training failed (seed {seed})");
    let cases = cases(folder.path());
    assert!(cases.len() >= 35 && cases.iter().all(|case| case.files.len() == 2));
    cases.iter().for_each(check);
}

/// What the file says (loss, classes, answers per row), what the operator says, and the class or a part of the error.
#[test]
fn the_bots_class_by_what_file_and_operator_say() {
    type Row<'a> =
        (&'a str, &'a [&'a str], usize, Option<BotClass>, Option<AnswerKind>, Result<u32, &'a str>);
    let index = |index| Some(BotClass::Index(index));
    let name = |name: &str| Some(BotClass::Name(name.to_owned()));
    let (probability, log_odds) = (Some(AnswerKind::Probability), Some(AnswerKind::LogOdds));
    let table: &[Row<'_>] = &[
        ("Logloss", &[], 1, None, None, Ok(1)),
        ("CrossEntropy", &[], 1, None, None, Ok(1)),
        ("Logloss", &["0", "1"], 1, None, None, Ok(1)),
        ("Logloss", &["0", "1"], 1, index(0), None, Ok(0)),
        ("Logloss", &["0", "1"], 1, name("1"), None, Ok(1)),
        ("Logloss", &["0", "1"], 1, None, log_odds, Ok(1)),
        ("Logloss", &["0", "1"], 1, index(2), None, Err("bot_class = 2: there is no such class")),
        ("Logloss", &[], 1, index(2), None, Err("without names (index 0 to 1)")),
        ("Logloss", &[], 1, name("bot"), None, Err("bot_class = \"bot\": there is no such class")),
        ("Logloss", &["1", "0"], 1, None, None, Err("\"1\" (index 0), \"0\" (index 1)")),
        ("Logloss", &["1", "0"], 1, name("1"), None, Ok(0)),
        ("Logloss", &["1", "0"], 1, index(1), None, Err("bot_class = \"1\" or bot_class = \"0\"")),
        ("Logloss", &["1", "2"], 1, index(0), None, Ok(0)),
        (
            "Logloss",
            &["bot", "human"],
            1,
            None,
            None,
            Err("\"human\" (index 1), and nothing says which of them is a bot; set `bot_class`"),
        ),
        ("Logloss", &["bot", "human"], 1, name("bot"), None, Ok(0)),
        ("Logloss", &["bot", "human"], 1, name("Bot"), None, Err("there is no such class")),
        ("Logloss", &["false", "true"], 1, None, None, Err("\"true\" (index 1)")),
        ("Logloss", &["bot", "bot"], 1, name("bot"), None, Err("bot_class = 0 or bot_class = 1")),
        ("Logloss", &["a"], 1, None, None, Err("names 1 classes")),
        ("Logloss", &["0", "1"], 3, None, None, Err("has 3 answers")),
        ("MultiClass", &[], 2, None, None, Err("without names (index 0 to 1)")),
        ("MultiClass", &["0", "1", "2"], 3, None, None, Err("\"2\" (index 2), and nothing says")),
        ("MultiClass", &["0", "1", "2"], 3, index(2), None, Ok(2)),
        ("MultiClass", &["0", "1"], 2, None, log_odds, Err("remove `answer`")),
        ("MultiLogloss", &["0", "1"], 2, None, None, Ok(1)),
        ("MultiLogloss", &["bot"], 1, name("bot"), None, Ok(1)),
        ("MultiLogloss", &["bot"], 1, index(0), None, Ok(1)),
        ("MultiLogloss", &["bot"], 1, index(1), None, Err("there is no such class")),
        ("MultiLogloss", &["bot"], 1, None, None, Err("\"bot\" (index 0)")),
        ("RMSE", &[], 1, None, None, Err("loss_function is RMSE")),
        ("RMSE", &[], 1, index(1), None, Err("loss_function is RMSE")),
        ("RMSE", &[], 1, None, probability, Ok(1)),
        ("RMSE", &[], 1, index(0), probability, Ok(0)),
        ("RMSEWithUncertainty", &[], 2, None, probability, Err("index 0 to 1")),
        ("RMSEWithUncertainty", &[], 2, index(0), probability, Ok(0)),
        ("PairLogit", &[], 1, None, log_odds, Ok(1)),
        ("", &[], 1, None, None, Err("names no loss_function")),
        ("", &["bot", "human"], 1, None, log_odds, Err("bot_class")),
        ("", &["bot", "human"], 1, name("bot"), log_odds, Ok(0)),
    ];
    for (loss, classes, dimensions, class, answer, expected) in table {
        let mut model = Model {
            loss: (*loss).into(),
            class_names: classes.iter().map(|name| (*name).into()).collect(),
            dimensions: *dimensions,
            ..Model::default()
        };
        let found = model.select_bot(&BotOptions { class: class.clone(), answer: *answer });
        let at = format!("{loss} {classes:?} {dimensions} {class:?} {answer:?}: {found:?}");
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{at}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{at}: {error}"),
            _ => panic!("{at}"),
        }
    }
}

/// Damaged metadata is an error: classes that cannot be read must not pass for classes that have no names.
#[test]
fn metadata_that_cannot_be_read_is_an_error() {
    let folder = common::testdata().with_file_name("losses");
    let json = std::fs::read_to_string(folder.join("text.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut damaged: Vec<_> = [
        ("/model_info/class_params", serde_json::json!("{\"class_names\":[")),
        ("/model_info/class_params/class_names", serde_json::json!("bot")),
        ("/model_info/class_params/class_names", serde_json::json!([{ "bot": 1 }, null])),
        ("/model_info/params/loss_function", serde_json::json!({ "type": 7 })),
        ("/model_info/params/loss_function", serde_json::json!([])),
        ("/model_info/params/loss_function", serde_json::json!("RM\nSE")),
        ("/model_info/params/loss_function", serde_json::json!({ "type": "x".repeat(200) })),
    ]
    .into_iter()
    .map(|(pointer, value)| {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        (pointer, serde_json::to_vec(&json).unwrap())
    })
    .collect();
    let mut cbm = std::fs::read(folder.join("text.cbm")).unwrap();
    let names = b"\"class_names\":[\"bot\",\"human\"]";
    let at = cbm.windows(names.len()).position(|found| found == names).unwrap();
    cbm[at + names.len() - 1] = b'(';
    damaged.push(("class_params of a .cbm", cbm));
    for (what, file) in damaged {
        let error = import(&file).unwrap_err().to_string();
        assert!(error.contains("corrupt"), "{what}: {error}");
    }
}

/// Names of any length and number are shown cut.
#[test]
fn a_message_does_not_grow_with_the_file() {
    let long = "é".repeat(100_000);
    let class_names: Vec<_> = (0..60_000).map(|i| format!("{i}{long:.100}")).collect();
    for class_names in [class_names, vec![long.clone(), "\n".repeat(100_000)]] {
        let mut model = Model { loss: "MultiClass".into(), ..Model::default() };
        (model.dimensions, model.class_names) = (class_names.len(), class_names);
        let error = model.select_bot(&BotOptions::default()).unwrap_err().to_string();
        assert!(error.len() < 3000 && error.contains('…'), "{} bytes", error.len());
    }
}

/// No damage to a file's metadata is a panic.
#[test]
fn damaged_files_are_errors_or_models() {
    let file = std::fs::read(common::testdata().with_file_name("losses").join("labels_named.cbm")).unwrap();
    let options = [
        BotOptions::default(),
        class(BotClass::Index(2)),
        class(BotClass::Name("bot".into())),
        BotOptions { class: Some(BotClass::Index(1)), answer: Some(AnswerKind::LogOdds) },
    ];
    for at in 0..file.len() {
        for value in [0, b'"', b',', b'9', 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            let Ok(model) = import(&damaged) else { continue };
            for options in &options {
                let mut model = model.clone();
                if let Ok(class) = model.select_bot(options) {
                    assert!((class as usize) < model.dimensions.max(2));
                }
            }
        }
    }
}

/// A loss may be written as a plain name with its parameters.
#[test]
fn a_loss_is_an_object_or_a_name() {
    let folder = common::testdata().with_file_name("losses");
    let json = std::fs::read_to_string(folder.join("rmse.json")).unwrap();
    for (loss, expected) in [
        (serde_json::json!("Quantile:alpha=0.9"), "Quantile"),
        (serde_json::json!({ "type": "Quantile", "params": { "alpha": "0.9" } }), "Quantile"),
        (serde_json::json!("Logloss"), "Logloss"),
    ] {
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["model_info"]["params"]["loss_function"] = loss.clone();
        assert_eq!(import(&serde_json::to_vec(&json).unwrap()).unwrap().loss, expected);
        json["model_info"]["params"] =
            serde_json::json!(serde_json::json!({ "loss_function": loss }).to_string());
        assert_eq!(import(&serde_json::to_vec(&json).unwrap()).unwrap().loss, expected);
    }
}
