//! JSON lines, whose fields are known by their names.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use bliss_core::http;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::values::{any_time, epoch_seconds, field, ip, is_noted, own_answer, status};
use super::{Header, Malformed, ParseError, Partial, Record, Told, split_request, with};

/// What a field of a JSON line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// The time: seconds since the epoch with a fraction (`$msec`), ISO 8601, or as the combined format writes it.
    Time,
    /// The client's address.
    Ip,
    /// The `User-Agent` header.
    UserAgent,
    /// The `Referer` header.
    Referrer,
    /// The request's method.
    Method,
    /// The request's target, with or without its query.
    Path,
    /// The whole request line (`GET / HTTP/1.1`), used where there is no method or path.
    Request,
    /// The host asked for.
    Host,
    /// The status of the answer.
    Status,
    /// `http` or `https`.
    Scheme,
    /// The `Accept` header.
    Accept,
    /// The `Accept-Language` header.
    AcceptLanguage,
    /// The `Accept-Encoding` header.
    AcceptEncoding,
    /// The `Sec-Fetch-Site` header.
    SecFetchSite,
    /// The `Sec-Fetch-Mode` header.
    SecFetchMode,
    /// The `Sec-Fetch-Dest` header.
    SecFetchDest,
    /// The `Sec-CH-UA` header.
    SecChUa,
    /// The `Sec-CH-UA-Mobile` header.
    SecChUaMobile,
    /// The `Sec-CH-UA-Platform` header.
    SecChUaPlatform,
    /// What our decision did with the request: absent, empty, `-`, `allow`, `observe` or `tag` if it was served, else for instance
    /// `block`.
    BotAction,
    /// What a simulated rule would have done: absent, empty or `-` for nothing.
    Simulated,
    /// Whether the request brought a pass that held: `1` or `0`; anything else does not tell.
    Passed,
}

/// Field names that are known without configuration, the preferred name of each kind first. Those with dots are Caddy's.
const KNOWN_FIELDS: &[(&str, FieldKind)] = &[
    ("msec", FieldKind::Time),
    ("time_iso8601", FieldKind::Time),
    ("time_local", FieldKind::Time),
    ("@timestamp", FieldKind::Time),
    ("timestamp", FieldKind::Time),
    ("time", FieldKind::Time),
    ("ts", FieldKind::Time),
    ("remote_addr", FieldKind::Ip),
    ("client_ip", FieldKind::Ip),
    ("ip", FieldKind::Ip),
    ("request.client_ip", FieldKind::Ip),
    ("request.remote_ip", FieldKind::Ip),
    ("http_user_agent", FieldKind::UserAgent),
    ("user_agent", FieldKind::UserAgent),
    ("request.headers.User-Agent", FieldKind::UserAgent),
    ("http_referer", FieldKind::Referrer),
    ("http_referrer", FieldKind::Referrer),
    ("referer", FieldKind::Referrer),
    ("referrer", FieldKind::Referrer),
    ("request.headers.Referer", FieldKind::Referrer),
    ("request_method", FieldKind::Method),
    ("method", FieldKind::Method),
    ("request.method", FieldKind::Method),
    ("request_uri", FieldKind::Path),
    ("uri", FieldKind::Path),
    ("path", FieldKind::Path),
    ("request.uri", FieldKind::Path),
    ("request", FieldKind::Request),
    ("host", FieldKind::Host),
    ("http_host", FieldKind::Host),
    ("request.host", FieldKind::Host),
    ("status", FieldKind::Status),
    ("scheme", FieldKind::Scheme),
    ("http_accept", FieldKind::Accept),
    ("request.headers.Accept", FieldKind::Accept),
    ("http_accept_language", FieldKind::AcceptLanguage),
    ("request.headers.Accept-Language", FieldKind::AcceptLanguage),
    ("http_accept_encoding", FieldKind::AcceptEncoding),
    ("request.headers.Accept-Encoding", FieldKind::AcceptEncoding),
    ("http_sec_fetch_site", FieldKind::SecFetchSite),
    ("request.headers.Sec-Fetch-Site", FieldKind::SecFetchSite),
    ("http_sec_fetch_mode", FieldKind::SecFetchMode),
    ("request.headers.Sec-Fetch-Mode", FieldKind::SecFetchMode),
    ("http_sec_fetch_dest", FieldKind::SecFetchDest),
    ("request.headers.Sec-Fetch-Dest", FieldKind::SecFetchDest),
    ("http_sec_ch_ua", FieldKind::SecChUa),
    ("request.headers.Sec-Ch-Ua", FieldKind::SecChUa),
    ("http_sec_ch_ua_mobile", FieldKind::SecChUaMobile),
    ("request.headers.Sec-Ch-Ua-Mobile", FieldKind::SecChUaMobile),
    ("http_sec_ch_ua_platform", FieldKind::SecChUaPlatform),
    ("request.headers.Sec-Ch-Ua-Platform", FieldKind::SecChUaPlatform),
    ("bliss_action", FieldKind::BotAction),
    ("bot_action", FieldKind::BotAction),
    ("bliss_simulated", FieldKind::Simulated),
    ("bot_simulated", FieldKind::Simulated),
    ("bliss_passed", FieldKind::Passed),
];

