//! Reading a table: safe code, whatever the bytes say.

use super::layout::{Layout, ROWS_AT, SLOT_HEAD_BYTES, TableError, u32_at, u64_at};
use super::locator::Locator;

/// A table in borrowed bytes.
///
/// Every access is checked against the slice, so that wrong bytes give a wrong answer at worst.
#[derive(Clone, Copy, Debug)]
pub struct TableRef<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

/// A row found under its key.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// When the row was last updated, in seconds since the Unix epoch.
    pub updated_at: u32,
    columns: &'a [u8],
}

impl<'a> Row<'a> {
    /// The row of `columns` columns in the slot at offset `at` of `bytes`, if it is `key`'s. Key 0 is that of empty slots.
    #[inline]
    pub fn at(bytes: &'a [u8], at: usize, key: u64, columns: usize) -> Option<Self> {
        let slot = bytes.get(at..)?.get(..SLOT_HEAD_BYTES + columns * 4)?;
        let (held, rest) = slot.split_first_chunk::<8>()?;
        let (updated_at, columns) = rest.split_first_chunk::<4>()?;
        (u64::from_le_bytes(*held) == key)
            .then_some(Self { updated_at: u32::from_le_bytes(*updated_at), columns })
    }

    /// The columns as `f32` bit patterns; a category is the bits of its hash.
    pub fn values(&self) -> impl ExactSizeIterator<Item = f32> + 'a {
        self.columns.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
    }

    /// Copies as many columns as `out` takes; both have the table's number of columns.
    #[inline]
    pub fn copy_to(&self, out: &mut [f32]) {
        copy_columns(self.columns.as_chunks::<4>().0, out);
    }
}

/// Copies as many columns as both have, without a call of `memcpy`, which would cost as much as the rest of a lookup:
/// beginning and end of what is not much longer than a register, which may overlap.
#[inline]
pub(crate) fn copy_columns(from: &[[u8; 4]], to: &mut [f32]) {
    let len = from.len().min(to.len());
    let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) else { return };
    match len {
        0 => {}
        1..4 => {
            copy_ends::<1>(from, to);
            if let (Some(from), Some(to)) = (from.get(1), to.get_mut(1)) {
                *to = f32::from_le_bytes(*from);
            }
        }
        4..8 => copy_ends::<4>(from, to),
        8..16 => copy_ends::<8>(from, to),
        16 => {
            if let (Some(from), Some(to)) = (from.first_chunk::<16>(), to.first_chunk_mut::<16>()) {
                *to = from.map(f32::from_le_bytes);
            }
        }
        _ => {
            for (to, from) in to.as_chunks_mut::<16>().0.iter_mut().zip(from.as_chunks::<16>().0) {
                *to = from.map(f32::from_le_bytes);
            }
            copy_ends::<16>(from, to);
        }
    }
}

/// Copies the first `N` and the last `N` values.
#[inline]
fn copy_ends<const N: usize>(from: &[[u8; 4]], to: &mut [f32]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = from.map(f32::from_le_bytes);
    }
    if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut::<N>()) {
        *to = from.map(f32::from_le_bytes);
    }
}

impl<'a> TableRef<'a> {
    /// A table at the start of `bytes`.
    ///
    /// # Errors
    /// Where [`Layout::read`] refuses it.
    pub fn open(bytes: &'a [u8]) -> Result<Self, TableError> {
        Ok(Self { layout: Layout::read(bytes)?, bytes })
    }

    /// A table whose layout was read from these bytes before. Bytes that do not fit it give wrong answers, no more.
    #[inline]
    pub fn with_layout(bytes: &'a [u8], layout: Layout) -> Self {
        Self { bytes, layout }
    }

    /// Sizes of its parts.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The table's bytes, with its header and without what may follow it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.get(..self.layout.bytes()).unwrap_or_default()
    }

    /// Number of rows, as the header says.
    pub fn rows(&self) -> u64 {
        u64_at(self.bytes, ROWS_AT)
    }

    /// The row of `key`.
    pub fn get(&self, key: u64) -> Option<Row<'a>> {
        let locator = Locator::new(&self.layout, 0);
        let mut state = locator.start(key);
        let pilot = *self.bytes.get(state.offset)?;
        locator.resolve(&mut state, pilot);
        Row::at(self.bytes, state.offset, key, self.layout.columns()).filter(|_| key != 0)
    }

    /// All rows with their keys, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Row<'a>)> + use<'a> {
        self.rows_in(0..self.layout.slots())
    }

    /// The rows in some of the slots, with their keys. Slots beyond
    /// [their number](Layout::slots) do not count.
    pub fn rows_in(&self, slots: core::ops::Range<usize>) -> impl Iterator<Item = (u64, Row<'a>)> + use<'a> {
        let (layout, bytes) = (self.layout, self.bytes);
        let all = bytes.get(layout.slots_at()..layout.bytes()).unwrap_or_default();
        let from = all.get(slots.start.saturating_mul(layout.stride())..).unwrap_or_default();
        from.chunks_exact(layout.stride()).take(slots.len()).filter_map(move |slot| {
            let columns = slot.get(SLOT_HEAD_BYTES..)?.get(..layout.columns() * 4)?;
            let key = u64_at(slot, 0);
            (key != 0).then_some((key, Row { updated_at: u32_at(slot, 8), columns }))
        })
    }
}

/// Asks the processor to load the line in which item `at` begins: a hint without effect on what the program computes,
/// whatever the index.
#[inline]
pub fn prefetch<T>(items: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY:
        // - SSE is part of every x86-64 processor
        // - a prefetch reads nothing architecturally and never faults, so the address may be any; `wrapping_add` makes
        //   no claim about it
        unsafe { _mm_prefetch::<_MM_HINT_T0>(items.as_ptr().wrapping_add(at).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, at);
}
