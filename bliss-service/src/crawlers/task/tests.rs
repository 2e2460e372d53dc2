use super::*;
use crate::decode::Limits;
use crate::lists::{Column, ListDecoder, ListFormat};
use bliss_core::schema::Feature;

fn layer(text: &str) -> Arc<Layer> {
    let limits = Limits {
        max_bytes: 1 << 20,
        max_line_bytes: 1 << 10,
        max_decoded_bytes: 1 << 20,
        max_rows: None,
        min_rows: 0,
    };
    let feature = Feature::number("crawler");
    let column = Column { index: 0, feature, field: String::new(), rules: None };
    Arc::new(
        ListDecoder::new(ListFormat::Text, vec![column], limits).decode("list", text.as_bytes()).unwrap(),
    )
}

#[test]
fn networks_say_who_is_inside_and_only_all_of_them_who_is_not() {
    let of = |lists: &[(usize, Option<Arc<Layer>>, bool)], ip: &str| {
        RangeLists { lists: lists.to_vec() }.of(ClientId { ip: ip.parse().unwrap(), crawler: 3 })
    };
    let v4 = layer("192.0.2.0/24\n198.51.100.7\n");
    let v6 = layer("2001:db8::/32\n");
    let both =
        [(3, Some(v4.clone()), true), (3, Some(v6.clone()), true), (4, Some(layer("203.0.113.0/24")), true)];
    for (ip, expected) in [
        ("192.0.2.255", Ranges::Inside),
        ("198.51.100.7", Ranges::Inside),
        ("198.51.100.8", Ranges::Outside),
        ("::ffff:192.0.2.1", Ranges::Inside),
        ("2001:db8::1", Ranges::Inside),
        ("2001:db9::1", Ranges::Outside),
        ("203.0.113.1", Ranges::Outside),
    ] {
        assert_eq!(of(&both, ip), expected, "{ip}");
    }
    assert_eq!(of(&[], "192.0.2.1"), Ranges::None);
    // One that was not read, or is not good now: who is in no other one may be in that.
    for missing in [(3, None, false), (3, Some(v6), false)] {
        let lists = [(3, Some(v4.clone()), true), missing];
        assert_eq!(of(&lists, "192.0.2.1"), Ranges::Inside);
        assert_eq!(of(&lists, "203.0.113.1"), Ranges::Unknown);
    }
}

#[test]
fn addresses_of_no_stranger_are_not_asked_about() {
    for (ip, expected) in [
        ("66.249.66.1", true),
        ("192.0.2.1", true),
        ("2a00:1450::1", true),
        ("127.0.0.1", false),
        ("10.1.2.3", false),
        ("172.31.0.1", false),
        ("192.168.1.1", false),
        ("169.254.1.1", false),
        ("100.64.0.1", false),
        ("0.0.0.0", false),
        ("::1", false),
        ("::ffff:10.1.2.3", false),
        ("fd00::1", false),
        ("fe80::1", false),
    ] {
        assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
    }
}
