//! The prefixes of a dimension in features that are built whole.

use std::borrow::Cow;

use super::change::{DimensionChange, FeaturesError};
use crate::build::prefixes::BuiltPrefixes;
use crate::build::table::Column;
use crate::prefixes::PrefixRowsRef;
use crate::schema::Dimension;

/// The bytes of the prefixes of `dimension` after a change, given the `old` ones and where each column comes from.
pub(super) fn bytes_after<'a>(
    dimension: &Dimension,
    old: Option<PrefixRowsRef<'a>>,
    columns: &[Column],
    same_columns: bool,
    change: Option<&'a DimensionChange>,
) -> Result<Cow<'a, [u8]>, FeaturesError> {
    let owned = |built: BuiltPrefixes| Cow::Owned(built.into_bytes());
    match (change, old) {
        (Some(DimensionChange::Prefixes(prefixes)), _) => Ok(Cow::Borrowed(prefixes.bytes())),
        (_, Some(old)) if same_columns => Ok(Cow::Borrowed(old.bytes())),
        (_, Some(old)) => Ok(owned(BuiltPrefixes::with_columns(old, columns))),
        (_, None) => BuiltPrefixes::none(dimension.features.len())
            .map(owned)
            .map_err(|error| FeaturesError::Prefixes { dimension: dimension.name.clone(), error }),
    }
}
