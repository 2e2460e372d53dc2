//! Where a worker counts what a plan answers.

use super::Scorer;
use crate::metrics::{EntryIndex, Id, Slot};
use crate::publication::models::{MAX_MODELS, MAX_ROUTES};
use crate::schema::MAX_DIMENSIONS;
use crate::score::Answer;

/// Places of a slot's entries for what a plan has bound, so that a request only adds.
#[derive(Debug)]
pub struct RequestMetrics {
    /// The plan's [`Scorer::bindings`] at the time.
    bound: Option<u64>,
    dimensions: Vec<EntryIndex>,
    routes: Vec<RouteEntries>,
    /// Of the shadows of all routes.
    shadows: Vec<EntryIndex>,
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
        }
    }

    /// Forgets all places: to be called where another slot is used from now on.
    pub fn unbind(&mut self) {
        self.bound = None;
    }

    /// Finds the places for what `plan` has bound now, unless they are known. Counting does it too; done ahead of time, no
    /// request has to.
    #[inline]
    pub fn bind(&mut self, slot: Slot<'_>, plan: &Scorer) {
        if self.bound != Some(plan.bindings()) {
            self.bind_anew(slot, plan);
        }
    }

    /// Within the capacities, since a plan has no more than they hold.
    #[cold]
    fn bind_anew(&mut self, slot: Slot<'_>, plan: &Scorer) {
        self.dimensions.clear();
        self.routes.clear();
        self.shadows.clear();
        let dimensions = (0..plan.dimensions().len()).map_while(|index| plan.dimensions().name(index));
        self.dimensions.extend(dimensions.map(|name| slot.claim(Id::lookups(name))));
        let model = |place: usize| plan.models().models().get(place).map(|m| (m.name(), m.version()));
        for (route, bound) in plan.models().routes() {
            let (name, version) = model(bound.active).unwrap_or_default();
            self.routes.push(RouteEntries {
                unscored: slot.claim(Id::unscored(route)),
                scores: slot.claim(Id::scores(route, name, version)),
                first_shadow: self.shadows.len(),
            });
            let shadows = bound.models().skip(1).filter_map(model);
            self.shadows.extend(shadows.map(|(name, version)| slot.claim(Id::shadow(route, name, version))));
        }
        self.bound = Some(plan.bindings());
    }

    /// Counts how the dimensions answered the last look-up or score.
    #[inline]
    pub fn count_lookup(&mut self, slot: Slot<'_>, plan: &Scorer) {
        self.bind(slot, plan);
        for (place, status) in self.dimensions.iter().zip(plan.last().1) {
            slot.add_lookup(*place, *status);
        }
    }

    /// Counts a score, or why there is none: `answer` is what the last [`Scorer::score`] gave, or what was said instead
    /// after [`Scorer::forget`].
    #[inline]
    pub fn count_score(&mut self, slot: Slot<'_>, plan: &Scorer, answer: &Answer) {
        let Some(route) = plan.last_route() else {
            if let Err(reason) = answer.outcome {
                slot.add_unscored(EntryIndex::NO_ROUTE, reason);
            }
            return;
        };
        self.count_lookup(slot, plan);
        let Some(places) = self.routes.get(route) else { return };
        match answer.outcome {
            Ok(scored) => slot.add_score(places.scores, scored.score),
            Err(reason) => slot.add_unscored(places.unscored, reason),
        }
        let shadows = self.shadows.get(places.first_shadow..).unwrap_or_default();
        for (place, shadow) in shadows.iter().zip(plan.shadows()) {
            match (shadow.outcome, answer.outcome) {
                (Ok(shadow), Ok(active)) => {
                    slot.add_difference(*place, i16::from(shadow.score) - i16::from(active.score));
                }
                // What there is nothing to compare with is no difference.
                (Ok(_), Err(_)) => {}
                (Err(reason), _) => slot.add_shadow_unscored(*place, reason),
            }
        }
    }
}
