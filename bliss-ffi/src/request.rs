//! Names, and the values of one request.

use core::ffi::c_char;

use bliss_core::attribute::Value;

use crate::codes::bliss_result_e::{self, *};
use crate::decide::RequestIdText;
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{InSlice, MAX_VALUE_BYTES};

/// Longest name that is looked at; the names that are taken are shorter.
const MAX_NAME_BYTES: usize = 1024;

const UNKNOWN_ATTRIBUTE: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "no attribute has this id; use what bliss_attribute_register returned for this handle",
);
const UNKNOWN_NUMBER: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "no number has this id; use what bliss_number_register returned for this handle",
);
const UNKNOWN_CATEGORY: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "no category has this id; use what bliss_category_register returned for this handle",
);

/// The text of a name.
fn name(name: InSlice<'_, u8>) -> Result<&str, CallError> {
    let bytes = name.get(MAX_NAME_BYTES)?;
    core::str::from_utf8(bytes).map_err(|_| CallError::Invalid(BLISS_ERROR_ARGUMENT, "the name is not UTF-8"))
}

/// An id, or the number of an error: those are below 0.
fn id_or_error(outcome: Result<usize, bliss_result_e>) -> i32 {
    match outcome {
        Ok(id) => i32::try_from(id).unwrap_or(BLISS_ERROR_FULL as i32),
        Err(code) => code as i32,
    }
}

/// Registers an attribute of requests, for instance `user_agent`, and returns its id, which is 0 or above; the same
/// name has the same id. Up to 64 can be registered, once, after the handle was opened. Whether a published dimension
/// is keyed by it does not matter. A model may take it as a category, by the name `request.NAME`, unless a number or a
/// category is registered under that name.
///
/// The handle's thread only. Allocates. Returns the id, or BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (empty, longer
/// than 128 bytes, not UTF-8), BLISS_ERROR_FULL, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `name` points to `name_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_attribute_register(
    handle: *mut bliss_t,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `name` is NULL or points to `name_len` bytes, which stay during this call: likewise.
    let (handle, name) = unsafe { (HandleArg::new(handle), InSlice::new(name.cast(), name_len)) };
    id_or_error(handle.enter(|handle| {
        let id = handle.client.names().attribute(self::name(name)?)?;
        let slot = handle.attributes.get_mut(id.index()).ok_or(UNKNOWN_ATTRIBUTE)?;
        *slot = Some(id);
        Ok(id.index())
    }))
}

/// Registers a number that requests bring of their own, and returns its id, which is 0 or above. Models call it
/// `request.NAME`; `name` is with or without the prefix. Up to 64 numbers and categories together can be registered.
///
/// The handle's thread only. Allocates. Returns the id, or an error as bliss_attribute_register; also BLISS_ERROR_ARGUMENT where
/// the name is registered as a category.
///
/// # Safety
/// - `handle` is NULL or open; `name` points to `name_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_number_register(
    handle: *mut bliss_t,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `name` is NULL or points to `name_len` bytes, which stay during this call: likewise.
    let (handle, name) = unsafe { (HandleArg::new(handle), InSlice::new(name.cast(), name_len)) };
    register_input(handle, name, false)
}

/// Registers a category that requests bring of their own, for instance `country`, and returns its id, which is 0 or
/// above. Otherwise as bliss_number_register.
///
/// The handle's thread only. Allocates. Returns the id, or an error as bliss_attribute_register; also BLISS_ERROR_ARGUMENT where
/// the name is registered as a number.
///
/// # Safety
/// - `handle` is NULL or open; `name` points to `name_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_category_register(
    handle: *mut bliss_t,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `name` is NULL or points to `name_len` bytes, which stay during this call: likewise.
    let (handle, name) = unsafe { (HandleArg::new(handle), InSlice::new(name.cast(), name_len)) };
    register_input(handle, name, true)
}

fn register_input(handle: HandleArg<'_>, name: InSlice<'_, u8>, is_category: bool) -> i32 {
    id_or_error(handle.enter(|handle| {
        let name = self::name(name)?;
        let names = handle.client.names();
        let id = if is_category { names.category(name) } else { names.number(name) }?;
        let slot = handle.inputs.get_mut(id.index()).ok_or(UNKNOWN_NUMBER)?;
        *slot = Some((id, is_category));
        Ok(id.index())
    }))
}

