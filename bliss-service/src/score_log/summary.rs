//! Who got which scores: by client, agent and network.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::access_log::parse::Record;

/// A score below this is a robot's, as a policy would have it that was suggested with a model.
const BELOW: u8 = 30;
/// Lines of each table.
const LINES: usize = 10;
/// Bytes of an agent that are shown.
const SHOWN_BYTES: usize = 70;

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: u64,
    scored: u64,
    below: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, score: Option<u8>) {
        self.requests += 1;
        if let Some(score) = score {
            self.scored += 1;
            self.sum += u64::from(score);
            self.below += u64::from(score < BELOW);
        }
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.scored.max(1) as f64
    }
}

/// All requests, and each client's, agent's and network's.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    all: Tally,
    /// How many requests have a score of 10 N to 10 N + 9.
    tens: [u64; 10],
    clients: HashMap<String, Tally>,
    agents: HashMap<String, Tally>,
    networks: HashMap<String, Tally>,
}

impl Tallies {
    pub(super) fn add(&mut self, record: &Record<'_>, ip: &str, score: Option<u8>) {
        self.all.add(score);
        if let Some(tens) = score.and_then(|score| self.tens.get_mut(usize::from(score / 10))) {
            *tens += 1;
        }
        let agent = match record.user_agent.as_deref() {
            Some(agent) => shown(agent),
            None => "(no user agent)".to_owned(),
        };
        self.clients.entry(format!("{ip}  {agent}")).or_default().add(score);
        self.agents.entry(agent).or_default().add(score);
        self.networks.entry(network(record.ip)).or_default().add(score);
    }
}

fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// The start of a text that clients chose, without what a terminal would obey.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..SHOWN_BYTES).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl fmt::Display for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { requests, scored, below, .. } = self.all;
        let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
        writeln!(
            f,
            "{requests} requests of {} clients; {scored} have a score, {below} ({:.1} %) one below {BELOW}",
            self.clients.len(),
            share(below, scored)
        )?;
        writeln!(f, "\nscore     requests")?;
        for (ten, count) in self.tens.iter().enumerate() {
            let bar = "#".repeat((share(*count, scored) / 2.0).round() as usize);
            writeln!(f, "{:>2} to {:>2}  {count:>8}  {bar}", (10 * ten).max(1), 10 * ten + 9)?;
        }
        for (what, tallies) in
            [("clients", &self.clients), ("agents", &self.agents), ("networks", &self.networks)]
        {
            let mut worst: Vec<_> = tallies.iter().filter(|(_, tally)| tally.below > 0).collect();
            worst.sort_by(|(a, x), (b, y)| (y.below, a).cmp(&(x.below, b)));
            let (count, of) = (worst.len(), tallies.len());
            writeln!(f, "\n{count} of {of} {what} have requests below {BELOW}; those with most of them:")?;
            writeln!(f, "   below      of  mean score")?;
            for (name, tally) in worst.into_iter().take(LINES) {
                writeln!(f, "{:>8}{:>8}{:>12.1}  {name}", tally.below, tally.requests, tally.mean())?;
            }
        }
        Ok(())
    }
}
