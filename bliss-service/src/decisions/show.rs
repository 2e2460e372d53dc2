//! `blissctl decisions`: follows the log of decisions, or sums it up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use super::file::{FILE_NAME, read};
use super::{Decision, Input};
use crate::checkpoint::DEFAULT_DIRECTORY;
use crate::config::Config;
use crate::output;

/// Clients that are named in a summary.
const NAMED: usize = 20;
/// How often a file that is followed is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Options of `blissctl decisions`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Where the decisions are.
    #[command(flatten)]
    pub source: Source,
    /// Print decisions as they are made, until interrupted.
    #[arg(long)]
    pub follow: bool,
    /// Print each decision as JSON, in place of a summary.
    #[arg(long)]
    pub json: bool,
    /// Only the last so much time, for instance 2h.
    #[arg(long, value_name = "TIME", value_parser = humantime_serde::re::humantime::parse_duration)]
    pub since: Option<Duration>,
    /// Only this client.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<IpAddr>,
    /// Only this rule.
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,
    /// Only this action.
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
}

/// Where decisions are.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Source {
    /// The log of decisions; by default that of the configuration, or decisions.jsonl in /var/lib/bliss.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The daemon's configuration, which names the log.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub config: Option<PathBuf>,
}

impl Source {
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let Some(config) = &self.config else { return Ok(Path::new(DEFAULT_DIRECTORY).join(FILE_NAME)) };
        let config = Config::read(config)?;
        let kept = || Some(config.checkpoint.directory.as_ref()?.join(FILE_NAME));
        config.decisions.file.clone().or_else(kept).context(
            "decisions are not kept: the configuration names neither decisions.file nor checkpoint.directory",
        )
    }

    /// Calls `on` with each decision, the oldest first.
    pub(crate) fn each(&self, on: impl FnMut(Decision)) -> anyhow::Result<u64> {
        let path = self.path()?;
        read(&path, on).with_context(|| {
            format!(
                "{}: the log of decisions cannot be read; the daemon makes it with the first decision, and reading it takes the \
                 rights of its user",
                path.display()
            )
        })
    }
}

impl Options {
    fn is_meant(&self, decision: &Decision, now: Timestamp) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        let age = now.duration_since(decision.time);
        self.ip.is_none_or(|ip| ip.to_canonical() == decision.ip)
            && is(&self.rule, decision.rule.as_deref())
            && is(&self.action, Some(&decision.action))
            && self.since.is_none_or(|since| age.unsigned_abs() <= since || age.is_negative())
    }
}

/// Shows decisions.
///
/// # Errors
/// The log cannot be read, or nothing can be printed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if options.follow {
        return follow(options);
    }
    let now = Timestamp::now();
    let mut summary = Summary::default();
    let mut printed = Ok(());
    let unread = options.source.each(|decision| {
        if !options.is_meant(&decision, now) || printed.is_err() {
            return;
        }
        if options.json {
            printed = print(options, &decision);
        } else {
            summary.add(&decision);
        }
    })?;
    printed?;
    if unread > 0 {
        output::note(format_args!("{unread} lines of the log are no decisions and were left out\n"));
    }
    if options.json { Ok(()) } else { output::print(format_args!("{summary}")) }
}

fn print(options: &Options, decision: &Decision) -> anyhow::Result<()> {
    if options.json {
        return output::print(format_args!("{}\n", serde_json::to_string(decision)?));
    }
    output::print(format_args!("{}\n", line(decision)))
}

/// A decision in a line.
fn line(decision: &Decision) -> String {
    let Decision { time, ip, method, path, status, action, .. } = decision;
    let score = decision.score.map_or("-".to_owned(), |score| score.to_string());
    let rule = decision.rule.as_deref().unwrap_or("-");
    let strongest = decision.explanation.as_ref().and_then(|explanation| explanation.inputs.first());
    let because = strongest.map_or(String::new(), |Input { name, value, .. }| format!("  {name}={value}"));
    let id = decision.request_id.as_deref().map_or(String::new(), |id| format!("  {}", plain(id)));
    format!(
        "{time:.0}  {action:<9} {status}  score {score:>2}  {}  {ip}  {} {}{because}{id}",
        plain(rule),
        plain(method),
        plain(path)
    )
}

/// Text of a client, which must not move a terminal's cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn follow(options: &Options) -> anyhow::Result<()> {
    let path = options.source.path()?;
    let shown = || format!("{}: the log of decisions cannot be read", path.display());
    let mut open: Option<(BufReader<std::fs::File>, u64)> = None;
    let mut is_first = true;
    loop {
        if open.is_none() {
            match std::fs::File::open(&path) {
                Ok(mut file) => {
                    let inode = file.metadata().with_context(shown)?.ino();
                    if is_first {
                        file.seek(SeekFrom::End(0)).with_context(shown)?;
                    }
                    open = Some((BufReader::new(file), inode));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(shown),
            }
            is_first = false;
        }
        let mut is_replaced = false;
        if let Some((reader, inode)) = &mut open {
            // Asked before the rest is read, so that nothing of a renamed file is missed.
            is_replaced = std::fs::metadata(&path).map_or(true, |metadata| metadata.ino() != *inode);
            let mut text = Vec::new();
            while reader.read_until(b'\n', &mut text).with_context(shown)? > 0 {
                if let Ok(decision) = serde_json::from_slice::<Decision>(&text)
                    && options.is_meant(&decision, Timestamp::now())
                {
                    print(options, &decision)?;
                }
                text.clear();
            }
        }
        if is_replaced {
            open = None;
        } else {
            std::thread::sleep(POLL);
        }
    }
}

