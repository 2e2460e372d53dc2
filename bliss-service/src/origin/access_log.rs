//! Features from the host's own traffic.

mod keeper;
mod thread;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bliss_core::key::{KeySecret, SECRET_BYTES};
use serde::Deserialize;
use tokio::sync::oneshot;
use toml::Spanned;
use xxhash_rust::xxh3::xxh3_64;

use super::{Context, Resolver, Target};
use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{BUILT_IN_DIMENSIONS, built_in_dimension, full_dimension};
use crate::access_log::follow::LogPaths;
use crate::access_log::health::HealthOptions;
use crate::access_log::parse::{FieldKind, Format, Parser};
use crate::checkpoint::{Meaning, identity};
use crate::config::defaults::seconds;
use crate::config::source::ConfigError;
use keeper::Keeper;
use thread::LogThread;

/// Features from the host's own traffic.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    name: Spanned<String>,
    path: Option<PathBuf>,
    /// In place of `path`: several, also by pattern, for instance ["/var/log/nginx/*access.log"]. Rotated files
    /// need no name of their own.
    #[serde(default)]
    paths: Vec<String>,
    dimensions: Option<Vec<Spanned<String>>>,
    /// Whether ip, subnet, user_agent and ip_user_agent are counted in windows of a minute, five minutes and an hour too, for
    /// models and rules that take rates: 132 features more, and counting takes nearly twice as long.
    #[serde(default)]
    windows: bool,
    /// "follow": read what is written to it. "replay": read it once, by its own clock.
    #[serde(default)]
    mode: Mode,
    /// "auto" (a line that begins with { is JSON), "combined" or "json".
    #[serde(default)]
    format: Format,
    /// Own names of JSON fields: time, ip, user_agent, referrer, method, path, request, host, scheme, status, bot_action, passed,
    /// simulated, and those of headers, from accept to sec_ch_ua_platform.
    #[serde(default)]
    fields: BTreeMap<FieldKind, String>,
    /// How far behind the last publication a line's time may lie and still count; at most 1h.
    #[serde(default = "seconds::<120>", with = "humantime_serde")]
    lateness: Duration,
    /// Keys that one dimension holds at most. For one more, the least active of a few is dropped, or it is not taken; both are
    /// counted in a metric. One /24, or /48 of IPv6, holds at most a sixteenth of a full dimension.
    #[serde(default = "max_keys")]
    max_keys: usize,
    /// Memory that the keys of one dimension take at most, in bytes; keys are dropped for it in the same way.
    #[serde(default = "max_bytes")]
    max_bytes: usize,
    /// How much of each file is read at the start, to fill windows and memory again, and of rotated files of the past week.
    #[serde(default = "backlog_bytes")]
    backlog_bytes: u64,
    /// Which share of a minute's lines may be malformed, late or early before /readyz says so; 1: any.
    #[serde(default = "max_unread_share")]
    max_unread_share: f64,
    /// After how long without a line /readyz says so; "0s": never, since a quiet site is no fault.
    #[serde(default = "seconds::<0>", with = "humantime_serde")]
    quiet_after: Duration,
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
name = "traffic"
path = "/var/log/nginx/access.log"
dimensions = ["ip", "subnet", "user_agent", "ip_user_agent", "subnet16", "path", "browser"]
"#;

/// Less would hold too few busy keys.
const LEAST_BYTES: usize = 1 << 20;

fn max_keys() -> usize {
    200_000
}

fn max_bytes() -> usize {
    AggregateOptions::default().max_bytes
}

fn backlog_bytes() -> u64 {
    256 << 20
}

fn max_unread_share() -> f64 {
    0.5
}

