//! Explaining a request: what each input of a model contributes to its answer.
//!
//! Off the hot path: scoring reads none of this, and a worker that never explains has no [`Explaining`].

use super::evaluate::compute_score;
use super::models::{MAX_BINDINGS, Ready};
use super::{ATTRIBUTES_AT, HTTP_AT, INPUTS_AT, OPTIONAL_AT, OPTIONAL_INPUTS, Scorer};
use crate::http::RequestValue;
use crate::publication::models::MAX_CLASSES;
use crate::request::{INPUT_PREFIX, Names, Request};
use crate::score::{Scored, Status, Unscored, bot_score};
use bliss_catboost::{BoundedExplainer, ExplainError, ModelRef, Scratch};

/// SHAP values at most: inputs times classes.
const MAX_SHAP: usize = 1 << 17;
/// Answers that differ by less than this have points by the slope.
const SMALLEST_WAY: f64 = 0.25;

/// Memory to explain one request at a time, and what it came to. For one thread.
#[derive(Debug)]
pub struct Explaining {
    explainer: BoundedExplainer,
    /// Of the last request: per input its part of the answer.
    parts: Vec<f64>,
    /// Per input its value, and how its dimension answered.
    values: Vec<(f32, Status)>,
    /// The inputs, the one with the largest part first.
    order: Vec<u32>,
    raw: Box<[f64]>,
    expected: Box<[f64]>,
}

impl Default for Explaining {
    fn default() -> Self {
        Self::new()
    }
}

/// What a model's answer for one request comes from; [`Scorer::contributions`] has the parts.
///
/// The answer is the model's own for the class of bots: log-odds, or that class's sum where there are several classes. It is
/// the higher, the more likely the request is automated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explained {
    /// What the model says of the request.
    pub scored: Scored,
    /// The answer: what is expected and all contributions together, but for rounding.
    pub answer: f64,
    /// The answer that is expected of a request of which nothing is known: the mean over the training data.
    pub expected: f64,
    /// The score that the expected answer gives.
    pub expected_score: u8,
    /// Inputs of the model.
    pub inputs: usize,
    points: Points,
}

/// What parts of an answer make of the score.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Points {
    /// From the expected score to the score.
    way: f64,
    /// From the expected answer to the answer.
    all: f64,
    /// By how much the probability of a bot rises with the answer.
    slope: f64,
}

impl Explained {
    /// What a part of the answer makes of the score: the points of all parts add up to the way from
    /// [`expected_score`](Self::expected_score) to the score. Where the parts cancel each other out, or, with several classes,
    /// the score goes another way than the answer: by how much the score changes there.
    #[must_use]
    pub fn points(&self, part: f64) -> f64 {
        let Points { way, all, slope } = self.points;
        // A higher answer is a lower score.
        if all.abs() > SMALLEST_WAY && way * all <= 0.0 { way * part / all } else { -98.0 * slope * part }
    }
}

/// An input of a model, and its value for the request that was scored or explained last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputValue<'a> {
    /// The dimension it is a feature of, or `request` for the request's own. A model calls it `GROUP.NAME`.
    pub group: &'a str,
    /// Its name within the group.
    pub name: &'a str,
    /// Its value; NaN where a number is not told; the bit pattern of its hash where it is a category.
    pub value: f32,
    /// Whether it is a category.
    pub is_category: bool,
    /// How its dimension answered; [`Status::Unused`] for the request's own.
    pub status: Status,
}

/// What an input contributes to an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution<'a> {
    /// The input's number in the model.
    pub index: u32,
    /// The input.
    pub input: InputValue<'a>,
    /// Its part of the answer (SHAP value): above 0 where it makes a bot more likely.
    pub part: f64,
    /// Its points of the score ([`Explained::points`]).
    pub points: f64,
}

/// Why a request is not explained.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NotExplained {
    /// It has no score.
    #[error(transparent)]
    Unscored(#[from] Unscored),
    /// No model of this name is published.
    #[error("no model of this name is published")]
    NoSuchModel,
    /// The model was published without the weights of its leaves.
    #[error("the model was published without the weights of its leaves, which explanations need")]
    NoLeafWeights,
    /// The model is larger than [`Explaining`] has room for.
    #[error(transparent)]
    TooLarge(ExplainError),
    /// The model is damaged.
    #[error(transparent)]
    Damaged(ExplainError),
}

impl From<ExplainError> for NotExplained {
    fn from(error: ExplainError) -> Self {
        match error {
            ExplainError::NoLeafWeights => Self::NoLeafWeights,
            ExplainError::Corrupt { .. } | ExplainError::Row(_) => Self::Damaged(error),
            _ => Self::TooLarge(error),
        }
    }
}

