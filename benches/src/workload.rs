//! The rows and requests that all subjects get.
//!
//! Keys and values are computed from numbers, so that answers can be checked without a second copy of the data, which
//! would take cache lines from the subject.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution as _, Zipf};

/// Dimensions of a request.
pub const DIMENSIONS: usize = 12;
/// Features of a row.
pub const WIDTH: usize = 16;
/// Features of a request.
pub const VALUES: usize = DIMENSIONS * WIDTH;
/// When all rows were last updated, in seconds since the Unix epoch; the time of all lookups too.
pub const NOW: u32 = 1_700_000_000;
/// Exponent of the Zipf distribution.
pub const ZIPF_EXPONENT: f64 = 0.99;

/// The features of one row.
pub type Values = [f32; WIDTH];
/// The features of one request.
pub type Vector = [f32; VALUES];

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// Few of them very often (exponent 0.99).
    Zipf,
}

/// How many rows there are.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Rows of each dimension.
    pub rows_each: u64,
    /// Has no divisor in common with that.
    stride: u64,
}

/// Mixes the bits of a number; different numbers stay different.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The key of row `row` of dimension `dimension`. Rows from 2^40 on are never stored.
#[inline]
pub fn key(dimension: usize, row: u64) -> u64 {
    mix(((dimension as u64 + 1) << 48) ^ row)
}

/// The values that the row of `key` has in `version`: the version, then numbers that follow from both.
#[inline]
pub fn values(key: u64, version: u32) -> Values {
    let seed = mix(key ^ u64::from(version));
    std::array::from_fn(|i| {
        if i == 0 { version as f32 } else { (seed.rotate_left(4 * i as u32) & 0x00ff_ffff) as f32 }
    })
}

/// Whether these are the values of the row of `key` in some version, whole.
#[inline]
pub fn is_row(key: u64, found: &[f32]) -> bool {
    let version = found.first().copied().unwrap_or(-1.0);
    version >= 0.0 && found == values(key, version as u32)
}

impl Workload {
    /// About `keys` rows over all dimensions, the same number in each.
    pub fn new(keys: u64) -> Self {
        let rows_each = (keys / DIMENSIONS as u64).max(1);
        Self { rows_each, stride: coprime(rows_each) }
    }

    /// Rows of all dimensions.
    pub fn keys(&self) -> u64 {
        self.rows_each * DIMENSIONS as u64
    }

    /// The keys of all rows of a dimension.
    pub fn dimension(&self, dimension: usize) -> impl ExactSizeIterator<Item = u64> + use<> {
        let rows = usize::try_from(self.rows_each).unwrap_or(usize::MAX);
        (0..rows).map(move |row| key(dimension, row as u64))
    }

    /// An index for each row, below the number of rows, such that rows often asked for under [`Distribution::Zipf`] are not
    /// side by side.
    #[inline]
    pub fn scattered(&self, row: u64) -> usize {
        let index = u128::from(row) * u128::from(self.stride) % u128::from(self.rows_each);
        // Below a number of rows that is in memory.
        index as usize
    }

    /// `count` rows that are spread over all dimensions, as pairs of dimension and key: different ones in each
    /// `round`, as far as there are.
    pub fn changed(&self, count: u64, round: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let (rows_each, stride) = (self.rows_each, self.stride);
        (0..count.min(self.keys())).map(move |i| {
            let row =
                ((i / DIMENSIONS as u64 + round * count) as u128 * stride as u128 % rows_each as u128) as u64;
            let dimension = (i % DIMENSIONS as u64) as usize;
            (dimension, key(dimension, row))
        })
    }
}

/// A number without a divisor in common with `n`, of about 0.6 times its size, so that multiples of it modulo `n` visit
/// everything in an order that jumps about.
fn coprime(n: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let from = (n as f64 * 0.618) as u64 + 1;
    (from..).find(|candidate| gcd(*candidate, n) == 1).unwrap_or(1)
}

/// One request: a key for each dimension, and which of them are stored.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Keys, one per dimension.
    pub keys: [u64; DIMENSIONS],
    /// Rows, one per dimension, for subjects that need no keys.
    pub rows: [u64; DIMENSIONS],
    /// Bit i is set where dimension i has the key.
    pub present: u16,
}

