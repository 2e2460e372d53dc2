use std::fs;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::*;

fn options(dir: &std::path::Path, out: &str) -> Options {
    let source = Source {
        log: vec![dir.join("log")],
        model: None,
        config: None,
        list: Vec::new(),
        bot: BotArgs::default(),
    };
    Options { source, out: dir.join(out) }
}

#[test]
fn every_request_gets_a_line_in_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let lines = (0..40).map(|i| {
        format!(
            "192.0.2.{} - - [17/May/2015:10:05:{:02} +0000] \"GET /{i} HTTP/1.1\" 404 1 \"-\" \"curl/8\"\n",
            i % 2,
            i
        )
    });
    fs::write(dir.path().join("log"), lines.collect::<String>() + "broken\n").unwrap();
    run(&options(dir.path(), "scores.csv")).unwrap();
    run(&options(dir.path(), "scores.parquet")).unwrap();
    let mut csv = csv::Reader::from_path(dir.path().join("scores.csv")).unwrap();
    let csv: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    let file = fs::File::open(dir.path().join("scores.parquet")).unwrap();
    let rows = SerializedFileReader::new(file).unwrap();
    let rows: Vec<_> = rows.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!((csv.len(), rows.len()), (40, 40));
    for (i, (csv, row)) in csv.iter().zip(rows).enumerate() {
        let row = row.into_columns();
        let of = |at: usize| row[at].1.clone();
        assert_eq!(&csv[0], (i + 1).to_string());
        assert_eq!(of(0), Field::Long(i as i64 + 1));
        assert_eq!(of(2), Field::Str(csv[2].to_owned()));
        assert_eq!((&csv[4], of(4)), ("scored", Field::Str("scored".into())));
        assert_eq!(of(3), Field::Int(csv[3].parse().unwrap()));
        assert_eq!(of(5), Field::Double(csv[5].parse().unwrap()));
        assert!((1..=99).contains(&csv[3].parse::<u8>().unwrap()));
    }
}

#[test]
fn the_summary_names_who_scores_low() {
    let parser = crate::access_log::parse::Parser::default();
    let mut tallies = Tallies::default();
    for (ip, agent, score) in [
        ("192.0.2.1", "a\\x1b[2Jgent", Some(5)),
        ("192.0.2.1", "a\\x1b[2Jgent", Some(25)),
        ("2001:db8::1", "-", Some(90)),
        ("192.0.2.9", "b", None),
    ] {
        let line =
            format!("{ip} - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"{agent}\"");
        tallies.add(&parser.parse(line.as_bytes()).unwrap(), ip, score);
    }
    let text = tallies.to_string();
    assert!(text.starts_with("4 requests of 3 clients; 3 have a score, 2 (66.7 %) one below 30\n"), "{text}");
    for expected in [
        "20 to 29         1",
        "1 of 3 clients have requests below 30",
        "       2       2        15.0  192.0.2.1  a?[2Jgent",
        "       2       3        15.0  192.0.2.0/24",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn wrong_logs_and_models_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "nothing\n").unwrap();
    let error = |options: &Options| format!("{:#}", run(options).unwrap_err());
    assert!(error(&options(dir.path(), "o")).contains("no line of it is a request"));
    fs::write(
        dir.path().join("log"),
        "192.0.2.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"a\"\n",
    )
    .unwrap();
    let mut no_model = options(dir.path(), "o");
    no_model.source.model = Some(dir.path().join("no"));
    assert!(error(&no_model).contains("--model "));
    assert!(error(&options(dir.path(), "no/o")).contains("--out "));
}

/// `blissctl features` and `blissctl score` give one request the same inputs: a model that takes all of a row's columns answers from
/// the file of the one what it answers in the other.
#[test]
fn scores_are_those_of_the_exported_rows() {
    scores_and_rows_agree(&[]);
}

#[test]
fn l3_scores_are_those_of_the_exported_rows_with_a_list_too() {
    scores_and_rows_agree(&["hosting"]);
}

