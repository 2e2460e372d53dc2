//! Sliding windows in buckets.
//!
//! A window of W milliseconds is cut into n buckets of W / n, aligned to the epoch. At publication T it holds the
//! bucket of the last millisecond before T and the n - 1 buckets before that one; so it reaches back by at most W
//! and by more than W - W / n. Only buckets that saw a request take memory.

use bliss_core::http::Engine;

use super::distinct::{ALLOCATION_BYTES, Distinct};
use super::saved;
use crate::checkpoint::bounded;
use serde::{Deserialize, Serialize};

/// A window's length and its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The suffix of its features' names.
    pub name: &'static str,
    /// Its length in seconds.
    pub seconds: u32,
    /// The length of a bucket in milliseconds.
    pub bucket_ms: u64,
    /// How many buckets it has.
    pub buckets: u64,
}

/// All windows, the shortest first.
pub const WINDOWS: [Window; 4] = [
    Window { name: "1m", seconds: 60, bucket_ms: 5_000, buckets: 12 },
    Window { name: "5m", seconds: 300, bucket_ms: 20_000, buckets: 15 },
    Window { name: "1h", seconds: 3600, bucket_ms: 180_000, buckets: 20 },
    Window { name: "7d", seconds: 604_800, bucket_ms: 43_200_000, buckets: 14 },
];

/// The week's index in [`WINDOWS`].
pub const WEEK: usize = 3;

impl Window {
    /// The oldest bucket that the window holds at publication `at_ms`.
    fn oldest(&self, at_ms: u64) -> u64 {
        (at_ms.saturating_sub(1) / self.bucket_ms).saturating_sub(self.buckets - 1)
    }
}

/// What one request adds to a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub(crate) time_ms: u64,
    pub(crate) client_error: bool,
    pub(crate) server_error: bool,
    pub(crate) asset: bool,
    pub(crate) referrer: bool,
    pub(crate) head: bool,
    pub(crate) robots_txt: bool,
    /// An error of the client's that is nobody's refusal: 403 and 429 are none, nor what the server fails at.
    pub(crate) error: bool,
    /// Whether the log tells the referrer.
    pub(crate) referrer_told: bool,
    /// Whether the referrer is the site's own, where that is known.
    pub(crate) site_referrer: Option<bool>,
    pub(crate) post: bool,
    /// The engine of the browser that the user agent claims, and its version.
    #[serde(with = "saved::browser")]
    pub(crate) browser: Option<(Engine, u32)>,
    /// The address's /24, or /48 of IPv6.
    pub(crate) network: u64,
    /// Hashes of values, not 0.
    pub(crate) ip: u64,
    /// 0 where the request had no user agent.
    pub(crate) user_agent: u64,
    pub(crate) path: u64,
}

/// Which distinct values are counted; the rest stay empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DistinctWanted {
    pub(crate) ips: bool,
    pub(crate) user_agents: bool,
    pub(crate) paths: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Bucket {
    index: u64,
    first_ms: u64,
    last_ms: u64,
    requests: u32,
    client_errors: u32,
    server_errors: u32,
    assets: u32,
    referrers: u32,
    heads: u32,
    robots_txt: u32,
    ips: Distinct,
    user_agents: Distinct,
    paths: Distinct,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) client_errors: u64,
    pub(crate) server_errors: u64,
    pub(crate) assets: u64,
    pub(crate) referrers: u64,
    pub(crate) heads: u64,
    pub(crate) robots_txt: u64,
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
    pub(crate) ips: usize,
    pub(crate) user_agents: usize,
    pub(crate) paths: usize,
}

/// Requests that a bucket counts; more change nothing. Far from where sums would overflow.
const MOST_REQUESTS: u32 = u32::MAX / 2;

/// More than any window has.
const MOST_BUCKETS: usize = 64;

/// The buckets of one key in one window.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ring {
    /// The oldest first.
    #[serde(deserialize_with = "bounded::vec::<_, _, MOST_BUCKETS>")]
    buckets: Vec<Bucket>,
    /// The sum of all buckets but the last, kept while none of them changes: a busy key is summed at each
    /// publication, and only its last bucket is new.
    #[serde(skip)]
    closed: Option<Box<Sum>>,
    /// Bytes of the distinct values in `buckets`, beside the buckets.
    #[serde(skip)]
    distinct_bytes: usize,
}

