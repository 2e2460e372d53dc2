//! The sum over lines of 64 bytes that the checksum is made of.
//!
//! A line is eight little-endian words. Word `j` of line `i` is combined with a key of its index,
//! `t = word ^ (KEYS[j] + i * STEP)`, and contributes `low(t) * high(t) + t`, where `low` and `high` are the halves of
//! `t`; everything wraps. The sum of all contributions can be brought up to date in any order, for any lines.
//!
//! # What it notices
//!
//! * Every change of a single bit. In the low half, at bit `b`, the contribution changes by
//!   `2^b * (high(t) + 1)`, which would have to be a multiple of 2^64, but `b < 32` and `high(t) + 1 <= 2^32`. In the
//!   high half it changes by `2^b * (low(t) + 2^32)`, and again both factors are too small.
//! * Other damage, and lines that swap, but for about one case in 2^32 or fewer: the keys differ from line to
//!   line, so that two changes have to fit each other by chance.
//!
//! It is as fast as memory: four instructions for each 32 bytes beside loading them, or storing them in a copy.

use super::{BLOCK, LINE, first_line};

/// The first line's keys: digits of pi, so nothing up a sleeve.
const KEYS: [u64; 8] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

/// From one line's keys to the next line's: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fewer lines than this are summed without asking what the processor can do.
const FEW: usize = 16;

/// The sum of these bytes, which begin with line `first`; a last line that is cut off is filled up with zeros.
pub(super) fn sum(first: u64, bytes: &[u8]) -> u64 {
    let (lines, rest) = bytes.as_chunks::<LINE>();
    sum_whole(first, lines).wrapping_add(partial(first, lines.len(), rest))
}

/// Copies whole blocks, of which the last may be shorter, beginning with block `first`; puts the sum of each into `sums`
/// and returns the sum of all. `to` and `from` have the same size.
///
/// `past_the_cache` leaves the copy out of the caches, which for much more than fits them is nearly twice as fast; `to`
/// must then be at a line's start to have an effect.
pub(super) fn copy_blocks(
    first: usize,
    to: &mut [u8],
    from: &[u8],
    sums: &mut [u64],
    past_the_cache: bool,
) -> u64 {
    let blocks = to.chunks_mut(BLOCK).zip(from.chunks(BLOCK));
    let sum = sums.iter_mut().zip(blocks).enumerate().fold(0_u64, |all, (i, (sum, (to, from)))| {
        *sum = copy(first_line(first + i), to, from, past_the_cache);
        all.wrapping_add(*sum)
    });
    if past_the_cache {
        drain();
    }
    sum
}

/// Copies, and returns the sum of what was copied. With `past_the_cache` the caller calls [`drain`] before anybody looks
/// at the copy.
fn copy(first: u64, to: &mut [u8], from: &[u8], past_the_cache: bool) -> u64 {
    let (to_lines, to_rest) = to.as_chunks_mut::<LINE>();
    let (lines, rest) = from.as_chunks::<LINE>();
    to_rest.copy_from_slice(rest);
    let whole = copy_whole(first, to_lines, lines, past_the_cache);
    whole.wrapping_add(partial(first, lines.len(), rest))
}

/// Orders copies that went past the cache before whatever this thread does next. It must be this thread: another one's
/// fence, or the release store of the generation, does not order them.
fn drain() {
    #[cfg(test)]
    tests::DRAINS.set(tests::DRAINS.get() + 1);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

fn partial(first: u64, lines: usize, rest: &[u8]) -> u64 {
    if rest.is_empty() {
        return 0;
    }
    let mut line = [0; LINE];
    line.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    sum_portable(first.wrapping_add(lines as u64), &[line])
}

fn sum_whole(first: u64, lines: &[[u8; LINE]]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if lines.len() >= FEW && is_x86_feature_detected!("avx2") {
        // SAFETY:
        // - the processor has AVX2.
        return unsafe { avx2::sum(first, lines) };
    }
    sum_portable(first, lines)
}

fn copy_whole(first: u64, to: &mut [[u8; LINE]], from: &[[u8; LINE]], past_the_cache: bool) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if from.len() >= FEW && is_x86_feature_detected!("avx2") {
        let at_line = to.as_ptr().addr().is_multiple_of(LINE);
        // SAFETY:
        // - the processor has AVX2.
        // - `to` is aligned where that is asked for.
        return unsafe {
            if past_the_cache && at_line {
                avx2::copy::<true>(first, to, from)
            } else {
                avx2::copy::<false>(first, to, from)
            }
        };
    }
    let _ = past_the_cache;
    to.copy_from_slice(from);
    sum_portable(first, from)
}

