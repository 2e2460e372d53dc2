//! Rows from a web server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use toml::Spanned;

use super::retry::Backoff;
use super::{Context, Outcome, Resolver, Target};
use crate::config::defaults::{max_bytes, max_rows, min_rows, seconds};
use crate::config::source::ConfigError;
use crate::decode::{Accepted, Decoder, Limits, RowFormat};
use crate::refusal::{Reason, Refusal};

/// Rows from a web server: ETag and gzip are used, redirects are followed.
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
    #[serde(default = "max_bytes")]
    max_bytes: u64,
    #[serde(default = "max_rows")]
    max_rows: u64,
    #[serde(default = "min_rows")]
    min_rows: u64,
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
#name = "sessions"
#dimensions = ["session"]
#url = "http://127.0.0.1:8080/sessions.jsonl"
#format = "jsonl"
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
        let at = |text: &Spanned<String>, message: String| {
            resolver.source.at(text, format!("origin `{}`: {message}", name.get_ref()))
        };
        let url = |option: &str, text: &Spanned<String>| match text.get_ref().parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            Ok(_) => Err(at(text, format!("{option}: expected http:// or https://"))),
            Err(error) => Err(at(text, format!("{option}: {error}"))),
        };
        let mut headers = HeaderMap::new();
        for (header, value) in &self.headers {
            // The value may be a secret and is not repeated.
            let invalid = |_| at(header, format!("header `{}`: invalid name or value", header.get_ref()));
            let key = header.get_ref().parse::<HeaderName>().map_err(|_| invalid(()))?;
            let mut value = value.parse::<HeaderValue>().map_err(|_| invalid(()))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let parsed = url("url", &self.url)?;
        let http = Http {
            format: resolver.format(&name, self.format, parsed.path())?,
            url: parsed,
            headers,
            proxy: self.proxy.as_ref().map(|proxy| url("proxy", proxy)).transpose()?,
            interval,
            connect_timeout,
            timeout,
            retry_min,
            retry_max: retry_max.max(retry_min),
            limits: Limits { max_bytes: self.max_bytes, max_rows: self.max_rows, min_rows: self.min_rows },
        };
        resolver.add(&name, &dimensions, http).map(drop)
    }
}

/// `[[origin.http]]`, resolved.
#[derive(Clone, Debug)]
pub struct Http {
    /// What to get.
    pub url: Url,
    /// How its rows are written.
    pub format: RowFormat,
    /// Headers to send.
    pub headers: HeaderMap,
    /// The proxy to go through; the environment's are not used.
    pub proxy: Option<Url>,
    /// How often to ask.
    pub interval: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long everything may take, from connecting to the last byte.
    pub timeout: Duration,
    /// The first wait after a failure; it doubles with each further failure.
    pub retry_min: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
    /// How large an answer may be.
    pub limits: Limits,
}

/// The last answer: its entity tag, and whether it was accepted.
struct Seen {
    etag: HeaderValue,
    accepted: bool,
}

enum Answer {
    NotModified,
    Body { bytes: Vec<u8>, etag: Option<HeaderValue> },
}

impl super::Kind for Http {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let decoder = target.decoder(self.limits);
        let client = client(self)?;
        let mut backoff = Backoff::new(self.retry_min, self.retry_max);
        let mut seen: Option<Seen> = None;
        loop {
            let fetched = tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                // The client has this limit too; this one holds in every case.
                done = tokio::time::timeout(self.timeout, fetch(&client, self, seen.as_ref())) => {
                    done.unwrap_or_else(|_| Err(Refusal::unavailable(took_too_long(self))))
                }
            };
            let outcome = match fetched {
                Ok(Answer::NotModified) => {
                    let accepted = seen.as_ref().is_some_and(|seen| seen.accepted);
                    context.state.unchanged(context.index, accepted);
                    Outcome::Unchanged
                }
                Ok(Answer::Body { bytes, etag }) => {
                    let decoded = decode(&decoder, self, bytes).await;
                    let outcome = context.conclude(decoded).await;
                    let accepted = matches!(outcome, Outcome::Published);
                    let known = etag.filter(|_| !matches!(outcome, Outcome::Failed));
                    seen = known.map(|etag| Seen { etag, accepted });
                    outcome
                }
                Err(refusal) => context.conclude(Err(refusal)).await,
            };
            let wait = match outcome {
                Outcome::Failed => backoff.failed(),
                Outcome::Published | Outcome::Unchanged | Outcome::Refused => {
                    backoff.succeeded();
                    self.interval
                }
            };
            if !context.sleep(wait).await {
                return Ok(());
            }
        }
    }
}

fn client(options: &Http) -> anyhow::Result<Client> {
    // One TLS provider per process; it may be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("bliss-service/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .pool_idle_timeout(Duration::from_secs(90))
        .default_headers(options.headers.clone())
        .no_proxy();
    if let Some(proxy) = &options.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    Ok(builder.build()?)
}

async fn fetch(client: &Client, options: &Http, seen: Option<&Seen>) -> Result<Answer, Refusal> {
    let mut request = client.get(options.url.clone());
    if let Some(seen) = seen {
        request = request.header(IF_NONE_MATCH, seen.etag.clone());
    }
    let failed = |error: reqwest::Error| Refusal::unavailable(explain(options, &error));
    let mut response = request.send().await.map_err(failed)?;
    match response.status() {
        StatusCode::NOT_MODIFIED if seen.is_some() => return Ok(Answer::NotModified),
        StatusCode::OK => (),
        status => {
            let message = format!("{}: expected status 200, found {status}", shown(options));
            return Err(Refusal::unavailable(message));
        }
    }
    let etag = response.headers().get(ETAG).cloned();
    let max_bytes = options.limits.max_bytes;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if (bytes.len() + chunk.len()) as u64 > max_bytes {
            let message = format!("{}: more bytes than max_bytes ({max_bytes}) allows", shown(options));
            return Err(Refusal::new(Reason::TooLarge, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Answer::Body { bytes, etag })
}

async fn decode(decoder: &Arc<Decoder>, options: &Http, bytes: Vec<u8>) -> Result<Accepted, Refusal> {
    let (decoder, name, format) = (decoder.clone(), shown(options), options.format);
    let decoded = tokio::task::spawn_blocking(move || decoder.decode(&name, format, bytes.as_slice()));
    decoded.await.unwrap_or_else(|panic| Err(Refusal::unavailable(format!("decoding failed: {panic}"))))
}

/// The URL without what may be a secret.
fn shown(options: &Http) -> String {
    let mut url = options.url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

fn took_too_long(options: &Http) -> String {
    format!("{}: no whole answer within {:?} (timeout)", shown(options), options.timeout)
}

fn explain(options: &Http, error: &reqwest::Error) -> String {
    if error.is_timeout() && !error.is_connect() {
        return took_too_long(options);
    }
    // The client's own text has the whole URL and not the cause.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off or cannot be decompressed"
    } else {
        "the request failed"
    };
    format!("{}: {what}: {cause}", shown(options))
}

#[cfg(test)]
mod tests;
