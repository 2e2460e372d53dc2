//! A request's attributes and their canonical bytes.
//!
//! Text and binary forms of one value have the same canonical bytes, and only those enter a key:
//!
//! | kind | accepted | canonical bytes |
//! |---|---|---|
//! | `ip` | `192.0.2.1`, `2001:db8::1`; 4 or 16 bytes in network order | 4 bytes, or 16; an IPv4-mapped IPv6 address becomes its 4 bytes; bits beyond the key part's prefix are 0 |
//! | `hex` | digits of either case; the bytes themselves | the bytes |
//! | `string` | any bytes | the same |
//! | `u64` | decimal digits; 8 little-endian bytes; a number | 8 bytes, little-endian |
//!
//! A value that does not fit its kind counts as absent. The built-in attributes `path`, `method`, `host`, `user_agent`,
//! `referrer`, `browser` and `crawler` are what [`crate::http`] makes of the text that a server has; that of `browser` and `crawler` is a
//! user agent.
//!
//! Where a model takes an attribute as a category, the category is its canonical text ([`Canonical::text`]):
//!
//! | kind | canonical text |
//! |---|---|
//! | `ip` | dotted decimal; for IPv6 the form of RFC 5952 |
//! | `hex` | lower-case digits |
//! | `string` | its bytes |
//! | `u64` | decimal digits |

use core::fmt::Write as _;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::http::{Rule, browser_number};
use crate::schema::AttributeKind;

/// An attribute's value as the caller has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text: an address, hexadecimal digits, a string, or a decimal number, as the attribute's kind says.
    Text(&'a [u8]),
    /// The bytes themselves: a packed address, a digest, a string, or a little-endian number.
    Binary(&'a [u8]),
    /// A number.
    U64(u64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text.as_bytes())
    }
}

/// Canonical bytes of a value: short ones held inside, long ones borrowed from the caller.
#[derive(Clone, Copy, Debug)]
pub struct Canonical<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Repr<'a> {
    /// Up to 64 bytes, and how many of them count.
    Inline([u8; 64], u8),
    Borrowed(&'a [u8]),
}

