//! A web server that an origin asks: whom, how, and what came of it.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    LAST_MODIFIED, LOCATION,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use toml::Spanned;

use super::addresses::{self, Guard, Kind, Lookup};
use super::arrival::{self, Part};
use super::redirect::{self, Hop};
use crate::config::source::ConfigError;
use crate::decode::gzip::Gzip;
use crate::origin::look::{Decode, Look};
use crate::origin::retry::Backoff;
use crate::origin::{Outcome, Resolver};
use crate::refusal::{Reason, Refusal};

/// What an operator says of a server.
pub(in crate::origin) struct ServerOptions {
    pub(in crate::origin) url: Spanned<String>,
    pub(in crate::origin) headers: BTreeMap<Spanned<String>, String>,
    pub(in crate::origin) redirect_to: Vec<Spanned<String>>,
    pub(in crate::origin) proxy: Option<Spanned<String>>,
    pub(in crate::origin) connect_timeout: Duration,
    pub(in crate::origin) timeout: Duration,
    pub(in crate::origin) retry_min: Duration,
    pub(in crate::origin) retry_max: Duration,
    pub(in crate::origin) max_bytes: u64,
}

impl ServerOptions {
    /// The server that the origin `name` asks; durations are checked already.
    pub(in crate::origin) fn resolve(
        self,
        resolver: &Resolver<'_>,
        name: &Spanned<String>,
    ) -> Result<Server, ConfigError> {
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
        Ok(Server {
            url: parsed,
            headers,
            redirect_to,
            proxy: self.proxy.as_ref().map(|proxy| url("proxy", proxy)).transpose()?,
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            retry_min: self.retry_min,
            retry_max: self.retry_max.max(self.retry_min),
            max_bytes: self.max_bytes,
        })
    }
}

/// A web server to ask.
#[derive(Clone, Debug)]
pub struct Server {
    /// What to get.
    pub url: Url,
    /// Headers to send.
    pub headers: HeaderMap,
    /// Servers besides that of `url` that redirects may lead to, of the same scheme.
    pub redirect_to: Vec<Url>,
    /// The proxy to go through; the environment's are not used.
    pub proxy: Option<Url>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long everything may take, from connecting to the last byte.
    pub timeout: Duration,
    /// The first wait after a failure; it doubles with each further failure.
    pub retry_min: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
    /// The most bytes of an answer, as they arrive.
    pub max_bytes: u64,
}

pub(super) enum Answer<T> {
    NotModified,
    Body {
        /// What the body was decoded to.
        decoded: Result<T, Refusal>,
        etag: Option<HeaderValue>,
        /// When it changed last, as the server says.
        changed: Option<Timestamp>,
    },
}

/// A server that is asked again and again.
pub(in crate::origin) struct Asked<D> {
    server: Server,
    clients: Clients,
    decoder: Arc<D>,
    backoff: Backoff,
    /// The entity tag of the last answer, if that was accepted. One that was refused is fetched again, however the server
    /// makes its tags: a corrected body is never taken for it.
    accepted: Option<HeaderValue>,
    /// That of an answer that is not judged yet; `None` where there was no answer.
    pending: Option<Option<HeaderValue>>,
}

impl<D: Decode> Asked<D> {
    /// # Errors
    /// There is no HTTP client.
    pub(in crate::origin) fn new(server: Server, decoder: Arc<D>) -> anyhow::Result<Self> {
        Ok(Self {
            clients: Clients::new(&server, addresses::system())?,
            backoff: Backoff::new(server.retry_min, server.retry_max),
            server,
            decoder,
            accepted: None,
            pending: None,
        })
    }

    /// Asks once; [`Self::settle`] follows.
    pub(in crate::origin) async fn look(&mut self) -> Look<D::Output> {
        let fetched = fetch(&self.clients, &self.server, &self.decoder, self.accepted.as_ref());
        // The client has this limit too; this one holds in every case.
        let fetched = tokio::time::timeout(self.server.timeout, fetched).await;
        match fetched.unwrap_or_else(|_| Err(Refusal::unavailable(took_too_long(&self.server)))) {
            Ok(Answer::NotModified) => Look::Unchanged { is_accepted: true },
            Ok(Answer::Body { decoded, etag, changed }) => {
                self.pending = Some(etag);
                Look::Read(decoded, changed)
            }
            Err(refusal) => Look::Read(Err(refusal), None),
        }
    }

    /// What became of it. Returns how long to wait where it failed.
    pub(in crate::origin) fn settle(&mut self, outcome: Outcome) -> Option<Duration> {
        if let Some(etag) = self.pending.take() {
            self.accepted = etag.filter(|_| matches!(outcome, Outcome::Published));
        }
        if let Outcome::Failed = outcome {
            return Some(self.backoff.failed());
        }
        self.backoff.succeeded();
        None
    }
}

