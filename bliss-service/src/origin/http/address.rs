//! Addresses that a server on the internet has no business to send us to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Networks of IANA's registries of special-purpose addresses that are not reached through the internet, documentation and
/// multicast included.
const V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether it is an address of the internet: not loopback, link-local, private, shared, reserved or multicast, in whatever form
/// of IPv6 it is written.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !V4.iter().any(|(network, bits)| {
            (u32::from(address) ^ u32::from(*network)).checked_shr(32 - u32::from(*bits)) == Some(0)
        }),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    let embedded = |bytes: [u8; 4]| is_public(IpAddr::from(bytes));
    let octets = address.octets();
    let [.., w, x, y, z] = octets;
    let [_, _, s, t, u, v, ..] = octets;
    match (a, b) {
        // IPv4 in IPv6, as a name server may give it.
        (0, 0) => address.to_ipv4_mapped().is_some() && embedded([w, x, y, z]),
        // NAT64.
        (0x64, 0xff9b) => c == 0 && embedded([w, x, y, z]),
        // 6to4.
        (0x2002, _) => embedded([s, t, u, v]),
        // Teredo and other protocols, documentation.
        (0x2001, 0..0x200 | 0xdb8) => false,
        (0x3fff, 0..0x1000) => false,
        _ => a & 0xe000 == 0x2000,
    }
}

/// The address that a URL names without a name server.
pub(super) fn literal(url: &reqwest::Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    // A parsed URL has addresses in their one form, those of IPv6 in brackets.
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names to public addresses only: what is connected to is what was checked.
#[derive(Debug, Default)]
pub(super) struct PublicOnly;

impl PublicOnly {
    pub(super) fn shared() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<_> = found.collect();
            if let Some(private) = found.iter().find(|address| !is_public(address.ip())) {
                let message = not_public(name.as_str(), private.ip());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What is wrong with a redirect from the internet to such an address.
pub(super) fn not_public(host: &str, address: IpAddr) -> String {
    format!(
        "a server on the internet redirects to {host}, which has the address {address} of this host or a private network; not \
         followed"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s15_private_addresses_are_known_in_every_form() {
        for private in [
            "127.0.0.1",
            "127.255.255.255",
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for (url, address) in [
            ("http://[::1]:80/x", Some("::1")),
            // As browsers read them.
            ("http://0x7f.1/", Some("127.0.0.1")),
            ("http://2130706433/", Some("127.0.0.1")),
            ("http://localhost/", None),
        ] {
            let expected = address.map(|address| address.parse::<IpAddr>().unwrap());
            assert_eq!(literal(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
