//! AVX2: 8 numbers are quantised at a time, 32 trees indexed at a time.

use std::arch::x86_64::*;

use crate::eval::trees::{InterleavedSums, Positions, Sum};
use crate::eval::{Job, NonSymmetric, Oblivious, inputs, trees};
use crate::layout::{BLOCK, Block, FLAG_WIDE_SLOTS, Group, LANES};

/// Trees that are indexed together.
const HALF: usize = BLOCK / 2;

/// Counts the borders that each lane of a group exceeds.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, its lanes are gathered, and `at` is one of its groups
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn quantise(job: &Job<'_>, at: usize, group: &Group) -> __m128i {
    // SAFETY:
    // - a group's lanes and rows exist (`validate`, `raw`)
    unsafe {
        let lanes = job.parts.lanes.add(at * LANES);
        if group.nan_largest != 0 {
            inputs::raise_nan(lanes, group.nan_largest);
        }
        let (left, right) = (_mm256_load_ps(lanes), _mm256_load_ps(lanes.add(8)));
        let first = job.rows.as_ptr().add(group.first_row as usize).cast::<f32>();
        let (mut a, mut b) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for row in 0..usize::from(group.rows) {
            let borders = first.add(row * LANES);
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(left, _mm256_load_ps(borders));
            a = _mm256_sub_epi32(a, _mm256_castps_si256(above));
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(right, _mm256_load_ps(borders.add(8)));
            b = _mm256_sub_epi32(b, _mm256_castps_si256(above));
        }
        // Packing works within halves of 128 bits: put them in order in between.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
    }
}

/// Fills all slots.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn fill_slots(job: &Job<'_>) {
    // SAFETY:
    // - the caller's promise, passed on; a group's slots exist (`validate`, `raw`)
    unsafe {
        inputs::gather(job);
        for (at, group) in job.groups.iter().enumerate() {
            _mm_store_si128(job.parts.slots.add(at * LANES).cast(), quantise(job, at, group));
        }
        inputs::categories(job);
    }
}

/// All slots of a model with at most 16 P of them, 16 in each half of a register.
struct Tables<const P: usize>([__m256i; P]);

