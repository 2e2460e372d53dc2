//! What the demonstration found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use super::tally::{BARS, Client, Groups, LOW, Members, Scores, Tally};
use super::traffic::Group;
use crate::export::text::escape;

/// How many clients of a real log are shown.
const CLIENTS: usize = 20;
/// How much of a user agent is shown.
const USER_AGENT_CHARACTERS: usize = 60;
const CAUTION: &str = "The default model was trained on eight sites and a traffic lab; models/default.md says what it gives on sites \
     that it did not see. Look at who scores low on yours before it blocks anybody: docs/first-model.md.";

/// The results of all requests of a log.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) log: String,
    pub(super) model: String,
    pub(super) is_built_in_model: bool,
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
    pub(super) tally: Tally,
    pub(super) fetch_ns: Vec<u32>,
    pub(super) score_ns: Vec<u32>,
    pub(super) seconds: f64,
}

impl Report {
    pub(super) fn json(&self) -> serde_json::Value {
        let percentiles = |ns: &[u32]| {
            let [p50, p99, p999] = percentiles(ns);
            json!({ "p50": p50, "p99": p99, "p999": p999 })
        };
        let mut report = json!({
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
            "fetch_ns": percentiles(&self.fetch_ns),
            "score_ns": percentiles(&self.score_ns),
            "seconds": self.seconds,
        });
        match &self.tally {
            Tally::Groups(groups) => {
                let bots = groups.bots();
                report["auc"] = json!(groups.auc(&bots));
                report["histogram"] =
                    histograms(groups).map(|(name, bars)| (name.to_owned(), json!(bars))).collect();
                report["groups"] =
                    groups.each().map(|(group, members)| group_json(groups, group, members)).collect();
            }
            Tally::Clients(clients) => {
                report["histogram"] = json!({ "all": all(clients.values()).histogram() });
                report["clients"] = Tally::largest(clients, CLIENTS)
                    .into_iter()
                    .map(|(Client { ip, user_agent }, scores)| {
                        let mut client = scores_json(scores);
                        client["ip"] = json!(ip);
                        client["user_agent"] = json!(user_agent.as_deref().map(text));
                        client
                    })
                    .collect();
            }
        }
        report
    }
}

fn group_json(groups: &Groups, group: Group, members: &Members) -> serde_json::Value {
    let mut found = scores_json(&members.scores);
    found["group"] = json!(group.name());
    found["addresses"] = json!(members.addresses.len());
    if group != Group::People {
        found["auc"] = json!(groups.auc(members));
    }
    found
}

fn scores_json(scores: &Scores) -> serde_json::Value {
    json!({
        "requests": scores.requests,
        "scored": scores.scored.len(),
        "median_score": scores.median(),
        "share_below_30": scores.low_share(),
    })
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
        for (name, ns) in [("fetch", &self.fetch_ns), ("score (with its fetch)", &self.score_ns)] {
            let [p50, p99, p999] = percentiles(ns);
            row(f, &format!("{name}, p50 / p99 / p99.9"), &format_args!("{p50} / {p99} / {p999} ns"))?;
        }
        match &self.tally {
            Tally::Groups(groups) => show_groups(f, groups)?,
            Tally::Clients(clients) => {
                writeln!(
                    f,
                    "\n  The largest clients. Nobody has labelled this log: whether a score is right is yours to judge.\n"
                )?;
                let below = format!("below {LOW}");
                writeln!(
                    f,
                    "  {:<39} {:>8} {:>12} {below:>8}  user agent",
                    "address", "requests", "median score"
                )?;
                for (Client { ip, user_agent }, scores) in Tally::largest(clients, CLIENTS) {
                    let agent =
                        user_agent.as_deref().map_or_else(|| "-".to_owned(), |agent| cut(text(agent)));
                    let (median, low) = (shown(scores.median()), percent(scores.low_share()));
                    writeln!(
                        f,
                        "  {:<39} {:>8} {median:>12} {low:>8}  {agent}",
                        ip.to_string(),
                        scores.requests
                    )?;
                }
                show_histograms(f, &[("all requests", all(clients.values()).histogram())])?;
            }
        }
        writeln!(f, "\n  1 is certainly automated, 99 certainly human. Took {:.1} s.", self.seconds)?;
        if self.is_built_in_model { writeln!(f, "  {CAUTION}") } else { Ok(()) }
    }
}

fn show_groups(f: &mut fmt::Formatter<'_>, groups: &Groups) -> fmt::Result {
    writeln!(
        f,
        "\n  Who sent what is known, since the traffic is made up. AUC: the chance that a request of the group looks more"
    )?;
    writeln!(f, "  like a bot than one of people; 0.5 is a guess.\n")?;
    let below = format!("below {LOW}");
    writeln!(
        f,
        "  {:<20} {:>8} {:>9} {:>12} {below:>8} {:>6}",
        "group", "requests", "addresses", "median score", "AUC"
    )?;
    let line = |f: &mut fmt::Formatter<'_>, name: &str, members: &Members, auc: Option<f64>| {
        let scores = &members.scores;
        let (median, low) = (shown(scores.median()), percent(scores.low_share()));
        let auc = auc.map_or_else(String::new, |auc| format!("{auc:.4}"));
        let row = format!(
            "  {name:<20} {:>8} {:>9} {median:>12} {low:>8} {auc:>6}",
            scores.requests,
            members.addresses.len()
        );
        writeln!(f, "{}", row.trim_end())
    };
    for (group, members) in groups.each() {
        let auc = if group == Group::People { None } else { groups.auc(members) };
        line(f, group.name(), members, auc)?;
    }
    let bots = groups.bots();
    line(f, "all but people", &bots, groups.auc(&bots))?;
    show_histograms(f, &histograms(groups).collect::<Vec<_>>())
}

