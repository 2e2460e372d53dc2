//! Lines of an access log: the combined format, and JSON, as nginx (`log_format … escape=json`), Caddy and others write it.
//!
//! Values come out as the web server received them: escapes (`\x22`, `\"`, `\u0022`) are undone, because the same
//! header seen by a worker has none, and both must make the same key. What follows from them is by the rules of
//! [`bliss_core::http`], which hold for workers too.
//!
//! A client writes a part of its own line. Whatever it makes unreadable, a line whose address can be read counts for it.

mod combined;
mod json;
mod values;

use std::borrow::Cow;
use std::net::IpAddr;

use bliss_core::attribute::Value;
use bliss_core::http::HttpRequest;
use bliss_core::pass::Pass;
pub use json::FieldKind;
use json::Fields;

/// The longest line that is read; a longer one is malformed. nginx takes 8 KiB for the request line and for each header, and
/// writes up to six bytes for one.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// One request, as logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When the request was logged, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The client's address; an IPv4-mapped IPv6 address is given as IPv4.
    pub ip: IpAddr,
    /// The `User-Agent` header; `None` where the request had none (`-` in the log).
    pub user_agent: Option<Cow<'a, [u8]>>,
    /// The `Referer` header; `None` where the request had none.
    pub referrer: Option<Cow<'a, [u8]>>,
    /// The request's method; empty where the client sent no HTTP.
    pub method: Cow<'a, [u8]>,
    /// The request's target up to `?`, undecoded; empty where the client sent no HTTP.
    pub path: Cow<'a, [u8]>,
    /// The request's target as the log has it; empty where the client sent no HTTP.
    pub target: Cow<'a, [u8]>,
    /// The host asked for, in lower case, without port; only JSON logs and `vhost_combined` have it.
    pub host: Option<Cow<'a, [u8]>>,
    /// Of what the log may leave out, what it tells.
    pub told: Told<'a>,
    /// The status of the answer.
    pub status: u16,
    /// Whether a decision of ours answered the request, such as a 403 for a low score, and not the server.
    pub own_answer: bool,
    /// Whether a rule of ours said more than to let it through, or would have if it were not simulated.
    pub is_noted: bool,
}

/// What a log tells of a request beyond the combined format, and whether it tells what that has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told<'a> {
    /// Whether the log tells the user agent, be there one or none.
    pub user_agent: bool,
    /// Whether the log tells the referrer, be there one or none.
    pub referrer: bool,
    /// `http` or `https`.
    pub scheme: Option<Cow<'a, [u8]>>,
    /// Whether the request brought a pass that held, as the worker found.
    pub passed: Option<bool>,
    /// Headers, by [`Header`]; empty where the request has none, `None` where the log does not tell.
    pub headers: [Option<Cow<'a, [u8]>>; Header::COUNT],
}

/// Headers beyond those of the combined format that a log may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They are called so.
pub enum Header {
    Accept,
    AcceptLanguage,
    AcceptEncoding,
    SecFetchSite,
    SecFetchMode,
    SecFetchDest,
    SecChUa,
    SecChUaMobile,
    SecChUaPlatform,
}

impl Header {
    /// How many there are.
    pub const COUNT: usize = 9;
}

impl Record<'_> {
    /// The request as [`bliss_core::http`] takes it; `ip` is its address in bytes, for the value to borrow.
    pub fn http<'r>(&'r self, ip: &'r [u8]) -> HttpRequest<'r> {
        let or_none =
            |told: bool, value: &'r Option<Cow<'_, [u8]>>| told.then(|| value.as_deref().unwrap_or_default());
        let header = |header: Header| self.told.headers.get(header as usize)?.as_deref();
        HttpRequest {
            ip: Some(Value::Binary(ip)),
            method: Some(&self.method),
            target: Some(&self.target),
            scheme: self.told.scheme.as_deref(),
            host: self.host.as_deref(),
            user_agent: or_none(self.told.user_agent, &self.user_agent),
            referrer: or_none(self.told.referrer, &self.referrer),
            accept: header(Header::Accept),
            accept_language: header(Header::AcceptLanguage),
            accept_encoding: header(Header::AcceptEncoding),
            sec_fetch_site: header(Header::SecFetchSite),
            sec_fetch_mode: header(Header::SecFetchMode),
            sec_fetch_dest: header(Header::SecFetchDest),
            sec_ch_ua: header(Header::SecChUa),
            sec_ch_ua_mobile: header(Header::SecChUaMobile),
            sec_ch_ua_platform: header(Header::SecChUaPlatform),
            pass: self.told.passed.map(Pass::Checked),
        }
    }
}

/// A line that cannot be read, or only in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Why.
    pub error: ParseError,
    /// What can be read, if the client's address can.
    pub partial: Option<Partial>,
}

