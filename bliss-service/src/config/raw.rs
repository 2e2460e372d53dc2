//! The configuration file as it is written. What each option means is said in `docs/bliss.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use toml::Spanned;

use crate::access_log::parse::{FieldKind, Format as LogFormat};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) directory: PathBuf,
    #[serde(default)]
    pub(super) publish: Publish,
    #[serde(default)]
    pub(super) admin: Admin,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) attribute: Vec<Attribute>,
    #[serde(default)]
    pub(super) dimension: Vec<Dimension>,
    #[serde(default)]
    pub(super) origin: Origins,
    #[serde(default)]
    pub(super) model: Vec<Model>,
    #[serde(default)]
    pub(super) route: Vec<Route>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Publish {
    #[serde(with = "humantime_serde")]
    pub(super) interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(super) clock_skew: Duration,
    #[serde(with = "humantime_serde")]
    pub(super) grace: Duration,
    pub(super) group: Option<Spanned<Group>>,
    pub(super) mode: Spanned<String>,
    pub(super) readers_mode: Spanned<String>,
    pub(super) expire_after_max_ages: u32,
}

/// A group, by name or by number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a group's name or number")]
pub(super) enum Group {
    Name(String),
    Number(u32),
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            clock_skew: Duration::from_secs(5),
            grace: Duration::from_millis(10),
            group: None,
            mode: Spanned::new(0..0, "0640".into()),
            readers_mode: Spanned::new(0..0, "0660".into()),
            expire_after_max_ages: 0,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9180)) }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: super::LogOutput,
    pub(super) level: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attribute {
    pub(super) name: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) kind: AttributeKind,
    pub(super) bytes: Option<u8>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum AttributeKind {
    Ip,
    Hex,
    String,
    U64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dimension {
    pub(super) name: Spanned<String>,
    pub(super) key: Vec<KeyPart>,
    #[serde(default = "hour", with = "humantime_serde")]
    pub(super) max_age: Duration,
    pub(super) features: Vec<Feature>,
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

/// `"ip"` or `{ attr = "ip", v4_prefix = 24, v6_prefix = 48 }`.
pub(super) struct KeyPart {
    pub(super) attr: String,
    pub(super) v4_prefix: Option<u8>,
    pub(super) v6_prefix: Option<u8>,
}

impl<'de> Deserialize<'de> for KeyPart {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            attr: String,
            v4_prefix: Option<u8>,
            v6_prefix: Option<u8>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = KeyPart;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute's name, or a table with `attr`, `v4_prefix` and `v6_prefix`")
            }
            fn visit_str<E>(self, name: &str) -> Result<KeyPart, E> {
                Ok(KeyPart { attr: name.to_owned(), v4_prefix: None, v6_prefix: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KeyPart, A::Error> {
                let Table { attr, v4_prefix, v6_prefix } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(KeyPart { attr, v4_prefix, v6_prefix })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Feature {
    pub(super) name: Spanned<String>,
    #[serde(rename = "type", default)]
    pub(super) kind: FeatureKind,
    pub(super) default: Option<Default_>,
    pub(super) min: Option<Number>,
    pub(super) max: Option<Number>,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum FeatureKind {
    #[default]
    F32,
    Category,
}

/// A number that an `f32` can hold; NaN and infinities are refused here, where the line is known.
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) f32);

/// A feature's default: a number, or a category's string.
pub(super) enum Default_ {
    Number(f32),
    Category(String),
}

struct DefaultVisitor;

impl<'de> Visitor<'de> for DefaultVisitor {
    type Value = Default_;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a finite number, or a category's string")
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Default_, E> {
        self.visit_f64(value as f64)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Default_, E> {
        let narrow = value as f32;
        if narrow.is_finite() {
            Ok(Default_::Number(narrow))
        } else {
            Err(E::custom(format!("expected a finite number that fits 32 bits, found {value}")))
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Default_, E> {
        Ok(Default_::Category(value.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Default_ {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DefaultVisitor)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(DefaultVisitor)? {
            Default_::Number(number) => Ok(Number(number)),
            Default_::Category(text) => Err(de::Error::custom(format!("expected a number, found {text:?}"))),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Origins {
    pub(super) file: Vec<FileOrigin>,
    pub(super) http: Vec<HttpOrigin>,
    pub(super) access_log: Vec<AccessLogOrigin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileOrigin {
    pub(super) name: Spanned<String>,
    pub(super) dimensions: Vec<Spanned<String>>,
    pub(super) path: PathBuf,
    pub(super) format: Option<super::RowFormat>,
    #[serde(default = "seconds::<5>", with = "humantime_serde")]
    pub(super) interval: Duration,
    #[serde(default = "seconds::<30>", with = "humantime_serde")]
    pub(super) timeout: Duration,
    #[serde(default = "max_bytes")]
    pub(super) max_bytes: u64,
    #[serde(default = "max_rows")]
    pub(super) max_rows: u64,
    #[serde(default = "min_rows")]
    pub(super) min_rows: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpOrigin {
    pub(super) name: Spanned<String>,
    pub(super) dimensions: Vec<Spanned<String>>,
    pub(super) url: Spanned<String>,
    pub(super) format: Option<super::RowFormat>,
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, String>,
    pub(super) proxy: Option<Spanned<String>>,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    pub(super) interval: Duration,
    #[serde(default = "seconds::<5>", with = "humantime_serde")]
    pub(super) connect_timeout: Duration,
    #[serde(default = "seconds::<30>", with = "humantime_serde")]
    pub(super) timeout: Duration,
    #[serde(default = "seconds::<1>", with = "humantime_serde")]
    pub(super) retry_min: Duration,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    pub(super) retry_max: Duration,
    #[serde(default = "max_bytes")]
    pub(super) max_bytes: u64,
    #[serde(default = "max_rows")]
    pub(super) max_rows: u64,
    #[serde(default = "min_rows")]
    pub(super) min_rows: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLogOrigin {
    pub(super) name: Spanned<String>,
    pub(super) dimensions: Option<Vec<Spanned<String>>>,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) mode: super::AccessLogMode,
    #[serde(default)]
    pub(super) format: LogFormat,
    #[serde(default)]
    pub(super) fields: BTreeMap<FieldKind, String>,
    #[serde(default = "seconds::<120>", with = "humantime_serde")]
    pub(super) lateness: Duration,
    #[serde(default = "max_keys")]
    pub(super) max_keys: usize,
    #[serde(default = "backlog_bytes")]
    pub(super) backlog_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) name: Spanned<String>,
    pub(super) version: String,
    pub(super) path: PathBuf,
    #[serde(default = "bot_class")]
    pub(super) bot_class: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) name: Spanned<String>,
    pub(super) active: Spanned<String>,
    #[serde(default)]
    pub(super) shadow: Vec<Spanned<String>>,
}

fn bot_class() -> u32 {
    1
}

fn seconds<const N: u64>() -> Duration {
    Duration::from_secs(N)
}

fn max_bytes() -> u64 {
    1 << 30
}

fn max_rows() -> u64 {
    20_000_000
}

fn min_rows() -> u64 {
    1
}

fn max_keys() -> usize {
    200_000
}

fn backlog_bytes() -> u64 {
    256 << 20
}
