//! The options of the configuration file, but for those of origins. Their doc comments become `docs/bliss.toml`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bliss_catboost::{AnswerKind, BotOptions};
use bliss_core::schema::DEFAULT_CLOCK_SKEW_SECONDS;
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use toml::Spanned;

use super::decisions::Decisions;
use super::defaults::seconds;
use super::drift::Drift;
use super::policy::{Policy, PolicyGate, Test};
use crate::checkpoint::{DEFAULT_DIRECTORY, KeepOptions};
use crate::origin;

/// The configuration of `bliss-service`: every option, with its default where it has one.
///
/// Prose begins with "# "; examples that are switched off begin with "#" alone. An unknown option, or a value that does
/// not fit, is an error that names the line, and the daemon does not start. `bliss-service check --config FILE` only
/// checks. Relative paths start at this file's folder. Durations are written "250ms", "5s", "10m", "1h", "1day".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Where the shared-memory files are. Should be on a tmpfs, as /run is, or reads wait for a disk. The daemon creates the
    /// folder if its parent exists and it may.
    #[serde(default = "directory")]
    pub(super) directory: PathBuf,
    #[serde(default)]
    pub(super) publish: Publish,
    #[serde(default)]
    pub(super) checkpoint: Checkpoint,
    #[serde(default)]
    pub(super) site: Site,
    #[serde(default)]
    pub(super) admin: Admin,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) drift: Drift,
    #[serde(default)]
    pub(super) decisions: Decisions,
    /// Attributes of requests that keys are made of. Built in: ip, user_agent, host, path, method, scheme, referrer,
    /// country, ja4, crawler (strings, except ip), ja3 (a digest of 16 bytes), asn and browser (numbers); browser and crawler are made of
    /// the agent.
    #[serde(default)]
    pub(super) attribute: Vec<Attribute>,
    /// Dimensions: what features are about. The access log's own (ip, subnet, user_agent, ip_user_agent) need no
    /// declaration; docs/access-log.md lists their features.
    #[serde(default)]
    pub(super) dimension: Vec<Dimension>,
    /// Origins: where features come from. Each dimension is filled by exactly one. What an origin fetches is accepted
    /// whole or refused whole; after a refusal the last good rows stay. docs/service.md has the formats.
    #[serde(default)]
    pub(super) origin: origin::Options,
    #[serde(default)]
    pub(super) crawlers: origin::CrawlerOptions,
    /// Models as CatBoost saves them, read again when the file changes.
    #[serde(default)]
    pub(super) model: Vec<Model>,
    /// Routes: which model answers, and which policy. One model alone needs no route; requests without a route, or with an unknown one,
    /// take "default".
    #[serde(default)]
    pub(super) route: Vec<Route>,
    /// Policies: what is done with a request, by rules in stages that are asked in one order (exempt, deny, allow, crawler, band); the
    /// first rule that holds answers. SIGHUP reads them again, with the policies of routes and the tests. docs/policy.md says more.
    #[serde(default)]
    pub(super) policy: Vec<Policy>,
    #[serde(default)]
    pub(super) policy_gate: PolicyGate,
    #[serde(default)]
    pub(super) test: Vec<Test>,
}

/// The one that examples, documents and workers use too.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from("/run/bliss")
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Publish {
    /// At most one publication per interval, 100ms to 1h; a reader sees a change within one interval.
    #[serde(with = "humantime_serde")]
    pub(super) interval: Duration,
    /// How far a row's time of update may lie in a reader's future and the row still be fresh. At least a second or two:
    /// web workers read the time from a cached clock, which lags.
    #[serde(with = "humantime_serde")]
    pub(super) clock_skew: Duration,
    /// How long a publication waits for readers that still use the copy to be overwritten, before it takes a fresh file.
    #[serde(with = "humantime_serde")]
    pub(super) grace: Duration,
    /// Requests are unscored (`old snapshot`) once the daemon has given no sign of life for longer than this, at least 2s;
    /// "0s": never. Without a limit a client that is blocked when the daemon dies stays blocked.
    #[serde(with = "humantime_serde")]
    pub(super) max_heartbeat_age: Duration,
    /// Rows older than this many times their dimension's `max_age` are removed, a slice at a time, and not accepted;
    /// 0: never. Rows of dimensions without `max_age`, and of a replayed log, never expire.
    pub(super) expire_after_max_ages: u32,
    /// Whether the model that comes with BLISS answers where no [[model]] is configured and an access log fills all dimensions that
    /// it takes features from.
    pub(super) default_model: bool,
    /// Who may read the published files, and who may announce itself as a reader. Web workers need both; give them
    /// access to the files by their group. Octal digits.
    pub(super) mode: Spanned<String>,
    pub(super) readers_mode: Spanned<String>,
    /// The group of the files, by name or by number; at the start, files that exist get it too, and the modes. By default files
    /// keep their group, and new ones get that of the others, of a set-group-ID directory, or of the process.
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) group: Option<Spanned<Group>>,
}

