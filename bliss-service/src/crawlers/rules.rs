//! Domains and networks of each crawler: those that come with BLISS, and those that an operator adds.

use std::net::IpAddr;

use bliss_core::http::CRAWLERS;
use bliss_core::prefixes::Prefix;
use hickory_resolver::proto::rr::Name;
use serde::Deserialize;

/// What is known of one crawler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Domains in which its addresses have names.
    pub domains: Vec<Name>,
    /// Networks that are its own.
    pub networks: Vec<Prefix>,
}

/// What is known of each crawler, in the order of [`CRAWLERS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    crawler: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    ranges: Vec<String>,
}

/// The index of the crawler with this name, or what to do where there is none.
pub fn index_of(name: &str) -> Result<usize, String> {
    CRAWLERS.iter().position(|crawler| crawler.name == name).ok_or_else(|| {
        let names: Vec<_> = CRAWLERS.iter().map(|crawler| crawler.name).collect();
        format!(
            "no crawler is named {name:?}: workers know those that they were built with, and rules can only add to them; there are: {}",
            names.join(", ")
        )
    })
}

fn domain(text: &str) -> Result<Name, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let name = Name::from_ascii(text.trim_end_matches('.')).ok();
    // One label would be a whole top-level domain.
    let mut name = name.filter(|name| is_plain && name.num_labels() >= 2).ok_or_else(|| {
        format!(
            "domains: expected a domain of two labels at least, such as crawl.example.org, found {text:?}"
        )
    })?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

impl Rules {
    /// Those that come with BLISS.
    ///
    /// # Errors
    /// None, as a test shows.
    pub fn shipped() -> Result<Self, String> {
        let rule = |domains: &[&str]| {
            let domains = domains.iter().map(|text| domain(text)).collect::<Result<_, _>>()?;
            Ok(Rule { domains, networks: Vec::new() })
        };
        CRAWLERS.iter().map(|crawler| rule(crawler.domains)).collect::<Result<_, _>>().map(Self)
    }

    /// Adds what a file in TOML says: `[[crawler]]` with `name`, and `domains` or `ranges` or both.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let File { crawler } = toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
        for Entry { name, domains, ranges } in crawler {
            let index = index_of(&name)?;
            let of = |error: String| format!("crawler {name:?}: {error}");
            if domains.is_empty() && ranges.is_empty() {
                return Err(of("expected `domains` or `ranges`, found neither".to_owned()));
            }
            let Some(rule) = self.0.get_mut(index) else { continue };
            for text in &domains {
                rule.domains.push(domain(text).map_err(of)?);
            }
            for text in &ranges {
                let network = Prefix::parse(text.as_bytes());
                let network = network.map_err(|error| of(format!("ranges: {text:?}: {error}")))?;
                if network.bits() == 0 {
                    return Err(of(format!("ranges: {text:?}: no crawler has every address")));
                }
                rule.networks.push(network);
            }
        }
        Ok(())
    }

    /// What is known of the crawler at this index.
    pub fn of(&self, crawler: usize) -> Option<&Rule> {
        self.0.get(crawler)
    }
}

impl Rule {
    /// Whether the address is in one of its networks.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip.into()))
    }
}

/// Whether `name` is one of `domains` or below one, label by label.
pub fn is_in(domains: &[Name], name: &Name) -> bool {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    domains.iter().any(|domain| domain.zone_of(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_end_at_labels() {
        let rules = Rules::shipped().unwrap();
        let domains = &rules.of(index_of("Googlebot").unwrap()).unwrap().domains;
        for (name, expected) in [
            ("crawl-66-249-66-1.googlebot.com.", true),
            ("Crawl-66-249-66-1.GoogleBot.COM", true),
            // What Google fetches because a stranger said so has such names.
            ("google-proxy-66-249-1-1.google.com.", false),
            ("rate-limited-proxy-1-2-3-4.google.com.", false),
            ("googlebot.com.", true),
            ("googlebot.com.evil.example.", false),
            ("notgooglebot.com.", false),
            ("crawl.googlebot.com.cn.", false),
            ("com.", false),
            (".", false),
        ] {
            assert_eq!(is_in(domains, &Name::from_ascii(name).unwrap()), expected, "{name}");
        }
        // A dot within a label ends none.
        let escaped = Name::from_labels([&b"crawl"[..], b"x.googlebot", b"com"]).unwrap();
        assert!(!is_in(domains, &escaped));
        let escaped = Name::from_labels([&b"crawl.googlebot.com"[..]]).unwrap();
        assert!(!is_in(domains, &escaped));
    }

    #[test]
    fn rules_of_an_operator_add_to_those_that_are_shipped() {
        let mut rules = Rules::shipped().unwrap();
        let text = "[[crawler]]\nname = \"GPTBot\"\nranges = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n\
            [[crawler]]\nname = \"Googlebot\"\ndomains = [\"Crawl.Example.org.\"]\n";
        rules.add(text).unwrap();
        let gpt = rules.of(index_of("GPTBot").unwrap()).unwrap();
        assert!(
            gpt.has_address("192.0.2.7".parse().unwrap()) && gpt.has_address("2001:db8::1".parse().unwrap())
        );
        assert!(gpt.has_address("::ffff:192.0.2.7".parse().unwrap()));
        assert!(!gpt.has_address("198.51.100.7".parse().unwrap()) && gpt.domains.is_empty());
        let google = rules.of(index_of("Googlebot").unwrap()).unwrap();
        assert!(is_in(&google.domains, &Name::from_ascii("a.crawl.example.org.").unwrap()));
        assert!(is_in(&google.domains, &Name::from_ascii("a.googlebot.com.").unwrap()));

        for (text, message) in [
            ("[[crawler]]\nname = \"mybot\"\ndomains = [\"a.example\"]", "no crawler is named \"mybot\""),
            ("[[crawler]]\nname = \"GPTBot\"", "found neither"),
            ("[[crawler]]\nname = \"GPTBot\"\ndomains = [\"com\"]", "two labels"),
            ("[[crawler]]\nname = \"GPTBot\"\ndomains = [\"*.example.org\"]", "two labels"),
            ("[[crawler]]\nname = \"GPTBot\"\nranges = [\"192.0.2.1/24\"]", "bits beyond"),
            ("[[crawler]]\nname = \"GPTBot\"\nranges = [\"0.0.0.0/0\"]", "every address"),
            ("[[crawler]]\nname = \"GPTBot\"\ntokens = [\"x\"]", "unknown field `tokens`"),
            ("crawler", "expected"),
        ] {
            let error = Rules::shipped().unwrap().add(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
