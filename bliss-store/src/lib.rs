//! A directory of published features, models and policies: one type reads it, another publishes to it.
//!
//! [`Client`] reads. It opens the directory that a daemon publishes to, even before the daemon first ran, registers the
//! names it will use, and then looks up or scores one request after the other in about a microsecond, without system
//! calls, locks or allocations. One client per thread.
//!
//! `Publisher` (cargo feature `publish`) writes. One per directory, in any process.
//!
//! The programs in `examples` do one thing each: `store_publish`, `store_look_up`, `store_score`.
//!
//! ```
//! use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
//! use bliss_core::build::{Change, DimensionChange};
//! use bliss_core::{request::Request, score::Status, build::Rows};
//! use bliss_store::{Client, Publisher, PublishOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! // The daemon's side.
//! let ip = Dimension {
//!     name: "ip".into(),
//!     key: vec![KeyPart::whole("ip")],
//!     max_age_seconds: 600,
//!     on_stale: Default::default(),
//!     features: vec![Feature::number("requests_1m")],
//! };
//! let schema = Schema { dimensions: vec![ip], ..Schema::default() };
//! let mut publisher = Publisher::open(directory, &PublishOptions::default(), schema)?;
//! let mut rows = Rows::new(1);
//! rows.push(publisher.key(0, &["192.0.2.1".into()]).ok_or("not an address")?, 1_000, &[42.0]);
//! publisher.publish(Change { dimensions: vec![(0, DimensionChange::Replace(rows))] })?;
//!
//! // The reader's side.
//! let mut client = Client::open(directory)?;
//! let ip = client.names().attribute("ip")?;
//! let mut request = Request::new();
//! request.set_attribute(ip, "192.0.2.1".into());
//! let (values, statuses) = client.look_up(&request, 1_030)?;
//! assert_eq!((values, statuses), ([42.0].as_slice(), [Status::Fresh].as_slice()));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod binding;
mod client;
mod heartbeat;
mod metrics;
#[cfg(feature = "publish")]
mod publisher;
mod request_ids;
#[cfg(feature = "publish")]
mod sweep;

pub use client::{Client, ClientError, ClientOptions};
pub use metrics::{HeaderError, METRICS, MetricsError};
#[cfg(feature = "publish")]
pub use metrics::{MetricsFile, MetricsFileError};
#[cfg(feature = "publish")]
pub use publisher::{
    HeldFiles, Publication, PublishError, PublishMethod, PublishOptions, Publisher, check_directory,
    is_in_memory, missing_files,
};
#[cfg(feature = "publish")]
pub use sweep::{Expired, Sweeper};

/// Prefix of the files of features in the directory.
pub const FEATURES: &str = "features";
/// Prefix of the files of models in the directory.
pub const MODELS: &str = "models";
/// Prefix of the files of policies in the directory.
pub const POLICY: &str = "policy";
