use super::*;
use crate::crawlers::rules::{Rules, index_of};

#[path = "../../../tests/common/dns.rs"]
mod dns;

use dns::{Dns, Says, reverse};

const IP: &str = "192.0.2.1";
const NAME: &str = "crawl-192-0-2-1.googlebot.com";

fn verifier(dns: &Dns) -> Verifier {
    let options = CrawlerOptions {
        resolvers: vec![dns.address],
        timeout: Duration::from_millis(300),
        attempts: 1,
        ..CrawlerOptions::default()
    };
    Verifier::new(&options, Counter::default(), Counter::default()).unwrap()
}

async fn verdict(dns: &Dns, ip: &str) -> Verdict {
    let rules = Rules::shipped().unwrap();
    let domains = &rules.of(index_of("Googlebot").unwrap()).unwrap().domains;
    verifier(dns).verify(ip.parse().unwrap(), domains).await
}

fn names(names: &[&str]) -> Says {
    Says::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn addresses(addresses: &[&str]) -> Says {
    Says::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

fn truncated(over_tcp: bool, then: Says) -> Says {
    Says::Truncated { over_tcp, then: Box::new(then) }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Verified,
    Fake,
    Unknown,
}

impl Verdict {
    fn kind(&self) -> Kind {
        match self {
            Self::Verified(_) => Kind::Verified,
            Self::Fake(_) => Kind::Fake,
            Self::Unknown(_) | Self::Untold => Kind::Unknown,
        }
    }
}

/// What is said of the address, what of its name, and what that means.
#[tokio::test(flavor = "multi_thread")]
async fn p8_only_what_dns_says_makes_a_fake_and_only_both_ways_a_crawler() {
    let own = || addresses(&[IP]);
    let many: Vec<String> = (0..600).map(|at| format!("host-{at}.evil.example")).collect();
    let with_many = |last: &str| Says::Names(many.iter().cloned().chain([last.to_owned()]).collect());
    for (case, of_address, of_name, expected) in [
        ("honest", names(&[NAME]), own(), Kind::Verified),
        ("in capitals", names(&["CRAWL-192-0-2-1.GoogleBot.Com"]), own(), Kind::Verified),
        ("one of several names", names(&["other.example", NAME]), own(), Kind::Verified),
        ("one of several addresses", names(&[NAME]), addresses(&["192.0.2.9", IP]), Kind::Verified),
        ("a name of another domain", names(&["host.evil.example"]), own(), Kind::Fake),
        ("a domain that begins so", names(&["crawl.googlebot.com.evil.example"]), own(), Kind::Fake),
        ("a domain that ends so", names(&["crawl.notgooglebot.com"]), own(), Kind::Fake),
        ("a lie: the name has another address", names(&[NAME]), addresses(&["198.51.100.1"]), Kind::Fake),
        ("a lie: the name does not exist", names(&[NAME]), Says::NxDomain, Kind::Fake),
        ("a lie: the name has no address", names(&[NAME]), Says::Empty { soa: true }, Kind::Fake),
        ("no name", Says::NxDomain, own(), Kind::Fake),
        ("no name of the kind", Says::Empty { soa: true }, own(), Kind::Fake),
        ("an empty answer of whoever", Says::Empty { soa: false }, own(), Kind::Unknown),
        ("nothing", Says::Hang, own(), Kind::Unknown),
        ("a failure", Says::ServFail, own(), Kind::Unknown),
        ("a refusal", Says::Refused, own(), Kind::Unknown),
        ("garbage", Says::Garbage, own(), Kind::Unknown),
        ("of its name nothing", names(&[NAME]), Says::Hang, Kind::Unknown),
        ("of its name a failure", names(&[NAME]), Says::ServFail, Kind::Unknown),
        ("of its name a refusal", names(&[NAME]), Says::Refused, Kind::Unknown),
        ("of its name an empty answer of whoever", names(&[NAME]), Says::Empty { soa: false }, Kind::Unknown),
        ("too long for UDP", truncated(true, names(&[NAME])), own(), Kind::Verified),
        ("too long for UDP, and a lie", truncated(true, names(&["a.evil.example"])), own(), Kind::Fake),
        ("too long for UDP, without TCP", truncated(false, names(&[NAME])), own(), Kind::Unknown),
        ("of its name too much without TCP", names(&[NAME]), truncated(false, own()), Kind::Unknown),
        ("another name of itself", Says::Alias(reverse(IP.parse().unwrap())), own(), Kind::Unknown),
        ("its name is another name of itself", names(&[NAME]), Says::Alias(NAME.into()), Kind::Unknown),
        ("very many names", with_many("last.evil.example"), own(), Kind::Fake),
        ("very many names, its own behind them", with_many(NAME), own(), Kind::Verified),
    ] {
        let dns = Dns::start();
        dns.say_of(IP, of_address);
        dns.say(NAME, of_name);
        let found = verdict(&dns, IP).await;
        assert_eq!(found.kind(), expected, "{case}: {found:?}");
        if let Verdict::Verified(ttl) | Verdict::Fake(ttl) = found {
            assert!(ttl <= Duration::from_secs(601), "{case}: {ttl:?}");
        }
    }
}

/// What fetches pages because a stranger said so, with the stranger's agent, has honest names in its operator's own domain.
#[tokio::test(flavor = "multi_thread")]
async fn p8_an_operators_proxies_for_strangers_are_none_of_its_crawlers() {
    let rules = Rules::shipped().unwrap();
    let dns = Dns::start();
    let domains = &rules.of(index_of("Googlebot").unwrap()).unwrap().domains;
    for name in [
        "google-proxy-66-249-1-1.google.com",
        "rate-limited-proxy-66-249-1-1.google.com",
        "66-249-1-1.gae.googleusercontent.com",
    ] {
        dns.honest(IP, name);
        let found = verifier(&dns).verify(IP.parse().unwrap(), domains).await;
        assert_eq!(found.kind(), Kind::Fake, "{name}: {found:?}");
    }
    // Nothing but networks that an operator configures tells these from any other, and DNS calls them no fakes.
    for crawler in ["FeedFetcher-Google", "AdsBot-Google"] {
        assert_eq!(rules.of(index_of(crawler).unwrap()).unwrap().domains, [], "{crawler}");
    }
}

/// Zones of less than 256 addresses are delegated by other names (RFC 2317); and crawlers may have other names too.
#[tokio::test(flavor = "multi_thread")]
async fn p8_other_names_are_followed_to_their_end() {
    let dns = Dns::start();
    dns.say_of(IP, Says::Alias("1.0-15.2.0.192.in-addr.arpa".into()));
    dns.say("1.0-15.2.0.192.in-addr.arpa", names(&[NAME]));
    dns.say(NAME, Says::Alias("pool.google.com".into()));
    dns.say("pool.google.com", addresses(&[IP]));
    assert_eq!(verdict(&dns, IP).await.kind(), Kind::Verified);
    dns.say("pool.google.com", addresses(&["192.0.2.2"]));
    assert_eq!(verdict(&dns, IP).await.kind(), Kind::Fake);
    dns.say("pool.google.com", Says::Hang);
    assert_eq!(verdict(&dns, IP).await.kind(), Kind::Unknown);
    // Round and round, and without end.
    dns.say(NAME, Says::Alias("a.google.com".into()));
    dns.say("a.google.com", Says::Alias(NAME.into()));
    assert_eq!(verdict(&dns, IP).await.kind(), Kind::Unknown);
    for at in 0..40 {
        dns.say(&format!("{at}.google.com"), Says::Alias(format!("{}.google.com", at + 1)));
    }
    dns.say(NAME, Says::Alias("0.google.com".into()));
    assert_eq!(verdict(&dns, IP).await.kind(), Kind::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_addresses_of_ipv6_are_verified_too() {
    let dns = Dns::start();
    dns.honest("2001:db8::1", NAME);
    assert_eq!(verdict(&dns, "2001:db8::1").await.kind(), Kind::Verified);
    dns.say(NAME, addresses(&["192.0.2.1"]));
    assert_eq!(verdict(&dns, "2001:db8::1").await.kind(), Kind::Fake, "only an address of IPv4");
}

/// A name is asked for twice: what it said the first time is not kept for another address.
#[tokio::test(flavor = "multi_thread")]
async fn p8_a_name_that_leads_elsewhere_the_next_time_is_a_lie_again() {
    let dns = Dns::start();
    dns.honest(IP, NAME);
    dns.say_of("198.51.100.1", names(&[NAME]));
    let verifier = verifier(&dns);
    let rules = Rules::shipped().unwrap();
    let domains = &rules.of(index_of("Googlebot").unwrap()).unwrap().domains;
    let (own, other) = (IP.parse().unwrap(), "198.51.100.1".parse().unwrap());
    assert_eq!(verifier.verify(own, domains).await.kind(), Kind::Verified);
    assert_eq!(verifier.verify(other, domains).await.kind(), Kind::Fake);
    dns.say(NAME, addresses(&["198.51.100.1"]));
    assert_eq!(verifier.verify(own, domains).await.kind(), Kind::Fake);
}

/// No one name's many names make many questions.
#[tokio::test(flavor = "multi_thread")]
async fn p9_an_address_with_many_names_costs_few_questions() {
    let dns = Dns::start();
    let many: Vec<String> = (0..300).map(|at| format!("crawl-{at}.googlebot.com")).collect();
    dns.say_of(IP, Says::Names(many));
    assert_eq!(verdict(&dns, IP).await.kind(), Kind::Fake);
    let forward = dns.questions().iter().filter(|name| name.ends_with("googlebot.com")).count();
    assert_eq!(forward, MOST_NAMES);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_say_for_how_long_they_count() {
    let dns = Dns::start();
    dns.honest(IP, NAME);
    dns.set_ttl(7);
    let Verdict::Verified(ttl) = verdict(&dns, IP).await else { panic!() };
    assert!(ttl > Duration::ZERO && ttl < Duration::from_secs(9), "{ttl:?}");
}
