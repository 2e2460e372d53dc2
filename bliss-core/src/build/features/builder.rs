//! Building the next features from the current ones and a change.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use std::borrow::Cow;

use rkyv::util::AlignedVec;

use super::change::{Change, DimensionChange, FeaturesError, rows_after};
use super::prefixes::bytes_after;
use super::space_budget::SpaceBudget;
use crate::build::frame::{Packer, write_header};
use crate::build::table::{self, BuildJob, Column, Rows, Source};
use crate::key::KeySecret;
use crate::publication::features::{DimensionRows, FeaturesRef, Metadata};
use crate::publication::frame::{FrameError, Kind, Section};
use crate::schema::{ArchivedDimension, Dimension, Schema};
use crate::table::{Layout, TableError, TableRef};

/// A hash of a schema: equal for equal schemas.
///
/// # Errors
/// Where it cannot be serialised.
pub fn schema_id(schema: &Schema) -> Result<u64, FeaturesError> {
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(schema);
    bytes.map(|bytes| xxhash_rust::xxh3::xxh3_64(&bytes)).map_err(|e| FeaturesError::Metadata(e.to_string()))
}

/// Features about to be written whole: their size is known, their tables are not built yet.
pub struct FeaturesBuilder<'a> {
    metadata: AlignedVec,
    metadata_at: Section,
    dimensions: Vec<LaidOut<'a>>,
    bytes: u64,
}

/// The rows of a dimension about to be written.
#[derive(Debug)]
struct LaidOut<'a> {
    rows: LaidOutRows<'a>,
    section: Section,
}

#[derive(Debug)]
enum LaidOutRows<'a> {
    Keys(LaidOutTable<'a>),
    Prefixes(Cow<'a, [u8]>),
}

/// The rows of a dimension to be, before their layout is chosen.
#[derive(Debug)]
enum NewRows<'a> {
    Keys(NewTable<'a>),
    Prefixes(Cow<'a, [u8]>),
}

/// A table to be, before its layout is chosen.
#[derive(Debug)]
struct NewTable<'a> {
    name: &'a str,
    width: usize,
    rows: u64,
    old: Option<TableRef<'a>>,
    /// Where the columns come from, if there is an old table.
    columns: Vec<Column>,
    /// Whether the old table has just these columns.
    same_columns: bool,
    change: Option<&'a DimensionChange>,
}

#[derive(Debug)]
struct LaidOutTable<'a> {
    table: NewTable<'a>,
    /// The old table's bytes serve as they are.
    is_unchanged: bool,
    layout: Layout,
}

