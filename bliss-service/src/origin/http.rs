//! Rows from a web server.

mod addresses;
mod arrival;
mod redirect;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::look::Look;
use super::{Context, Outcome, Resolver, Target};
use crate::config::defaults::{max_bytes, max_decoded_bytes, max_line_bytes, min_rows, seconds, warn_shrink};
use crate::config::source::ConfigError;
use crate::decode::{Limits, RowFormat};

pub use server::Server;
pub(super) use server::{Asked, ServerOptions};

/// Rows from a web server: ETag and gzip are used. Redirects are followed on the server of `url` (scheme, host and port).
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    name: Spanned<String>,
    dimensions: Vec<Spanned<String>>,
    url: Spanned<String>,
    /// By default what the path of the URL ends in.
    format: Option<RowFormat>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, String>,
    /// Further servers, of the same scheme, that redirects may lead to, for instance ["https://files.example"]. They get neither
    /// headers nor query of this origin. An address of this host, of its link or of a private network is gone to only from
    /// a `url` at such an address.
    #[serde(default)]
    redirect_to: Vec<Spanned<String>>,
    /// The environment's proxies are not used.
    proxy: Option<Spanned<String>>,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    interval: Duration,
    #[serde(default = "seconds::<5>", with = "humantime_serde")]
    connect_timeout: Duration,
    /// For everything, from connecting to the last byte.
    #[serde(default = "seconds::<30>", with = "humantime_serde")]
    timeout: Duration,
    /// After a failure: the first wait, doubled after each further failure up to the longest, with jitter.
    #[serde(default = "seconds::<1>", with = "humantime_serde")]
    retry_min: Duration,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    retry_max: Duration,
    /// As for files, and what follows.
    #[serde(default = "max_bytes")]
    max_bytes: u64,
    #[serde(default = "max_line_bytes")]
    max_line_bytes: u64,
    #[serde(default = "max_decoded_bytes")]
    max_decoded_bytes: u64,
    max_rows: Option<u64>,
    #[serde(default = "min_rows")]
    min_rows: u64,
    #[serde(default = "warn_shrink")]
    warn_shrink: f64,
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
#name = "sessions"
#dimensions = ["session"]
#url = "http://127.0.0.1:8080/sessions.jsonl"
#format = "jsonl"
#max_rows = 1000000
#headers = { Authorization = "Bearer TOKEN" }
#proxy = "http://proxy.example:3128"
"#;

impl Options {
    pub(super) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
        let Self { name, dimensions, interval, connect_timeout, timeout, retry_min, retry_max, .. } = self;
        let durations = [
            ("interval", interval),
            ("connect_timeout", connect_timeout),
            ("timeout", timeout),
            ("retry_min", retry_min),
            ("retry_max", retry_max),
        ];
        resolver.check_durations(&name, &durations)?;
        resolver.check_share(&name, "warn_shrink", self.warn_shrink)?;
        let server = ServerOptions {
            url: self.url,
            headers: self.headers,
            redirect_to: self.redirect_to,
            proxy: self.proxy,
            connect_timeout,
            timeout,
            retry_min,
            retry_max,
            max_bytes: self.max_bytes,
        };
        let server = server.resolve(resolver, &name)?;
        let http = Http {
            format: resolver.format(&name, self.format, server.url.path())?,
            server,
            interval,
            limits: Limits {
                max_bytes: self.max_bytes,
                max_line_bytes: self.max_line_bytes,
                max_decoded_bytes: self.max_decoded_bytes,
                max_rows: self.max_rows,
                min_rows: self.min_rows,
            },
            warn_shrink: self.warn_shrink,
        };
        resolver.add(&name, &dimensions, http).map(drop)
    }
}

/// `[[origin.http]]`, resolved.
#[derive(Clone, Debug)]
pub struct Http {
    /// Whom to ask, and how.
    pub server: Server,
    /// How its rows are written.
    pub format: RowFormat,
    /// How often to ask.
    pub interval: Duration,
    /// How large an answer may be.
    pub limits: Limits,
    /// The share of a dimension's rows beyond whose loss a warning is given.
    pub warn_shrink: f64,
}

impl super::Kind for Http {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let mut asked = Asked::new(self.server.clone(), target.rows(self.limits, self.format))?;
        loop {
            let look = tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                look = asked.look() => look,
            };
            let outcome = match look {
                Look::Unchanged { is_accepted } => {
                    context.state.unchanged(context.index, is_accepted);
                    Outcome::Unchanged
                }
                Look::Read(decoded, _) => context.conclude(decoded, self.warn_shrink).await,
            };
            let wait = asked.settle(outcome).unwrap_or(self.interval);
            if !context.sleep(wait).await {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