/// What followed access logs have counted, and what is known of drift, kept on disk over a restart and a reboot;
/// docs/access-log.md and docs/service.md say what it holds.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Checkpoint {
    /// The folder, not on a tmpfs; "": none. The default one is used if it is there (systemd makes it: StateDirectory=bliss),
    /// another one is created if its parent exists. One daemon at a time uses it.
    pub(super) directory: PathBuf,
    /// The time between two, 1s to 1h; one more is written when the daemon ends, and on SIGUSR2.
    #[serde(with = "humantime_serde")]
    pub(super) interval: Duration,
    /// Bytes that one may have before it is compressed, which are taken from memory while it is made. A larger one is not
    /// written, and /readyz says so.
    pub(super) max_bytes: u64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        let KeepOptions { interval, max_bytes, .. } = KeepOptions::default();
        Self { directory: PathBuf::from(DEFAULT_DIRECTORY), interval, max_bytes }
    }
}

/// What is known of the site.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Site {
    /// Hosts of the site beside the one that a request asks for, such as that of its shop or of its images: a visitor whose
    /// referrer names one comes from the site itself. With or without "www.". Names without scheme and port, up to 64.
    pub(super) hosts: Vec<Spanned<String>>,
}

#[cfg(test)]
pub(super) const PUBLISH_EXAMPLE: &str = "#group = 0\n";

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
            clock_skew: Duration::from_secs(DEFAULT_CLOCK_SKEW_SECONDS.into()),
            max_heartbeat_age: Duration::from_secs(60),
            grace: Duration::from_millis(10),
            group: None,
            mode: Spanned::new(0..0, "0640".into()),
            readers_mode: Spanned::new(0..0, "0660".into()),
            expire_after_max_ages: 0,
            default_model: true,
        }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    /// /healthz, /readyz, /metrics and /status. Nothing here changes state. Keep it on loopback.
    pub(super) listen: SocketAddr,
    /// Names that the pages may be asked for by, beside addresses and "localhost". Requests for other names are refused,
    /// since a foreign page in a browser could send them (DNS rebinding).
    pub(super) hosts: Vec<Spanned<String>>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9180)), hosts: vec![] }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// "text" or "json", to standard error.
    pub(super) format: super::LogOutput,
    /// A level, or a filter such as "info,bliss_service::origin=debug". BLISS_LOG in the environment overrides it.
    pub(super) level: Spanned<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: super::LogOutput::Text, level: Spanned::new(0..0, "info".into()) }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Attribute {
    pub(super) name: Spanned<String>,
    /// "ip", "hex" (with `bytes`), "string" or "u64".
    #[serde(rename = "type")]
    pub(super) kind: AttributeKind,
    pub(super) bytes: Option<u8>,
}

