//! The section `[crawlers]`: whether clients are the crawlers that they say they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bliss_core::http::CRAWLERS;
use serde::Deserialize;
use tokio::task::JoinSet;
use toml::Spanned;

use super::list::resolve::membership;
use super::list::{Place, Shared, Source, SourceOptions, follow, max_list_bytes};
use super::{Context, OriginKind, Resolver, Target};
use crate::config::defaults::{max_decoded_bytes, max_line_bytes, min_rows, warn_shrink};
use crate::config::source::ConfigError;
use crate::crawlers::rules::{Rules, index_of};
use crate::crawlers::task::{RangeLists, Report, Task};
use crate::crawlers::verify::Verifier;
use crate::crawlers::{CrawlerOptions, DIMENSION, dimension};
use crate::keys::DimensionKeys;
use crate::lists::{HostBits, ListFormat};

/// The name of the origin in logs, metrics and `/status`.
const NAME: &str = "crawlers";
/// The longest that an answer may count.
const LONGEST_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Whether clients are the crawlers that their user agents say they are: docs/crawlers.md. What followed access logs show is verified
/// by reverse and forward DNS and by networks, and published as the dimension `crawler`, which needs no declaration.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Nothing is asked unless this is true.
    enabled: Spanned<bool>,
    /// DNS servers, as addresses with or without a port; the host's if there are none.
    resolvers: Vec<Spanned<String>>,
    /// How long a question to DNS may take, and how often it is asked.
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    attempts: u32,
    /// An answer counts for as long as its records say, within these limits; up to 30days. Where DNS fails, what is known stays for two
    /// of `max_ttl`.
    #[serde(with = "humantime_serde")]
    min_ttl: Duration,
    #[serde(with = "humantime_serde")]
    max_ttl: Duration,
    /// Clients that are remembered; for one more, the one that claimed longest ago is dropped, unverified ones first.
    max_clients: usize,
    /// Clients that are asked about at a time.
    concurrency: usize,
    /// A file that adds domains and networks to crawlers that BLISS knows; docs/crawlers-own.toml is an example.
    #[cfg_attr(test, serde(skip_serializing))]
    rules: Option<Spanned<PathBuf>>,
    /// Networks of crawlers as their operators publish them: `crawler`, and `path` or `url`. They are read as lists are, with `format`
    /// ("text" or "json"), headers, redirect_to, proxy, members, host_bits, interval, timeout, min_rows, max_shrink, max_unchanged,
    /// max_bytes, max_line_bytes, max_decoded_bytes and max_rows of those.
    #[cfg_attr(test, serde(skip_serializing))]
    ranges: Vec<RangesOptions>,
}

/// Networks of a crawler.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangesOptions {
    crawler: Spanned<String>,
    path: Option<PathBuf>,
    url: Option<Spanned<String>>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    redirect_to: Vec<Spanned<String>>,
    proxy: Option<Spanned<String>>,
    format: Option<ListFormat>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    host_bits: HostBits,
    #[serde(default, with = "humantime_serde")]
    interval: Option<Duration>,
    #[serde(default = "crate::config::defaults::seconds::<60>", with = "humantime_serde")]
    timeout: Duration,
    #[serde(default = "min_rows")]
    min_rows: u64,
    #[serde(default = "warn_shrink")]
    max_shrink: f64,
    #[serde(default, with = "humantime_serde")]
    max_unchanged: Option<Duration>,
    #[serde(default = "max_list_bytes")]
    max_bytes: u64,
    #[serde(default = "max_line_bytes")]
    max_line_bytes: u64,
    #[serde(default = "max_decoded_bytes")]
    max_decoded_bytes: u64,
    max_rows: Option<u64>,
}

#[cfg(test)]
pub(crate) const SOURCE: &str = include_str!("crawlers.rs");
#[cfg(test)]
pub(crate) const EXAMPLE: &str = r#"
#enabled = true
#resolvers = ["127.0.0.1:53"]
#rules = "crawlers-own.toml"
#ranges = [
#{ crawler = "GPTBot", url = "https://openai.com/gptbot.json" },
#{ crawler = "UptimeRobot", path = "uptimerobot.txt", max_shrink = 0.2 },
#]
"#;

impl Default for Options {
    fn default() -> Self {
        let CrawlerOptions { timeout, attempts, min_ttl, max_ttl, max_clients, concurrency, .. } =
            CrawlerOptions::default();
        Self {
            enabled: Spanned::new(0..0, false),
            resolvers: Vec::new(),
            timeout,
            attempts,
            min_ttl,
            max_ttl,
            max_clients,
            concurrency,
            rules: None,
            ranges: Vec::new(),
        }
    }
}

