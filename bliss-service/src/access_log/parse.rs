//! Lines of an access log: the combined format, and nginx's JSON (`log_format … escape=json`).
//!
//! Values come out as the web server received them: escapes (`\x22`, `\"`, `\u0022`) are undone, because the same
//! header seen by a worker has none, and both must make the same key.

mod json;

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

pub use json::FieldKind;
use json::Fields;

/// The longest line that is read; a longer one is malformed.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

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
    /// The host asked for; only JSON logs have it.
    pub host: Option<Cow<'a, [u8]>>,
    /// The status of the answer.
    pub status: u16,
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

    /// Reads one line, without its line end.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with the line.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, ParseError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE_BYTES {
            return Err(ParseError::TooLong);
        }
        match self.format {
            Format::Combined => combined(line),
            Format::Json => self.fields.parse(line),
            Format::Auto if line.first() == Some(&b'{') => self.fields.parse(line),
            Format::Auto => combined(line),
        }
    }
}

/// A line of the combined format:
/// `address identity user [time] "request" status bytes "referrer" "user agent"`, anything may follow.
fn combined(line: &[u8]) -> Result<Record<'_>, ParseError> {
    let expected = |expected| ParseError::Combined { expected };
    let mut rest = Cursor(line);
    let address = rest.until(b' ').ok_or(expected("a client's address"))?;
    // The user's name may hold spaces, so what follows is found by its bracket.
    rest.until(b'[').ok_or(expected("`[` before the time"))?;
    let time = rest.until(b']').ok_or(expected("`]` after the time"))?;
    rest.skip(b' ').ok_or(expected("a space after the time"))?;
    let request = rest.quoted().ok_or(expected("the quoted request"))?;
    rest.skip(b' ').ok_or(expected("a space after the request"))?;
    let status_text = rest.until(b' ').ok_or(expected("a status"))?;
    rest.until(b' ').ok_or(expected("the number of bytes sent"))?;
    let referrer = rest.quoted().ok_or(expected("the quoted referrer"))?;
    rest.skip(b' ').ok_or(expected("a space after the referrer"))?;
    let user_agent = rest.quoted().ok_or(expected("the quoted user agent"))?;

    let (method, target) = split_request(request);
    Ok(Record {
        time_ms: combined_time(time)?,
        ip: ip(address)?,
        user_agent: present(user_agent),
        referrer: present(referrer),
        method,
        path: path_of(target),
        host: None,
        status: status(status_text)?,
    })
}

/// What is left of a line.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|byte| *byte == end)?;
        let (found, rest) = (&self.0[..at], &self.0[at + 1..]);
        self.0 = rest;
        Some(found)
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// A string in quotes, with its escapes undone.
    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        self.skip(b'"')?;
        let mut escaped = false;
        let mut at = 0;
        loop {
            match self.0.get(at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        let (text, rest) = (&self.0[..at], &self.0[at + 1..]);
        self.0 = rest;
        Some(if escaped { Cow::Owned(unescape(text)) } else { Cow::Borrowed(text) })
    }
}

/// Undoes what nginx (`\x22`) and Apache (`\"`, `\\`, `\n`, `\x22`) write for bytes that would break the line.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match rest {
            [b'x' | b'X', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0) as u8;
                out.push(digit(high) << 4 | digit(low));
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    other => *other,
                });
                rest = tail;
            }
            [] => out.push(b'\\'),
        }
    }
    out
}

fn present(value: Cow<'_, [u8]>) -> Option<Cow<'_, [u8]>> {
    (!value.is_empty() && value.as_ref() != b"-").then_some(value)
}

fn cut<'a>(value: Cow<'a, [u8]>, range: std::ops::Range<usize>) -> Cow<'a, [u8]> {
    match value {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(range.end);
            bytes.drain(..range.start);
            Cow::Owned(bytes)
        }
    }
}

