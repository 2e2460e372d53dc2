//! Clients that claim to be crawlers: what is known of each, and when it is asked about next.
//!
//! | state | from when | until |
//! |---|---|---|
//! | claimed | the first claim | there is an answer |
//! | verified, fake | an answer | another answer; without one, for two of the longest times that an answer counts |
//!
//! A client is asked about at its first claim, then, as long as it comes, whenever its answer no longer counts; after a failure again
//! and again, with waits that double. Time is an argument, from any clock that only goes forward.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use bliss_core::policy::compiled::CrawlerState;

use super::CrawlerOptions;
use super::verify::Verdict;

/// The waits after failures.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Who claims what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// The address, an IPv4-mapped one as IPv4.
    pub ip: IpAddr,
    /// The crawler's index in [`bliss_core::http::CRAWLERS`].
    pub crawler: usize,
}

#[derive(Clone, Debug)]
struct Client {
    state: CrawlerState,
    /// The claim that was the last one, counted over all clients.
    last_claim: u64,
    /// When that was.
    claimed_at: Duration,
    /// Whether it claimed since it was asked about last.
    is_back: bool,
    /// Whether it is in line to be asked about for the first time.
    is_new: bool,
    /// Until when the state holds without another answer.
    until: Duration,
    /// From when on its answer no longer counts, or another attempt is made.
    asks_from: Duration,
    /// When it is looked at next; `None` while it waits in line or is asked about.
    due: Option<Duration>,
    /// Failures, one after the other.
    failures: u32,
    /// When its row was published.
    published: Option<Duration>,
}

/// A row to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// Of whom.
    pub id: ClientId,
    /// What is known.
    pub state: CrawlerState,
    /// How long ago that was confirmed.
    pub age: Duration,
}

/// What the dimension lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Rows to write.
    pub rows: Vec<NewRow>,
    /// Rows to remove.
    pub gone: Vec<ClientId>,
}

/// How many clients are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nothing is known of their claims yet.
    pub claimed: usize,
    /// They are the crawlers that they say they are.
    pub verified: usize,
    /// They are not.
    pub fake: usize,
}

/// All clients that are remembered.
#[derive(Debug)]
pub struct Clients {
    options: CrawlerOptions,
    clients: HashMap<ClientId, Client>,
    /// Those that nobody asked about yet, the one that waits longest in front.
    new: VecDeque<ClientId>,
    /// The others, by when they are looked at.
    due: BTreeSet<(Duration, ClientId)>,
    /// All, verified ones last, and of both kinds the one that claimed longest ago in front.
    by_claim: BTreeSet<(bool, u64, ClientId)>,
    claims: u64,
    /// Whether one of `due` is asked about before one of `new`.
    is_turn_of_due: bool,
    changed: HashSet<ClientId>,
    gone: HashSet<ClientId>,
    /// First claims are published a moment later, in case the answer comes meanwhile.
    hold: Duration,
    held: VecDeque<(Duration, ClientId)>,
    counts: Counts,
}