impl<const P: usize> Tables<P> {
    /// # Safety
    ///
    /// - `slots` has 256 bytes, 16-byte aligned
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(slots: *const u8) -> Self {
        const { assert!(P <= 16) };
        let mut tables = [_mm256_setzero_si256(); P];
        for (at, table) in tables.iter_mut().enumerate() {
            // SAFETY:
            // - 16 bytes from 16 * at on, at most the 256th (the caller's promise)
            *table = unsafe { _mm256_broadcastsi128_si256(_mm_load_si128(slots.add(at * 16).cast())) };
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

/// The positions of the leaves of half a block.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, with at most 16 P slots, of which `tables` was loaded
/// - the block is of the same model, `bases` are those of the half, `HALF_AT` is 0 or 1
/// - `positions` has room for 32, 64-byte aligned, none of which waits in `sums`
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn half_positions<const P: usize, const HALF_AT: usize, const A: usize, const B: usize>(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    tables: &Tables<P>,
    block: &Block,
    bases: *const u32,
    positions: *mut u32,
    mut sums: InterleavedSums<'_, A, B>,
) {
    let mut low = _mm256_setzero_si256();
    let mut high = _mm256_setzero_si256();
    // SAFETY:
    // - the block's levels exist, each with 128 bytes (`validate`)
    unsafe {
        let mut tests = trees.tests.as_ptr().add(block.first_level as usize * 2 * BLOCK + HALF_AT * HALF);
        for level in 0..block.levels {
            let threshold = _mm256_load_si256(tests.add(BLOCK).cast());
            let found = tables.look_up(_mm256_load_si256(tests.cast()));
            let holds = _mm256_cmpeq_epi8(_mm256_max_epu8(found, threshold), found);
            let bit = _mm256_and_si256(holds, _mm256_set1_epi8((1_u8 << (level & 7)) as i8));
            if level < 8 {
                low = _mm256_or_si256(low, bit);
            } else {
                high = _mm256_or_si256(high, bit);
            }
            tests = tests.add(2 * BLOCK);
            sums.add();
        }
    }
    let quarters = |bytes: __m256i| {
        let (a, b) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
        [a, _mm_srli_si128::<8>(a), b, _mm_srli_si128::<8>(b)]
    };
    let dimensions = _mm256_set1_epi32(job.header.dimensions.cast_signed());
    for (quarter, (low, high)) in quarters(low).into_iter().zip(quarters(high)).enumerate() {
        let mut index = _mm256_cvtepu8_epi32(low);
        if block.levels > 8 {
            index = _mm256_or_si256(index, _mm256_slli_epi32::<8>(_mm256_cvtepu8_epi32(high)));
        }
        if job.header.dimensions != 1 {
            index = _mm256_mullo_epi32(index, dimensions);
        }
        // SAFETY:
        // - there are 32 bases per half (`validate`), and 32 of the 64 positions are used; both are aligned
        unsafe {
            let base = _mm256_load_si256(bases.add(quarter * 8).cast());
            let to = positions.add(quarter * 8);
            _mm256_store_si256(to.cast(), _mm256_add_epi32(index, base));
        }
    }
}

/// Calls a function for the number of pages of 16 slots: `$all` with at least as many, or `$other` where a slot's number
/// has two bytes. A few sizes only, so that the code stays small.
macro_rules! for_pages {
    ($job:expr, $all:ident($($argument:expr),*), $other:expr) => {
        match if $job.header.flags & FLAG_WIDE_SLOTS != 0 { 17 } else { $job.header.slots.div_ceil(16) } {
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
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
/// - there is room for a multiple of 64 positions, at least one per tree, 64-byte aligned, none of which waits in `before`
/// - `own` began with these positions
#[target_feature(enable = "avx2")]
pub(in crate::eval) unsafe fn positions(
    job: &Job<'_>,
    filled: bool,
    trees: &Oblivious<'_>,
    positions: *mut u32,
    before: &mut Sum,
    own: &mut Sum,
) {
    // SAFETY:
    // - the caller's promise; there are as many pages as the slots take
    unsafe {
        if !filled {
            fill_slots(job);
        }
        for_pages!(job, paged_positions(job, trees, positions, before, own), {
            for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
                let to = &mut *positions.add(at * BLOCK).cast::<Positions>();
                trees::block_positions(job, trees, block, bases, to);
                own.more(trees::trees_from(job, at * BLOCK));
            }
        });
    }
}

/// # Safety
///
/// - as for [`positions`], the slots are filled, and there are at most 16 P of them
#[target_feature(enable = "avx2")]
unsafe fn paged_positions<const P: usize>(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    positions: *mut u32,
    before: &mut Sum,
    own: &mut Sum,
) {
    // SAFETY:
    // - the caller's promise; there are always 256 bytes of slots (`Scratch`)
    unsafe {
        let tables = Tables::<P>::load(job.parts.slots);
        for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
            let (to, bases) = (positions.add(at * BLOCK), bases.as_ptr());
            // Half of the trees of each model are added while its positions are found, the others with the next model's.
            let sums = InterleavedSums::<3, 3> { before, own };
            half_positions::<P, 0, _, _>(job, trees, &tables, block, bases, to, sums);
            let (to, bases) = (to.add(HALF), bases.add(HALF));
            let sums = InterleavedSums::<3, 3> { before, own };
            half_positions::<P, 1, _, _>(job, trees, &tables, block, bases, to, sums);
            own.more(trees::trees_from(job, at * BLOCK));
        }
    }
}

/// Evaluates oblivious trees.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, and the trees are of the same model
#[target_feature(enable = "avx2")]
pub(in crate::eval) unsafe fn oblivious(job: &Job<'_>, trees: &Oblivious<'_>, out: &mut [f64]) {
    out.fill(0.0);
    // SAFETY:
    // - the caller's promise; there are as many pages as the slots take
    // - every index that a tree's tests can make leads to leaf values (`validate`)
    unsafe {
        fill_slots(job);
        for_pages!(job, paged(job, trees, out), {
            let mut positions = Positions([0; BLOCK]);
            for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
                let count = trees::trees_from(job, at * BLOCK);
                trees::block_positions(job, trees, block, bases, &mut positions);
                trees::add_leaves(job, positions.0.get_unchecked(..count), out);
            }
        });
    }
}

/// # Safety
///
/// - as for [`oblivious`], the slots are filled, there are at most 16 P of them, and `out` is zeros
#[target_feature(enable = "avx2")]
unsafe fn paged<const P: usize>(job: &Job<'_>, trees: &Oblivious<'_>, out: &mut [f64]) {
    // SAFETY:
    // - the caller's promise; there are always 256 bytes of slots (`Scratch`)
    // - every index that a tree's tests can make leads to leaf values (`validate`)
    unsafe {
        let tables = Tables::<P>::load(job.parts.slots);
        let (mut sum, mut none) = (Sum::new(job), Sum::new(job));
        let mut positions = Positions([0; BLOCK]);
        let single = job.header.dimensions == 1;
        for (at, (block, bases)) in trees.blocks.iter().zip(trees.bases.chunks_exact(BLOCK)).enumerate() {
            let count = trees::trees_from(job, at * BLOCK);
            // While one half of the positions is computed, the other one is added.
            let (left, right) = (positions.0.as_mut_ptr(), positions.0.as_mut_ptr().add(HALF));
            let bases = bases.as_ptr();
            // Trees of the half before: six levels and what remains make 32.
            let sums = InterleavedSums::<0, 5> { before: &mut none, own: &mut sum };
            half_positions::<P, 0, _, _>(job, trees, &tables, block, bases, left, sums);
            sum.finish();
            if single {
                sum.wait(left, count.min(HALF));
            }
            let sums = InterleavedSums::<0, 5> { before: &mut none, own: &mut sum };
            half_positions::<P, 1, _, _>(job, trees, &tables, block, bases.add(HALF), right, sums);
            sum.finish();
            if single {
                sum.wait(right, count.saturating_sub(HALF));
            } else {
                trees::add_leaves(job, positions.0.get_unchecked(..count), out);
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
#[target_feature(enable = "avx2")]
pub(in crate::eval) unsafe fn non_symmetric(job: &Job<'_>, trees: &NonSymmetric<'_>, out: &mut [f64]) {
    // SAFETY:
    // - the caller's promise
    unsafe {
        fill_slots(job);
        out.fill(0.0);
        trees::walk(job, trees, out);
    }
}