/// `[crawlers]`, resolved.
#[derive(Clone, Debug)]
pub struct Crawlers {
    /// How clients are verified.
    pub options: CrawlerOptions,
    /// Domains and networks of each crawler.
    pub rules: Arc<Rules>,
    /// Networks that are read again and again.
    pub ranges: Vec<Source>,
    /// The index of the crawler of each of them.
    crawlers: Vec<usize>,
}

impl Options {
    /// Checks the section, and adds the origin if it is switched on.
    pub(crate) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
        let at = Spanned::new(self.enabled.span(), NAME.to_owned());
        let wrong = |message: String| resolver.source.at(&at, format!("crawlers.{message}"));
        let options = self.options(resolver)?;
        for ranges in &self.ranges {
            index_of(ranges.crawler.get_ref())
                .map_err(|error| resolver.source.at(&ranges.crawler, format!("crawlers.ranges: {error}")))?;
        }
        if !self.enabled.get_ref() {
            return Ok(());
        }
        let is_followed = |kind: &OriginKind| matches!(kind, OriginKind::AccessLog(log) if log.is_followed());
        if !resolver.origins().iter().any(|origin| is_followed(&origin.kind)) {
            let message = "enabled: clients are seen in access logs that are followed, and there is none; add an \
                           [[origin.access_log]]";
            return Err(wrong(message.to_owned()));
        }
        if resolver.schema().dimension_index(DIMENSION).is_some() {
            let message =
                "enabled: it fills the dimension `crawler` itself; remove the [[dimension]] of that name";
            return Err(wrong(message.to_owned()));
        }
        let mut rules = Rules::shipped().map_err(wrong)?;
        if let Some(path) = &self.rules {
            let file = resolver.file(path.get_ref().clone());
            let at = |error: String| {
                resolver.source.at(path, format!("crawlers.rules: {}: {error}", file.display()))
            };
            let text = std::fs::read_to_string(&file).map_err(|error| at(error.to_string()))?;
            rules.add(&text).map_err(at)?;
        }
        let (mut ranges, mut crawlers) = (Vec::new(), Vec::new());
        for options in self.ranges {
            crawlers.push(index_of(options.crawler.get_ref()).map_err(wrong)?);
            ranges.push(options.resolve(resolver)?);
        }
        resolver.declare(&at, dimension(options.max_age()))?;
        let dimension = Spanned::new(at.span(), DIMENSION.to_owned());
        let crawlers = Crawlers { options, rules: Arc::new(rules), ranges, crawlers };
        resolver.add(&at, &[dimension], crawlers).map(drop)
    }

    fn options(&self, resolver: &Resolver<'_>) -> Result<CrawlerOptions, ConfigError> {
        let wrong = |message: String| resolver.source.at(&self.enabled, format!("crawlers.{message}"));
        let address = |text: &Spanned<String>| {
            let found = text.get_ref();
            let with_port = |ip: IpAddr| SocketAddr::new(ip, 53);
            found.parse::<SocketAddr>().or_else(|_| found.parse::<IpAddr>().map(with_port)).map_err(|_| {
                let message = format!(
                    "crawlers.resolvers: expected an address with or without a port, such as \"127.0.0.1:53\", found {found:?}"
                );
                resolver.source.at(text, message)
            })
        };
        let resolvers = self.resolvers.iter().map(address).collect::<Result<_, _>>()?;
        if self.timeout < Duration::from_millis(10) || self.timeout > Duration::from_secs(60) {
            return Err(wrong(format!("timeout: expected 10ms to 1m, found {:?}", self.timeout)));
        }
        if !(1..=10).contains(&self.attempts) {
            return Err(wrong(format!("attempts: expected 1 to 10, found {}", self.attempts)));
        }
        if self.min_ttl < Duration::from_secs(1) || self.min_ttl > self.max_ttl {
            let message = format!("min_ttl: expected 1s to crawlers.max_ttl, found {:?}", self.min_ttl);
            return Err(wrong(message));
        }
        if self.max_ttl > LONGEST_TTL {
            return Err(wrong(format!("max_ttl: expected 30days at most, found {:?}", self.max_ttl)));
        }
        if !(1..=10_000_000).contains(&self.max_clients) {
            return Err(wrong(format!("max_clients: expected 1 to 10000000, found {}", self.max_clients)));
        }
        if !(1..=1024).contains(&self.concurrency) {
            return Err(wrong(format!("concurrency: expected 1 to 1024, found {}", self.concurrency)));
        }
        Ok(CrawlerOptions {
            resolvers,
            timeout: self.timeout,
            attempts: self.attempts,
            min_ttl: self.min_ttl,
            max_ttl: self.max_ttl,
            max_clients: self.max_clients,
            concurrency: self.concurrency,
        })
    }
}

