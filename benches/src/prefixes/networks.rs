//! Networks as the Internet's routing tables and operators' lists have them, and addresses to look up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Prefix lengths of IPv4 and how many of 1,000 networks have them: a full routing table of 2025, and some lone addresses as lists
/// have them.
const V4_LENGTHS: [(u8, u32); 15] = [
    (8, 1),
    (12, 1),
    (14, 2),
    (15, 2),
    (16, 13),
    (17, 8),
    (18, 13),
    (19, 24),
    (20, 44),
    (21, 53),
    (22, 110),
    (23, 99),
    (24, 600),
    (28, 5),
    (32, 25),
];
/// The same of IPv6.
const V6_LENGTHS: [(u8, u32); 12] = [
    (20, 1),
    (28, 3),
    (29, 35),
    (32, 110),
    (36, 55),
    (40, 80),
    (42, 30),
    (44, 100),
    (46, 40),
    (48, 496),
    (56, 20),
    (128, 30),
];
/// One in so many networks is of IPv6.
const V6_ONE_IN: usize = 5;

/// A network, its address left-aligned as it is.
#[derive(Clone, Copy, Debug)]
pub struct Network<A> {
    /// Its first address.
    pub address: A,
    /// Its length.
    pub bits: u8,
    /// The number that it stands for.
    pub value: u32,
}

/// Networks of both families, each once, in no order.
#[derive(Debug, Default)]
pub struct Networks {
    /// IPv4.
    pub v4: Vec<Network<u32>>,
    /// IPv6.
    pub v6: Vec<Network<u128>>,
}

fn length(lengths: &[(u8, u32)], random: &mut SmallRng) -> u8 {
    let mut left = random.random_range(0..lengths.iter().map(|(_, share)| share).sum::<u32>());
    for (bits, share) in lengths {
        match left.checked_sub(*share) {
            Some(rest) => left = rest,
            None => return *bits,
        }
    }
    24
}

impl Networks {
    /// `count` networks with values below `values`. Networks lie in blocks that were given to one holder, whose value most of
    /// them have.
    pub fn new(count: usize, values: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(15);
        let mut networks = Self::default();
        let v6 = count / V6_ONE_IN;
        let mut seen = HashMap::new();
        let (mut block, mut holder) = (0_u32, 0);
        while networks.v4.len() < count - v6 {
            // A block is a /16, in which a holder has some 16 networks near each other.
            if random.random_ratio(1, 16) {
                (block, holder) =
                    (random.random_range(0x0100_0000..0xe000_0000), random.random_range(0..values));
            }
            let bits = length(&V4_LENGTHS, &mut random);
            let within = random.random_range(0..0x1_0000_u32);
            let address = (block & 0xffff_0000 | within) & (u32::MAX << (32 - bits));
            let value = if random.random_ratio(3, 4) { holder } else { random.random_range(0..values) };
            if seen.insert((address, bits), ()).is_none() {
                networks.v4.push(Network { address, bits, value });
            }
        }
        let mut seen = HashMap::new();
        // A MaxMind DB file has IPv4 below `::/96`, so no network of IPv6 may be there.
        let mut block = 0x2001_0db8_u128 << 96;
        while networks.v6.len() < v6 {
            if random.random_ratio(1, 16) {
                let top = u128::from(random.random_range(0x2000..0x2e00_u32));
                block = (top << 16 | u128::from(random.random_range(0..0x1_0000_u32))) << 96;
                holder = random.random_range(0..values);
            }
            let bits = length(&V6_LENGTHS, &mut random);
            let within = random.random::<u128>() >> 32;
            let address = (block | within) & (u128::MAX << (128 - bits));
            let value = if random.random_ratio(3, 4) { holder } else { random.random_range(0..values) };
            if seen.insert((address, bits), ()).is_none() {
                networks.v6.push(Network { address, bits, value });
            }
        }
        networks
    }

    /// Number of networks.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// IPv4 addresses, nine of ten in a network.
    pub fn addresses_v4(&self, count: usize) -> Vec<IpAddr> {
        let mut random = SmallRng::seed_from_u64(4);
        let address = |_| {
            let network = self.v4[random.random_range(0..self.v4.len())];
            let host = random.random::<u32>() & u32::MAX.checked_shr(network.bits.into()).unwrap_or(0);
            let any = random.random_range(0x0100_0000..0xe000_0000);
            let bits = if random.random_ratio(9, 10) { network.address | host } else { any };
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        };
        (0..count).map(address).collect()
    }

    /// The same of IPv6.
    pub fn addresses_v6(&self, count: usize) -> Vec<IpAddr> {
        let mut random = SmallRng::seed_from_u64(6);
        let address = |_| {
            let network = self.v6[random.random_range(0..self.v6.len())];
            let host = random.random::<u128>() & u128::MAX.checked_shr(network.bits.into()).unwrap_or(0);
            let any = 0x2000_u128 << 112 | random.random::<u128>() >> 4;
            let bits = if random.random_ratio(9, 10) { network.address | host } else { any };
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        };
        (0..count).map(address).collect()
    }
}
