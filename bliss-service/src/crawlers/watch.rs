//! Claims of clients, from the lines of access logs to the task that verifies them.

use std::net::IpAddr;
use std::sync::Arc;

use bliss_core::http::crawler_of;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::clients::ClientId;
use crate::access_log::parse::Record;
use crate::config::Config;
use crate::metrics::label;
use crate::origin::OriginKind;
use crate::state::State;

/// So many claims may wait; more are dropped and counted. A client that goes on claims again with its next request.
const MOST_WAITING: usize = 4096;

/// The way of claims.
#[derive(Debug)]
pub struct Claims {
    watch: Watch,
    /// Taken by the task, and by the one after it where it had to be restarted.
    pub(super) waiting: Mutex<Receiver<ClientId>>,
}

impl Claims {
    /// For a configuration that verifies crawlers; `None` for another.
    pub fn of(config: &Config, state: &State) -> Option<Arc<Self>> {
        let is_wanted = |kind: &OriginKind| matches!(kind, OriginKind::Crawlers(_));
        config
            .origins
            .iter()
            .any(|origin| is_wanted(&origin.kind))
            .then(|| Self::new(state.metrics.crawler_dropped.get_or_create(&label("what", "claims")).clone()))
    }

    /// Those that are dropped are counted.
    pub(super) fn new(dropped: Counter) -> Arc<Self> {
        let (claims, waiting) = channel(MOST_WAITING);
        Arc::new(Self { watch: Watch { claims, dropped }, waiting: Mutex::new(waiting) })
    }

    /// For the lines of a log.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

/// Takes the lines of one log. Never waits.
#[derive(Clone, Debug)]
pub struct Watch {
    claims: Sender<ClientId>,
    dropped: Counter,
}

impl Watch {
    /// Takes a request: if its agent claims a crawler, that is to be verified.
    pub fn offer(&self, record: &Record<'_>) {
        if let Some(crawler) = record.user_agent.as_deref().and_then(crawler_of) {
            self.claim(record.ip, crawler);
        }
    }

    /// Takes the claim of an address to be the crawler at this index.
    pub(crate) fn claim(&self, ip: IpAddr, crawler: usize) {
        if self.claims.try_send(ClientId { ip: ip.to_canonical(), crawler }).is_err() {
            self.dropped.inc();
        }
    }
}
