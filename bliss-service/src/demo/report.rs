//! What the demonstration found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

/// Bars of the histogram: scores 1 to 10, 11 to 20, … 91 to 99.
const BARS: usize = 10;

/// The results of all requests of a log.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) log: String,
    pub(super) model: String,
    pub(super) requests: u64,
    pub(super) malformed: u64,
    pub(super) late: u64,
    pub(super) scored: u64,
    /// Unscored requests by reason.
    pub(super) unscored: BTreeMap<String, u64>,
    pub(super) publications: u64,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
    pub(super) rows: u64,
    /// Scored requests by whether the client declares itself a crawler: score, and probability of a bot.
    pub(super) declared: Vec<(u8, f64)>,
    pub(super) rest: Vec<(u8, f64)>,
    pub(super) fetch_ns: Vec<u32>,
    pub(super) score_ns: Vec<u32>,
    pub(super) seconds: f64,
}

impl Report {
    /// The chance that a request of a declared crawler has a higher probability of a bot than one of the rest; equal
    /// ones count half. `None` where either kind is missing.
    pub(super) fn auc(&self) -> Option<f64> {
        let (n, m) = (self.declared.len() as f64, self.rest.len() as f64);
        if n == 0.0 || m == 0.0 {
            return None;
        }
        let label = |label| move |&(_, p): &(u8, f64)| (p, label);
        let mut all: Vec<_> =
            self.declared.iter().map(label(true)).chain(self.rest.iter().map(label(false))).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut below, mut sum) = (0.0, 0.0);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let declared = tied.iter().filter(|(_, declared)| *declared).count() as f64;
            let rest = tied.len() as f64 - declared;
            sum += declared * (below + rest / 2.0);
            below += rest;
        }
        Some(sum / (n * m))
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let percentiles = |ns: &[u32]| {
            let [p50, p99, p999] = percentiles(ns);
            serde_json::json!({ "p50": p50, "p99": p99, "p999": p999 })
        };
        serde_json::json!({
            "log": self.log,
            "model": self.model,
            "from": time(self.first_ms),
            "to": time(self.last_ms),
            "requests": self.requests,
            "malformed": self.malformed,
            "late": self.late,
            "scored": self.scored,
            "unscored": self.unscored,
            "publications": self.publications,
            "rows": self.rows,
            "declared_crawlers": self.declared.len(),
            "histogram": { "declared": histogram(&self.declared), "rest": histogram(&self.rest) },
            "auc": self.auc(),
            "fetch_ns": percentiles(&self.fetch_ns),
            "score_ns": percentiles(&self.score_ns),
            "seconds": self.seconds,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| {
            writeln!(f, "  {name:<34} {value}")
        };
        writeln!(f, "\nBLISS scored the traffic of {}\n", self.log)?;
        row(f, "time range", &format_args!("{} to {}", time(self.first_ms), time(self.last_ms)))?;
        row(f, "model", &self.model)?;
        row(f, "requests", &self.requests)?;
        row(f, "malformed lines, skipped", &self.malformed)?;
        if self.late > 0 {
            row(f, "too late to count in features", &self.late)?;
        }
        row(f, "publications of features", &self.publications)?;
        row(f, "rows in the last one", &self.rows)?;
        row(f, "scored", &self.scored)?;
        row(f, "unscored", &self.unscored.values().sum::<u64>())?;
        for (reason, count) in &self.unscored {
            row(f, &format!("  {reason}"), count)?;
        }
        match self.auc() {
            Some(auc) => row(f, "AUC, declared crawlers or not", &format_args!("{auc:.4}"))?,
            None => {
                row(f, "AUC, declared crawlers or not", &"not defined: there is only one of the two kinds")?
            }
        }
        for (name, ns) in [("fetch", &self.fetch_ns), ("score (with its fetch)", &self.score_ns)] {
            let [p50, p99, p999] = percentiles(ns);
            row(f, &format!("{name}, p50 / p99 / p99.9"), &format_args!("{p50} / {p99} / {p999} ns"))?;
        }
        writeln!(f, "\n  score     declared crawlers              the rest")?;
        let (declared, rest) = (histogram(&self.declared), histogram(&self.rest));
        for bar in 0..BARS {
            let (low, high) = (bar * 10 + 1, (bar * 10 + 10).min(99));
            let cell = |bars: &[u64; BARS]| {
                let total = bars.iter().sum::<u64>().max(1);
                let width = (bars[bar] * 20).div_ceil(total) as usize;
                format!("{:>7} {:<20}", bars[bar], "█".repeat(width))
            };
            writeln!(f, "  {low:>2} to {high:<2}{} {}", cell(&declared), cell(&rest).trim_end())?;
        }
        writeln!(f, "\n  1 is certainly automated, 99 certainly human. Took {:.1} s.", self.seconds)
    }
}

fn histogram(scored: &[(u8, f64)]) -> [u64; BARS] {
    let mut bars = [0; BARS];
    scored
        .iter()
        .for_each(|(score, _)| bars[(usize::from(*score).saturating_sub(1) / 10).min(BARS - 1)] += 1);
    bars
}

/// The median, the 99th and the 99.9th percentile; zeros of nothing.
fn percentiles(ns: &[u32]) -> [u32; 3] {
    let mut sorted = ns.to_vec();
    sorted.sort_unstable();
    [0.5, 0.99, 0.999].map(|q| {
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(0)
    })
}

fn time(ms: u64) -> String {
    jiff::Timestamp::from_millisecond(ms as i64).map_or_else(|_| ms.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(declared: &[f64], rest: &[f64]) -> Report {
        let scored = |p: &[f64]| p.iter().map(|&p| (50, p)).collect();
        Report { declared: scored(declared), rest: scored(rest), ..Report::default() }
    }

    #[test]
    fn auc_counts_pairs_in_order() {
        assert_eq!(with(&[0.9, 0.8], &[0.1, 0.2]).auc(), Some(1.0));
        assert_eq!(with(&[0.1], &[0.9]).auc(), Some(0.0));
        assert_eq!(with(&[0.5], &[0.5, 0.5]).auc(), Some(0.5));
        assert_eq!(with(&[0.9, 0.3], &[0.5, 0.1]).auc(), Some(0.75));
        assert_eq!(with(&[], &[0.5]).auc(), None);
    }

    #[test]
    fn percentiles_of_known_numbers() {
        let numbers: Vec<_> = (0..=1000).rev().collect();
        assert_eq!(percentiles(&numbers), [500, 990, 999]);
        assert_eq!(percentiles(&[7]), [7, 7, 7]);
        assert_eq!(percentiles(&[]), [0, 0, 0]);
    }

    #[test]
    fn every_score_has_a_bar() {
        let all: Vec<_> = (1..=99).map(|score| (score, 0.0)).collect();
        assert_eq!(histogram(&all), [10, 10, 10, 10, 10, 10, 10, 10, 10, 9]);
    }
}
