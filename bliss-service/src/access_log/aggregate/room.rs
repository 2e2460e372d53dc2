//! Who makes room for a new key in a full table.
//!
//! A client has as many addresses, agents and paths as it likes, so new keys must not push out those that are in use. What goes
//! is the least active of a few keys taken at random, and what comes must be lucky to replace one that was more active than
//! itself (a randomised admission policy: `docs/decisions/0013-admission-of-rows.md`). Beyond its share of a full table, in keys or
//! in bytes, a network replaces its own keys only, and is replaced first. A key belongs to a network as long as nobody else asked with it, so that
//! who floods with agents that are his alone cannot make those of others his.

use super::Table;
use super::table::Held;
use serde::{Deserialize, Serialize};

/// The activity of a key halves after so long.
const HALF_LIFE_MS: u64 = 600_000;

/// Keys that are looked at: the cost does not grow with the table.
const SAMPLE: usize = 8;

/// A network may hold one of so many parts of a full table.
const NETWORK_PARTS: usize = 16;

/// A key that takes so many times what keys take in the mean is outsized.
const OUTSIZED: usize = 8;
/// Bits of a fraction of a request.
const WORTH_BITS: u32 = 16;

/// A count of requests that fades.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Activity {
    requests: u32,
    /// The half-life since the epoch in which it was counted last.
    period: u32,
}

fn period(time_ms: u64) -> u32 {
    u32::try_from(time_ms / HALF_LIFE_MS).unwrap_or(u32::MAX)
}

impl Activity {
    pub(super) fn add(&mut self, time_ms: u64) {
        self.requests = self.at(time_ms).saturating_add(1);
        self.period = self.period.max(period(time_ms));
    }

    pub(super) fn at(&self, time_ms: u64) -> u32 {
        self.requests.checked_shr(period(time_ms).saturating_sub(self.period)).unwrap_or(0)
    }
}

impl Table {
    /// Removes a key of a full table for a new one that asks at `time_ms` from `network`; false if none was found that should
    /// give way to it.
    pub(super) fn make_room(&mut self, network: u64, time_ms: u64) -> bool {
        let is_crowded = |network: Option<u64>| network.is_some_and(|network| self.exceeds(network, 1));
        let has_its_share = self.exceeds(network, 0);
        let sample: [usize; SAMPLE] = std::array::from_fn(|_| self.some_index());
        let activity = |index: usize| self.entries.get(index).map_or(0, |entry| entry.activity.at(time_ms));
        let least = |may_go: &dyn Fn(Option<u64>) -> bool| {
            let candidates = sample.iter().filter_map(|index| Some((*index, self.entries.get(*index)?)));
            let candidates = candidates.filter(|(_, entry)| may_go(entry.network));
            let least = candidates.min_by_key(|(index, entry)| (activity(*index), entry.last_seen_ms));
            least.map(|(index, _)| index)
        };
        let victim = if has_its_share {
            least(&|other| other == Some(network))
        } else {
            // A key that asked once gives way before one of a crowded network that asked often.
            let least_of_all = least(&|_| true);
            match least_of_all.filter(|index| activity(*index) > 1).and_then(|_| least(&is_crowded)) {
                Some(crowded) => return self.remove_at(crowded),
                None => least_of_all,
            }
        };
        let Some(victim) = victim else { return false };
        // As likely as its activity compares with that of one request.
        let active = u64::from(activity(victim).max(1));
        self.random_below(active) == 0 && self.remove_at(victim)
    }

    /// Whether a network holds more than its share, or as much where `more` is 0.
    fn exceeds(&self, network: u64, more: usize) -> bool {
        let share = |of: usize| (of / NETWORK_PARTS).max(1).saturating_add(more);
        let Held { keys, bytes } = self.networks.get(&network).copied().unwrap_or_default();
        keys >= share(self.limits.keys) || bytes >= share(self.limits.bytes)
    }

    /// Removes a key of a table that takes too many bytes, since the one at `grown` has grown by a request at `time_ms`: of a few
    /// and itself the least active, where one that takes much more than is usual counts as less active by as much. A network
    /// beyond its share pays for itself.
    pub(super) fn shrink(&mut self, grown: usize, time_ms: u64) {
        let usual = OUTSIZED * (self.bytes() / self.entries.len().max(1)).max(1);
        let network = self.entries.get(grown).and_then(|entry| entry.network);
        let pays = network.filter(|network| self.exceeds(*network, 1));
        let mut candidates = [grown; SAMPLE + 1];
        candidates.iter_mut().skip(1).for_each(|candidate| *candidate = self.some_index());
        let worth = |index: usize| {
            let entry = self.entries.get(index)?;
            let activity = u64::from(entry.activity.at(time_ms)) << WORTH_BITS;
            let outsized = (entry.bytes / usual).max(1) as u64;
            Some((activity / outsized, entry.last_seen_ms))
        };
        let may_go =
            |index: &usize| pays.is_none() || self.entries.get(*index).is_some_and(|e| e.network == pays);
        let victim = candidates.into_iter().filter(may_go).min_by_key(|index| worth(*index));
        self.remove(victim.unwrap_or(grown));
    }

    fn remove_at(&mut self, index: usize) -> bool {
        self.remove(index);
        true
    }

    fn some_index(&self) -> usize {
        usize::try_from(self.random_below(self.entries.len() as u64)).unwrap_or(0)
    }

    /// A number below `limit`, which nobody outside can foretell where the seed is a secret (SplitMix64).
    fn random_below(&self, limit: u64) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let scaled = u128::from(mixed ^ (mixed >> 31)) * u128::from(limit);
        u64::try_from(scaled >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