impl Explaining {
    /// Allocates all memory that explaining will need; see [`BoundedExplainer::new`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            explainer: BoundedExplainer::new(),
            parts: Vec::with_capacity(MAX_SHAP),
            values: Vec::with_capacity(MAX_BINDINGS),
            order: Vec::with_capacity(MAX_BINDINGS),
            raw: vec![0.0; MAX_CLASSES].into(),
            expected: vec![0.0; MAX_CLASSES].into(),
        }
    }

    fn run(
        &mut self,
        ready: &Ready<'_>,
        index: usize,
        values: &[f32],
        scratch: &mut Scratch,
    ) -> Result<Explained, NotExplained> {
        self.parts.clear();
        self.values.clear();
        self.order.clear();
        let Ready { model, binding, classes, bot_class } = *ready;
        let damaged = Unscored::BadModels;
        let raw = self.raw.get_mut(..classes).ok_or(damaged)?;
        model.raw(values, binding, scratch, raw).map_err(|_| damaged)?;
        let scored = compute_score(ready, index, raw)?;

        let width = binding.len().saturating_add(1);
        let found = width.saturating_mul(classes);
        if found > MAX_SHAP {
            return Err(ExplainError::TooLarge { found, limit: MAX_SHAP }.into());
        }
        self.parts.resize(found, 0.0);
        self.explainer.explain(&model, values, binding, scratch, &mut self.parts)?;
        let expected = self.expected.get_mut(..classes).ok_or(damaged)?;
        for (expected, parts) in expected.iter_mut().zip(self.parts.chunks_exact(width)) {
            *expected = parts.last().copied().unwrap_or(f64::NAN);
        }
        self.keep_class(&model, bot_class, binding.len()).ok_or(damaged)?;

        let (raw, expected) =
            (self.raw.get(..classes).ok_or(damaged)?, self.expected.get(..classes).ok_or(damaged)?);
        let (answer, expected_answer) =
            (model.class_answer(raw, bot_class), model.class_answer(expected, bot_class));
        // Of a model whose answers are probabilities, the mean need not be one.
        let expected_score = bot_score(model.class_probability(expected, bot_class).clamp(0.0, 1.0));
        let expected_score = expected_score.ok_or(Unscored::NoProbability)?;
        if !answer.is_finite() || !self.parts.iter().all(|part| part.is_finite()) {
            return Err(Unscored::NoProbability.into());
        }
        let points = Points {
            way: f64::from(scored.score) - f64::from(expected_score),
            all: answer - expected_answer,
            slope: model.class_slope(raw, bot_class),
        };
        self.sort();
        let inputs = binding.len();
        Ok(Explained { scored, answer, expected: expected_answer, expected_score, inputs, points })
    }

    /// Keeps of the values of all dimensions those of a class's own answer.
    fn keep_class(&mut self, model: &ModelRef<'_>, class: usize, inputs: usize) -> Option<()> {
        let (dimension, is_turned) = model.class_dimension(class)?;
        let first = dimension.checked_mul(inputs + 1)?;
        let end = first.checked_add(inputs).filter(|end| *end <= self.parts.len())?;
        self.parts.copy_within(first..end, 0);
        self.parts.truncate(inputs);
        if is_turned {
            self.parts.iter_mut().for_each(|part| *part = -*part);
        }
        Some(())
    }

    fn sort(&mut self) {
        // Within the capacity: a model has no more inputs than that.
        self.order.extend(0..u32::try_from(self.parts.len().min(MAX_BINDINGS)).unwrap_or(0));
        let parts = &self.parts;
        let size = |at: &u32| parts.get(*at as usize).map_or(0.0, |part| part.abs());
        self.order.sort_unstable_by(|a, b| size(b).total_cmp(&size(a)).then(a.cmp(b)));
    }
}