/// Begins a new request: forgets the values of the one before, and all pointers to them.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_clear(handle: *mut bliss_t) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.call(|handle| {
        handle.request.clear();
        handle.request_id = RequestIdText::NONE;
        Ok(())
    })
}

/// Sets the value of an attribute as text: an address, hexadecimal digits, a string, or a decimal number, as the
/// attribute's kind in the schema says. A value that does not fit its kind counts as absent.
///
/// The bytes are not copied. They are read by each bliss_score and bliss_lookup that follows, and must be there and
/// unchanged then, until bliss_request_clear, or until the attribute is given another value.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (unknown id, more than 65536
/// bytes; the attribute keeps the value it had), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `value` points to `value_len` bytes that stay as described above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_set_text(
    handle: *mut bliss_t,
    attribute: i32,
    value: *const c_char,
    value_len: usize,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `value` is NULL or points to `value_len` bytes: likewise.
    // - They stay, unchanged, as long as the handle may read them: likewise.
    let (handle, value) = unsafe { (HandleArg::new(handle), InSlice::new(value.cast(), value_len)) };
    handle.call(|handle| handle.set(attribute, Value::Text(value.get(MAX_VALUE_BYTES)?)))
}

/// Sets the value of an attribute as the bytes themselves: 4 or 16 bytes of an address in network order, a digest, a
/// string, or 8 bytes of a little-endian number. Otherwise as bliss_request_set_text, borrowing included.
///
/// The handle's thread only. Returns what bliss_request_set_text returns.
///
/// # Safety
/// - `handle` is NULL or open; `value` points to `value_len` bytes that stay as bliss_request_set_text requires.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_set_binary(
    handle: *mut bliss_t,
    attribute: i32,
    value: *const u8,
    value_len: usize,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `value` is NULL or points to `value_len` bytes: likewise.
    // - They stay, unchanged, as long as the handle may read them: likewise.
    let (handle, value) = unsafe { (HandleArg::new(handle), InSlice::new(value, value_len)) };
    handle.call(|handle| handle.set(attribute, Value::Binary(value.get(MAX_VALUE_BYTES)?)))
}

/// Sets the value of an attribute that is a number, for instance `asn`.
///
/// The handle's thread only. Returns what bliss_request_set_text returns.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_set_u64(
    handle: *mut bliss_t,
    attribute: i32,
    value: u64,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.call(|handle| handle.set(attribute, Value::U64(value)))
}

/// Sets the value of a number; a number that is not set is NaN to models.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (unknown id),
/// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_set_number(
    handle: *mut bliss_t,
    number: i32,
    value: f32,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.call(|handle| match handle.input(number) {
        Some((id, false)) => {
            handle.request.set_number(id, value);
            Ok(())
        }
        _ => Err(UNKNOWN_NUMBER),
    })
}

/// Sets the value of a category; one that is not set is the empty string to models. The bytes are not needed after
/// the call.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (unknown id, more than 65536
/// bytes), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `value` points to `value_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_set_category(
    handle: *mut bliss_t,
    category: i32,
    value: *const c_char,
    value_len: usize,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `value` is NULL or points to `value_len` bytes, which stay during this call: likewise.
    let (handle, value) = unsafe { (HandleArg::new(handle), InSlice::new(value.cast(), value_len)) };
    handle.call(|handle| match handle.input(category) {
        Some((id, true)) => {
            handle.request.set_category(id, value.get(MAX_VALUE_BYTES)?);
            Ok(())
        }
        _ => Err(UNKNOWN_CATEGORY),
    })
}

impl bliss_t {
    fn set(&mut self, attribute: i32, value: Value<'static>) -> Result<(), CallError> {
        let id = usize::try_from(attribute)
            .ok()
            .and_then(|i| *self.attributes.get(i)?)
            .ok_or(UNKNOWN_ATTRIBUTE)?;
        self.request.set_attribute(id, value);
        Ok(())
    }

    fn input(&self, id: i32) -> Option<(bliss_core::request::InputId, bool)> {
        *self.inputs.get(usize::try_from(id).ok()?)?
    }
}
