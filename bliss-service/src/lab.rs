//! `blissctl lab report`: what a model says of the actors of a traffic lab, whose clients are known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::access_log::parse::Record;
use crate::output;
use crate::score_log::Source;

/// A client is judged by what comes after so many of its requests.
const JUDGED_AFTER: usize = 5;

/// Looks into traffic whose clients are known.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LabCommand {
    /// Score a lab's log and print the scores by actor: of first requests, the median, and the share of low ones after a
    /// client's fifth request.
    Report(Options),
}

/// Options of `blissctl lab report`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What is scored.
    #[command(flatten)]
    pub source: Source,
    /// Who is who: CSV with the columns ip, user_agent (`*`: each that has no row of its own), actor, kind, is_robot (0 or 1)
    /// and claims_browser (0 or 1).
    #[arg(long, value_name = "FILE")]
    pub actors: PathBuf,
    /// Scores below this count as a robot's.
    #[arg(long, value_name = "SCORE", default_value_t = 30)]
    pub below: u8,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, serde::Deserialize)]
struct Actor {
    ip: String,
    user_agent: String,
    actor: String,
    kind: String,
    is_robot: u8,
    claims_browser: u8,
}

/// The actors, and whose an address and agent are.
#[derive(Debug, Default)]
struct Actors {
    /// By name, each once, in the order of the file.
    all: Vec<Actor>,
    owners: HashMap<(String, String), usize>,
    /// Addresses behind which an agent has a row of its own.
    shared: HashSet<String>,
}

impl Actors {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let mut places = HashMap::new();
        let mut file = csv::Reader::from_path(path)?;
        for row in file.deserialize() {
            let row: Actor = row.context(
                "expected the columns ip, user_agent, actor, kind, is_robot and claims_browser, the last two 0 or 1",
            )?;
            if row.user_agent != "*" {
                found.shared.insert(row.ip.clone());
            }
            let at = *places.entry(row.actor.clone()).or_insert(found.all.len());
            found.owners.entry((row.ip.clone(), row.user_agent.clone())).or_insert(at);
            if at == found.all.len() {
                found.all.push(row);
            }
        }
        anyhow::ensure!(!found.all.is_empty(), "there is no actor in it");
        Ok(found)
    }

    /// The place of the request's actor, and its client: the address, and the agent where several share it.
    fn of(&self, record: &Record<'_>) -> Option<(usize, (String, String))> {
        let ip = record.ip.to_string();
        let agent = if self.shared.contains(&ip) {
            String::from_utf8_lossy(record.user_agent.as_deref().unwrap_or_default()).into_owned()
        } else {
            "*".to_owned()
        };
        let client = (ip, agent);
        let owner = self.owners.get(&client).or_else(|| self.owners.get(&(client.0.clone(), "*".to_owned())));
        owner.map(|at| (*at, client))
    }
}

/// What is told of some clients, each with its scores in their order.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
struct Row {
    actor: String,
    kind: String,
    clients: usize,
    requests: usize,
    /// Median score of first requests.
    first: f64,
    /// Shares of requests with a low score: of first ones, all, and those after a client's fifth (`None`: nobody has so many).
    first_below: f64,
    median: f64,
    below: f64,
    after_five_below: Option<f64>,
}

impl Row {
    fn of(actor: &str, kind: &str, clients: &[&[u8]], below: u8) -> Option<Self> {
        let first: Vec<u8> = clients.iter().filter_map(|scores| scores.first().copied()).collect();
        let all: Vec<u8> = clients.iter().flat_map(|scores| scores.iter().copied()).collect();
        let after: Vec<u8> =
            clients.iter().flat_map(|scores| scores.iter().skip(JUDGED_AFTER).copied()).collect();
        let share = |scores: &[u8]| {
            let low = scores.iter().filter(|score| **score < below).count();
            (!scores.is_empty()).then(|| low as f64 / scores.len() as f64)
        };
        Some(Self {
            actor: actor.to_owned(),
            kind: kind.to_owned(),
            clients: clients.len(),
            requests: all.len(),
            first: median(&first)?,
            first_below: share(&first)?,
            median: median(&all)?,
            below: share(&all)?,
            after_five_below: share(&after),
        })
    }
}

fn median(scores: &[u8]) -> Option<f64> {
    let mut scores = scores.to_vec();
    scores.sort_unstable();
    let upper = f64::from(*scores.get(scores.len() / 2)?);
    let lower = f64::from(*scores.get(scores.len().checked_sub(1)? / 2)?);
    Some((lower + upper) / 2.0)
}

/// The whole report.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    rows: Vec<Row>,
    /// Lines of nobody in the list, and lines without a score.
    unknown: u64,
    unscored: u64,
    below: u8,
}

/// Prints the report.
///
/// # Errors
/// The log, the model or the list of actors cannot be read, or no line of the log is an actor's.
pub fn run(command: &LabCommand) -> anyhow::Result<()> {
    let LabCommand::Report(options) = command;
    let report = report(options)?;
    if options.json {
        return output::print(format_args!("{}\n", serde_json::to_string(&report)?));
    }
    output::print(format_args!("{report}"))
}

