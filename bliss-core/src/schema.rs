//! Dimensions, their keys and their features.
//!
//! A *dimension* is one kind of thing that features are kept about (an IP address, a user agent, the pair of
//! both). Its *key* says which attributes of a request name a row of it, its *features* are the columns.
//! The schema is part of the daemon's configuration and travels with the features, so that readers need no
//! configuration of their own.

use rkyv::{Archive, Deserialize, Serialize};

/// The most dimensions a schema may have.
pub const MAX_DIMENSIONS: usize = 64;
/// The most features that all dimensions of a schema may have together.
pub const MAX_FEATURES: usize = 4096;
/// The most attributes that one key may be made of.
pub const MAX_KEY_PARTS: usize = 8;
/// The longest name of a dimension, feature or attribute, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The most hosts that a schema may name as the site's own.
pub const MAX_SITE_HOSTS: usize = 64;

/// Which facts are kept about what.
///
/// ```
/// use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
///
/// let subnet_path = Dimension {
///     name: "subnet_path".into(),
///     key: vec![KeyPart::subnet("ip", 24, 48), KeyPart::whole("path")],
///     max_age_seconds: 600,
///     on_stale: Default::default(),
///     features: vec![
///         Feature::number("requests_1m"),
///         Feature { min: Some(0.0), max: Some(1.0), ..Feature::number("error_share") },
///     ],
/// };
/// let mut schema = Schema { dimensions: vec![subnet_path], ..Schema::default() };
/// schema.validate()?;
/// assert_eq!(schema.width(), 2);
///
/// schema.dimensions[0].features[1].default = 2.0;
/// let error = schema.validate().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"dimension "subnet_path": feature "error_share": its default 2 is out of its range"#
/// );
/// # Ok::<(), bliss_core::schema::SchemaError>(())
/// ```
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Schema {
    /// Attributes beside or instead of the [built-in ones](builtin_attributes).
    pub attributes: Vec<Attribute>,
    /// Dimensions, in the order of their features in a looked-up vector.
    pub dimensions: Vec<Dimension>,
    /// A row whose time of update lies at most this far in a reader's future is fresh, beyond it stale; in seconds.
    pub clock_skew_seconds: u32,
    /// Requests are unscored once the publishing daemon has given no sign of life for longer than this; in seconds, 0 for
    /// never. What it published last would otherwise decide for ever.
    pub max_heartbeat_age_seconds: u32,
    /// Hosts of the site beside the one that a request asks for, in lower case and without port: where a referrer names one,
    /// the visitor comes from the site itself. A leading `www.` makes no difference.
    pub site_hosts: Vec<String>,
}

/// What a schema says unless told otherwise. Not 0, on one machine either: a row's time comes from an exact clock, and readers
/// use cached ones (nginx's) or coarse ones (`time(2)`), for which it lies in the future.
pub const DEFAULT_CLOCK_SKEW_SECONDS: u32 = 5;

impl Default for Schema {
    /// No attributes, dimensions and hosts, [`DEFAULT_CLOCK_SKEW_SECONDS`], and no limit of the heartbeat's age.
    fn default() -> Self {
        Self {
            attributes: vec![],
            dimensions: vec![],
            clock_skew_seconds: DEFAULT_CLOCK_SKEW_SECONDS,
            max_heartbeat_age_seconds: 0,
            site_hosts: vec![],
        }
    }
}

/// A named attribute of requests and its type.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Name by which keys and callers refer to it, for instance `user_agent`.
    pub name: String,
    /// How its values are read.
    pub kind: AttributeKind,
}

pub use kind::{ArchivedAttributeKind, AttributeKind};

/// A module of its own because rkyv's derive makes undocumented structs of an enum's named fields.
#[allow(missing_docs)]
mod kind {
    use rkyv::{Archive, Deserialize, Serialize};

    /// How an attribute's values are read and which canonical bytes they have (see [`crate::attribute`]).
    #[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
    #[rkyv(derive(Clone, Copy, Debug))]
    pub enum AttributeKind {
        /// An IPv4 or IPv6 address, as text or as 4 or 16 bytes.
        Ip,
        /// A digest of a fixed number of bytes, as hexadecimal text or as bytes.
        Hex {
            /// Length of the digest in bytes, 1 to 64.
            bytes: u8,
        },
        /// Any bytes, compared as they are.
        String,
        /// An unsigned number, as decimal text, as 8 little-endian bytes or as a number.
        U64,
    }

    impl ArchivedAttributeKind {
        /// As a value of its own.
        pub fn to_native(self) -> AttributeKind {
            match self {
                Self::Ip => AttributeKind::Ip,
                Self::Hex { bytes } => AttributeKind::Hex { bytes },
                Self::String => AttributeKind::String,
                Self::U64 => AttributeKind::U64,
            }
        }
    }
}

