use std::fs;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::*;

fn options(dir: &std::path::Path, out: &str) -> Options {
    Options {
        log: vec![dir.join("log")],
        model: None,
        config: None,
        out: dir.join(out),
        bot: BotArgs::default(),
    }
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
    let no_model = Options { model: Some(dir.path().join("no")), ..options(dir.path(), "o") };
    assert!(error(&no_model).contains("--model "));
    assert!(error(&options(dir.path(), "no/o")).contains("--out "));
}
