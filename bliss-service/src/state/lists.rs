//! The lists of an origin: which are good, which are refused, and which no longer change.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{OriginState, OriginStatus, RefusalStatus, State, noted, same};
use crate::metrics::{Labels, label};
use crate::origin::OriginKind;
use crate::refusal::Refusal;

/// A list in `/status`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ListStatus {
    /// The features that it fills.
    name: String,
    state: OriginState,
    /// Networks of its last good version.
    networks: u64,
    /// When it was last read and found good.
    accepted_at: Option<Timestamp>,
    /// When it changed last.
    changed_at: Option<Timestamp>,
    last_refusal: Option<RefusalStatus>,
    /// That it has not changed for too long; absent while it changes.
    alert: Option<Alert>,
}

#[derive(Clone, Debug, Serialize)]
struct Alert {
    message: String,
    since: Timestamp,
}

/// The lists of an origin, none read yet.
pub(super) fn of(kind: &OriginKind) -> Vec<ListStatus> {
    let sources = match kind {
        OriginKind::List(list) => &list.sources,
        OriginKind::Crawlers(crawlers) => &crawlers.ranges,
        _ => return Vec::new(),
    };
    let status = |source: &crate::origin::Source| ListStatus {
        name: source.name.clone(),
        state: OriginState::Waiting,
        networks: 0,
        accepted_at: None,
        changed_at: None,
        last_refusal: None,
        alert: None,
    };
    sources.iter().map(status).collect()
}

fn labels(origin: &str, list: &ListStatus) -> Labels<2> {
    [("origin", origin.to_owned()), ("list", list.name.clone())]
}

impl State {
    /// The list at index `list` of an origin was read and is good.
    pub fn list_accepted(&self, origin: usize, list: usize, networks: u64) {
        self.list(origin, list, |name, found| {
            let labels = labels(name, found);
            self.metrics
                .list_networks
                .get_or_create(&labels)
                .set(i64::try_from(networks).unwrap_or(i64::MAX));
            self.metrics.list_refused.get_or_create(&labels).set(0);
            match found.state {
                OriginState::Accepted => {
                    tracing::debug!(origin = name, list = found.name, networks, "accepted")
                }
                _ => tracing::info!(origin = name, list = found.name, networks, "accepted"),
            }
            found.state = OriginState::Accepted;
            found.networks = networks;
            found.accepted_at = Some(Timestamp::now());
        });
    }

    /// The list is what it was; if that was accepted, it is again.
    pub fn list_unchanged(&self, origin: usize, list: usize, is_accepted: bool) {
        self.list(origin, list, |name, found| {
            if !is_accepted {
                return;
            }
            if found.state == OriginState::Refused {
                tracing::info!(origin = name, list = found.name, "available again, and unchanged");
                self.metrics.list_refused.get_or_create(&labels(name, found)).set(0);
                found.state = OriginState::Accepted;
            }
            found.accepted_at = Some(Timestamp::now());
        });
    }

    /// What was read of the list is refused. Logged when the state changes, not at each retry.
    pub fn list_refused(&self, origin: usize, list: usize, refusal: &Refusal) {
        self.list(origin, list, |name, found| {
            self.metrics.list_refused.get_or_create(&labels(name, found)).set(1);
            let refusals = [("origin", name.to_owned()), ("reason", refusal.reason.name().into())];
            self.metrics.refusals.get_or_create(&refusals).inc();
            let is_new = found.state != OriginState::Refused || !same(found.last_refusal.as_ref(), refusal);
            if is_new {
                let reason = refusal.reason.name();
                tracing::error!(
                    origin = name,
                    list = found.name,
                    reason,
                    "refused; what was accepted before stays: {}",
                    refusal.message
                );
            }
            found.last_refusal = Some(noted(found.last_refusal.take(), refusal, is_new));
            found.state = OriginState::Refused;
        });
    }

    /// When the list changed last, and the limit that this is beyond, if it is.
    pub fn list_age(&self, origin: usize, list: usize, changed_at: Timestamp, beyond: Option<Duration>) {
        self.list(origin, list, |name, found| {
            let labels = labels(name, found);
            let seconds = changed_at.as_millisecond() as f64 / 1000.0;
            self.metrics.list_changed_timestamp.get_or_create(&labels).set(seconds);
            self.metrics.list_unchanged.get_or_create(&labels).set(i64::from(beyond.is_some()));
            found.changed_at = Some(changed_at);
            match (beyond, found.alert.is_some()) {
                (Some(limit), false) => {
                    let message = format!(
                        "it has not changed since {changed_at:.0}, for longer than {} (max_unchanged); see whether its publisher has \
                         given it up",
                        humantime_serde::re::humantime::format_duration(limit)
                    );
                    tracing::warn!(origin = name, list = found.name, "{message}");
                    found.alert = Some(Alert { message, since: Timestamp::now() });
                }
                (None, true) => {
                    tracing::info!(origin = name, list = found.name, "it changes again");
                    found.alert = None;
                }
                _ => (),
            }
        });
    }

    /// The lists of an origin were published: it is accepted if all of them are.
    pub fn lists_published(&self, origin: usize) {
        let mut status = self.lock();
        if let Some(found) = status.origins.get_mut(origin) {
            self.settle_lists(found);
        }
    }

    fn list(&self, origin: usize, list: usize, change: impl FnOnce(&str, &mut ListStatus)) {
        let mut status = self.lock();
        let Some(found) = status.origins.get_mut(origin) else { return };
        let OriginStatus { name, lists, .. } = found;
        if let Some(list) = lists.get_mut(list) {
            change(name, list);
        }
        self.settle_lists(found);
    }

    /// An origin of lists is refused while one of them is.
    fn settle_lists(&self, found: &mut OriginStatus) {
        let refused = found.lists.iter().find(|list| list.state == OriginState::Refused);
        let refusal = refused.and_then(|list| {
            let refusal = list.last_refusal.as_ref()?;
            Some(RefusalStatus {
                message: format!("list `{}`: {}", list.name, refusal.message),
                ..refusal.clone()
            })
        });
        let was_published = found.last_accepted_at.is_some();
        let gauge = self.metrics.origin_refused.get_or_create(&label("origin", &found.name)).clone();
        match refusal {
            Some(refusal) => {
                gauge.set(1);
                found.last_refusal = Some(refusal);
                found.state = OriginState::Refused;
            }
            // Its last publication may have failed.
            None if found.state == OriginState::Refused
                && was_published
                && found.last_refusal.as_ref().is_none_or(|last| last.reason != "unpublished") =>
            {
                gauge.set(0);
                found.state = OriginState::Accepted;
            }
            None => (),
        }
    }
}
