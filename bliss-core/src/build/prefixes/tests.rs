//! Against a naive matcher, and with damaged bytes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::prefixes::{Address, Prefix, PrefixTable};

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text.as_bytes()).unwrap()
}

fn naive(prefixes: &[(Prefix, u32)], address: Address) -> Option<u32> {
    let matching = prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
    matching.max_by_key(|(prefix, _)| prefix.bits()).map(|(_, value)| *value)
}

fn build(prefixes: &[(Prefix, u32)]) -> Vec<u8> {
    let mut builder = PrefixTableBuilder::default();
    prefixes.iter().for_each(|(prefix, value)| builder.push(*prefix, *value).unwrap());
    builder.build().unwrap()
}

/// Addresses near each other, so that prefixes lie in each other and nodes of all kinds come about.
pub(crate) fn near_address() -> impl Strategy<Value = IpAddr> {
    let crowded = prop_oneof![Just(0_u32), 0..8_u32, Just(u32::MAX), any::<u32>()];
    let v4 = (crowded.clone(), any::<u8>(), any::<u8>()).prop_map(|(top, third, low)| {
        Ipv4Addr::from_bits(top << 24 | 0x0a_00_00 | u32::from(third & 3) << 8 | u32::from(low))
    });
    let v6 = (crowded, any::<u8>(), any::<u16>(), prop_oneof![Just(0_u64), 0..300_u64, any::<u64>()])
        .prop_map(|(top, third, fourth, low)| {
            let high = u128::from(top << 28 | 0x0001_0db8) << 96;
            Ipv6Addr::from_bits(
                high | u128::from(third & 3) << 88 | u128::from(fourth) << 64 | u128::from(low),
            )
        });
    let mapped = v4.clone().prop_map(|v4| v4.to_ipv6_mapped());
    prop_oneof![v4.prop_map(IpAddr::V4), v6.prop_map(IpAddr::V6), mapped.prop_map(IpAddr::V6)]
}

pub(crate) fn near_prefix() -> impl Strategy<Value = Prefix> {
    (near_address(), any::<u8>()).prop_map(|(address, bits)| {
        let bits = bits % if address.is_ipv4() { 33 } else { 129 };
        match Prefix::new(address, bits) {
            Ok(prefix) => prefix,
            Err(crate::prefixes::PrefixError::HostBits(prefix)) => prefix,
            Err(error) => unreachable!("{error}"),
        }
    })
}

/// Ends of the prefixes and the addresses beside them.
fn edges(prefixes: &[(Prefix, u32)]) -> impl Iterator<Item = Address> {
    prefixes.iter().flat_map(|(prefix, _)| match prefix.address() {
        Address::V4(first) => {
            let last = first | u32::MAX.checked_shr(prefix.bits().into()).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(Address::V4)
        }
        Address::V6(first) => {
            let last = first | u128::MAX.checked_shr(prefix.bits().into()).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|address| IpAddr::V6(Ipv6Addr::from_bits(address)).into())
        }
    })
}

fn compare(prefixes: Vec<(Prefix, u32)>, addresses: &[IpAddr]) {
    // Of a prefix that is there twice the first counts.
    let unique: std::collections::BTreeMap<_, _> = prefixes.into_iter().rev().collect();
    let prefixes: Vec<_> = unique.into_iter().collect();
    let bytes = build(&prefixes);
    let table = PrefixTable::open(&bytes).unwrap();
    assert_eq!(table.layout().prefixes(), prefixes.len() as u64);
    assert_eq!(table.layout().bytes(), bytes.len());
    for address in addresses.iter().map(|address| Address::from(*address)).chain(edges(&prefixes)) {
        assert_eq!(table.get(address), naive(&prefixes, address), "{address}");
    }
}