/// An object with all headers of the request: one that is not in it the request does not have.
const ALL_HEADERS: &str = "request.headers";

/// The names of fields.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// From a name to its meaning and rank; the lowest rank of a kind wins in a line. The name of a field of a nested
    /// object is preceded by the names of the objects around it and dots.
    known: HashMap<String, (FieldKind, usize)>,
    /// Names of objects that hold known fields.
    objects: HashSet<String>,
}

impl Fields {
    pub(super) fn new(own: &[(FieldKind, String)]) -> Self {
        let built_in = KNOWN_FIELDS.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
        let own = own.iter().map(|(kind, name)| (name.clone(), *kind));
        let mut known = HashMap::new();
        for (rank, (name, kind)) in own.chain(built_in).enumerate() {
            known.entry(name).or_insert((kind, rank));
        }
        let dots = |name: &String| name.match_indices('.').map(|(dot, _)| dot).collect::<Vec<_>>();
        let objects =
            known.keys().flat_map(|name| dots(name).into_iter().map(|dot| name[..dot].to_owned())).collect();
        Self { known, objects }
    }

    /// Reads one line.
    pub(super) fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Malformed> {
        // nginx writes a header's bytes as they came, and they need not be UTF-8.
        match std::str::from_utf8(line) {
            Ok(text) => self.parse_text(text, |bytes| bytes),
            Err(_) => self.parse_text(&stand_ins::of(line), |bytes| Cow::Owned(stand_ins::bytes(&bytes))),
        }
    }

    fn parse_text<'t, 'a>(
        &self,
        text: &'t str,
        bytes: impl Fn(Cow<'t, [u8]>) -> Cow<'a, [u8]>,
    ) -> Result<Record<'a>, Malformed> {
        let mut found = Found::default();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = Object { fields: self, found: &mut found, name: &mut String::new() }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        let partial = found.ip.value.map(|ip| Partial { ip, time_ms: found.time.value });
        match read {
            Ok(()) => found.record(bytes),
            Err(error) => Err(ParseError::Json(error.to_string())),
        }
        .map_err(|error| Malformed { error, partial })
    }
}

/// The best value of a field so far, and why another was not taken.
struct Best<T> {
    rank: usize,
    value: Option<T>,
    error: Option<ParseError>,
}

impl<T> Default for Best<T> {
    fn default() -> Self {
        Self { rank: usize::MAX, value: None, error: None }
    }
}

