//! Evaluation of a route's models: the active one, and its shadows beside it.

use super::models::{BoundModels, BoundRoute, Ready};
use crate::publication::models::{MAX_CLASSES, MAX_MODELS};
use crate::score::{Scored, Shadow, Unscored, bot_score};
use bliss_catboost::{Evaluation, ModelRef, Scratch};

/// Models that one call of [`ModelRef::raw_many`] evaluates: few enough that they cost little to set up.
const GROUP_LEN: usize = 8;

/// The memory that evaluation works in, and what it came to.
#[derive(Debug)]
pub(super) struct Evaluator {
    pub(super) scratch: Scratch,
    /// Raw values of up to [`GROUP_LEN`] models.
    raws: Box<[f64]>,
    /// Of the last request: the active model, then its shadows. Empty where there were no shadows.
    outcomes: Vec<Shadow>,
}

impl Evaluator {
    pub(super) fn new() -> Self {
        Self {
            scratch: Scratch::bounded(),
            raws: vec![0.0; GROUP_LEN * MAX_CLASSES].into(),
            outcomes: Vec::with_capacity(MAX_MODELS + 1),
        }
    }

    /// What the shadows of the last request said.
    pub(super) fn shadows(&self) -> &[Shadow] {
        self.outcomes.get(1..).unwrap_or_default()
    }

    /// Forgets the last request.
    pub(super) fn clear(&mut self) {
        self.outcomes.clear();
    }

    /// Evaluates the models of `route` on the vector of values, and gives what the active one says. Nothing about a
    /// shadow changes that. A model that uses one of the dimensions of the mask `refused` is not evaluated.
    ///
    /// # Safety
    /// `models` are the bytes that `bound` was bound to last, unchanged.
    #[inline]
    pub(super) unsafe fn evaluate(
        &mut self,
        bound: &BoundModels,
        models: &[u8],
        route: BoundRoute,
        values: &[f32],
        refused: u64,
    ) -> Result<Scored, Unscored> {
        self.clear();
        if route.shadows == 0 {
            // SAFETY:
            // - this function's own contract
            return unsafe { self.evaluate_one(bound, models, route.active, values, refused) };
        }
        let undecided = Err(Unscored::BadModels);
        // Within the capacity: there are no more models than that, and the active one is no shadow.
        self.outcomes.extend(route.models().map(|model| Shadow { model, outcome: undecided }));
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for group in outcomes.chunks_mut(GROUP_LEN) {
            // SAFETY:
            // - this function's own contract
            unsafe { self.evaluate_group(bound, models, group, values, refused) };
        }
        self.outcomes = outcomes;
        self.outcomes.first().map_or(undecided, |active| active.outcome)
    }

    /// Evaluates one model.
    ///
    /// # Safety
    /// As [`Self::evaluate`].
    #[inline]
    unsafe fn evaluate_one(
        &mut self,
        bound: &BoundModels,
        models: &[u8],
        index: usize,
        values: &[f32],
        refused: u64,
    ) -> Result<Scored, Unscored> {
        // SAFETY:
        // - this function's own contract
        let ready = unsafe { bound.prepare(models, index, refused) }?;
        let raw = self.raws.get_mut(..ready.classes).ok_or(Unscored::BadModels)?;
        ready.model.raw(values, ready.binding, &mut self.scratch, raw).map_err(|_| Unscored::BadModels)?;
        compute_score(&ready, index, raw)
    }

    /// Evaluates up to [`GROUP_LEN`] models, which share what several sums can share.
    ///
    /// # Safety
    /// As [`Self::evaluate`].
    unsafe fn evaluate_group(
        &mut self,
        bound: &BoundModels,
        models: &[u8],
        group: &mut [Shadow],
        values: &[f32],
        refused: u64,
    ) {
        let mut ready: [Option<Ready<'_>>; GROUP_LEN] = [None; GROUP_LEN];
        for (ready, shadow) in ready.iter_mut().zip(group.iter_mut()) {
            // SAFETY:
            // - this function's own contract
            match unsafe { bound.prepare(models, shadow.model, refused) } {
                Ok(found) => *ready = Some(found),
                Err(reason) => shadow.outcome = Err(reason),
            }
        }
        let Some(any) = ready.iter().flatten().next() else { return };
        let mut wanted = ready.iter().flatten().zip(self.raws.chunks_exact_mut(MAX_CLASSES));
        let mut count = 0;
        let mut evaluations: [Evaluation<'_, '_>; GROUP_LEN] = std::array::from_fn(|_| match wanted.next() {
            Some((ready, raw)) => {
                count += 1;
                let out = raw.get_mut(..ready.classes).unwrap_or_default();
                Evaluation { model: ready.model, binding: ready.binding, out }
            }
            // Behind those that count.
            None => Evaluation { model: any.model, binding: &[], out: &mut [] },
        });
        let evaluations = evaluations.get_mut(..count).unwrap_or_default();
        if ModelRef::raw_many(evaluations, values, &mut self.scratch).is_err() {
            // Whichever it was, the others are not to suffer for it.
            for shadow in group {
                // SAFETY:
                // - this function's own contract
                shadow.outcome = unsafe { self.evaluate_one(bound, models, shadow.model, values, refused) };
            }
            return;
        }
        let mut evaluated = evaluations.iter();
        for (shadow, ready) in group.iter_mut().zip(&ready) {
            if let Some((ready, evaluation)) =
                ready.as_ref().and_then(|ready| Some((ready, evaluated.next()?)))
            {
                shadow.outcome = compute_score(ready, shadow.model, evaluation.out);
            }
        }
    }
}

/// The score that a model's raw values lead to.
#[inline]
pub(super) fn compute_score(ready: &Ready<'_>, model: usize, raw: &[f64]) -> Result<Scored, Unscored> {
    let bot_probability = ready.model.class_probability(raw, ready.bot_class);
    let score = bot_score(bot_probability).ok_or(Unscored::NoProbability)?;
    Ok(Scored { score, bot_probability, model })
}
