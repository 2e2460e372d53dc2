//! Kernels for x86-64.

pub(super) mod avx2;
pub(super) mod avx512;

use std::arch::x86_64::{__m128i, __m256, __m256i, __m512i};

use crate::layout::{Pod, plain};

plain!(__m128i, __m256, __m256i, __m512i);

/// Loads a vector from as many bytes.
#[inline(always)]
fn load<V: Pod, T: Pod>(from: &T) -> V {
    const { assert!(size_of::<V>() == size_of::<T>()) };
    // SAFETY:
    // - the lengths are the same (asserted above), and any bits are a `Pod`
    // - the address need not be aligned; that of a section or of scratch memory is, which makes it fast
    unsafe { std::ptr::from_ref(from).cast::<V>().read_unaligned() }
}

/// Stores a vector to as many bytes.
#[inline(always)]
fn store<V: Pod, T: Pod>(to: &mut T, vector: V) {
    const { assert!(size_of::<V>() == size_of::<T>()) };
    // SAFETY:
    // - as in `load`
    unsafe { std::ptr::from_mut(to).cast::<V>().write_unaligned(vector) };
}
