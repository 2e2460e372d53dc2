//! Who finds the longest prefix: BLISS and three libraries, all with one number for a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use bliss_core::build::{BuiltPrefixes, PrefixRows};
use bliss_core::prefixes::{Prefix, PrefixRowsRef, PrefixTable};

use super::mmdb;
use super::networks::Networks;

/// Finds the number of the longest network that an address is in; `u32::MAX` where it is in none.
pub trait Subject {
    /// The number.
    fn find(&self, address: IpAddr) -> u32;
}

/// What BLISS publishes, in memory.
///
/// # Errors
/// Where it cannot be built.
pub fn bliss(networks: &Networks) -> anyhow::Result<BuiltPrefixes> {
    let mut rows = PrefixRows::new(1);
    // Numbers below 2^24 are exact.
    for network in &networks.v4 {
        let prefix = Prefix::new(Ipv4Addr::from_bits(network.address).into(), network.bits)?;
        rows.push(prefix, 7, &[network.value as f32])?;
    }
    for network in &networks.v6 {
        let prefix = Prefix::new(Ipv6Addr::from_bits(network.address).into(), network.bits)?;
        rows.push(prefix, 7, &[network.value as f32])?;
    }
    Ok(rows.build()?)
}

impl Subject for PrefixRowsRef<'_> {
    #[inline]
    fn find(&self, address: IpAddr) -> u32 {
        let row = self.get(address.into());
        row.and_then(|row| row.values().next()).map_or(u32::MAX, |value| value as u32)
    }
}

/// BLISS without the row that its number leads to. Its numbers are those of rows, not those of networks.
#[derive(Debug)]
pub struct TableAlone<'a>(pub PrefixTable<'a>);

impl Subject for TableAlone<'_> {
    #[inline]
    fn find(&self, address: IpAddr) -> u32 {
        self.0.get(address.into()).unwrap_or(u32::MAX)
    }
}

/// A MaxMind DB file in memory.
#[derive(Debug)]
pub struct MaxMind(maxminddb::Reader<Vec<u8>>);

impl MaxMind {
    /// Writes a file of the networks, and opens it.
    ///
    /// # Errors
    /// Where the library refuses the file.
    pub fn new(networks: &Networks, values: u32) -> anyhow::Result<(Self, usize)> {
        let mut all: Vec<_> = networks.v6.iter().map(|n| (n.bits, n.address, n.value)).collect();
        all.extend(networks.v4.iter().map(|n| (n.bits + 96, u128::from(n.address), n.value)));
        all.sort_unstable();
        let mut writer = mmdb::Writer::new(values);
        all.iter().for_each(|(bits, address, value)| writer.insert(*address, *bits, *value));
        let bytes = writer.finish();
        let len = bytes.len();
        Ok((Self(maxminddb::Reader::from_source(bytes).context("the file that was written")?), len))
    }
}

impl Subject for MaxMind {
    #[inline]
    fn find(&self, address: IpAddr) -> u32 {
        let found = self.0.lookup(address).and_then(|found| found.decode::<u32>());
        found.ok().flatten().unwrap_or(u32::MAX)
    }
}

/// The crate `ip_network_table`, a tree bitmap.
pub struct Table(ip_network_table::IpNetworkTable<u32>);

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Table").field(&self.0.len()).finish()
    }
}

impl Table {
    /// Of all networks.
    ///
    /// # Errors
    /// Where the library refuses one.
    pub fn new(networks: &Networks) -> anyhow::Result<Self> {
        let mut table = ip_network_table::IpNetworkTable::new();
        for n in &networks.v4 {
            let network = ip_network::Ipv4Network::new(Ipv4Addr::from_bits(n.address), n.bits);
            table.insert(network.map_err(|_| anyhow::anyhow!("{n:?} is refused"))?, n.value);
        }
        for n in &networks.v6 {
            let network = ip_network::Ipv6Network::new(Ipv6Addr::from_bits(n.address), n.bits);
            table.insert(network.map_err(|_| anyhow::anyhow!("{n:?} is refused"))?, n.value);
        }
        Ok(Self(table))
    }
}

impl Subject for Table {
    #[inline]
    fn find(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(v4) => self.0.longest_match_ipv4(v4).map_or(u32::MAX, |(_, value)| *value),
            IpAddr::V6(v6) => self.0.longest_match_ipv6(v6).map_or(u32::MAX, |(_, value)| *value),
        }
    }
}

/// The crate `prefix-trie`.
pub struct Trie {
    v4: prefix_trie::PrefixMap<(u32, u8), u32>,
    v6: prefix_trie::PrefixMap<(u128, u8), u32>,
}

impl core::fmt::Debug for Trie {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Trie")
    }
}

impl Trie {
    /// Of all networks.
    pub fn new(networks: &Networks) -> Self {
        let mut trie = Self { v4: prefix_trie::PrefixMap::new(), v6: prefix_trie::PrefixMap::new() };
        for n in &networks.v4 {
            trie.v4.insert((n.address, n.bits), n.value);
        }
        for n in &networks.v6 {
            trie.v6.insert((n.address, n.bits), n.value);
        }
        trie
    }
}

impl Subject for Trie {
    #[inline]
    fn find(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&(v4.to_bits(), 32)).map_or(u32::MAX, |(_, value)| *value),
            IpAddr::V6(v6) => self.v6.get_lpm(&(v6.to_bits(), 128)).map_or(u32::MAX, |(_, value)| *value),
        }
    }
}