impl<'a> Canonical<'a> {
    fn inline(bytes: &[u8]) -> Option<Self> {
        let mut held = [0; 64];
        held.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { repr: Repr::Inline(held, u8::try_from(bytes.len()).ok()?) })
    }

    /// The canonical bytes of `value` read as `kind`, or `None` where it does not fit.
    pub fn new(kind: AttributeKind, value: Value<'a>) -> Option<Self> {
        match (kind, value) {
            (AttributeKind::String, Value::Text(b) | Value::Binary(b)) => {
                Some(Self { repr: Repr::Borrowed(b) })
            }
            (AttributeKind::Ip, Value::Text(text)) => {
                match core::str::from_utf8(text).ok()?.parse::<IpAddr>().ok()? {
                    IpAddr::V4(v4) => Self::inline(&v4.octets()),
                    IpAddr::V6(v6) => Self::ipv6(v6.octets()),
                }
            }
            (AttributeKind::Ip, Value::Binary(b)) => match <[u8; 16]>::try_from(b) {
                Ok(v6) => Self::ipv6(v6),
                Err(_) => Self::inline(<&[u8; 4]>::try_from(b).ok()?),
            },
            (AttributeKind::Hex { bytes }, Value::Text(text)) => {
                let mut held = [0; 64];
                const_hex::decode_to_slice(text, held.get_mut(..usize::from(bytes))?).ok()?;
                Some(Self { repr: Repr::Inline(held, bytes) })
            }
            (AttributeKind::Hex { bytes }, Value::Binary(b)) => {
                if b.len() == usize::from(bytes) {
                    Self::inline(b)
                } else {
                    None
                }
            }
            (AttributeKind::U64, Value::U64(n)) => Self::inline(&n.to_le_bytes()),
            (AttributeKind::U64, Value::Binary(b)) => Self::inline(<&[u8; 8]>::try_from(b).ok()?),
            (AttributeKind::U64, Value::Text(text)) => {
                if !text.first()?.is_ascii_digit() {
                    return None;
                }
                Self::inline(&core::str::from_utf8(text).ok()?.parse::<u64>().ok()?.to_le_bytes())
            }
            (AttributeKind::Ip | AttributeKind::Hex { .. } | AttributeKind::String, Value::U64(_)) => None,
        }
    }

    /// The canonical bytes of `value` where `rule` says what a string counts as; `None` where it does not fit, or counts as
    /// absent. A host with upper case has at most 64 bytes; `$host` of nginx has none, and may be longer.
    pub fn by_rule(kind: AttributeKind, rule: Rule, value: Value<'a>) -> Option<Self> {
        if let (Rule::Browser, AttributeKind::U64, Value::Text(agent)) = (rule, kind, value) {
            return Self::inline(&browser_number(agent)?.to_le_bytes());
        }
        let (AttributeKind::String, Value::Text(bytes) | Value::Binary(bytes)) = (kind, value) else {
            return Self::new(kind, value);
        };
        let bytes = rule.apply(bytes)?;
        if rule == Rule::Host && bytes.iter().any(u8::is_ascii_uppercase) {
            let mut host = Self::inline(bytes)?;
            if let Repr::Inline(held, _) = &mut host.repr {
                held.make_ascii_lowercase();
            }
            return Some(host);
        }
        Some(Self { repr: Repr::Borrowed(bytes) })
    }

    fn ipv6(octets: [u8; 16]) -> Option<Self> {
        match Ipv6Addr::from(octets).to_ipv4_mapped() {
            Some(v4) => Self::inline(&v4.octets()),
            None => Self::inline(&octets),
        }
    }

    /// The canonical bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.repr {
            Repr::Inline(held, len) => held.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Borrowed(b) => b,
        }
    }

    /// The canonical text of a value of this kind, written to `room` where it is not its bytes.
    pub fn text<'t>(&'t self, kind: AttributeKind, room: &'t mut TextRoom) -> &'t [u8] {
        let bytes = self.bytes();
        match kind {
            AttributeKind::String => return bytes,
            AttributeKind::Hex { .. } => {
                let digits = room.bytes.get_mut(..2 * bytes.len()).unwrap_or_default();
                room.len =
                    if const_hex::encode_to_slice(bytes, digits).is_ok() { 2 * bytes.len() } else { 0 };
            }
            AttributeKind::Ip => match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
                (Ok(v4), _) => room.print(Ipv4Addr::from(v4)),
                (_, Ok(v6)) => room.print(Ipv6Addr::from(v6)),
                _ => room.len = 0,
            },
            AttributeKind::U64 => match <[u8; 8]>::try_from(bytes) {
                Ok(number) => room.print(u64::from_le_bytes(number)),
                Err(_) => room.len = 0,
            },
        }
        room.bytes.get(..room.len).unwrap_or_default()
    }

    /// For an address: the same with all bits beyond the prefix set to 0. Other lengths stay as they are.
    pub fn masked(mut self, v4_prefix: Option<u8>, v6_prefix: Option<u8>) -> Self {
        if let Repr::Inline(held, len) = &mut self.repr {
            let prefix = match len {
                4 => v4_prefix,
                16 => v6_prefix,
                _ => None,
            };
            if let Some(prefix) = prefix {
                for (i, byte) in held.iter_mut().take(usize::from(*len)).enumerate() {
                    let kept = usize::from(prefix).saturating_sub(i * 8).min(8);
                    *byte &= match kept {
                        0 => 0,
                        kept => 0xff << (8 - kept),
                    };
                }
            }
        }
        self
    }
}

/// Room for the longest canonical text that is not the value's own bytes: the digits of 64 bytes.
#[derive(Clone, Copy, Debug)]
pub struct TextRoom {
    bytes: [u8; 128],
    len: usize,
}

impl Default for TextRoom {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl TextRoom {
    /// Addresses and numbers have less than 40 characters, so that nothing is cut.
    fn print(&mut self, value: impl core::fmt::Display) {
        self.len = 0;
        let _ = write!(self, "{value}");
    }
}

impl core::fmt::Write for TextRoom {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttributeKind::{Hex, Ip, String, U64};

    fn text(kind: AttributeKind, text: &str) -> Option<Vec<u8>> {
        Canonical::new(kind, text.into()).map(|c| c.bytes().to_vec())
    }

