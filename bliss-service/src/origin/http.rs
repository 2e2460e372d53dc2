//! Rows from a web server.

mod addresses;
mod arrival;
mod redirect;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use addresses::{Guard, Kind, Lookup};
use arrival::Part;
use redirect::Hop;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use toml::Spanned;

use super::retry::Backoff;
use super::{Context, Outcome, Resolver, Target};
use crate::config::defaults::{max_bytes, max_decoded_bytes, max_line_bytes, min_rows, seconds, warn_shrink};
use crate::config::source::ConfigError;
use crate::decode::gzip::Gzip;
use crate::decode::{Accepted, Decoder, Limits, RowFormat};
use crate::refusal::{Reason, Refusal};

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
        let mut redirect_to = Vec::new();
        for text in &self.redirect_to {
            let server = url("redirect_to", text)?;
            if server.scheme() != parsed.scheme() {
                let message = format!("redirect_to: expected {}:// as in `url`", parsed.scheme());
                return Err(at(text, message));
            }
            if server.as_str().trim_end_matches('/') != server.origin().ascii_serialization() {
                let message =
                    "redirect_to: expected scheme, host and port, for instance \"https://files.example\"";
                return Err(at(text, message.to_owned()));
            }
            redirect_to.push(server);
        }
        let http = Http {
            format: resolver.format(&name, self.format, parsed.path())?,
            url: parsed,
            headers,
            redirect_to,
            proxy: self.proxy.as_ref().map(|proxy| url("proxy", proxy)).transpose()?,
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
    /// Servers besides that of `url` that redirects may lead to, of the same scheme.
    pub redirect_to: Vec<Url>,
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
    /// The share of a dimension's rows beyond whose loss a warning is given.
    pub warn_shrink: f64,
}

enum Answer {
    NotModified,
    /// What the body was decoded to, and the entity tag.
    Body(Result<Accepted, Refusal>, Option<HeaderValue>),
}

impl super::Kind for Http {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let decoder = target.decoder(self.limits);
        let clients = Clients::new(self, addresses::system())?;
        let mut backoff = Backoff::new(self.retry_min, self.retry_max);
        // The entity tag of the last answer, if that was accepted. One that was refused is fetched again, however the server
        // makes its tags: a corrected body is never taken for it.
        let mut accepted: Option<HeaderValue> = None;
        loop {
            let fetched = tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                // The client has this limit too; this one holds in every case.
                done = tokio::time::timeout(self.timeout, fetch(&clients, self, &decoder, accepted.as_ref())) => {
                    done.unwrap_or_else(|_| Err(Refusal::unavailable(took_too_long(self))))
                }
            };
            let outcome = match fetched {
                Ok(Answer::NotModified) => {
                    context.state.unchanged(context.index, true);
                    Outcome::Unchanged
                }
                Ok(Answer::Body(decoded, etag)) => {
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

/// The clients of an origin.
struct Clients {
    first: Client,
    /// For redirects. It keeps no connection, so that each address it connects to has been checked.
    redirected: Client,
    /// What that client resolves names with.
    guard: Guard,
}

impl Clients {
    fn new(options: &Http, lookup: Lookup) -> anyhow::Result<Self> {
        let guard = Guard::new(lookup.clone());
        let mut redirected = builder(options)?.pool_max_idle_per_host(0);
        // A proxy resolves names itself, and its own address is the operator's choice.
        if options.proxy.is_none() {
            redirected = redirected.dns_resolver(guard.clone());
        }
        let first = builder(options)?.dns_resolver(Guard::new(lookup)).build()?;
        Ok(Self { first, redirected: redirected.build()?, guard })
    }
}

fn builder(options: &Http) -> anyhow::Result<ClientBuilder> {
    // One TLS provider per process; it may be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("bliss-service/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .pool_idle_timeout(Duration::from_secs(90))
        // Followed here: the client would go anywhere, and send the configured headers, and the query as the referrer, to
        // anybody.
        .redirect(Policy::none())
        .referer(false)
        .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]))
        .no_proxy();
    if let Some(proxy) = &options.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    Ok(builder)
}

/// The kind of the address at which the configured server is: the one that was connected to, or, behind a proxy, which alone
/// knows that, the one that the URL names.
fn kind_of_server(options: &Http, response: &Response) -> Kind {
    let address = match options.proxy {
        None => response.remote_addr().map(|address| address.ip()),
        Some(_) => addresses::literal(&options.url),
    };
    address.map_or(Kind::Public, Kind::of)
}

async fn fetch(
    clients: &Clients,
    options: &Http,
    decoder: &Arc<Decoder>,
    accepted: Option<&HeaderValue>,
) -> Result<Answer, Refusal> {
    let mut hop = Hop::first(&options.url);
    // That of the configured server's address, from the first answer on.
    let mut kind = None;
    for _ in 0..=redirect::MOST {
        let client = if kind.is_none() { &clients.first } else { &clients.redirected };
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
            (StatusCode::OK, _) => return body(response, &name, decoder).await,
            (
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT,
                Some(location),
            ) => {
                let from = *kind.get_or_insert_with(|| kind_of_server(options, &response));
                clients.guard.restrict(from);
                let next = hop.follow(location, &options.url, &options.redirect_to).and_then(|next| {
                    // The client resolves names only.
                    match addresses::literal(&next.url) {
                        Some(address) if !from.may_lead_to(Kind::of(address)) => {
                            Err(addresses::refusal(next.url.host_str().unwrap_or_default(), address, from))
                        }
                        _ => Ok(next),
                    }
                });
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

/// Decodes a body while it arrives; at most a few chunks of it are in memory.
async fn body(mut response: Response, name: &Name<'_>, decoder: &Arc<Decoder>) -> Result<Answer, Refusal> {
    let headers = response.headers();
    let etag = headers.get(ETAG).cloned();
    let is_gzip = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
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
    let (parts, arriving) = arrival::body();
    let (decoder, text, format) = (decoder.clone(), shown(&name.options.url), name.options.format);
    let decoding = tokio::task::spawn_blocking(move || match is_gzip {
        true => decoder.decode(&text, format, BufReader::with_capacity(1 << 16, Gzip::new(arriving))),
        false => decoder.decode(&text, format, arriving),
    });
    let max_bytes = name.options.limits.max_bytes;
    let mut bytes = 0u64;
    let arrived = loop {
        let part = match response.chunk().await {
            Err(error) => break Err(name.explain(&error)),
            Ok(None) => Part::End,
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                if bytes > max_bytes {
                    let message = format!("{name}: more than {max_bytes} bytes (max_bytes)");
                    break Err(Refusal::new(Reason::TooLarge, message));
                }
                Part::Chunk(chunk)
            }
        };
        let is_end = matches!(part, Part::End);
        // A decoder that hears no more has refused it.
        if parts.send(part).await.is_err() || is_end {
            break Ok(());
        }
    };
    drop((parts, response));
    let decoded = decoding.await;
    // That it broke off is the reason, not what the decoder made of it.
    arrived?;
    let failed = |panic| Err(Refusal::unavailable(format!("decoding failed: {panic}")));
    Ok(Answer::Body(decoded.unwrap_or_else(failed), etag))
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
