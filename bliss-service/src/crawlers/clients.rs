//! Clients that claim to be crawlers: what is known of each, and when it is asked about next.
//!
//! | state | from when | until |
//! |---|---|---|
//! | claimed | the first claim | there is an answer |
//! | verified, fake | an answer | another answer; without one, for two of the longest times that an answer counts |
//!
//! A client is asked about at its first claim, then, as long as it comes, whenever its answer no longer counts; after a failure again
//! and again, with waits that double. Networks take turns, and each has a share of those that wait and of those that are asked about, so
//! that whoever has many addresses, and a DNS of their own that does not answer, delays themselves.
//! Time is an argument, from any clock that only goes forward.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use bliss_core::policy::compiled::CrawlerState;

use line::{Line, Network};

use super::CrawlerOptions;
use super::verify::Verdict;

mod line;

/// The waits after failures.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// So many clients of one network are asked about at a time.
const MOST_ASKED: usize = 2;
/// The wait of a client for which there is no room in the line of its network, unless it claims again.
const NO_ROOM: Duration = Duration::from_secs(10);

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
    /// Whether it is in line to be asked about.
    in_line: Option<Kind>,
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
    /// Until when its first claim is held back.
    held: Option<Duration>,
}

/// The line that a client waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nobody asked about it yet.
    New,
    /// It is asked about again.
    Due,
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
    /// Whether `rows` are all that there are to be.
    pub is_whole: bool,
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
    /// Those that nobody asked about yet.
    new: Line,
    /// Those that are asked about again.
    again: Line,
    /// How many of a network are asked about, where any are.
    asked: HashMap<Network, usize>,
    /// All that neither are in line nor are asked about, by when they are looked at.
    due: BTreeSet<(Duration, ClientId)>,
    /// All, verified ones last, and of both kinds the one that claimed longest ago in front.
    by_claim: BTreeSet<(bool, u64, ClientId)>,
    claims: u64,
    /// Whether one of `again` is asked about before one of `new`.
    is_turn_of_due: bool,
    changed: HashSet<ClientId>,
    gone: HashSet<ClientId>,
    /// Whether all rows are published next, in place of whatever there is.
    is_replaced: bool,
    /// First claims are published a moment later, in case the answer comes meanwhile.
    hold: Duration,
    held: BTreeSet<(Duration, ClientId)>,
    counts: Counts,
}

impl Clients {
    /// None yet; first claims are held back for `hold`.
    pub fn new(options: &CrawlerOptions, hold: Duration) -> Self {
        Self {
            options: options.clone(),
            clients: HashMap::new(),
            new: Line::default(),
            again: Line::default(),
            asked: HashMap::new(),
            due: BTreeSet::new(),
            by_claim: BTreeSet::new(),
            claims: 0,
            is_turn_of_due: false,
            changed: HashSet::new(),
            gone: HashSet::new(),
            is_replaced: false,
            hold,
            held: BTreeSet::new(),
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
        let is_in_line = self.new.push(id);
        let due = (!is_in_line).then(|| now + NO_ROOM);
        let held = now + self.hold;
        let client = Client {
            state: CrawlerState::Claimed,
            last_claim: self.claims,
            claimed_at: now,
            is_back: true,
            in_line: is_in_line.then_some(Kind::New),
            until: now,
            asks_from: now,
            due,
            failures: 0,
            published: None,
            held: Some(held),
        };
        self.clients.insert(id, client);
        self.by_claim.insert((false, self.claims, id));
        self.counts.claimed += 1;
        self.held.insert((held, id));
        self.due.extend(due.map(|due| (due, id)));
        dropped
    }

    /// The client that is to be asked about now, if there is one. What becomes of it is told by [`Self::conclude`], each time.
    pub fn next(&mut self, now: Duration) -> Option<ClientId> {
        self.line_up(now);
        // New clients do not wait for old ones, nor the other way round.
        self.is_turn_of_due = !self.is_turn_of_due;
        let asked = &self.asked;
        let is_busy = |network| asked.get(&network).is_some_and(|asked| *asked >= MOST_ASKED);
        let (first, second) = match self.is_turn_of_due {
            true => (&mut self.again, &mut self.new),
            false => (&mut self.new, &mut self.again),
        };
        let id = first.pop(is_busy).or_else(|| second.pop(is_busy))?;
        if let Some(client) = self.clients.get_mut(&id) {
            (client.in_line, client.is_back) = (None, false);
        }
        *self.asked.entry(Network::of(id)).or_default() += 1;
        Some(id)
    }

    /// Puts those in line that are due.
    fn line_up(&mut self, now: Duration) {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let max_ttl = self.options.max_ttl;
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.due = None;
            let is_known = client.state != CrawlerState::Claimed;
            let end = if is_known { client.until } else { client.claimed_at + max_ttl };
            // One that failed is asked about again though it has not come back: nothing is known of it.
            let is_wanted = client.is_back || (client.failures > 0 && !is_known && now < end);
            if is_wanted && self.again.push(id) {
                client.in_line = Some(Kind::Due);
                continue;
            }
            if now >= end {
                self.remove(id);
                continue;
            }
            let due = if is_wanted { end.min(now + NO_ROOM) } else { end };
            client.due = Some(due);
            self.due.insert((due, id));
        }
    }