    fn binary(kind: AttributeKind, bytes: &[u8]) -> Option<Vec<u8>> {
        Canonical::new(kind, Value::Binary(bytes)).map(|c| c.bytes().to_vec())
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(text(Ip, "192.0.2.1").unwrap(), [192, 0, 2, 1]);
        assert_eq!(text(Ip, "::ffff:192.0.2.1"), text(Ip, "192.0.2.1"));
        assert_eq!(binary(Ip, &[192, 0, 2, 1]), text(Ip, "192.0.2.1"));
        assert_eq!(text(Ip, "2001:DB8:0::1"), text(Ip, "2001:db8::1"));
        assert_eq!(binary(Ip, &text(Ip, "2001:db8::1").unwrap()), text(Ip, "2001:db8::1"));
        for wrong in ["", "192.0.2", "192.0.2.256", "unix:", "fe80::1%eth0", "1.2.3.4 ", "\u{fc}"] {
            assert_eq!(text(Ip, wrong), None, "{wrong:?}");
        }
        assert_eq!(binary(Ip, &[1, 2, 3]), None);
        assert!(Canonical::new(Ip, Value::U64(1)).is_none());
    }

    #[test]
    fn each_value_has_one_text() {
        let text_of = |kind, value: Value<'_>| {
            let canonical = Canonical::new(kind, value).unwrap();
            std::string::String::from_utf8(canonical.text(kind, &mut TextRoom::default()).to_vec()).unwrap()
        };
        for (kind, given, expected) in [
            (Ip, "::ffff:192.0.2.1", "192.0.2.1"),
            (Ip, "2001:DB8:0:0:0::0001", "2001:db8::1"),
            (Ip, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            (Hex { bytes: 2 }, "00fF", "00ff"),
            (Hex { bytes: 64 }, &"aB".repeat(64), &"ab".repeat(64)),
            (U64, "0018446744073709551615", "18446744073709551615"),
            (U64, "0", "0"),
            (String, "Shop.Example", "Shop.Example"),
        ] {
            assert_eq!(text_of(kind, given.into()), expected);
        }
        assert_eq!(text_of(Ip, Value::Binary(&[192, 0, 2, 1])), "192.0.2.1");
        assert_eq!(text_of(Hex { bytes: 2 }, Value::Binary(&[0xfe, 1])), "fe01");
        assert_eq!(text_of(U64, Value::U64(64512)), "64512");
        assert_eq!(text_of(U64, Value::Binary(&[1, 1, 0, 0, 0, 0, 0, 0])), "257");
        // A room that was used before.
        let mut room = TextRoom::default();
        let long = Canonical::new(Ip, "2001:db8::1".into()).unwrap();
        assert_eq!(long.text(Ip, &mut room), b"2001:db8::1");
        assert_eq!(Canonical::new(U64, Value::U64(7)).unwrap().text(U64, &mut room), b"7");
    }

    #[test]
    fn prefixes_cut_addresses() {
        let cut = |t: &str, v4, v6| {
            Canonical::new(Ip, t.into()).unwrap().masked(Some(v4), Some(v6)).bytes().to_vec()
        };
        assert_eq!(cut("192.0.2.255", 24, 48), [192, 0, 2, 0]);
        assert_eq!(cut("192.0.2.255", 25, 48), [192, 0, 2, 128]);
        assert_eq!(cut("192.0.2.255", 0, 48), [0; 4]);
        assert_eq!(cut("192.0.2.255", 32, 48), [192, 0, 2, 255]);
        assert_eq!(cut("2001:db8:1:2::3", 24, 48), text(Ip, "2001:db8:1::").unwrap());
        assert_eq!(cut("2001:db8:1:2::3", 24, 128), text(Ip, "2001:db8:1:2::3").unwrap());
    }

    #[test]
    fn digests_and_numbers_have_one_form() {
        let kind = Hex { bytes: 4 };
        assert_eq!(text(kind, "DeadBeef").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(binary(kind, &[0xde, 0xad, 0xbe, 0xef]), text(kind, "deadbeef"));
        for wrong in ["", "deadbee", "deadbeeff", "deadbeeg", "0xdeadbe"] {
            assert_eq!(text(kind, wrong), None, "{wrong:?}");
        }
        assert_eq!(text(U64, "258").unwrap(), [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Canonical::new(U64, Value::U64(258)).unwrap().bytes(), text(U64, "258").unwrap());
        for wrong in ["", "-1", "+1", "18446744073709551616", "1.0"] {
            assert_eq!(text(U64, wrong), None, "{wrong:?}");
        }
        assert_eq!(text(String, "").unwrap(), [0u8; 0]);
    }
}