impl Scorer {
    /// Scores `request` with one model and says what its answer comes from. The model is the one of this name, or the active one
    /// of `route`. What is bound and what the last request's shadows said stays.
    ///
    /// Allocates nothing; takes time in proportion to the model's leaves, some thousand times as long as a score.
    ///
    /// # Errors
    /// [`NotExplained`]: there is no score, no such model, or it was published without what explanations need.
    ///
    /// # Safety
    /// As [`Self::score`].
    #[allow(clippy::too_many_arguments)] // What `score` takes, and which model.
    pub unsafe fn explain(
        &mut self,
        explaining: &mut Explaining,
        features: &[u8],
        models: &[u8],
        request: &Request<'_>,
        route: &str,
        model: Option<&str>,
        now: u32,
    ) -> Result<Explained, NotExplained> {
        let index = match model {
            Some(name) => {
                let found = self.models.models().iter().position(|model| model.name() == name);
                found.ok_or(NotExplained::NoSuchModel)?
            }
            None => self.models.route(route).ok_or(Unscored::NoActiveModel)?.1.active,
        };
        let needs = self.models.models().get(index).ok_or(Unscored::NoActiveModel)?.needs();
        let (_, refused) = self.gather(features, request, needs, now);
        // SAFETY:
        // - `models` are the bytes bound last, unchanged: this function's own contract
        let ready = unsafe { self.models.prepare(models, index, refused) }?;
        let explained = explaining.run(&ready, index, &self.buffers.values, &mut self.evaluator.scratch)?;
        // Within the capacity: a model has no more inputs than that.
        let binding = self.models.binding(index).iter().take(MAX_BINDINGS);
        explaining.values.extend(binding.map(|at| self.value(*at as usize)));
        Ok(explained)
    }

    /// What each input contributed to the answer that was [explained](Self::explain) last, the largest part first. The names are
    /// those of the inputs while the same models are bound ([`Self::bindings`]).
    pub fn contributions<'a>(
        &'a self,
        explaining: &'a Explaining,
        explained: &'a Explained,
        names: &'a Names,
    ) -> impl ExactSizeIterator<Item = Contribution<'a>> {
        explaining.order.iter().map(move |at| self.contribution_of(explaining, explained, names, *at))
    }

    /// Contribution `index` of [`Self::contributions`], without going through those before it.
    pub fn contribution<'a>(
        &'a self,
        explaining: &'a Explaining,
        explained: &'a Explained,
        names: &'a Names,
        index: usize,
    ) -> Option<Contribution<'a>> {
        let at = *explaining.order.get(index)?;
        Some(self.contribution_of(explaining, explained, names, at))
    }

    /// What input `at` of the model contributed.
    fn contribution_of<'a>(
        &'a self,
        explaining: &'a Explaining,
        explained: &'a Explained,
        names: &'a Names,
        at: u32,
    ) -> Contribution<'a> {
        let place = at as usize;
        let part = explaining.parts.get(place).copied().unwrap_or(f64::NAN);
        let binding = self.models.binding(explained.scored.model);
        let index = binding.get(place).map_or(usize::MAX, |index| *index as usize);
        let (value, status) = explaining.values.get(place).copied().unwrap_or((f32::NAN, Status::Unused));
        let input = InputValue { value, status, ..self.input(index, names) };
        Contribution { index: at, input, part, points: explained.points(part) }
    }

    /// The inputs of a model with their values for the request that was scored or explained last.
    pub fn inputs<'a>(
        &'a self,
        model: usize,
        names: &'a Names,
    ) -> impl ExactSizeIterator<Item = InputValue<'a>> {
        self.models.binding(model).iter().map(|index| self.input(*index as usize, names))
    }

    /// What lies at an index of the vector of values, and how its dimension answered.
    fn value(&self, index: usize) -> (f32, Status) {
        let (values, statuses) = self.last();
        let dimension = self.dimensions.feature(index).map(|(dimension, _)| dimension);
        let status =
            dimension.filter(|_| index < INPUTS_AT).and_then(|dimension| statuses.get(dimension).copied());
        (values.get(index).copied().unwrap_or(f32::NAN), status.unwrap_or_default())
    }

    /// The input that lies at an index of the vector of values.
    fn input<'a>(&'a self, index: usize, names: &'a Names) -> InputValue<'a> {
        let (value, status) = self.value(index);
        let group = INPUT_PREFIX.trim_end_matches('.');
        let (group, name, is_category) = if index >= OPTIONAL_AT {
            let input = OPTIONAL_INPUTS.get(index - OPTIONAL_AT).and_then(|input| input.split_once('.'));
            input.map(|(dimension, feature)| (dimension, feature, false))
        } else if index >= HTTP_AT {
            let value = RequestValue::ALL.get(index - HTTP_AT);
            value.map(|value| (group, value.name(), false))
        } else if index >= ATTRIBUTES_AT {
            names.attributes().get(index - ATTRIBUTES_AT).map(|name| (group, name.as_str(), true))
        } else if index >= INPUTS_AT {
            names.input_at(index - INPUTS_AT).map(|(name, is_category)| (group, name, is_category))
        } else {
            let found = self.dimensions.feature(index).zip(self.dimensions.feature_name(index));
            found.map(|((_, is_category), (dimension, feature))| (dimension, feature, is_category))
        }
        // A binding that leads nowhere is of a model that lacks an input, and is not explained.
        .unwrap_or_default();
        InputValue { group, name, value, is_category, status }
    }
}
