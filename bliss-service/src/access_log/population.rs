//! What is known of all clients of the site together: how many addresses there are, and which browsers' versions are in use.

use std::collections::{BTreeMap, HashMap};

use bliss_core::http::Engine;

use super::saved;
use super::windows::{DistinctWanted, Hit, Ring, WEEK, WINDOWS};
use crate::checkpoint::bounded;
use serde::{Deserialize, Serialize};

/// A version is in use once as many networks have it or a newer one.
const FEWEST_NETWORKS: usize = 3;
/// And one in so many networks with the same engine, so that a few cannot make everybody's browser look old.
const NETWORKS_PART: usize = 50;
/// Networks that are known for an engine.
const MOST_NETWORKS: usize = 65_536;
/// So long a network is known after its last request.
const KNOWN_MS: u64 = WINDOWS[WEEK].seconds as u64 * 1000;
/// The newest versions are worked out once in so long.
const RENEWED_MS: u64 = 600_000;

const WANTED: DistinctWanted = DistinctWanted { ips: true, user_agents: false, paths: false };

/// Addresses and browsers of a week.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Population {
    ips: Ring,
    engines: [EngineVersions; Engine::COUNT],
    renewed: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct EngineVersions {
    /// Of each network the newest version that was seen in it, and when the network was seen last.
    #[serde(serialize_with = "bounded::pairs", deserialize_with = "bounded::map::<_, _, _, MOST_NETWORKS>")]
    networks: HashMap<u64, (u32, u64)>,
    newest: Option<u32>,
}

impl Population {
    /// Whether it could have come about: what was read back may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        let mut times = self.engines.iter().flat_map(|engine| engine.networks.values());
        self.ips.is_sound() && times.all(|(_, last_ms)| *last_ms <= saved::MOST_MS)
    }

    pub(crate) fn add(&mut self, hit: &Hit, at_ms: u64) {
        self.ips.add(&WINDOWS[WEEK], WANTED, hit, at_ms);
        let Some((engine, version)) = hit.browser else { return };
        let networks = &mut self.engines[engine as usize].networks;
        if networks.len() < MOST_NETWORKS || networks.contains_key(&hit.network) {
            let (newest, last_ms) = networks.entry(hit.network).or_default();
            (*newest, *last_ms) = (version.max(*newest), hit.time_ms.max(*last_ms));
        }
    }

    /// Works out what is known at publication `at_ms`, once requests were added for it.
    pub(crate) fn renew(&mut self, at_ms: u64) {
        self.ips.expire(&WINDOWS[WEEK], at_ms);
        let period = at_ms / RENEWED_MS;
        if self.renewed == Some(period) {
            return;
        }
        self.renewed = Some(period);
        for engine in &mut self.engines {
            engine.renew(at_ms);
        }
    }

    /// How many addresses asked within a week.
    pub(crate) fn ips(&mut self) -> usize {
        self.ips.totals(WANTED).ips
    }

    /// How many versions a browser is behind the newest in use; `None` where none is known to be.
    pub(crate) fn staleness(&self, (engine, version): (Engine, u32)) -> Option<f32> {
        let newest = self.engines[engine as usize].newest?;
        Some(newest as f32 - version as f32)
    }
}

impl EngineVersions {
    fn renew(&mut self, at_ms: u64) {
        self.networks.retain(|_, (_, last_ms)| last_ms.saturating_add(KNOWN_MS) >= at_ms);
        let mut versions = BTreeMap::<u32, usize>::new();
        for (version, _) in self.networks.values() {
            *versions.entry(*version).or_default() += 1;
        }
        let enough = (self.networks.len() / NETWORKS_PART).max(FEWEST_NETWORKS);
        let mut networks = 0;
        self.newest = versions.into_iter().rev().find_map(|(version, of_version)| {
            networks += of_version;
            (networks >= enough).then_some(version)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::distinct::ValueHash;
    use super::*;

    const START: u64 = 1_431_857_100_000;
    const DAY: u64 = 24 * 3_600_000;

    fn add(population: &mut Population, time_ms: u64, network: u64, version: u32) {
        let network = ValueHash::fixed().hash(&network.to_le_bytes());
        let browser = Some((Engine::Chromium, version));
        population.add(&Hit { time_ms, ip: network / 2, network, browser, ..Hit::default() }, time_ms + 1);
    }

    #[test]
    fn a_version_is_in_use_once_three_networks_have_it() {
        let mut population = Population::default();
        let mut staleness = |networks: &[(u64, u32)], at: u64| {
            networks
                .iter()
                .for_each(|(network, version)| add(&mut population, START + at, *network, *version));
            population.renew(START + at + 1);
            population.staleness((Engine::Chromium, 100))
        };
        assert_eq!(staleness(&[(1, 120), (2, 120), (1, 130)], 0), None);
        assert_eq!(staleness(&[(3, 120)], 1), None, "worked out every ten minutes");
        assert_eq!(staleness(&[(3, 120)], RENEWED_MS), Some(20.0));
        assert_eq!(staleness(&[(4, 130), (5, 131)], 2 * RENEWED_MS), Some(30.0), "it or a newer one");
        assert_eq!(staleness(&[], 9 * DAY), None, "a week later nobody is known");
    }

    #[test]
    fn few_networks_cannot_make_everybody_old() {
        let mut population = Population::default();
        (0..400).for_each(|network| add(&mut population, START, network, 120));
        (0..7).for_each(|network| add(&mut population, START, network, 999));
        (0..400).for_each(|version| add(&mut population, START, 1, 1000 + version));
        population.renew(START + 1);
        let staleness = population.staleness((Engine::Chromium, 120)).unwrap();
        assert_eq!(staleness, 0.0);
        assert!((390..=410).contains(&population.ips()), "{}", population.ips());
    }
}
