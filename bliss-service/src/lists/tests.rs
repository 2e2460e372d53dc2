use std::io::Read as _;
use std::net::IpAddr;

use bliss_core::prefixes::{Address, Prefix};
use bliss_core::schema::FeatureKind;
use proptest::prelude::*;

use super::*;

#[path = "../../fuzz/location_file.rs"]
mod location_file;
#[path = "../../fuzz/mmdb_file.rs"]
pub(crate) mod mmdb_file;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_line_bytes: 1 << 10,
    max_decoded_bytes: 1 << 20,
    max_rows: None,
    min_rows: 1,
};

fn feature(name: &str, kind: FeatureKind, default: f32) -> Feature {
    Feature { name: name.to_owned(), kind, default, min: None, max: None }
}

fn member(index: usize) -> Column {
    Column { index, feature: feature("x", FeatureKind::F32, 0.0), field: String::new(), rules: None }
}

fn decoder(format: ListFormat) -> ListDecoder {
    ListDecoder::new(format, vec![member(0)], LIMITS)
}

/// The values of an address.
fn at(layers: &[&Layer], defaults: &[f32], address: &str) -> Option<Vec<f32>> {
    let built = overlay(layers, defaults, 7).unwrap();
    let address: IpAddr = address.parse().unwrap();
    built.open().unwrap().get(address.into()).map(|row| row.values().collect())
}

fn has(layer: &Layer, address: &str) -> bool {
    at(&[layer], &[0.0], address) == Some(vec![1.0])
}

#[test]
fn lists_of_lines_are_read() {
    let text = "\u{feff}# a netset\n; spamhaus\n\n192.0.2.0/24\r\n  198.51.100.7  # one\n203.0.113.0/26 ; SBL1\n2001:DB8::/32\n\
                ::ffff:10.0.0.0/104\n172.16.0.1-172.16.0.6\n172.17.0.9 - 172.17.0.9\n2001:db9::1-2001:db9::4\n192.0.2.0/24";
    let layer = decoder(ListFormat::Text).decode("l", text.as_bytes()).unwrap();
    for address in [
        "192.0.2.9",
        "198.51.100.7",
        "203.0.113.63",
        "2001:db8:ffff::",
        "10.255.0.1",
        "::ffff:10.1.2.3",
        "::ffff:192.0.2.1",
        "172.16.0.1",
        "172.16.0.6",
        "172.17.0.9",
        "2001:db9::1",
        "2001:db9::4",
    ] {
        assert!(has(&layer, address), "{address}");
    }
    for address in [
        "192.0.3.0",
        "198.51.100.6",
        "203.0.113.64",
        "2001:db7::",
        "172.16.0.0",
        "172.16.0.7",
        "172.17.0.8",
        "2001:db9::",
        "2001:db9::5",
        "::10.0.0.1",
    ] {
        assert!(!has(&layer, address), "{address}");
    }
    // 192.0.2.0/24 once; .1, .2/31, .4/31, .6.
    assert_eq!(layer.len(), 5 + 4 + 1 + 3);
}

#[test]
fn what_ipset_saves_is_read() {
    let text = "create bad hash:net family inet hashsize 1024 maxelem 65536 comment\nflush bad\nadd bad 10.0.0.0/8\n\
                add bad 10.1.0.0/16 nomatch\nadd bad 192.0.2.1 timeout 300 comment \"# nomatch; really\"\nadd bad 10.1.2.3 -exist\nCOMMIT\n";
    let layer = decoder(ListFormat::Text).decode("l", text.as_bytes()).unwrap();
    for (address, expected) in [
        ("10.0.0.1", true),
        ("10.1.0.1", false),
        ("10.1.2.3", true),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
    ] {
        assert_eq!(has(&layer, address), expected, "{address}");
    }
    assert_eq!(layer.len(), 4);
}

