//! From attribute values to the keys of rows, as readers make them.

use bliss_core::attribute::{Canonical, Value};
use bliss_core::key::{KeySecret, hash_key};
use bliss_core::schema::{AttributeKind, Dimension, MAX_KEY_PARTS, Schema};

/// Makes the keys of one dimension.
#[derive(Clone, Debug)]
pub struct Keyer {
    secret: KeySecret,
    dimension: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    attribute: String,
    kind: AttributeKind,
    v4_prefix: Option<u8>,
    v6_prefix: Option<u8>,
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// The attribute at this place of the key has no value.
    Absent(usize),
    /// The value at this place does not fit the attribute's type.
    Unfit(usize),
}

impl Keyer {
    /// A keyer for `dimension` of the valid `schema`.
    pub fn new(secret: &KeySecret, schema: &Schema, dimension: &Dimension) -> Self {
        let parts = dimension.key.iter().take(MAX_KEY_PARTS).map(|part| Part {
            attribute: part.attribute.clone(),
            kind: schema.attribute_kind(&part.attribute).unwrap_or(AttributeKind::String),
            v4_prefix: part.v4_prefix,
            v6_prefix: part.v6_prefix,
        });
        Self { secret: *secret, dimension: dimension.name.clone(), parts: parts.collect() }
    }

    /// Names of the attributes that make the key, in order.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parts.iter().map(|part| part.attribute.as_str())
    }

    /// The key of the row whose attributes `value` gives, by their place in the key; `check` gets the canonical
    /// bytes of each, for telling two rows of one key apart.
    ///
    /// # Errors
    /// [`NoKey`] where a value is missing or unfit.
    pub fn key_checked<'a>(
        &self,
        mut value: impl FnMut(usize) -> Option<Value<'a>>,
        mut check: impl FnMut(&[u8]),
    ) -> Result<u64, NoKey> {
        let empty = Canonical::new(AttributeKind::String, Value::Text(b""));
        let mut canonical = [empty; MAX_KEY_PARTS];
        for (at, part) in self.parts.iter().enumerate() {
            let value = value(at).ok_or(NoKey::Absent(at))?;
            let bytes = Canonical::new(part.kind, value).ok_or(NoKey::Unfit(at))?;
            canonical[at] = Some(bytes.masked(part.v4_prefix, part.v6_prefix));
        }
        let parts = || canonical[..self.parts.len()].iter().flatten().map(Canonical::bytes);
        parts().for_each(&mut check);
        Ok(hash_key(&self.secret, &self.dimension, parts()))
    }

    /// [`Self::key_checked`] for those who need no check.
    ///
    /// # Errors
    /// [`NoKey`] where a value is missing or unfit.
    pub fn key<'a>(&self, value: impl FnMut(usize) -> Option<Value<'a>>) -> Result<u64, NoKey> {
        self.key_checked(value, |_| ())
    }
}
