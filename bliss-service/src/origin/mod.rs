//! Where features come from. Each origin is a task of its own, with its own interval and time limits.
//!
//! The file of an origin holds its options, whose doc comments become `docs/bliss.toml`, their resolution, its task and
//! its tests. To add an origin, write its file and name it in the list of `origins!` below.

mod access_log;
mod crawlers;
mod file;
mod http;
mod list;
mod look;
mod resolve;
mod retry;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bliss_core::key::KeySecret;
use bliss_core::schema::Schema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Keep;
use crate::config::source::ConfigError;
use crate::crawlers::Claims;
use crate::decisions::Watch;
use crate::decode::Accepted;
use crate::publish::PublishHandle;
use crate::refusal::{Reason, Refusal};
use crate::state::State;

pub(crate) use crawlers::Options as CrawlerOptions;
#[cfg(test)]
pub(crate) use crawlers::{EXAMPLE as CRAWLERS_EXAMPLE, SOURCE as CRAWLERS_SOURCE};
pub use http::Server;
pub(crate) use list::Wanted;
pub use list::{Place, Source};
pub(crate) use resolve::Resolver;

/// What each kind of origin implements.
trait Kind {
    /// Runs until the daemon ends.
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()>;

    /// Whether `updated_at` of its rows is by a clock other than the host's.
    fn has_own_clock(&self) -> bool {
        false
    }
}

/// Makes [`Options`] and [`OriginKind`] of a list of `file: Kind`, where the module `file` has the types `Options`, with
/// `resolve`, and `Kind`. Those behind the semicolon have a section of their own in
/// the configuration, and are no table `[[origin.…]]`.
macro_rules! origins {
    (
        $($(#[$doc:meta])* $file:ident: $kind:ident,)+
        ;
        $($(#[$own_doc:meta])* $own_file:ident: $own_kind:ident,)+
    ) => {
        $(pub use $file::$kind;)+
        $(pub use $own_file::$own_kind;)+

        /// The tables `[[origin.…]]` of the configuration.
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Options {
            $($file: Vec<$file::Options>,)+
        }

        impl Options {
            /// Resolves all origins.
            pub(crate) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
                $(self.$file.into_iter().try_for_each(|options| options.resolve(resolver))?;)+
                Ok(())
            }
        }

        /// The kinds of origin.
        #[derive(Clone, Debug)]
        #[allow(clippy::large_enum_variant, reason = "there are as many as there are origins")]
        pub enum OriginKind {
            $($(#[$doc])* $kind($kind),)+
            $($(#[$own_doc])* $own_kind($own_kind),)+
        }

        $(impl From<$kind> for OriginKind {
            fn from(kind: $kind) -> Self {
                Self::$kind(kind)
            }
        })+

        $(impl From<$own_kind> for OriginKind {
            fn from(kind: $own_kind) -> Self {
                Self::$own_kind(kind)
            }
        })+

        impl OriginKind {
            /// The kind's name, as in the configuration.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => stringify!($file),)+
                    $(Self::$own_kind(_) => stringify!($own_file),)+
                }
            }

            /// Whether `updated_at` of its rows is by a clock other than the host's.
            pub fn has_own_clock(&self) -> bool {
                match self {
                    $(Self::$kind(kind) => kind.has_own_clock(),)+
                    $(Self::$own_kind(kind) => kind.has_own_clock(),)+
                }
            }
        }

        /// Runs an origin until the daemon ends.
        ///
        /// # Errors
        /// It cannot start: there is no thread or no HTTP client.
        pub async fn run(context: Context, target: Target<'_>) -> anyhow::Result<()> {
            match &target.origin.kind {
                $(OriginKind::$kind(kind) => kind.run(context, target).await,)+
                $(OriginKind::$own_kind(kind) => kind.run(context, target).await,)+
            }
        }

        /// The sections of `docs/bliss.toml`.
        #[cfg(test)]
        pub(crate) fn sections() -> Vec<crate::config::documentation::Section> {
            use crate::config::documentation::Section;
            vec![$(Section::new::<$file::Options>(
                concat!("[[origin.", stringify!($file), "]]"),
                include_str!(concat!(stringify!($file), ".rs")),
                "Options",
                $file::EXAMPLE,
            ),)+]
        }
    };
}

origins! {
    /// A file of rows, read again when it changes.
    file: File,
    /// Rows from a web server.
    http: Http,
    /// Lists of networks, each a feature.
    list: List,
    /// The host's own traffic.
    access_log: AccessLog,
    ;
    /// Whether clients are the crawlers that they say they are.
    crawlers: Crawlers,
}

/// Where the features of some dimensions come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its name in logs, metrics and `/status`.
    pub name: String,
    /// The dimensions that it fills, by their index in the schema.
    pub dimensions: Vec<usize>,
    /// What it reads, and how.
    pub kind: OriginKind,
}

/// An origin, and what it fills.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The origin.
    pub origin: &'a Origin,
    /// All dimensions.
    pub schema: &'a Schema,
    /// The secret that keys are hashed with.
    pub secret: &'a KeySecret,
    /// Where they are published.
    pub directory: &'a Path,
    /// The time between two publications.
    pub publish_interval: Duration,
}

/// What every origin works with.
#[derive(Clone)]
pub struct Context {
    /// Its index in the configuration.
    pub index: usize,
    /// Where it reports to.
    pub state: Arc<State>,
    /// Where it sends what changed.
    pub publisher: PublishHandle,
    /// Where it keeps what a restart must not lose, if anywhere.
    pub keep: Option<Arc<Keep>>,
    /// What takes note of decisions, if anything does.
    pub decisions: Option<Watch>,
    /// Clients that say they are crawlers, on their way from access logs to what verifies them, if anything does.
    pub claims: Option<Arc<Claims>>,
    /// Cancelled when the daemon ends.
    pub stop: CancellationToken,
}

/// The result of one fetch.
enum Outcome {
    /// Rows were published.
    Published,
    /// There is nothing new.
    Unchanged,
    /// It was refused, and stays so until it changes.
    Refused,
    /// It could not be fetched or published; to be retried.
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

    /// Publishes what was accepted, or records why it was refused.
    async fn conclude(&self, decoded: Result<Accepted, Refusal>, warn_shrink: f64) -> Outcome {
        let refusal = match decoded {
            Ok(Accepted { change, rows, key_collisions, newest_updated_at, given }) => {
                let before = self.state.dimension_rows(&given);
                match self.publisher.publish(change).await {
                    Ok(()) => {
                        self.state.accepted(self.index, rows, newest_updated_at, key_collisions);
                        self.state.examine(self.index, &given, &before, warn_shrink);
                        return Outcome::Published;
                    }
                    Err(_) if self.stop.is_cancelled() => return Outcome::Failed,
                    Err(error) => Refusal::new(Reason::Unpublished, error),
                }
            }
            Err(refusal) => refusal,
        };
        self.state.refused(self.index, &refusal);
        match refusal.reason {
            Reason::Unavailable | Reason::Unpublished => Outcome::Failed,
            _ => Outcome::Refused,
        }
    }
}