/// With lists of these names, in which one of the three addresses is.
fn scores_and_rows_agree(lists: &[&str]) {
    use bliss_catboost::ir::{FloatFeature, Model, ObliviousTree, Split, Trees};
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("list.netset"), "192.0.2.1\n").unwrap();
    let file = dir.path().join("list.netset").display().to_string();
    let list: Vec<ListFile> = lists.iter().map(|name| format!("{name}={file}").parse().unwrap()).collect();
    let line = |i: usize| {
        let (ip, status) = (i % 3, [200, 404, 301][i % 3]);
        let agent =
            ["curl/8", "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", "-"][i % 3];
        let referrer = ["-", "https://shop.example/a", "https://other.example/"][i % 3];
        let (minute, second) = (i / 2 / 60, i / 2 % 60);
        format!(
            "192.0.2.{ip} - - [17/May/2015:10:{minute:02}:{second:02} +0000] \"GET /a/{}?q={i} HTTP/1.1\" {status} 1 \"{referrer}\" \"{agent}\"\n",
            i % 5
        )
    };
    fs::write(dir.path().join("log"), (0..300).map(line).collect::<String>()).unwrap();
    let rows_file = dir.path().join("rows.csv");
    crate::export::run(&crate::export::Options {
        log: vec![dir.path().join("log")],
        out: rows_file.clone(),
        config: None,
        list: list.clone(),
        rewrite: None,
        interval_seconds: 1,
    })
    .unwrap();
    let mut rows = csv::Reader::from_path(&rows_file).unwrap();
    let header: Vec<String> = rows.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    // The inputs that a row has: numbers of the request and of the dimensions.
    let columns: Vec<usize> = (0..header.len())
        .filter(|at| header[*at].contains('.') && !header[*at].ends_with(".status"))
        .collect();
    let value = |row: &csv::StringRecord, at: usize| row[at].parse::<f32>().unwrap();
    // Per column a border that rows lie on both sides of, and leaves that tell the columns apart; NaN is small.
    let mut features = Vec::new();
    for at in &columns {
        let mut values: Vec<f32> =
            rows.iter().map(|row| value(row, *at)).filter(|value| !value.is_nan()).collect();
        values.sort_by(f32::total_cmp);
        values.dedup();
        let border = if values.len() > 1 {
            (values[values.len() / 2 - 1] + values[values.len() / 2]) / 2.0
        } else {
            0.5
        };
        features.push((header[*at].clone(), border, 0.01 * (1.0 + (*at % 17) as f64)));
    }
    let varying = columns.iter().filter(|at| rows.iter().any(|row| row[**at] != rows[0][**at])).count();
    assert!(varying > 60, "{varying} of {} columns", columns.len());
    let model = Model {
        dimensions: 1,
        scale: 1.0,
        floats: (0..)
            .zip(&features)
            .map(|(index, (name, border, _))| FloatFeature {
                index,
                name: name.clone(),
                borders: vec![*border],
                ..Default::default()
            })
            .collect(),
        trees: Trees::Oblivious(
            (0..)
                .zip(&features)
                .map(|(at, (.., weight))| ObliviousTree {
                    splits: vec![Split::Float(at, 0)],
                    leaves: vec![-weight, *weight],
                })
                .collect(),
        ),
        ..Model::default()
    };
    let compiled = bliss_catboost::compile(&model).unwrap();
    let prepared = crate::model_files::Prepared { model, bot_class: 1, compiled };
    let set = ModelSet::of_one(prepared.named("default", "1"));
    let scores_file = dir.path().join("scores.csv");
    let mut source = options(dir.path(), "").source;
    source.list = list;
    score(&Options { source, out: scores_file.clone() }, &set).unwrap();
    let mut scores = csv::Reader::from_path(scores_file).unwrap();
    let scores: Vec<csv::StringRecord> = scores.records().map(Result::unwrap).collect();
    assert_eq!((scores.len(), rows.len()), (300, 300));
    let line_at = header.iter().position(|name| name == "line").unwrap();
    for (row, scored) in rows.iter().zip(&scores) {
        assert_eq!(row[line_at], scored[0], "both are in the order of the replay");
        let raw = features.iter().zip(&columns).fold(0.0, |raw, ((_, border, weight), at)| {
            if value(row, *at) > *border { raw + weight } else { raw - weight }
        });
        let expected = 1.0 / (1.0 + f64::exp(-raw));
        assert_eq!(scored[5].parse::<f64>().unwrap(), expected, "line {}", &scored[0]);
    }
}