/// The histograms of people and of all others.
fn histograms(groups: &Groups) -> impl Iterator<Item = (&'static str, [u64; BARS])> {
    let people = groups.each().find(|(group, _)| *group == Group::People);
    let people = people.map(|(_, members)| members.scores.histogram()).unwrap_or_default();
    [("people", people), ("bots", groups.bots().scores.histogram())].into_iter()
}

fn show_histograms(f: &mut fmt::Formatter<'_>, columns: &[(&str, [u64; BARS])]) -> fmt::Result {
    let names: String = columns.iter().map(|(name, _)| format!(" {name:<28}")).collect();
    writeln!(f, "\n  score   {}", names.trim_end())?;
    for bar in 0..BARS {
        let (low, high) = (bar * 10 + 1, (bar * 10 + 10).min(99));
        let cell = |(_, bars): &(&str, [u64; BARS])| {
            let total = bars.iter().sum::<u64>().max(1);
            let width = (bars[bar] * 20).div_ceil(total) as usize;
            format!(" {:>7} {:<20}", bars[bar], "█".repeat(width))
        };
        let cells: String = columns.iter().map(cell).collect();
        writeln!(f, "  {low:>2} to {high:<2}{}", cells.trim_end())?;
    }
    Ok(())
}

fn all<'a>(scores: impl Iterator<Item = &'a Scores>) -> Scores {
    scores.fold(Scores::default(), |mut all, some| {
        all.requests += some.requests;
        all.scored.extend(&some.scored);
        all
    })
}

/// What a client sent, safe for a terminal.
fn text(value: &[u8]) -> String {
    let mut text = String::new();
    escape(value, &mut text);
    text
}

fn cut(text: String) -> String {
    match text.char_indices().nth(USER_AGENT_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
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
    use super::super::tally::Sender;
    use super::*;

    #[test]
    fn percentiles_of_known_numbers() {
        let numbers: Vec<_> = (0..=1000).rev().collect();
        assert_eq!(percentiles(&numbers), [500, 990, 999]);
        assert_eq!(percentiles(&[7]), [7, 7, 7]);
        assert_eq!(percentiles(&[]), [0, 0, 0]);
    }

    #[test]
    fn labelled_traffic_shows_groups_and_how_well_they_are_told_apart() {
        let mut report =
            Report { tally: Tally::Groups(Groups::default()), is_built_in_model: true, ..Report::default() };
        let ip = [192, 0, 2, 1].into();
        report.tally.add(Sender::Group(Group::People, ip), Some((70, 0.3)));
        report.tally.add(Sender::Group(Group::Scanners, ip), Some((20, 0.8)));
        let text = report.to_string();
        for line in [
            "  people                      1         1           70      0 %",
            "  scanners                    1         1           20    100 % 1.0000",
            "  all but people              1         1           20    100 % 1.0000",
            "  61 to 70       1 ████████████████████       0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("before it blocks anybody") && !text.contains("largest clients"), "{text}");
        let json = report.json();
        assert_eq!(json["auc"], 1.0);
        assert_eq!(json["groups"][0]["group"], "people");
        assert_eq!(json["groups"][0].get("auc"), None);
        assert_eq!(json["groups"][1]["share_below_30"], 1.0);
        assert_eq!(json["histogram"]["people"], json!([0, 0, 0, 0, 0, 0, 1, 0, 0, 0]));
        assert_eq!(json.get("clients"), None);
    }

    #[test]
    fn a_log_without_labels_shows_clients_and_no_auc() {
        let mut report = Report::default();
        let client = |agent: Option<&[u8]>| {
            Sender::Client(Client { ip: [192, 0, 2, 1].into(), user_agent: agent.map(<[u8]>::to_vec) })
        };
        report.tally.add(client(Some(b"evil\x1b[2J\xff")), Some((70, 0.3)));
        report.tally.add(client(Some(b"evil\x1b[2J\xff")), None);
        report.tally.add(client(None), None);
        let text = report.to_string();
        for line in [
            r"  192.0.2.1                                      2           70      0 %  evil\x1B[2J\xFF",
            "  192.0.2.1                                      1            -        -  -",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("AUC") && !text.contains("must not block"), "{text}");
        let json = report.json();
        assert!(json.get("auc").is_none() && json.get("groups").is_none(), "{json}");
        assert_eq!(json["clients"][0]["user_agent"], r"evil\x1B[2J\xFF");
        assert_eq!((&json["clients"][0]["requests"], &json["clients"][0]["scored"]), (&json!(2), &json!(1)));
        assert_eq!(
            (&json["clients"][1]["median_score"], &json["clients"][1]["user_agent"]),
            (&json!(null), &json!(null))
        );
    }

    #[test]
    fn long_user_agents_are_cut() {
        assert_eq!(cut("x".repeat(60)), "x".repeat(60));
        assert_eq!(cut("é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