impl<T> Best<T> {
    fn offer(&mut self, rank: usize, value: Result<T, ParseError>) {
        match value {
            Ok(value) if rank < self.rank => (self.rank, self.value) = (rank, Some(value)),
            Ok(_) => {}
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn required(self, name: &'static str) -> Result<T, ParseError> {
        self.value.ok_or(self.error.unwrap_or(ParseError::MissingField(name)))
    }
}

/// The fields found in a line.
#[derive(Default)]
struct Found<'t> {
    time: Best<u64>,
    ip: Best<IpAddr>,
    status: Best<u16>,
    user_agent: Best<Cow<'t, [u8]>>,
    referrer: Best<Cow<'t, [u8]>>,
    method: Best<Cow<'t, [u8]>>,
    path: Best<Cow<'t, [u8]>>,
    request: Best<Cow<'t, [u8]>>,
    host: Best<Cow<'t, [u8]>>,
    action: Best<Cow<'t, [u8]>>,
    simulated: Best<Cow<'t, [u8]>>,
    passed: Best<bool>,
    scheme: Best<Cow<'t, [u8]>>,
    headers: [Best<Cow<'t, [u8]>>; Header::COUNT],
    has_all_headers: bool,
}

impl<'t> Found<'t> {
    /// A value that is neither text nor a number is of another program's making, and not the field that is meant.
    fn offer(&mut self, (kind, rank): (FieldKind, usize), scalar: Scalar<'t>) {
        match (kind, scalar) {
            (FieldKind::Time, Scalar::Number(seconds)) => self.time.offer(rank, epoch_seconds(seconds)),
            (FieldKind::Time, Scalar::Text(text)) => self.time.offer(rank, any_time(text.as_bytes())),
            (FieldKind::Status, Scalar::Text(text)) => self.status.offer(rank, status(text.as_bytes())),
            (FieldKind::Status, Scalar::Number(number)) => {
                let valid = (0.0..1000.0).contains(&number);
                let bad = || field("a status", number.to_string().as_bytes());
                self.status.offer(rank, valid.then_some(number as u16).ok_or_else(bad));
            }
            (FieldKind::Ip, Scalar::Text(text)) => self.ip.offer(rank, ip(text.as_bytes())),
            (FieldKind::Ip, Scalar::Number(number)) => {
                self.ip.offer(rank, Err(field("an IP address", number.to_string().as_bytes())));
            }
            (FieldKind::Passed, Scalar::Text(text)) => {
                if let Ok(number) = text.parse() {
                    self.offer_passed(rank, number);
                }
            }
            (FieldKind::Passed, Scalar::Number(number)) => self.offer_passed(rank, number),
            (_, Scalar::Number(_)) => {}
            (kind, Scalar::Text(text)) => {
                let text = match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                };
                let best = match kind {
                    FieldKind::UserAgent => &mut self.user_agent,
                    FieldKind::Referrer => &mut self.referrer,
                    FieldKind::Method => &mut self.method,
                    FieldKind::Path => &mut self.path,
                    FieldKind::Request => &mut self.request,
                    FieldKind::Host => &mut self.host,
                    FieldKind::BotAction => &mut self.action,
                    FieldKind::Simulated => &mut self.simulated,
                    FieldKind::Scheme => &mut self.scheme,
                    FieldKind::Accept => self.header(Header::Accept),
                    FieldKind::AcceptLanguage => self.header(Header::AcceptLanguage),
                    FieldKind::AcceptEncoding => self.header(Header::AcceptEncoding),
                    FieldKind::SecFetchSite => self.header(Header::SecFetchSite),
                    FieldKind::SecFetchMode => self.header(Header::SecFetchMode),
                    FieldKind::SecFetchDest => self.header(Header::SecFetchDest),
                    FieldKind::SecChUa => self.header(Header::SecChUa),
                    FieldKind::SecChUaMobile => self.header(Header::SecChUaMobile),
                    FieldKind::SecChUaPlatform => self.header(Header::SecChUaPlatform),
                    FieldKind::Time | FieldKind::Status | FieldKind::Ip | FieldKind::Passed => return,
                };
                best.offer(rank, Ok(text));
            }
        }
    }

    /// 1 or 0; anything else does not tell.
    fn offer_passed(&mut self, rank: usize, number: f64) {
        if number == 1.0 || number == 0.0 {
            self.passed.offer(rank, Ok(number == 1.0));
        }
    }

    fn header(&mut self, header: Header) -> &mut Best<Cow<'t, [u8]>> {
        &mut self.headers[header as usize]
    }

    fn record<'a>(self, bytes: impl Fn(Cow<'t, [u8]>) -> Cow<'a, [u8]>) -> Result<Record<'a>, ParseError> {
        let taken = |best: Best<Cow<'t, [u8]>>| best.value.map(&bytes);
        let time_ms = self.time.required("time")?;
        let ip = self.ip.required("client's address")?;
        let status = self.status.required("status")?;
        let (mut method, mut target) = (taken(self.method), taken(self.path));
        if method.is_none() || target.is_none() {
            let request = taken(self.request).ok_or(ParseError::MissingField("method or path"))?;
            let (request_method, request_target) = split_request(request);
            method = method.or(request_method);
            target = target.or(request_target);
        }
        let host = taken(self.host).and_then(|host| with(host, http::host)).map(|mut host| {
            if host.iter().any(u8::is_ascii_uppercase) {
                host.to_mut().make_ascii_lowercase();
            }
            host
        });
        let action = self.action.value.as_deref().unwrap_or_default();
        let has_all_headers = self.has_all_headers;
        let (user_agent, referrer) = (taken(self.user_agent), taken(self.referrer));
        let told = Told {
            user_agent: user_agent.is_some() || has_all_headers,
            referrer: referrer.is_some() || has_all_headers,
            scheme: taken(self.scheme),
            passed: self.passed.value,
            headers: self.headers.map(|header| taken(header).or(has_all_headers.then(Cow::default))),
        };
        Ok(Record {
            time_ms,
            ip,
            user_agent: user_agent.and_then(|value| with(value, http::header)),
            referrer: referrer.and_then(|value| with(value, http::header)),
            method: method.and_then(|method| with(method, http::method)).unwrap_or_default(),
            path: target.clone().and_then(|target| with(target, http::path)).unwrap_or_default(),
            target: target.unwrap_or_default(),
            host,
            told,
            status,
            own_answer: own_answer(action, status),
            is_noted: is_noted(action) || is_noted(self.simulated.value.as_deref().unwrap_or_default()),
        })
    }
}

