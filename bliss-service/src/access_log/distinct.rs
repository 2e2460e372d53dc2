//! Counts of distinct values that clients choose.

mod sketch;

use std::hash::DefaultHasher;
use std::net::IpAddr;

use bliss_core::key::{KeySecret, hash_key};
use cardinality_estimator::CardinalityEstimator;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::checkpoint::bounded;

/// What the allocator takes for one allocation beside its bytes.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// So many values are counted exactly.
const EXACT: usize = 128;

/// Counts many values, with about 3 % standard error.
type Estimator = CardinalityEstimator<u64, DefaultHasher, PRECISION, WIDTH>;
/// Of 2^10 registers.
const PRECISION: usize = 10;
/// Of so many bits each.
const WIDTH: usize = 6;

/// Hashes values that clients choose (agents, paths) with a key that they do not know: whoever could choose values by their
/// hashes could make a count as small or as large as he likes, in rows that others share.
#[derive(Clone)]
pub(crate) struct ValueHash(SipHasher13);

impl ValueHash {
    /// With a key made of the installation's secret.
    pub(crate) fn of(secret: &KeySecret) -> Self {
        let half = |half: &[u8]| hash_key(secret, "distinct values", [half].into_iter());
        Self(SipHasher13::new_with_keys(half(b"first"), half(b"second")))
    }

    /// With a key that everybody knows, so that a replay counts the same each time.
    pub(crate) fn fixed() -> Self {
        Self(SipHasher13::new_with_keys(0, 0))
    }

    /// Never 0.
    pub(crate) fn hash(&self, value: &[u8]) -> u64 {
        self.0.hash(value).max(1)
    }
}

/// The network of an address, as far as what one client can easily have goes: a /24, or a /48 of IPv6.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address) >> 8),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, ..] = address.octets();
            u64::from_be_bytes([1, 0, a, b, c, d, e, f])
        }
    }
}

