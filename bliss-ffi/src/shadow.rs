//! What shadow models say.

use bliss_core::score::Shadow;

use crate::answer::bliss_text_t;
use crate::boundary::{CallError, SizePrefixed, call, enter, write_sized};
use crate::codes::bliss_result_e::{self, *};
use crate::handle::bliss_t;

/// What a shadow model says of one request: a model that is evaluated beside the active one and decides nothing.
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
    /// The model, by its place in the publication.
    pub model_index: u32,
    /// Is 0.
    pub reserved: u32,
    /// Name of the model.
    pub model_name: bliss_text_t,
    /// Version of the model, as the operator calls it.
    pub model_version: bliss_text_t,
    /// Why there is no score, in a few words that stay the same between versions.
    pub reason: bliss_text_t,
    /// With BLISS_MISSING_INPUT, the name of the first input that nobody offers.
    pub missing_input: bliss_text_t,
}

// SAFETY:
// - `repr(C)`, begins with its size, and consists of numbers and pointers.
unsafe impl SizePrefixed for bliss_shadow_t {
    const FIRST_VERSION: usize = 96;
    const WRONG: &'static str =
        "the shadow begins with a size that this library does not know; set it to sizeof(bliss_shadow_t)";
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
    // - the contract of this function.
    unsafe { enter(handle, |handle| Ok(handle.client.shadows().len())) }.unwrap_or(0)
}

/// What shadow model number `index` said of the request that bliss_score scored last. They come in the order of the
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
    // - the contract of this function, for both.
    unsafe {
        call(handle, |handle| {
            let found = handle.client.shadows().get(index).ok_or(CallError::Invalid(
                BLISS_ERROR_ARGUMENT,
                "there is no such shadow; bliss_shadow_count says how many the last score had",
            ))?;
            write_sized(shadow, handle.shadow(found))
        })
    }
}

impl bliss_t {
    fn shadow(&self, shadow: &Shadow) -> bliss_shadow_t {
        let model = self.client.scorer().models().models().get(shadow.model);
        let mut out = bliss_shadow_t {
            size: 0,
            result: BLISS_OK as i32,
            score: 0,
            bot_probability: f64::NAN,
            model_index: u32::try_from(shadow.model).unwrap_or(0),
            reserved: 0,
            model_name: model.map_or(bliss_text_t::NONE, |m| m.name().into()),
            model_version: model.map_or(bliss_text_t::NONE, |m| m.version().into()),
            reason: bliss_text_t::NONE,
            missing_input: bliss_text_t::NONE,
        };
        match shadow.outcome {
            Ok(scored) => {
                out.score = u32::from(scored.score);
                out.bot_probability = scored.bot_probability;
            }
            Err(reason) => {
                out.result = bliss_result_e::from(reason) as i32;
                out.reason = reason.as_str().into();
                let missing = model.and_then(|m| m.missing_input());
                out.missing_input = missing.map_or(bliss_text_t::NONE, Into::into);
            }
        }
        out
    }
}
