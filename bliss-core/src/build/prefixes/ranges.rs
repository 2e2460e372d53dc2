//! From prefixes, which may lie in each other, to ranges, which do not.

// The writer's side: a panic here is the daemon's, never a worker's.
#![allow(clippy::indexing_slicing)]

use crate::prefixes::AddressBits;

/// An address that ranges are made of.
pub(super) trait RangeAddress: AddressBits + core::fmt::Debug {
    const ZERO: Self;
    const MAX: Self;
    /// What prefixes are sorted by: address, then length.
    type Order: Ord;
    fn order(self, bits: u8) -> Self::Order;
    /// The last address of the prefix of so many bits that begins here.
    fn last(self, bits: u8) -> Self;
    /// The address after this one, which is not the last.
    fn next(self) -> Self;
    /// Whether only the first `bits` bits may be set.
    fn begins(self, bits: u32) -> bool;
    /// Little-endian words.
    fn words(self) -> impl Iterator<Item = u32>;
}

macro_rules! range_address {
    ($address:ty, $order:ty, $order_of:expr) => {
        impl RangeAddress for $address {
            const ZERO: Self = 0;
            const MAX: Self = <$address>::MAX;
            type Order = $order;
            fn order(self, bits: u8) -> $order {
                $order_of(self, bits)
            }
            fn last(self, bits: u8) -> Self {
                self | <$address>::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
            }
            fn next(self) -> Self {
                self + 1
            }
            fn begins(self, bits: u32) -> bool {
                self.checked_shl(bits).unwrap_or(0) == 0
            }
            fn words(self) -> impl Iterator<Item = u32> {
                (0..<$address>::BITS / 32).map(move |word| (self >> (32 * word)) as u32)
            }
        }
    };
}

range_address!(u32, u64, |address: u32, bits: u8| u64::from(address) << 8 | u64::from(bits));
range_address!(u128, (u128, u8), |address: u128, bits: u8| (address, bits));

/// A prefix on its way into a table, with what its entry will be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network<A> {
    pub(super) address: A,
    pub(super) bits: u8,
    pub(super) entry: u32,
}

/// Sorts prefixes and takes out those that are there twice; of two with different values it returns one.
pub(super) fn sort<A: RangeAddress>(networks: &mut Vec<Network<A>>) -> Result<(), Network<A>> {
    networks.sort_unstable_by_key(|network| network.address.order(network.bits));
    let same = |a: &Network<A>, b: &Network<A>| (a.address, a.bits) == (b.address, b.bits);
    if let Some(twice) = networks.windows(2).find(|w| same(&w[0], &w[1]) && w[0].entry != w[1].entry) {
        return Err(twice[0]);
    }
    networks.dedup_by(|a, b| same(a, b));
    Ok(())
}

/// Where each range begins and its entry, in ascending order, from the first address on; neighbours have different entries.
/// `networks` are sorted.
pub(super) fn flatten<A: RangeAddress>(networks: &[Network<A>]) -> Vec<(A, u32)> {
    let mut ranges = Ranges(Vec::with_capacity(networks.len() + networks.len() / 2 + 1));
    ranges.begin(A::ZERO, 0);
    // Prefixes around the current one, the longest on top: their last addresses and entries.
    let mut around: Vec<(A, u32)> = Vec::with_capacity(A::BITS as usize + 1);
    let outer = |around: &Vec<(A, u32)>| around.last().map_or(0, |(_, entry)| *entry);
    for network in networks {
        while let Some(&(last, _)) = around.last()
            && last < network.address
        {
            around.pop();
            ranges.begin(last.next(), outer(&around));
        }
        ranges.begin(network.address, network.entry);
        around.push((network.address.last(network.bits), network.entry));
    }
    while let Some((last, _)) = around.pop() {
        if last != A::MAX {
            ranges.begin(last.next(), outer(&around));
        }
    }
    ranges.0
}

struct Ranges<A>(Vec<(A, u32)>);

impl<A: RangeAddress> Ranges<A> {
    /// From `start` on addresses have this entry; starts come in ascending order, and of equal ones the last counts.
    fn begin(&mut self, start: A, entry: u32) {
        if self.0.last().is_some_and(|(last, _)| *last == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, before)| *before != entry) {
            self.0.push((start, entry));
        }
    }
}
