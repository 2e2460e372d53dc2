//! Clients in line to be asked about: networks take turns, so that a flood of one delays no other.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ClientId;

/// So many clients of one network may wait in a line.
pub(super) const MOST_WAITING: usize = 16;

/// Who is likely to be one and the same: a /24 of IPv4, a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(id: ClientId) -> Self {
        Self(match id.ip {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & (u32::MAX << 8)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & (u128::MAX << 80)).into(),
        })
    }
}

/// A line. No client is in it twice, and nothing is left of those that were taken out.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When it is a network's turn, and its clients, the one that waits longest in front; at least one.
    networks: HashMap<Network, (u64, VecDeque<ClientId>)>,
    turns: BTreeSet<(u64, Network)>,
    last_turn: u64,
}

impl Line {
    /// Puts a client in line that is not; `false` if too many of its network are.
    pub(super) fn push(&mut self, id: ClientId) -> bool {
        let network = Network::of(id);
        match self.networks.get_mut(&network) {
            Some((_, waiting)) if waiting.len() >= MOST_WAITING => return false,
            Some((_, waiting)) => waiting.push_back(id),
            None => self.insert(network, [id].into()),
        }
        true
    }

    fn insert(&mut self, network: Network, waiting: VecDeque<ClientId>) {
        self.last_turn += 1;
        self.turns.insert((self.last_turn, network));
        self.networks.insert(network, (self.last_turn, waiting));
    }

    /// Takes the next client of the network whose turn it is, leaving out those that are busy.
    pub(super) fn pop(&mut self, is_busy: impl Fn(Network) -> bool) -> Option<ClientId> {
        let (turn, network) = self.turns.iter().copied().find(|(_, network)| !is_busy(*network))?;
        self.turns.remove(&(turn, network));
        let (_, mut waiting) = self.networks.remove(&network)?;
        let id = waiting.pop_front();
        if !waiting.is_empty() {
            self.insert(network, waiting);
        }
        id
    }

    /// Takes a client out of line, wherever it is.
    pub(super) fn remove(&mut self, id: ClientId) {
        let network = Network::of(id);
        let Some((turn, waiting)) = self.networks.get_mut(&network) else { return };
        waiting.retain(|other| *other != id);
        if waiting.is_empty() {
            self.turns.remove(&(*turn, network));
            self.networks.remove(&network);
        }
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<ClientId> {
        assert_eq!(self.turns.len(), self.networks.len());
        self.networks.values().flat_map(|(_, waiting)| waiting.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ip: &str) -> ClientId {
        ClientId { ip: ip.parse().unwrap(), crawler: 0 }
    }

    #[test]
    fn networks_take_turns_and_busy_ones_are_left_out() {
        let mut line = Line::default();
        let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8:1::1", "2001:db8:1:2::1", "192.0.3.1"];
        assert!(all.iter().all(|ip| line.push(id(ip))));
        let expected = ["192.0.2.1", "2001:db8:1::1", "192.0.3.1", "192.0.2.2", "2001:db8:1:2::1"];
        let found: Vec<_> = (0..5).map_while(|_| line.pop(|_| false)).collect();
        assert_eq!(found, expected.map(id));
        assert_eq!(line.pop(|network| network == Network::of(id("192.0.2.9"))), None);
        line.remove(id("192.0.2.3"));
        assert_eq!((line.pop(|_| false), line.ids()), (None, vec![]));
        for host in 0..MOST_WAITING {
            assert!(line.push(id(&format!("2001:db8::{host:x}"))));
        }
        assert!(!line.push(id("2001:db8:0:ffff::1")) && line.push(id("2001:db8:1::1")));
    }
}
