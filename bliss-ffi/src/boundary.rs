//! What lies between C and Rust: panics stop here, and pointers become slices.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bliss_core::request::NameError;
use bliss_core::score::Unscored;

use crate::codes::bliss_result_e::{self, *};
use crate::handle::{Thread, bliss_t};

/// The longest value of an attribute or category in bytes.
pub(crate) const MAX_VALUE_BYTES: usize = 65_536;
/// Structs larger than this are a mistake, not a newer version.
const MAX_STRUCT_BYTES: usize = 4096;

/// Why a call goes no further.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallError {
    /// The call is wrong; the text says what was expected.
    Invalid(bliss_result_e, &'static str),
    /// A name cannot be registered.
    Name(NameError),
    /// Nothing is wrong with the call, but there is no answer to it.
    Unscored(Unscored),
    /// The same, and the handle's message says why already.
    Explained(Unscored),
}

impl CallError {
    fn code(self) -> bliss_result_e {
        match self {
            Self::Invalid(code, _) => code,
            Self::Name(NameError::TooMany { .. }) => BLISS_ERROR_FULL,
            Self::Name(_) => BLISS_ERROR_ARGUMENT,
            Self::Unscored(reason) | Self::Explained(reason) => reason.into(),
        }
    }
}

impl From<NameError> for CallError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<Unscored> for CallError {
    fn from(reason: Unscored) -> Self {
        Self::Unscored(reason)
    }
}

/// Runs `body` and stops its panic, should there be one.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => Some(done),
        Err(payload) => {
            // Dropping it would run code that may panic in turn.
            core::mem::forget(payload);
            None
        }
    }
}

/// Runs `body` with the handle, if it is one that this thread may use, and remembers what went wrong.
///
/// # Safety
/// - `handle` is NULL, or open and not used by another call at the same time.
#[inline]
pub(crate) unsafe fn enter<R>(
    handle: *mut bliss_t,
    body: impl FnOnce(&mut bliss_t) -> Result<R, CallError>,
) -> Result<R, bliss_result_e> {
    if handle.is_null() {
        return Err(BLISS_ERROR_NULL);
    }
    // SAFETY:
    // - `handle` is open: the caller's contract. No reference is made before the thread is known to be the right one.
    let owner = unsafe { (&raw const (*handle).owner).read() };
    if owner != Thread::current() {
        return Err(BLISS_ERROR_THREAD);
    }
    // SAFETY:
    // - `handle` is open, and no other call uses it: the caller's contract, and the owner checked above.
    let handle = unsafe { &mut *handle };
    if handle.is_broken {
        return Err(BLISS_ERROR_PANIC);
    }
    match catch(|| body(handle)) {
        Some(Ok(done)) => Ok(done),
        Some(Err(error)) => {
            handle.record(error);
            Err(error.code())
        }
        None => {
            // Whatever was under way may be half done, so nothing goes on from here.
            handle.is_broken = true;
            handle.message.set("a mistake in libblissffi was caught; close this handle and open another one");
            Err(BLISS_ERROR_PANIC)
        }
    }
}

/// [`enter`] where only the number matters.
///
/// # Safety
/// As [`enter`].
#[inline]
pub(crate) unsafe fn call(
    handle: *mut bliss_t,
    body: impl FnOnce(&mut bliss_t) -> Result<(), CallError>,
) -> bliss_result_e {
    // SAFETY:
    // - the same contract.
    match unsafe { enter(handle, body) } {
        Ok(()) => BLISS_OK,
        Err(code) => code,
    }
}

