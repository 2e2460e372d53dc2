//! What a score comes from.

use core::ffi::c_char;

use bliss_core::scorer::{Explained, Explaining, NotExplained};

use crate::answer::{bliss_text_t, route_name};
use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{InSlice, OutStruct, SizePrefixed};

/// Longest name of a model that is looked for.
const MAX_NAME_BYTES: usize = 128;

const NOT_REGISTERED: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "explanations are not registered with this handle; call bliss_explain_register after opening it",
);
const NO_SUCH_INPUT: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "there is no such contribution; input_count of the last bliss_explain says how many there are, and they are gone once \
     other models are bound",
);

/// Memory of explanations, and the last one.
pub(crate) struct Explanation {
    explaining: Explaining,
    /// The last one, and how many times models were bound when it was made.
    last: Option<(Explained, u64)>,
}

/// What a model's answer for one request comes from.
///
/// The answer is the model's own for the class of bots: log-odds; that class's sum where there are several classes; or the
/// probability itself where the model answers with that. It is the sum of `expected` and all contributions.
///
/// Its texts may be read until the next call with the handle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_explanation_t {
    /// sizeof(bliss_explanation_t), set before the call.
    pub size: usize,
    /// 1 is certainly automated, 99 certainly human.
    pub score: u32,
    /// The score of a request of which nothing is known.
    pub expected_score: u32,
    /// Probability that the request is automated.
    pub bot_probability: f64,
    /// The model's answer for the class of bots: the higher, the more likely the request is automated.
    pub answer: f64,
    /// The answer for a request of which nothing is known: the mean over the training data.
    pub expected: f64,
    /// Generation of the features that were used.
    pub features_generation: u64,
    /// Generation of the models that were used.
    pub models_generation: u64,
    /// Inputs of the model: as many contributions as bliss_contribution_get has.
    pub input_count: usize,
    /// The model's index in the publication.
    pub model_index: u32,
    /// How many times models were bound with this handle, modulo 2^32; see bliss_answer_t.
    pub model_binding_count: u32,
    /// Name of the model.
    pub model_name: bliss_text_t,
    /// Version of the model, as the operator calls it.
    pub model_version: bliss_text_t,
}

impl Default for bliss_explanation_t {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            score: 0,
            expected_score: 0,
            bot_probability: f64::NAN,
            answer: f64::NAN,
            expected: f64::NAN,
            features_generation: 0,
            models_generation: 0,
            input_count: 0,
            model_index: 0,
            model_binding_count: 0,
            model_name: bliss_text_t::NONE,
            model_version: bliss_text_t::NONE,
        }
    }
}

// SAFETY:
// - `repr(C)`, begins with its size, and zeros are a valid value.
// - It consists of integers, floats, raw pointers and structs of those.
unsafe impl SizePrefixed for bliss_explanation_t {
    const FIRST_VERSION: usize = 104;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the explanation begins with a size that this library does not know; set it to sizeof(bliss_explanation_t)",
    );
}

const _: () = assert!(
    size_of::<bliss_explanation_t>() == bliss_explanation_t::FIRST_VERSION || size_of::<usize>() != 8
);

/// What one input contributes to an answer. A model calls the input `GROUP.NAME`.
///
/// Its texts may be read until the next call that looks up, scores, explains or maintains.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_contribution_t {
    /// sizeof(bliss_contribution_t), set before the call.
    pub size: usize,
    /// The dimension that the input is a feature of; `request` for what the request says by itself.
    pub group: bliss_text_t,
    /// The input's name within the group.
    pub name: bliss_text_t,
    /// Its part of the answer (SHAP value); above 0 where it makes a bot more likely.
    pub contribution: f64,
    /// What that makes of the score; below 0 where it makes a bot more likely. All points together are the way from
    /// `expected_score` to `score`; where contributions cancel each other out, by how much the score changes there.
    pub points: f64,
    /// The input's value; NaN where a number is not told, and where it is a category.
    pub value: f32,
    /// 1 where it is a category, else 0.
    pub is_category: u32,
    /// CatBoost's hash of the category; 0 where it is a number.
    pub category_hash: u32,
    /// How its dimension answered, as bliss_status_e; BLISS_STATUS_UNUSED for what the request says by itself.
    pub status: u32,
    /// The input's number in the model.
    pub input_index: u32,
    /// Is 0.
    pub reserved: u32,
}