impl Ring {
    /// Counts a request in the bucket of its own time, unless it is older than the window at `at_ms`.
    pub(crate) fn add(&mut self, window: &Window, wanted: DistinctWanted, hit: &Hit, at_ms: u64) {
        let index = hit.time_ms / window.bucket_ms;
        if index < window.oldest(at_ms) {
            return;
        }
        let at = match self.buckets.iter().rposition(|bucket| bucket.index <= index) {
            Some(at) if self.buckets[at].index == index => at,
            found => {
                let at = found.map_or(0, |at| at + 1);
                if self.buckets.is_empty() {
                    // Most keys are seen once in an hour.
                    self.buckets.reserve_exact(1);
                }
                self.buckets.insert(at, Bucket { index, first_ms: u64::MAX, ..Bucket::default() });
                self.closed = None;
                at
            }
        };
        if at + 1 < self.buckets.len() {
            self.closed = None;
        }
        let bucket = &mut self.buckets[at];
        bucket.first_ms = bucket.first_ms.min(hit.time_ms);
        bucket.last_ms = bucket.last_ms.max(hit.time_ms);
        bucket.count(hit);
        let before = bucket.distinct_bytes();
        if wanted.ips {
            bucket.ips.insert(hit.ip);
        }
        if wanted.user_agents && hit.user_agent != 0 {
            bucket.user_agents.insert(hit.user_agent);
        }
        if wanted.paths {
            bucket.paths.insert(hit.path);
        }
        self.distinct_bytes = (self.distinct_bytes + bucket.distinct_bytes()).saturating_sub(before);
    }

    /// Bytes that it takes beside itself. The same work whatever it holds.
    pub(crate) fn heap_bytes(&self) -> usize {
        let allocation = |bytes: usize| if bytes == 0 { 0 } else { bytes + ALLOCATION_BYTES };
        let closed = self.closed.as_ref().map_or(0, |closed| size_of::<Sum>() + closed.distinct_bytes());
        allocation(self.buckets.capacity() * size_of::<Bucket>()) + allocation(closed) + self.distinct_bytes
    }

    /// Gives up what only spares work.
    pub(crate) fn forget_sum(&mut self) {
        self.closed = None;
    }

    /// What [`Self::heap_bytes`] needs, after the ring was read back.
    pub(crate) fn measure(&mut self) {
        self.distinct_bytes = self.buckets.iter().map(Bucket::distinct_bytes).sum();
    }

    /// Drops what is older than the window at `at_ms`.
    pub(crate) fn expire(&mut self, window: &Window, at_ms: u64) {
        let oldest = window.oldest(at_ms);
        let gone = self.buckets.partition_point(|bucket| bucket.index < oldest);
        if gone > 0 {
            self.closed = None;
            self.buckets.drain(..gone);
            if self.buckets.is_empty() {
                self.buckets = Vec::new();
            }
            self.measure();
        }
    }

    /// The last millisecond T at which the oldest bucket is still held; after it the ring changes without a request.
    pub(crate) fn due_ms(&self, window: &Window) -> Option<u64> {
        self.buckets.first().map(|bucket| (bucket.index + window.buckets) * window.bucket_ms)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether it could have come about: what was read back may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        let mut before = None;
        self.buckets.iter().all(|bucket| {
            let is_later = before < Some(bucket.index);
            before = Some(bucket.index);
            is_later && bucket.is_sound()
        })
    }

    /// Sums the buckets. [`Self::expire`] comes first.
    pub(crate) fn totals(&mut self, wanted: DistinctWanted) -> Totals {
        let totals = self.estimated_totals(wanted);
        // No estimate is larger than what it is an estimate of can be.
        let requests = usize::try_from(totals.requests).unwrap_or(usize::MAX);
        Totals {
            ips: totals.ips.min(requests),
            user_agents: totals.user_agents.min(requests),
            paths: totals.paths.min(requests),
            ..totals
        }
    }

    fn estimated_totals(&mut self, wanted: DistinctWanted) -> Totals {
        let Some((last, older)) = self.buckets.split_last() else { return Totals::default() };
        if older.is_empty() {
            return last.totals(wanted);
        }
        let closed = self.closed.get_or_insert_with(|| {
            let mut closed = Sum::default();
            older.iter().for_each(|bucket| closed.add(bucket, wanted));
            Box::new(closed)
        });
        closed.totals_with(last, wanted)
    }
}

