//! AVX2: 8 numbers are quantised at a time, 32 trees indexed at a time.

use std::arch::x86_64::*;

use super::{load, store};
use crate::eval::job::{Job, Oblivious};
use crate::eval::trees::{InterleavedSums, Positions, Sum};
use crate::eval::{inputs, trees};
use crate::layout::{BLOCK, Block, FLAG_WIDE_SLOTS, Group, LANES};
use crate::scratch::Parts;

/// Trees that are indexed together.
const HALF: usize = BLOCK / 2;

/// Counts the borders that each lane of a group exceeds.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn quantise(job: &Job<'_>, group: &Group, lanes: &mut [f32; LANES]) -> __m128i {
    if group.nan_largest != 0 {
        inputs::raise_nan(lanes, group.nan_largest);
    }
    let [left, right] = load::<[__m256; 2], _>(lanes);
    let (mut a, mut b) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for row in job.rows(group) {
        let [first, second] = load::<[__m256; 2], _>(row);
        let above = _mm256_cmp_ps::<_CMP_GT_OQ>(left, first);
        a = _mm256_sub_epi32(a, _mm256_castps_si256(above));
        let above = _mm256_cmp_ps::<_CMP_GT_OQ>(right, second);
        b = _mm256_sub_epi32(b, _mm256_castps_si256(above));
    }
    // Packing works within halves of 128 bits: put them in order in between.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
    _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
}

/// Fills all slots.
#[inline]
#[target_feature(enable = "avx2")]
fn fill_slots(job: &Job<'_>, parts: &mut Parts<'_>) {
    inputs::gather(job, parts.lanes);
    let slots = parts.slots.as_chunks_mut::<LANES>().0.iter_mut();
    for ((group, lanes), slots) in job.groups().iter().zip(&mut *parts.lanes).zip(slots) {
        store(slots, quantise(job, group, lanes));
    }
    inputs::categories(job, parts.slots);
}

/// All slots of a model with at most 16 P of them, 16 in each half of a register.
struct Tables<const P: usize>([__m256i; P]);

impl<const P: usize> Tables<P> {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(slots: &[u8]) -> Self {
        // There are always 256 bytes of slots (`Scratch`).
        const { assert!(P <= 16) };
        let mut tables = [_mm256_setzero_si256(); P];
        let slots = slots.first_chunk::<256>().unwrap_or(&[0; 256]);
        for (table, slots) in tables.iter_mut().zip(slots.as_chunks::<16>().0) {
            *table = _mm256_broadcastsi128_si256(load(slots));
        }
        Self(tables)
    }

    /// The slots of 32 trees: read from every page, then chosen by the bits of the page's number. No branches.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn look_up(&self, slot: __m256i) -> __m256i {
        // A shuffle looks at bits 0 to 3, and gives 0 where bit 7 is set.
        let within = if P > 8 { _mm256_and_si256(slot, _mm256_set1_epi8(0x0f)) } else { slot };
        let mut found = self.0;
        for table in &mut found {
            *table = _mm256_shuffle_epi8(*table, within);
        }
        // A blend looks at bit 7: bits 4 to 7 are shifted there.
        let bits =
            [_mm256_slli_epi16::<3>(slot), _mm256_slli_epi16::<2>(slot), _mm256_slli_epi16::<1>(slot), slot];
        let mut count = P;
        for bit in bits {
            for at in 0..count / 2 {
                if let (Some(low), Some(high)) = (found.get(2 * at).copied(), found.get(2 * at + 1).copied())
                    && let Some(chosen) = found.get_mut(at)
                {
                    *chosen = _mm256_blendv_epi8(low, high, bit);
                }
            }
            if count % 2 == 1
                && let Some(single) = found.get(count - 1).copied()
                && let Some(chosen) = found.get_mut(count / 2)
            {
                *chosen = single;
            }
            count = count.div_ceil(2);
        }
        found.first().copied().unwrap_or(slot)
    }
}