impl core::fmt::Debug for FeaturesBuilder<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FeaturesBuilder").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<'a> FeaturesBuilder<'a> {
    /// Plans the features of `schema` that follow `current` by `change`.
    ///
    /// A dimension of `current` is kept where name and key are the same; its columns are kept where name and type are
    /// the same, and the others take their defaults.
    ///
    /// # Errors
    /// Where the schema is wrong, the change does not fit it, or a table would be too large.
    pub fn plan(
        schema: &'a Schema,
        secret: &KeySecret,
        current: Option<FeaturesRef<'a>>,
        change: &'a Change,
    ) -> Result<Self, FeaturesError> {
        schema.validate()?;
        let dimensions = schema.dimensions.len();
        change.check(schema)?;
        let mut packer = Packer::new();
        let mut tables = Vec::with_capacity(dimensions);
        let mut budget = SpaceBudget::default();
        for (index, dimension) in schema.dimensions.iter().enumerate() {
            let rows = NewRows::new(schema, dimension, current, change.of(index))?;
            match &rows {
                NewRows::Keys(table) => budget.add(table.rows, table.width),
                NewRows::Prefixes(bytes) => budget.add_whole(bytes.len()),
            }
            tables.push(rows);
        }
        let tables = tables.into_iter().map(|rows| rows.lay_out(&budget));
        let mut tables = tables.collect::<Result<Vec<_>, _>>()?;
        // The metadata has a fixed size once the number of tables is known; it comes first, so that a reader that
        // opens the features touches few pages.
        let failed = |e: rkyv::rancor::Error| FeaturesError::Metadata(e.to_string());
        let schema_id = schema_id(schema)?;
        let metadata = |tables: Vec<Section>| {
            let metadata = Metadata { schema: schema.clone(), schema_id, secret: secret.0, tables };
            rkyv::to_bytes::<rkyv::rancor::Error>(&metadata).map_err(failed)
        };
        let size = metadata(vec![Section { offset: 0, len: 0 }; dimensions])?.len();
        let metadata_at = packer.append(size);
        for p in &mut tables {
            p.section = packer.append(p.bytes());
        }
        let metadata = metadata(tables.iter().map(|p| p.section).collect())?;
        Ok(Self { metadata, metadata_at, dimensions: tables, bytes: packer.bytes() })
    }

    /// Length of the features in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the features into the first [`Self::bytes`] bytes of `dest`.
    ///
    /// `run` runs the jobs of a table, at the same time if it likes, and returns the sum of what they return; each
    /// table is split into at most `parts` of them.
    ///
    /// # Errors
    /// Where rows do not fit the schema or each other; `dest` is useless then.
    pub fn write(
        &self,
        dest: &mut [u8],
        parts: usize,
        run: impl Fn(Vec<BuildJob<'_>>) -> Result<u64, TableError>,
    ) -> Result<(), FeaturesError> {
        let found = dest.len() as u64;
        let dest =
            dest.get_mut(..self.bytes as usize).ok_or(FrameError::CutOff { expected: self.bytes, found })?;
        write_header(dest, Kind::Features, self.metadata_at)?;
        dest[self.metadata_at.offset as usize..][..self.metadata.len()].copy_from_slice(&self.metadata);
        for p in &self.dimensions {
            let table = &mut dest[p.section.offset as usize..][..p.section.len as usize];
            match &p.rows {
                LaidOutRows::Keys(rows) => rows
                    .write(table, parts, &run)
                    .map_err(|error| FeaturesError::Table { dimension: rows.table.name.into(), error })?,
                LaidOutRows::Prefixes(bytes) => table.copy_from_slice(bytes),
            }
        }
        Ok(())
    }
}

impl LaidOut<'_> {
    fn bytes(&self) -> usize {
        match &self.rows {
            LaidOutRows::Keys(table) => table.layout.bytes(),
            LaidOutRows::Prefixes(bytes) => bytes.len(),
        }
    }
}

impl<'a> NewRows<'a> {
    fn new(
        schema: &'a Schema,
        dimension: &'a Dimension,
        current: Option<FeaturesRef<'a>>,
        change: Option<&'a DimensionChange>,
    ) -> Result<Self, FeaturesError> {
        let mut old = None;
        let mut columns = Vec::new();
        let mut same_columns = false;
        if let Some(current) = current
            && let Some((index, held)) = same_key(schema, dimension, &current)
        {
            old = Some(current.dimension(index)?);
            columns.extend(dimension.features.iter().map(|feature| {
                let same =
                    |f: &crate::schema::ArchivedFeature| f.name == feature.name && f.kind == feature.kind;
                let column = held.features.iter().position(same);
                column.map_or(Column::Default(feature.default), Column::Old)
            }));
            same_columns = held.features.len() == columns.len()
                && columns.iter().enumerate().all(|(i, c)| *c == Column::Old(i));
        }
        if dimension.is_by_prefix() {
            let old = match old {
                Some(DimensionRows::Prefixes(old)) => Some(old),
                _ => None,
            };
            return bytes_after(dimension, old, &columns, same_columns, change).map(Self::Prefixes);
        }
        let mut old = match old {
            Some(DimensionRows::Keys(old)) => Some(old),
            _ => None,
        };
        let kept = old.map_or(0, |t| t.rows());
        let rows = match change {
            // Prefixes are refused before.
            None | Some(DimensionChange::Prefixes(_)) => kept,
            Some(DimensionChange::Replace(rows)) => {
                old = None;
                rows.len() as u64
            }
            Some(DimensionChange::Patch { upserts, deletes }) => rows_after(old, upserts, deletes),
        };
        let (name, width) = (&dimension.name, dimension.features.len());
        Ok(Self::Keys(NewTable { name, width, rows, old, columns, same_columns, change }))
    }

