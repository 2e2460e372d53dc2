//! Scores of shadow models.

use bliss_core::score::Shadow;

use crate::answer::bliss_text_t;
use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{OutStruct, SizePrefixed};

/// The result of a shadow model for one request: a model that is evaluated beside the active one and decides nothing.
///
/// Its texts may be read until the next call with the handle; `reason` as long as the library is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_shadow_t {
    /// sizeof(bliss_shadow_t), set before the call.
    pub size: usize,
    /// BLISS_OK if there is a score, else why there is none, as bliss_result_e.
    pub result: i32,
    /// 1 is certainly automated, 99 certainly human; 0 if there is no score.
    pub score: u32,
    /// Probability that the request is automated; NaN if there is no score.
    pub bot_probability: f64,
    /// The model's index in the publication.
    pub model_index: u32,
    /// Is 0.
    pub reserved: u32,
    /// Name of the model.
    pub model_name: bliss_text_t,
    /// Version of the model, as the operator calls it.
    pub model_version: bliss_text_t,
    /// Why there is no score, in a few words that stay the same between versions.
    pub reason: bliss_text_t,
    /// With BLISS_MISSING_INPUT, the name of the first input that is missing.
    pub missing_input: bliss_text_t,
}

impl Default for bliss_shadow_t {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            result: BLISS_OK as i32,
            score: 0,
            bot_probability: f64::NAN,
            model_index: 0,
            reserved: 0,
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
unsafe impl SizePrefixed for bliss_shadow_t {
    const FIRST_VERSION: usize = 96;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the shadow begins with a size that this library does not know; set it to sizeof(bliss_shadow_t)",
    );
}

const _: () =
    assert!(size_of::<bliss_shadow_t>() == bliss_shadow_t::FIRST_VERSION || size_of::<usize>() != 8);

/// Number of shadow models that were evaluated beside the last bliss_score; 0 where the route has none, and where the
/// request was unscored before any model was asked.
///
/// The handle's thread only; 0 in another one, and where `handle` is NULL.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_shadow_count(handle: *mut bliss_t) -> usize {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.count(|handle| handle.client.shadows().len())
}

/// The result of shadow model `index` for the request that bliss_score scored last. They come in the order of the
/// publication; to be called before anything that looks up or maintains.
///
/// No lock, no allocation, no system call.
///
/// The handle's thread only. Returns BLISS_OK where `shadow` is filled in, whether or not that model has a score; or
/// BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT (no such shadow), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `shadow` is NULL or points to a struct of the size it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_shadow_get(
    handle: *mut bliss_t,
    index: usize,
    shadow: *mut bliss_shadow_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `shadow` is NULL or points to a struct of the size it begins with: likewise.
    let (handle, shadow) = unsafe { (HandleArg::new(handle), OutStruct::new(shadow)) };
    handle.call(|handle| {
        let found = handle.client.shadows().get(index).ok_or(CallError::Invalid(
            BLISS_ERROR_ARGUMENT,
            "there is no such shadow; bliss_shadow_count says how many the last score had",
        ))?;
        shadow.write(handle.shadow(found))
    })
}

impl bliss_t {
    fn shadow(&self, shadow: &Shadow) -> bliss_shadow_t {
        let model = self.client.scorer().models().models().get(shadow.model);
        let mut out = bliss_shadow_t {
            model_index: u32::try_from(shadow.model).unwrap_or(0),
            model_name: model.map(|m| m.name()).into(),
            model_version: model.map(|m| m.version()).into(),
            ..bliss_shadow_t::default()
        };
        match shadow.outcome {
            Ok(scored) => {
                out.score = u32::from(scored.score);
                out.bot_probability = scored.bot_probability;
            }
            Err(reason) => {
                out.result = bliss_result_e::from(reason) as i32;
                out.reason = reason.as_str().into();
                out.missing_input = model.and_then(|m| m.missing_input()).into();
            }
        }
        out
    }
}