#[test]
fn wrong_lists_are_refused_by_line() {
    let long = format!("# {}", "x".repeat(2000));
    let wrong: [(&[u8], Reason, &str); 22] = [
        (b"", Reason::TooFewRows, "0 networks, expected at least 1"),
        (b"# nothing\n", Reason::TooFewRows, "min_rows"),
        (b"192.0.2.1\nexample.com", Reason::BadKey, "line 2: expected an address or a network"),
        (b"192.0.2.1/24", Reason::BadKey, "the network is 192.0.2.0/24"),
        (b"192.0.2.1/24", Reason::BadKey, "host_bits = \"mask\""),
        (b"192.0.2.1 192.0.2.2", Reason::BadKey, "line 1"),
        (b"192.0.2.1,192.0.2.2", Reason::BadKey, "line 1"),
        (b"192.0.2.0/33", Reason::BadKey, "length of 0 to 32"),
        (b"010.0.0.1", Reason::BadKey, "line 1"),
        (b"\xff\xfe1", Reason::BadKey, "line 1"),
        (b"0.0.0.0/0", Reason::OutOfRange, "every address"),
        (b"::/0", Reason::OutOfRange, "every address"),
        (b"0.0.0.0-255.255.255.255", Reason::OutOfRange, "every address"),
        (b"192.0.2.9-192.0.2.1", Reason::BadKey, "ends before it begins"),
        (b"192.0.2.9-2001:db8::", Reason::BadKey, "one family"),
        (b"192.0.2.9-", Reason::BadKey, "expected a range"),
        (b"fe80::1%eth0", Reason::BadKey, "line 1"),
        (b"add a 192.0.2.1\nadd b 192.0.2.2", Reason::Undecodable, "line 2: a second set, \"b\""),
        (b"add a", Reason::BadKey, "line 1"),
        (b"add a 192.0.2.1,tcp:80", Reason::BadKey, "line 1"),
        (b"add a 10.0.0.0/8\nadd a 10.0.0.0/8 nomatch", Reason::DuplicateKey, "10.0.0.0/8 appears twice"),
        (long.as_bytes(), Reason::TooLarge, "line 1: more than 1024 bytes"),
    ];
    for (bytes, reason, message) in wrong {
        let refusal = decoder(ListFormat::Text).decode("l", bytes).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.contains(message) && refusal.message.starts_with('l'), "{refusal}");
    }
    let masked = ListDecoder { host_bits: HostBits::Mask, ..decoder(ListFormat::Text) };
    assert!(has(&masked.decode("l", &b"192.0.2.1/24"[..]).unwrap(), "192.0.2.200"));
}

/// Lines without end: of comments, of addresses, of one line, all within the limits.
#[test]
fn lists_are_limited() {
    let mut decoder = decoder(ListFormat::Text);
    let mut refused = |limits: Limits, line: &str| {
        decoder.limits = limits;
        let endless = std::io::repeat(0).take(0).chain(Repeat(line.as_bytes().to_vec(), 0));
        decoder.decode("l", std::io::BufReader::new(endless)).unwrap_err()
    };
    let many = Limits { max_bytes: 1 << 30, max_rows: Some(10_000), ..LIMITS };
    assert_eq!(refused(many, "192.0.2.1\n").reason, Reason::TooManyRows);
    assert_eq!(refused(LIMITS, "#\n").reason, Reason::TooLarge);
    assert_eq!(refused(LIMITS, "x").reason, Reason::TooLarge);
    let memory = refused(Limits { max_bytes: 1 << 30, ..LIMITS }, "192.0.2.1\n");
    assert!(memory.message.contains("max_decoded_bytes"), "{memory}");
    decoder.timeout = std::time::Duration::ZERO;
    decoder.limits = Limits { max_decoded_bytes: 1 << 30, max_bytes: 1 << 30, ..LIMITS };
    let endless = std::io::BufReader::new(Repeat(b"192.0.2.1\n".to_vec(), 0));
    assert!(decoder.decode("l", endless).unwrap_err().message.contains("timeout"));
}

/// The same bytes again and again.
struct Repeat(Vec<u8>, usize);

impl std::io::Read for Repeat {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        for byte in out.iter_mut() {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(out.len())
    }
}