/// The positions of the leaves of half a block, whose first leaves are at `bases`; `HALF_AT` is 0 or 1, and `tables` were
/// loaded from the model's slots.
#[inline]
#[target_feature(enable = "avx2")]
fn half_positions<const P: usize, const HALF_AT: usize, const A: usize, const B: usize>(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    tables: &Tables<P>,
    block: &Block,
    bases: &[u32; HALF],
    positions: &mut [u32; HALF],
    mut sums: InterleavedSums<'_, '_, '_, A, B>,
) {
    let mut low = _mm256_setzero_si256();
    let mut high = _mm256_setzero_si256();
    for (level, (tests, _)) in trees.levels::<{ 2 * BLOCK }>(block).enumerate() {
        let tests = load::<[__m256i; 4], _>(tests);
        let [slot, threshold] = if HALF_AT == 0 { [tests[0], tests[2]] } else { [tests[1], tests[3]] };
        let found = tables.look_up(slot);
        let holds = _mm256_cmpeq_epi8(_mm256_max_epu8(found, threshold), found);
        let bit = _mm256_and_si256(holds, _mm256_set1_epi8((1_u8 << (level & 7)) as i8));
        if level < 8 {
            low = _mm256_or_si256(low, bit);
        } else {
            high = _mm256_or_si256(high, bit);
        }
        sums.add();
    }
    let quarters = |bytes: __m256i| {
        let (a, b) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
        [a, _mm_srli_si128::<8>(a), b, _mm_srli_si128::<8>(b)]
    };
    let dimensions = _mm256_set1_epi32(job.header().dimensions.cast_signed());
    let quarters = quarters(low).into_iter().zip(quarters(high));
    let (bases, positions) = (bases.as_chunks::<8>().0, positions.as_chunks_mut::<8>().0);
    for ((low, high), (base, to)) in quarters.zip(bases.iter().zip(positions)) {
        let mut index = _mm256_cvtepu8_epi32(low);
        if block.levels > 8 {
            index = _mm256_or_si256(index, _mm256_slli_epi32::<8>(_mm256_cvtepu8_epi32(high)));
        }
        if job.header().dimensions != 1 {
            index = _mm256_mullo_epi32(index, dimensions);
        }
        store(to, _mm256_add_epi32(index, load(base)));
    }
}

/// Calls a function for the number of pages of 16 slots: `$all` with at least as many, or `$other` where a slot's number
/// has two bytes. A few sizes only, so that the code stays small.
macro_rules! for_pages {
    ($job:expr, $all:ident($($argument:expr),*), $other:expr) => {
        match if $job.header().flags & FLAG_WIDE_SLOTS != 0 { 17 } else { $job.header().slots.div_ceil(16) } {
            0..=2 => $all::<2>($($argument),*),
            3..=4 => $all::<4>($($argument),*),
            5 => $all::<5>($($argument),*),
            6 => $all::<6>($($argument),*),
            7..=8 => $all::<8>($($argument),*),
            9..=12 => $all::<12>($($argument),*),
            13..=14 => $all::<14>($($argument),*),
            15..=16 => $all::<16>($($argument),*),
            _ => $other,
        }
    };
}

/// Finds the position of each tree's leaf, lets the trees wait in `own`, and adds trees that wait in `before`.
///
/// # Safety
///
/// - as for [`trees::find_blocks`]
#[target_feature(enable = "avx2")]
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
    // SAFETY:
    // - the caller's promise
    unsafe {
        for_pages!(
            job,
            paged_positions(job, parts.slots, before, own),
            trees::find_blocks(job, parts.slots, own)
        );
    }
}

