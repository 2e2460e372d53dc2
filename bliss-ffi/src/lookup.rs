//! Features and keys.

use bliss_core::attribute::Value;
use bliss_core::schema::MAX_KEY_PARTS;
use bliss_core::score::{Status, Unscored};

use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{InSlice, MAX_VALUE_BYTES, Out, OutStruct, SizePrefixed};

/// More keys than a schema can have dimensions.
const MAX_KEYS: usize = 1024;

/// What a lookup found. The arrays are the handle's, and may be read until the next call with it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_features_t {
    /// sizeof(bliss_features_t), set before the call.
    pub size: usize,
    /// Generation of the features.
    pub generation: u64,
    /// The features of all dimensions in the order of the schema; a category is the bit pattern of its hash.
    pub values: *const f32,
    /// How many there are.
    pub value_count: usize,
    /// How each dimension answered, as bliss_status_e, in the order of the schema.
    pub statuses: *const u8,
    /// How many dimensions there are.
    pub dimension_count: usize,
}

impl Default for bliss_features_t {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            generation: 0,
            values: core::ptr::null(),
            value_count: 0,
            statuses: core::ptr::null(),
            dimension_count: 0,
        }
    }
}

// SAFETY:
// - `repr(C)`, begins with its size, and zeros are a valid value.
// - It consists of integers and raw pointers.
unsafe impl SizePrefixed for bliss_features_t {
    const FIRST_VERSION: usize = 48;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the features begin with a size that this library does not know; set it to sizeof(bliss_features_t)",
    );
}

const _: () =
    assert!(size_of::<bliss_features_t>() == bliss_features_t::FIRST_VERSION || size_of::<usize>() != 8);

/// Looks up all dimensions for the request. `now` is the time in seconds since the Unix epoch.
///
/// No lock and no allocation; a system call only where files were replaced since the last call.
///
/// The handle's thread only. Returns BLISS_OK; BLISS_NO_SNAPSHOT or BLISS_BAD_SNAPSHOT, and then all of
/// `features` is 0; or BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `features` is
///   NULL or points to a struct of the size it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_lookup(
    handle: *mut bliss_t,
    now: u32,
    features: *mut bliss_features_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `features` is NULL or points to a struct of the size it begins with: likewise.
    let (handle, features) = unsafe { (HandleArg::new(handle), OutStruct::new(features)) };
    handle.call(|handle| {
        let found =
            handle.client.look_up(&handle.request, now).map(|(values, statuses)| found(values, statuses));
        handle.write_features(found, features)
    })
}

/// Looks up by keys that bliss_key_compute made, one per dimension in the order of the schema; dimensions beyond `key_count`
/// are absent. Otherwise as bliss_lookup.
///
/// The handle's thread only. Returns what bliss_lookup returns; also BLISS_ERROR_ARGUMENT where there are more than
/// 1024 keys.
///
/// # Safety
/// - `handle` is NULL or open; `keys` points to `key_count` keys; `features` is NULL or points to a struct of the size it
///   begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_lookup_keys(
    handle: *mut bliss_t,
    keys: *const u64,
    key_count: usize,
    now: u32,
    features: *mut bliss_features_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `keys` is NULL or points to `key_count` keys, which stay during this call: likewise.
    // - `features` is NULL or points to a struct of the size it begins with: likewise.
    let (handle, keys, features) =
        unsafe { (HandleArg::new(handle), InSlice::new(keys, key_count), OutStruct::new(features)) };
    handle.call(|handle| {
        let keys = keys.get(MAX_KEYS)?;
        let found = handle.client.look_up_keys(keys, now).map(|(values, statuses)| found(values, statuses));
        handle.write_features(found, features)
    })
}

fn found(values: &[f32], statuses: &[Status]) -> bliss_features_t {
    bliss_features_t {
        values: values.as_ptr(),
        value_count: values.len(),
        // A status is a byte with the numbers of `bliss_status_e`, as `codes` asserts.
        statuses: statuses.as_ptr().cast(),
        dimension_count: statuses.len(),
        ..bliss_features_t::default()
    }
}