/// The bytes at `data`, at most `limit` of them; NULL is allowed where there are none.
///
/// # Safety
/// - `data` is NULL, or `len` elements can be read from it and do not change during `'a`.
#[inline]
pub(crate) unsafe fn slice<'a, T>(data: *const T, len: usize, limit: usize) -> Result<&'a [T], CallError> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(CallError::Invalid(BLISS_ERROR_NULL, "the pointer is NULL but the length is not 0"));
    }
    if len > limit {
        return Err(CallError::Invalid(
            BLISS_ERROR_ARGUMENT,
            "the length is beyond what this function takes",
        ));
    }
    if !data.is_aligned() {
        return Err(CallError::Invalid(
            BLISS_ERROR_ARGUMENT,
            "the pointer is not aligned to what it points to",
        ));
    }
    // SAFETY:
    // - not NULL and aligned, as just checked; `len` elements can be read and stay the same: the caller's contract.
    // - `len` is at most `limit`, and no limit of this crate comes near `isize::MAX` bytes.
    Ok(unsafe { core::slice::from_raw_parts(data, len) })
}

/// A struct that begins with its size in bytes, and of which callers may know an earlier or a later version.
///
/// # Safety
/// - `repr(C)`, the first field is the size as `usize`, and all bytes zero is a valid value.
pub(crate) unsafe trait SizePrefixed: Copy {
    /// Size of the first version.
    const FIRST_VERSION: usize;
    /// What to say where a size is wrong.
    const WRONG: &'static str;
}

/// Reads the size that the caller's struct begins with.
///
/// # Safety
/// - a `usize` can be read from `data`, which is not NULL.
unsafe fn size_of_callers<T: SizePrefixed>(data: *const T) -> Result<usize, CallError> {
    // SAFETY:
    // - the caller's contract; alignment is not relied on.
    let size = unsafe { data.cast::<usize>().read_unaligned() };
    if (T::FIRST_VERSION..=MAX_STRUCT_BYTES).contains(&size) {
        Ok(size)
    } else {
        Err(CallError::Invalid(BLISS_ERROR_SIZE, T::WRONG))
    }
}

/// Reads a struct from the caller. Fields that only this library knows are zero; fields that only the caller knows
/// must be.
///
/// # Safety
/// - `data` is NULL or points to as many readable bytes as the size says that it begins with.
pub(crate) unsafe fn read_sized<T: SizePrefixed>(data: *const T) -> Result<Option<T>, CallError> {
    if data.is_null() {
        return Ok(None);
    }
    // SAFETY:
    // - not NULL, and at least its size can be read: the caller's contract.
    let size = unsafe { size_of_callers(data) }?;
    let mut read = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY:
    // - `size` bytes can be read: the caller's contract; no more than those, or than fit, are copied.
    // - all bytes zero is a valid `T`, and so is what a caller's struct of the same fields holds: contract of `SizePrefixed`.
    let known = unsafe {
        core::ptr::copy_nonoverlapping(data.cast::<u8>(), read.as_mut_ptr().cast(), size.min(size_of::<T>()));
        read.assume_init()
    };
    for at in size_of::<T>()..size {
        // SAFETY:
        // - `at` is below `size`, and so many bytes can be read: the caller's contract.
        if unsafe { data.cast::<u8>().add(at).read() } != 0 {
            return Err(CallError::Invalid(BLISS_ERROR_SIZE, T::WRONG));
        }
    }
    Ok(Some(known))
}

/// Writes a struct to the caller: as many fields as it knows; those that only the caller knows become zero. The size
/// that it begins with stays.
///
/// # Safety
/// - `out` is NULL or points to as many writable bytes as the size says that it begins with.
#[inline]
pub(crate) unsafe fn write_sized<T: SizePrefixed>(out: *mut T, mut value: T) -> Result<(), CallError> {
    if out.is_null() {
        return Err(CallError::Invalid(BLISS_ERROR_NULL, "the pointer to the result is NULL"));
    }
    // SAFETY:
    // - not NULL, and at least its size can be read: the caller's contract.
    let size = unsafe { size_of_callers(out.cast_const()) }?;
    // SAFETY:
    // - `T` begins with its size: contract of `SizePrefixed`.
    unsafe { (&raw mut value).cast::<usize>().write(size) };
    let known = size.min(size_of::<T>());
    // SAFETY:
    // - `size` bytes can be written: the caller's contract; `known` and the rest make up exactly those.
    unsafe {
        core::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), out.cast::<u8>(), known);
        out.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks)] // What is passed stands right beside each call.