#[test]
fn published_ranges_are_read() {
    let google = r#"{"syncToken":"1","creationTime":"2026-11-27T23:00:00","prefixes":[{"ipv6Prefix":"2001:db8::/32"},
                     {"ipv4Prefix":"192.0.2.0/24","service":"x"}]}"#;
    let amazon = r#"{"prefixes":[{"ip_prefix":"192.0.2.0/24","region":"a"}],"ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/32","region":"b"}]}"#;
    for text in [google, amazon, r#"["192.0.2.0/24", "2001:db8::/32"]"#] {
        let layer = decoder(ListFormat::Json).decode("j", text.as_bytes()).unwrap();
        assert!(has(&layer, "192.0.2.1") && has(&layer, "2001:db8::1") && layer.len() == 2, "{text}");
    }
    let github = r#"{"verifiable":true,"ssh_keys":["x"],"hooks":["192.0.2.0/24"],"web":["198.51.100.0/24"],"domains":{"a":["b"]}}"#;
    let members = |members: &[&str]| {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        ListDecoder { members, ..decoder(ListFormat::Json) }.decode("j", github.as_bytes())
    };
    assert!(!has(&members(&["hooks"]).unwrap(), "198.51.100.1"));
    assert!(has(&members(&["hooks", "web"]).unwrap(), "198.51.100.1"));
    assert!(members(&["hooks", "actions"]).unwrap_err().message.contains("there is no member \"actions\""));
    assert!(members(&[]).unwrap_err().message.contains("name the members"));
    for (text, reason, message) in [
        ("", Reason::Undecodable, "not JSON"),
        ("{", Reason::Undecodable, "not JSON"),
        ("{\"prefixes\":[]}", Reason::TooFewRows, "min_rows"),
        ("{\"prefixes\":[{\"ipv5Prefix\":\"192.0.2.0/24\"}]}", Reason::Undecodable, "without `ipv4Prefix`"),
        ("{\"prefixes\":{}}", Reason::Undecodable, "array of networks"),
        ("{\"prefixes\":[{\"ipv4Prefix\":\"192.0.2.1/24\"}]}", Reason::BadKey, "entry 1: bits beyond"),
        ("{\"prefixes\":[{\"ipv4Prefix\":\"192.0.2.1\"}, 5]}", Reason::Undecodable, "invalid type"),
        ("[\"192.0.2.1\"] x", Reason::Undecodable, "trailing"),
        ("[\"0.0.0.0/0\"]", Reason::OutOfRange, "every address"),
    ] {
        let refusal = decoder(ListFormat::Json).decode("j", text.as_bytes()).unwrap_err();
        assert_eq!(refusal.reason, reason, "{text}: {refusal}");
        assert!(refusal.message.contains(message), "{text}: {refusal}");
    }
}

fn columns() -> Vec<Column> {
    let rules = Some(Arc::new(NameRules::shipped().unwrap()));
    let category = crate::category::category("");
    let column =
        |index, feature, field: &str| Column { index, feature, field: field.to_owned(), rules: None };
    vec![
        column(0, feature("country", FeatureKind::Category, category), "country.iso_code"),
        column(1, feature("asn", FeatureKind::F32, -1.0), "autonomous_system_number"),
        column(2, feature("eu", FeatureKind::F32, 0.0), "country.is_in_european_union"),
        column(3, feature("latitude", FeatureKind::F32, 0.0), "location.latitude"),
        column(4, feature("part", FeatureKind::Category, category), "subdivisions.0.iso_code"),
        Column {
            rules,
            ..column(5, feature("hosting", FeatureKind::F32, 0.0), "autonomous_system_organization")
        },
    ]
}