impl Bucket {
    fn count(&mut self, hit: &Hit) {
        if self.requests >= MOST_REQUESTS {
            return;
        }
        // No part is larger than the whole.
        self.requests += 1;
        self.client_errors += u32::from(hit.client_error);
        self.server_errors += u32::from(hit.server_error);
        self.assets += u32::from(hit.asset);
        self.referrers += u32::from(hit.referrer);
        self.heads += u32::from(hit.head);
        self.robots_txt += u32::from(hit.robots_txt);
    }

    fn distinct_bytes(&self) -> usize {
        self.ips.heap_bytes() + self.user_agents.heap_bytes() + self.paths.heap_bytes()
    }

    fn is_sound(&self) -> bool {
        let parts = [
            self.client_errors,
            self.server_errors,
            self.assets,
            self.referrers,
            self.heads,
            self.robots_txt,
        ];
        self.requests > 0
            && self.requests <= MOST_REQUESTS
            && parts.iter().all(|part| *part <= self.requests)
            && [self.index, self.first_ms, self.last_ms].iter().all(|time| *time <= saved::MOST_MS)
            && [&self.ips, &self.user_agents, &self.paths].iter().all(|distinct| distinct.is_sound())
    }

    fn totals(&self, wanted: DistinctWanted) -> Totals {
        let count = |wanted: bool, of: &Distinct| if wanted { of.count() } else { 0 };
        Totals {
            requests: u64::from(self.requests),
            client_errors: u64::from(self.client_errors),
            server_errors: u64::from(self.server_errors),
            assets: u64::from(self.assets),
            referrers: u64::from(self.referrers),
            heads: u64::from(self.heads),
            robots_txt: u64::from(self.robots_txt),
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            ips: count(wanted.ips, &self.ips),
            user_agents: count(wanted.user_agents, &self.user_agents),
            paths: count(wanted.paths, &self.paths),
        }
    }
}

/// The sum of several buckets; the distinct counts of its totals are not used.
#[derive(Debug, Default)]
struct Sum {
    totals: Option<Totals>,
    ips: Distinct,
    user_agents: Distinct,
    paths: Distinct,
}

impl Sum {
    fn distinct_bytes(&self) -> usize {
        self.ips.heap_bytes() + self.user_agents.heap_bytes() + self.paths.heap_bytes()
    }

    fn add(&mut self, bucket: &Bucket, wanted: DistinctWanted) {
        let more = bucket.totals(DistinctWanted::default());
        self.totals = Some(self.totals.map_or(more, |totals| totals.plus(&more)));
        let pairs = [
            (wanted.ips, &mut self.ips, &bucket.ips),
            (wanted.user_agents, &mut self.user_agents, &bucket.user_agents),
            (wanted.paths, &mut self.paths, &bucket.paths),
        ];
        for (wanted, sum, more) in pairs {
            if wanted {
                sum.merge(more);
            }
        }
    }

    fn totals_with(&self, last: &Bucket, wanted: DistinctWanted) -> Totals {
        let more = last.totals(DistinctWanted::default());
        let count = |wanted: bool, sum: &Distinct, more: &Distinct| {
            if !wanted {
                return 0;
            }
            let mut all = sum.clone();
            all.merge(more);
            all.count()
        };
        Totals {
            ips: count(wanted.ips, &self.ips, &last.ips),
            user_agents: count(wanted.user_agents, &self.user_agents, &last.user_agents),
            paths: count(wanted.paths, &self.paths, &last.paths),
            ..self.totals.map_or(more, |totals| totals.plus(&more))
        }
    }
}

