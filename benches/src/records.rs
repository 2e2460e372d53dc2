//! Runs kept as JSON: what was measured, on what, by which command, and how it stands against the goals.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::goals::{Verdict, verdicts};
use crate::machine::Machine;
use crate::report::{Report, Row};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When it ended, in UTC.
    pub date: String,
    /// Commit of the working tree; ends in `+` where that had changes.
    pub commit: String,
    /// Arguments of `compare`.
    pub command: String,
    /// Processor, kernel, compiler and mount.
    pub machine: Machine,
    /// What else must be known to read it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The text from which it was copied by hand, where `compare` did not write it: figures are as rounded there, and there
    /// are no distributions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcribed: Option<String>,
    /// The rows.
    pub results: Vec<Row>,
    /// How they stand against the goals; against those of today where the file has none.
    #[serde(default)]
    pub goals: Vec<Verdict>,
}

/// Where records are kept.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("records")
}

/// All records of a folder, the oldest first.
///
/// # Errors
/// Where one cannot be read.
pub fn all(folder: &Path) -> anyhow::Result<Vec<Record>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    read(&paths.into_iter().filter(json).collect::<Vec<_>>())
}

/// Reads records; the oldest first.
///
/// # Errors
/// Where one cannot be read.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Record>> {
    let one = |path: &PathBuf| -> anyhow::Result<Record> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mut record: Record =
            serde_json::from_slice(&text).with_context(|| format!("{} is not a record", path.display()))?;
        if record.goals.is_empty() {
            record.goals = verdicts(&record.results);
        }
        Ok(record)
    };
    let mut records = paths.iter().map(one).collect::<anyhow::Result<Vec<_>>>()?;
    records.sort_by(|a, b| a.date.cmp(&b.date));
    Ok(records)
}

impl Record {
    /// A run that just ended.
    pub fn of(report: &Report, arguments: impl Iterator<Item = String>) -> Self {
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            commit: commit(),
            command: std::iter::once("compare".to_owned()).chain(arguments).collect::<Vec<_>>().join(" "),
            machine: report.machine().clone(),
            note: None,
            transcribed: None,
            goals: verdicts(report.rows()),
            results: report.rows().to_vec(),
        }
    }

    /// Writes it into a folder, under its date and the benchmark's name.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let name = self.command.split(' ').skip(1).find(|word| !word.starts_with('-')).unwrap_or("run");
        let path = folder.join(format!("{}-{name}.json", self.date.replace(':', "")));
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&path, flat_pairs(&text) + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Prints how the run stands against the goals.
    pub fn print_goals(&self) {
        for v in &self.goals {
            let peer = if v.peer.is_empty() { String::new() } else { format!(" against {}", v.peer) };
            let Verdict { bench, ours, figure, ratio, goal, .. } = v;
            eprintln!("{}: {bench}, {ours}, {figure}{peer}: {ratio:.2}, goal: {goal}", v.word());
        }
    }
}

/// Puts arrays of numbers on one line, so that a distribution takes one and not hundreds.
fn flat_pairs(pretty: &str) -> String {
    let mut text = String::with_capacity(pretty.len());
    let mut rest = pretty;
    while let Some(at) = rest.find('[') {
        let (before, array) = rest.split_at(at);
        text += before;
        let is_numbers = |c: char| c.is_ascii_digit() || c.is_whitespace() || "[],.-+e".contains(c);
        let mut depth = 0_usize;
        let end = array.char_indices().take_while(|(_, c)| is_numbers(*c)).find_map(|(i, c)| {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(i + 1)
        });
        let (taken, left) = array.split_at(end.unwrap_or(1));
        text.extend(taken.chars().filter(|c| !c.is_whitespace()));
        rest = left;
    }
    text + rest
}

/// The commit of this working tree, as far as git tells.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        let output = git.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let is_changed = git(&["status", "--porcelain", "-uno"]).is_none_or(|changes| !changes.is_empty());
    if is_changed { commit + "+" } else { commit }
}

/// A row as records hold it: its fields beside its names.
#[derive(Serialize, Deserialize)]
struct Flat {
    bench: String,
    subject: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    curve: Vec<(f64, u64)>,
}

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { bench, subject, fields, curve } = self.clone();
        Flat { bench, subject, fields: fields.into_iter().collect(), curve }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Flat { bench, subject, fields, curve } = Flat::deserialize(deserializer)?;
        Ok(Self { bench, subject, fields: fields.into_iter().collect(), curve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Times;

    #[test]
    fn what_is_written_is_read() {
        let mut times = Times::new();
        (1..=1000).for_each(|ns| times.add_ns(f64::from(ns)));
        let mut report = Report::new(true);
        report.add(Row::new("lookup", "bliss").with("keys", 5).with_times(&times));
        report.add(Row::new("lookup", "mmap-sync 2.0.4").with("p50_ns", 9000.0));
        let record = Record::of(&report, ["lookup", "--keys", "5"].map(String::from).into_iter());
        let folder = tempfile::tempdir().unwrap();
        let path = record.write(folder.path()).unwrap();
        assert!(path.to_string_lossy().ends_with("Z-lookup.json"), "{path:?}");
        let found = all(folder.path()).unwrap();
        assert_eq!((found.len(), found[0].command.as_str()), (1, "compare lookup --keys 5"));
        assert_eq!(found[0].results[0].curve, times.curve());
        assert_eq!(found[0].results[0].number("p50_ns"), report.rows()[0].number("p50_ns"));
        assert_eq!(found[0].goals, record.goals);
        assert_eq!(record.goals[0].word(), "holds");
    }

    #[test]
    fn the_records_of_the_repository_are_records() {
        let records = all(&folder()).unwrap();
        let lookup = |record: &&Record| record.results.iter().any(|row| row.bench == "lookup");
        assert!(records.iter().filter(lookup).all(|record| !record.goals.is_empty()));
        let is_known = |record: &Record| !record.commit.is_empty() && !record.machine.cpu.is_empty();
        assert!(!records.is_empty() && records.iter().all(is_known));
    }

    #[test]
    fn arrays_of_numbers_take_one_line() {
        let pretty = "{\n  \"a\": [\n    [\n      1.5,\n      2\n    ]\n  ],\n  \"b\": [\n    \"x\"\n  ]\n}";
        assert_eq!(flat_pairs(pretty), "{\n  \"a\": [[1.5,2]],\n  \"b\": [\n    \"x\"\n  ]\n}");
    }
}
