//! From the keys of a request to its rows: the part of a lookup that waits for memory.

use super::locator::{Locator, LookupState};
use super::read::{Row, copy_columns, prefetch};
use crate::prefixes::{Address, PrefixLocator, prefetch_node, prefetch_root};
use crate::schema::{MAX_DIMENSIONS, OnStale};
use crate::score::Status;

/// Dimensions whose cache misses are made to overlap; more take turns.
const BATCH: usize = 16;

/// What every lookup reads of a dimension, side by side with that of the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupEntry {
    locator: Locator,
    /// Index of its first feature in the vector of values.
    first: u32,
    columns: u32,
    /// `u32::MAX` where rows do not grow old.
    max_age_seconds: u32,
    /// A stale row counts as none.
    drops_stale: bool,
}

impl LookupEntry {
    /// Of a dimension whose `columns` features begin at index `first` of the vector of values.
    pub(crate) fn new(
        locator: Locator,
        first: usize,
        columns: usize,
        max_age_seconds: u32,
        on_stale: OnStale,
    ) -> Self {
        // A schema has no more features than fit; indices beyond the vector would be left alone.
        let narrow = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        Self {
            locator,
            first: narrow(first),
            columns: narrow(columns),
            max_age_seconds: if max_age_seconds == 0 { u32::MAX } else { max_age_seconds },
            drops_stale: on_stale == OnStale::Default,
        }
    }

    #[inline]
    fn range(&self) -> core::ops::Range<usize> {
        let first = self.first as usize;
        first..first + self.columns as usize
    }
}

/// What lookups read of a dimension that is matched by its longest prefix, beside its [`LookupEntry`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixEntry {
    /// Index of the dimension.
    pub(crate) dimension: usize,
    pub(crate) locator: PrefixLocator,
}

/// What a lookup writes, kept from one to the next so that it need not be made ready each time.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The vector of values.
    pub(crate) values: Box<[f32]>,
    /// How each dimension answered.
    pub(crate) statuses: [Status; MAX_DIMENSIONS],
    /// When the row of each dimension that is fresh or stale was made, in seconds since the Unix epoch.
    pub(crate) updated_at: [u32; MAX_DIMENSIONS],
    states: [LookupState; BATCH],
    addresses: [Option<Address>; BATCH],
}

impl Buffers {
    /// Buffers for so many values, of which those from `nan_from` on are NaN and stay so: nothing is looked up for them.
    pub(crate) fn new(values: usize, nan_from: usize) -> Self {
        let mut held = vec![0.0; nan_from.min(values)];
        held.resize(values, f32::NAN);
        Self {
            values: held.into(),
            statuses: [Status::Unused; MAX_DIMENSIONS],
            updated_at: [0; MAX_DIMENSIONS],
            states: [LookupState::NO_KEY; BATCH],
            addresses: [None; BATCH],
        }
    }
}

/// Instructions for which [`look_up`] is compiled. All give the same results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// Those that every processor of the architecture has.
    Baseline,
    /// x86-64 with AVX2, BMI2 and POPCNT. Made by [`Self::detect`] alone, where the processor has them.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Instructions {
    /// The fastest that this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
        {
            return Self::Avx2;
        }
        Self::Baseline
    }
}

/// The time of a lookup, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: u32,
    /// Rows from later than this are from a clock that is wrong.
    pub(crate) latest: u32,
}

impl Clock {
    #[inline]
    fn classify(self, updated_at: u32, max_age_seconds: u32) -> Status {
        let is_stale = updated_at > self.latest || self.now.saturating_sub(updated_at) > max_age_seconds;
        if is_stale { Status::Stale } else { Status::Fresh }
    }
}

/// What one lookup is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup<'a> {
    pub(crate) entries: &'a [LookupEntry],
    /// Those of them that are matched by the longest prefix, in their order.
    pub(crate) prefixes: &'a [PrefixEntry],
    pub(crate) features: &'a [u8],
    pub(crate) clock: Clock,
    /// Values of rows that are not there, as rows hold them.
    pub(crate) defaults: &'a [[u8; 4]],
}

