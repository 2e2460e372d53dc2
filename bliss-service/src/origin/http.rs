//! Rows from a web server.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, StatusCode};

use super::retry::Backoff;
use super::{Context, Outcome};
use crate::config::HttpOrigin;
use crate::decode::{Accepted, Decoder, Reason, Refusal};

/// What was answered last: its entity tag, and whether it was accepted.
struct Seen {
    etag: HeaderValue,
    accepted: bool,
}

enum Answer {
    NotModified,
    Body { bytes: Vec<u8>, etag: Option<HeaderValue> },
}

pub(super) async fn run(context: Context, options: &HttpOrigin, decoder: Arc<Decoder>) -> anyhow::Result<()> {
    let client = client(options)?;
    let mut backoff = Backoff::new(options.retry_min, options.retry_max);
    let mut seen: Option<Seen> = None;
    loop {
        let fetched = tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            // The client has this limit too; this one holds whatever it counts.
            done = tokio::time::timeout(options.timeout, fetch(&client, options, seen.as_ref())) => {
                done.unwrap_or_else(|_| Err(Refusal::unavailable(took_too_long(options))))
            }
        };
        let outcome = match fetched {
            Ok(Answer::NotModified) => {
                let accepted = seen.as_ref().is_some_and(|seen| seen.accepted);
                context.state.unchanged(context.place, accepted);
                Outcome::Unchanged
            }
            Ok(Answer::Body { bytes, etag }) => {
                let decoded = decode(&decoder, options, bytes).await;
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
                options.interval
            }
        };
        if !context.sleep(wait).await {
            return Ok(());
        }
    }
}

fn client(options: &HttpOrigin) -> anyhow::Result<Client> {
    // One TLS provider per process; that it is there already is fine.
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

async fn fetch(client: &Client, options: &HttpOrigin, seen: Option<&Seen>) -> Result<Answer, Refusal> {
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

async fn decode(decoder: &Arc<Decoder>, options: &HttpOrigin, bytes: Vec<u8>) -> Result<Accepted, Refusal> {
    let (decoder, name, format) = (decoder.clone(), shown(options), options.format);
    let decoded = tokio::task::spawn_blocking(move || decoder.decode(&name, format, bytes.as_slice()));
    decoded.await.unwrap_or_else(|panic| Err(Refusal::unavailable(format!("decoding failed: {panic}"))))
}

/// The URL without what may be a secret.
fn shown(options: &HttpOrigin) -> String {
    let mut url = options.url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

fn took_too_long(options: &HttpOrigin) -> String {
    format!("{}: no whole answer within {:?} (timeout)", shown(options), options.timeout)
}

fn explain(options: &HttpOrigin, error: &reqwest::Error) -> String {
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
