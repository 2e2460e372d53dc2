//! The hash of a category, as CatBoost computes it: the low half of CityHash64, version 1.0.2.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const MUL: u64 = 0x9ddf_ea08_eb38_2d69;

/// The number that stands for a category in a model's inputs (pass it bit-cast with `f32::from_bits`).
///
/// ```
/// // What CatBoost itself computes for these strings.
/// assert_eq!(bliss_catboost::category_hash(b""), 0x2f90_404f);
/// ```
#[must_use]
pub fn category_hash(text: &[u8]) -> u32 {
    city_hash_64(text) as u32
}

/// Eight bytes at an offset; zeros where the text ends (never reached: each caller knows the length).
fn at(text: &[u8], offset: usize) -> u64 {
    text.get(offset..).and_then(|t| t.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn at_32(text: &[u8], offset: usize) -> u64 {
    text.get(offset..).and_then(|t| t.first_chunk::<4>()).map_or(0, |b| u64::from(u32::from_le_bytes(*b)))
}

fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn hash_16(low: u64, high: u64) -> u64 {
    let a = mix((low ^ high).wrapping_mul(MUL));
    mix((high ^ a).wrapping_mul(MUL)).wrapping_mul(MUL)
}

fn city_hash_64(text: &[u8]) -> u64 {
    match text.len() {
        0..=16 => up_to_16(text),
        17..=32 => up_to_32(text),
        33..=64 => up_to_64(text),
        _ => longer(text),
    }
}

fn up_to_16(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    match *text {
        [] => K2,
        [first, ..] if len < 4 => {
            let middle = text.get(text.len() >> 1).copied().unwrap_or(first);
            let last = text.last().copied().unwrap_or(first);
            let y = u64::from(first) + (u64::from(middle) << 8);
            let z = len + (u64::from(last) << 2);
            mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K3)).wrapping_mul(K2)
        }
        _ if len <= 8 => hash_16(len + (at_32(text, 0) << 3), at_32(text, text.len() - 4)),
        _ => {
            let b = at(text, text.len() - 8);
            hash_16(at(text, 0), b.wrapping_add(len).rotate_right(text.len() as u32)) ^ b
        }
    }
}

fn up_to_32(text: &[u8]) -> u64 {
    let n = text.len();
    let a = at(text, 0).wrapping_mul(K1);
    let b = at(text, 8);
    let c = at(text, n - 8).wrapping_mul(K2);
    let d = at(text, n - 16).wrapping_mul(K0);
    let low = a.wrapping_sub(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let high = a.wrapping_add((b ^ K3).rotate_right(20)).wrapping_sub(c).wrapping_add(n as u64);
    hash_16(low, high)
}

/// Half of the hash of 33 to 64 bytes: two words from the start and the end of 32 bytes at `offset`.
fn half(text: &[u8], offset: usize, mut a: u64, z: u64) -> (u64, u64) {
    let b = a.wrapping_add(z).rotate_right(52);
    let mut c = a.rotate_right(37);
    a = a.wrapping_add(at(text, offset + 8));
    c = c.wrapping_add(a.rotate_right(7));
    a = a.wrapping_add(at(text, offset + 16));
    (a.wrapping_add(z), b.wrapping_add(a.rotate_right(31)).wrapping_add(c))
}

fn up_to_64(text: &[u8]) -> u64 {
    let n = text.len();
    let seed = at(text, n - 16).wrapping_add(n as u64).wrapping_mul(K0);
    let (vf, vs) = half(text, 0, at(text, 0).wrapping_add(seed), at(text, 24));
    let start = at(text, 16).wrapping_add(at(text, n - 32));
    let (wf, ws) = half(text, n - 32, start, at(text, n - 8));
    let r = mix(vf.wrapping_add(ws).wrapping_mul(K2).wrapping_add(wf.wrapping_add(vs).wrapping_mul(K0)));
    mix(r.wrapping_mul(K0).wrapping_add(vs)).wrapping_mul(K2)
}

fn weak_32(text: &[u8], offset: usize, a: u64, b: u64) -> (u64, u64) {
    let (w, x, y, z) = (at(text, offset), at(text, offset + 8), at(text, offset + 16), at(text, offset + 24));
    let a = a.wrapping_add(w);
    let b = b.wrapping_add(a).wrapping_add(z).rotate_right(21);
    let sum = a.wrapping_add(x).wrapping_add(y);
    (sum.wrapping_add(z), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

fn longer(text: &[u8]) -> u64 {
    let n = text.len();
    let len = n as u64;
    let mut x = at(text, 0);
    let mut y = at(text, n - 16) ^ K1;
    let mut z = at(text, n - 56) ^ K0;
    let mut v = weak_32(text, n - 64, len, y);
    let mut w = weak_32(text, n - 32, len.wrapping_mul(K1), K0);
    z = z.wrapping_add(mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    let mut offset = 0;
    while offset < (n - 1) & !63 {
        let sum = x.wrapping_add(y).wrapping_add(v.0).wrapping_add(at(text, offset + 16));
        x = sum.rotate_right(37).wrapping_mul(K1) ^ w.1;
        let sum = y.wrapping_add(v.1).wrapping_add(at(text, offset + 48));
        y = sum.rotate_right(42).wrapping_mul(K1) ^ v.0;
        z = (z ^ w.0).rotate_right(33);
        v = weak_32(text, offset, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = weak_32(text, offset + 32, z.wrapping_add(w.1), y);
        (x, z) = (z, x);
        offset += 64;
    }
    let low = hash_16(v.0, w.0).wrapping_add(mix(y).wrapping_mul(K1)).wrapping_add(z);
    hash_16(low, hash_16(v.1, w.1).wrapping_add(x))
}
