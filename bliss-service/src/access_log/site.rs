//! The site's own hosts, learned from a log that does not tell the host asked for.

use std::collections::HashMap;

use bliss_core::http::{host_of_url, is_asset, is_of_site};

use super::parse::Record;
use crate::checkpoint::bounded;
use serde::{Deserialize, Serialize};

/// So many assets must have been asked for from a host's pages.
const FEWEST: u32 = 3;
/// And one in so many of those of the host with the most: others embed an image now and then.
const SHARE: u32 = 4;
/// After so many referrers the hosts are worked out once in so many.
const SETTLED: u64 = 512;
/// Hosts that are counted: clients write referrers as they like.
const MOST_HOSTS: usize = 1024;
/// Counts are halved before they are larger: shares stay, and what is kept over restarts may grow for years.
const MOST: u32 = 1 << 30;

/// What hosts of search engines begin with, or have after a dot; they are in more referrers than a small site's own host.
const SEARCH_ENGINES: [&str; 9] =
    ["google.", "bing.", "yahoo.", "duckduckgo.", "yandex.", "baidu.", "ecosia.", "startpage.", "qwant."];

/// Hosts whose pages the site's assets belong to: those that the referrers of assets name; as long as there are none, the host
/// that most referrers name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SiteHosts {
    /// Assets, and any requests, that were asked for from a host, without `www.` and in lower case.
    #[serde(serialize_with = "bounded::pairs", deserialize_with = "bounded::map::<_, _, _, MOST_HOSTS>")]
    counts: HashMap<Vec<u8>, (u32, u32)>,
    /// How many referrers that was.
    seen: u64,
    #[serde(deserialize_with = "bounded::vec::<_, _, MOST_HOSTS>")]
    hosts: Vec<Vec<u8>>,
}

impl SiteHosts {
    /// Takes a request into account, unless the log tells the host.
    pub fn learn(&mut self, record: &Record<'_>) {
        if record.host.is_some() || record.status >= 400 {
            return;
        }
        let Some(host) = record.referrer.as_deref().and_then(host_of_url) else { return };
        let mut host = host.to_ascii_lowercase();
        if host.starts_with(b"www.") {
            host.drain(..4);
        }
        if is_search_engine(&host) {
            return;
        }
        if self.counts.len() < MOST_HOSTS || self.counts.contains_key(&host) {
            let (assets, requests) = self.counts.entry(host).or_default();
            *assets += u32::from(is_asset(&record.path));
            *requests = requests.saturating_add(1);
            let is_most = *requests >= MOST;
            self.seen = self.seen.saturating_add(1);
            if is_most {
                self.halve();
            }
            // Seldom once there are many: shares change slowly then.
            if self.seen < SETTLED || self.seen.is_multiple_of(SETTLED) {
                self.settle();
            }
        }
    }

    /// Whether it could have come about: what was read back may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        let is_sound = |(assets, requests): &(u32, u32)| assets <= requests && *requests < MOST;
        self.counts.values().all(is_sound)
    }

    /// With counts that cannot be.
    #[cfg(test)]
    pub(crate) fn unsound() -> Self {
        let counts = [(b"shop.example".to_vec(), (1, u32::MAX))].into();
        Self { counts, ..Self::default() }
    }

    fn halve(&mut self) {
        self.counts.retain(|_, (assets, requests)| {
            (*assets, *requests) = (*assets / 2, *requests / 2);
            *requests > 0
        });
    }

    fn settle(&mut self) {
        let most = self.counts.values().map(|(assets, _)| *assets).max().unwrap_or_default();
        let is_own = |assets: u32| assets >= FEWEST && assets >= most / SHARE;
        let own = self.counts.iter().filter(|(_, (assets, _))| is_own(*assets));
        self.hosts = own.map(|(host, _)| host.clone()).collect();
        if self.hosts.is_empty() {
            let named = self.counts.iter().filter(|(_, (_, requests))| *requests >= FEWEST);
            // Of two with as many the first by name, so that a replay says the same each time.
            let first = named.max_by_key(|(host, (_, requests))| (*requests, std::cmp::Reverse(*host)));
            self.hosts.extend(first.map(|(host, _)| host.clone()));
        }
    }

    /// Whether `host` is one of those, or of `known` ones; `None` where there are none.
    pub fn is_site(&self, known: &[String], host: &[u8]) -> Option<bool> {
        let known = known.iter().map(String::as_bytes);
        is_of_site(known.chain(self.hosts.iter().map(Vec::as_slice)), host)
    }
}