    /// What came of asking about a client.
    pub fn conclude(&mut self, id: ClientId, verdict: &Verdict, now: Duration) {
        let CrawlerOptions { min_ttl, max_ttl, .. } = self.options;
        let max_age = self.options.max_age();
        let network = Network::of(id);
        if let Some(asked) = self.asked.get_mut(&network) {
            *asked = asked.saturating_sub(1);
            if *asked == 0 {
                self.asked.remove(&network);
            }
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        // It was dropped and came back meanwhile.
        match client.in_line.take() {
            Some(Kind::New) => self.new.remove(id),
            Some(Kind::Due) => self.again.remove(id),
            None => {}
        }
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
        // A row gets a new time long before it is `max_age` old, since readers take none that is older.
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
        if let Some(held) = client.held {
            self.held.remove(&(held, id));
        }
        match client.in_line {
            Some(Kind::New) => self.new.remove(id),
            Some(Kind::Due) => self.again.remove(id),
            None => {}
        }
        *self.count(client.state) -= 1;
        self.changed.remove(&id);
        if client.published.is_some() {
            self.lose(id);
        }
    }

    /// Notes that a row is to be removed.
    fn lose(&mut self, id: ClientId) {
        if self.is_replaced {
            return;
        }
        self.gone.insert(id);
        // While nothing can be published they must not grow without limit: all rows are replaced then.
        if self.gone.len() > 2 * self.options.max_clients {
            self.replace_all();
        }
    }

    /// When [`Self::next`], or [`Self::news`] if that is asked at all, may have something that they do not have before.
    pub fn wakes_at(&self, may_publish: bool) -> Option<Duration> {
        let due = self.due.first().map(|(at, _)| *at);
        let held = self.held.first().map(|(at, _)| *at).filter(|_| may_publish);
        due.into_iter().chain(held).min()
    }

    /// What is to be published, each change once.
    pub fn news(&mut self, now: Duration) -> News {
        while let Some((at, id)) = self.held.first().copied().filter(|(at, _)| *at <= now) {
            self.held.remove(&(at, id));
            if let Some(client) = self.clients.get_mut(&id) {
                client.held = None;
                if client.published.is_none() {
                    self.changed.insert(id);
                }
            }
        }
        let mut news = News { is_whole: std::mem::take(&mut self.is_replaced), ..News::default() };
        if news.is_whole {
            self.changed = self.clients.keys().copied().collect();
        }
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

    /// The next news are every client, in place of whatever is published.
    pub fn replace_all(&mut self) {
        self.is_replaced = true;
        self.gone = HashSet::new();
    }

    /// What was to be published was not.
    pub fn restate(&mut self, news: News) {
        if news.is_whole {
            self.replace_all();
        }
        for NewRow { id, .. } in news.rows {
            if self.clients.contains_key(&id) {
                self.changed.insert(id);
            } else {
                self.lose(id);
            }
        }
        for id in news.gone {
            match self.clients.get_mut(&id) {
                // It is back, and its row is still the old one.
                Some(client) => {
                    client.published.get_or_insert(Duration::ZERO);
                    self.changed.insert(id);
                }
                None => self.lose(id),
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