impl RangesOptions {
    fn resolve(self, resolver: &Resolver<'_>) -> Result<Source, ConfigError> {
        let name = Spanned::new(self.crawler.span(), NAME.to_owned());
        if self.format.is_some_and(ListFormat::has_fields) {
            return Err(resolver.error(&name, "ranges: expected format = \"text\" or \"json\""));
        }
        let members = membership(DIMENSION, std::iter::once(self.crawler.get_ref()));
        let source = SourceOptions {
            feature: Some(self.crawler),
            columns: BTreeMap::new(),
            path: self.path,
            url: self.url,
            headers: self.headers,
            redirect_to: self.redirect_to,
            proxy: self.proxy,
            format: self.format,
            rules: None,
            field: None,
            members: self.members,
            host_bits: self.host_bits,
            interval: self.interval,
            timeout: self.timeout,
            min_rows: self.min_rows,
            max_shrink: self.max_shrink,
            max_unchanged: self.max_unchanged,
            max_bytes: self.max_bytes,
            max_line_bytes: self.max_line_bytes,
            max_decoded_bytes: self.max_decoded_bytes,
            max_rows: self.max_rows,
        };
        source.resolve(resolver, &name, &members)
    }
}

impl Crawlers {
    /// The files that it reads.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.ranges.iter().filter_map(|source| match &source.place {
            Place::File(path) => Some(path),
            Place::Server(_) => None,
        })
    }
}

impl super::Kind for Crawlers {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let (Some(claims), Some(&dimension)) = (context.claims.clone(), target.origin.dimensions.first())
        else {
            return Ok(());
        };
        let Some(of) = target.schema.dimensions.get(dimension) else { return Ok(()) };
        let (state, index) = (context.state.clone(), context.index);
        let verifier = Verifier::new(
            &self.options,
            state.metrics.crawler_questions.clone(),
            state.metrics.crawler_failures.clone(),
        );
        let verifier = verifier.map_err(anyhow::Error::msg)?;
        let shared = Arc::new(Shared::new(self.ranges.len()));
        let mut following = JoinSet::new();
        for (list, source) in self.ranges.iter().enumerate() {
            following.spawn(follow::run(list, source.clone(), context.clone(), shared.clone()));
        }
        let given = crate::decode::Given { dimension, ..Default::default() };
        let before = state.dimension_rows(&[given]).first().copied().flatten().unwrap_or(0);
        let (publisher, crawlers) = (context.publisher.clone(), self.crawlers.clone());
        let reported = state.clone();
        let task = Task {
            options: self.options.clone(),
            rules: self.rules.clone(),
            verifier,
            claims,
            dimension,
            keys: DimensionKeys::new(target.secret, target.schema, of),
            publish_interval: target.publish_interval,
            publish: move |change| publisher.send(change),
            ranges: move || {
                let (slots, _) = shared.slots();
                let lists =
                    crawlers.iter().zip(slots).map(|(crawler, slot)| (*crawler, slot.layer, slot.is_good));
                RangeLists { lists: lists.collect() }
            },
            has_old_rows: before > 0,
            report: Box::new(move |report| match report {
                Report::Counts(counts) => reported.crawler_counts(counts),
                Report::Dropped(clients) => reported.crawlers_dropped(clients),
                Report::Verdict(id, verdict) => reported.crawler_verdict(id, verdict),
                Report::Dns(failure) => reported.crawler_dns(failure),
                Report::Published(clients) => reported.crawlers_published(index, clients),
                Report::Unpublished(error) => reported.crawlers_unpublished(index, error),
            }),
        };
        tracing::info!(
            origin = NAME,
            crawlers = CRAWLERS.len(),
            "verifying clients that say they are crawlers"
        );
        let run = async {
            tokio::select! {
                () = task.run() => Ok(()),
                Some(ended) = following.join_next() => match ended {
                    // The daemon ends.
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(error),
                    Err(panic) => Err(panic.into()),
                },
            }
        };
        tokio::select! {
            () = context.stop.cancelled() => Ok(()),
            ended = run => ended,
        }
    }
}

#[cfg(test)]
mod tests;