/// The same where the slots are filled and there are at most 16 P of them.
///
/// # Safety
///
/// - as for [`positions`]
#[target_feature(enable = "avx2")]
unsafe fn paged_positions<const P: usize>(
    job: &Job<'_>,
    slots: &[u8],
    before: &mut Sum<'_>,
    own: &mut Sum<'_>,
) {
    let trees = job.oblivious();
    let tables = Tables::<P>::load(slots);
    for (at, (block, bases)) in trees.blocks().enumerate() {
        // SAFETY:
        // - there is room for each block (the caller's promise)
        let positions = unsafe { own.room() };
        let ([left, right], _) = positions.as_chunks_mut::<HALF>() else { continue };
        let ([left_bases, right_bases], _) = bases.as_chunks::<HALF>() else { continue };
        // Half of the trees of each model are added while its positions are found, the others with the next model's.
        let sums = InterleavedSums::<3, 3> { before, own };
        half_positions::<P, 0, _, _>(job, &trees, &tables, block, left_bases, left, sums);
        let sums = InterleavedSums::<3, 3> { before, own };
        half_positions::<P, 1, _, _>(job, &trees, &tables, block, right_bases, right, sums);
        // SAFETY:
        // - both halves were found just now
        unsafe { own.more(job.trees_from(at * BLOCK)) };
    }
}

/// Adds up all trees.
#[target_feature(enable = "avx2")]
pub(in crate::eval) fn evaluate(job: &Job<'_>, is_oblivious: bool, parts: &mut Parts<'_>, out: &mut [f64]) {
    fill_slots(job, parts);
    out.fill(0.0);
    if is_oblivious {
        for_pages!(job, paged(job, parts.slots, out), trees::add_blocks(job, parts.slots, out));
    } else {
        trees::walk(job, parts, out);
    }
}

/// Adds up oblivious trees whose slots are filled, at most 16 P of them; `out` is zeros.
#[target_feature(enable = "avx2")]
fn paged<const P: usize>(job: &Job<'_>, slots: &[u8], out: &mut [f64]) {
    let trees = job.oblivious();
    let tables = Tables::<P>::load(slots);
    let (mut sum, mut none) = (Sum::new(job), Sum::new(job));
    let (mut left, mut right) = (Positions([0; HALF]), Positions([0; HALF]));
    let single = job.header().dimensions == 1;
    for (at, (block, bases)) in trees.blocks().enumerate() {
        let count = job.trees_from(at * BLOCK);
        let ([left_bases, right_bases], _) = bases.as_chunks::<HALF>() else { continue };
        // While one half of the positions is computed, the other one is added: six levels and what remains make 32.
        let sums = InterleavedSums::<0, 5> { before: &mut none, own: &mut sum };
        half_positions::<P, 0, _, _>(job, &trees, &tables, block, left_bases, &mut left.0, sums);
        sum.finish();
        // SAFETY:
        // - they were found just now, and stay until the sum is finished below
        unsafe { add_or_wait(job, &mut sum, single, &left.0, count, out) };
        let sums = InterleavedSums::<0, 5> { before: &mut none, own: &mut sum };
        half_positions::<P, 1, _, _>(job, &trees, &tables, block, right_bases, &mut right.0, sums);
        sum.finish();
        // SAFETY:
        // - they were found just now, and stay until the sum is finished, in the next round or at the end
        unsafe { add_or_wait(job, &mut sum, single, &right.0, count.saturating_sub(HALF), out) };
    }
    sum.finish();
    if let [out] = out {
        *out = sum.total;
    }
}

/// Lets the first `count` trees wait in `sum` where there is a single output dimension, else adds them to `out`.
///
/// # Safety
///
/// - a kernel found the positions for this job, and they stay until `sum` is finished
#[inline(always)]
unsafe fn add_or_wait(
    job: &Job<'_>,
    sum: &mut Sum<'_>,
    single: bool,
    positions: &[u32; HALF],
    count: usize,
    out: &mut [f64],
) {
    let positions = positions.get(..count).unwrap_or(positions);
    // SAFETY:
    // - the caller's promise
    unsafe {
        if single {
            sum.wait(positions);
        } else {
            trees::add_leaves(job, positions, out);
        }
    }
}