#[test]
fn fields_of_maxmind_db_files_become_columns() {
    let category = crate::category::category;
    let defaults = [category(""), -1.0, 0.0, 0.0, category(""), 0.0];
    let de = Some(vec![category("DE"), 64496.0, 1.0, 52.5, category("BE"), 1.0]);
    let us = Some(vec![category("US"), 64497.0, 0.0, 52.5, category("BE"), 0.0]);
    for record_bits in [24, 28, 32] {
        let bytes = mmdb_file::example(record_bits);
        let layer = ListDecoder::new(ListFormat::Mmdb, columns(), LIMITS).decode("m", &bytes[..]).unwrap();
        let bits =
            |values: Option<Vec<f32>>| values.map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        for (address, expected) in [
            ("192.0.2.1", de.clone()),
            ("::ffff:192.0.2.1", de.clone()),
            ("198.51.100.255", us.clone()),
            ("203.0.113.1", Some(defaults.to_vec())),
            ("203.0.113.200", None),
            ("192.0.3.1", None),
            ("2001:db8::1", us.clone()),
            ("2001:db8:1::1", de.clone()),
            // IPv4 shown again is not taken twice.
            ("2002:c000:201::", None),
        ] {
            assert_eq!(
                bits(at(&[&layer], &defaults, address)),
                bits(expected),
                "{address}, {record_bits} bits"
            );
        }
        assert_eq!(layer.made_at.unwrap().as_second(), 1_700_000_000);
    }
    let mut v4 = mmdb_file::File::new(false);
    v4.insert_v4(
        [192, 0, 2, 0],
        24,
        &mmdb_file::Field::Map(vec![("autonomous_system_number", mmdb_file::Field::U32(5))]),
    );
    let asn = vec![Column { index: 0, ..columns().remove(1) }];
    let layer = ListDecoder::new(ListFormat::Mmdb, asn, LIMITS).decode("m", &v4.bytes(24)[..]).unwrap();
    assert_eq!(at(&[&layer], &[0.0], "192.0.2.9"), Some(vec![5.0]));
    // One network around all of IPv4.
    let mut all = mmdb_file::File::new(true);
    all.insert(0, 1, &mmdb_file::Field::Map(vec![("autonomous_system_number", mmdb_file::Field::U32(6))]));
    let asn = vec![Column { index: 0, ..columns().remove(1) }];
    let layer = ListDecoder::new(ListFormat::Mmdb, asn, LIMITS).decode("m", &all.bytes(24)[..]).unwrap();
    assert_eq!(
        (at(&[&layer], &[0.0], "192.0.2.9"), at(&[&layer], &[0.0], "2001::")),
        (Some(vec![6.0]), Some(vec![6.0]))
    );
}

#[test]
fn wrong_maxmind_db_files_are_refused() {
    let read = |bytes: &[u8], columns| ListDecoder::new(ListFormat::Mmdb, columns, LIMITS).decode("m", bytes);
    let good = mmdb_file::example(24);
    let number = |field: &str| vec![Column { field: field.to_owned(), ..member(0) }];
    for (bytes, columns, reason, message) in [
        (&b""[..], number("x"), Reason::Undecodable, "not a MaxMind DB file"),
        (&good[..good.len() / 2], number("x"), Reason::Undecodable, "not a MaxMind DB file"),
        (&good[..], number("country.iso_code"), Reason::Undecodable, "expected a number, found \"DE\""),
        (&good[..], number("country"), Reason::Undecodable, "a number, a text or a boolean"),
    ] {
        let refusal = read(bytes, columns).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.contains(message), "{refusal}");
    }
    // A tree whose records all lead to the next node has 2^128 ways through it.
    let mut file = mmdb_file::File::new(true);
    file.insert(0, 128, &mmdb_file::Field::Map(vec![]));
    let mut bytes = file.bytes(32);
    for node in 0..127_usize {
        let next = (node as u32 + 1).to_be_bytes();
        bytes[8 * node..][..4].copy_from_slice(&next);
        bytes[8 * node + 4..][..4].copy_from_slice(&next);
    }
    let refusal = read(&bytes, number("x")).unwrap_err();
    assert!(refusal.message.contains("is no tree"), "{refusal}");
    // And one that leads back.
    bytes[8 * 50..][..4].copy_from_slice(&[0; 4]);
    assert!(read(&bytes, number("x")).unwrap_err().message.contains("is no tree"));
}