/// What decisions were made.
#[derive(Default)]
struct Summary {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    requests: u64,
    /// By rule and action.
    rules: BTreeMap<(String, String), Tally>,
    /// By simulated rule and action.
    simulated: BTreeMap<(String, String), Tally>,
    /// Requests that were not let through, and the last rule.
    clients: HashMap<IpAddr, (u64, String)>,
}

#[derive(Default)]
struct Tally {
    requests: u64,
    clients: HashSet<IpAddr>,
}

impl Tally {
    fn add(&mut self, ip: IpAddr) {
        self.requests += 1;
        self.clients.insert(ip);
    }
}

impl Summary {
    fn add(&mut self, decision: &Decision) {
        self.first = self.first.or(Some(decision.time));
        self.last = Some(decision.time);
        self.requests += 1;
        let rule = plain(decision.rule.as_deref().unwrap_or("-"));
        let key = (decision.action.clone(), rule.clone());
        self.rules.entry(key).or_default().add(decision.ip);
        if let Some(simulated) = &decision.simulated {
            let action = simulated.action.as_deref().unwrap_or("-");
            let key = (plain(action), plain(&simulated.rule));
            self.simulated.entry(key).or_default().add(decision.ip);
        }
        if decision.action != "allow" {
            let (requests, last) = self.clients.entry(decision.ip).or_default();
            *requests += 1;
            *last = rule;
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return f.write_str("no decisions\n");
        };
        writeln!(f, "{} decisions from {first:.0} to {last:.0}", self.requests)?;
        let mut table = |title: &str, rules: &BTreeMap<(String, String), Tally>| {
            if rules.is_empty() {
                return Ok(());
            }
            writeln!(f, "\n{title:<16} {:<32} {:>9} {:>9}", "rule", "requests", "clients")?;
            let mut rules: Vec<_> = rules.iter().collect();
            rules.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.requests));
            rules.iter().try_for_each(|((action, rule), Tally { requests, clients })| {
                writeln!(f, "{action:<16} {rule:<32} {requests:>9} {:>9}", clients.len())
            })
        };
        table("action", &self.rules)?;
        table("would have been", &self.simulated)?;
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_by_key(|(ip, (requests, _))| (std::cmp::Reverse(*requests), **ip));
        if !clients.is_empty() {
            let mut text = format!("\n{:<40} {:>9}  last rule\n", "client", "requests");
            for (ip, (requests, rule)) in clients.iter().take(NAMED) {
                writeln!(text, "{:<40} {requests:>9}  {rule}", ip.to_string())?;
            }
            f.write_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::decision;
    use super::super::{DecisionFile, Simulated};
    use super::*;

    #[test]
    fn a_summary_counts_rules_clients_and_what_is_on_trial() {
        let mut summary = Summary::default();
        for number in 0..5 {
            summary.add(&decision(number));
        }
        summary.add(&Decision {
            ip: "192.0.2.8".parse().unwrap(),
            action: "allow".into(),
            rule: Some("default".into()),
            simulated: Some(Simulated { rule: "trial".into(), action: None }),
            ..decision(9)
        });
        let text = summary.to_string();
        let found: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for line in [
            &["block", "robots", "5", "1"][..],
            &["allow", "default", "1", "1"],
            &["challenge", "trial", "5", "1"],
            &["192.0.2.7", "5", "robots"],
        ] {
            assert!(found.iter().any(|found| found == line), "{line:?} in\n{text}");
        }
        assert!(!text.contains("192.0.2.8"), "{text}");
        assert_eq!(Summary::default().to_string(), "no decisions\n");
    }

    #[test]
    fn decisions_are_chosen() {
        let now = decision(100).time;
        let is = |options: Options| options.is_meant(&decision(0), now);
        let text = |text: &str| Some(text.to_owned());
        assert!(is(Options::default()));
        assert!(is(Options { ip: Some("::ffff:192.0.2.7".parse().unwrap()), ..Options::default() }));
        assert!(!is(Options { ip: Some("192.0.2.8".parse().unwrap()), ..Options::default() }));
        assert!(is(Options { rule: text("robots"), action: text("block"), ..Options::default() }));
        assert!(!is(Options { rule: text("other"), ..Options::default() }));
        assert!(!is(Options { action: text("allow"), ..Options::default() }));
        let since = |seconds| Options { since: Some(Duration::from_secs(seconds)), ..Options::default() };
        assert!(is(since(101)) && !is(since(99)));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions.jsonl");
        let source = Source { file: Some(path.clone()), config: None };
        let options = Options { source, json: true, ..Options::default() };
        let error = format!("{:#}", run(&options).unwrap_err());
        assert!(error.contains("decisions.jsonl: the log of decisions cannot be read"), "{error}");
        DecisionFile::new(path, 1 << 20).append(&decision(1)).unwrap();
        run(&options).unwrap();
    }

    #[test]
    fn texts_of_clients_cannot_move_the_cursor() {
        let evil = Decision { path: "/\x1b[2J\n".into(), request_id: Some("a\rb".into()), ..decision(1) };
        assert!(!line(&evil).contains(char::is_control), "{}", line(&evil));
    }
}