/// Method and target of a request line; both empty where it is not one, as for a TLS greeting sent to a plain port.
fn split_request(request: Cow<'_, [u8]>) -> (Cow<'_, [u8]>, Cow<'_, [u8]>) {
    let Some(space) = request.iter().position(|byte| *byte == b' ') else {
        return Default::default();
    };
    if space == 0 || !request[..space].iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'-') {
        return Default::default();
    }
    let end = match request.iter().rposition(|byte| *byte == b' ') {
        Some(last) if last > space && request[last + 1..].starts_with(b"HTTP/") => last,
        _ => request.len(),
    };
    (cut(request.clone(), 0..space), cut(request, space + 1..end))
}

/// The path of a request's target: up to `?` or `#`, and without `http://host` in front.
fn path_of(target: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let scheme = [b"http://".as_slice(), b"https://"].into_iter().find(|scheme| target.starts_with(scheme));
    let start = match scheme {
        Some(scheme) => {
            let host_end = target[scheme.len()..end].iter().position(|byte| *byte == b'/');
            host_end.map_or(end, |at| scheme.len() + at)
        }
        None => 0,
    };
    cut(target, start..end)
}

fn field(expected: &'static str, found: &[u8]) -> ParseError {
    let shown = String::from_utf8_lossy(&found[..found.len().min(60)]).into_owned();
    ParseError::Field { expected, found: shown }
}

fn ip(text: &[u8]) -> Result<IpAddr, ParseError> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    parsed.map(|ip| ip.to_canonical()).ok_or_else(|| field("an IP address", text))
}

fn status(text: &[u8]) -> Result<u16, ParseError> {
    match digits(text) {
        Some(status) if text.len() <= 3 => Ok(status as u16),
        _ => Err(field("a status", text)),
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

fn epoch_seconds(seconds: f64) -> Result<u64, ParseError> {
    if (0.0..=f64::from(u32::MAX)).contains(&seconds) {
        Ok((seconds * 1000.0).round() as u64)
    } else {
        Err(field("seconds since 1970", seconds.to_string().as_bytes()))
    }
}

fn any_time(text: &[u8]) -> Result<u64, ParseError> {
    let bad = || field("a time", text);
    let string = std::str::from_utf8(text).map_err(|_| bad())?;
    if let Ok(seconds) = string.parse::<f64>() {
        return epoch_seconds(seconds);
    }
    if let Ok(timestamp) = jiff::Timestamp::from_str(string) {
        return u64::try_from(timestamp.as_millisecond()).map_err(|_| bad());
    }
    combined_time(text)
}

/// `17/May/2015:10:05:03 +0000`, in milliseconds since the Unix epoch.
fn combined_time(text: &[u8]) -> Result<u64, ParseError> {
    parse_combined_time(text).ok_or_else(|| field("a time as `17/May/2015:10:05:03 +0000`", text))
}

fn parse_combined_time(text: &[u8]) -> Option<u64> {
    let punctuation = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':'), (20, b' ')];
    if text.len() != 26 || punctuation.iter().any(|(at, byte)| text[*at] != *byte) {
        return None;
    }
    let number = |from: usize, to: usize| digits(&text[from..to]);
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = 1 + MONTHS.chunks(3).position(|name| name == &text[3..6])? as i8;
    let date = jiff::civil::Date::new(number(7, 11)? as i16, month, number(0, 2)? as i8).ok()?;
    let (hour, minute, second) = (number(12, 14)?, number(15, 17)?, number(18, 20)?);
    let (zone_hour, zone_minute) = (number(22, 24)?, number(24, 26)?);
    if hour > 23 || minute > 59 || second > 60 || zone_hour > 23 || zone_minute > 59 {
        return None;
    }
    let zone = i64::from(zone_hour * 3600 + zone_minute * 60);
    let offset = match text[21] {
        b'+' => zone,
        b'-' => -zone,
        _ => return None,
    };
    let midnight = date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    let seconds = midnight + i64::from(hour * 3600 + minute * 60 + second) - offset;
    u64::try_from(seconds).ok().map(|seconds| seconds * 1000)
}

#[cfg(test)]
mod tests;
