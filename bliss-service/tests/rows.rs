//! `blissctl features`: what it writes is read by others, with their defaults, and loses no byte.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/access-log.md");

/// Compares the three ways to read the rows, and prints the bytes of the texts in hexadecimal.
const SCRIPT: &str = r#"
import csv, json, sys
import pandas

def back(cells):
    return [None if pandas.isna(cell) or cell == "" else unescape(cell).hex() for cell in cells]

results = []
for base in sys.argv[1:]:
    table = pandas.read_csv(base + ".csv")
    with open(base + ".csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, strict=True))
    columns = pandas.read_parquet(base + ".parquet")
    assert list(table.columns) == list(columns.columns) == list(rows[0])
    result = {}
    for name in ("user_agent", "method", "path", "query", "host", "referrer"):
        result[name] = back(table[name])
        assert result[name] == back(row[name] for row in rows) == back(columns[name]), name
    assert str(columns["time"].dtype) == "datetime64[ms, UTC]", columns["time"].dtype
    assert (columns["time"] == pandas.to_datetime(table["time"], unit="s", utc=True)).all()
    assert (columns["line"] == table["line"]).all() and columns["line"].dtype == "int64"
    for name in columns.columns:
        if "." in name and not name.endswith(".status"):
            assert columns[name].dtype == "float32", name
            in_csv = table[name].astype("float32")
            # What a log does not tell is NaN in both.
            assert ((columns[name] == in_csv) | (columns[name].isna() & in_csv.isna())).all(), name
        elif name not in result and name not in ("time", "line"):
            assert (columns[name] == table[name]).all(), name
    results.append(result)
print(json.dumps(results))
"#;

#[test]
fn pandas_and_csv_read_the_rows_with_their_defaults() {
    let python = std::env::var("BLISS_CATBOOST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_packages = Command::new(&python).args(["-c", "import pandas, pyarrow"]).output();
    if !has_packages.is_ok_and(|output| output.status.success()) {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: pandas_and_csv_read_the_rows_with_their_defaults ({python} has no pandas and pyarrow; set \
             BLISS_CATBOOST_PYTHON)"
        );
        return;
    }
    let reader = DOCUMENT.split("```python\n").nth(1).unwrap().split("```").next().unwrap();

    // The last ones are columns of nothing else: a reader that guesses would guess.
    let mixed: Vec<&[u8]> = vec![
        b"Mozilla/5.0 (X11; Linux x86_64)",
        b"F\xfatbol/1.0",
        b"\xf0\x9f",
        "käse ☕ \u{85}\u{2028}\u{feff}x".as_bytes(),
        b"a \"quoted\", b; c",
        b"nul \0 tab \t return \r line \n escape \x1b",
        br"back\slash \x41 \\x41",
        b"'single",
        b"# comment",
        b"=1+1",
        b"@x",
        b" space ",
    ];
    let guessed: [&[u8]; 12] = [
        b"NA", b"null", b"007", b"1e5", b"nan", b"None", b"True", b"inf", b"<NA>", b"#N/A", b"-1.#IND",
        b"1,5",
    ];
    let columns: Vec<Vec<&[u8]>> =
        [mixed].into_iter().chain(guessed.into_iter().map(|value| vec![value, value])).collect();

    let dir = tempfile::tempdir().unwrap();
    let mut bases = Vec::new();
    for (at, agents) in columns.iter().enumerate() {
        let base = dir.path().join(at.to_string());
        let lines = agents.iter().map(|agent| {
            // As nginx escapes them.
            let text: String = agent.iter().map(|byte| format!("\\x{byte:02X}")).collect();
            format!(
                "192.0.2.1 - - [25/Nov/2026:10:00:00 +0000] \"GET /{text} HTTP/1.1\" 200 1 \"-\" \"{text}\"\n"
            )
        });
        let log = base.with_extension("log");
        fs::write(&log, lines.collect::<String>()).unwrap();
        for extension in ["csv", "parquet"] {
            let output = Command::new(env!("CARGO_BIN_EXE_blissctl"))
                .args(["features", "--log"])
                .arg(&log)
                .arg("--out")
                .arg(base.with_extension(extension))
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        bases.push(base);
    }
    let output =
        Command::new(&python).arg("-c").arg(format!("{reader}{SCRIPT}")).args(&bases).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (read, agents) in read.iter().zip(&columns) {
        let expected: Vec<Value> = agents.iter().map(|agent| hex(agent).into()).collect();
        assert_eq!(read["user_agent"], Value::Array(expected));
        assert_eq!(read["path"].as_array().unwrap().len(), agents.len());
    }
    assert_eq!(read.len(), columns.len());
    let path = |at: usize| read[0]["path"][at].as_str().unwrap().to_owned();
    assert_eq!(path(1), hex(b"/F\xfatbol/1.0"));
}
