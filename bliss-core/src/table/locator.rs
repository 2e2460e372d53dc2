//! The arithmetic from a key to its only slot, for lookups and for the writer.

use super::layout::{HEADER_BYTES, Layout};

/// The region and the bucket of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) region: u64,
    /// Index of the bucket, and of its pilot, within the region.
    pub(crate) bucket: u64,
    /// What is left of the key after the region was taken from it; uniform within a region.
    pub(crate) fraction: u64,
}

#[inline]
fn high_product(a: u64, b: u64) -> u64 {
    (u128::from(a).wrapping_mul(u128::from(b)) >> 64) as u64
}

impl Probe {
    #[inline]
    pub(crate) fn new(key: u64, regions: u32, region_pilots: u32) -> Self {
        let regions = u64::from(regions);
        let fraction = key.wrapping_mul(regions);
        // Mixed, so that keys that differ in low bits only do not all share a bucket.
        let mixed = fraction.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bucket = high_product(mixed, u64::from(region_pilots));
        Self { region: high_product(key, regions), bucket, fraction }
    }
}

/// What a lookup needs of a table's layout, in few cache lines, with offsets in the publication.
#[derive(Clone, Copy, Debug)]
pub struct Locator {
    pilots_offset: usize,
    slots_offset: usize,
    regions: u32,
    region_pilots: u32,
    region_slots: u32,
    stride: u32,
    region_bytes: u32,
}

/// A key on its way to its slot.
#[derive(Clone, Copy, Debug)]
pub struct LookupState {
    /// The key; 0 is no row's.
    pub key: u64,
    fraction: u64,
    /// Offset of the region's slots.
    region_offset: usize,
    /// Offset of the key's pilot, and after [`Locator::resolve`] of its slot.
    pub offset: usize,
}

impl LookupState {
    /// No key: it is found nowhere.
    pub const NO_KEY: Self = Self { key: 0, fraction: 0, region_offset: 0, offset: usize::MAX };
}

impl Locator {
    /// Of no table.
    pub(crate) const NONE: Self = Self {
        pilots_offset: usize::MAX,
        slots_offset: 0,
        regions: 0,
        region_pilots: 0,
        region_slots: 0,
        stride: 0,
        region_bytes: 0,
    };

    /// For the table of this layout at `table_offset`.
    pub fn new(layout: &Layout, table_offset: usize) -> Self {
        Self {
            pilots_offset: table_offset + HEADER_BYTES,
            slots_offset: table_offset + layout.slots_at(),
            regions: layout.regions,
            region_pilots: layout.region_pilots,
            region_slots: layout.region_slots,
            stride: layout.stride,
            // At most 2^12 slots of at most 2^15 bytes.
            region_bytes: layout.region_slots * layout.stride,
        }
    }

    /// Distance of one slot from the next, in bytes.
    #[inline]
    pub fn stride(&self) -> usize {
        self.stride as usize
    }

    /// Starts the lookup of `key`: the offset of its pilot.
    #[inline]
    pub fn start(&self, key: u64) -> LookupState {
        let probe = Probe::new(key, self.regions, self.region_pilots);
        LookupState {
            key,
            fraction: probe.fraction,
            region_offset: self.slots_offset + probe.region as usize * self.region_bytes as usize,
            offset: self.pilots_offset
                + (probe.region * u64::from(self.region_pilots) + probe.bucket) as usize,
        }
    }

    /// The state of a key whose slot is known to be at `offset`.
    #[inline]
    pub(crate) fn at(key: u64, offset: usize) -> LookupState {
        LookupState { key, offset, ..LookupState::NO_KEY }
    }

    /// Continues with the pilot: the offset of the only slot that can hold the key.
    #[inline]
    pub fn resolve(&self, state: &mut LookupState, pilot: u8) {
        let slot = slot_in_region(state.fraction, pilot, self.region_slots);
        state.offset = state.region_offset + slot as usize * self.stride();
    }
}

/// The slot within a region of a key with this fraction, under this pilot: below `region_slots`.
#[inline]
pub(crate) fn slot_in_region(fraction: u64, pilot: u8, region_slots: u32) -> u64 {
    let seeded = fraction ^ (u64::from(pilot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The high half of the product depends on every bit of `seeded`.
    let mixed = seeded.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    (mixed * u64::from(region_slots)) >> 32
}