impl Options {
    pub(super) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
        let name = &self.name;
        let paths = match (self.path, self.paths.as_slice()) {
            (Some(path), []) => LogPaths::file(resolver.file(path)),
            (None, patterns @ [_, ..]) => LogPaths::globs(&resolver.file(PathBuf::new()), patterns)
                .map_err(|error| resolver.error(name, format!("paths: {error}")))?,
            (Some(_), _) => return Err(resolver.error(name, "expected `path` or `paths`, found both")),
            (None, []) => return Err(resolver.error(name, "expected `path` or `paths`, found neither")),
        };
        if self.mode == Mode::Replay && paths.only().is_none() {
            return Err(resolver.error(name, "paths: expected one log to replay; name it with `path`"));
        }
        if !(0.0..=1.0).contains(&self.max_unread_share) {
            return Err(resolver.error(name, "max_unread_share: expected 0 to 1"));
        }
        let built_in =
            || BUILT_IN_DIMENSIONS.iter().map(|built_in| Spanned::new(name.span(), (*built_in).to_owned()));
        let dimensions = self.dimensions.unwrap_or_else(|| built_in().collect());
        for dimension in &dimensions {
            let built_in = if self.windows { full_dimension } else { built_in_dimension };
            if let Some(built_in) = built_in(dimension.get_ref()) {
                resolver.declare(dimension, built_in)?;
            }
        }
        if self.max_keys == 0 {
            return Err(resolver.error(name, "max_keys: expected at least 1"));
        }
        if self.max_bytes < LEAST_BYTES {
            return Err(resolver.error(name, format!("max_bytes: expected at least {LEAST_BYTES}")));
        }
        if self.lateness > Duration::from_secs(3600) {
            return Err(resolver.error(name, "lateness: expected at most 1h"));
        }
        // Another format gives the same line another meaning.
        let format_fingerprint = xxh3_64(format!("{:?} {:?}", self.format, self.fields).as_bytes());
        let fields: Vec<_> = self.fields.into_iter().collect();
        let lateness_ms = self.lateness.as_millis() as u64;
        let log = AccessLog {
            paths,
            mode: self.mode,
            parser: Parser::new(self.format, &fields),
            format_fingerprint,
            aggregate: AggregateOptions {
                lateness_ms,
                max_keys: self.max_keys,
                max_bytes: self.max_bytes,
                is_replay: self.mode == Mode::Replay,
            },
            backlog_bytes: self.backlog_bytes,
            health: HealthOptions {
                max_unread_share: self.max_unread_share,
                quiet_after: self.quiet_after,
                lateness_ms,
            },
        };
        let indices = resolver.add(name, &dimensions, log)?.dimensions.clone();
        let secret = KeySecret([0; SECRET_BYTES]);
        Aggregator::new(resolver.schema(), &indices, &secret, AggregateOptions::default())
            .map_err(|error| resolver.error(name, error))?;
        Ok(())
    }
}

/// What is done with the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Reads what is written to it, by the clock of the host.
    #[default]
    Follow,
    /// Reads it once, by its own clock.
    Replay,
}

/// `[[origin.access_log]]`, resolved.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// The logs.
    pub paths: LogPaths,
    /// Whether it is followed or replayed.
    pub mode: Mode,
    /// Reads its lines.
    pub parser: Parser,
    /// What tells the parser from another one.
    pub format_fingerprint: u64,
    /// How late a line may come, and how many keys are held.
    pub aggregate: AggregateOptions,
    /// How much of a file that is there at the start is read.
    pub backlog_bytes: u64,
    /// What an operator is told of.
    pub health: HealthOptions,
}

impl AccessLog {
    /// Whether new lines are waited for.
    pub fn is_followed(&self) -> bool {
        self.mode == Mode::Follow
    }
}

impl super::Kind for AccessLog {
    /// Runs on a thread of its own: counting is work for a processor and not for the runtime's few threads.
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let Target { origin, schema, secret, publish_interval, .. } = target;
        let (done, ended) = oneshot::channel::<()>();
        let aggregator = Aggregator::new(schema, &origin.dimensions, secret, self.aggregate)?;
        let keeper = context.keep.clone().map(|keep| {
            let fingerprint = self.format_fingerprint ^ aggregator.fingerprint();
            let meaning = Meaning { fingerprint, secret: identity(secret) };
            Keeper::new(keep, &origin.name, meaning, aggregator.reach_ms())
        });
        let log = LogThread::new(context, &origin.name, self.clone(), aggregator, publish_interval, keeper);
        let name = format!("log {}", origin.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let _done = done;
            log.run();
        })?;
        let _ = ended.await;
        thread.join().map_err(|_| anyhow::anyhow!("the access log's thread panicked"))
    }

    /// A replayed log's rows are young by its own clock.
    fn has_own_clock(&self) -> bool {
        self.mode == Mode::Replay
    }
}

#[cfg(test)]
mod tests;