/// A JSON value that may be a field.
enum Scalar<'t> {
    Text(Cow<'t, str>),
    Number(f64),
}

/// An object whose fields are looked at; `name` is that of the object, empty for the line itself.
struct Object<'s, 't> {
    fields: &'s Fields,
    found: &'s mut Found<'t>,
    name: &'s mut String,
}

impl<'t> DeserializeSeed<'t> for Object<'_, 't> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'t> Visitor<'t> for Object<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { fields, found, name } = self;
        found.has_all_headers |= name == ALL_HEADERS;
        let end = name.len();
        while let Some(key) = map.next_key_seed(Key)? {
            if end > 0 {
                name.push('.');
            }
            name.push_str(&key);
            let known = fields.known.get(name.as_str()).copied();
            if known.is_some() || fields.objects.contains(name.as_str()) {
                map.next_value_seed(Field { known, object: Object { fields, found, name } })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            name.truncate(end);
        }
        Ok(())
    }
}

struct Key;

impl<'t> DeserializeSeed<'t> for Key {
    type Value = Cow<'t, str>;
    fn deserialize<D: de::Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Key {
    type Value = Cow<'t, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_borrowed_str<E>(self, name: &'t str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// A value that is a known field, an object that holds one, or either.
struct Field<'s, 't> {
    known: Option<(FieldKind, usize)>,
    object: Object<'s, 't>,
}

impl<'t> Field<'_, 't> {
    fn offer(self, scalar: Scalar<'t>) {
        if let Some(known) = self.known {
            self.object.found.offer(known, scalar);
        }
    }
}

impl<'t> DeserializeSeed<'t> for Field<'_, 't> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Field<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_map<A: MapAccess<'t>>(self, map: A) -> Result<(), A::Error> {
        self.object.visit_map(map)
    }
    /// The first element counts: Caddy lists a header's values.
    fn visit_seq<A: SeqAccess<'t>>(self, mut seq: A) -> Result<(), A::Error> {
        seq.next_element_seed(self)?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_borrowed_str<E>(self, value: &'t str) -> Result<(), E> {
        self.offer(Scalar::Text(Cow::Borrowed(value)));
        Ok(())
    }
    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.offer(Scalar::Text(Cow::Owned(value.to_owned())));
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.offer(Scalar::Number(value as f64));
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.offer(Scalar::Number(value as f64));
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.offer(Scalar::Number(value));
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Bytes that are no UTF-8 as characters that hardly anything else uses, so that a line can be read as text.
mod stand_ins {
    /// The last 256 characters there are.
    const FIRST: u32 = 0x10_ff00;

    fn push(text: &mut String, byte: u8) {
        text.extend(char::from_u32(FIRST + u32::from(byte)));
    }

    /// `line` with a stand-in for each byte that is no UTF-8, and for each byte of a character that is one itself.
    pub(super) fn of(line: &[u8]) -> String {
        let mut text = String::with_capacity(line.len() + 64);
        for chunk in line.utf8_chunks() {
            for char in chunk.valid().chars() {
                if u32::from(char) < FIRST {
                    text.push(char);
                } else {
                    char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push(&mut text, byte));
                }
            }
            chunk.invalid().iter().for_each(|byte| push(&mut text, *byte));
        }
        text
    }

    /// The bytes that `text`, a part of what [`of`] returned, stands for.
    pub(super) fn bytes(text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(text.len());
        for char in String::from_utf8_lossy(text).chars() {
            match u32::from(char).checked_sub(FIRST).and_then(|byte| u8::try_from(byte).ok()) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes
    }
}
