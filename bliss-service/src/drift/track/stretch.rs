//! Counts of a stretch of time: a slice of a window, or a day.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::drift::psi::{Counts, total};

/// Hours of a day: the past is known once it has each of them.
pub(super) const HOURS: u64 = 24;
pub(super) const ALL_HOURS: u32 = (1 << HOURS) - 1;

/// Counts of all rows in a stretch of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stretch {
    /// Which one, counted from the epoch.
    pub(super) number: u64,
    /// Of a day, one bit for each hour that was looked at.
    pub(super) hours: u32,
    pub(super) counts: Vec<Counts>,
    /// Of each row the largest index of a window in it.
    pub(super) usual: Vec<f64>,
}

impl Stretch {
    pub(super) fn new(number: u64, rows: usize) -> Self {
        Self { number, hours: 0, counts: vec![Counts::default(); rows], usual: vec![0.0; rows] }
    }

    pub(super) fn add(&mut self, counts: &[Counts]) {
        self.counts.iter_mut().zip(counts).for_each(|(sum, counts)| add(sum, counts));
    }

    pub(super) fn requests(&self) -> u64 {
        self.counts.first().map_or(0, total)
    }
}

pub(super) fn number(now: Duration, stretch: Duration) -> u64 {
    u64::try_from(now.as_millis() / stretch.as_millis().max(1)).unwrap_or(u64::MAX)
}

/// A row's counts of all of them.
pub(super) fn sum(stretches: &VecDeque<Stretch>, row: usize) -> Counts {
    let mut sum = Counts::default();
    let counts = stretches.iter().filter_map(|stretch| stretch.counts.get(row));
    counts.for_each(|counts| add(&mut sum, counts));
    sum
}

pub(super) fn add(sum: &mut Counts, counts: &Counts) {
    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
}

/// Of a day what is not in the window.
pub(super) fn without(day: Option<&Counts>, window: &Counts) -> Counts {
    let mut rest = day.copied().unwrap_or_default();
    rest.iter_mut().zip(window).for_each(|(rest, count)| *rest = rest.saturating_sub(*count));
    rest
}
