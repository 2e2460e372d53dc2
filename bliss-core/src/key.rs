//! The keyed 64-bit hash that names a row.
//!
//! `key = XXH3-64(secret, message)`, where `secret` is the installation's own 192 bytes and `message` is
//!
//! ```text
//! u32 LE length of the dimension's name, the name,
//! then for each attribute of the key, in order: u32 LE length of its canonical bytes, those bytes
//! ```
//!
//! Canonical bytes are those of [`crate::attribute`]. A result of 0 becomes 1, since 0 marks an empty slot of a
//! table. With a public secret anyone could compute a user agent that lands on another client's row; the
//! secret is made by the daemon, travels in the features (whose files other users cannot read) and is never
//! logged. Test vectors are in `docs/keys.md` and in this module's tests.

use core::fmt;
use core::mem::MaybeUninit;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_secret};

use crate::attribute::{Canonical, Value};
use crate::http::Rule;
use crate::name::Name;
use crate::schema::{ArchivedDimension, ArchivedSchema, AttributeKind, Dimension, MAX_KEY_PARTS, Schema};

/// Length of a [`KeySecret`] in bytes: that of XXH3's own default secret.
pub const SECRET_BYTES: usize = 192;

/// Messages up to this length are hashed from the stack in one go; longer ones are streamed, to the same result.
const ONE_SHOT_BYTES: usize = 1024;

/// The secret under which an installation hashes its keys. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySecret(pub [u8; SECRET_BYTES]);

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(..)")
    }
}

/// Why a request or a row has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The key part at this index has no value.
    Absent(usize),
    /// The value of the key part at this index does not fit the attribute's type.
    Unfit(usize),
}

/// Builds the keys of one dimension, for readers and writers alike: both must agree to the bit.
///
/// It takes values by the index of the key part, holds no references and never allocates.
///
/// ```
/// use bliss_core::attribute::Value;
/// use bliss_core::key::{KeyBuilder, KeyError, KeySecret, SECRET_BYTES};
/// use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
///
/// let dimension = Dimension {
///     name: "subnet_path".into(),
///     key: vec![KeyPart::subnet("ip", 24, 48), KeyPart::whole("path")],
///     max_age_seconds: 600,
///     on_stale: Default::default(),
///     features: vec![Feature::number("requests_1m")],
/// };
/// let schema = Schema { dimensions: vec![dimension], ..Schema::default() };
/// let secret = KeySecret([7; SECRET_BYTES]);
/// let keys = KeyBuilder::new(&schema, &schema.dimensions[0]).unwrap();
///
/// // One subnet, as text and as bytes.
/// let text = [Value::from("192.0.2.1"), "/login".into()];
/// let binary = [Value::Binary(&[192, 0, 2, 99]), "/login".into()];
/// let key = keys.key(&secret, |part| text.get(part).copied())?;
/// assert_eq!(keys.key(&secret, |part| binary.get(part).copied())?, key);
///
/// // A request that lacks an attribute of the key has no row.
/// assert_eq!(keys.key(&secret, |part| text[..1].get(part).copied()), Err(KeyError::Absent(1)));
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KeyBuilder {
    dimension: Name,
    parts: [Part; MAX_KEY_PARTS],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    kind: AttributeKind,
    rule: Rule,
    v4_prefix: Option<u8>,
    v6_prefix: Option<u8>,
}

impl KeyBuilder {
    /// For `dimension` of `schema`; `None` if an attribute is unknown or a limit of [`crate::schema`] is exceeded, which
    /// a valid schema rules out.
    pub fn new(schema: &Schema, dimension: &Dimension) -> Option<Self> {
        let parts = dimension.key.iter().map(|part| {
            let kind = schema.attribute_kind(&part.attribute)?;
            let rule = Rule::of(&part.attribute);
            Some(Part { kind, rule, v4_prefix: part.v4_prefix, v6_prefix: part.v6_prefix })
        });
        Self::of_parts(&dimension.name, parts)
    }

    /// The same for a published schema.
    pub fn of_archived(schema: &ArchivedSchema, dimension: &ArchivedDimension) -> Option<Self> {
        let parts = dimension.key.iter().map(|part| {
            let (v4_prefix, v6_prefix) = (part.v4_prefix.as_ref().copied(), part.v6_prefix.as_ref().copied());
            let kind = schema.attribute_kind(&part.attribute)?;
            Some(Part { kind, rule: Rule::of(&part.attribute), v4_prefix, v6_prefix })
        });
        Self::of_parts(&dimension.name, parts)
    }

