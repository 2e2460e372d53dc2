//! Which addresses a redirect may lead to: names are resolved here, and the connection is made to what was checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How near an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything that is not below.
    Public,
    /// This host.
    Loopback,
    /// The same link; metadata of clouds among it.
    LinkLocal,
    /// Private networks, shared address space, unique local addresses.
    Private,
    /// Multicast, broadcast, tests, the future.
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Public => "public",
            Kind::Loopback => "loopback",
            Kind::LinkLocal => "link-local",
            Kind::Private => "private",
            Kind::Reserved => "reserved",
        })
    }
}

impl Kind {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            // Linux takes 0.0.0.0 for this host.
            [0 | 127, ..] => Kind::Loopback,
            [169, 254, ..] => Kind::LinkLocal,
            // 100.64.0.0/10 is shared with the provider, 198.18.0.0/15 for measurements within a network.
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => {
                Kind::Private
            }
            [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..] => Kind::Reserved,
            _ => Kind::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let within = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Kind::Loopback,
            // An address of version 4: mapped, translated, compatible; of NAT64; of 6to4; of Teredo, inverted.
            [0, 0, 0, 0, 0, 0xffff, high, low]
            | [0, 0, 0, 0, 0xffff, 0, high, low]
            | [0, 0, 0, 0, 0, 0, high, low]
            | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            | [0x2002, high, low, ..] => within(high, low),
            [0x2001, 0, _, _, _, _, high, low] => within(!high, !low),
            // NAT64 of a network's own, in which the address may stand anywhere.
            [0x64, 0xff9b, 1, ..] => Kind::Private,
            [0xfe80..=0xfebf, ..] => Kind::LinkLocal,
            // Unique local, and site-local of old.
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Kind::Private,
            [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] | [0xff00..=0xffff, ..] => Kind::Reserved,
            _ => Kind::Public,
        }
    }

    /// Whether a redirect from a configured server at an address of this kind may lead to `target`.
    pub(super) fn may_lead_to(self, target: Kind) -> bool {
        target == Kind::Public || target == self
    }
}

/// The address that the URL's host is, if it is no name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Says what a redirect led to that it may not lead to.
pub(super) fn refusal(host: &str, address: IpAddr, from: Kind) -> String {
    format!(
        "`{host}` is the {} address {address}; from a server at a {from} address none is followed there: if this is the \
         right one, set `url` to it",
        Kind::of(address)
    )
}

type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How names become addresses.
pub(super) type Lookup = Arc<dyn Fn(String) -> Found + Send + Sync>;

/// The host's own way.
pub(super) fn system() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

/// Resolves names for a client; the client connects to what this gives and to nothing else.
#[derive(Clone)]
pub(super) struct Guard {
    lookup: Lookup,
    /// The kind of the configured server's address, if this is for redirects.
    from: Arc<Mutex<Option<Kind>>>,
}

impl Guard {
    /// Lets every address through until [`Guard::restrict`].
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, from: Arc::default() }
    }

    /// From now on only addresses to which a redirect may lead from a server of the kind `from`.
    pub(super) fn restrict(&self, from: Kind) {
        *self.from.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = (self.lookup)(host.clone());
        let from = *self.from.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(async move {
            let found = found.await?;
            let Some(from) = from else { return Ok(Box::new(found.into_iter()) as Addrs) };
            let (fit, unfit): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|address| from.may_lead_to(Kind::of(address.ip())));
            match (fit.is_empty(), unfit.first()) {
                (true, Some(unfit)) => Err(refusal(&host, unfit.ip(), from).into()),
                _ => Ok(Box::new(fit.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s15_kinds_of_addresses() {
        for (kind, addresses) in [
            (
                Kind::Public,
                "1.1.1.1 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 192.169.0.1 169.253.0.1 11.0.0.1 2606:4700::1111 \
              ::ffff:1.1.1.1 64:ff9b::101:101 2002:101:101::1 fbff::1",
            ),
            (
                Kind::Loopback,
                "127.0.0.1 127.255.255.255 0.0.0.0 0.1.2.3 ::1 :: ::ffff:127.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1 \
              64:ff9b::7f00:1 2002:7f00:1::1 2001::80ff:fffe",
            ),
            (
                Kind::LinkLocal,
                "169.254.169.254 169.254.0.0 fe80::1 febf::1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe",
            ),
            (
                Kind::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 198.19.0.1 fc00::1 fd00:ec2::254 \
              fec0::1 ::ffff:10.1.2.3 64:ff9b::a00:1 64:ff9b:1::1 2002:a00:1::",
            ),
            (
                Kind::Reserved,
                "224.0.0.1 255.255.255.255 240.0.0.1 192.0.0.1 192.0.2.1 198.51.100.1 203.0.113.1 ff02::1 2001:db8::1 100::1",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(Kind::of(address.parse().unwrap()), kind, "{address}");
            }
            assert_eq!(Kind::Public.may_lead_to(kind), kind == Kind::Public);
            assert!(kind.may_lead_to(Kind::Public) && kind.may_lead_to(kind));
            assert!(!kind.may_lead_to(Kind::LinkLocal) || kind == Kind::LinkLocal);
        }
        for (url, address) in [
            ("http://0x7f.1/", Some("127.0.0.1")),
            ("http://2130706433/", Some("127.0.0.1")),
            ("http://127.0.0.1./", Some("127.0.0.1")),
            ("http://[::ffff:7f00:1]/", Some("::ffff:127.0.0.1")),
            ("http://localhost/", None),
        ] {
            assert_eq!(literal(&url.parse().unwrap()), address.map(|text| text.parse().unwrap()), "{url}");
        }
    }

    /// Only fit addresses come out, so that a client has no other to fall back to.
    #[tokio::test]
    async fn s15_names_are_resolved_to_addresses_that_fit_only() {
        let lookup: Lookup = Arc::new(|name| {
            Box::pin(async move {
                Ok(name
                    .replace('-', ":")
                    .split('_')
                    .map(|text| (text.parse::<IpAddr>().unwrap(), 0).into())
                    .collect())
            })
        });
        let guard = Guard::new(lookup);
        let resolved = async |name: &str| match guard.resolve(name.parse().unwrap()).await {
            Ok(found) => found.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(resolved("127.0.0.1_1.1.1.1").await, "127.0.0.1 1.1.1.1");
        guard.restrict(Kind::Public);
        assert_eq!(resolved("127.0.0.1_1.1.1.1_10.0.0.1_--1").await, "1.1.1.1");
        assert!(resolved("127.0.0.1").await.contains("is the loopback address 127.0.0.1"));
        assert!(resolved("--ffff-a9fe-a9fe").await.contains("is the link-local address"));
        guard.restrict(Kind::Loopback);
        assert_eq!(resolved("127.0.0.1_169.254.169.254").await, "127.0.0.1");
        guard.restrict(Kind::Private);
        assert!(resolved("169.254.169.254").await.contains("is the link-local address 169.254.169.254"));
    }
}
