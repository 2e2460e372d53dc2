//! Rows from a web server.

mod address;
mod chunks;
mod redirect;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use address::PublicOnly;
use chunks::Body;
use redirect::Hop;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::task::JoinHandle;
use toml::Spanned;

use super::retry::Backoff;
use super::{Context, Outcome, Resolver, Target};
use crate::config::defaults::{max_bytes, max_decoded_bytes, max_line_bytes, min_rows, seconds, warn_shrink};
use crate::config::source::ConfigError;
use crate::decode::gzip::Gzip;
use crate::decode::input;
use crate::decode::{Accepted, Decoder, Limits, RowFormat};
use crate::refusal::{Reason, Refusal};

/// Rows from a web server: ETag and gzip are used. Redirects are followed to the scheme, host and port of the URL, and to
/// servers in `redirects`. Headers and query are for the server of the URL only.
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
    /// Other servers to which redirects may lead, by scheme, which must be that of `url`, host and port. From a server on the
    /// internet none is followed to an address of this host or of a private network.
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    redirects: Vec<Spanned<String>>,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    interval: Duration,
    #[serde(default = "seconds::<5>", with = "humantime_serde")]
    connect_timeout: Duration,
    /// For everything, from connecting to the last byte; rows are decoded while they arrive.
    #[serde(default = "seconds::<30>", with = "humantime_serde")]
    timeout: Duration,
    /// After a failure: the first wait, doubled after each further failure up to the longest, with jitter.
    #[serde(default = "seconds::<1>", with = "humantime_serde")]
    retry_min: Duration,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    retry_max: Duration,
    #[serde(default = "max_bytes")]
    max_bytes: u64,
    #[serde(default = "max_line_bytes")]
    max_line_bytes: u64,
    /// As for files.
    #[serde(default = "max_decoded_bytes")]
    max_decoded_bytes: u64,
    max_rows: Option<u64>,
    #[serde(default = "min_rows")]
    min_rows: u64,
    /// As for files.
    #[serde(default = "warn_shrink")]
    warn_shrink: f64,
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
#name = "sessions"
#dimensions = ["session"]
#url = "http://127.0.0.1:8080/sessions.jsonl"
#format = "jsonl"
#headers = { Authorization = "Bearer TOKEN" }
#proxy = "http://proxy.example:3128"
#redirects = ["http://127.0.0.1:8081"]
#max_rows = 500000
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
        let redirects = self.redirects.iter().map(|text| {
            let server = url("redirects", text)?;
            if server.scheme() != parsed.scheme() {
                let message = format!(
                    "redirects: expected the scheme of `url`, {}, found {}",
                    parsed.scheme(),
                    server.scheme()
                );
                return Err(at(text, message));
            }
            let is_server = server.path() == "/" && server.query().is_none() && server.fragment().is_none();
            if !is_server || server.username() != "" || server.password().is_some() {
                return Err(at(
                    text,
                    "redirects: expected scheme, host and port alone, as https://files.example".into(),
                ));
            }
            Ok(server)
        });
        let redirects = redirects.collect::<Result<_, _>>()?;
        let http = Http {
            format: resolver.format(&name, self.format, parsed.path())?,
            url: parsed,
            headers,
            proxy: self.proxy.as_ref().map(|proxy| url("proxy", proxy)).transpose()?,
            redirects,
            interval,
            connect_timeout,
            timeout,
            retry_min,
            retry_max: retry_max.max(retry_min),
            limits: Limits {
                max_bytes: self.max_bytes,
                max_line_bytes: self.max_line_bytes,
                max_decoded_bytes: self.max_decoded_bytes,
                max_rows: self.max_rows,
                min_rows: self.min_rows,
                directory: PathBuf::new(),
            },
            warn_shrink: self.warn_shrink,
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
    /// Other servers to which redirects may lead.
    pub redirects: Vec<Url>,
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
    /// The share of a dimension's rows beyond whose loss a warning is given.
    pub warn_shrink: f64,
}

type Decoded = Result<Accepted, Refusal>;

enum Answer {
    NotModified,
    /// What became of the rows, and the entity tag.
    Rows(Decoded, Option<HeaderValue>),
}

impl super::Kind for Http {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let decoder = target.decoder(&self.limits);
        let clients = Clients::new(self)?;
        let mut backoff = Backoff::new(self.retry_min, self.retry_max);
        // The entity tag of the last answer, if that was accepted. One that was refused is fetched again, however the server
        // makes its tags: a corrected body is never taken for it.
        let mut accepted: Option<HeaderValue> = None;
        loop {
            let fetched = tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                // The client has this limit too; this one holds in every case.
                done = tokio::time::timeout(self.timeout, fetch(&clients, self, accepted.as_ref(), &decoder)) => {
                    done.unwrap_or_else(|_| Err(Refusal::unavailable(took_too_long(self))))
                }
            };
            let outcome = match fetched {
                Ok(Answer::NotModified) => {
                    context.state.unchanged(context.index, true);
                    Outcome::Unchanged
                }
                Ok(Answer::Rows(decoded, etag)) => {
                    let outcome = context.conclude(decoded, self.warn_shrink).await;
                    accepted = etag.filter(|_| matches!(outcome, Outcome::Published));
                    outcome
                }
                Err(refusal) => context.conclude(Err(refusal), self.warn_shrink).await,
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

struct Clients {
    any: Client,
    /// Connects to public addresses only, where it resolves names itself and not through a proxy.
    public: Client,
}

impl Clients {
    fn new(options: &Http) -> anyhow::Result<Self> {
        let public = client(options)?.dns_resolver(PublicOnly::shared()).build()?;
        Ok(Self { any: client(options)?.build()?, public })
    }
}

fn client(options: &Http) -> anyhow::Result<ClientBuilder> {
    // One TLS provider per process; it may be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("bliss-service/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .pool_idle_timeout(Duration::from_secs(90))
        // Followed here: the client would send the configured headers, and the query as the referrer, to anybody.
        .redirect(Policy::none())
        .referer(false)
        .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]))
        .no_proxy();
    if let Some(proxy) = &options.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    Ok(builder)
}

