//! Laying one table of the features out again, so that the others need not be copied when it must grow.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use rkyv::util::AlignedVec;

use super::change::{DimensionChange, FeaturesError, rows_after};
use super::space_budget::SpaceBudget;
use crate::build::frame::Packer;
use crate::build::table::{self, BuildJob, Column, Source};
use crate::publication::features::{FeaturesRef, Metadata};
use crate::publication::frame::{self, FrameError, HEADER_BYTES, Kind, Section};
use crate::table::{Layout, TableError};

/// The old range of a table that grew stays empty until the features are rebuilt; at most one byte in so many is lost to
/// that, and in small features one in so few.
const LOST_ONE_IN: u64 = 25;
const LOST_ONE_IN_WHERE_SMALL: u64 = 3;

/// A table of the features about to be laid out again behind all others, with room for a change.
#[derive(Debug)]
pub struct TableRelocation {
    index: usize,
    layout: Layout,
    section: Section,
    metadata_at: Section,
    metadata: AlignedVec,
}

impl TableRelocation {
    /// Plans it for the table of dimension `index`. `None` where the features should be rebuilt: because a
    /// dimension is [replaced](DimensionChange::Replace), or too much of the features would lie empty.
    ///
    /// # Errors
    /// Where the table would be too large.
    pub fn plan(
        features: FeaturesRef<'_>,
        index: usize,
        change: &DimensionChange,
    ) -> Result<Option<Self>, FeaturesError> {
        let DimensionChange::Patch { upserts, deletes } = change else { return Ok(None) };
        let old = features.table(index)?;
        let rows = rows_after(Some(old), upserts, deletes);
        let name = || features.schema().dimensions.get(index).map_or(String::new(), |d| d.name.to_string());
        let columns = old.layout().columns();
        let mut budget = SpaceBudget::by(features);
        budget.set(index, rows, columns);
        // As when tables still have the room that they were given in smaller features.
        if budget.is_exceeded_by(features.bytes.len() as u64) {
            return Ok(None);
        }
        let room_to_double = budget.has_room_to_double(rows, columns);
        let layout = Layout::with_room(rows, columns, room_to_double)
            .map_err(|error| FeaturesError::Table { dimension: name(), error })?;

        let mut packer = Packer::behind(features.bytes.len() as u64);
        let section = packer.append(layout.bytes());
        let mut metadata = rkyv::deserialize::<Metadata, rkyv::rancor::Failure>(features.metadata)
            .map_err(|_| FrameError::Metadata)?;
        *metadata.tables.get_mut(index).ok_or(FrameError::Section { index })? = section;
        let used = metadata.tables.iter().map(|table| table.len).sum::<u64>();
        let metadata = rkyv::to_bytes::<rkyv::rancor::Error>(&metadata)
            .map_err(|error| FeaturesError::Metadata(error.to_string()))?;
        let metadata_at = frame::metadata(features.bytes, Kind::Features)?;
        let lost = packer.bytes().saturating_sub(HEADER_BYTES as u64 + metadata_at.len + used);
        let fits = metadata_at.len == metadata.len() as u64;
        let one_in = if budget.all_have_room_to_double() { LOST_ONE_IN_WHERE_SMALL } else { LOST_ONE_IN };
        let worth_it = lost.saturating_mul(one_in) <= packer.bytes();
        Ok((fits && worth_it).then_some(Self { index, layout, section, metadata_at, metadata }))
    }

    /// Length of the features in bytes.
    pub fn bytes(&self) -> u64 {
        self.section.offset + self.section.len
    }

    /// What [`Self::write`] changes, beside what is added at the end.
    pub fn changes(&self) -> core::ops::Range<u64> {
        self.metadata_at.offset..self.metadata_at.offset + self.metadata_at.len
    }

    /// Lays the table out, with the change made, in the first [`Self::bytes`] bytes of `dest`, which begin with the
    /// features that it was planned for. Part of the change may be made in that already.
    ///
    /// `run` and `parts` are as for [`super::FeaturesBuilder::write`].
    ///
    /// # Errors
    /// Where rows do not fit the schema; `dest` then holds the features as they were.
    pub fn write(
        &self,
        dest: &mut [u8],
        change: &DimensionChange,
        parts: usize,
        run: impl Fn(Vec<BuildJob<'_>>) -> Result<u64, TableError>,
    ) -> Result<(), FeaturesError> {
        let found = dest.len() as u64;
        let all = dest.get_mut(..self.bytes() as usize);
        let all = all.ok_or(FrameError::CutOff { expected: self.bytes(), found })?;
        let (before, table) = all.split_at_mut(self.section.offset as usize);
        let features = FeaturesRef::open(before)?;
        let columns: Vec<_> = (0..self.layout.columns()).map(Column::Old).collect();
        let DimensionChange::Patch { upserts, deletes } = change else { return Ok(()) };
        let old = Some((features.table(self.index)?, columns.as_slice()));
        let source = Source { old, upserts, last_wins: true, deletes };
        let built = table::build_jobs(table, self.layout, &source, parts)
            .and_then(run)
            .and_then(|rows| table::finish(table, &self.layout, rows));
        built.map_err(|error| {
            let dimension = features.schema().dimensions.get(self.index);
            FeaturesError::Table { dimension: dimension.map_or(String::new(), |d| d.name.to_string()), error }
        })?;
        before[self.metadata_at.offset as usize..][..self.metadata.len()].copy_from_slice(&self.metadata);
        Ok(())
    }
}
