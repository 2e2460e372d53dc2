//! The task that verifies clients and publishes what is known of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bliss_core::attribute::Value;
use bliss_core::build::{Change, DimensionChange, Rows};
use bliss_core::http::CRAWLERS;
use tokio::sync::oneshot;
use tokio::task::{Id, JoinSet};

use super::clients::{ClientId, Clients, NewRow, News};
use super::rules::Rules;
use super::verify::{Verdict, Verifier};
use super::{Claims, CrawlerOptions};
use crate::keys::DimensionKeys;
use crate::lists::Layer;
use crate::state::CrawlerCounts;

/// A first claim is held back for so long at most, in case the answer comes meanwhile and is published with it.
const HOLD: Duration = Duration::from_millis(250);
/// The wait after a publication that failed.
const REPUBLISH: Duration = Duration::from_secs(1);
/// How often the task looks around though nothing happens.
const LOOK: Duration = Duration::from_secs(60);
/// So many verifications without an answer, one after the other, and none between with one, and DNS is said to fail.
const MOST_FAILURES: u32 = 5;

/// What the networks of a crawler say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// There are none.
    None,
    /// It is in one.
    Inside,
    /// It is in none, and all of them are known.
    Outside,
    /// It is in none that are known, and there may be others.
    Unknown,
}

/// The configured networks of crawlers, with their last good versions.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeLists {
    /// The crawler, its networks if they were read, and whether they are good now.
    pub(crate) lists: Vec<(usize, Option<Arc<Layer>>, bool)>,
}

impl RangeLists {
    pub(crate) fn of(&self, id: ClientId) -> Ranges {
        let mut found = Ranges::None;
        for (_, layer, is_good) in self.lists.iter().filter(|(crawler, ..)| *crawler == id.crawler) {
            let is_inside = layer.as_ref().is_some_and(|layer| {
                layer.values(id.ip).is_some_and(|mut values| values.any(|value| value == 1.0))
            });
            if is_inside {
                return Ranges::Inside;
            }
            let is_known = layer.is_some() && *is_good;
            found = if is_known && found != Ranges::Unknown { Ranges::Outside } else { Ranges::Unknown };
        }
        found
    }
}