/// The clients of an origin.
pub(super) struct Clients {
    first: Client,
    /// For redirects. It keeps no connection, so that each address it connects to has been checked.
    redirected: Client,
    /// What that client resolves names with.
    guard: Guard,
}

impl Clients {
    pub(super) fn new(server: &Server, lookup: Lookup) -> anyhow::Result<Self> {
        let guard = Guard::new(lookup.clone());
        let mut redirected = builder(server)?.pool_max_idle_per_host(0);
        // A proxy resolves names itself, and its own address is the operator's choice.
        if server.proxy.is_none() {
            redirected = redirected.dns_resolver(guard.clone());
        }
        let first = builder(server)?.dns_resolver(Guard::new(lookup)).build()?;
        Ok(Self { first, redirected: redirected.build()?, guard })
    }
}

fn builder(server: &Server) -> anyhow::Result<ClientBuilder> {
    // One TLS provider per process; it may be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("bliss-service/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(server.connect_timeout)
        .timeout(server.timeout)
        .pool_idle_timeout(Duration::from_secs(90))
        // Followed here: the client would go anywhere, and send the configured headers, and the query as the referrer, to
        // anybody.
        .redirect(Policy::none())
        .referer(false)
        .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]))
        .no_proxy();
    if let Some(proxy) = &server.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    Ok(builder)
}

/// The kind of the address at which the configured server is: the one that was connected to, or, behind a proxy, which alone
/// knows that, the one that the URL names.
fn kind_of_server(server: &Server, response: &Response) -> Kind {
    let address = match server.proxy {
        None => response.remote_addr().map(|address| address.ip()),
        Some(_) => addresses::literal(&server.url),
    };
    address.map_or(Kind::Public, Kind::of)
}

pub(super) async fn fetch<D: Decode>(
    clients: &Clients,
    server: &Server,
    decoder: &Arc<D>,
    accepted: Option<&HeaderValue>,
) -> Result<Answer<D::Output>, Refusal> {
    let mut hop = Hop::first(&server.url);
    // That of the configured server's address, from the first answer on.
    let mut kind = None;
    for _ in 0..=redirect::MOST {
        let client = if kind.is_none() { &clients.first } else { &clients.redirected };
        let mut request = client.get(hop.url.clone());
        if hop.is_configured_server {
            request = request.headers(server.headers.clone());
        }
        if let Some(etag) = accepted {
            request = request.header(IF_NONE_MATCH, etag.clone());
        }
        let name = Name { server, hop: &hop };
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
                let from = *kind.get_or_insert_with(|| kind_of_server(server, &response));
                clients.guard.restrict(from);
                let next = hop.follow(location, &server.url, &server.redirect_to).and_then(|next| {
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
    let message = format!("{}: more than {} redirects", shown(&server.url), redirect::MOST);
    Err(Refusal::unavailable(message))
}

/// Decodes a body while it arrives; at most a few chunks of it are in memory.
async fn body<D: Decode>(
    mut response: Response,
    name: &Name<'_>,
    decoder: &Arc<D>,
) -> Result<Answer<D::Output>, Refusal> {
    let headers = response.headers();
    let changed = headers.get(LAST_MODIFIED).and_then(|time| http_time(time.to_str().ok()?));
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
    let (decoder, text) = (decoder.clone(), shown(&name.server.url));
    let decoding = tokio::task::spawn_blocking(move || match is_gzip {
        true => decoder.decode(&text, BufReader::with_capacity(1 << 16, Gzip::new(arriving))),
        false => decoder.decode(&text, arriving),
    });
    let max_bytes = name.server.max_bytes;
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
    Ok(Answer::Body { decoded: decoded.unwrap_or_else(failed), etag, changed })
}

/// What messages call the answer: its URL, and where redirects led.
struct Name<'a> {
    server: &'a Server,
    hop: &'a Hop,
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shown(&self.server.url))?;
        if self.hop.url != self.server.url {
            write!(f, ", redirected to {}", shown(&self.hop.url))?;
        }
        Ok(())
    }
}

/// A time as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_time(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(zoned.timestamp())
}

/// The URL without what may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

fn took_too_long(server: &Server) -> String {
    format!("{}: no whole answer within {:?} (timeout)", shown(&server.url), server.timeout)
}

impl Name<'_> {
    fn explain(&self, error: &reqwest::Error) -> Refusal {
        if error.is_timeout() && !error.is_connect() {
            return Refusal::unavailable(took_too_long(self.server));
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
