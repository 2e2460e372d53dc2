//! Bot scores.

use core::ffi::c_char;

use bliss_core::score::{Answer, Unscored};

use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{InSlice, OutStruct, SizePrefixed};

/// Route names that are longer are no route's.
const MAX_ROUTE_BYTES: usize = 128;

/// Some bytes of UTF-8; no NUL need follow. NULL and 0 where there is no text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_text_t {
    /// Where it begins.
    pub data: *const c_char,
    /// How many bytes it has.
    pub len: usize,
}

impl bliss_text_t {
    pub(crate) const NONE: Self = Self { data: core::ptr::null(), len: 0 };
}

impl From<Option<&str>> for bliss_text_t {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::NONE, Into::into)
    }
}

impl From<&str> for bliss_text_t {
    fn from(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), len: text.len() }
    }
}

/// What is known of one request.
///
/// Its texts may be read until the next call with the handle; `reason` as long as the library is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_answer_t {
    /// sizeof(bliss_answer_t), set before the call.
    pub size: usize,
    /// BLISS_OK if there is a score, else why there is none: the same number that bliss_score returns.
    pub result: i32,
    /// 1 is certainly automated, 99 certainly human; 0 if there is no score.
    pub score: u32,
    /// Probability that the request is automated; NaN if there is no score.
    pub bot_probability: f64,
    /// Generation of the features that were used; 0 if there are none.
    pub features_generation: u64,
    /// Generation of the models that were used; 0 if there are none.
    pub models_generation: u64,
    /// The model's index in the publication; 0 if there is no score.
    pub model_index: u32,
    /// Dimensions that answered with a row young enough.
    pub fresh: u32,
    /// Dimensions that answered with a row too old.
    pub stale: u32,
    /// Dimensions that have no row; default values were used.
    pub missing: u32,
    /// Dimensions for which the request lacks an attribute; default values were used.
    pub absent: u32,
    /// How many times models were bound with this handle, modulo 2^32. While it stays the same, so do the models'
    /// indexes and names; callers who keep copies of names renew them when it changes.
    pub model_binding_count: u32,
    /// Name of the model.
    pub model_name: bliss_text_t,
    /// Version of the model, as the operator calls it.
    pub model_version: bliss_text_t,
    /// Why there is no score, in a few words that stay the same between versions.
    pub reason: bliss_text_t,
    /// With BLISS_MISSING_INPUT, the name of the first input that is missing.
    pub missing_input: bliss_text_t,
}

impl Default for bliss_answer_t {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            result: BLISS_OK as i32,
            score: 0,
            bot_probability: f64::NAN,
            features_generation: 0,
            models_generation: 0,
            model_index: 0,
            fresh: 0,
            stale: 0,
            missing: 0,
            absent: 0,
            model_binding_count: 0,
            model_name: bliss_text_t::NONE,
            model_version: bliss_text_t::NONE,
            reason: bliss_text_t::NONE,
            missing_input: bliss_text_t::NONE,
        }
    }
}

// SAFETY:
// - `repr(C)`, begins with its size, and zeros are a valid value.
// - It consists of integers, floats, raw pointers and structs of those.
unsafe impl SizePrefixed for bliss_answer_t {
    const FIRST_VERSION: usize = 128;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the answer begins with a size that this library does not know; set it to sizeof(bliss_answer_t)",
    );
}

const _: () =
    assert!(size_of::<bliss_answer_t>() == bliss_answer_t::FIRST_VERSION || size_of::<usize>() != 8);

/// Scores the request with the active model of `route`; of the default route if `route` is empty or not there. `now` is
/// the time in seconds since the Unix epoch.
///
/// No lock and no allocation; a system call only where files were replaced since the last call. The request stays as
/// it is, so that it can be scored for another route.
///
/// The handle's thread only. Returns BLISS_OK with a score, a number above 0 without one (`answer` is filled in for both),
/// or BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC, and then
/// `answer` is not written.
///
/// # Safety
/// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `route` points
///   to `route_len` bytes; `answer` is NULL or points to a struct of the size it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_score(
    handle: *mut bliss_t,
    route: *const c_char,
    route_len: usize,
    now: u32,
    answer: *mut bliss_answer_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `route` is NULL or points to `route_len` bytes, which stay during this call: likewise.
    // - `answer` is NULL or points to a struct of the size it begins with: likewise.
    let (handle, route, answer) = unsafe {
        (HandleArg::new(handle), InSlice::<u8>::new(route.cast(), route_len), OutStruct::new(answer))
    };
    handle.call(|handle| {
        let route = route_name(route)?;
        let scored = handle.client.score(&handle.request, route, now);
        answer.write(handle.answer(&scored, route))?;
        scored.outcome.map(drop).map_err(|reason| handle.why(reason, route, None))
    })
}

/// The name of a route; empty, which is the default one's, where no route can have it.
pub(crate) fn route_name(route: InSlice<'_, u8>) -> Result<&str, CallError> {
    let route = route.get(isize::MAX as usize)?;
    let route = if route.len() > MAX_ROUTE_BYTES { &[] } else { route };
    Ok(core::str::from_utf8(route).unwrap_or_default())
}

impl bliss_t {
    /// Says which input is missing while it is known whose, of the model of this name or else the active one of the route; other
    /// reasons are put in words when they are asked for.
    pub(crate) fn why(&mut self, reason: Unscored, route: &str, model: Option<&str>) -> CallError {
        let scorer = self.client.scorer();
        let model = match model {
            Some(name) => scorer.models().models().iter().find(|model| model.name() == name),
            None => scorer.active_model(route),
        };
        let model = model.filter(|_| reason == Unscored::MissingInput);
        let Some((model, input)) = model.and_then(|m| Some((m.name(), m.missing_input()?))) else {
            return CallError::Unscored(reason);
        };
        self.message.set(format_args!(
            "{reason}: model {model:?} takes {input:?}, which neither the published features nor the names registered \
             with this handle provide with that type"
        ));
        CallError::Reported(reason.into())
    }

    pub(crate) fn answer(&self, answer: &Answer, route: &str) -> bliss_answer_t {
        let client = &self.client;
        let mut out = bliss_answer_t {
            features_generation: client.features_generation().unwrap_or(0),
            models_generation: client.models_generation().unwrap_or(0),
            fresh: answer.counts.fresh,
            stale: answer.counts.stale,
            missing: answer.counts.missing,
            absent: answer.counts.absent,
            // Modulo 2^32 is what is promised.
            model_binding_count: client.models_bound() as u32,
            ..bliss_answer_t::default()
        };
        match answer.outcome {
            Ok(scored) => {
                out.score = u32::from(scored.score);
                out.bot_probability = scored.bot_probability;
                out.model_index = u32::try_from(scored.model).unwrap_or(0);
                if let Some(model) = client.scorer().models().models().get(scored.model) {
                    out.model_name = model.name().into();
                    out.model_version = model.version().into();
                }
            }
            Err(reason) => {
                out.result = bliss_result_e::from(reason) as i32;
                out.reason = reason.as_str().into();
                if reason == Unscored::MissingInput {
                    let model = client.scorer().active_model(route);
                    out.missing_input = model.and_then(|m| m.missing_input()).into();
                }
            }
        }
        out
    }
}