    /// Chooses the layout, given what all tables must hold.
    fn lay_out(self, budget: &SpaceBudget) -> Result<LaidOut<'a>, FeaturesError> {
        let rows = match self {
            Self::Keys(table) => LaidOutRows::Keys(table.lay_out(budget)?),
            Self::Prefixes(bytes) => LaidOutRows::Prefixes(bytes),
        };
        Ok(LaidOut { rows, section: Section { offset: 0, len: 0 } })
    }
}

impl<'a> NewTable<'a> {
    fn lay_out(self, budget: &SpaceBudget) -> Result<LaidOutTable<'a>, FeaturesError> {
        let room_to_double = budget.has_room_to_double(self.rows, self.width);
        let fresh = Layout::with_room(self.rows, self.width, room_to_double)
            .map_err(|error| FeaturesError::Table { dimension: self.name.into(), error })?;
        // A table that need not grow or shrink keeps its layout, and its bytes if nothing changes in it.
        let fits = |held: &Layout| {
            let shrinks = held.is_sparse(self.rows, room_to_double) && fresh.bytes() < held.bytes();
            self.same_columns && self.rows <= held.max_rows() && !shrinks
        };
        let held = self.old.map(|table| *table.layout()).filter(fits);
        Ok(LaidOutTable {
            is_unchanged: held.is_some() && self.change.is_none(),
            layout: held.unwrap_or(fresh),
            table: self,
        })
    }
}

impl LaidOutTable<'_> {
    fn write(
        &self,
        dest: &mut [u8],
        parts: usize,
        run: &impl Fn(Vec<BuildJob<'_>>) -> Result<u64, TableError>,
    ) -> Result<(), TableError> {
        if let (Some(old), true) = (self.table.old, self.is_unchanged) {
            dest.copy_from_slice(old.bytes());
            return Ok(());
        }
        let none = Rows::new(self.layout.columns());
        let (upserts, deletes, last_wins) = match self.table.change {
            None | Some(DimensionChange::Prefixes(_)) => (&none, [].as_slice(), true),
            Some(DimensionChange::Replace(rows)) => (rows, [].as_slice(), false),
            Some(DimensionChange::Patch { upserts, deletes }) => (upserts, deletes.as_slice(), true),
        };
        let old = self.table.old.map(|table| (table, self.table.columns.as_slice()));
        let source = Source { old, upserts, last_wins, deletes };
        let rows = run(table::build_jobs(dest, self.layout, &source, parts)?)?;
        table::finish(dest, &self.layout, rows)
    }
}

/// The dimension of the current features whose rows have the same keys, with its index.
fn same_key<'a>(
    schema: &Schema,
    dimension: &Dimension,
    current: &FeaturesRef<'a>,
) -> Option<(usize, &'a ArchivedDimension)> {
    let held = current.schema().dimensions.iter().enumerate().find(|(_, d)| d.name == dimension.name)?;
    let same = held.1.key.len() == dimension.key.len()
        && held.1.key.iter().zip(&dimension.key).all(|(a, b)| {
            a.attribute == b.attribute
                && a.longest_prefix == b.longest_prefix
                && a.v4_prefix.as_ref().copied() == b.v4_prefix
                && a.v6_prefix.as_ref().copied() == b.v6_prefix
                && current.schema().attribute_kind(&b.attribute) == schema.attribute_kind(&b.attribute)
        });
    same.then_some(held)
}