/// A set of hashed values of which only the size is asked for: exact up to 128, estimated above. Small, since most keys of
/// a log are seen once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Distinct {
    /// One value, or none: 0.
    One(u64),
    /// Sorted.
    #[expect(clippy::box_collection, reason = "each key has up to 141 of these: 16 bytes rather than 24")]
    Exact(#[serde(deserialize_with = "exact")] Box<Vec<u64>>),
    /// More than [`EXACT`].
    Estimated(#[serde(with = "sketch")] Estimator),
}

#[expect(clippy::box_collection, reason = "as the set has it")]
fn exact<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Box<Vec<u64>>, D::Error> {
    bounded::vec::<D, u64, EXACT>(deserializer).map(Box::new)
}

impl Default for Distinct {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Distinct {
    /// Adds a value by its hash, which is not 0.
    pub(crate) fn insert(&mut self, hash: u64) {
        match self {
            Self::One(one) if *one == hash || *one == 0 => *one = hash,
            Self::One(one) => *self = Self::Exact(Box::new(vec![(*one).min(hash), (*one).max(hash)])),
            Self::Exact(hashes) => match hashes.binary_search(&hash) {
                Ok(_) => {}
                Err(at) if hashes.len() < EXACT => hashes.insert(at, hash),
                Err(_) => {
                    let mut estimator = self.estimator();
                    estimator.insert_hash(hash);
                    *self = Self::Estimated(estimator);
                }
            },
            Self::Estimated(estimator) => estimator.insert_hash(hash),
        }
    }

    /// Adds the values of another set.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::One(0)) => {}
            (_, Self::One(hash)) => self.insert(*hash),
            (_, Self::Exact(hashes)) => hashes.iter().for_each(|hash| self.insert(*hash)),
            (Self::Estimated(estimator), Self::Estimated(other)) => estimator.merge(other),
            (_, Self::Estimated(other)) => {
                let mut estimator = self.estimator();
                estimator.merge(other);
                *self = Self::Estimated(estimator);
            }
        }
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::One(one) => usize::from(*one != 0),
            Self::Exact(hashes) => hashes.len(),
            // It is known to hold more.
            Self::Estimated(estimator) => estimator.estimate().max(EXACT + 1),
        }
    }

    /// Bytes that it takes beside itself, with what the allocator takes for each part.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Exact(hashes) => size_of::<Vec<u64>>() + hashes.capacity() * 8 + 2 * ALLOCATION_BYTES,
            Self::Estimated(estimator) => estimator.size_of() + ALLOCATION_BYTES,
        }
    }

    /// Whether it could have come about: what was read back may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Exact(hashes) => {
                hashes.len() >= 2
                    && !hashes.starts_with(&[0])
                    && hashes.iter().zip(hashes.iter().skip(1)).all(|(one, next)| one < next)
            }
            Self::One(_) | Self::Estimated(_) => true,
        }
    }

    /// What estimates the set.
    fn estimator(&self) -> Estimator {
        let mut estimator = Estimator::new();
        match self {
            Self::One(0) => {}
            Self::One(hash) => estimator.insert_hash(*hash),
            Self::Exact(hashes) => hashes.iter().for_each(|hash| estimator.insert_hash(*hash)),
            Self::Estimated(of) => return of.clone(),
        }
        estimator
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bliss_core::key::SECRET_BYTES;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn hashes(range: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
        let hash = ValueHash::fixed();
        range.map(move |value| hash.hash(&value.to_le_bytes()))
    }

    fn count(hashes: impl IntoIterator<Item = u64>) -> usize {
        let mut distinct = Distinct::default();
        hashes.into_iter().for_each(|hash| distinct.insert(hash));
        distinct.count()
    }

    /// The sketch alone takes values for one whose hashes share 25 bits.
    #[test]
    fn s13_up_to_128_values_are_counted_exactly_whatever_their_hashes() {
        for size in [1, 2, 3, 60, 127, 128] {
            assert_eq!(count((1..=size).map(|value| value << 25)), size as usize);
            assert_eq!(count((1..=size).map(|value| value << 57 | value)), size as usize);
            assert_eq!(count((1..=size).chain(1..=size)), size as usize);
        }
        assert!(count((1..=129).map(|value| value << 25)) > 128, "more than 128 is known to be more");
    }

    #[test]
    fn s13_values_are_hashed_with_a_key() {
        let of = |byte| ValueHash::of(&KeySecret([byte; SECRET_BYTES]));
        let (one, other, fixed) = (of(1), of(2), ValueHash::fixed());
        let value = b"Mozilla/5.0";
        let all = [one.hash(value), other.hash(value), fixed.hash(value)];
        assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 3);
        assert_eq!(one.hash(value), of(1).hash(value));
        assert!(!all.contains(&xxhash_rust::xxh3::xxh3_64(value)));
        // Models were trained with it.
        assert_eq!(fixed.hash(b""), 0xd1fb_a762_150c_532c);
    }

    #[test]
    fn many_values_are_estimated_within_a_few_percent() {
        for size in [129, 500, 2_000, 20_000, 300_000_u64] {
            let found = count(hashes(0..size)) as f64;
            assert!((found / size as f64 - 1.0).abs() < 0.15, "five standard errors: {found} of {size}");
        }
    }

    #[test]
    fn networks_are_24_and_48_bits() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.7"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1::"), of("2001:db8:1:ffff::1"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
        assert_ne!(of("0.1.2.3"), of("::1"));
    }

    proptest! {
        /// Whatever is merged in whatever order, small sets are exact and large ones the same as all at once.
        #[test]
        fn s13_merged_sets_are_those_of_all_values(parts in prop::collection::vec((0..300_u64, 0..200_u64), 1..6)) {
            let mut merged = Distinct::default();
            let mut all = HashSet::new();
            for (start, len) in parts {
                let mut part = Distinct::default();
                for hash in hashes(start..start + len) {
                    part.insert(hash);
                    all.insert(hash);
                }
                merged.merge(&part);
            }
            if all.len() <= EXACT {
                prop_assert_eq!(merged.count(), all.len());
            } else {
                let ratio = merged.count() as f64 / all.len() as f64;
                prop_assert!((0.8..1.2).contains(&ratio), "{} of {}", merged.count(), all.len());
            }
        }
    }
}
