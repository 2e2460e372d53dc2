//! AVX-512 with VBMI: 16 numbers are quantised at a time, 64 trees indexed at a time.

use std::arch::x86_64::*;

use super::{avx2, load, store};
use crate::eval::job::{Job, Oblivious};
use crate::eval::trees::{InterleavedSums, Positions, Sum};
use crate::eval::{inputs, trees};
use crate::layout::{BLOCK, Block, FLAG_WIDE_SLOTS, LANES, Pages};
use crate::scratch::Parts;

/// Slots up to which pages are permuted; with more, slots are read one by one.
const PERMUTED_SLOTS: u32 = 1024;

/// Fills all slots. Compares 8 numbers at a time, as the AVX2 kernel does: with 16 the comparisons' results go through
/// mask registers, which takes longer on the processors measured.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn fill_slots(job: &Job<'_>, parts: &mut Parts<'_>) {
    inputs::gather(job, parts.lanes);
    let slots = parts.slots.as_chunks_mut::<{ 4 * LANES }>().0;
    for ((groups, lanes), slots) in job.groups().chunks(4).zip(parts.lanes.chunks_mut(4)).zip(slots) {
        // Stored 64 at a time, since so they are loaded: a load waits for smaller stores under it.
        let mut vector = _mm512_setzero_si512();
        for (index, (group, lanes)) in groups.iter().zip(lanes).enumerate() {
            let bytes = avx2::quantise(job, group, lanes);
            vector = match index {
                0 => _mm512_inserti32x4::<0>(vector, bytes),
                1 => _mm512_inserti32x4::<1>(vector, bytes),
                2 => _mm512_inserti32x4::<2>(vector, bytes),
                _ => _mm512_inserti32x4::<3>(vector, bytes),
            };
        }
        store(slots, vector);
    }
    inputs::categories(job, parts.slots);
}

/// Slots of 64 trees, where there are at most 256 slots.
struct Narrow([__m512i; 4]);

impl Narrow {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    fn load(slots: &[u8]) -> Self {
        // There are always 256 bytes of slots (`Scratch`).
        Self(slots.first_chunk::<256>().map_or([_mm512_setzero_si512(); 4], load))
    }

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
unsafe fn wide_slots(slots: &[u8], low: __m512i, high: __m512i, pages: Pages) -> __m512i {
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
        // - the caller's promise
        let [a, b] =
            load::<[__m512i; 2], _>(unsafe { slots.as_chunks::<128>().0.get_unchecked(usize::from(at)) });
        let here = _mm512_cmpeq_epi8_mask(page, _mm512_set1_epi8(at as i8));
        found = _mm512_mask_mov_epi8(found, here, _mm512_permutex2var_epi8(a, low, b));
    }
    found
}

/// The positions of a block's leaves. A level has `STRIDE` bytes; `slots` are filled, and `narrow` was loaded from them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn block_positions<const STRIDE: usize, const A: usize, const B: usize>(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    (slots, narrow): (&[u8], &Narrow),
    (block, bases): (&Block, &[u32; BLOCK]),
    positions: &mut [u32; BLOCK],
    mut sums: InterleavedSums<'_, '_, '_, A, B>,
) {
    let mut low = _mm512_setzero_si512();
    let mut high = _mm512_setzero_si512();
    for (level, (tests, pages)) in trees.levels::<STRIDE>(block).enumerate() {
        let ([slot, threshold, wide @ ..], _) = tests.as_chunks::<BLOCK>() else { continue };
        let (slot, threshold) = (load(slot), load(threshold));
        let found = match wide {
            [] => narrow.slots(slot, *pages),
            // SAFETY:
            // - pages lie inside of the slots (`validate`, `Parts`)
            [high, ..] => unsafe { wide_slots(slots, slot, load(high), *pages) },
        };
        let holds = _mm512_cmpge_epu8_mask(found, threshold);
        let bit = _mm512_set1_epi8((1_u8 << (level & 7)) as i8);
        if level < 8 {
            low = _mm512_mask_add_epi8(low, holds, low, bit);
        } else {
            high = _mm512_mask_add_epi8(high, holds, high, bit);
        }
        sums.add();
    }
    let low = quarters(low);
    let high = quarters(high);
    let dimensions = _mm512_set1_epi32(job.header().dimensions.cast_signed());
    let (bases, positions) = (bases.as_chunks::<LANES>().0, positions.as_chunks_mut::<LANES>().0);
    for ((low, high), (base, to)) in low.into_iter().zip(high).zip(bases.iter().zip(positions)) {
        let mut index = _mm512_cvtepu8_epi32(low);
        if block.levels > 8 {
            index = _mm512_or_si512(index, _mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(high)));
        }
        if job.header().dimensions != 1 {
            index = _mm512_mullo_epi32(index, dimensions);
        }
        store(to, _mm512_add_epi32(index, load(base)));
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

/// The same, by whichever way suits the number of slots.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn any_block_positions<const A: usize, const B: usize>(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    (slots, narrow): (&[u8], &Narrow),
    block: (&Block, &[u32; BLOCK]),
    positions: &mut [u32; BLOCK],
    sums: InterleavedSums<'_, '_, '_, A, B>,
) {
    if job.header().flags & FLAG_WIDE_SLOTS == 0 {
        block_positions::<{ 2 * BLOCK }, _, _>(job, trees, (slots, narrow), block, positions, sums);
    } else if job.header().slots <= PERMUTED_SLOTS {
        block_positions::<{ 3 * BLOCK }, _, _>(job, trees, (slots, narrow), block, positions, sums);
    } else {
        trees::block_positions(job, trees, slots, block, positions);
    }
}

