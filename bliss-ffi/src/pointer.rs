//! Pointers that C passes. Each function wraps them once, vouching for its caller's contract; from then on they are read
//! and written by safe methods that check what can be checked.

use core::ffi::c_char;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::codes::bliss_result_e::*;
use crate::error::CallError;

/// The longest value of an attribute or category in bytes.
pub(crate) const MAX_VALUE_BYTES: usize = 65_536;
/// The longest text that goes to a caller's buffer, in bytes without the NUL.
pub(crate) const MAX_TEXT_BYTES: usize = 512;
/// Structs larger than this are a mistake, not a newer version.
const MAX_STRUCT_BYTES: usize = 4096;

/// An array to read. NULL is allowed if it is empty.
#[derive(Clone, Copy)]
pub(crate) struct InSlice<'a, T> {
    data: *const T,
    len: usize,
    lifetime: PhantomData<&'a [T]>,
}

impl<'a, T> InSlice<'a, T> {
    /// # Safety
    /// - `data` is NULL, or `len` elements can be read from it.
    /// - They do not change during `'a`.
    #[inline]
    pub(crate) unsafe fn new(data: *const T, len: usize) -> Self {
        Self { data, len, lifetime: PhantomData }
    }

    /// The elements; an error if there are more than `limit`.
    #[inline]
    pub(crate) fn get(self, limit: usize) -> Result<&'a [T], CallError> {
        let Self { data, len, .. } = self;
        if len == 0 {
            return Ok(&[]);
        }
        if data.is_null() {
            return Err(CallError::Invalid(BLISS_ERROR_NULL, "the pointer is NULL but the length is not 0"));
        }
        if len > limit {
            let text = "the length is greater than this function accepts";
            return Err(CallError::Invalid(BLISS_ERROR_ARGUMENT, text));
        }
        if !data.is_aligned() {
            return Err(CallError::Invalid(BLISS_ERROR_ARGUMENT, "the pointer is not aligned for its type"));
        }
        // SAFETY:
        // - `data` is not NULL and aligned: checked above.
        // - `len` elements can be read and do not change during `'a`: contract of `new`.
        // - `len` is at most `limit`, and no limit of this crate exceeds `isize::MAX` bytes.
        Ok(unsafe { core::slice::from_raw_parts(data, len) })
    }
}

/// A value to write.
pub(crate) struct Out<'a, T> {
    pointer: Option<NonNull<T>>,
    lifetime: PhantomData<&'a mut T>,
}

impl<T: Copy> Out<'_, T> {
    /// # Safety
    /// - `pointer` is NULL, or a `T` can be written to it during the lifetime; it need not be aligned.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T) -> Self {
        Self { pointer: NonNull::new(pointer), lifetime: PhantomData }
    }

    /// An error if the pointer is NULL.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), CallError> {
        self.pointer.map(drop).ok_or(NULL_RESULT)
    }

    /// Writes the value unless the pointer is NULL.
    #[inline]
    pub(crate) fn write_optional(&mut self, value: T) {
        if let Some(pointer) = self.pointer {
            // SAFETY:
            // - a `T` can be written, aligned or not: contract of `new`.
            unsafe { pointer.write_unaligned(value) };
        }
    }
}

const NULL_RESULT: CallError = CallError::Invalid(BLISS_ERROR_NULL, "the pointer to the result is NULL");

/// A buffer for a text that ends in NUL.
pub(crate) struct OutText<'a>(&'a mut [MaybeUninit<u8>]);

impl<'a> OutText<'a> {
    /// # Safety
    /// - `buffer` is NULL, or `len` bytes can be written to it during `'a`.
    /// - Nothing else reads or writes them during `'a`.
    pub(crate) unsafe fn new(buffer: *mut c_char, len: usize) -> Self {
        if buffer.is_null() {
            return Self(&mut []);
        }
        // SAFETY:
        // - not NULL: checked above; bytes are always aligned, and may be uninitialised.
        // - at most `len` bytes, which nothing else reads or writes during `'a`: the caller's contract.
        // - no more than any text needs, so far below `isize::MAX`.
        Self(unsafe { core::slice::from_raw_parts_mut(buffer.cast(), len.min(MAX_TEXT_BYTES + 1)) })
    }

    /// The bytes, NUL included.
    pub(crate) fn into_bytes(self) -> &'a mut [MaybeUninit<u8>] {
        self.0
    }
}

/// A struct that begins with its size in bytes; callers may know an earlier or a later version of it.
///
/// # Safety
/// - `repr(C)`, the first field is the size as `usize`, and all bytes zero is a valid value.
/// - All bytes of its fields are a valid value: it consists of integers, floats and raw pointers.
pub(crate) unsafe trait SizePrefixed: Copy {
    /// Size of the first version.
    const FIRST_VERSION: usize;
    /// The message for a wrong size.
    const WRONG_SIZE: CallError;

    /// Checks the size that a caller's struct begins with.
    #[inline]
    fn check_size(size: usize) -> Result<usize, CallError> {
        if (Self::FIRST_VERSION..=MAX_STRUCT_BYTES).contains(&size) {
            Ok(size)
        } else {
            Err(Self::WRONG_SIZE)
        }
    }
}

