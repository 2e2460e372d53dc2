//! The keys of a dimension's rows, with what the daemon knows beside them: the secret and the attributes' names.

use bliss_core::attribute::Value;
use bliss_core::key::{KeyBuilder, KeyError, KeySecret};
use bliss_core::schema::{Dimension, Schema};

/// Makes the keys of one dimension, as readers do: by [`KeyBuilder`].
#[derive(Clone, Debug)]
pub struct DimensionKeys {
    secret: KeySecret,
    attributes: Vec<String>,
    /// `None` for a dimension that the schema does not allow: no value fits its key.
    builder: Option<KeyBuilder>,
}

impl DimensionKeys {
    /// The keys of `dimension` of the valid `schema`.
    pub fn new(secret: &KeySecret, schema: &Schema, dimension: &Dimension) -> Self {
        Self {
            secret: *secret,
            attributes: dimension.key.iter().map(|part| part.attribute.clone()).collect(),
            builder: KeyBuilder::new(schema, dimension),
        }
    }

    /// Names of the attributes that make the key, in order.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.attributes.iter().map(String::as_str)
    }

    /// As [`KeyBuilder::key`].
    ///
    /// # Errors
    /// [`KeyError`] where a value is absent or does not fit.
    pub fn key<'v>(&self, value: impl FnMut(usize) -> Option<Value<'v>>) -> Result<u64, KeyError> {
        self.key_and_parts(value, |_| ())
    }

    /// As [`KeyBuilder::key_and_parts`].
    ///
    /// # Errors
    /// [`KeyError`] where a value is absent or does not fit.
    pub fn key_and_parts<'v>(
        &self,
        value: impl FnMut(usize) -> Option<Value<'v>>,
        part: impl FnMut(&[u8]),
    ) -> Result<u64, KeyError> {
        let builder = self.builder.as_ref().ok_or(KeyError::Unfit(0))?;
        builder.key_and_parts(&self.secret, value, part)
    }
}
