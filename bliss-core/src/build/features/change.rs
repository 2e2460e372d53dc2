//! A change of the features, and making it in place.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use std::collections::HashSet;

use crate::build::prefixes::{BuiltPrefixes, PrefixesError};
use crate::build::table::{Rows, TableMut, Target};
use crate::publication::features::FeaturesRef;
use crate::publication::frame::FrameError;
use crate::schema::{Schema, SchemaError};
use crate::table::{TableError, TableRef};

/// What is new in one dimension.
#[derive(Clone, Debug, PartialEq)]
pub enum DimensionChange {
    /// These rows and no others; a key that is there twice is an error.
    Replace(Rows),
    /// For a dimension that is matched by the longest prefix: these prefixes and no others.
    Prefixes(BuiltPrefixes),
    /// First the keys that go, then the rows that are added or replaced; of two with one key the later counts.
    Patch {
        /// Rows that are added or replaced.
        upserts: Rows,
        /// Keys that go.
        deletes: Vec<u64>,
    },
}

/// What is new, by the index of the dimension in the schema. Each dimension is there at most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Index of the dimension and what is new in it.
    pub dimensions: Vec<(usize, DimensionChange)>,
}

impl Change {
    /// Rows and keys that the change holds.
    pub fn len(&self) -> usize {
        let count = |change: &DimensionChange| match change {
            DimensionChange::Replace(rows) => rows.len(),
            DimensionChange::Prefixes(prefixes) => prefixes.len(),
            DimensionChange::Patch { upserts, deletes } => upserts.len() + deletes.len(),
        };
        self.dimensions.iter().map(|(_, change)| count(change)).sum()
    }

    /// Whether no dimension is named.
    pub fn is_empty(&self) -> bool {
        self.dimensions.is_empty()
    }

    /// Whether all that is new are rows added, replaced or taken out.
    pub fn is_patch(&self) -> bool {
        self.dimensions.iter().all(|(_, change)| matches!(change, DimensionChange::Patch { .. }))
    }

    /// Whether each dimension named is one of the schema, named once, and changed as its rows are found: by keys or by prefixes.
    /// Of two changes of one, which counts would depend on the order in which they are made.
    ///
    /// # Errors
    /// [`FeaturesError::Dimension`], [`FeaturesError::Twice`], [`FeaturesError::Match`], [`FeaturesError::Prefixes`].
    pub fn check(&self, schema: &Schema) -> Result<(), FeaturesError> {
        let dimensions = schema.dimensions.len();
        for (i, (index, change)) in self.dimensions.iter().enumerate() {
            let index = *index;
            let dimension =
                schema.dimensions.get(index).ok_or(FeaturesError::Dimension { index, dimensions })?;
            let name = || dimension.name.clone();
            let expected = dimension.features.len();
            match change {
                DimensionChange::Prefixes(prefixes)
                    if dimension.is_by_prefix() && prefixes.width() != expected =>
                {
                    let error = PrefixesError::Width { expected, found: prefixes.width() };
                    return Err(FeaturesError::Prefixes { dimension: name(), error });
                }
                _ if matches!(change, DimensionChange::Prefixes(_)) != dimension.is_by_prefix() => {
                    let expected = if dimension.is_by_prefix() { "prefixes" } else { "keys" };
                    return Err(FeaturesError::Match { dimension: name(), expected });
                }
                _ => {}
            }
            if self.dimensions[..i].iter().any(|(earlier, _)| *earlier == index) {
                return Err(FeaturesError::Twice { index });
            }
        }
        Ok(())
    }

    pub(super) fn of(&self, index: usize) -> Option<&DimensionChange> {
        self.dimensions.iter().find(|(i, _)| *i == index).map(|(_, change)| change)
    }
}

/// Why features cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeaturesError {
    /// The schema breaks a rule.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The current features are damaged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A dimension's table cannot be made.
    #[error("dimension {dimension:?}: {error}")]
    Table {
        /// Name of the dimension.
        dimension: String,
        /// What is wrong.
        error: TableError,
    },
    /// A dimension's prefixes do not fit it or cannot be made.
    #[error("dimension {dimension:?}: {error}")]
    Prefixes {
        /// Name of the dimension.
        dimension: String,
        /// What is wrong.
        error: PrefixesError,
    },
    /// A change by keys of a dimension that is matched by prefixes, or the other way round.
    #[error("dimension {dimension:?}: its rows are found by {expected}, and so must its change be")]
    Match {
        /// Name of the dimension.
        dimension: String,
        /// `keys` or `prefixes`.
        expected: &'static str,
    },
    /// The change names a dimension that the schema does not have.
    #[error("change of dimension number {index}, but the schema has {dimensions}")]
    Dimension {
        /// Number of the dimension.
        index: usize,
        /// How many there are.
        dimensions: usize,
    },
    /// The change names a dimension twice.
    #[error("change of dimension number {index} is there twice; join them into one")]
    Twice {
        /// Number of the dimension.
        index: usize,
    },
    /// The metadata could not be serialised.
    #[error("metadata cannot be serialised: {0}")]
    Metadata(String),
}

/// Makes the change of one dimension in features that have room for it.
///
/// # Errors
/// [`TableError::Full`] or [`TableError::Crowded`] where the table must be laid out again, by [`super::TableRelocation`] or
/// [`FeaturesBuilder`]: then `target` holds part of the change. A change that [replaces](DimensionChange::Replace) is refused, and one of
/// [prefixes](DimensionChange::Prefixes).
pub fn apply_in_place<T: Target + ?Sized>(
    target: &mut T,
    index: usize,
    change: &DimensionChange,
) -> Result<(), FeaturesError> {
    let features = FeaturesRef::open(target.bytes())?;
    let dimensions = features.schema().dimensions.len();
    let dimension = features.schema().dimensions.get(index);
    let dimension = dimension.ok_or(FeaturesError::Dimension { index, dimensions })?.name.to_string();
    let (at, _) = features.table_offset(index)?;
    let at_table = |error| FeaturesError::Table { dimension: dimension.clone(), error };
    let DimensionChange::Patch { upserts, deletes } = change else {
        return Err(at_table(TableError::Full { rows: 0, room: 0 }));
    };
    let mut table = TableMut::open(target, at as usize).map_err(at_table)?;
    table.apply(upserts, deletes).map_err(at_table)
}

/// Rows of a table once `deletes` were taken out of it and `upserts` put in, in which keys may be named several times.
pub(super) fn rows_after(old: Option<TableRef<'_>>, upserts: &Rows, deletes: &[u64]) -> u64 {
    let is_held = |key: &u64| old.is_some_and(|table| table.get(*key).is_some());
    let mut gone: HashSet<u64> = deletes.iter().copied().filter(is_held).collect();
    let mut added = HashSet::new();
    for &key in &upserts.keys {
        if !gone.remove(&key) && key != 0 && !is_held(&key) {
            added.insert(key);
        }
    }
    let kept = old.map_or(0, |table| table.rows());
    (kept + added.len() as u64).saturating_sub(gone.len() as u64)
}
