//! Several lists as one table: what an address has is what each list says of it.
//!
//! Lists nest: a /8 in one, a /24 of it in another. A table answers with its longest network alone, so each network's row holds,
//! for each list, what that list's longest network around it says. That is enough: of the networks of all lists, the longest that an
//! address is in lies in the longest one of every single list, since both have that address in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bliss_core::build::{BuiltPrefixes, PrefixRows, PrefixesError};
use bliss_core::prefixes::Prefix;

use super::layer::{Layer, Network};

/// An address that networks are made of.
trait Bits: Copy + Ord {
    /// The last address of the network of so many bits that begins here.
    fn last(self, bits: u8) -> Self;
    fn address(self) -> IpAddr;
}

impl Bits for u32 {
    fn last(self, bits: u8) -> Self {
        self | u32::MAX.checked_shr(bits.into()).unwrap_or(0)
    }

    fn address(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Bits for u128 {
    fn last(self, bits: u8) -> Self {
        self | u128::MAX.checked_shr(bits.into()).unwrap_or(0)
    }

    fn address(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

/// The table of all layers; what no layer says of a network has its value in `defaults`, one for each column. Rows are dated
/// `updated_at`, in seconds since the epoch.
///
/// # Errors
/// There are too many networks for a table.
pub fn overlay(layers: &[&Layer], defaults: &[f32], updated_at: u32) -> Result<BuiltPrefixes, PrefixesError> {
    let mut rows = PrefixRows::new(defaults.len());
    sweep(layers, |layer| &layer.v4, defaults, updated_at, &mut rows)?;
    sweep(layers, |layer| &layer.v6, defaults, updated_at, &mut rows)?;
    rows.build()
}

fn sweep<A: Bits>(
    layers: &[&Layer],
    of: impl Fn(&Layer) -> &[Network<A>],
    defaults: &[f32],
    updated_at: u32,
    rows: &mut PrefixRows,
) -> Result<(), PrefixesError> {
    let mut networks = Vec::with_capacity(layers.iter().map(|layer| of(layer).len()).sum());
    for layer in layers {
        networks.extend(of(layer).iter().map(|network| (network.address, network.bits, *layer, network.row)));
    }
    networks.sort_unstable_by_key(|(address, bits, ..)| (*address, *bits));
    // Networks around the current one, the longest on top, with the last address of each; and their values, one after the other.
    let mut around: Vec<A> = Vec::new();
    let mut values: Vec<f32> = Vec::new();
    let width = defaults.len();
    let mut row: Vec<f32> = Vec::with_capacity(width);
    for same in networks.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some(&(address, bits, ..)) = same.first() else { continue };
        while around.last().is_some_and(|last| *last < address) {
            around.pop();
            values.truncate(around.len() * width);
        }
        let outer = values.len().checked_sub(width).and_then(|from| values.get(from..));
        row.clear();
        row.extend(outer.filter(|_| !around.is_empty()).unwrap_or(defaults));
        for (_, _, layer, number) in same {
            for (column, value) in layer.row(*number) {
                if let Some(held) = row.get_mut(column) {
                    *held = value;
                }
            }
        }
        // What says nothing new needs no network of its own.
        let is_new = around.is_empty()
            || outer.is_none_or(|outer| outer.iter().zip(&row).any(|(a, b)| a.to_bits() != b.to_bits()));
        if is_new {
            // The bits beyond its length are 0, as in the prefix that it was.
            if let Ok(prefix) = Prefix::new(address.address(), bits) {
                rows.push(prefix, updated_at, &row)?;
            }
        }
        around.push(address.last(bits));
        values.extend(&row);
    }
    Ok(())
}
