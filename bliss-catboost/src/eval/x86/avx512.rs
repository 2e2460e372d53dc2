//! AVX-512 with VBMI: 16 numbers are quantised at a time, 64 trees indexed at a time.

use std::arch::x86_64::*;

use super::avx2;
use crate::eval::trees::{InterleavedSums, Positions, Sum};
use crate::eval::{Job, NonSymmetric, Oblivious, inputs, trees};
use crate::layout::{BLOCK, Block, FLAG_WIDE_SLOTS, LANES, Pages, level_bytes};

/// Slots up to which pages are permuted; with more, slots are read one by one.
const PERMUTED_SLOTS: u32 = 1024;

/// Fills all slots. Compares 8 numbers at a time, as the AVX2 kernel does: with 16 the comparisons' results go through
/// mask registers, which takes longer on the processors measured.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
unsafe fn fill_slots(job: &Job<'_>) {
    // SAFETY:
    // - the caller's promise, passed on
    // - 64 bytes of slots from each multiple of 64 below the groups' last slot on exist (`Scratch`)
    unsafe {
        inputs::gather(job);
        for (at, four) in job.groups.chunks(4).enumerate() {
            // Stored 64 at a time, since so they are loaded: a load waits for smaller stores under it.
            let mut slots = _mm512_setzero_si512();
            for (index, group) in four.iter().enumerate() {
                let bytes = avx2::quantise(job, at * 4 + index, group);
                slots = match index {
                    0 => _mm512_inserti32x4::<0>(slots, bytes),
                    1 => _mm512_inserti32x4::<1>(slots, bytes),
                    2 => _mm512_inserti32x4::<2>(slots, bytes),
                    _ => _mm512_inserti32x4::<3>(slots, bytes),
                };
            }
            _mm512_store_si512(job.parts.slots.add(at * 4 * LANES).cast(), slots);
        }
        inputs::categories(job);
    }
}

/// Slots of 64 trees, where there are at most 256 slots.
struct Narrow([__m512i; 4]);

impl Narrow {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    fn slots(&self, low: __m512i, pages: Pages) -> __m512i {
        let [a, b, c, d] = self.0;
        let [first, last] = pages.of_128;
        if last == 0 {
            return _mm512_permutex2var_epi8(a, low, b);
        }
        let upper = _mm512_permutex2var_epi8(c, low, d);
        if first > 0 {
            return upper;
        }
        _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(a, low, b), _mm512_movepi8_mask(low), upper)
    }
}

/// Slots of 64 trees, page by page.
///
/// # Safety
///
/// - `slots` has the pages that are named
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
unsafe fn wide_slots(slots: *const u8, low: __m512i, high: __m512i, pages: Pages) -> __m512i {
    let upper = _mm512_movepi8_mask(low);
    let page = _mm512_mask_add_epi8(
        _mm512_add_epi8(high, high),
        upper,
        _mm512_add_epi8(high, high),
        _mm512_set1_epi8(1),
    );
    let mut found = _mm512_setzero_si512();
    for at in pages.of_128[0]..=pages.of_128[1] {
        // SAFETY:
        // - the caller's promise: 128 bytes per page
        let (a, b) = unsafe {
            let page = slots.add(usize::from(at) * 128);
            (_mm512_load_si512(page.cast()), _mm512_load_si512(page.add(64).cast()))
        };
        let here = _mm512_cmpeq_epi8_mask(page, _mm512_set1_epi8(at as i8));
        found = _mm512_mask_mov_epi8(found, here, _mm512_permutex2var_epi8(a, low, b));
    }
    found
}

