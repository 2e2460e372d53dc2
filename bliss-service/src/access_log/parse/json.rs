//! JSON lines, whose fields are known by their names.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};

use super::{
    ParseError, Record, any_time, epoch_seconds, field, ip, path_of, present, split_request, status,
};

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
}

const FIELD_KINDS: usize = 9;

/// Field names that are known without configuration, the preferred name of each kind first.
const KNOWN_FIELDS: &[(&str, FieldKind)] = &[
    ("msec", FieldKind::Time),
    ("time_iso8601", FieldKind::Time),
    ("time_local", FieldKind::Time),
    ("@timestamp", FieldKind::Time),
    ("timestamp", FieldKind::Time),
    ("time", FieldKind::Time),
    ("remote_addr", FieldKind::Ip),
    ("client_ip", FieldKind::Ip),
    ("ip", FieldKind::Ip),
    ("http_user_agent", FieldKind::UserAgent),
    ("user_agent", FieldKind::UserAgent),
    ("http_referer", FieldKind::Referrer),
    ("http_referrer", FieldKind::Referrer),
    ("referer", FieldKind::Referrer),
    ("referrer", FieldKind::Referrer),
    ("request_method", FieldKind::Method),
    ("method", FieldKind::Method),
    ("request_uri", FieldKind::Path),
    ("uri", FieldKind::Path),
    ("path", FieldKind::Path),
    ("request", FieldKind::Request),
    ("host", FieldKind::Host),
    ("http_host", FieldKind::Host),
    ("status", FieldKind::Status),
];

/// From a field's name to its meaning and rank; the lowest rank of a kind wins in a line.
#[derive(Clone, Debug)]
pub(super) struct Fields(HashMap<String, (FieldKind, usize)>);

impl Fields {
    pub(super) fn new(own: &[(FieldKind, String)]) -> Self {
        let known = KNOWN_FIELDS.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
        let own = own.iter().map(|(kind, name)| (name.clone(), *kind));
        let mut table = HashMap::new();
        for (rank, (name, kind)) in own.chain(known).enumerate() {
            table.entry(name).or_insert((kind, rank));
        }
        Self(table)
    }

    pub(super) fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, ParseError> {
        let mut found: Found<'a> = Default::default();
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        LineSeed { fields: &self.0, found: &mut found }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
            .map_err(|error| ParseError::Json(error.to_string()))?;
        let mut take = |kind: FieldKind| found.0[kind as usize].take().map(|(_, value)| value);

        let time_ms = match take(FieldKind::Time).ok_or(ParseError::MissingField("time"))? {
            Scalar::Number(seconds) => epoch_seconds(seconds),
            Scalar::Text(text) => any_time(&text),
        }?;
        let ip = ip(&text(take(FieldKind::Ip)).ok_or(ParseError::MissingField("client's address"))?)?;
        let status = match take(FieldKind::Status).ok_or(ParseError::MissingField("status"))? {
            Scalar::Number(number) if (0.0..1000.0).contains(&number) => number as u16,
            Scalar::Number(number) => return Err(field("a status", number.to_string().as_bytes())),
            Scalar::Text(text) => status(&text)?,
        };
        let (mut method, mut target) = (text(take(FieldKind::Method)), text(take(FieldKind::Path)));
        if method.is_none() || target.is_none() {
            let request = text(take(FieldKind::Request)).ok_or(ParseError::MissingField("method or path"))?;
            let (request_method, request_target) = split_request(request);
            method.get_or_insert(request_method);
            target.get_or_insert(request_target);
        }
        Ok(Record {
            time_ms,
            ip,
            user_agent: text(take(FieldKind::UserAgent)).and_then(present),
            referrer: text(take(FieldKind::Referrer)).and_then(present),
            method: method.unwrap_or_default(),
            path: path_of(target.unwrap_or_default()),
            host: text(take(FieldKind::Host)).and_then(present),
            status,
        })
    }
}

/// A JSON value that may be a field: text or a number.
enum Scalar<'a> {
    Text(Cow<'a, [u8]>),
    Number(f64),
}

fn text(value: Option<Scalar<'_>>) -> Option<Cow<'_, [u8]>> {
    value.map(|value| match value {
        Scalar::Text(text) => text,
        Scalar::Number(number) => Cow::Owned(number.to_string().into_bytes()),
    })
}

/// The fields found in a line, by kind, each with the rank of its name.
#[derive(Default)]
struct Found<'a>([Option<(usize, Scalar<'a>)>; FIELD_KINDS]);

struct LineSeed<'s, 'a> {
    fields: &'s HashMap<String, (FieldKind, usize)>,
    found: &'s mut Found<'a>,
}

impl<'a> DeserializeSeed<'a> for LineSeed<'_, 'a> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for LineSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(NameSeed(self.fields))? {
            let Some((kind, rank)) = known else {
                map.next_value::<de::IgnoredAny>()?;
                continue;
            };
            let value = map.next_value_seed(ScalarSeed { number: NUMBERS.contains(&kind) })?;
            let slot = &mut self.found.0[kind as usize];
            if let Some(value) = value
                && slot.as_ref().is_none_or(|(other, _)| rank < *other)
            {
                *slot = Some((rank, value));
            }
        }
        Ok(())
    }
}

/// Looks up a field's name; `None` for fields that are ignored.
struct NameSeed<'s>(&'s HashMap<String, (FieldKind, usize)>);

impl<'a> DeserializeSeed<'a> for NameSeed<'_> {
    type Value = Option<(FieldKind, usize)>;
    fn deserialize<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<(FieldKind, usize)>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name).copied())
    }
}

/// Kinds that may be JSON numbers; the rest are text.
const NUMBERS: [FieldKind; 2] = [FieldKind::Time, FieldKind::Status];

struct ScalarSeed {
    number: bool,
}

impl<'a> DeserializeSeed<'a> for ScalarSeed {
    type Value = Option<Scalar<'a>>;
    fn deserialize<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.number { deserializer.deserialize_any(self) } else { deserializer.deserialize_option(self) }
    }
}

impl<'a> Visitor<'a> for ScalarSeed {
    type Value = Option<Scalar<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.number { "text or a number" } else { "text" })
    }
    fn visit_some<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // Bytes, not a string: nginx writes a header's bytes as they came, and they need not be UTF-8.
        deserializer.deserialize_bytes(self)
    }
    fn visit_borrowed_bytes<E>(self, value: &'a [u8]) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Text(Cow::Borrowed(value))))
    }
    fn visit_bytes<E>(self, value: &[u8]) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Text(Cow::Owned(value.to_vec()))))
    }
    fn visit_borrowed_str<E>(self, value: &'a str) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Text(Cow::Borrowed(value.as_bytes()))))
    }
    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Text(Cow::Owned(value.as_bytes().to_vec()))))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Number(value as f64)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Number(value as f64)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Number(value)))
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
