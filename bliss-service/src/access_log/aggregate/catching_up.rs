//! A backlog counts as it would have when it was new: the times of its lines are the clock.
//!
//! A line may have a wrong time, and a clock that had gone there would make all that follow late. So a line that a clock would
//! have called early is held until others agree: nobody may have asked for hours, or this one is wrong.

use std::collections::VecDeque;

use super::{Aggregator, Ingested, Prepared};
use crate::access_log::parse::Record;

/// So many lines, of those ahead of the clock or of those that are not, decide where it is.
const VOTES: usize = 4;

/// Records of a backlog are counted as if they had been published at their own times.
pub(super) struct CatchingUp {
    interval_ms: u64,
    /// Where the backlog ends.
    until_ms: u64,
    /// Records that are ahead of the clock, fewer than [`VOTES`], in the order in which they came.
    ahead: VecDeque<Prepared>,
    /// Records that were not, since the first of these came.
    others: usize,
}

impl Aggregator {
    /// Until the next [`Self::tick`], [`Self::ingest_backlog`] counts records as if they had been published each `interval_ms` by
    /// their own times, up to `until_ms`: for a backlog in the order of times, so that it counts as it would have when it was new.
    pub fn catch_up(&mut self, interval_ms: u64, until_ms: u64) {
        let (interval_ms, ahead, others) = (interval_ms.max(1), VecDeque::new(), 0);
        self.catching_up = Some(CatchingUp { interval_ms, until_ms, ahead, others });
    }

    /// The backlog goes on until then: lines are written while it is read.
    pub fn catch_up_until(&mut self, until_ms: u64) {
        if let Some(catching_up) = &mut self.catching_up {
            catching_up.until_ms = until_ms.max(catching_up.until_ms);
        }
    }

    /// The time of a line of the backlog that does not tell it, while [`Self::catch_up`] holds.
    pub fn backlog_ms(&self) -> Option<u64> {
        self.catching_up.as_ref().map(|_| self.published_ms).filter(|published_ms| *published_ms > 0)
    }

    /// Records that wait for their publication.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Prepared> {
        let ahead = self.catching_up.iter().flat_map(|catching_up| &catching_up.ahead);
        self.pending.iter().chain(ahead)
    }

    /// Ends it at publication `at_ms`.
    pub(super) fn end_catching_up(&mut self, at_ms: u64) {
        if let Some(CatchingUp { interval_ms, ahead, .. }) = self.catching_up.take() {
            // Nothing speaks against them.
            ahead.into_iter().for_each(|record| self.hold(record));
            self.advance(at_ms, interval_ms);
        }
    }

    /// Takes a record of a backlog that is caught up with.
    pub(super) fn ingest_caught_up(&mut self, record: &Record<'_>, mut state: CatchingUp) -> Ingested {
        let is_future = self.is_ahead(record.time_ms, state.until_ms);
        let ingested = if is_future || !self.is_ahead(record.time_ms, self.published_ms) {
            if !is_future {
                self.advance(record.time_ms.min(state.until_ms), state.interval_ms);
            }
            let ingested = self.ingest(record);
            if ingested == Ingested::Counted && !state.ahead.is_empty() {
                state.others += 1;
            }
            ingested
        } else {
            state.ahead.push_back(self.prepare(record));
            Ingested::Counted
        };
        if state.others >= VOTES {
            self.counters.early_records += state.ahead.len() as u64;
            (state.ahead, state.others) = (VecDeque::new(), 0);
        } else if state.ahead.len() >= VOTES {
            self.go_ahead(&mut state);
        }
        self.catching_up = Some(state);
        ingested
    }

    /// Sets the clock to the first of the records ahead of it, and counts those that are not ahead any more.
    fn go_ahead(&mut self, state: &mut CatchingUp) {
        state.others = 0;
        // It counts in any case, also where publications are farther apart than a line may be ahead.
        let first = state.ahead.iter().enumerate().min_by_key(|(_, record)| record.hit.time_ms);
        let Some(first) = first.map(|(at, _)| at).and_then(|at| state.ahead.remove(at)) else { return };
        self.pass(first, state);
        for record in std::mem::take(&mut state.ahead) {
            if self.is_ahead(record.hit.time_ms, self.published_ms) {
                state.ahead.push_back(record);
            } else {
                self.pass(record, state);
            }
        }
    }

    /// Counts a record at its time.
    fn pass(&mut self, record: Prepared, state: &CatchingUp) {
        self.advance(record.hit.time_ms.min(state.until_ms), state.interval_ms);
        self.hold(record);
    }
}

#[cfg(test)]
mod tests;
