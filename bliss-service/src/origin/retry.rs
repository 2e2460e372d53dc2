//! Waits after failures.

use std::time::Duration;

/// Exponential backoff: each wait is between half and all of a limit that doubles from failure to failure.
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn failed(&mut self) -> Duration {
        let limit =
            self.min.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.max);
        self.failures = (self.failures + 1).min(31);
        limit.mul_f64(0.5 + 0.5 * fraction())
    }
}

/// Between 0 and 1, different in each process, so that hosts that failed together do not retry together.
fn fraction() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        for limit in [1, 2, 4, 8, 16, 20, 20] {
            let limit = Duration::from_secs(limit);
            let wait = backoff.failed();
            assert!(wait >= limit / 2 && wait <= limit, "{wait:?} of {limit:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= Duration::from_secs(20));
        }
        backoff.succeeded();
        assert!(backoff.failed() <= Duration::from_secs(1));
    }
}