impl Clients {
    /// None yet; first claims are held back for `hold`.
    pub fn new(options: &CrawlerOptions, hold: Duration) -> Self {
        Self {
            options: options.clone(),
            clients: HashMap::new(),
            new: VecDeque::new(),
            due: BTreeSet::new(),
            by_claim: BTreeSet::new(),
            claims: 0,
            is_turn_of_due: false,
            changed: HashSet::new(),
            gone: HashSet::new(),
            hold,
            held: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Takes a claim; returns how many clients were dropped for it.
    pub fn claim(&mut self, id: ClientId, now: Duration) -> u64 {
        self.claims += 1;
        if let Some(client) = self.clients.get_mut(&id) {
            let is_verified = client.state == CrawlerState::Verified;
            self.by_claim.remove(&(is_verified, client.last_claim, id));
            self.by_claim.insert((is_verified, self.claims, id));
            (client.last_claim, client.claimed_at, client.is_back) = (self.claims, now, true);
            // One that was away is asked about as soon as its answer does not count any more.
            let at = client.asks_from.max(now);
            if let Some(due) = client.due.filter(|due| *due > at) {
                client.due = Some(at);
                self.due.remove(&(due, id));
                self.due.insert((at, id));
            }
            return 0;
        }
        let mut dropped = 0;
        while self.clients.len() >= self.options.max_clients.max(1) {
            let Some((_, _, oldest)) = self.by_claim.first().copied() else { break };
            self.remove(oldest);
            dropped += 1;
        }
        let client = Client {
            state: CrawlerState::Claimed,
            last_claim: self.claims,
            claimed_at: now,
            is_back: true,
            is_new: true,
            until: now,
            asks_from: now,
            due: None,
            failures: 0,
            published: None,
        };
        self.clients.insert(id, client);
        self.by_claim.insert((false, self.claims, id));
        self.counts.claimed += 1;
        self.new.push_back(id);
        self.held.push_back((now + self.hold, id));
        dropped
    }

    /// The client that is to be asked about now, if there is one. What becomes of it is told by [`Self::conclude`].
    pub fn next(&mut self, now: Duration) -> Option<ClientId> {
        // New clients do not wait for old ones, nor the other way round.
        self.is_turn_of_due = !self.is_turn_of_due;
        if self.is_turn_of_due {
            self.next_due(now).or_else(|| self.next_new())
        } else {
            self.next_new().or_else(|| self.next_due(now))
        }
    }

    fn next_new(&mut self) -> Option<ClientId> {
        // One that was dropped meanwhile, or was in line twice, is left out.
        while let Some(id) = self.new.pop_front() {
            if let Some(client) = self.clients.get_mut(&id).filter(|client| client.is_new) {
                (client.is_new, client.is_back) = (false, false);
                return Some(id);
            }
        }
        None
    }

    fn next_due(&mut self, now: Duration) -> Option<ClientId> {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let max_ttl = self.options.max_ttl;
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.due = None;
            let is_known = client.state != CrawlerState::Claimed;
            let end = if is_known { client.until } else { client.claimed_at + max_ttl };
            // One that failed is asked about again though it has not come back: nothing is known of it.
            if client.is_back || (client.failures > 0 && !is_known && now < end) {
                client.is_back = false;
                return Some(id);
            }
            if now >= end {
                self.remove(id);
                continue;
            }
            client.due = Some(end);
            self.due.insert((end, id));
        }
        None
    }

    /// What came of asking about a client.
    pub fn conclude(&mut self, id: ClientId, verdict: &Verdict, now: Duration) {
        let CrawlerOptions { min_ttl, max_ttl, .. } = self.options;
        let max_age = self.options.max_age();
        let Some(client) = self.clients.get_mut(&id) else { return };
        let before = client.state;
        let wait = match verdict {
            Verdict::Verified(ttl) | Verdict::Fake(ttl) => {
                let is_verified = matches!(verdict, Verdict::Verified(_));
                client.state = if is_verified { CrawlerState::Verified } else { CrawlerState::Fake };
                (client.failures, client.until) = (0, now + max_age);
                (*ttl).clamp(min_ttl, max_ttl)
            }
            Verdict::Unknown(_) => {
                let doubled = RETRY.0.saturating_mul(1u32.checked_shl(client.failures).unwrap_or(u32::MAX));
                client.failures = (client.failures + 1).min(31);
                if now >= client.until {
                    client.state = CrawlerState::Claimed;
                }
                doubled.min(RETRY.1)
            }
            Verdict::Untold => {
                client.failures = 0;
                if now >= client.until {
                    client.state = CrawlerState::Claimed;
                }
                max_ttl
            }
        };
        client.asks_from = now + wait;
        if let Some(old) = client.due.replace(client.asks_from) {
            self.due.remove(&(old, id));
        }
        self.due.insert((client.asks_from, id));
        let (state, last_claim) = (client.state, client.last_claim);
        let is_confirmed = matches!(verdict, Verdict::Verified(_) | Verdict::Fake(_));
        // Rows are dated anew in time: a reader takes none that is older than `max_age`.
        let is_old = client.published.is_none_or(|at| now.saturating_sub(at) >= max_age / 4);
        if state != before
            || client.published.is_none()
            || is_old && (is_confirmed || state == CrawlerState::Claimed)
        {
            self.changed.insert(id);
        }
        if state != before {
            *self.count(before) -= 1;
            *self.count(state) += 1;
            let verified = |state| state == CrawlerState::Verified;
            self.by_claim.remove(&(verified(before), last_claim, id));
            self.by_claim.insert((verified(state), last_claim, id));
        }
    }

    fn count(&mut self, state: CrawlerState) -> &mut usize {
        match state {
            CrawlerState::Verified => &mut self.counts.verified,
            CrawlerState::Fake => &mut self.counts.fake,
            CrawlerState::Claimed | CrawlerState::None => &mut self.counts.claimed,
        }
    }

    fn remove(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.by_claim.remove(&(client.state == CrawlerState::Verified, client.last_claim, id));
        if let Some(due) = client.due {
            self.due.remove(&(due, id));
        }
        *self.count(client.state) -= 1;
        self.changed.remove(&id);
        if client.published.is_some() {
            self.gone.insert(id);
        }
        // What waits in line for clients that are gone must not grow without limit.
        if self.new.len() > 2 * self.options.max_clients + 16 {
            let clients = &self.clients;
            self.new.retain(|id| clients.contains_key(id));
        }
        if self.held.len() > 2 * self.options.max_clients + 16 {
            let clients = &self.clients;
            self.held.retain(|(_, id)| clients.contains_key(id));
        }
    }

    /// When [`Self::next`] or [`Self::news`] may have something that they do not have before.
    pub fn wakes_at(&self) -> Option<Duration> {
        let due = self.due.first().map(|(at, _)| *at);
        let held = self.held.front().map(|(at, _)| *at);
        due.into_iter().chain(held).min()
    }

    /// What is to be published, each change once.
    pub fn news(&mut self, now: Duration) -> News {
        while let Some((_, id)) = self.held.pop_front_if(|(at, _)| *at <= now) {
            if self.clients.get(&id).is_some_and(|client| client.published.is_none()) {
                self.changed.insert(id);
            }
        }
        let mut news = News::default();
        let max_age = self.options.max_age();
        for id in self.changed.drain() {
            // A client that came back after it was removed has a row again.
            self.gone.remove(&id);
            if let Some(client) = self.clients.get_mut(&id) {
                client.published = Some(now);
                let state = client.state;
                // Only an answer sets the end of a state.
                let age = match state {
                    CrawlerState::Verified | CrawlerState::Fake => {
                        (now + max_age).saturating_sub(client.until)
                    }
                    CrawlerState::Claimed | CrawlerState::None => Duration::ZERO,
                };
                news.rows.push(NewRow { id, state, age });
            }
        }
        news.gone.extend(self.gone.drain());
        news
    }

    /// Every client, as what is to be published in place of whatever there is.
    pub fn all(&mut self, now: Duration) -> News {
        self.changed = self.clients.keys().copied().collect();
        self.gone.clear();
        self.news(now)
    }

    /// What was to be published was not.
    pub fn restate(&mut self, news: News) {
        for NewRow { id, .. } in news.rows {
            if self.clients.contains_key(&id) {
                self.changed.insert(id);
            } else {
                self.gone.insert(id);
            }
        }
        for id in news.gone {
            match self.clients.get_mut(&id) {
                // It is back, and its row is still the old one.
                Some(client) => {
                    client.published.get_or_insert(Duration::ZERO);
                    self.changed.insert(id);
                }
                None => {
                    self.gone.insert(id);
                }
            }
        }
    }

    /// How many there are in each state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many there are, in whatever state.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests;
