//! How an estimator is kept and read back.
//!
//! The crate reads what it wrote itself, but trusts it: an array of hashes would be freed with another length than it was made
//! with, and a number of empty registers that cannot be would overflow. So arrays are inserted one by one here, and the rest is
//! looked at before the crate gets it.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::{Estimator, PRECISION, WIDTH};
use crate::checkpoint::bounded;

/// Registers.
const REGISTERS: u32 = 1 << PRECISION;
/// 32-bit words of the registers, the number of empty ones, their sum, and one that spares a branch.
const WORDS: usize = (1 << PRECISION) * WIDTH / 32 + 3;
/// So many hashes are kept before there are registers.
const MOST_HASHES: usize = 128;
/// What the two lowest bits of the first number mean.
const SMALL: u64 = 0;
const ARRAY: u64 = 1;
const REGISTER: u64 = 3;

pub(super) fn serialize<S: Serializer>(estimator: &Estimator, serializer: S) -> Result<S::Ok, S::Error> {
    estimator.serialize(serializer)
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Words(#[serde(deserialize_with = "bounded::vec::<_, _, WORDS>")] Vec<u32>);

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Estimator, D::Error> {
    let (data, words) = <(u64, Option<Words>)>::deserialize(deserializer)?;
    let words = words.map(|Words(words)| words);
    match (data & 3, &words) {
        (SMALL, None) => {}
        (ARRAY, Some(hashes)) if hashes.len() <= MOST_HASHES => {
            return array(hashes).map_err(D::Error::custom);
        }
        (REGISTER, Some(words)) if are_registers(words) => {}
        _ => return Err(D::Error::custom("this is no estimator")),
    }
    let again = postcard::to_allocvec(&(data, words)).map_err(D::Error::custom)?;
    postcard::from_bytes(&again).map_err(D::Error::custom)
}

fn array(hashes: &[u32]) -> Result<Estimator, &'static str> {
    let mut estimator = Estimator::new();
    for encoded in hashes {
        let hash = decode(*encoded).ok_or("this is no hash of an estimator")?;
        estimator.insert_hash(hash);
    }
    Ok(estimator)
}

/// A hash that the estimator takes for `encoded`: 25 bits of it, and how many bits from the eleventh on are ones.
fn decode(encoded: u32) -> Option<u64> {
    let low = u64::from(encoded >> WIDTH);
    let rank = encoded & ((1 << WIDTH) - 1);
    let ones = (1_u64 << rank.checked_sub(1)?.min(53)) - 1;
    let hash = low | ones << PRECISION;
    let found = (!hash >> PRECISION).trailing_zeros() + 1;
    let of_low = hash & ((1 << (32 - WIDTH - 1)) - 1);
    (found == rank && of_low == low).then_some(hash)
}

fn are_registers(words: &[u32]) -> bool {
    let [empty, sum, ..] = words else { return false };
    let sum = f32::from_bits(*sum);
    words.len() == WORDS && *empty <= REGISTERS && sum > 0.0 && sum <= REGISTERS as f32
}

#[cfg(test)]
mod tests {
    use super::super::{Distinct, ValueHash};
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Kept(#[serde(with = "super")] Estimator);

    #[test]
    fn d6_estimators_of_every_size_are_read_back_and_go_on_alike() {
        let hash = ValueHash::fixed();
        let mut distinct = Distinct::Estimated(Estimator::new());
        for value in 0..3000_u64 {
            if [0, 1, 2, 3, 4, 100, 127, 128, 129, 500, 2999].contains(&value) {
                let bytes = postcard::to_allocvec(&distinct).unwrap();
                let mut back: Distinct = postcard::from_bytes(&bytes).unwrap();
                let mut before = distinct.clone();
                for value in 10_000..11_000_u64 {
                    let hash = hash.hash(&value.to_le_bytes());
                    before.insert(hash);
                    back.insert(hash);
                }
                assert_eq!(before.count(), back.count(), "{value}");
            }
            distinct.insert(hash.hash(&value.to_le_bytes()));
        }
    }

    /// Hashes of all ranks.
    #[test]
    fn every_hash_comes_out_of_its_code() {
        for rank in 1..=54_u32 {
            for low in [0, 1, 0x3ff, 0x155_5555, 0x1ff_ffff] {
                let hash: u64 = low | ((1_u64 << (rank - 1)) - 1) << PRECISION;
                let encoded = u32::try_from((hash & 0x1ff_ffff) << WIDTH).unwrap()
                    | ((!hash >> PRECISION).trailing_zeros() + 1);
                let again = decode(encoded).unwrap();
                assert_eq!(again & 0x1ff_ffff, hash & 0x1ff_ffff, "{rank} {low:x}");
                assert_eq!((!again >> PRECISION).trailing_zeros(), (!hash >> PRECISION).trailing_zeros());
            }
        }
    }

    #[test]
    fn what_is_no_estimator_is_refused() {
        let registers = |empty: u32, sum: f32| {
            let mut words = vec![0; WORDS];
            (words[0], words[1]) = (empty, sum.to_bits());
            (REGISTER, Some(Words(words)))
        };
        let cases = [
            registers(REGISTERS + 1, 1.0),
            registers(1, f32::NAN),
            registers(1, 0.0),
            (REGISTER, Some(Words(vec![0; WORDS - 1]))),
            (REGISTER, None),
            (ARRAY, None),
            (ARRAY, Some(Words(vec![0; 4]))),
            (ARRAY, Some(Words(vec![65; 129]))),
            (SMALL, Some(Words(vec![65; 3]))),
            (2, None),
        ];
        for (at, case) in cases.iter().enumerate() {
            let bytes = postcard::to_allocvec(case).unwrap();
            assert!(postcard::from_bytes::<Kept>(&bytes).is_err(), "{at}");
        }
        let good = postcard::to_allocvec(&registers(1000, 1000.0)).unwrap();
        assert!(postcard::from_bytes::<Kept>(&good).is_ok());
    }
}