#[test]
fn location_databases_are_read() {
    let bytes = location_file::example();
    let rules = Some(Arc::new(NameRules::shipped().unwrap()));
    let category = crate::category::category;
    let column = |index, kind, default, field: &str| Column {
        index,
        feature: feature("x", kind, default),
        field: field.to_owned(),
        rules: None,
    };
    let columns = vec![
        Column { rules, ..column(0, FeatureKind::F32, 0.0, "as_name") },
        column(1, FeatureKind::F32, 0.0, "asn"),
        column(2, FeatureKind::Category, category("?"), "country"),
    ];
    let layer = ListDecoder::new(ListFormat::Location, columns, LIMITS).decode("d", &bytes[..]).unwrap();
    let of = |address| {
        let values = at(&[&layer], &[0.0, 0.0, 0.0], address)?;
        Some((values[0], values[1], values[2].to_bits()))
    };
    assert_eq!(of("10.0.0.1"), Some((0.0, 64497.0, category("DE").to_bits())));
    assert_eq!(of("10.1.0.1"), Some((1.0, 64496.0, category("?").to_bits())));
    assert_eq!(of("2001:db8::5"), Some((1.0, 64496.0, category("US").to_bits())));
    assert_eq!(of("11.0.0.1"), None);
    let read = |bytes: &[u8]| {
        ListDecoder::new(ListFormat::Location, vec![Column { field: "asn".into(), ..member(0) }], LIMITS)
            .decode("d", bytes)
    };
    for wrong in [&b"LOCDBXX\x02"[..], b"LOCDBXX\x01", &bytes[..64], &bytes[..bytes.len() - 60], b""] {
        assert_eq!(read(wrong).unwrap_err().reason, Reason::Undecodable);
    }
    // A node that leads to itself.
    let mut looped = bytes.clone();
    let tree = u32::from_be_bytes(bytes[44..48].try_into().unwrap()) as usize;
    looped[tree + 12..][..8].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    assert!(read(&looped).unwrap_err().message.contains("is no tree"));
}

/// Debian's own file, where the package is installed.
#[test]
fn the_location_database_of_debian_is_read() {
    let path = "/usr/share/libloc-location/location.db";
    let Ok(file) = std::fs::File::open(path) else {
        eprintln!(
            "SKIPPED: the_location_database_of_debian_is_read: {path} is not there (Debian's libloc-database)"
        );
        return;
    };
    let rules = Some(Arc::new(NameRules::shipped().unwrap()));
    let hosting = Column { rules, field: "as_name".into(), ..member(0) };
    let limits = Limits { max_bytes: 128 << 20, max_decoded_bytes: 128 << 20, ..LIMITS };
    let start = Instant::now();
    let layer = ListDecoder::new(ListFormat::Location, vec![hosting], limits)
        .decode(path, std::io::BufReader::new(file))
        .unwrap();
    let read = start.elapsed();
    let built = overlay(&[&layer], &[0.0], 7).unwrap();
    eprintln!(
        "{} networks read in {read:?}, with the table of {} in {:?}",
        layer.len(),
        built.len(),
        start.elapsed()
    );
    let rows = built.open().unwrap();
    let is_hosting = |address: &str| {
        rows.get(address.parse::<IpAddr>().unwrap().into()).and_then(|row| row.values().next()) == Some(1.0)
    };
    // Hetzner, OVH, Google; Deutsche Telekom, Comcast, Google Fiber.
    for (address, expected) in [
        ("88.198.0.1", true),
        ("51.75.0.1", true),
        ("8.8.8.8", true),
        ("80.128.0.1", false),
        ("73.0.0.1", false),
        ("136.32.0.1", false),
    ] {
        assert_eq!(is_hosting(address), expected, "{address}");
    }
}

fn near_address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..3_u8, 0..4_u8, any::<u8>()).prop_map(|(a, b, c)| IpAddr::from([10, a, b, c]));
    let v6 =
        (0..3_u16, 0..3_u16, any::<u16>()).prop_map(|(a, b, c)| IpAddr::from([0x2001, a, 0, 0, 0, 0, b, c]));
    let mapped = (0..3_u8, any::<u8>())
        .prop_map(|(a, c)| IpAddr::V6(std::net::Ipv4Addr::new(10, a, 0, c).to_ipv6_mapped()));
    prop_oneof![v4, v6, mapped]
}