/// A struct to read, of a version that may not be this library's.
pub(crate) struct InStruct<'a, T> {
    pointer: *const T,
    lifetime: PhantomData<&'a T>,
}

impl<T: SizePrefixed> InStruct<'_, T> {
    /// # Safety
    /// - `pointer` is NULL, or points to as many readable bytes as the size that it begins with says; it need not be
    ///   aligned.
    pub(crate) unsafe fn new(pointer: *const T) -> Self {
        Self { pointer, lifetime: PhantomData }
    }

    /// The struct, unless the pointer is NULL. Fields that only this library knows are zero; fields that only the caller
    /// knows must be.
    pub(crate) fn read(self) -> Result<Option<T>, CallError> {
        if self.pointer.is_null() {
            return Ok(None);
        }
        let bytes = self.pointer.cast::<u8>();
        let mut read = MaybeUninit::<T>::zeroed();
        // SAFETY:
        // - not NULL, so the size can be read, and then as many bytes as it says: contract of `new`.
        // - `known` is at most `size` and the size of `T`, so the copy and the rest stay in bounds.
        // - zeros are a valid `T`, and so are the bytes of a caller's fields: contract of `SizePrefixed`.
        let (read, unknown) = unsafe {
            let size = T::check_size(bytes.cast::<usize>().read_unaligned())?;
            let known = size.min(size_of::<T>());
            core::ptr::copy_nonoverlapping(bytes, read.as_mut_ptr().cast(), known);
            (read.assume_init(), core::slice::from_raw_parts(bytes.add(known), size - known))
        };
        if unknown.iter().all(|byte| *byte == 0) { Ok(Some(read)) } else { Err(T::WRONG_SIZE) }
    }
}

/// A struct to write, of a version that may not be this library's.
pub(crate) struct OutStruct<'a, T> {
    pointer: *mut T,
    lifetime: PhantomData<&'a mut T>,
}

impl<T: SizePrefixed> OutStruct<'_, T> {
    /// # Safety
    /// - `pointer` is NULL, or points to as many bytes as the size that it begins with says; they can be read and
    ///   written during the lifetime, and need not be aligned.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T) -> Self {
        Self { pointer, lifetime: PhantomData }
    }

    /// Whether there is nothing to write to.
    pub(crate) fn is_null(&self) -> bool {
        self.pointer.is_null()
    }

    /// Writes the fields that the caller knows; those that only the caller knows become zero. The size that the struct
    /// begins with stays.
    #[inline]
    pub(crate) fn write(self, mut value: T) -> Result<(), CallError> {
        if self.pointer.is_null() {
            return Err(NULL_RESULT);
        }
        let bytes = self.pointer.cast::<u8>();
        // SAFETY:
        // - not NULL, so the size can be read, and then as many bytes written as it says: contract of `new`.
        // - `value` begins with its size: contract of `SizePrefixed`.
        // - `known` is at most `size` and the size of `T`; the copy and the zeros together are exactly `size` bytes.
        // - `value` is this function's own, so the copy does not overlap.
        unsafe {
            let size = T::check_size(bytes.cast::<usize>().read_unaligned())?;
            (&raw mut value).cast::<usize>().write(size);
            let known = size.min(size_of::<T>());
            core::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), bytes, known);
            bytes.add(known).write_bytes(0, size - known);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks)] // What is passed stands right beside each call.
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct New {
        size: usize,
        old: u64,
        added: u64,
    }

    unsafe impl SizePrefixed for New {
        const FIRST_VERSION: usize = 16;
        const WRONG_SIZE: CallError = CallError::Invalid(BLISS_ERROR_SIZE, "wrong");
    }

    fn read(bytes: &[u64]) -> Result<Option<New>, CallError> {
        unsafe { InStruct::new(bytes.as_ptr().cast()) }.read()
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
        assert_eq!(unsafe { InStruct::<New>::new(core::ptr::null()) }.read(), Ok(None));
    }

    #[test]
    fn f3_older_and_newer_structs_are_written() {
        let write = |bytes: &mut [u64]| {
            let value = New { size: 0, old: 1, added: 2 };
            unsafe { OutStruct::new(bytes.as_mut_ptr().cast()) }.write(value)
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
    fn slices_are_checked() {
        fn get<'a, T>(data: *const T, len: usize) -> Result<&'a [T], CallError> {
            unsafe { InSlice::new(data, len) }.get(4)
        }
        assert_eq!(get::<u8>(core::ptr::null(), 0), Ok([].as_slice()));
        assert_eq!(get::<u8>(core::ptr::null(), 1).unwrap_err().code(), BLISS_ERROR_NULL);
        assert_eq!(get(b"abcde".as_ptr(), 5).unwrap_err().code(), BLISS_ERROR_ARGUMENT);
        let words = [0u64; 2];
        let askew = unsafe { words.as_ptr().cast::<u8>().add(1) }.cast::<u64>();
        assert_eq!(get(askew, 1).unwrap_err().code(), BLISS_ERROR_ARGUMENT);
    }
}