/// The positions of a block's leaves.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, its slots are filled, and the block is of the same model
/// - `positions` has room for 64, 64-byte aligned, none of which waits in `sums`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
unsafe fn block_positions<const WIDE: bool, const A: usize, const B: usize>(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    narrow: &Narrow,
    block: &Block,
    bases: *const u32,
    positions: *mut u32,
    mut sums: InterleavedSums<'_, A, B>,
) {
    let stride = level_bytes(job.header.flags);
    let mut low = _mm512_setzero_si512();
    let mut high = _mm512_setzero_si512();
    // SAFETY:
    // - the block's levels exist, each with `stride` bytes and its pages, which are inside the slots (`validate`)
    unsafe {
        let mut tests = trees.tests.as_ptr().add(block.first_level as usize * stride);
        let mut pages = trees.pages.as_ptr().add(block.first_level as usize);
        for level in 0..block.levels {
            let slot = _mm512_load_si512(tests.cast());
            let threshold = _mm512_load_si512(tests.add(BLOCK).cast());
            let found = if WIDE {
                wide_slots(job.parts.slots, slot, _mm512_load_si512(tests.add(2 * BLOCK).cast()), *pages)
            } else {
                narrow.slots(slot, *pages)
            };
            let holds = _mm512_cmpge_epu8_mask(found, threshold);
            let bit = _mm512_set1_epi8((1_u8 << (level & 7)) as i8);
            if level < 8 {
                low = _mm512_mask_add_epi8(low, holds, low, bit);
            } else {
                high = _mm512_mask_add_epi8(high, holds, high, bit);
            }
            tests = tests.add(stride);
            pages = pages.add(1);
            sums.add();
        }
    }
    let low = quarters(low);
    let high = quarters(high);
    let dimensions = _mm512_set1_epi32(job.header.dimensions.cast_signed());
    for (quarter, (low, high)) in low.into_iter().zip(high).enumerate() {
        let mut index = _mm512_cvtepu8_epi32(low);
        if block.levels > 8 {
            index = _mm512_or_si512(index, _mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(high)));
        }
        if job.header.dimensions != 1 {
            index = _mm512_mullo_epi32(index, dimensions);
        }
        // SAFETY:
        // - there are 64 bases per block (`validate`) and 64 positions, both 64-byte aligned
        unsafe {
            let base = _mm512_load_si512(bases.add(quarter * LANES).cast());
            let to = positions.add(quarter * LANES);
            _mm512_store_si512(to.cast(), _mm512_add_epi32(index, base));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn quarters(bytes: __m512i) -> [__m128i; 4] {
    [
        _mm512_castsi512_si128(bytes),
        _mm512_extracti32x4_epi32::<1>(bytes),
        _mm512_extracti32x4_epi32::<2>(bytes),
        _mm512_extracti32x4_epi32::<3>(bytes),
    ]
}

/// Finds the position of each tree's leaf, lets the trees wait in `own`, and adds trees that wait in `before`.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
/// - there is room for a multiple of 64 positions, at least one per tree, 64-byte aligned, none of which waits in `before`
/// - `own` began with these positions
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(in crate::eval) unsafe fn positions(
    job: &Job<'_>,
    filled: bool,
    trees: &Oblivious<'_>,
    positions: *mut u32,
    before: &mut Sum,
    own: &mut Sum,
) {
    // SAFETY:
    // - the caller's promise; there are always 256 bytes of slots, 64-byte aligned (`Scratch`)
    unsafe {
        if !filled {
            fill_slots(job);
        }
        let slots = job.parts.slots;
        let narrow = Narrow([0, 64, 128, 192].map(|at| _mm512_load_si512(slots.add(at).cast())));
        for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
            let to = positions.add(at * BLOCK);
            // Half of the trees of each model are added while its positions are found, the others with the next model's.
            let sums = InterleavedSums::<6, 5> { before, own };
            if job.header.flags & FLAG_WIDE_SLOTS == 0 {
                block_positions::<false, _, _>(job, trees, &narrow, block, bases.as_ptr(), to, sums);
            } else if job.header.slots <= PERMUTED_SLOTS {
                block_positions::<true, _, _>(job, trees, &narrow, block, bases.as_ptr(), to, sums);
            } else {
                trees::block_positions(job, trees, block, bases, &mut *to.cast::<Positions>());
            }
            own.more(trees::trees_from(job, at * BLOCK));
        }
    }
}

/// Evaluates oblivious trees.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(in crate::eval) unsafe fn oblivious(job: &Job<'_>, trees: &Oblivious<'_>, out: &mut [f64]) {
    // SAFETY:
    // - the caller's promise; there are always 256 bytes of slots, 64-byte aligned (`Scratch`)
    // - every index that a tree's tests can make leads to leaf values (`validate`)
    unsafe {
        fill_slots(job);
        let slots = job.parts.slots;
        let narrow = Narrow([0, 64, 128, 192].map(|at| _mm512_load_si512(slots.add(at).cast())));
        out.fill(0.0);
        let (mut sum, mut none) = (Sum::new(job), Sum::new(job));
        let mut buffers = [Positions([0; BLOCK]), Positions([0; BLOCK])];
        let buffers = buffers.as_mut_ptr();
        for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
            // The other one holds the trees that wait.
            let positions = buffers.add(at & 1);
            let to = positions.cast::<u32>();
            // Trees of the block before: six levels and what remains make 64.
            let sums = InterleavedSums::<0, 11> { before: &mut none, own: &mut sum };
            if job.header.flags & FLAG_WIDE_SLOTS == 0 {
                block_positions::<false, _, _>(job, trees, &narrow, block, bases.as_ptr(), to, sums);
            } else if job.header.slots <= PERMUTED_SLOTS {
                block_positions::<true, _, _>(job, trees, &narrow, block, bases.as_ptr(), to, sums);
            } else {
                trees::block_positions(job, trees, block, bases, &mut *positions);
            }
            let count = trees::trees_from(job, at * BLOCK);
            if job.header.dimensions == 1 {
                sum.finish();
                sum.wait(to, count);
            } else {
                let Positions(positions) = &*positions;
                trees::add_leaves(job, positions.get_unchecked(..count), out);
            }
        }
        sum.finish();
        if let [out] = out {
            *out = sum.total;
        }
    }
}

/// Evaluates trees of any shape.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(in crate::eval) unsafe fn non_symmetric(job: &Job<'_>, trees: &NonSymmetric<'_>, out: &mut [f64]) {
    // SAFETY:
    // - the caller's promise
    unsafe {
        fill_slots(job);
        out.fill(0.0);
        trees::walk(job, trees, out);
    }
}