impl Totals {
    /// The sum of both, without the distinct counts.
    fn plus(&self, other: &Totals) -> Totals {
        Totals {
            requests: self.requests + other.requests,
            client_errors: self.client_errors + other.client_errors,
            server_errors: self.server_errors + other.server_errors,
            assets: self.assets + other.assets,
            referrers: self.referrers + other.referrers,
            heads: self.heads + other.heads,
            robots_txt: self.robots_txt + other.robots_txt,
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
            ..Totals::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::distinct::ValueHash;
    use super::*;

    const MINUTE: Window = WINDOWS[0];
    const ALL: DistinctWanted = DistinctWanted { ips: true, user_agents: true, paths: true };

    fn hit(time_ms: u64) -> Hit {
        Hit { time_ms, ..Hit::default() }
    }

    #[test]
    fn windows_are_whole_buckets_and_the_longest_is_the_last() {
        for window in WINDOWS {
            assert_eq!(window.bucket_ms * window.buckets, u64::from(window.seconds) * 1000);
        }
        assert_eq!(WINDOWS[WEEK].name, "7d");
    }

    #[test]
    fn a_bucket_leaves_after_one_window_and_not_before() {
        let mut ring = Ring::default();
        ring.add(&MINUTE, ALL, &hit(100_000), 100_001);
        let due = ring.due_ms(&MINUTE).unwrap();
        assert_eq!(due, 160_000);
        ring.expire(&MINUTE, due);
        assert!(!ring.is_empty());
        ring.expire(&MINUTE, due + 1);
        assert!(ring.is_empty());
    }

    #[test]
    fn d6_counts_stop_where_they_are_still_sound() {
        let mut ring = Ring::default();
        let hit = Hit { robots_txt: true, head: true, ..hit(100_000) };
        ring.add(&MINUTE, ALL, &hit, 100_001);
        for count in [MOST_REQUESTS - 1, MOST_REQUESTS] {
            let bucket = &mut ring.buckets[0];
            (bucket.requests, bucket.robots_txt) = (count, count);
            ring.add(&MINUTE, ALL, &hit, 100_001);
            assert!(ring.is_sound() && ring.buckets[0].requests == MOST_REQUESTS);
        }
    }

    #[test]
    fn late_requests_go_to_the_bucket_of_their_own_time() {
        let mut ring = Ring::default();
        for time in [120_000, 101_000, 111_000, 102_000] {
            ring.add(&MINUTE, ALL, &hit(time), 121_000);
        }
        assert_eq!(
            ring.buckets.iter().map(|b| (b.index, b.requests)).collect::<Vec<_>>(),
            [(20, 2), (22, 1), (24, 1)]
        );
        let totals = ring.totals(ALL);
        assert_eq!((totals.requests, totals.first_ms, totals.last_ms), (4, 101_000, 120_000));
        ring.add(&MINUTE, ALL, &hit(10_000), 121_000);
        assert_eq!(ring.totals(ALL).requests, 4, "older than the window");
    }

    /// A cached sum must equal a fresh one, wherever requests are added meanwhile.
    #[test]
    fn sums_that_are_kept_are_those_of_all_buckets() {
        let mut kept = Ring::default();
        let mut hits: Vec<(u64, Hit)> = vec![];
        for i in 0..400u64 {
            let at_ms = 100_000 + i * 700;
            // Mostly now, sometimes late, sometimes after a pause.
            let time_ms = at_ms - if i % 11 == 0 { 20_000 } else { i % 3 } - 1;
            let distinct = ValueHash::fixed().hash(&(i % 29).to_le_bytes());
            let hit = Hit { path: distinct, ip: distinct / 3, client_error: i % 5 == 0, ..hit(time_ms) };
            kept.add(&MINUTE, ALL, &hit, at_ms);
            hits.push((at_ms, hit));
            kept.expire(&MINUTE, at_ms);
            let mut fresh = Ring::default();
            hits.iter().for_each(|(at_ms, hit)| fresh.add(&MINUTE, ALL, hit, *at_ms));
            fresh.expire(&MINUTE, at_ms);
            assert_eq!(kept.totals(ALL), fresh.totals(ALL), "after {i}");
        }
    }

    /// Hashes that a client would choose if it could: 1,024 of them once made two billion.
    #[test]
    fn s13_no_estimate_is_larger_than_the_number_of_requests() {
        let best = |register: u64| register | ((1 << 18) - 1) << 10;
        let mut ring = Ring::default();
        for i in 0..1024u64 {
            // Each register of the sketch with its highest rank.
            ring.add(
                &MINUTE,
                ALL,
                &Hit { path: best(i), user_agent: best(i), ip: best(i), ..hit(100_000 + i * 20) },
                130_000,
            );
        }
        let totals = ring.totals(ALL);
        assert_eq!((totals.requests, totals.paths, totals.user_agents, totals.ips), (1024, 1024, 1024, 1024));
    }

    #[test]
    fn distinct_values_are_counted_over_buckets_not_per_bucket() {
        let mut ring = Ring::default();
        for i in 0..100u64 {
            let path = (i % 7).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ring.add(&MINUTE, ALL, &Hit { path, ..hit(100_000 + i * 500) }, 150_000);
        }
        let totals = ring.totals(ALL);
        assert_eq!((totals.requests, totals.paths, totals.user_agents), (100, 7, 0));
    }
}
