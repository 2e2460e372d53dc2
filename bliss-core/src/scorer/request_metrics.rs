//! Where a worker counts what a scorer answers.

use super::Scorer;
use super::sample::{self, Sampler};
use crate::metrics::{EntryIndex, SeriesId, Slot};
use crate::publication::models::{MAX_MODELS, MAX_ROUTES};
use crate::schema::MAX_DIMENSIONS;
use crate::score::Answer;

/// Indices of a slot's entries for what a scorer has bound, so that a request only adds.
#[derive(Debug)]
pub struct RequestMetrics {
    /// The scorer's [`Scorer::bindings`] at the time.
    bound: Option<u64>,
    dimensions: Vec<EntryIndex>,
    routes: Vec<RouteEntries>,
    /// Of the shadows of all routes.
    shadows: Vec<EntryIndex>,
    sampler: Sampler,
}

#[derive(Clone, Copy, Debug)]
struct RouteEntries {
    unscored: EntryIndex,
    scores: EntryIndex,
    first_shadow: usize,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestMetrics {
    /// Allocates all memory that binding will need.
    pub fn new() -> Self {
        Self {
            bound: None,
            dimensions: Vec::with_capacity(MAX_DIMENSIONS),
            routes: Vec::with_capacity(MAX_ROUTES),
            shadows: Vec::with_capacity(MAX_ROUTES * MAX_MODELS),
            sampler: Sampler::new(),
        }
    }

    /// Forgets all indices: to be called when another slot is used from now on.
    pub fn unbind(&mut self) {
        self.bound = None;
    }

    /// Finds the entries for what `scorer` has bound now, unless they are known. Counting does so too; after this call, no
    /// request has to.
    #[inline]
    pub fn bind(&mut self, slot: Slot<'_>, scorer: &Scorer) {
        if self.bound != Some(scorer.bindings()) {
            self.claim_entries(slot, scorer);
        }
    }

    /// Within the capacities, since a scorer has no more than they hold.
    #[cold]
    fn claim_entries(&mut self, slot: Slot<'_>, scorer: &Scorer) {
        self.dimensions.clear();
        self.routes.clear();
        self.shadows.clear();
        let dimensions = (0..scorer.dimensions().len()).map_while(|index| scorer.dimensions().name(index));
        self.dimensions.extend(dimensions.map(|name| slot.claim(SeriesId::lookups(name))));
        let model = |index: usize| scorer.models().models().get(index).map(|m| (m.name(), m.version()));
        for (route, bound) in scorer.models().routes() {
            let (name, version) = model(bound.active).unwrap_or_default();
            self.routes.push(RouteEntries {
                unscored: slot.claim(SeriesId::unscored(route)),
                scores: slot.claim(SeriesId::scores(route, name, version)),
                first_shadow: self.shadows.len(),
            });
            let shadows = bound.models().skip(1).filter_map(model);
            self.shadows
                .extend(shadows.map(|(name, version)| slot.claim(SeriesId::shadow(route, name, version))));
        }
        if let Some(plan) = scorer.models().plan() {
            slot.begin_drift(plan);
        }
        self.sampler.restart();
        self.bound = Some(scorer.bindings());
    }

    /// Counts how the dimensions answered the last lookup or score.
    #[inline]
    pub fn count_lookup(&mut self, slot: Slot<'_>, scorer: &Scorer) {
        self.bind(slot, scorer);
        for (entry, status) in self.dimensions.iter().zip(scorer.last().1) {
            slot.add_lookup(*entry, *status);
        }
    }

    /// Counts a score, or why there is none: `answer` is what the last [`Scorer::score`] gave, or what was said instead
    /// after [`Scorer::forget`].
    #[inline]
    pub fn count_score(&mut self, slot: Slot<'_>, scorer: &Scorer, answer: &Answer) {
        let Some(route) = scorer.last_route() else {
            if let Err(reason) = answer.outcome {
                slot.add_unscored(EntryIndex::NO_ROUTE, reason);
            }
            return;
        };
        self.count_lookup(slot, scorer);
        let Some(entries) = self.routes.get(route) else { return };
        match answer.outcome {
            Ok(scored) => {
                slot.add_score(entries.scores, scored.score);
                if self.sampler.next(scorer.models().sample_one_in()) {
                    sample::count(slot, scorer, &scored);
                }
            }
            Err(reason) => slot.add_unscored(entries.unscored, reason),
        }
        let shadows = self.shadows.get(entries.first_shadow..).unwrap_or_default();
        for (entry, shadow) in shadows.iter().zip(scorer.shadows()) {
            match (shadow.outcome, answer.outcome) {
                (Ok(shadow), Ok(active)) => {
                    slot.add_difference(*entry, i16::from(shadow.score) - i16::from(active.score));
                }
                // What there is nothing to compare with is no difference.
                (Ok(_), Err(_)) => {}
                (Err(reason), _) => slot.add_shadow_unscored(*entry, reason),
            }
        }
    }
}