    fn of_parts(dimension: &str, parts: impl ExactSizeIterator<Item = Option<Part>>) -> Option<Self> {
        let unused =
            Part { kind: AttributeKind::String, rule: Rule::Verbatim, v4_prefix: None, v6_prefix: None };
        let len = parts.len();
        let mut builder = Self { dimension: Name::new(dimension)?, parts: [unused; MAX_KEY_PARTS], len };
        for (to, part) in builder.parts.get_mut(..len)?.iter_mut().zip(parts) {
            *to = part?;
        }
        Some(builder)
    }

    /// The dimension's name.
    pub fn dimension(&self) -> &str {
        self.dimension.as_str()
    }

    /// Number of key parts.
    pub fn parts(&self) -> usize {
        self.len
    }

    /// The key of the row whose key parts have the values that `value` gives by index.
    ///
    /// # Errors
    /// The first part without a value, or whose value does not fit its attribute's type.
    #[inline]
    pub fn key<'v>(
        &self,
        secret: &KeySecret,
        value: impl FnMut(usize) -> Option<Value<'v>>,
    ) -> Result<u64, KeyError> {
        self.key_and_parts(secret, value, |_| ())
    }

    /// As [`Self::key`]; `part` gets the canonical bytes of each part, which tell two rows of one key apart.
    ///
    /// # Errors
    /// As [`Self::key`].
    #[inline]
    pub fn key_and_parts<'v>(
        &self,
        secret: &KeySecret,
        mut value: impl FnMut(usize) -> Option<Value<'v>>,
        part: impl FnMut(&[u8]),
    ) -> Result<u64, KeyError> {
        let mut canonical = [const { None }; MAX_KEY_PARTS];
        for (i, (to, part)) in canonical.iter_mut().zip(&self.parts).take(self.len).enumerate() {
            let value = value(i).ok_or(KeyError::Absent(i))?;
            let whole = Canonical::by_rule(part.kind, part.rule, value).ok_or(KeyError::Unfit(i))?;
            *to = Some(whole.masked(part.v4_prefix, part.v6_prefix));
        }
        let parts = canonical.iter().flatten().map(Canonical::bytes);
        parts.clone().for_each(part);
        Ok(hash_key(secret, self.dimension.as_str(), parts))
    }
}

/// The key of the row of dimension `name` whose key attributes have the canonical bytes `parts`.
///
/// Does not allocate. Costs a few nanoseconds for short values.
pub fn hash_key<'a>(secret: &KeySecret, name: &'a str, parts: impl Iterator<Item = &'a [u8]> + Clone) -> u64 {
    let fields = core::iter::once(name.as_bytes()).chain(parts);
    let total = fields.clone().fold(0usize, |n, field| n.saturating_add(field.len()).saturating_add(4));
    let hash = if total <= ONE_SHOT_BYTES {
        let mut message = Message::new();
        fields.for_each(|field| message.push(field));
        xxh3_64_with_secret(message.bytes(), &secret.0)
    } else {
        let mut state = Xxh3::with_secret(secret.0);
        for field in fields {
            state.update(&length_prefix(field));
            state.update(field);
        }
        state.digest()
    };
    hash.max(1)
}