/// Finds the position of each tree's leaf, lets the trees wait in `own`, and adds trees that wait in `before`.
///
/// # Safety
///
/// - as for [`trees::find_blocks`]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(in crate::eval) unsafe fn positions(
    job: &Job<'_>,
    filled: bool,
    parts: &mut Parts<'_>,
    before: &mut Sum<'_>,
    own: &mut Sum<'_>,
) {
    if !filled {
        fill_slots(job, parts);
    }
    let trees = job.oblivious();
    let narrow = Narrow::load(parts.slots);
    for (at, block) in trees.blocks().enumerate() {
        // SAFETY:
        // - there is room for each block (the caller's promise)
        let positions = unsafe { own.room() };
        // Half of the trees of each model are added while its positions are found, the others with the next model's.
        let sums = InterleavedSums::<6, 5> { before, own };
        any_block_positions(job, &trees, (parts.slots, &narrow), block, positions, sums);
        // SAFETY:
        // - they were found just now
        unsafe { own.more(job.trees_from(at * BLOCK)) };
    }
}

/// Adds up all trees.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(in crate::eval) fn evaluate(job: &Job<'_>, is_oblivious: bool, parts: &mut Parts<'_>, out: &mut [f64]) {
    fill_slots(job, parts);
    out.fill(0.0);
    if is_oblivious {
        add_blocks(job, parts.slots, out);
    } else {
        trees::walk(job, parts, out);
    }
}

/// Adds up oblivious trees whose slots are filled; `out` is zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn add_blocks(job: &Job<'_>, slots: &[u8], out: &mut [f64]) {
    let trees = job.oblivious();
    let narrow = Narrow::load(slots);
    let (mut sum, mut none) = (Sum::new(job), Sum::new(job));
    let mut buffers = [Positions([0; BLOCK]), Positions([0; BLOCK])];
    let [free, waiting] = &mut buffers;
    let (mut free, mut waiting) = (&mut free.0, &mut waiting.0);
    for (at, block) in trees.blocks().enumerate() {
        // Trees of the block before: six levels and what remains make 64.
        let sums = InterleavedSums::<0, 11> { before: &mut none, own: &mut sum };
        any_block_positions(job, &trees, (slots, &narrow), block, free, sums);
        let found = free.get(..job.trees_from(at * BLOCK)).unwrap_or_default();
        if job.header().dimensions == 1 {
            sum.finish();
            // SAFETY:
            // - they were found just now, and stay until the sum is finished, in the next round or at the end
            unsafe { sum.wait(found) };
            std::mem::swap(&mut free, &mut waiting);
        } else {
            // SAFETY:
            // - they were found just now
            unsafe { trees::add_leaves(job, found, out) };
        }
    }
    sum.finish();
    if let [out] = out {
        *out = sum.total;
    }
}
