//! All feature tables of an installation and their schema, as one publication.
//!
//! The features are a [frame](crate::publication::frame) of kind 1. Its metadata is [`Metadata`]: the schema, the secret under which
//! keys are hashed, and where each dimension's rows lie: a [table](crate::table), or [prefixes](crate::prefixes).

use rkyv::{Archive, Deserialize, Serialize};

use crate::key::{KeySecret, SECRET_BYTES};
use crate::prefixes::PrefixRowsRef;
use crate::publication::frame::{self, FrameError, Kind, Section};
use crate::schema::{
    ArchivedDimension, ArchivedSchema, AttributeKind, MAX_DIMENSIONS, MAX_FEATURES, MAX_KEY_PARTS, Schema,
};
use crate::table::{Layout, TableRef};

/// What travels with the tables. It has no `Debug`, so that the secret gets into no log.
#[derive(Archive, Serialize, Deserialize, Clone)]
pub struct Metadata {
    /// Dimensions, keys and features.
    pub schema: Schema,
    /// A hash of the schema: equal for equal schemas, so that readers bind names only when it changes.
    pub schema_id: u64,
    /// The installation's [`KeySecret`].
    pub secret: [u8; SECRET_BYTES],
    /// The table or the prefixes of each dimension, in their order.
    pub tables: Vec<Section>,
}

/// Checked features in borrowed bytes.
#[derive(Clone, Copy)]
pub struct FeaturesRef<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) metadata: &'a ArchivedMetadata,
}

impl core::fmt::Debug for FeaturesRef<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FeaturesRef").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl<'a> FeaturesRef<'a> {
    /// Checks `bytes`, in time that does not depend on the number of rows, without allocating.
    ///
    /// # Errors
    /// Where anything is damaged, cut off, of another version, or beyond the limits of [`crate::schema`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let features = Self { bytes, metadata: frame::open::<Metadata>(bytes, Kind::Features)? };
        let dimensions = &features.schema().dimensions;
        let limit = |what, found: usize, limit: usize| {
            if found > limit { Err(FrameError::TooMany { what, found, limit }) } else { Ok(()) }
        };
        limit("dimensions", dimensions.len(), MAX_DIMENSIONS)?;
        limit("features", dimensions.iter().map(|d| d.features.len()).sum(), MAX_FEATURES)?;
        if features.metadata.tables.len() != dimensions.len() {
            return Err(FrameError::Metadata);
        }
        for (i, dimension) in dimensions.iter().enumerate() {
            limit("key attributes", dimension.key.len(), MAX_KEY_PARTS)?;
            let known =
                dimension.key.iter().all(|part| features.schema().attribute_kind(&part.attribute).is_some());
            let columns = features.dimension(i)?.columns();
            if columns != dimension.features.len() || !known || !features.is_key_fit(dimension) {
                return Err(FrameError::Section { index: i });
            }
        }
        Ok(features)
    }

    /// Their schema.
    pub fn schema(&self) -> &'a ArchivedSchema {
        &self.metadata.schema
    }

    /// A hash of the schema: features with the same one have equal schemas.
    pub fn schema_id(&self) -> u64 {
        self.metadata.schema_id.to_native()
    }

    /// The secret under which its keys are hashed.
    pub fn secret(&self) -> KeySecret {
        KeySecret(self.metadata.secret)
    }

    /// Whether a key that is matched by its longest prefix is one address.
    fn is_key_fit(&self, dimension: &ArchivedDimension) -> bool {
        let is_address = |part: &crate::schema::ArchivedKeyPart| {
            self.schema().attribute_kind(&part.attribute) == Some(AttributeKind::Ip)
        };
        !dimension.is_by_prefix() || (dimension.key.len() == 1 && dimension.key.iter().all(is_address))
    }

    /// The rows of dimension `index`.
    ///
    /// # Errors
    /// Where there are none or they are damaged; never after [`Self::open`] for a dimension of the schema.
    pub fn dimension(&self, index: usize) -> Result<DimensionRows<'a>, FrameError> {
        let dimension = self.schema().dimensions.get(index).ok_or(FrameError::Section { index })?;
        if dimension.is_by_prefix() {
            self.prefixes(index).map(DimensionRows::Prefixes)
        } else {
            self.table(index).map(DimensionRows::Keys)
        }
    }

    /// The prefixes of dimension `index`, whose longest one counts.
    ///
    /// # Errors
    /// Where it has none or they are damaged.
    pub fn prefixes(&self, index: usize) -> Result<PrefixRowsRef<'a>, FrameError> {
        let section = self.metadata.tables.get(index).ok_or(FrameError::Section { index })?;
        PrefixRowsRef::open(section.of(self.bytes, index)?).map_err(|_| FrameError::Section { index })
    }

    /// Offset in the features of the rows of dimension `index`.
    ///
    /// # Errors
    /// Where there is no such dimension.
    pub fn rows_offset(&self, index: usize) -> Result<u64, FrameError> {
        let section = self.metadata.tables.get(index).ok_or(FrameError::Section { index })?;
        Ok(section.offset.to_native())
    }

    /// The table of dimension `index`.
    ///
    /// # Errors
    /// Where there is none, as for a dimension of [prefixes](Self::prefixes), or it is damaged.
    pub fn table(&self, index: usize) -> Result<TableRef<'a>, FrameError> {
        let section = self.metadata.tables.get(index).ok_or(FrameError::Section { index })?;
        TableRef::open(section.of(self.bytes, index)?).map_err(|_| FrameError::Section { index })
    }

    /// Offset in the features and layout of the table of dimension `index`.
    ///
    /// # Errors
    /// As [`Self::table`].
    pub fn table_offset(&self, index: usize) -> Result<(u64, Layout), FrameError> {
        Ok((self.rows_offset(index)?, *self.table(index)?.layout()))
    }
}

/// The rows of a dimension, by how they are found.
#[derive(Clone, Copy, Debug)]
pub enum DimensionRows<'a> {
    /// By their key.
    Keys(TableRef<'a>),
    /// By the longest prefix.
    Prefixes(PrefixRowsRef<'a>),
}

impl DimensionRows<'_> {
    /// Number of columns.
    pub fn columns(&self) -> usize {
        match self {
            Self::Keys(table) => table.layout().columns(),
            Self::Prefixes(prefixes) => prefixes.layout().columns(),
        }
    }

    /// Number of keys or prefixes that have a row.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Keys(table) => table.rows(),
            Self::Prefixes(prefixes) => prefixes.layout().prefixes(),
        }
    }
}