impl bliss_t {
    fn write_features(
        &self,
        found: Result<bliss_features_t, Unscored>,
        features: OutStruct<'_, bliss_features_t>,
    ) -> Result<(), CallError> {
        let generation = self.client.features_generation().unwrap_or(0);
        features.write(found.map_or_else(
            |_| bliss_features_t::default(),
            |found| bliss_features_t { generation, ..found },
        ))?;
        found.map(drop).map_err(CallError::from)
    }
}

/// What kind of value a bliss_value_t holds.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bliss_value_e {
    /// Text, as in bliss_request_set_text.
    BLISS_VALUE_TEXT = 0,
    /// The bytes themselves, as in bliss_request_set_binary.
    BLISS_VALUE_BINARY = 1,
    /// A number.
    BLISS_VALUE_U64 = 2,
}

/// The value of an attribute.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_value_t {
    /// A bliss_value_e.
    pub kind: u32,
    /// Is 0.
    pub reserved: u32,
    /// The number, for BLISS_VALUE_U64.
    pub number: u64,
    /// The bytes, for the others.
    pub data: *const u8,
    /// How many bytes there are.
    pub len: usize,
}

/// The values that a key is computed from.
struct KeyValues<'a>(InSlice<'a, bliss_value_t>);

impl<'a> KeyValues<'a> {
    /// # Safety
    /// - `values` is NULL, or `count` values can be read from it.
    /// - Where the kind of a value asks for bytes, its `data` is NULL or points to `len` of them.
    /// - Values and bytes do not change during `'a`.
    unsafe fn new(values: *const bliss_value_t, count: usize) -> Self {
        // SAFETY:
        // - NULL, or `count` values can be read: the caller's contract.
        // - they do not change during `'a`: likewise.
        Self(unsafe { InSlice::new(values, count) })
    }

    /// Reads them into `out` and returns those that were read.
    fn read<'o>(self, out: &'o mut [Value<'a>; MAX_KEY_PARTS]) -> Result<&'o [Value<'a>], CallError> {
        let values = self.0.get(MAX_KEY_PARTS)?;
        for (to, from) in out.iter_mut().zip(values) {
            // SAFETY:
            // - `data` is NULL, or `len` bytes can be read, if they are wanted: contract of `new`.
            // - they do not change during `'a`: likewise.
            let bytes = || unsafe { InSlice::<'a, u8>::new(from.data, from.len) }.get(MAX_VALUE_BYTES);
            *to = match from.kind {
                kind if kind == bliss_value_e::BLISS_VALUE_TEXT as u32 => Value::Text(bytes()?),
                kind if kind == bliss_value_e::BLISS_VALUE_BINARY as u32 => Value::Binary(bytes()?),
                kind if kind == bliss_value_e::BLISS_VALUE_U64 as u32 => Value::U64(from.number),
                _ => {
                    let text = "the kind of a value is none of bliss_value_e";
                    return Err(CallError::Invalid(BLISS_ERROR_ARGUMENT, text));
                }
            };
        }
        Ok(out.get(..values.len()).unwrap_or_default())
    }
}

/// The key of a dimension for attribute values given in the order of its key. It belongs to this installation: every
/// directory has a secret of its own that enters it.
///
/// The handle's thread only. Returns BLISS_OK; BLISS_NO_SNAPSHOT or BLISS_BAD_SNAPSHOT; or BLISS_ERROR_NULL,
/// BLISS_ERROR_ARGUMENT (no such dimension, another number of values, one that does not fit its kind),
/// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `values` points to `value_count` values, each as its kind says; `key` is NULL or may be
///   written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_key_compute(
    handle: *mut bliss_t,
    dimension: usize,
    values: *const bliss_value_t,
    value_count: usize,
    key: *mut u64,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `values` is NULL or points to `value_count` values, each as its kind says, which stay during this call: likewise.
    // - `key` is NULL or may be written: likewise.
    let (handle, values, mut key) =
        unsafe { (HandleArg::new(handle), KeyValues::new(values, value_count), Out::new(key)) };
    handle.call(|handle| {
        key.check()?;
        let mut buffer = [Value::U64(0); MAX_KEY_PARTS];
        let values = values.read(&mut buffer)?;
        let found = handle.client.key(dimension, values)?.ok_or(CallError::Invalid(
            BLISS_ERROR_ARGUMENT,
            "no such dimension, or its key has another number of values or other kinds",
        ))?;
        key.write_optional(found);
        Ok(())
    })
}
