//! Whether clients that say they are crawlers are the ones that they say they are.
//!
//! | module | what it does |
//! |---|---|
//! | `watch` | sees claims in the lines of access logs |
//! | `clients` | which clients claim what, what is known of them and when they are asked about next, within limits |
//! | `rules` | domains and networks of each crawler |
//! | `verify` | reverse and forward DNS |
//! | `task` | all of it together; publishes the dimension |
//!
//! `docs/crawlers.md` says what the states mean. Nothing here is in the way of other publications: claims are handed over without
//! waiting, and names are asked for by tasks of their own.

pub mod clients;
pub mod rules;
pub(crate) mod task;
pub mod verify;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use bliss_core::schema::{Dimension, Feature, FeatureKind, KeyPart, OnStale};

pub use watch::{Claims, Watch};

/// The dimension that says what is known of crawlers.
pub const DIMENSION: &str = "crawler";

/// How clients are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrawlerOptions {
    /// The DNS servers that are asked; the host's if there are none.
    pub resolvers: Vec<SocketAddr>,
    /// How long one question may take.
    pub timeout: Duration,
    /// How often it is asked before it counts as not answered.
    pub attempts: u32,
    /// An answer counts for as long as its records say, but not for less.
    pub min_ttl: Duration,
    /// And not for longer.
    pub max_ttl: Duration,
    /// Clients that are remembered.
    pub max_clients: usize,
    /// Clients that are asked about at a time.
    pub concurrency: usize,
}

impl Default for CrawlerOptions {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            min_ttl: Duration::from_secs(300),
            max_ttl: Duration::from_secs(86_400),
            max_clients: 50_000,
            concurrency: 16,
        }
    }
}

impl CrawlerOptions {
    /// How long a state holds that nothing confirms.
    pub fn max_age(&self) -> Duration {
        self.max_ttl * 2
    }
}

/// The dimension `crawler`, whose rows are stale after `max_age`.
pub fn dimension(max_age: Duration) -> Dimension {
    let category = Feature {
        name: "category".into(),
        kind: FeatureKind::Category,
        default: crate::category::category(""),
        min: None,
        max: None,
    };
    Dimension {
        name: DIMENSION.into(),
        key: vec![KeyPart::whole("ip"), KeyPart::whole("crawler")],
        max_age_seconds: u32::try_from(max_age.as_secs()).unwrap_or(u32::MAX),
        // A state that nothing confirms any more is none.
        on_stale: OnStale::Default,
        features: vec![Feature { min: Some(0.0), max: Some(3.0), ..Feature::number("state") }, category],
    }
}
