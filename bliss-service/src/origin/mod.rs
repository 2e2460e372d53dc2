//! Where features come from. Each origin is a task of its own, with its own interval and time limits.

mod access_log;
mod file;
mod http;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use bliss_core::key::KeySecret;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Origin, OriginKind};
use crate::decode::{Accepted, Decoder, Reason, Refusal};
use crate::publish::PublishHandle;
use crate::state::State;

pub(crate) use file::{Fingerprint, open_regular};

/// What every origin works with.
#[derive(Clone)]
pub struct Context {
    /// Its place in the configuration.
    pub place: usize,
    /// Where it reports to.
    pub state: Arc<State>,
    /// Where it sends what changed.
    pub publisher: PublishHandle,
    /// Cancelled when the daemon ends.
    pub stop: CancellationToken,
}

/// What came of one look at an origin.
enum Outcome {
    /// Rows were published.
    Published,
    /// There is nothing new.
    Unchanged,
    /// It was refused, and will be until it changes.
    Refused,
    /// It could not be had, or not be published; to be tried again.
    Failed,
}

impl Context {
    /// Sleeps; false if the daemon ends meanwhile.
    async fn sleep(&self, wait: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// Publishes what was accepted, or notes why it was refused.
    async fn conclude(&self, decoded: Result<Accepted, Refusal>) -> Outcome {
        let refusal = match decoded {
            Ok(Accepted { change, rows, key_collisions, newest_updated_at }) => {
                match self.publisher.publish(change).await {
                    Ok(()) => {
                        self.state.accepted(self.place, rows, newest_updated_at, key_collisions);
                        return Outcome::Published;
                    }
                    Err(_) if self.stop.is_cancelled() => return Outcome::Failed,
                    Err(error) => Refusal::new(Reason::Unpublished, error),
                }
            }
            Err(refusal) => refusal,
        };
        self.state.refused(self.place, &refusal);
        match refusal.reason {
            Reason::Unavailable | Reason::Unpublished => Outcome::Failed,
            _ => Outcome::Refused,
        }
    }
}

/// Runs the origin at place `context.place` of `config` until the daemon ends.
///
/// # Errors
/// It cannot begin: there is no thread or no HTTP client to be had.
pub async fn run(context: Context, config: &Config, secret: &KeySecret) -> anyhow::Result<()> {
    let Some(Origin { name, dimensions, kind }) = config.origins.get(context.place) else { return Ok(()) };
    let decoder = |limits| Arc::new(Decoder::new(&config.schema, dimensions, secret, limits));
    match kind {
        OriginKind::File(options) => file::run(context, options, decoder(options.limits)).await,
        OriginKind::Http(options) => http::run(context, options, decoder(options.limits)).await?,
        OriginKind::AccessLog(options) => {
            let aggregator = crate::access_log::aggregate::Aggregator::new(
                &config.schema,
                dimensions,
                secret,
                options.aggregate,
            )?;
            access_log::run(context, name, options, aggregator, config.publish_interval).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