/// Makes requests: 90 % of their keys are present.
#[derive(Debug)]
pub struct Requests {
    random: SmallRng,
    rows_each: u64,
    zipf: Option<Zipf<f64>>,
}

impl Requests {
    /// The same requests each time.
    ///
    /// # Errors
    /// Where the distribution does not fit the number of rows.
    pub fn new(workload: &Workload, distribution: Distribution, seed: u64) -> anyhow::Result<Self> {
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf => Some(Zipf::new(workload.rows_each as f64, ZIPF_EXPONENT)?),
        };
        Ok(Self { random: SmallRng::seed_from_u64(seed), rows_each: workload.rows_each, zipf })
    }

    /// The next request.
    #[inline]
    pub fn next_request(&mut self) -> Request {
        let mut request = Request { keys: [0; DIMENSIONS], rows: [0; DIMENSIONS], present: 0 };
        for dimension in 0..DIMENSIONS {
            let row = match &self.zipf {
                None => self.random.random_range(0..self.rows_each),
                Some(zipf) => (zipf.sample(&mut self.random) as u64 - 1).min(self.rows_each - 1),
            };
            // 1 in 10 is absent.
            let is_absent = self.random.next_u32() < u32::MAX / 10;
            request.rows[dimension] = row;
            request.keys[dimension] = key(dimension, if is_absent { row | 1 << 40 } else { row });
            request.present |= u16::from(!is_absent) << dimension;
        }
        request
    }
}

impl Request {
    /// Checks an answer: which keys were found, and the values of those.
    ///
    /// # Errors
    /// Where a key that is stored was not found, one that is not was, or a row is not one that was ever published.
    pub fn check(&self, values: &[f32], present: u16) -> anyhow::Result<()> {
        anyhow::ensure!(
            values.len() == VALUES && present == self.present,
            "expected {VALUES} values and the keys {:012b}, found {} and {present:012b}",
            self.present,
            values.len()
        );
        for (dimension, row) in values.chunks_exact(WIDTH).enumerate() {
            let is_right = if present >> dimension & 1 == 1 {
                is_row(self.keys[dimension], row)
            } else {
                row.iter().all(|v| *v == 0.0)
            };
            anyhow::ensure!(
                is_right,
                "dimension {dimension}: not the row of {:x}: {row:?}",
                self.keys[dimension]
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_ask_for_nine_stored_keys_in_ten() {
        let workload = Workload::new(1200);
        for distribution in [Distribution::Uniform, Distribution::Zipf] {
            let mut requests = Requests::new(&workload, distribution, 1).unwrap();
            let stored: std::collections::HashSet<_> =
                (0..DIMENSIONS).flat_map(|d| workload.dimension(d)).collect();
            assert_eq!(stored.len(), 1200);
            let mut found = 0;
            for _ in 0..1000 {
                let request = requests.next_request();
                for (d, key) in request.keys.iter().enumerate() {
                    assert_eq!(stored.contains(key), request.present >> d & 1 == 1);
                }
                found += request.present.count_ones();
            }
            assert!((10_600..11_000).contains(&found), "{found}");
        }
    }

    #[test]
    fn a_wrong_answer_is_noticed() {
        let mut requests = Requests::new(&Workload::new(1200), Distribution::Uniform, 1).unwrap();
        let request = requests.next_request();
        let mut vector = [0.0; VALUES];
        for (d, row) in vector.chunks_exact_mut(WIDTH).enumerate() {
            if request.present >> d & 1 == 1 {
                row.copy_from_slice(&values(request.keys[d], 3));
            }
        }
        request.check(&vector, request.present).unwrap();
        assert!(request.check(&vector, request.present ^ 1).is_err());
        let d = request.present.trailing_zeros() as usize;
        vector[d * WIDTH + 7] += 1.0;
        assert!(request.check(&vector, request.present).is_err());
    }

    #[test]
    fn changed_rows_are_stored_ones_and_no_row_changes_twice() {
        let workload = Workload::new(12_000);
        let stored: std::collections::HashSet<_> =
            (0..DIMENSIONS).flat_map(|d| workload.dimension(d).map(move |key| (d, key))).collect();
        for round in 0..3 {
            let changed: std::collections::HashSet<_> = workload.changed(120, round).collect();
            assert_eq!(changed.len(), 120);
            assert!(changed.is_subset(&stored));
        }
    }
}