/// The part of a malformed line that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The client's address.
    pub ip: IpAddr,
    /// When the request was logged, in milliseconds since the Unix epoch, if that can be read.
    pub time_ms: Option<u64>,
}

impl Partial {
    /// A request of which no more is known, at `time_ms` if the line does not say when.
    pub fn record(&self, time_ms: u64) -> Record<'static> {
        Record {
            time_ms: self.time_ms.unwrap_or(time_ms),
            ip: self.ip,
            user_agent: None,
            referrer: None,
            method: Cow::default(),
            path: Cow::default(),
            target: Cow::default(),
            host: None,
            told: Told::default(),
            status: 0,
            own_answer: false,
            is_noted: false,
        }
    }
}

/// Why a line is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The line does not follow the format.
    #[error("expected {expected} in a line of the combined format")]
    Combined {
        /// What was expected.
        expected: &'static str,
    },
    /// The line is not a JSON object, or a value has the wrong type.
    #[error("not a JSON log line: {0}")]
    Json(String),
    /// A JSON line lacks a field.
    #[error("no field for the {0}; name it under `fields` of the origin")]
    MissingField(&'static str),
    /// A field cannot be read.
    #[error("expected {expected}, found `{found}`")]
    Field {
        /// What was expected.
        expected: &'static str,
        /// The start of what was found.
        found: String,
    },
    /// The line is longer than [`MAX_LINE_BYTES`].
    #[error("line longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON where a line begins with `{`, else combined.
    #[default]
    Auto,
    /// The combined format of nginx and Apache.
    Combined,
    /// One JSON object per line.
    Json,
}

/// Reads lines; holds the format and the names of JSON fields.
#[derive(Clone, Debug)]
pub struct Parser {
    format: Format,
    fields: Fields,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new(Format::Auto, &[])
    }
}

impl Parser {
    /// A parser for `format`; `fields` are further names of JSON fields, which take precedence over the known ones.
    pub fn new(format: Format, fields: &[(FieldKind, String)]) -> Self {
        Self { format, fields: Fields::new(fields) }
    }

    /// Reads one line, without its line end. A byte order mark and NULs in front of it (which a truncation in place leaves)
    /// are skipped.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with the line, and holds what can be read nevertheless.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Malformed> {
        let text =
            line.iter().position(|byte| *byte != 0).and_then(|start| line.get(start..)).unwrap_or_default();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match text.get(..MAX_LINE_BYTES) {
            Some(start) if text.len() > MAX_LINE_BYTES => {
                let partial = match self.parse_text(start) {
                    Ok(record) => Some(Partial { ip: record.ip, time_ms: Some(record.time_ms) }),
                    Err(malformed) => malformed.partial,
                };
                Err(Malformed { error: ParseError::TooLong, partial })
            }
            _ => self.parse_text(text),
        }
    }

    fn parse_text<'a>(&self, text: &'a [u8]) -> Result<Record<'a>, Malformed> {
        match self.format {
            Format::Combined => combined::parse(text),
            Format::Json => self.fields.parse(text),
            Format::Auto if text.first() == Some(&b'{') => self.fields.parse(text),
            Format::Auto => combined::parse(text),
        }
    }
}

/// `value` by a rule of [`bliss_core::http`], without copying it.
fn with<'a>(value: Cow<'a, [u8]>, rule: impl Fn(&[u8]) -> Option<&[u8]>) -> Option<Cow<'a, [u8]>> {
    match value {
        Cow::Borrowed(bytes) => rule(bytes).map(Cow::Borrowed),
        Cow::Owned(bytes) => rule(&bytes).map(|part| Cow::Owned(part.to_vec())),
    }
}

/// Method and target of a request line; none where it is not one, as for a TLS greeting sent to a plain port.
type RequestLine<'a> = (Option<Cow<'a, [u8]>>, Option<Cow<'a, [u8]>>);

fn split_request(request: Cow<'_, [u8]>) -> RequestLine<'_> {
    let Some(space) = request.iter().position(|byte| *byte == b' ') else {
        return (None, None);
    };
    // A method of `-` is none, and its target is one: nginx takes such a request.
    let method = &request[..space];
    if method != b"-" && bliss_core::http::method(method).is_none() {
        return (None, None);
    }
    let end = match request.iter().rposition(|byte| *byte == b' ') {
        Some(last) if last > space && request[last + 1..].starts_with(b"HTTP/") => last,
        _ => request.len(),
    };
    (
        with(request.clone(), |line| bliss_core::http::method(line.get(..space)?)),
        with(request, |line| line.get(space + 1..end)),
    )
}

#[cfg(test)]
mod tests;
