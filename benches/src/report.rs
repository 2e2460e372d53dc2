//! What a benchmark found, as a table with ratios or as a JSON object per line.

use serde_json::{Map, Value, json};

use crate::machine::Machine;
use crate::measure::Times;

/// One row: a subject's figures in one benchmark.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the benchmark.
    pub bench: String,
    /// Who was measured.
    pub subject: String,
    /// Figures and circumstances by name; names end in their unit.
    pub fields: Vec<(String, Value)>,
    /// How its times are distributed, as [`Times::curve`] gives it; for records only.
    pub curve: Vec<(f64, u64)>,
}

impl Row {
    /// A row without figures.
    pub fn new(bench: &str, subject: &str) -> Self {
        Self { bench: bench.into(), subject: subject.into(), fields: Vec::new(), curve: Vec::new() }
    }

    /// With another field.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// With the percentiles and the distribution of a latency.
    pub fn with_times(mut self, times: &Times) -> Self {
        let round = |ns: f64| (ns * 10.0).round() / 10.0;
        let p = times.percentiles();
        self.curve = times.curve();
        self.with("p50_ns", round(p.p50))
            .with("p90_ns", round(p.p90))
            .with("p99_ns", round(p.p99))
            .with("p999_ns", round(p.p999))
            .with("max_ns", round(p.max))
            .with("mean_ns", round(p.mean))
            .with("count", p.count)
    }

    /// A figure or circumstance.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(held, _)| held == name).map(|(_, value)| value)
    }

    /// A figure.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.field(name)?.as_f64()
    }
}

/// Where rows go as soon as they are found.
#[derive(Debug)]
pub struct Report {
    json: bool,
    machine: Machine,
    rows: Vec<Row>,
}

impl Report {
    /// Prints JSON objects to standard output as rows come, or a table at the end.
    pub fn new(json: bool) -> Self {
        let machine = Machine::detect();
        eprintln!("{machine}");
        Self { json, machine, rows: Vec::new() }
    }

    /// Takes a row.
    pub fn add(&mut self, row: Row) {
        if self.json {
            println!("{}", self.json_of(&row));
        } else {
            eprintln!("  {}: {} done", row.bench, row.subject);
        }
        self.rows.push(row);
    }

    /// Says what could not be measured, and why.
    pub fn skipped(&self, bench: &str, subject: &str, why: &str) {
        eprintln!("SKIPPED: {bench}: {subject} ({why})");
    }

    /// What the rows were taken on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// All rows so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn json_of(&self, row: &Row) -> Value {
        let mut object = Map::new();
        object.insert("bench".into(), json!(row.bench));
        object.insert("subject".into(), json!(row.subject));
        object.extend(row.fields.clone());
        object.insert("machine".into(), json!(self.machine));
        Value::Object(object)
    }

    /// Prints the table, unless JSON was printed: per benchmark a row per subject, with how many times its figures are
    /// those of the benchmark's first subject.
    pub fn finish(&self) {
        if !self.json {
            print!("{}", self.table());
        }
    }

    fn table(&self) -> String {
        let mut benches: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !benches.contains(&row.bench.as_str()) {
                benches.push(&row.bench);
            }
        }
        benches.into_iter().map(|bench| self.table_of(bench)).collect()
    }

    fn table_of(&self, bench: &str) -> String {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.bench == bench).collect();
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in rows.iter().flat_map(|row| &row.fields) {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        let mut lines =
            vec![std::iter::once(bench.to_owned()).chain(columns.iter().map(|c| (*c).into())).collect()];
        for row in &rows {
            let cell = |name: &&str| {
                let Some(value) = row.field(name) else { return String::new() };
                let text = shown(value);
                let first =
                    rows.first().filter(|first| first.subject != row.subject).and_then(|f| f.number(name));
                match (first, row.number(name)) {
                    (Some(first), Some(this)) if first > 0.0 && is_measured(name) => {
                        format!("{text} ({}x)", ratio(this / first))
                    }
                    _ => text,
                }
            };
            lines.push(
                std::iter::once(row.subject.clone()).chain(columns.iter().map(cell)).collect::<Vec<_>>(),
            );
        }
        let widths: Vec<usize> = (0..=columns.len())
            .map(|i| lines.iter().filter_map(|l| l.get(i)).map(String::len).max().unwrap_or(0))
            .collect();
        let mut text = String::from("\n");
        for line in lines {
            for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let width = *width;
                text += &if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            }
            text.push('\n');
        }
        text
    }
}

/// Three digits.
fn ratio(ratio: f64) -> String {
    let digits = if ratio >= 100.0 { 0 } else { usize::from(ratio < 10.0) + 1 };
    format!("{ratio:.digits$}")
}

/// Whether a field is a figure, for which a ratio means something.
fn is_measured(name: &str) -> bool {
    (name.ends_with("_ns") && name != "timer_cost_ns") || name.ends_with("seconds") || name.ends_with("bytes")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(n) if number.is_f64() && n.abs() >= 100.0 => format!("{n:.0}"),
            Some(n) if number.is_f64() && n.abs() < 1.0 => format!("{n:.6}"),
            Some(n) if number.is_f64() => format!("{n:.1}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_compares_with_the_first_subject() {
        let mut report = Report::new(false);
        report.add(Row::new("b", "we").with("p50_ns", 10.0).with("keys", 5));
        report.add(Row::new("b", "they").with("p50_ns", 85.0).with("keys", 5));
        let table = report.table();
        assert!(table.contains("85.0 (8.50x)") && table.contains(" 10.0 "), "{table}");
        let object = report.json_of(&report.rows()[1]);
        assert_eq!((object["bench"].as_str(), object["subject"].as_str()), (Some("b"), Some("they")));
        assert!(object["machine"]["cores"].as_u64() > Some(0));
    }
}
