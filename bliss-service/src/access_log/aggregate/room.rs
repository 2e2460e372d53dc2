//! Who makes room for a new key in a full table.
//!
//! A client has as many addresses, agents and paths as it likes, so new keys must not push out those that are in use. What goes
//! is the least active of a few keys taken at random, and what comes must be lucky to replace one that was more active than
//! itself (a randomised admission policy: `docs/decisions/0013-admission-of-rows.md`). Beyond its share of a full table a network
//! replaces its own keys only, and is replaced first. A key belongs to a network as long as nobody else asked with it, so that
//! who floods with agents that are his alone cannot make those of others his.

use super::Table;

/// The activity of a key halves after so long.
const HALF_LIFE_MS: u64 = 600_000;

/// Keys that are looked at: the cost does not grow with the table.
const SAMPLE: usize = 8;

/// A network may hold one of so many parts of a full table.
const NETWORK_PARTS: usize = 16;

/// A count of requests that fades.
#[derive(Clone, Copy, Debug, Default)]
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
    pub(super) fn make_room(&mut self, network: u64, time_ms: u64, max_keys: usize) -> bool {
        let share = (max_keys / NETWORK_PARTS).max(1);
        let held = |network: u64| self.networks.get(&network).map_or(0, |held| *held as usize);
        let is_crowded = |network: Option<u64>| network.is_some_and(|network| held(network) > share);
        let has_its_share = held(network) >= share;
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
