//! What is counted: the scores of groups where it is known who sent a request, else those of clients.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::traffic::Group;

/// Bars of a histogram: scores 1 to 10, 11 to 20, … 91 to 99.
pub(super) const BARS: usize = 10;
/// A score below this counts as low: what a site might block.
pub(super) const LOW: u8 = 30;

/// Who sent a request.
pub(super) enum Sender {
    /// Of made-up traffic: the group, and the address.
    Group(Group, IpAddr),
    /// Of a real log.
    Client(Client),
}

/// A client of a real log, as far as one can be told from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Client {
    pub(super) ip: IpAddr,
    pub(super) user_agent: Option<Vec<u8>>,
}

/// The scores of all requests, by who sent them.
#[derive(Debug)]
pub(super) enum Tally {
    Groups(Groups),
    Clients(HashMap<Client, Scores>),
}

impl Default for Tally {
    fn default() -> Self {
        Self::Clients(HashMap::new())
    }
}

impl Tally {
    /// Adds a request, and its score and probability of a bot if it has them.
    pub(super) fn add(&mut self, sender: Sender, scored: Option<(u8, f64)>) {
        match (self, sender) {
            (Self::Groups(groups), Sender::Group(group, ip)) => {
                let members = groups.0.entry(group).or_default();
                members.addresses.insert(ip);
                members.scores.add(scored.map(|(score, _)| score));
                members.probabilities.extend(scored.map(|(_, probability)| probability));
            }
            (Self::Clients(clients), Sender::Client(client)) => {
                clients.entry(client).or_default().add(scored.map(|(score, _)| score));
            }
            // A replay has labels or it has none.
            _ => {}
        }
    }

    /// The clients with the most requests, the largest first.
    pub(super) fn largest(clients: &HashMap<Client, Scores>, count: usize) -> Vec<(&Client, &Scores)> {
        let mut sorted: Vec<_> = clients.iter().collect();
        sorted.sort_by(|(a, of_a), (b, of_b)| of_b.requests.cmp(&of_a.requests).then(a.cmp(b)));
        sorted.truncate(count);
        sorted
    }
}

/// The scores of each group.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<Group, Members>);

/// The requests of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub(super) addresses: HashSet<IpAddr>,
    pub(super) scores: Scores,
    /// The probability of a bot of each scored request.
    probabilities: Vec<f64>,
}

impl Groups {
    /// Each group that sent something, people first.
    pub(super) fn each(&self) -> impl Iterator<Item = (Group, &Members)> {
        Group::ALL.into_iter().filter_map(|group| Some((group, self.0.get(&group)?)))
    }

    /// All that are not people.
    pub(super) fn bots(&self) -> Members {
        let mut all = Members::default();
        for (_, members) in self.each().filter(|(group, _)| *group != Group::People) {
            all.addresses.extend(&members.addresses);
            all.scores.requests += members.scores.requests;
            all.scores.scored.extend(&members.scores.scored);
            all.probabilities.extend(&members.probabilities);
        }
        all
    }

    /// The chance that a request of `bots` has a higher probability of a bot than one of people; equal ones count half.
    /// `None` where one of the two has no scored request.
    pub(super) fn auc(&self, bots: &Members) -> Option<f64> {
        auc(&bots.probabilities, &self.0.get(&Group::People)?.probabilities)
    }
}

/// The scores of some requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scores {
    pub(super) requests: u64,
    /// The score of each that has one.
    pub(super) scored: Vec<u8>,
}

impl Scores {
    fn add(&mut self, score: Option<u8>) {
        self.requests += 1;
        self.scored.extend(score);
    }

    /// The lower median; `None` of nothing.
    pub(super) fn median(&self) -> Option<u8> {
        let mut sorted = self.scored.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }

    /// The share of scores below [`LOW`]; `None` of nothing.
    pub(super) fn low_share(&self) -> Option<f64> {
        let low = self.scored.iter().filter(|score| **score < LOW).count();
        (!self.scored.is_empty()).then(|| low as f64 / self.scored.len() as f64)
    }

    pub(super) fn histogram(&self) -> [u64; BARS] {
        let mut bars = [0; BARS];
        for score in &self.scored {
            bars[(usize::from(*score).saturating_sub(1) / 10).min(BARS - 1)] += 1;
        }
        bars
    }
}

