//! What the figures should be, and how a run stands against that.

use crate::report::Row;

/// How a figure of ours should stand to another.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// The other at least so many times ours.
    Faster(f64),
    /// Ours at most so many times the other.
    Within(f64),
    /// Ours at most so much.
    AtMost(f64),
}

/// One goal. An empty `peer` is a figure of ours alone.
#[derive(Clone, Copy, Debug)]
struct Goal {
    bench: &'static str,
    ours: &'static str,
    figure: &'static str,
    target: Target,
    /// Benchmark and subject that ours is compared with.
    peer: (&'static str, &'static str),
}

const fn goal(
    bench: &'static str,
    ours: &'static str,
    figure: &'static str,
    target: Target,
    peer: (&'static str, &'static str),
) -> Goal {
    Goal { bench, ours, figure, target, peer }
}

use Target::{AtMost, Faster, Within};
const CRATE: &str = "mmap-sync 2.0.4";
const CATBOOST: &str = "CatBoost C API";

/// All goals, in the order in which they are shown.
const GOALS: &[Goal] = &[
    goal("lookup", "bliss", "p50_ns", Faster(8.0), ("lookup", CRATE)),
    goal("lookup", "bliss", "p99_ns", Faster(10.0), ("lookup", CRATE)),
    goal("lookup", "bliss", "p999_ns", Faster(20.0), ("lookup", CRATE)),
    goal("lookup", "bliss", "p50_ns", Within(1.3), ("lookup", "floor (own mapping)")),
    goal("lookup", "bliss", "p50_ns", Within(1.4), ("lookup", "floor")),
    goal("lookup", "bliss", "p50_ns", Faster(20.0), ("lookup", "lmdb")),
    goal("lookup", "bliss", "p50_ns", Faster(50.0), ("lookup", "memcached")),
    goal("lookup", "bliss", "p50_ns", Faster(80.0), ("lookup", "redis")),
    goal("lookup_publishing", "bliss", "p99_ns", Within(1.5), ("lookup", "bliss")),
    goal("prefixes_v4", "bliss", "p50_ns", AtMost(60.0), ("", "")),
    goal("prefixes_build", "bliss", "ns_per_prefix", AtMost(500.0), ("", "")),
    goal("decide", "half and half", "cost_ns", AtMost(100.0), ("", "")),
    goal("publish_all", "bliss", "seconds", Faster(6.0), ("publish_all", CRATE)),
    goal("publish_1pct", "bliss", "seconds", Faster(100.0), ("publish_1pct", CRATE)),
    goal("publish_one", "bliss", "seconds", AtMost(0.001), ("", "")),
    goal("pin_1_reader", "bliss", "p50_ns", Faster(2.0), ("pin_1_reader", CRATE)),
    goal("pin_2_readers", "bliss", "p50_ns", Within(1.2), ("pin_1_reader", "bliss")),
    goal("write_small", "bliss", "p50_ns", Within(1.0), ("write_small", CRATE)),
    goal("write_1mb", "bliss", "seconds", Faster(3.0), ("write_1mb", CRATE)),
    goal("write_100mb", "bliss", "seconds", Faster(3.0), ("write_100mb", CRATE)),
    goal("write_1gb", "bliss", "seconds", Faster(3.0), ("write_1gb", CRATE)),
    goal(
        "update_1pct_contiguous_1gb",
        "bliss",
        "seconds",
        Faster(50.0),
        ("update_1pct_contiguous_1gb", CRATE),
    ),
    goal("update_1pct_scattered_1gb", "bliss", "seconds", Faster(50.0), ("update_1pct_scattered_1gb", CRATE)),
    goal("score_bench_200x500", "bliss avx2", "p50_ns", Faster(4.5), ("score_bench_200x500", CATBOOST)),
    goal("score_bench_200x500", "bliss avx512", "p50_ns", Faster(6.0), ("score_bench_200x500", CATBOOST)),
    goal("score_trained_250x1000", "bliss avx2", "p50_ns", Faster(4.5), ("score_trained_250x1000", CATBOOST)),
    goal(
        "score_trained_250x1000",
        "bliss avx512",
        "p50_ns",
        Faster(6.0),
        ("score_trained_250x1000", CATBOOST),
    ),
    goal(
        "score_5x_bench_200x500",
        "bliss avx512",
        "p50_ns",
        Within(4.0),
        ("score_bench_200x500", "bliss avx512"),
    ),
    goal("score_bench_200x500", "bliss portable", "p50_ns", Faster(1.0), ("score_bench_200x500", CATBOOST)),
];

/// How a run stands against one goal.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Name of the benchmark.
    pub bench: String,
    /// Who of ours.
    pub ours: String,
    /// Compared with whom, and in which benchmark where it is another; empty where the goal is a figure alone.
    pub peer: String,
    /// Name of the figure.
    pub figure: String,
    /// Its value for ours.
    pub our_value: f64,
    /// And for the other.
    pub peer_value: Option<f64>,
    /// How many times the other is ours, or ours the other where ours is to be within.
    pub ratio: f64,
    /// What the ratio, or the value, should be, in words.
    pub goal: String,
    /// Whether it is.
    pub holds: bool,
}

/// All goals for which the rows have both figures.
pub fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    GOALS.iter().filter_map(|goal| goal.verdict(rows)).collect()
}

impl Goal {
    fn verdict(&self, rows: &[Row]) -> Option<Verdict> {
        let value = |bench: &str, subject: &str| {
            rows.iter().find(|row| row.bench == bench && row.subject == subject)?.number(self.figure)
        };
        let our_value = value(self.bench, self.ours)?;
        let peer_value = value(self.peer.0, self.peer.1);
        let (ratio, goal, holds) = match self.target {
            Faster(times) => {
                let ratio = peer_value? / our_value;
                (ratio, format!("{times}x faster"), ratio >= times)
            }
            Within(times) => {
                let ratio = our_value / peer_value?;
                (ratio, format!("within {times}x"), ratio <= times)
            }
            AtMost(limit) => (our_value / limit, format!("at most {limit}"), our_value <= limit),
        };
        let peer = match self.peer {
            (bench, subject) if bench == self.bench => subject.to_owned(),
            ("", _) => String::new(),
            (bench, subject) => format!("{subject} in {bench}"),
        };
        Some(Verdict {
            bench: self.bench.into(),
            ours: self.ours.into(),
            peer,
            figure: self.figure.into(),
            our_value,
            peer_value,
            ratio: (ratio * 1000.0).round() / 1000.0,
            goal,
            holds,
        })
    }
}

impl Verdict {
    /// `holds` or `short`.
    pub fn word(&self) -> &'static str {
        if self.holds { "holds" } else { "short" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_holds_or_falls_short() {
        let row = |bench, subject, p50: f64| Row::new(bench, subject).with("p50_ns", p50);
        let rows = [
            row("lookup", "bliss", 600.0),
            row("lookup", "floor (own mapping)", 400.0),
            row("lookup", CRATE, 6000.0),
            Row::new("publish_one", "bliss").with("seconds", 0.0001),
        ];
        let found = verdicts(&rows);
        let shown: Vec<_> =
            found.iter().map(|v| (v.peer.as_str(), v.ratio, v.goal.as_str(), v.word())).collect();
        assert_eq!(
            shown,
            [
                (CRATE, 10.0, "8x faster", "holds"),
                ("floor (own mapping)", 1.5, "within 1.3x", "short"),
                ("", 0.1, "at most 0.001", "holds"),
            ]
        );
    }
}
