//! How far an export is, for whoever waits for it.

use std::time::{Duration, Instant};

/// The least time between two lines.
const EVERY: Duration = Duration::from_secs(5);

/// Requests that were written, of how many, since when.
pub(super) struct Progress {
    done: u64,
    total: u64,
    begun: Instant,
    told: Instant,
}

impl Progress {
    /// Of `total` requests, from `now` on.
    pub(super) fn new(total: u64, now: Instant) -> Self {
        Self { done: 0, total, begun: now, told: now }
    }

    /// Counts a request, and returns what there is to tell: nothing in the first five seconds after a line.
    pub(super) fn add(&mut self, now: Instant) -> Option<String> {
        self.done += 1;
        if now.saturating_duration_since(self.told) < EVERY {
            return None;
        }
        self.told = now;
        let seconds = now.saturating_duration_since(self.begun).as_secs();
        Some(format!("{} of {} requests, {seconds} s", self.done, self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_every_five_seconds() {
        let begun = Instant::now();
        let mut progress = Progress::new(4, begun);
        let after = |seconds| begun + Duration::from_secs(seconds);
        let told = [1, 6, 8, 12].map(|seconds| progress.add(after(seconds)));
        assert_eq!(
            told,
            [None, Some("2 of 4 requests, 6 s".into()), None, Some("4 of 4 requests, 12 s".into())]
        );
    }
}
