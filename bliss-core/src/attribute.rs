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
//! A value that does not fit its kind counts as absent.

use core::net::{IpAddr, Ipv6Addr};

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