// SAFETY:
// - `repr(C)`, begins with its size, and zeros are a valid value.
// - It consists of integers, floats, raw pointers and structs of those.
unsafe impl SizePrefixed for bliss_contribution_t {
    const FIRST_VERSION: usize = 80;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the contribution begins with a size that this library does not know; set it to sizeof(bliss_contribution_t)",
    );
}

const _: () = assert!(
    size_of::<bliss_contribution_t>() == bliss_contribution_t::FIRST_VERSION || size_of::<usize>() != 8
);

/// Makes the memory that bliss_explain works in, about 30 MB of address space of which it touches what a model needs. To be
/// called once, after the handle was opened, by those who explain; again it does nothing.
///
/// The handle's thread only. Allocates. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_explain_register(handle: *mut bliss_t) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.call(|handle| {
        if handle.explanation.is_none() {
            handle.explanation = Some(Box::new(Explanation { explaining: Explaining::new(), last: None }));
        }
        Ok(())
    })
}

/// Scores the request as bliss_score does and says what the answer comes from: with the model named `model`, or, where `model`
/// is empty, the active one of `route`. bliss_contribution_get then tells each input's part. `now` is the time in seconds since
/// the Unix epoch. It reads what is published now, so that a row that changed since bliss_score gives another score.
///
/// Not for every request: no lock and no allocation, but it takes time in proportion to the model's leaves, some thousand times
/// as long as bliss_score, and the thread does nothing else meanwhile. It is not counted in the daemon's metrics. What
/// bliss_shadow_get tells stays.
///
/// The handle's thread only. Returns BLISS_OK where `explanation` is filled in; a number above 0 where there is no score, no such
/// model, or the model was published without what explanations need (BLISS_NO_LEAF_WEIGHTS); or BLISS_ERROR_NULL,
/// BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT (also if bliss_explain_register was not called), BLISS_ERROR_THREAD or
/// BLISS_ERROR_PANIC. `explanation` is written only with BLISS_OK.
///
/// # Safety
/// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `route` points
///   to `route_len` bytes, `model` to `model_len`; `explanation` is NULL or points to a struct of the size it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_explain(
    handle: *mut bliss_t,
    route: *const c_char,
    route_len: usize,
    model: *const c_char,
    model_len: usize,
    now: u32,
    explanation: *mut bliss_explanation_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `route` and `model` are NULL or point to as many bytes, which stay during this call: likewise.
    // - `explanation` is NULL or points to a struct of the size it begins with: likewise.
    let (handle, route, model, explanation) = unsafe {
        (
            HandleArg::new(handle),
            InSlice::<u8>::new(route.cast(), route_len),
            InSlice::<u8>::new(model.cast(), model_len),
            OutStruct::new(explanation),
        )
    };
    handle.call(|handle| {
        let (route, model) = (route_name(route)?, model.get(isize::MAX as usize)?);
        // No model has a longer name, or one that is no UTF-8.
        let model = (!model.is_empty()).then(|| {
            let name = if model.len() > MAX_NAME_BYTES { &[] } else { model };
            core::str::from_utf8(name).unwrap_or_default()
        });
        let memory = handle.explanation.as_mut().ok_or(NOT_REGISTERED)?;
        memory.last = None;
        let explained = handle.client.explain(&mut memory.explaining, &handle.request, route, model, now);
        let explained = explained.map_err(|reason| handle.why_not_explained(reason, route, model))?;
        explanation.write(handle.explanation_of(&explained))?;
        let bound = handle.client.models_bound();
        if let Some(memory) = &mut handle.explanation {
            memory.last = Some((explained, bound));
        }
        Ok(())
    })
}