async fn fetch(
    clients: &Clients,
    options: &Http,
    accepted: Option<&HeaderValue>,
    decoder: &Arc<Decoder>,
) -> Result<Answer, Refusal> {
    let mut hop = Hop::first(&options.url);
    for _ in 0..=redirect::MOST {
        let client = if hop.is_public_only { &clients.public } else { &clients.any };
        let mut request = client.get(hop.url.clone());
        if hop.is_configured_server {
            request = request.headers(options.headers.clone());
        }
        if let Some(etag) = accepted {
            request = request.header(IF_NONE_MATCH, etag.clone());
        }
        let name = Name { options, hop: &hop };
        let response = request.send().await.map_err(|error| name.explain(&error))?;
        match (response.status(), response.headers().get(LOCATION)) {
            (StatusCode::NOT_MODIFIED, _) if accepted.is_some() => return Ok(Answer::NotModified),
            (StatusCode::OK, _) => {
                let etag = response.headers().get(ETAG).cloned();
                return Ok(Answer::Rows(rows(response, &name, decoder).await, etag));
            }
            (
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT,
                Some(location),
            ) => {
                // Of a proxy it says nothing.
                let from = response.remote_addr().filter(|_| options.proxy.is_none());
                let next = hop.follow(location, from, &options.url, &options.redirects);
                hop = next.map_err(|error| Refusal::unavailable(format!("{name}: a redirect: {error}")))?;
            }
            (status, _) => {
                let without = if hop.is_configured_server {
                    ""
                } else {
                    "; headers and query are not sent to another server: if this is the right one, set `url` to it"
                };
                let message = format!("{name}: expected status 200, found {status}{without}");
                return Err(Refusal::unavailable(message));
            }
        }
    }
    let message = format!("{}: more than {} redirects", shown(&options.url), redirect::MOST);
    Err(Refusal::unavailable(message))
}

/// Decodes the body while it arrives.
async fn rows(mut response: Response, name: &Name<'_>, decoder: &Arc<Decoder>) -> Decoded {
    let is_gzip = match response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => false,
        Some(coding) if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") => {
            true
        }
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            let message =
                format!("{name}: expected no compression or gzip, found Content-Encoding `{other}`");
            return Err(Refusal::new(Reason::Undecodable, message));
        }
    };
    let (chunks, body) = chunks::channel();
    let mut decoding = decode(decoder, name.options, body, is_gzip);
    let mut chunks = Some(chunks);
    let mut refused = None;
    let max_bytes = name.options.limits.max_bytes;
    let mut received = 0;
    let broken = loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break None,
            Err(error) => break Some(name.explain(&error)),
        };
        received += chunk.len() as u64;
        if received > max_bytes {
            let refusal = input::too_large("max_bytes", max_bytes);
            break Some(Refusal { message: format!("{name}: {}", refusal.message), ..refusal });
        }
        let Some(open) = &chunks else { continue };
        if !open.send(chunk).await {
            // What is left says whether it is a bad answer or half of one; too much is not read on.
            chunks = None;
            let decoded = ended(&mut decoding).await;
            if decoded.as_ref().is_err_and(|refusal| refusal.reason.is_of_size()) {
                return decoded;
            }
            refused = Some(decoded);
        }
    };
    match (broken, chunks, refused) {
        (None, _, Some(refused)) => refused,
        (None, Some(chunks), None) => {
            chunks.end().await;
            ended(&mut decoding).await
        }
        (broken, chunks, refused) => {
            // The decoder ends without an end, before another one begins.
            drop(chunks);
            let decoded = match refused {
                Some(refused) => refused,
                None => ended(&mut decoding).await,
            };
            broken.map_or(decoded, Err)
        }
    }
}

fn decode(decoder: &Arc<Decoder>, options: &Http, body: Body, is_gzip: bool) -> JoinHandle<Decoded> {
    let (decoder, name, format) = (decoder.clone(), shown(&options.url), options.format);
    tokio::task::spawn_blocking(move || match is_gzip {
        true => decoder.decode(&name, format, BufReader::with_capacity(1 << 16, Gzip::new(body))),
        false => decoder.decode(&name, format, body),
    })
}

async fn ended(decoding: &mut JoinHandle<Decoded>) -> Decoded {
    decoding.await.unwrap_or_else(|panic| Err(Refusal::unavailable(format!("decoding failed: {panic}"))))
}

/// What messages call the answer: its URL, and where redirects led.
struct Name<'a> {
    options: &'a Http,
    hop: &'a Hop,
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shown(&self.options.url))?;
        if self.hop.url != self.options.url {
            write!(f, ", redirected to {}", shown(&self.hop.url))?;
        }
        Ok(())
    }
}

/// The URL without what may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

fn took_too_long(options: &Http) -> String {
    format!("{}: no whole answer within {:?} (timeout)", shown(&options.url), options.timeout)
}

impl Name<'_> {
    fn explain(&self, error: &reqwest::Error) -> Refusal {
        if error.is_timeout() && !error.is_connect() {
            return Refusal::unavailable(took_too_long(self.options));
        }
        // The client's own text has the whole URL and not the cause.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let what = if error.is_connect() {
            "cannot connect"
        } else if error.is_body() || error.is_decode() {
            "the answer broke off"
        } else {
            "the request failed"
        };
        Refusal::unavailable(format!("{self}: {what}: {cause}"))
    }
}

#[cfg(test)]
mod tests;
