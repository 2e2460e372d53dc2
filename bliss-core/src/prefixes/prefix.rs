//! Addresses, and networks of them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address in one form: an IPv4-mapped IPv6 address is its IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// IPv4, the first byte on top.
    V4(u32),
    /// IPv6, the first byte on top.
    V6(u128),
}

impl Address {
    /// Of its canonical bytes ([`crate::attribute`]): 4, or 16. `None` for another length.
    #[inline]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        match <[u8; 4]>::try_from(bytes) {
            Ok(v4) => Some(Self::V4(u32::from_be_bytes(v4))),
            Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        }
    }

    /// Number of bits: 32 or 128.
    #[inline]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4(_) => 32,
            Self::V6(_) => 128,
        }
    }

    /// The same with all bits beyond the first `bits` set to 0.
    fn masked(self, bits: u8) -> Self {
        let beyond = u32::from(self.bits().saturating_sub(bits));
        match self {
            Self::V4(address) => Self::V4(address & u32::MAX.checked_shl(beyond).unwrap_or(0)),
            Self::V6(address) => Self::V6(address & u128::MAX.checked_shl(beyond).unwrap_or(0)),
        }
    }
}

impl From<Ipv6Addr> for Address {
    #[inline]
    fn from(address: Ipv6Addr) -> Self {
        match address.to_ipv4_mapped() {
            Some(v4) => Self::V4(v4.to_bits()),
            None => Self::V6(address.to_bits()),
        }
    }
}

impl From<IpAddr> for Address {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => Ipv4Addr::from_bits(*address).fmt(f),
            Self::V6(address) => Ipv6Addr::from_bits(*address).fmt(f),
        }
    }
}

/// A network: the addresses that begin with some bits. All its further bits are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: Address,
    bits: u8,
}

/// Why a text or an address with a length is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No address, or more than an address and a length.
    #[error("expected an address or a network, such as 192.0.2.0/24 or 2001:db8::/32")]
    Form,
    /// The length is none.
    #[error("expected a prefix length of 0 to {most} behind the slash")]
    Length {
        /// The longest there is.
        most: u8,
    },
    /// Bits beyond the length are set, so that it is not known whether the address or the length is meant.
    #[error("bits beyond the prefix length are set; the network is {0}, a single address has no length")]
    HostBits(Prefix),
}

impl Prefix {
    /// The addresses that share their first `bits` bits with `address`.
    ///
    /// # Errors
    /// [`PrefixError::Length`], and [`PrefixError::HostBits`] where further bits of `address` are set.
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, PrefixError> {
        let canonical = Address::from(address);
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most {
            return Err(PrefixError::Length { most });
        }
        let (network, bits) = match (address, canonical) {
            (IpAddr::V6(whole), Address::V4(_)) if bits < 96 => (Address::V6(whole.to_bits()), bits),
            (IpAddr::V6(_), Address::V4(_)) => (canonical, bits - 96),
            _ => (canonical, bits),
        };
        let prefix = Self { address: network.masked(bits), bits };
        if prefix.address == network { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }

    /// The network of this length that `address` is in.
    #[cfg(feature = "build")]
    pub(crate) fn around(address: Address, bits: u8) -> Self {
        Self { address: address.masked(bits), bits }
    }

    /// Reads `192.0.2.0/24` or `2001:db8::/32`; an address by itself is a network of one.
    ///
    /// # Errors
    /// [`PrefixError`] says what was expected.
    pub fn parse(text: &[u8]) -> Result<Self, PrefixError> {
        let text = core::str::from_utf8(text).map_err(|_| PrefixError::Form)?;
        let (address, length) = text.split_once('/').map_or((text, None), |(a, length)| (a, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Form)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let Some(length) = length else { return Self::new(address, most) };
        let is_plain = length.len() <= 3 && length.bytes().all(|digit| digit.is_ascii_digit());
        let bits = length.parse().ok().filter(|_| is_plain).ok_or(PrefixError::Length { most })?;
        Self::new(address, bits)
    }

    /// Its first address.
    #[inline]
    pub fn address(self) -> Address {
        self.address
    }

    /// Its length.
    #[inline]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether `address` is in it.
    #[inline]
    pub fn contains(self, address: Address) -> bool {
        self.address.bits() == address.bits() && address.masked(self.bits) == self.address
    }

    /// Whether all addresses of `other` are in it.
    #[inline]
    pub fn contains_prefix(self, other: Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_one_form() {
        let text = |text: &str| Prefix::parse(text.as_bytes()).map(|prefix| prefix.to_string());
        for (given, expected) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(text(given).unwrap(), expected, "{given}");
        }
        for wrong in ["", "/", "192.0.2/24", "192.0.2.0 /24", "example.com", "192.0.2.0/24/1", "fe80::%1/64"]
        {
            assert!(text(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+1", "192.0.2.0/-1", "::/129", "::/0128"] {
            assert!(matches!(text(wrong), Err(PrefixError::Length { .. })), "{wrong:?}");
        }
        for (wrong, meant) in [
            ("192.0.2.1/24", "192.0.2.0/24"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:192.0.2.1/120", "192.0.2.0/24"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(text(wrong), Err(PrefixError::HostBits(Prefix::parse(meant.as_bytes()).unwrap())));
        }
    }
}
