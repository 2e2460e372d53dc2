//! The reference distribution of a compiled model: what its inputs and scores were in the requests that it was trained on.
//!
//! A model may carry it so that others can tell whether its inputs still are what they were. Scores neither read it nor
//! change. A row of it says in which *bins* the values of one input fell; the first row says it of scores.

use super::layout::plain;

/// Borders of a row at most: with the bin above the last one and that of NaN a row has 16 bins at most.
pub const MAX_BORDERS: usize = 14;
/// Bins of a row at most.
pub const MAX_BINS: usize = MAX_BORDERS + 2;
/// The bin of values that are NaN.
pub const NAN_BIN: usize = MAX_BINS - 1;
/// Rows at most, that of scores included.
pub const MAX_DISTRIBUTION_ROWS: usize = 129;

/// The row of scores says this instead of an input.
const SCORE: u32 = u32::MAX;
/// How far the shares of a row may be from 1 together: they are rounded.
const ROUNDING: f32 = 0.01;

/// In which bins the values of one input fell, or scores: a value is in bin n if it exceeds n of the borders.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct DistributionRow {
    input: u32,
    borders: u32,
    /// Ascending; plus infinity where there are fewer, which no value exceeds.
    border: [f32; MAX_BORDERS],
    /// Of the requests in each bin; the last one is that of NaN.
    shares: [f32; MAX_BINS],
}

plain!(DistributionRow);
const _: () = assert!(size_of::<DistributionRow>() == 128);

impl DistributionRow {
    /// A row of the input at this index, or of scores; `shares` are those of the bins, then that of NaN. `None` unless
    /// there are at most [`MAX_BORDERS`] borders, finite and ascending, and one share more than bins, which add up to 1.
    #[cfg(feature = "build")]
    pub(crate) fn new(input: Option<u32>, borders: &[f32], shares: &[f32], nan: f32) -> Option<Self> {
        if borders.len() > MAX_BORDERS || shares.len() != borders.len() + 1 {
            return None;
        }
        let mut row = Self {
            input: input.unwrap_or(SCORE),
            borders: u32::try_from(borders.len()).ok()?,
            border: [f32::INFINITY; MAX_BORDERS],
            shares: [0.0; MAX_BINS],
        };
        row.border.iter_mut().zip(borders).for_each(|(to, from)| *to = *from);
        row.shares.iter_mut().zip(shares).for_each(|(to, from)| *to = *from);
        *row.shares.last_mut()? = nan;
        row.is_valid().then_some(row)
    }

    /// The index of its input in [`ModelRef::inputs`](crate::ModelRef::inputs); `None` for the row of scores.
    #[must_use]
    pub fn input(&self) -> Option<usize> {
        if self.input == SCORE { None } else { usize::try_from(self.input).ok() }
    }

    /// The borders between bins, ascending.
    #[must_use]
    pub fn borders(&self) -> &[f32] {
        usize::try_from(self.borders).ok().and_then(|count| self.border.get(..count)).unwrap_or_default()
    }

    /// The borders, filled up with plus infinity.
    #[must_use]
    pub fn padded_borders(&self) -> [f32; MAX_BORDERS] {
        self.border
    }

    /// The share of the training's requests in each bin, from 0 to 1; [`NAN_BIN`] is that of NaN, bins between are 0.
    #[must_use]
    pub fn shares(&self) -> &[f32; MAX_BINS] {
        &self.shares
    }

    /// Whether its numbers are what they should be.
    pub(crate) fn is_valid(&self) -> bool {
        let count = self.borders().len();
        let ascend = self.borders().windows(2).all(|pair| pair.first() < pair.last());
        let finite = self.borders().iter().all(|border| border.is_finite());
        let filled = self.border.iter().skip(count).all(|border| *border == f32::INFINITY);
        let shares = self.shares.iter().all(|share| (0.0..=1.0).contains(share));
        let unused = self.shares.iter().take(NAN_BIN).skip(count + 1).all(|share| *share == 0.0);
        let sum: f32 = self.shares.iter().sum();
        u32::try_from(count) == Ok(self.borders)
            && ascend
            && finite
            && filled
            && shares
            && unused
            && (sum - 1.0).abs() <= ROUNDING
    }
}

/// Checks the rows of a model with `inputs` numbers: the first is that of scores, each other one of another input. Gives the
/// first that is not right.
pub(crate) fn check(rows: &[DistributionRow], inputs: u32) -> Result<(), usize> {
    for (at, row) in rows.iter().enumerate() {
        let again = rows.iter().take(at).any(|earlier| earlier.input == row.input);
        let known = if at == 0 { row.input == SCORE } else { row.input < inputs };
        if at >= MAX_DISTRIBUTION_ROWS || again || !known || !row.is_valid() {
            return Err(at);
        }
    }
    Ok(())
}