fn auc(bots: &[f64], people: &[f64]) -> Option<f64> {
    if bots.is_empty() || people.is_empty() {
        return None;
    }
    let label = |is_bot| move |probability: &f64| (*probability, is_bot);
    let mut all: Vec<_> = bots.iter().map(label(true)).chain(people.iter().map(label(false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum) = (0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let tied_bots = tied.iter().filter(|(_, is_bot)| *is_bot).count() as f64;
        let tied_people = tied.len() as f64 - tied_bots;
        sum += tied_bots * (below + tied_people / 2.0);
        below += tied_people;
    }
    Some(sum / (bots.len() as f64 * people.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs_in_order() {
        assert_eq!(auc(&[0.9, 0.8], &[0.1, 0.2]), Some(1.0));
        assert_eq!(auc(&[0.1], &[0.9]), Some(0.0));
        assert_eq!(auc(&[0.5], &[0.5, 0.5]), Some(0.5));
        assert_eq!(auc(&[0.9, 0.3], &[0.5, 0.1]), Some(0.75));
        assert_eq!(auc(&[], &[0.5]), None);
        assert_eq!(auc(&[0.5], &[]), None);
    }

    #[test]
    fn every_score_has_a_bar() {
        let all = Scores { requests: 99, scored: (1..=99).collect() };
        assert_eq!(all.histogram(), [10, 10, 10, 10, 10, 10, 10, 10, 10, 9]);
        assert_eq!((all.median(), all.low_share()), (Some(50), Some(29.0 / 99.0)));
        assert_eq!((Scores::default().median(), Scores::default().low_share()), (None, None));
        assert_eq!(Scores { requests: 2, scored: vec![31, 29] }.median(), Some(29));
    }

    #[test]
    fn groups_are_counted_apart() {
        let mut tally = Tally::Groups(Groups::default());
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        tally.add(Sender::Group(Group::People, ip(1)), Some((80, 0.2)));
        tally.add(Sender::Group(Group::People, ip(1)), Some((20, 0.8)));
        tally.add(Sender::Group(Group::Scrapers, ip(2)), Some((20, 0.8)));
        tally.add(Sender::Group(Group::Scanners, ip(3)), Some((1, 0.99)));
        tally.add(Sender::Group(Group::Scanners, ip(4)), None);
        let Tally::Groups(groups) = tally else { panic!("no groups") };
        let each: Vec<_> = groups
            .each()
            .map(|(group, members)| {
                let scores = &members.scores;
                let auc = (group != Group::People).then(|| groups.auc(members)).flatten();
                (group, members.addresses.len(), scores.requests, scores.median(), scores.low_share(), auc)
            })
            .collect();
        let expected = [
            (Group::People, 1, 2, Some(20), Some(0.5), None),
            (Group::Scrapers, 1, 1, Some(20), Some(1.0), Some(0.75)),
            (Group::Scanners, 2, 2, Some(1), Some(1.0), Some(1.0)),
        ];
        assert_eq!(each, expected);
        let bots = groups.bots();
        assert_eq!((bots.addresses.len(), bots.scores.requests, bots.scores.scored.len()), (3, 3, 2));
        assert_eq!(groups.auc(&bots), Some(0.875));
    }

    #[test]
    fn the_largest_clients_come_first() {
        let mut tally = Tally::default();
        let client = |last, agent: Option<&str>| Client {
            ip: [192, 0, 2, last].into(),
            user_agent: agent.map(|agent| agent.as_bytes().to_vec()),
        };
        for (last, agent, requests) in [(1, None, 1), (2, Some("a"), 3), (2, Some("b"), 2), (3, Some("a"), 2)]
        {
            for _ in 0..requests {
                tally.add(Sender::Client(client(last, agent)), Some((40, 0.5)));
            }
        }
        let Tally::Clients(clients) = tally else { panic!("no clients") };
        let largest: Vec<_> = Tally::largest(&clients, 3)
            .into_iter()
            .map(|(client, scores)| (client.clone(), scores.requests))
            .collect();
        let expected = [(client(2, Some("a")), 3), (client(2, Some("b")), 2), (client(3, Some("a")), 2)];
        assert_eq!(largest, expected);
    }
}
