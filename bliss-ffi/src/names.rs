//! What the publication calls things, for tools.
//!
//! The names are those of the publication that the last look-up, score or `bliss_maintain` came from; before that there
//! are none.

use crate::answer::bliss_text_t;
use crate::boundary::{CallError, call, enter};
use crate::codes::bliss_result_e::{self, *};
use crate::handle::bliss_t;

const NO_SUCH: CallError =
    CallError::Invalid(BLISS_ERROR_ARGUMENT, "there is no such place in the publication");

/// Writes texts where they are asked for.
///
/// # Safety
/// - each pointer is NULL or may be written.
unsafe fn give(texts: &[(*mut bliss_text_t, Option<&str>)]) {
    for (to, text) in texts {
        if !to.is_null() {
            // SAFETY:
            // - not NULL, so it may be written: the caller's contract.
            unsafe { to.write(text.map_or(bliss_text_t::NONE, Into::into)) };
        }
    }
}

/// Number of dimensions of the publication that the last call used; 0 before one was seen.
///
/// The handle's thread only; 0 in another one, and where `handle` is NULL.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_dimension_count(handle: *mut bliss_t) -> usize {
    // SAFETY:
    // - the contract of this function.
    unsafe { enter(handle, |handle| Ok(handle.client.scorer().dimensions().len())) }.unwrap_or(0)
}

/// The name of a dimension, by its place in the schema. It may be read until the next call that looks up, scores or
/// maintains.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (no such place),
/// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `name` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_dimension_name(
    handle: *mut bliss_t,
    dimension: usize,
    name: *mut bliss_text_t,
) -> bliss_result_e {
    // SAFETY:
    // - the contract of this function, for both.
    unsafe {
        call(handle, |handle| {
            let found = handle.client.scorer().dimensions().name(dimension).ok_or(NO_SUCH)?;
            give(&[(name, Some(found))]);
            Ok(())
        })
    }
}

/// Number of features of all dimensions together: the length of a look-up's values. 0 before a publication was seen.
///
/// The handle's thread only; 0 in another one, and where `handle` is NULL.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_feature_count(handle: *mut bliss_t) -> usize {
    // SAFETY:
    // - the contract of this function.
    unsafe { enter(handle, |handle| Ok(handle.client.scorer().dimensions().width())) }.unwrap_or(0)
}

/// The names of a feature and of its dimension, by its place in a look-up's values. They may be read until the next
/// call that looks up, scores or maintains. Either pointer may be NULL.
///
/// The handle's thread only. Returns what bliss_dimension_name returns.
///
/// # Safety
/// - `handle` is NULL or open; `dimension` and `feature` are each NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_feature_name(
    handle: *mut bliss_t,
    place: usize,
    dimension: *mut bliss_text_t,
    feature: *mut bliss_text_t,
) -> bliss_result_e {
    // SAFETY:
    // - the contract of this function, for all three.
    unsafe {
        call(handle, |handle| {
            let found = handle.client.scorer().dimensions().feature_name(place).ok_or(NO_SUCH)?;
            give(&[(dimension, Some(found.0)), (feature, Some(found.1))]);
            Ok(())
        })
    }
}

/// Number of models of the publication that the last score used; 0 before one was seen.
///
/// The handle's thread only; 0 in another one, and where `handle` is NULL.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_model_count(handle: *mut bliss_t) -> usize {
    // SAFETY:
    // - the contract of this function.
    unsafe { enter(handle, |handle| Ok(handle.client.scorer().models().models().len())) }.unwrap_or(0)
}

/// Name and version of a model, and its first input that neither the snapshot nor the caller offers (none if it has all).
/// They may be read until the next call that looks up, scores or maintains. Each of the three pointers may be NULL.
///
/// The handle's thread only. Returns what bliss_dimension_name returns.
///
/// # Safety
/// - `handle` is NULL or open; `name`, `version` and `missing_input` are each NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_model_get(
    handle: *mut bliss_t,
    model: usize,
    name: *mut bliss_text_t,
    version: *mut bliss_text_t,
    missing_input: *mut bliss_text_t,
) -> bliss_result_e {
    // SAFETY:
    // - the contract of this function, for all of them.
    unsafe {
        call(handle, |handle| {
            let found = handle.client.scorer().models().models().get(model).ok_or(NO_SUCH)?;
            let texts = [
                (name, Some(found.name())),
                (version, Some(found.version())),
                (missing_input, found.missing_input()),
            ];
            give(&texts);
            Ok(())
        })
    }
}