fn is_search_engine(host: &[u8]) -> bool {
    let begins = |host: &[u8]| SEARCH_ENGINES.iter().any(|name| host.starts_with(name.as_bytes()));
    begins(host) || host.iter().enumerate().any(|(at, byte)| *byte == b'.' && begins(&host[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::parse::Parser;

    fn learn(hosts: &mut SiteHosts, path: &str, referrer: &str, times: u32) {
        let line = format!(
            "192.0.2.1 - - [17/May/2015:10:05:03 +0000] \"GET {path} HTTP/1.1\" 200 1 \"{referrer}\" \"a\""
        );
        let record = Parser::default();
        let record = record.parse(line.as_bytes()).unwrap();
        (0..times).for_each(|_| hosts.learn(&record));
    }

    #[test]
    fn d6_counts_of_years_are_sound_and_their_shares_stay() {
        let mut hosts = SiteHosts::default();
        learn(&mut hosts, "/a.css", "https://shop.example/", 1);
        learn(&mut hosts, "/a.css", "https://static.example/", 1);
        learn(&mut hosts, "/a.css", "https://once.example/", 1);
        hosts.counts.insert(b"shop.example".to_vec(), (MOST - 1, MOST - 1));
        hosts.counts.insert(b"static.example".to_vec(), (MOST / 4, MOST / 2));
        assert!(hosts.is_sound());
        learn(&mut hosts, "/a.css", "https://shop.example/", 1);
        assert!(hosts.is_sound());
        assert_eq!(hosts.counts[&b"shop.example"[..]], (MOST / 2, MOST / 2));
        assert_eq!(hosts.counts[&b"static.example"[..]], (MOST / 8, MOST / 4));
        assert!(!hosts.counts.contains_key(&b"once.example"[..]), "room for another");
        assert_eq!(hosts.is_site(&[], b"static.example"), Some(true));
    }

    #[test]
    fn hosts_are_those_whose_pages_have_the_assets() {
        let mut hosts = SiteHosts::default();
        assert_eq!(hosts.is_site(&[], b"shop.example"), None);
        learn(&mut hosts, "/a.css", "https://www.Shop.example/", 2);
        assert_eq!(hosts.is_site(&[], b"shop.example"), None, "too few");
        learn(&mut hosts, "/page", "https://search.example/", 3);
        assert_eq!(hosts.is_site(&[], b"search.example"), Some(true), "the best guess");
        learn(&mut hosts, "/a.css", "https://images.google.co.uk/", 100);
        learn(&mut hosts, "/a.css", "https://google.com/", 100);
        learn(&mut hosts, "/a.css", "http://shop.example:8080/x", 38);
        learn(&mut hosts, "/a.png", "https://static.example/", 10);
        learn(&mut hosts, "/a.png", "https://thief.example/", 9);
        learn(&mut hosts, "/page", "https://search.example/", 100);
        learn(&mut hosts, "/a.png", "no URL", 100);
        for (host, expected) in [
            ("shop.example", true),
            ("WWW.shop.example", true),
            ("static.example", true),
            ("thief.example", false),
            ("search.example", false),
            ("images.google.co.uk", false),
            ("google.com", false),
            ("known.example", true),
        ] {
            let known = ["known.example".to_owned()];
            assert_eq!(hosts.is_site(&known, host.as_bytes()), Some(expected), "{host}");
        }
    }
}
