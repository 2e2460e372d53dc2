//! How far two distributions over the same bins are from each other.

use bliss_catboost::distribution::{MAX_BINS, NAN_BIN};

/// Requests in each bin, that of NaN last.
pub(crate) type Counts = [u64; MAX_BINS];
/// Shares of requests in each bin.
pub(crate) type Shares = [f64; MAX_BINS];

/// What a bin without requests counts as: half a request, as is usual, or half of one in a thousand where only shares are known.
const HALF: f64 = 0.5;
const HALF_SHARE: f64 = 0.0005;

/// The bins that a row with so many borders has, as indices.
pub(crate) fn bins(borders: usize) -> impl Iterator<Item = usize> + Clone {
    (0..=borders.min(NAN_BIN - 1)).chain([NAN_BIN])
}

/// All requests of a row.
pub(crate) fn total(counts: &Counts) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// The share of each bin; zeros where there are no requests.
pub(crate) fn shares(counts: &Counts) -> Shares {
    let total = total(counts).max(1) as f64;
    counts.map(|count| count as f64 / total)
}

/// The population stability index: the sum over bins of `(is - was) ln(is / was)`. 0 where nothing differs; below 0.1 is usually
/// called stable, from 0.25 on a change. No bin is empty in either: an empty one counts as half a request, or as a share
/// of 0.0005.
pub(crate) fn psi(is: &Counts, was: &Past<'_>, borders: usize) -> f64 {
    let bins = bins(borders);
    let number = bins.clone().count() as f64;
    let of_counts = |counts: &Counts, bin: usize| {
        let count = counts.get(bin).copied().unwrap_or(0) as f64;
        (count + HALF) / (total(counts) as f64 + HALF * number)
    };
    let of_shares = |shares: &Shares, bin: usize| {
        (shares.get(bin).copied().unwrap_or(0.0) + HALF_SHARE) / (1.0 + HALF_SHARE * number)
    };
    let is_shares = shares(is);
    let sum = bins.map(|bin| {
        let (is, was) = match was {
            Past::Counts(was) => (of_counts(is, bin), of_counts(was, bin)),
            Past::Shares(was) => (of_shares(&is_shares, bin), of_shares(was, bin)),
        };
        (is - was) * (is / was).ln()
    });
    sum.sum()
}

/// What is compared with.
pub(crate) enum Past<'a> {
    /// Requests that were counted.
    Counts(&'a Counts),
    /// Shares that a model carries.
    Shares(&'a Shares),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[u64], nan: u64) -> Counts {
        let mut counts = [0; MAX_BINS];
        counts[..values.len()].copy_from_slice(values);
        counts[NAN_BIN] = nan;
        counts
    }

    #[test]
    fn the_same_is_0_and_known_examples_are_as_computed_by_hand() {
        let was = counts(&[1000, 2000, 1000], 0);
        assert_eq!(psi(&was, &Past::Counts(&was), 2), 0.0);
        // 40/60 against 50/50: 0.1 ln 1.2 + 0.1 ln 1.25 = 0.04055.
        let (is, was) = (counts(&[600_000, 400_000], 0), counts(&[500_000, 500_000], 0));
        assert!((psi(&is, &Past::Counts(&was), 1) - 0.040_546).abs() < 1e-4);
        let shares = shares(&was);
        assert!((psi(&is, &Past::Shares(&shares), 1) - 0.040_546).abs() < 1e-3);
        assert!(psi(&counts(&[0, 0], 1000), &Past::Counts(&was), 1) > 5.0, "all of it missing");
        assert!(psi(&counts(&[], 0), &Past::Counts(&counts(&[], 0)), 1).abs() < 1e-12, "nothing at all");
        assert!(psi(&counts(&[u64::MAX, u64::MAX], 1), &Past::Counts(&was), 1).is_finite());
    }

    #[test]
    fn little_noise_stays_far_below_the_limits() {
        // 500 requests of 10 equal bins, one of them off by 10.
        let was = counts(&[700; 10], 0);
        let mut is = counts(&[50; 10], 0);
        (is[0], is[1]) = (60, 40);
        assert!(psi(&is, &Past::Counts(&was), 9) < 0.02);
    }
}
