//! Timing single calls.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Times of many calls, in units of a tenth of a nanosecond so that averages of batches keep their digits.
#[derive(Clone, Debug)]
pub struct Times {
    histogram: Histogram<u64>,
}

/// Parts of a nanosecond that can be distinguished.
const PARTS: f64 = 10.0;

/// What a set of times looks like, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 9 of 10 are at most this.
    pub p90: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1,000 are at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How many there are.
    pub count: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    /// No times. Resolves three digits, up to 17 minutes.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 10_000_000_000_000, 3);
        Self { histogram: histogram.expect("constant bounds") }
    }

    /// Adds the time of one call.
    #[inline]
    pub fn add(&mut self, time: Duration) {
        self.add_ns(time.as_nanos() as f64);
    }

    /// Adds a time in nanoseconds, for instance the average over a batch.
    #[inline]
    pub fn add_ns(&mut self, ns: f64) {
        self.histogram.saturating_record((ns * PARTS) as u64);
    }

    /// Adds all times of another set.
    pub fn merge(&mut self, other: &Self) {
        // Fails for other bounds only.
        let _ = self.histogram.add(&other.histogram);
    }

    /// The set in a few numbers.
    pub fn percentiles(&self) -> Percentiles {
        let h = &self.histogram;
        let at = |quantile| h.value_at_quantile(quantile) as f64 / PARTS;
        Percentiles {
            mean: h.mean() / PARTS,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: h.max() as f64 / PARTS,
            count: h.len(),
        }
    }
}

impl Times {
    /// The times as pairs of a value in this set's own unit and a count, for [`add_pairs`](Self::add_pairs) elsewhere.
    pub fn pairs(&self) -> Vec<(u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect()
    }

    /// Adds what [`pairs`](Self::pairs) of another set gave.
    pub fn add_pairs(&mut self, pairs: &[(u64, u64)]) {
        for (value, count) in pairs {
            self.histogram.saturating_record_n(*value, *count);
        }
    }

    /// How many times there are in each step of a logarithmic scale of [`STEPS`] per decade, as pairs of the step's lower
    /// bound in nanoseconds and a count. Empty steps are left out.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let mut curve: Vec<(f64, u64)> = Vec::new();
        for value in self.histogram.iter_recorded() {
            let ns = (value.value_iterated_to() as f64 / PARTS).max(1.0 / PARTS);
            let lower = step_ns((ns.log10() * STEPS).floor());
            match curve.last_mut() {
                Some((last, count)) if *last == lower => *count += value.count_at_value(),
                _ => curve.push((lower, value.count_at_value())),
            }
        }
        curve
    }
}

/// Steps per decade of [`Times::curve`].
pub const STEPS: f64 = 20.0;

fn step_ns(step: f64) -> f64 {
    let ns = 10_f64.powf(step / STEPS);
    (ns * 100.0).round() / 100.0
}

/// What reading the clock twice measures when there is nothing in between: the median, in nanoseconds. Times of single
/// calls include it.
pub fn timer_cost() -> f64 {
    let mut times = Times::new();
    for _ in 0..100_000 {
        let start = Instant::now();
        times.add(start.elapsed());
    }
    times.percentiles().p50
}

/// Averages of batches of a call that is too short to be timed alone, for `duration`.
pub fn batches(duration: Duration, batch: u32, mut call: impl FnMut()) -> Times {
    let mut times = Times::new();
    let end = Instant::now() + duration;
    while one_batch(&mut times, batch, &mut call) < end {}
    times
}

/// The same of two calls, `false` and `true`, whose batches take turns for `duration` each: what else the machine does, or how fast it
/// is at the moment, is the same for both.
pub fn batches_in_turns(duration: Duration, batch: u32, mut call: impl FnMut(bool)) -> [Times; 2] {
    let mut times = [Times::new(), Times::new()];
    let end = Instant::now() + duration * 2;
    let [first, second] = &mut times;
    loop {
        one_batch(first, batch, || call(false));
        if one_batch(second, batch, || call(true)) >= end {
            return times;
        }
    }
}

/// When it was over.
fn one_batch(times: &mut Times, batch: u32, mut call: impl FnMut()) -> Instant {
    let start = Instant::now();
    for _ in 0..batch {
        call();
    }
    let stop = Instant::now();
    times.add_ns((stop - start).as_nanos() as f64 / f64::from(batch));
    stop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut times = Times::new();
        (1..=1000).for_each(|ns| times.add_ns(f64::from(ns)));
        let found = times.percentiles();
        assert_eq!((found.count, found.p50.round()), (1000, 500.0));
        assert!((found.max - 1000.0).abs() < 2.0, "{found:?}");
        let curve = times.curve();
        assert_eq!(curve.iter().map(|(_, count)| count).sum::<u64>(), 1000);
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0) && curve[0] == (1.0, 1), "{curve:?}");
        assert!((found.p99 - 990.0).abs() < 2.0 && (found.mean - 500.5).abs() < 1.0, "{found:?}");
    }
}