fn report(options: &Options) -> anyhow::Result<Report> {
    let path = options.actors.display();
    let actors = Actors::read(&options.actors).with_context(|| format!("--actors {path}"))?;
    let mut found = Report { below: options.below, ..Report::default() };
    let mut clients: Vec<BTreeMap<(String, String), Vec<u8>>> = vec![BTreeMap::new(); actors.all.len()];
    options.source.each(|seen, outcome| {
        match (actors.of(seen.record), outcome) {
            (None, _) => found.unknown += 1,
            (Some(_), Err(_)) => found.unscored += 1,
            (Some((at, client)), Ok(scored)) => {
                if let Some(clients) = clients.get_mut(at) {
                    clients.entry(client).or_default().push(scored.score);
                }
            }
        }
        Ok(())
    })?;
    let of = |chosen: &dyn Fn(&Actor) -> bool| -> Vec<&[u8]> {
        let pairs = actors.all.iter().zip(&clients).filter(|(actor, _)| chosen(actor));
        pairs.flat_map(|(_, clients)| clients.values().map(Vec::as_slice)).collect()
    };
    for actor in &actors.all {
        found.rows.extend(Row::of(
            &actor.actor,
            &actor.kind,
            &of(&|other| other.actor == actor.actor),
            options.below,
        ));
    }
    anyhow::ensure!(!found.rows.is_empty(), "--actors {path}: no scored line of the log is of one of them");
    let mut group = |name: &str, chosen: &dyn Fn(&Actor) -> bool| {
        found.rows.extend(Row::of(name, "", &of(chosen), options.below));
    };
    group("people", &|actor| actor.is_robot == 0);
    group("robots", &|actor| actor.is_robot != 0);
    group("robots that claim a browser", &|actor| actor.is_robot != 0 && actor.claims_browser != 0);
    let mut told = HashSet::new();
    for Actor { kind, .. } in actors.all.iter().filter(|actor| told.insert(&actor.kind)) {
        group(&format!("kind: {kind}"), &|actor| actor.kind == *kind);
    }
    Ok(found)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        let low = format!("<{}", self.below);
        let (first_low, all_low, after_low) =
            (format!("first {low}"), format!("all {low}"), format!("after 5 {low}"));
        writeln!(
            f,
            "{:32} {:14} {:>7} {:>8} {:>6} {first_low:>9} {:>6} {all_low:>7} {after_low:>11}",
            "actor", "kind", "clients", "requests", "first", "median"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:32} {:14} {:>7} {:>8} {:>6.0} {:>9} {:>6.0} {:>7} {:>11}",
                row.actor,
                row.kind,
                row.clients,
                row.requests,
                row.first,
                percent(Some(row.first_below)),
                row.median,
                percent(Some(row.below)),
                percent(row.after_five_below),
            )?;
        }
        if self.unknown + self.unscored > 0 {
            writeln!(
                f,
                "{} lines of nobody in the list of actors, {} without a score",
                self.unknown, self.unscored
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_tool::BotArgs;

    #[test]
    fn clients_are_told_apart_by_agent_where_they_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let actors = dir.path().join("actors.csv");
        std::fs::write(
            &actors,
            "ip,user_agent,actor,kind,is_robot,claims_browser,notes\n\
             192.0.2.1,*,p,person,0,1,x\n192.0.2.2,*,r,scanner,1,0,\n192.0.2.3,a,p,person,0,1,\n192.0.2.3,b,r,scanner,1,0,\n",
        )
        .unwrap();
        let line = |ip: &str, agent: &str| {
            format!("{ip} - - [17/May/2015:10:05:01 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"{agent}\"\n")
        };
        let log = dir.path().join("log");
        let lines = [
            line("192.0.2.1", "x"),
            line("192.0.2.2", "curl/8").repeat(9),
            line("192.0.2.3", "a") + &line("192.0.2.3", "b"),
            line("192.0.2.3", "c") + &line("192.0.2.9", "x"),
        ];
        std::fs::write(&log, lines.concat()).unwrap();
        let source =
            Source { log: vec![log], model: None, config: None, list: Vec::new(), bot: BotArgs::default() };
        let options = Options { source, actors: actors.clone(), below: 30, json: true };
        let report = super::report(&options).unwrap();
        let of = |name: &str| report.rows.iter().find(|row| row.actor == name).unwrap();
        assert_eq!((of("p").clients, of("p").requests, of("p").after_five_below), (2, 2, None));
        assert_eq!((of("r").clients, of("r").requests), (2, 10));
        assert_eq!(of("r").after_five_below, Some(1.0), "a program that says so");
        assert_eq!((of("people").requests, of("robots").requests, report.unknown), (2, 10, 2));
        assert_eq!(of("kind: scanner").requests, 10);
        let text = report.to_string();
        assert!(text.contains("after 5 <30") && text.contains("2 lines of nobody"), "{text}");

        std::fs::write(&actors, "ip,actor\n1,2\n").unwrap();
        let error = format!("{:#}", super::report(&options).unwrap_err());
        assert!(
            error.contains("--actors ") && error.contains("expected the columns ip, user_agent"),
            "{error}"
        );
    }

    #[test]
    fn medians_and_shares() {
        let row = Row::of("x", "y", &[&[50, 50, 50, 50, 50, 10, 10, 10, 60], &[20]], 30).unwrap();
        assert_eq!(
            (row.first, row.first_below, row.median, row.after_five_below),
            (35.0, 0.5, 50.0, Some(0.75))
        );
        assert_eq!(Row::of("x", "y", &[], 30), None);
    }
}