/// Contribution `index` to the answer that bliss_explain explained last; the largest, above or below 0, comes first.
///
/// No lock, no allocation, no system call.
///
/// The handle's thread only. Returns BLISS_OK where `contribution` is filled in; or BLISS_ERROR_NULL, BLISS_ERROR_SIZE,
/// BLISS_ERROR_ARGUMENT (no such contribution, or other models were bound since), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `contribution` is NULL or points to a struct of the size it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_contribution_get(
    handle: *mut bliss_t,
    index: usize,
    contribution: *mut bliss_contribution_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `contribution` is NULL or points to a struct of the size it begins with: likewise.
    let (handle, contribution) = unsafe { (HandleArg::new(handle), OutStruct::new(contribution)) };
    handle.call(|handle| contribution.write(handle.contribution(index).ok_or(NO_SUCH_INPUT)?))
}

impl bliss_t {
    fn why_not_explained(&mut self, reason: NotExplained, route: &str, model: Option<&str>) -> CallError {
        let code = match reason {
            NotExplained::Unscored(reason) => return self.why(reason, route, model),
            NotExplained::NoSuchModel => {
                self.message.set("no such model: none of this name is published");
                BLISS_NO_SUCH_MODEL
            }
            NotExplained::NoLeafWeights => {
                self.message.set(
                    "no leaf weights: the model was published without them; let its [[model]] in the daemon's configuration have \
                     explain = true (if its file holds them; blissctl model inspect tells)",
                );
                BLISS_NO_LEAF_WEIGHTS
            }
            NotExplained::Damaged(error) => {
                self.message.set(format_args!("bad models: {error}"));
                BLISS_BAD_MODELS
            }
            NotExplained::TooLarge(error) => {
                self.message.set(format_args!("too large to explain: {error}"));
                BLISS_TOO_LARGE_TO_EXPLAIN
            }
        };
        CallError::Reported(code)
    }

    fn explanation_of(&self, explained: &Explained) -> bliss_explanation_t {
        let client = &self.client;
        let model = client.scorer().models().models().get(explained.scored.model);
        bliss_explanation_t {
            score: u32::from(explained.scored.score),
            expected_score: u32::from(explained.expected_score),
            bot_probability: explained.scored.bot_probability,
            answer: explained.answer,
            expected: explained.expected,
            features_generation: client.features_generation().unwrap_or(0),
            models_generation: client.models_generation().unwrap_or(0),
            input_count: explained.inputs,
            model_index: u32::try_from(explained.scored.model).unwrap_or(0),
            // Modulo 2^32 is what is promised.
            model_binding_count: client.models_bound() as u32,
            model_name: model.map(|m| m.name()).into(),
            model_version: model.map(|m| m.version()).into(),
            ..bliss_explanation_t::default()
        }
    }

    fn contribution(&self, index: usize) -> Option<bliss_contribution_t> {
        let memory = self.explanation.as_ref()?;
        let (explained, bound) = memory.last.as_ref()?;
        if *bound != self.client.models_bound() {
            return None;
        }
        let found = self.client.contribution(&memory.explaining, explained, index)?;
        let (value, is_category) = (found.input.value, found.input.is_category);
        Some(bliss_contribution_t {
            size: size_of::<bliss_contribution_t>(),
            group: found.input.group.into(),
            name: found.input.name.into(),
            contribution: found.part,
            points: found.points,
            value: if is_category { f32::NAN } else { value },
            is_category: u32::from(is_category),
            category_hash: if is_category { value.to_bits() } else { 0 },
            status: found.input.status as u32,
            input_index: found.index,
            reserved: 0,
        })
    }
}