/// One kind of thing that features are kept about.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Dimension {
    /// Name, for instance `ip`; inputs of models are named `dimension.feature`.
    pub name: String,
    /// Attributes that make the key, in order.
    pub key: Vec<KeyPart>,
    /// A row older than this when it is read is stale; in seconds, 0 for never.
    pub max_age_seconds: u32,
    /// What becomes of a row that is stale.
    pub on_stale: OnStale,
    /// Columns, in the order in which a row holds them.
    pub features: Vec<Feature>,
}

/// What becomes of a row that is older than its dimension's `max_age_seconds`. It counts as stale in any case.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
pub enum OnStale {
    /// Its values are used.
    #[default]
    Use,
    /// The default values are used in place of its own, as if there were no row.
    Default,
    /// A model that uses the dimension does not score the request ([`crate::score::Unscored::StaleDimension`]).
    Unscored,
}

/// One attribute of a key.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Name of the attribute.
    pub attribute: String,
    /// For an IPv4 address: how many leading bits count, the rest are set to 0.
    pub v4_prefix: Option<u8>,
    /// For an IPv6 address: how many leading bits count, the rest are set to 0.
    pub v6_prefix: Option<u8>,
    /// Rows name networks ([`crate::prefixes`]), and an address has the row of the longest one that it is in. It is then the
    /// only part of its key.
    pub longest_prefix: bool,
}

impl KeyPart {
    /// The whole value of the attribute `name`.
    pub fn whole(name: &str) -> Self {
        Self { attribute: name.into(), v4_prefix: None, v6_prefix: None, longest_prefix: false }
    }

    /// The address in attribute `name`, cut to `v4` bits for IPv4 and `v6` bits for IPv6.
    pub fn subnet(name: &str, v4: u8, v6: u8) -> Self {
        Self { v4_prefix: Some(v4), v6_prefix: Some(v6), ..Self::whole(name) }
    }

    /// The longest network that has a row and that the address in attribute `name` is in.
    pub fn network(name: &str) -> Self {
        Self { longest_prefix: true, ..Self::whole(name) }
    }
}

/// A column of a dimension.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Feature {
    /// Name, for instance `requests_1m`.
    pub name: String,
    /// What its 4 bytes mean.
    pub kind: FeatureKind,
    /// The value where no row is found; for a category the `f32` whose bits are its hash.
    pub default: f32,
    /// Smallest value that an origin may send.
    pub min: Option<f32>,
    /// Largest value that an origin may send.
    pub max: Option<f32>,
}

impl Feature {
    /// A number with default 0 and no limits.
    pub fn number(name: &str) -> Self {
        Self { name: name.into(), kind: FeatureKind::F32, default: 0.0, min: None, max: None }
    }
}

/// What the 4 bytes of a column mean.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
pub enum FeatureKind {
    /// A finite number.
    F32,
    /// CatBoost's 32-bit hash of a string, stored bit for bit in place of the `f32`.
    Category,
}

/// Attributes that every schema knows without naming them: `ip` (address), `user_agent`, `host`, `path`,
/// `method`, `scheme`, `referrer`, `country`, `ja4`, `crawler` (strings), `ja3` (16-byte digest), `asn` and `browser` (numbers).
pub fn builtin_attributes() -> [(&'static str, AttributeKind); 13] {
    use AttributeKind::{Hex, Ip, String, U64};
    [
        ("ip", Ip),
        ("user_agent", String),
        ("host", String),
        ("path", String),
        ("method", String),
        ("scheme", String),
        ("referrer", String),
        ("country", String),
        ("ja4", String),
        ("ja3", Hex { bytes: 16 }),
        ("asn", U64),
        ("browser", U64),
        ("crawler", String),
    ]
}

/// The type of attribute `name`: the schema's own, else the built-in one.
fn kind_of<'a>(name: &str, mut own: impl Iterator<Item = (&'a str, AttributeKind)>) -> Option<AttributeKind> {
    let builtin = || builtin_attributes().into_iter().find(|(builtin, _)| *builtin == name);
    own.find(|(own, _)| *own == name).or_else(builtin).map(|(_, kind)| kind)
}

impl Dimension {
    /// Whether its rows name networks, of which the longest counts.
    pub fn is_by_prefix(&self) -> bool {
        self.key.iter().any(|part| part.longest_prefix)
    }
}

impl ArchivedDimension {
    /// Whether its rows name networks, of which the longest counts.
    pub fn is_by_prefix(&self) -> bool {
        self.key.iter().any(|part| part.longest_prefix)
    }
}

impl ArchivedOnStale {
    /// As a value of its own.
    pub fn to_native(self) -> OnStale {
        match self {
            Self::Use => OnStale::Use,
            Self::Default => OnStale::Default,
            Self::Unscored => OnStale::Unscored,
        }
    }
}