mod tests {
    use super::*;
    use crate::handle;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct New {
        size: usize,
        old: u64,
        added: u64,
    }

    unsafe impl SizePrefixed for New {
        const FIRST_VERSION: usize = 16;
        const WRONG: &'static str = "wrong";
    }

    fn read(bytes: &[u64]) -> Result<Option<New>, CallError> {
        unsafe { read_sized(bytes.as_ptr().cast()) }
    }

    #[test]
    fn f3_older_and_newer_structs_are_read() {
        assert_eq!(read(&[16, 7]).unwrap().unwrap(), New { size: 16, old: 7, added: 0 });
        assert_eq!(read(&[24, 7, 8]).unwrap().unwrap(), New { size: 24, old: 7, added: 8 });
        assert_eq!(read(&[32, 7, 8, 0]).unwrap().unwrap().added, 8);
        assert_eq!(read(&[32, 7, 8, 9]), Err(CallError::Invalid(BLISS_ERROR_SIZE, "wrong")));
        for wrong in [0, 8, 15, 4097, u64::MAX] {
            assert!(read(&[wrong, 0, 0]).is_err(), "{wrong}");
        }
        assert_eq!(unsafe { read_sized::<New>(core::ptr::null()) }, Ok(None));
    }

    #[test]
    fn f3_older_and_newer_structs_are_written() {
        let write = |bytes: &mut [u64]| {
            let value = New { size: 0, old: 1, added: 2 };
            unsafe { write_sized(bytes.as_mut_ptr().cast(), value) }
        };
        let mut older = [16, 9, 9];
        write(&mut older).unwrap();
        assert_eq!(older, [16, 1, 9]);
        let mut newer = [32, 9, 9, 9, 9];
        write(&mut newer).unwrap();
        assert_eq!(newer, [32, 1, 2, 0, 9]);
        let mut wrong = [8, 9, 9];
        assert!(write(&mut wrong).is_err());
        assert_eq!(wrong, [8, 9, 9]);
    }

    #[test]
    fn f2_a_panic_stops_here() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("while the payload is dropped");
            }
        }
        assert_eq!(catch(|| std::panic::panic_any(Bomb)), None::<()>);
        assert_eq!(catch(|| 1), Some(1));
    }

    #[test]
    fn f2_a_handle_that_saw_a_panic_refuses_everything() {
        let directory = b"/nowhere/that/is";
        let mut handle = core::ptr::null_mut();
        let mut text = [0u8; 100];
        unsafe {
            let name = directory.as_ptr().cast();
            let null = core::ptr::null_mut::<u8>();
            let opened = handle::bliss_open(
                name,
                directory.len(),
                null.cast(),
                &mut handle,
                text.as_mut_ptr().cast(),
                100,
            );
            assert_eq!(opened, BLISS_OK);
            assert_eq!(call(handle, |_| panic!("a mistake")), BLISS_ERROR_PANIC);
            assert_eq!(call(handle, |_| Ok(())), BLISS_ERROR_PANIC);
            let len = handle::bliss_last_error(handle, text.as_mut_ptr().cast(), 100);
            assert!(core::str::from_utf8(&text[..len]).unwrap().contains("close this handle"));
            handle::bliss_close(handle);
        }
    }

    #[test]
    fn slices_are_checked() {
        assert_eq!(unsafe { slice::<u8>(core::ptr::null(), 0, 4) }, Ok([].as_slice()));
        assert_eq!(unsafe { slice::<u8>(core::ptr::null(), 1, 4) }.unwrap_err().code(), BLISS_ERROR_NULL);
        assert_eq!(unsafe { slice(b"abcde".as_ptr(), 5, 4) }.unwrap_err().code(), BLISS_ERROR_ARGUMENT);
        let words = [0u64; 2];
        let askew = unsafe { words.as_ptr().cast::<u8>().add(1) }.cast::<u64>();
        assert_eq!(unsafe { slice(askew, 1, 4) }.unwrap_err().code(), BLISS_ERROR_ARGUMENT);
    }
}