/// What the task works with, and what it reports to.
pub(crate) struct Task<P, R> {
    pub(crate) options: CrawlerOptions,
    pub(crate) rules: Arc<Rules>,
    pub(crate) verifier: Verifier,
    pub(crate) claims: Arc<Claims>,
    /// Index of the dimension.
    pub(crate) dimension: usize,
    pub(crate) keys: DimensionKeys,
    pub(crate) publish_interval: Duration,
    /// Sends a change.
    pub(crate) publish: P,
    /// The configured networks as they are.
    pub(crate) ranges: R,
    /// Whether a previous daemon published rows.
    pub(crate) has_old_rows: bool,
    pub(crate) report: Box<dyn Fn(Report<'_>) + Send>,
}

/// What the rest of the daemon is told.
pub(crate) enum Report<'a> {
    /// How many clients there are.
    Counts(&'a CrawlerCounts),
    /// Clients were dropped.
    Dropped(u64),
    /// Something is known of a client.
    Verdict(ClientId, &'a Verdict),
    /// DNS fails, and why; or it does not any more.
    Dns(Option<&'a str>),
    /// So many rows were published.
    Published(u64),
    /// They could not be, and why.
    Unpublished(&'a str),
}

/// Verifications that are under way.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Verdict>,
    /// Of whom each is.
    clients: HashMap<Id, ClientId>,
}

impl Running {
    fn len(&self) -> usize {
        self.tasks.len()
    }

    fn spawn(&mut self, id: ClientId, verification: impl Future<Output = Verdict> + Send + 'static) {
        self.clients.insert(self.tasks.spawn(verification).id(), id);
    }

    /// The next that ends; never if there is none. One that panicked says nothing of its client.
    async fn next(&mut self) -> (ClientId, Verdict) {
        loop {
            let Some(done) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let (task, verdict) = match done {
                Ok(done) => done,
                Err(error) => (error.id(), Verdict::Unknown(format!("the verification failed: {error}"))),
            };
            if let Some(id) = self.clients.remove(&task) {
                return (id, verdict);
            }
        }
    }
}

type Sent = oneshot::Receiver<Result<(), String>>;

impl<P, R> Task<P, R>
where
    P: Fn(Change) -> Sent,
    R: Fn() -> RangeLists,
{
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let claims = self.claims.clone();
        let mut waiting = claims.waiting.lock().await;
        let began = Instant::now();
        let hold = HOLD.min(self.publish_interval / 2);
        let mut clients = Clients::new(&self.options, hold);
        let mut running = Running::default();
        let mut sent: Option<(Sent, News)> = None;
        let mut publish_from = Duration::ZERO;
        let mut failures = 0;
        // Rows of a previous daemon are stale by then, and of clients that did not come since.
        let mut replace_at = self.has_old_rows.then(|| self.options.max_age());
        (self.report)(Report::Counts(&clients.counts()));
        loop {
            let now = began.elapsed();
            self.ask(&mut clients, &mut running, now);
            if sent.is_none() && now >= publish_from {
                if replace_at.take_if(|at| *at <= now).is_some() {
                    clients.replace_all();
                }
                sent = self.publish(&mut clients, now);
            }
            let may_publish = sent.is_none() && now >= publish_from;
            let is_full = running.len() >= self.options.concurrency;
            // A client that is due has to wait while as many are asked about as may be.
            let wakes_at = clients.wakes_at(may_publish);
            let wakes_at = wakes_at.filter(|at| !(is_full && *at <= now)).unwrap_or(Duration::MAX);
            let until = wakes_at.min(if publish_from > now { publish_from } else { Duration::MAX });
            let wait = until.saturating_sub(now).clamp(Duration::from_millis(1), LOOK);
            tokio::select! {
                claim = waiting.recv() => {
                    let Some(first) = claim else { return };
                    let now = began.elapsed();
                    let mut next = Some(first);
                    // Others that wait already, within limits, so that none of the rest has to wait.
                    for _ in 0..1024 {
                        let Some(id) = next.take().or_else(|| waiting.try_recv().ok()) else { break };
                        let dropped = clients.claim(id, now);
                        if dropped > 0 {
                            (self.report)(Report::Dropped(dropped));
                        }
                    }
                }
                (id, verdict) = running.next() => {
                    self.note(&mut failures, &verdict);
                    self.conclude(&mut clients, id, &verdict, began.elapsed());
                }
                answer = answered(&mut sent) => {
                    let (answer, news) = answer;
                    match answer {
                        Ok(()) => (self.report)(Report::Published(clients.len() as u64)),
                        Err(error) => {
                            (self.report)(Report::Unpublished(&error));
                            clients.restate(news);
                            publish_from = began.elapsed() + REPUBLISH;
                        }
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            (self.report)(Report::Counts(&clients.counts()));
        }
    }

    /// Asks about as many clients as may be at a time.
    fn ask(&self, clients: &mut Clients, running: &mut Running, now: Duration) {
        while running.len() < self.options.concurrency {
            let Some(id) = clients.next(now) else { return };
            let lists = (self.ranges)().of(id);
            let rule = self.rules.of(id.crawler);
            let has_address = rule.is_some_and(|rule| rule.has_address(id.ip));
            let domains = rule.map(|rule| rule.domains.clone()).unwrap_or_default();
            let verdict = match lists {
                _ if has_address => Verdict::Verified(self.options.max_ttl),
                Ranges::Inside => Verdict::Verified(self.options.max_ttl),
                // No name that others can ask for belongs to such an address, and no stranger has it.
                _ if !is_public(id.ip) => Verdict::Untold,
                _ if !domains.is_empty() => {
                    let verifier = self.verifier.clone();
                    running.spawn(id, async move { verifier.verify(id.ip, &domains).await });
                    continue;
                }
                Ranges::Outside => Verdict::Fake(self.options.min_ttl),
                Ranges::Unknown => Verdict::Unknown("its networks are not known now".to_owned()),
                // Networks that an operator wrote down are all that are known.
                Ranges::None if rule.is_some_and(|rule| !rule.networks.is_empty()) => {
                    Verdict::Fake(self.options.max_ttl)
                }
                Ranges::None => Verdict::Untold,
            };
            self.conclude(clients, id, &verdict, now);
        }
    }

    fn conclude(&self, clients: &mut Clients, id: ClientId, verdict: &Verdict, now: Duration) {
        clients.conclude(id, verdict, now);
        (self.report)(Report::Verdict(id, verdict));
    }

    /// Tells that DNS fails, once, and that it does not any more.
    fn note(&self, failures: &mut u32, verdict: &Verdict) {
        match verdict {
            Verdict::Unknown(why) => {
                *failures = failures.saturating_add(1);
                if *failures == MOST_FAILURES {
                    (self.report)(Report::Dns(Some(why)));
                }
            }
            _ => {
                if *failures >= MOST_FAILURES {
                    (self.report)(Report::Dns(None));
                }
                *failures = 0;
            }
        }
    }

    /// Sends what is new, if anything is.
    fn publish(&self, clients: &mut Clients, now: Duration) -> Option<(Sent, News)> {
        let news = clients.news(now);
        if !news.is_whole && news.rows.is_empty() && news.gone.is_empty() {
            return None;
        }
        let mut upserts = Rows::new(2);
        let seconds = u32::try_from(crate::checkpoint::now_ms() / 1000).unwrap_or(u32::MAX);
        for NewRow { id, state, age } in &news.rows {
            let Some((key, category)) = self.key(*id) else { continue };
            let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            upserts.push(key, seconds.saturating_sub(age), &[f32::from(*state as u8), category]);
        }
        let change = if news.is_whole {
            DimensionChange::Replace(upserts)
        } else {
            let deletes = news.gone.iter().filter_map(|id| self.key(*id)).map(|(key, _)| key).collect();
            DimensionChange::Patch { upserts, deletes }
        };
        let change = Change { dimensions: vec![(self.dimension, change)] };
        Some(((self.publish)(change), news))
    }

    /// The key of a client's row, and its category.
    fn key(&self, id: ClientId) -> Option<(u64, f32)> {
        let crawler = CRAWLERS.get(id.crawler)?;
        let (v4, v6);
        let bytes: &[u8] = match id.ip {
            std::net::IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            std::net::IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        let value = |part| match part {
            0 => Some(Value::Binary(bytes)),
            1 => Some(Value::from(crawler.name)),
            _ => None,
        };
        Some((self.keys.key(value).ok()?, crate::category::category(crawler.category)))
    }
}

/// The answer to what was sent, which never comes if nothing was.
async fn answered(sent: &mut Option<(Sent, News)>) -> (Result<(), String>, News) {
    let Some((answer, _)) = sent else { return std::future::pending().await };
    let answer = answer.await.unwrap_or_else(|_| Err("the daemon is shutting down".to_owned()));
    (answer, sent.take().map(|(_, news)| news).unwrap_or_default())
}

/// Whether strangers may come from the address, and a name that all can ask for may belong to it.
fn is_public(ip: std::net::IpAddr) -> bool {
    match ip.to_canonical() {
        std::net::IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || is_shared)
        }
        std::net::IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests;
