//! Which requests are sampled, and in which bins their values fall: for the counts of [`crate::metrics::drift`].

use bliss_catboost::distribution::{DistributionRow, MAX_BORDERS, NAN_BIN};

use super::Scorer;
use crate::metrics::Slot;
use crate::score::Scored;

/// One row of the plan: an input of a model, or its score.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedRow {
    /// Index of the value in the vector of values; of no meaning in a model's first row, that of its scores.
    pub(super) at: u32,
    /// Ascending, filled up with plus infinity.
    border: [f32; MAX_BORDERS],
}

impl CountedRow {
    pub(super) fn new(at: u32, row: &DistributionRow) -> Self {
        Self { at, border: row.padded_borders() }
    }

    /// How many borders the value exceeds; NaN has a bin of its own.
    #[inline]
    fn bin(&self, value: f32) -> usize {
        if value.is_nan() {
            return NAN_BIN;
        }
        // Without branches, so that they are compared several at a time.
        self.border.iter().map(|border| u32::from(value > *border)).sum::<u32>() as usize
    }
}

/// Chooses one request of several, at distances that a page with a fixed number of files does not repeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    /// Requests until the next one that is counted, itself included.
    left: u32,
    random: u32,
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self { left: 1, random: 0x9e37_79b9 }
    }

    /// Whether the next request is to be counted, where one of `one_in` is. Costs one branch for the others.
    #[inline]
    pub(super) fn next(&mut self, one_in: u32) -> bool {
        if self.left > 1 {
            self.left -= 1;
            return false;
        }
        self.draw(one_in);
        one_in > 0
    }

    /// A distance of 1 to `2 one_in - 1`, `one_in` on average (xorshift).
    #[cold]
    fn draw(&mut self, one_in: u32) {
        let mut random = self.random;
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        self.random = random;
        self.left = match one_in {
            // None is; looked at again now and then, since it may change with a publication.
            0 => 1 << 16,
            one_in => 1 + random % one_in.saturating_mul(2).saturating_sub(1).max(1),
        };
    }

    /// What is published has changed, perhaps the distance too.
    pub(super) fn restart(&mut self) {
        self.left = self.left.min(1);
    }
}

/// Counts the values that `scored` was made of.
#[inline(never)]
pub(super) fn count(slot: Slot<'_>, scorer: &Scorer, scored: &Scored) {
    let (first, rows) = scorer.models().counted(scored.model);
    let (values, _) = scorer.last();
    for (index, row) in rows.iter().enumerate() {
        let value = match index {
            0 => f32::from(scored.score),
            _ => usize::try_from(row.at).ok().and_then(|at| values.get(at)).copied().unwrap_or(f32::NAN),
        };
        slot.add_bin(first + index, row.bin(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bin_of_the_borders_that_it_exceeds() {
        let mut border = [f32::INFINITY; MAX_BORDERS];
        border[..3].copy_from_slice(&[-1.0, 0.0, 2.5]);
        let row = CountedRow { at: 0, border };
        for (value, bin) in [
            (f32::NEG_INFINITY, 0),
            (-1.0, 0),
            (-0.5, 1),
            (0.0, 1),
            (-0.0, 1),
            (1e-30, 2),
            (2.5, 2),
            (2.6, 3),
            (f32::INFINITY, 3),
            (f32::NAN, NAN_BIN),
        ] {
            assert_eq!(row.bin(value), bin, "{value}");
        }
    }

    #[test]
    fn one_of_so_many_is_sampled_at_changing_distances() {
        for one_in in [1, 2, 16, 1000] {
            let mut sampler = Sampler::new();
            let chosen: Vec<u32> = (0..one_in * 2000).filter(|_| sampler.next(one_in)).collect();
            let share = chosen.len() as f64 / 2000.0;
            assert!((0.9..1.1).contains(&share), "{one_in}: {share}");
            let distances: std::collections::BTreeSet<_> =
                chosen.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(distances.len() as u32 >= (2 * one_in - 1).min(500), "{one_in}: {distances:?}");
        }
        let mut sampler = Sampler::new();
        assert_eq!((0..200_000).filter(|_| sampler.next(0)).count(), 0);
        assert!((0..).take(70_000).any(|_| sampler.next(4)), "it is looked at again");
        assert!(!Sampler { left: 9, random: 1 }.next(u32::MAX));
        let mut sampler = Sampler { left: 1, random: u32::MAX };
        assert!(sampler.next(u32::MAX), "no overflow");
    }
}
