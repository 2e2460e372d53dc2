//! What the publication calls things, for tools.
//!
//! The names are those of the publication that the last lookup, score or `bliss_maintain` came from; before that there
//! are none.

use crate::answer::bliss_text_t;
use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::Out;

const NO_SUCH: CallError = CallError::Invalid(BLISS_ERROR_ARGUMENT, "the index is out of range");

/// Number of dimensions of the publication that the last call used; 0 before one was seen.
///
/// The handle's thread only; 0 in another one, and where `handle` is NULL.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_dimension_count(handle: *mut bliss_t) -> usize {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.count(|handle| handle.client.scorer().dimensions().len())
}

/// The name of a dimension, by its index in the schema. It may be read until the next call that looks up, scores or
/// maintains.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (index out of range),
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
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `name` is NULL or may be written: likewise.
    let (handle, mut name) = unsafe { (HandleArg::new(handle), Out::new(name)) };
    handle.call(|handle| {
        let found = handle.client.scorer().dimensions().name(dimension).ok_or(NO_SUCH)?;
        name.write_optional(found.into());
        Ok(())
    })
}

/// Total number of features of all dimensions: the length of a lookup's values. 0 before a publication was seen.
///
/// The handle's thread only; 0 in another one, and where `handle` is NULL.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_feature_count(handle: *mut bliss_t) -> usize {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.count(|handle| handle.client.scorer().dimensions().width())
}

/// The names of a feature and of its dimension, by its index in a lookup's values. They may be read until the next
/// call that looks up, scores or maintains. Either pointer may be NULL.
///
/// The handle's thread only. Returns what bliss_dimension_name returns.
///
/// # Safety
/// - `handle` is NULL or open; `dimension` and `feature` are each NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_feature_name(
    handle: *mut bliss_t,
    index: usize,
    dimension: *mut bliss_text_t,
    feature: *mut bliss_text_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `dimension` and `feature` are each NULL or may be written: likewise.
    let (handle, mut dimension, mut feature) =
        unsafe { (HandleArg::new(handle), Out::new(dimension), Out::new(feature)) };
    handle.call(|handle| {
        let found = handle.client.scorer().dimensions().feature_name(index).ok_or(NO_SUCH)?;
        dimension.write_optional(found.0.into());
        feature.write_optional(found.1.into());
        Ok(())
    })
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
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.count(|handle| handle.client.scorer().models().models().len())
}

/// Name and version of a model, and its first input that neither the features nor the caller provide (none if it has all).
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
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `name`, `version` and `missing_input` are each NULL or may be written: likewise.
    let (handle, mut name, mut version, mut missing_input) =
        unsafe { (HandleArg::new(handle), Out::new(name), Out::new(version), Out::new(missing_input)) };
    handle.call(|handle| {
        let found = handle.client.scorer().models().models().get(model).ok_or(NO_SUCH)?;
        name.write_optional(found.name().into());
        version.write_optional(found.version().into());
        missing_input.write_optional(found.missing_input().into());
        Ok(())
    })
}