fn near_prefix() -> impl Strategy<Value = Prefix> {
    (near_address(), any::<u8>()).prop_map(|(address, bits)| {
        let bits = bits % if address.is_ipv4() { 33 } else { 129 };
        match Prefix::new(address, bits) {
            Ok(prefix) | Err(bliss_core::prefixes::PrefixError::HostBits(prefix)) => prefix,
            Err(error) => unreachable!("{error}"),
        }
    })
}

/// What each list alone says of an address.
fn naive(lists: &[Vec<(Prefix, u8)>], defaults: &[f32], address: Address) -> Vec<f32> {
    let longest = |list: &Vec<(Prefix, u8)>| {
        let around = list.iter().filter(|(prefix, _)| prefix.contains(address));
        around.max_by_key(|(prefix, _)| prefix.bits()).map(|(_, value)| f32::from(*value))
    };
    lists.iter().zip(defaults).map(|(list, default)| longest(list).unwrap_or(*default)).collect()
}

proptest! {
    /// Lists that nest in each other and in themselves.
    #[test]
    fn l1_lists_over_each_other_say_what_each_says_alone(
        lists in proptest::collection::vec(proptest::collection::vec((near_prefix(), 0..3_u8), 0..40), 1..5),
        addresses in proptest::collection::vec(near_address(), 100),
    ) {
        let unique = |list: Vec<(Prefix, u8)>| -> Vec<_> {
            list.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
        };
        let lists: Vec<_> = lists.into_iter().map(unique).collect();
        let defaults: Vec<f32> = (0..lists.len()).map(|at| -(at as f32)).collect();
        let layers: Vec<Layer> = lists.iter().enumerate().map(|(column, list)| {
            let mut builder = LayerBuilder::new(vec![column], Limits { min_rows: 0, ..LIMITS }, None, None);
            for (prefix, value) in list {
                let row = builder.row(&[f32::from(*value)]).unwrap();
                builder.push(*prefix, row).unwrap();
            }
            builder.finish().unwrap()
        }).collect();
        let built = overlay(&layers.iter().collect::<Vec<_>>(), &defaults, 7).unwrap();
        let rows = built.open().unwrap();
        let ends = lists.iter().flatten().map(|(prefix, _)| prefix.address());
        for address in addresses.iter().map(|address| Address::from(*address)).chain(ends) {
            let found = rows.get(address).map_or(defaults.clone(), |row| row.values().collect());
            prop_assert_eq!(found, naive(&lists, &defaults, address), "{}", address);
        }
    }

    #[test]
    fn any_bytes_are_a_list_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[0-9a-f:./#; \n-]{0,200}") {
        for format in [ListFormat::Text, ListFormat::Json, ListFormat::Mmdb, ListFormat::Location] {
            let _ = decoder(format).decode("l", &bytes[..]);
            let _ = decoder(format).decode("l", text.as_bytes());
        }
    }

    #[test]
    fn damaged_databases_are_read_or_refused(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        for (format, mut bytes) in [(ListFormat::Mmdb, mmdb_file::example(28)), (ListFormat::Location, location_file::example())] {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
            let columns = vec![Column { field: "country".to_owned(), ..member(0) }];
            let _ = ListDecoder::new(format, columns, LIMITS).decode("d", &bytes[..end]);
        }
    }

    /// A range is the networks of its addresses and of no others.
    #[test]
    fn ranges_have_their_addresses_and_no_others(a in 0..70_000_u32, b in 0..70_000_u32, probe in 0..70_000_u32) {
        let (first, last) = (a.min(b), a.max(b));
        let address = |at: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + at);
        let text = format!("{}-{}", address(first), address(last));
        let layer = decoder(ListFormat::Text).decode("l", text.as_bytes()).unwrap();
        for at in [first, last, first.saturating_sub(1), last + 1, probe] {
            prop_assert_eq!(has(&layer, &address(at).to_string()), (first..=last).contains(&at), "{} in {}", address(at), text);
        }
    }
}