#[cfg(test)]
pub(super) const ATTRIBUTE_EXAMPLE: &str = r#"
#name = "session"
#type = "hex"
#bytes = 16
"#;

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub(super) enum AttributeKind {
    Ip,
    Hex,
    String,
    U64,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Dimension {
    pub(super) name: Spanned<String>,
    /// Attributes that make the key, in order; an address may be cut to a prefix.
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) key: Vec<KeyPart>,
    /// How a row is found: by its "exact" key, or by the "longest_prefix". Then the key is one address, rows name networks (key.ip =
    /// 192.0.2.0/24), and an address has the row of the longest one that it is in; docs/service.md says more.
    #[serde(rename = "match", default)]
    pub(super) matching: Match,
    /// A row older than this when it is read is stale; "0s": never.
    #[serde(default = "seconds::<3600>", with = "humantime_serde")]
    pub(super) max_age: Duration,
    /// What becomes of a stale row: "use" its values, take the "default" values in place of them, or leave requests
    /// "unscored" by models that use the dimension.
    #[serde(default)]
    pub(super) on_stale: OnStale,
    /// default: the value if there is no row (0, or the category ""). min, max: a value outside is refused, with
    /// everything that came with it.
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) features: Vec<Feature>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub(super) enum Match {
    #[default]
    Exact,
    LongestPrefix,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum OnStale {
    #[default]
    Use,
    Default,
    Unscored,
}

#[cfg(test)]
pub(super) const DIMENSION_EXAMPLE: &str = r#"
#name = "network"
#key = [{ attr = "ip", v4_prefix = 24, v6_prefix = 48 }]
#features = [
#{ name = "abuse_reports_1d", default = 0.0, min = 0.0, max = 1e6 },
#{ name = "kind", type = "category", default = "unknown" },
#]

#[[dimension]]
#name = "session"
#key = ["session"]
#max_age = "10m"
#features = [{ name = "captchas_solved_1h" }]

#[[dimension]]
#name = "hosting"
#key = ["ip"]
#match = "longest_prefix"
#max_age = "30d"
#features = [{ name = "is_hosting", min = 0.0, max = 1.0 }]
"#;

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
    pub(super) default: Option<DefaultValue>,
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
pub(super) enum DefaultValue {
    Number(f32),
    Category(String),
}

struct DefaultVisitor;

impl<'de> Visitor<'de> for DefaultVisitor {
    type Value = DefaultValue;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a finite number, or a category's string")
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<DefaultValue, E> {
        self.visit_f64(value as f64)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<DefaultValue, E> {
        let narrow = value as f32;
        if narrow.is_finite() {
            Ok(DefaultValue::Number(narrow))
        } else {
            Err(E::custom(format!("expected a finite number that fits 32 bits, found {value}")))
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<DefaultValue, E> {
        Ok(DefaultValue::Category(value.to_owned()))
    }
}

impl<'de> Deserialize<'de> for DefaultValue {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DefaultVisitor)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(DefaultVisitor)? {
            DefaultValue::Number(number) => Ok(Number(number)),
            DefaultValue::Category(text) => {
                Err(de::Error::custom(format!("expected a number, found {text:?}")))
            }
        }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) name: Spanned<String>,
    pub(super) version: String,
    pub(super) path: PathBuf,
    /// The class of bots: its name, as text, or its index in the file. Needed unless the classes are 0 and 1, in that
    /// order, or have no names where there are two: then it is class 1.
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) bot_class: Option<BotClass>,
    /// What the model's answer is, where its loss_function makes it no probability (regression, ranking, ...):
    /// "probability", always within 0 and 1, or "log_odds", of which the sigmoid is taken. Otherwise leave it out.
    pub(super) answer: Option<Answer>,
    /// Whether it is published with what explanations need, if its file has that: `bliss_explain` in C, `explain` in Lua. About
    /// twice the published bytes (8 more per leaf); scores take as long.
    #[serde(default = "super::defaults::yes")]
    pub(super) explain: bool,
}

/// A class, by its index or by its name.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a class's name, as text, or its index, a whole number from 0 on")]
pub(super) enum BotClass {
    Index(u32),
    Name(String),
}

#[derive(Deserialize, Clone, Copy)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Probability,
    LogOdds,
}

impl Model {
    pub(super) fn bot(&mut self) -> BotOptions {
        let class = self.bot_class.take().map(|class| match class {
            BotClass::Index(index) => bliss_catboost::BotClass::Index(index),
            BotClass::Name(name) => bliss_catboost::BotClass::Name(name),
        });
        let answer = self.answer.map(|answer| match answer {
            Answer::Probability => AnswerKind::Probability,
            Answer::LogOdds => AnswerKind::LogOdds,
        });
        BotOptions { class, answer }
    }
}

#[cfg(test)]
pub(super) const MODEL_EXAMPLE: &str = r#"
#name = "demo"
#version = "1"
#path = "default.cbm"
#bot_class = 1
#answer = "log_odds"
#explain = true

#[[model]]
#name = "next"
#version = "2"
#path = "next.cbm"
"#;

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) name: Spanned<String>,
    /// The model that gives the score; that of the route "default" if it is left out.
    pub(super) active: Option<Spanned<String>>,
    /// Models that are evaluated and reported beside it.
    #[serde(default)]
    pub(super) shadow: Vec<Spanned<String>>,
    /// What is done with its requests: the name of a [[policy]]; that of "default" if it is left out.
    pub(super) policy: Option<Spanned<String>>,
}

#[cfg(test)]
pub(super) const ROUTE_EXAMPLE: &str = r#"
#name = "default"
#active = "demo"
#shadow = ["next"]
#policy = "default"

#[[route]]
#name = "shop"
#active = "next"
#shadow = []
"#;