impl ArchivedSchema {
    /// The type of attribute `name`: as the schema says, else as built in, else none.
    pub fn attribute_kind(&self, name: &str) -> Option<AttributeKind> {
        kind_of(name, self.attributes.iter().map(|a| (a.name.as_str(), a.kind.to_native())))
    }
}

/// Why a schema is refused; the text names the dimension, feature or attribute and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

impl Schema {
    /// The type of attribute `name`: as the schema says, else as built in, else none.
    pub fn attribute_kind(&self, name: &str) -> Option<AttributeKind> {
        kind_of(name, self.attributes.iter().map(|a| (a.name.as_str(), a.kind)))
    }

    /// The index of dimension `name`.
    pub fn dimension_index(&self, name: &str) -> Option<usize> {
        self.dimensions.iter().position(|d| d.name == name)
    }

    /// The feature that a model calls `name`, as `dimension.feature`.
    pub fn feature(&self, name: &str) -> Option<&Feature> {
        let (dimension, feature) = name.split_once('.')?;
        let dimension = self.dimensions.iter().find(|known| known.name == dimension)?;
        dimension.features.iter().find(|known| known.name == feature)
    }

    /// Number of features of all dimensions together: the length of a looked-up vector.
    pub fn width(&self) -> usize {
        self.dimensions.iter().map(|d| d.features.len()).sum()
    }

    /// Checks names, hosts, limits, key parts, defaults and ranges.
    ///
    /// # Errors
    /// The first rule that is broken, with the name of what breaks it.
    pub fn validate(&self) -> Result<(), SchemaError> {
        let fail = |text: String| Err(SchemaError(text));
        check_unique("attribute", self.attributes.iter().map(|a| &a.name))?;
        check_unique("dimension", self.dimensions.iter().map(|d| &d.name))?;
        for a in &self.attributes {
            if let AttributeKind::Hex { bytes } = a.kind
                && !(1..=64).contains(&bytes)
            {
                return fail(format!("attribute {:?}: a digest has 1 to 64 bytes, found {bytes}", a.name));
            }
        }
        if self.dimensions.len() > MAX_DIMENSIONS {
            return fail(format!(
                "a schema has at most {MAX_DIMENSIONS} dimensions, found {}",
                self.dimensions.len()
            ));
        }
        if self.width() > MAX_FEATURES {
            return fail(format!(
                "the dimensions of a schema have at most {MAX_FEATURES} features together, found {}",
                self.width()
            ));
        }
        if self.site_hosts.len() > MAX_SITE_HOSTS {
            return fail(format!(
                "a site has at most {MAX_SITE_HOSTS} hosts of its own, found {}",
                self.site_hosts.len()
            ));
        }
        for host in &self.site_hosts {
            let is_host = crate::http::host(host.as_bytes()) == Some(host.as_bytes())
                && !host.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || byte == b'/');
            if !is_host || host.len() > MAX_NAME_BYTES {
                return fail(format!(
                    "site host {host:?}: expected a host in lower case without scheme and port, such as `shop.example`, of \
                     at most {MAX_NAME_BYTES} bytes"
                ));
            }
        }
        self.dimensions.iter().try_for_each(|d| self.validate_dimension(d))
    }

    fn validate_dimension(&self, d: &Dimension) -> Result<(), SchemaError> {
        let fail = |text: String| Err(SchemaError(format!("dimension {:?}: {text}", d.name)));
        if d.name == "request" {
            return fail("the name is taken by the values that a request brings itself".into());
        }
        if d.features.is_empty() {
            return fail("it has no features; give it at least one, or remove it".into());
        }
        if d.key.is_empty() || d.key.len() > MAX_KEY_PARTS {
            return fail(format!("a key has 1 to {MAX_KEY_PARTS} attributes, found {}", d.key.len()));
        }
        for part in &d.key {
            let Some(kind) = self.attribute_kind(&part.attribute) else {
                return fail(format!(
                    "its key names the attribute {:?}, which is neither built in nor declared; declare it with its type",
                    part.attribute
                ));
            };
            let prefixed = part.v4_prefix.is_some() || part.v6_prefix.is_some();
            if prefixed && kind != AttributeKind::Ip {
                return fail(format!(
                    "a prefix length fits addresses only, and {:?} is none",
                    part.attribute
                ));
            }
            if part.v4_prefix.is_some_and(|p| p > 32) || part.v6_prefix.is_some_and(|p| p > 128) {
                return fail("prefix lengths are at most 32 (IPv4) and 128 (IPv6)".into());
            }
        }
        if d.is_by_prefix() {
            let is_one_address = match d.key.as_slice() {
                [part] => self.attribute_kind(&part.attribute) == Some(AttributeKind::Ip),
                _ => false,
            };
            let is_whole = d.key.iter().all(|part| part.v4_prefix.is_none() && part.v6_prefix.is_none());
            if !is_one_address || !is_whole {
                return fail(
                    "where the longest prefix counts, the key is one attribute of type ip, without prefix lengths; they are \
                     in the rows"
                        .into(),
                );
            }
        }
        check_unique("feature", d.features.iter().map(|f| &f.name)).or_else(|e| fail(e.0))?;
        for f in &d.features {
            if f.kind == FeatureKind::Category {
                if f.min.is_some() || f.max.is_some() {
                    return fail(format!("feature {:?}: a category has no range", f.name));
                }
                continue;
            }
            let limits = [Some(f.default), f.min, f.max];
            if limits.iter().flatten().any(|v| !v.is_finite()) {
                return fail(format!("feature {:?}: default, min and max must be finite numbers", f.name));
            }
            if let (Some(min), Some(max)) = (f.min, f.max)
                && min > max
            {
                return fail(format!("feature {:?}: min {min} is above max {max}", f.name));
            }
            if !f.accepts(f.default) {
                return fail(format!("feature {:?}: its default {} is out of its range", f.name, f.default));
            }
        }
        Ok(())
    }
}