/// A field's length as it enters the message. Nothing in one process is longer than `u32::MAX` in practice; a
/// longer field would only collide, not fail.
fn length_prefix(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// A message put together on the stack, whose unused part is never initialised.
struct Message {
    bytes: [MaybeUninit<u8>; ONE_SHOT_BYTES],
    len: usize,
}

impl Message {
    fn new() -> Self {
        Self { bytes: [const { MaybeUninit::uninit() }; ONE_SHOT_BYTES], len: 0 }
    }

    /// Appends the length of `field` and `field`; the caller has checked that they fit, else nothing is added.
    fn push(&mut self, field: &[u8]) {
        for part in [length_prefix(field).as_slice(), field] {
            debug_assert!(self.len + part.len() <= ONE_SHOT_BYTES);
            let Some(room) = self.bytes.get_mut(self.len..).and_then(|rest| rest.get_mut(..part.len()))
            else {
                return;
            };
            for (to, from) in room.iter_mut().zip(part) {
                to.write(*from);
            }
            self.len += part.len();
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY:
        // - the first `len` elements were initialised by `push`, which counts exactly what it wrote
        // - `len` is at most the array's length, since `push` writes only inside the array
        // - `MaybeUninit<u8>` has the layout of `u8`, and the borrow is that of `self`
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Canonical;
    use crate::schema::AttributeKind;
    use proptest::prelude::*;

    fn counting_secret() -> KeySecret {
        KeySecret(core::array::from_fn(|i| i as u8))
    }

    /// The definition once more, in the plainest words.
    fn naive(secret: &KeySecret, name: &str, parts: &[Vec<u8>]) -> u64 {
        let mut message = (name.len() as u32).to_le_bytes().to_vec();
        message.extend(name.as_bytes());
        for p in parts {
            message.extend((p.len() as u32).to_le_bytes());
            message.extend(p);
        }
        let mut state = Xxh3::with_secret(secret.0);
        state.update(&message);
        state.digest().max(1)
    }

    /// The vectors of `docs/keys.md`, with a secret of the bytes 0, 1, 2, … 191.
    #[test]
    fn documented_vectors_hold() {
        let documented = include_str!("../../docs/keys.md");
        let vectors: [(&str, &[(AttributeKind, &str)]); 5] = [
            ("ip", &[(AttributeKind::Ip, "192.0.2.1")]),
            ("ip", &[(AttributeKind::Ip, "2001:db8::1")]),
            ("user_agent", &[(AttributeKind::String, "curl/8.0")]),
            ("ip_user_agent", &[(AttributeKind::Ip, "192.0.2.1"), (AttributeKind::String, "curl/8.0")]),
            ("ja3", &[(AttributeKind::Hex { bytes: 16 }, "e7d705a3286e19ea42f587b344ee6865")]),
        ];
        for (name, parts) in vectors {
            let canonical: Vec<_> =
                parts.iter().map(|(kind, text)| Canonical::new(*kind, (*text).into()).unwrap()).collect();
            let key = hash_key(&counting_secret(), name, canonical.iter().map(Canonical::bytes));
            let values: Vec<_> = parts.iter().map(|(_, text)| format!("`{text}`")).collect();
            let row = format!("| `{name}` | {} | `{key:016x}` |", values.join(", "));
            assert!(documented.contains(&row), "docs/keys.md lacks the row {row}");
        }
    }

    /// What a worker has and what the log has of one request name one row; a value that is none names none.
    #[test]
    fn keys_follow_the_rules_of_http() {
        use crate::schema::{Dimension, Feature, KeyPart, Schema};
        let key = |attribute: &str, text: &str| {
            let dimension = Dimension {
                name: "d".into(),
                key: vec![KeyPart::whole(attribute)],
                max_age_seconds: 0,
                on_stale: Default::default(),
                features: vec![Feature::number("x")],
            };
            let schema = Schema { dimensions: vec![dimension], ..Schema::default() };
            let keys = KeyBuilder::new(&schema, &schema.dimensions[0]).unwrap();
            keys.key(&counting_secret(), |_| Some(text.into()))
        };
        for (attribute, worker, log) in [
            ("path", "/a?b=c", "/a"),
            ("path", "/", "HTTP://shop.example"),
            ("path", "/sp", " /sp "),
            ("host", "shop.example", "Shop.Example.:443"),
        ] {
            assert_eq!(key(attribute, worker), key(attribute, log), "{attribute}: {worker}, {log}");
            assert!(key(attribute, worker).is_ok());
        }
        for attribute in ["path", "method", "host", "user_agent", "referrer"] {
            assert_eq!(key(attribute, "-"), Err(KeyError::Unfit(0)), "{attribute}");
        }
        assert_ne!(key("user_agent", "a?b"), key("user_agent", "a"));
        let long = format!("A{}", "b".repeat(64));
        assert_eq!(key("host", &long), Err(KeyError::Unfit(0)), "no room for its lower case");
        assert!(key("host", &long.to_lowercase()).is_ok());
    }

    #[test]
    fn secret_is_not_shown() {
        assert_eq!(format!("{:?}", counting_secret()), "KeySecret(..)");
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            name in "[a-z_]{1,20}",
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..4),
        ) {
            let key = hash_key(&counting_secret(), &name, parts.iter().map(Vec::as_slice));
            prop_assert_eq!(key, naive(&counting_secret(), &name, &parts));
        }
    }
}