proptest! {
    #[test]
    fn p7_a_table_of_prefixes_answers_as_a_naive_matcher_does(
        prefixes in proptest::collection::vec((near_prefix(), 0..20_u32), 0..200),
        addresses in proptest::collection::vec(near_address(), 200),
    ) {
        compare(prefixes, &addresses);
    }

    #[test]
    fn damaged_tables_never_panic(
        prefixes in proptest::collection::vec((near_prefix(), 0..20_u32), 0..200),
        addresses in proptest::collection::vec(near_address(), 50),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut builder = PrefixTableBuilder::default();
        prefixes.iter().for_each(|(prefix, value)| builder.push(*prefix, *value).unwrap());
        // Of two values for one prefix nothing is built.
        let Ok(mut bytes) = builder.build() else { return Ok(()) };
        let layout = *PrefixTable::open(&bytes).unwrap().layout();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = &bytes[..cut.index(bytes.len())];
        for address in addresses.iter().map(|address| Address::from(*address)) {
            for bytes in [&bytes, cut] {
                PrefixTable::with_layout(bytes, layout).get(address);
                let _ = PrefixTable::open(bytes).map(|table| table.get(address));
            }
        }
    }
}

/// Enough of them for a root of 16 bits, of networks as the Internet has them and of lone addresses.
#[test]
fn p7_large_tables_answer_as_a_naive_matcher_does() {
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let mut networks = std::collections::HashMap::new();
    for i in 0..60_000 {
        let bits = [8, 12, 16, 19, 20, 22, 23, 24, 24, 24, 28, 32][random() as usize % 12];
        let address = random() & (u32::MAX << (32 - bits));
        networks.insert((Address::V4(address), bits as u8), i % 500);
        let bits = [20, 29, 32, 36, 40, 44, 48, 48, 48, 56, 64, 128][random() as usize % 12];
        let address =
            u128::from(random() >> 4 | 0x2000_0000) << 96 | u128::from(random()) << 64 | u128::from(random());
        networks.insert((Address::V6(address & (u128::MAX << (128 - bits))), bits as u8), i % 500);
    }
    let mut builder = PrefixTableBuilder::default();
    for ((address, bits), value) in &networks {
        builder.push(prefix(&format!("{address}/{bits}")), *value).unwrap();
    }
    let bytes = builder.build().unwrap();
    let table = PrefixTable::open(&bytes).unwrap();
    let naive = |address: Address| match address {
        Address::V4(a) => (0..=32).rev().find_map(|bits| {
            networks
                .get(&(Address::V4(a & u32::MAX.checked_shl(32 - bits).unwrap_or(0)), bits as u8))
                .copied()
        }),
        Address::V6(a) => (0..=128).rev().find_map(|bits| {
            networks
                .get(&(Address::V6(a & u128::MAX.checked_shl(128 - bits).unwrap_or(0)), bits as u8))
                .copied()
        }),
    };
    let near: Vec<_> = networks.keys().map(|(address, _)| *address).collect();
    for (i, near) in near.into_iter().enumerate() {
        let address = match near {
            Address::V4(a) => Address::V4(if i % 2 == 0 { random() } else { a.wrapping_add(random() % 300) }),
            Address::V6(a) => Address::V6(a.wrapping_add(u128::from(random()) << (random() % 80))),
        };
        assert_eq!(table.get(address), naive(address), "{address}");
    }
}

#[test]
fn what_cannot_be_built_is_named() {
    let mut builder = PrefixTableBuilder::default();
    builder.push(prefix("192.0.2.0/24"), 1).unwrap();
    builder.push(prefix("::ffff:192.0.2.0/120"), 1).unwrap();
    assert!(builder.clone().build().is_ok(), "twice with one value");
    builder.push(prefix("::ffff:192.0.2.0/120"), 2).unwrap();
    assert_eq!(builder.build(), Err(PrefixesError::Duplicate(prefix("192.0.2.0/24"))));
    let refused = PrefixTableBuilder::default().push(prefix("::/0"), u32::MAX).unwrap_err();
    assert!(refused.to_string().contains("::/0"), "{refused}");
}

#[test]
fn small_tables_are_small() {
    assert_eq!(build(&[]).len(), 64 + 2 * 64);
    let lone: Vec<_> = (0..7).map(|i| (prefix(&format!("2001:db8:{i}::1")), 0)).collect();
    assert!(build(&lone).len() < 1024 + 1024, "{}", build(&lone).len());
}