impl Feature {
    /// Whether an origin may send `value` for this number: finite, and within `min` and `max`.
    pub fn accepts(&self, value: f32) -> bool {
        value.is_finite()
            && self.min.is_none_or(|min| value >= min)
            && self.max.is_none_or(|max| value <= max)
    }
}

/// Names must be 1 to [`MAX_NAME_BYTES`] bytes of ASCII letters, digits, `_` and `-`, each used once.
fn check_unique<'a>(what: &str, names: impl Iterator<Item = &'a String> + Clone) -> Result<(), SchemaError> {
    for (i, name) in names.clone().enumerate() {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
            return Err(SchemaError(format!(
                "{what} {name:?}: a name has 1 to {MAX_NAME_BYTES} ASCII letters, digits, `_` or `-`"
            )));
        }
        if names.clone().take(i).any(|earlier| earlier == name) {
            return Err(SchemaError(format!("{what} {name:?} is there twice; remove one")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dimension(name: &str) -> Dimension {
        Dimension {
            name: name.into(),
            key: vec![KeyPart::whole("ip")],
            max_age_seconds: 600,
            on_stale: Default::default(),
            features: vec![Feature::number("requests_1m")],
        }
    }

    fn error(change: impl FnOnce(&mut Schema)) -> String {
        let mut schema =
            Schema { dimensions: vec![dimension("ip"), dimension("other")], ..Schema::default() };
        schema.validate().unwrap();
        change(&mut schema);
        schema.validate().unwrap_err().0
    }

    #[test]
    fn every_broken_rule_is_named() {
        assert!(error(|s| s.dimensions[0].features.clear()).contains("\"ip\": it has no features"));
        assert!(error(|s| s.dimensions[1].name = "ip".into()).contains("twice"));
        assert!(error(|s| s.dimensions[1].name = "a b".into()).contains("letters"));
        assert!(error(|s| s.dimensions[1].name = "request".into()).contains("taken"));
        assert!(error(|s| s.dimensions[0].key.clear()).contains("1 to 8 attributes"));
        assert!(error(|s| s.dimensions[0].key[0].attribute = "nope".into()).contains("\"nope\""));
        assert!(error(|s| s.dimensions[0].key = vec![KeyPart::subnet("host", 1, 1)]).contains("prefix"));
        assert!(error(|s| s.dimensions[0].key[0].v4_prefix = Some(33)).contains("32"));
        assert!(error(|s| s.dimensions[0].features[0].default = f32::NAN).contains("finite"));
        assert!(error(|s| s.dimensions[0].features[0].min = Some(1.0)).contains("out of its range"));
        assert!(
            error(|s| s
                .attributes
                .push(Attribute { name: "x".into(), kind: AttributeKind::Hex { bytes: 0 } }))
            .contains("1 to 64")
        );
        for key in [
            vec![KeyPart::network("host")],
            vec![KeyPart::network("ip"), KeyPart::whole("host")],
            vec![KeyPart { longest_prefix: true, ..KeyPart::subnet("ip", 24, 48) }],
        ] {
            assert!(error(|s| s.dimensions[0].key = key).contains("one attribute of type ip"));
        }
        let twice = error(|s| {
            let f = s.dimensions[0].features[0].clone();
            s.dimensions[0].features.push(f);
        });
        assert!(
            twice.contains("\"ip\"") && twice.contains("\"requests_1m\"") && twice.contains("twice"),
            "{twice}"
        );
        assert!(
            error(|s| s.dimensions = (0..65).map(|i| dimension(&format!("d{i}"))).collect()).contains("64")
        );
    }
}
