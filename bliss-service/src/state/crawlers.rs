//! What is known of clients that say they are crawlers.

use bliss_core::http::CRAWLERS;
use jiff::Timestamp;
use serde::Serialize;

use super::{OriginState, State};
use crate::crawlers::clients::ClientId;
pub(crate) use crate::crawlers::clients::Counts as CrawlerCounts;
use crate::crawlers::verify::Verdict;
use crate::metrics::label;
use crate::refusal::{Reason, Refusal};

/// The verification of crawlers in `/status`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct CrawlersStatus {
    /// Clients by state.
    claimed: usize,
    verified: usize,
    fake: usize,
    /// Questions to DNS, and those without an answer.
    questions: u64,
    failures: u64,
    /// Clients that were dropped for others, and claims that there was no room for.
    dropped_clients: u64,
    dropped_claims: u64,
    /// Why DNS fails; absent while it does not.
    dns_failure: Option<DnsFailure>,
}

#[derive(Clone, Debug, Serialize)]
struct DnsFailure {
    message: String,
    since: Timestamp,
}

impl State {
    /// How many clients are in which state.
    pub(crate) fn crawler_counts(&self, counts: &CrawlerCounts) {
        let CrawlerCounts { claimed, verified, fake } = *counts;
        for (state, count) in [("claimed", claimed), ("verified", verified), ("fake", fake)] {
            let gauge = self.metrics.crawler_clients.get_or_create(&label("state", state)).clone();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let dropped = |what| self.metrics.crawler_dropped.get_or_create(&label("what", what)).get();
        let (dropped_claims, dropped_clients) = (dropped("claims"), dropped("clients"));
        let (questions, failures) =
            (self.metrics.crawler_questions.get(), self.metrics.crawler_failures.get());
        let mut status = self.lock();
        let dns_failure = status.crawlers.take().and_then(|before| before.dns_failure);
        status.crawlers = Some(CrawlersStatus {
            claimed,
            verified,
            fake,
            questions,
            failures,
            dropped_clients,
            dropped_claims,
            dns_failure,
        });
    }

    /// Something is known of a client, or nothing yet.
    pub(crate) fn crawler_verdict(&self, id: ClientId, verdict: &Verdict) {
        let name = CRAWLERS.get(id.crawler).map_or("", |crawler| crawler.name);
        let state = match verdict {
            Verdict::Verified(_) => "verified",
            Verdict::Fake(_) => "fake",
            Verdict::Unknown(why) => {
                tracing::debug!(ip = %id.ip, crawler = name, "not verified yet: {why}");
                "unknown"
            }
            Verdict::Untold => "untold",
        };
        let labels = [("crawler", name.to_owned()), ("verdict", state.to_owned())];
        self.metrics.crawler_verdicts.get_or_create(&labels).inc();
        if matches!(verdict, Verdict::Verified(_) | Verdict::Fake(_)) {
            tracing::debug!(ip = %id.ip, crawler = name, "{state}");
        }
    }

    /// Clients were dropped for others.
    pub(crate) fn crawlers_dropped(&self, clients: u64) {
        let dropped = self.metrics.crawler_dropped.get_or_create(&label("what", "clients")).clone();
        if dropped.inc_by(clients) == 0 {
            tracing::warn!(
                "more clients claim to be crawlers than are remembered (crawlers.max_clients): those that claimed longest ago are \
                 dropped, unverified ones first; counted in bliss_crawler_dropped_total, and not told again"
            );
        }
    }

    /// DNS fails, and why, or does not any more.
    pub(crate) fn crawler_dns(&self, failure: Option<&str>) {
        let mut status = self.lock();
        let Some(crawlers) = &mut status.crawlers else { return };
        match failure {
            Some(message) => tracing::warn!(
                "DNS does not answer, so that no crawler is verified; what is known of them stays for two of crawlers.max_ttl: {message}"
            ),
            None => tracing::info!("DNS answers again"),
        }
        let failed = |message: &str| DnsFailure { message: message.to_owned(), since: Timestamp::now() };
        crawlers.dns_failure = failure.map(failed);
    }

    /// Rows of crawlers were published; there are so many clients.
    pub(crate) fn crawlers_published(&self, origin: usize, clients: u64) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        let by_name = label("origin", &found.name);
        let now = Timestamp::now();
        let seconds = now.as_millisecond() as f64 / 1000.0;
        self.metrics.origin_rows.get_or_create(&by_name).set(i64::try_from(clients).unwrap_or(i64::MAX));
        self.metrics.origin_accepted_timestamp.get_or_create(&by_name).set(seconds);
        (found.rows, found.last_accepted_at) = (clients, Some(now));
        let is_unpublished = found.last_refusal.as_ref().is_some_and(|last| last.reason == "unpublished");
        if found.state == OriginState::Waiting || found.state == OriginState::Refused && is_unpublished {
            tracing::info!(origin = found.name, clients, "published");
            self.metrics.origin_refused.get_or_create(&by_name).set(0);
            found.state = OriginState::Accepted;
        }
    }

    /// Rows of crawlers could not be published.
    pub(crate) fn crawlers_unpublished(&self, origin: usize, error: &str) {
        self.refused(origin, &Refusal::new(Reason::Unpublished, error));
    }
}