/// Writes the rows of all dimensions, or defaults where there is none, and how each dimension answered. `key` gives the
/// key of a dimension, which is not 0, or what to answer without one; values of [`Status::Unused`] ones stay as they are.
/// `address` gives the address of a dimension that is matched by its longest prefix; without one it answers as `key` says.
#[inline]
pub(crate) fn look_up(
    instructions: Instructions,
    lookup: Lookup<'_>,
    key: impl Fn(usize) -> Result<u64, Status>,
    address: impl Fn(usize) -> Option<Address>,
    buffers: &mut Buffers,
) {
    match instructions {
        Instructions::Baseline => run_passes(lookup, key, address, buffers),
        #[cfg(target_arch = "x86_64")]
        // SAFETY:
        // - the processor has AVX2, BMI2 and POPCNT, else there would be no such value: `Instructions::detect`
        Instructions::Avx2 => unsafe { run_passes_avx2(lookup, key, address, buffers) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn run_passes_avx2(
    lookup: Lookup<'_>,
    key: impl Fn(usize) -> Result<u64, Status>,
    address: impl Fn(usize) -> Option<Address>,
    buffers: &mut Buffers,
) {
    run_passes(lookup, key, address, buffers);
}

/// Three passes over a batch of dimensions, so that their cache misses overlap: ask for pilots, ask for slots, read. Those by
/// prefix go their own way in between, from root to node to row.
#[inline(always)]
fn run_passes(
    lookup: Lookup<'_>,
    key: impl Fn(usize) -> Result<u64, Status>,
    address: impl Fn(usize) -> Option<Address>,
    buffers: &mut Buffers,
) {
    let Lookup { entries, prefixes, features, clock, defaults } = lookup;
    let Buffers { values, statuses, updated_at, states, addresses } = buffers;
    let answers = statuses.chunks_mut(BATCH).zip(updated_at.chunks_mut(BATCH));
    for (batch, (entries, (statuses, updated_at))) in entries.chunks(BATCH).zip(answers).enumerate() {
        let first = batch * BATCH;
        let prefixes = || {
            let of_batch = prefixes.iter().map(move |entry| (entry.dimension.wrapping_sub(first), entry));
            of_batch.filter(|(i, _)| *i < BATCH)
        };
        for (i, entry) in prefixes() {
            let Some(to) = addresses.get_mut(i) else { continue };
            *to = address(entry.dimension);
            if let Some(address) = *to {
                prefetch_root(features, &entry.locator.table, address);
            }
        }
        for (i, ((entry, state), status)) in
            entries.iter().zip(states.iter_mut()).zip(&mut *statuses).enumerate()
        {
            match key(first + i) {
                Ok(key) => {
                    *state = entry.locator.start(key);
                    prefetch(features, state.offset);
                    *status = Status::Missing;
                }
                Err(status_without_key) => {
                    *state = LookupState::NO_KEY;
                    *status = status_without_key;
                }
            }
        }
        for (i, entry) in prefixes() {
            if let (Some(Some(address)), Some(status)) = (addresses.get(i), statuses.get_mut(i)) {
                prefetch_node(features, &entry.locator.table, *address);
                *status = Status::Missing;
            }
        }
        for (entry, state) in entries.iter().zip(states.iter_mut()) {
            let Some(pilot) = features.get(state.offset) else { continue };
            entry.locator.resolve(state, *pilot);
            // The lines between first and last of a wide row come along by themselves when it is copied.
            prefetch(features, state.offset);
            prefetch(features, state.offset + entry.locator.stride() - 1);
        }
        for (i, entry) in prefixes() {
            if let (Some(Some(address)), Some(state)) = (addresses.get(i), states.get_mut(i))
                && let Some((key, offset)) = entry.locator.find(features, *address)
            {
                *state = Locator::at(key, offset);
                prefetch(features, offset);
                prefetch(features, offset + entry.locator.stride - 1);
            }
        }
        let answers = statuses.iter_mut().zip(updated_at);
        for ((entry, state), (status, updated_at)) in entries.iter().zip(&*states).zip(answers) {
            let Some(values) = values.get_mut(entry.range()) else { continue };
            match Row::at(features, state.offset, state.key, entry.columns as usize) {
                Some(row) => {
                    *updated_at = row.updated_at;
                    *status = clock.classify(row.updated_at, entry.max_age_seconds);
                    if entry.drops_stale && *status == Status::Stale {
                        copy_columns(defaults.get(entry.range()).unwrap_or_default(), values);
                    } else {
                        row.copy_to(values);
                    }
                }
                None if *status == Status::Unused => {}
                None => {
                    copy_columns(defaults.get(entry.range()).unwrap_or_default(), values);
                }
            }
        }
    }
}