/// What all others must equal.
fn sum_portable(first: u64, lines: &[[u8; LINE]]) -> u64 {
    let mut keys = KEYS.map(|key| key.wrapping_add(STEP.wrapping_mul(first)));
    let mut sums = [0_u64; 8];
    for line in lines {
        for ((sum, key), word) in sums.iter_mut().zip(&mut keys).zip(line.as_chunks::<8>().0) {
            let t = u64::from_le_bytes(*word) ^ *key;
            *sum = sum.wrapping_add((t & 0xffff_ffff).wrapping_mul(t >> 32)).wrapping_add(t);
            *key = key.wrapping_add(STEP);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{KEYS, LINE, STEP};

    /// Keys, and sums of four lanes each.
    struct Sums {
        keys: [__m256i; 2],
        sums: [__m256i; 2],
        step: __m256i,
    }

    impl Sums {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn new(first: u64) -> Sums {
            let keys = KEYS.map(|key| key.wrapping_add(STEP.wrapping_mul(first)).cast_signed());
            let [a, b, c, d, e, f, g, h] = keys;
            Sums {
                keys: [_mm256_set_epi64x(d, c, b, a), _mm256_set_epi64x(h, g, f, e)],
                sums: [_mm256_setzero_si256(); 2],
                step: _mm256_set1_epi64x(STEP.cast_signed()),
            }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn add(&mut self, halves: [__m256i; 2]) {
            for ((sum, key), half) in self.sums.iter_mut().zip(&mut self.keys).zip(halves) {
                let t = _mm256_xor_si256(half, *key);
                let product = _mm256_mul_epu32(t, _mm256_srli_epi64::<32>(t));
                *sum = _mm256_add_epi64(*sum, _mm256_add_epi64(product, t));
                *key = _mm256_add_epi64(*key, self.step);
            }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn end(self) -> u64 {
            let [low, high] = self.sums;
            let both = _mm256_add_epi64(low, high);
            [
                _mm256_extract_epi64::<0>(both),
                _mm256_extract_epi64::<1>(both),
                _mm256_extract_epi64::<2>(both),
                _mm256_extract_epi64::<3>(both),
            ]
            .iter()
            .fold(0, |all, sum| all.wrapping_add(sum.cast_unsigned()))
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(line: &[u8; LINE]) -> [__m256i; 2] {
        let start = line.as_ptr().cast::<__m256i>();
        // SAFETY:
        // - a line is 64 bytes long, and unaligned loads need no alignment.
        unsafe { [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))] }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sum(first: u64, lines: &[[u8; LINE]]) -> u64 {
        let mut sums = Sums::new(first);
        for line in lines {
            sums.add(load(line));
        }
        sums.end()
    }

    /// # Safety
    ///
    /// - with `PAST_THE_CACHE`, `to` is aligned to 32 bytes
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn copy<const PAST_THE_CACHE: bool>(
        first: u64,
        to: &mut [[u8; LINE]],
        from: &[[u8; LINE]],
    ) -> u64 {
        let mut sums = Sums::new(first);
        for (to, from) in to.iter_mut().zip(from) {
            let halves = load(from);
            let [low, high] = halves;
            let start = to.as_mut_ptr().cast::<__m256i>();
            // SAFETY:
            // - a line is 64 bytes long, and both halves lie in it.
            // - streaming stores need alignment, which the caller promises; they are visible to others in order only
            //   after `drain`, before which nobody else knows of the copy.
            unsafe {
                if PAST_THE_CACHE {
                    _mm256_stream_si256(start, low);
                    _mm256_stream_si256(start.add(1), high);
                } else {
                    _mm256_storeu_si256(start, low);
                    _mm256_storeu_si256(start.add(1), high);
                }
            }
            sums.add(halves);
        }
        sums.end()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use proptest::prelude::*;

    thread_local! {
        /// How often this thread has ordered its copies.
        pub(super) static DRAINS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_thread_that_copies_past_the_cache_orders_its_copy() {
        // Where a processor does more than it must, nothing else shows that it was left out.
        let from = vec![7_u8; 3 * BLOCK + 100];
        for past_the_cache in [false, true] {
            let (mut to, mut sums) = (vec![0; from.len()], [0; 4]);
            let before = DRAINS.get();
            let sum = copy_blocks(5, &mut to, &from, &mut sums, past_the_cache);
            assert_eq!((DRAINS.get() - before > 0, to), (past_the_cache, from.clone()));
            assert_eq!(sum, super::sum(first_line(5), &from));
            assert_eq!(sum, sums.iter().fold(0_u64, |all, sum| all.wrapping_add(*sum)));
        }
    }

    proptest! {
        #[test]
        fn all_ways_to_sum_agree(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            first in any::<u64>(),
            skew in 0_usize..64,
        ) {
            let lines = bytes.as_chunks::<LINE>().0;
            prop_assert_eq!(sum_whole(first, lines), sum_portable(first, lines));
            // One by one, and each padded.
            let one_by_one = bytes.chunks(LINE).enumerate().fold(0_u64, |all, (i, line)| {
                let mut padded = [0; LINE];
                padded[..line.len()].copy_from_slice(line);
                all.wrapping_add(sum(first.wrapping_add(i as u64), &padded))
            });
            prop_assert_eq!(sum(first, &bytes), one_by_one);
            for past_the_cache in [false, true] {
                let mut buffer = vec![0; bytes.len() + 128];
                let at_line = buffer.as_ptr().align_offset(LINE);
                for skew in [0, skew] {
                    let to = &mut buffer[at_line + skew..][..bytes.len()];
                    to.fill(0xaa);
                    prop_assert_eq!(copy(first, to, &bytes, past_the_cache), one_by_one);
                    prop_assert_eq!(&*to, &bytes[..]);
                }
            }
        }

        #[test]
        fn every_flipped_bit_is_noticed(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xff), any::<u8>()], 1..300),
            first in any::<u64>(),
        ) {
            let before = sum(first, &bytes);
            let mut flipped = bytes.clone();
            for bit in 0..bytes.len() * 8 {
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(sum(first, &flipped), before);
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn the_worst_words_notice_a_flipped_bit_too() {
        // The words for which one of the halves of `t` is all zeros or all ones.
        for half in [0_u64, 0xffff_ffff] {
            for other in [0_u64, 1, 0x8000_0000, 0xffff_ffff] {
                for t in [half << 32 | other, other << 32 | half] {
                    let word = t ^ KEYS[0];
                    let sum_of = |word: u64| {
                        let mut line = [0; LINE];
                        line[..8].copy_from_slice(&word.to_le_bytes());
                        sum(0, &line)
                    };
                    assert!((0..64).all(|bit| sum_of(word ^ 1 << bit) != sum_of(word)), "{t:x}");
                }
            }
        }
    }
}
