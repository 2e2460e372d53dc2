//! Rules over names of autonomous systems: which of them are hosters.

use serde::Deserialize;

/// The rules that come with BLISS.
const SHIPPED: &str = include_str!("../../hosting.toml");

/// A dated list of names, and of names that only look like them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// The day that the list is of.
    pub date: String,
    names: Vec<String>,
    exclude: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    date: String,
    names: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
}

impl NameRules {
    /// Reads rules in TOML: `date`, `names` and `exclude`.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let File { date, names, exclude } =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let is_date = date.parse::<jiff::civil::Date>().is_ok();
        if !is_date {
            return Err(format!("date: expected a day, such as 2026-11-28, found {date:?}"));
        }
        let pattern = |text: &String| {
            let plain = plain(text);
            let is_word = plain.trim().len() >= 2;
            if is_word {
                Ok(plain)
            } else {
                Err(format!("{text:?}: expected two letters or digits at least"))
            }
        };
        let patterns = |texts: &[String]| texts.iter().map(pattern).collect::<Result<Vec<_>, _>>();
        let rules = Self { date, names: patterns(&names)?, exclude: patterns(&exclude)? };
        if rules.names.is_empty() { Err("names: there is none".to_owned()) } else { Ok(rules) }
    }

    /// The rules that come with BLISS.
    ///
    /// # Errors
    /// None, as a test shows.
    pub fn shipped() -> Result<Self, String> {
        Self::parse(SHIPPED)
    }

    /// Whether `name` is one of those that are meant.
    pub fn matches(&self, name: &str) -> bool {
        let name = format!(" {} ", plain(name).trim());
        let has = |patterns: &[String]| patterns.iter().any(|pattern| name.contains(pattern.as_str()));
        has(&self.names) && !has(&self.exclude)
    }
}

/// Lower case, with one blank for whatever is neither a letter nor a digit.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 2);
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            plain.extend(letter.to_lowercase());
        } else if !plain.ends_with(' ') {
            plain.push(' ');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(names: &[&str], exclude: &[&str]) -> NameRules {
        NameRules::parse(&format!("date = \"2026-11-28\"\nnames = {names:?}\nexclude = {exclude:?}")).unwrap()
    }

    #[test]
    fn names_match_by_parts_and_words() {
        let rules = rules(&["hosting", " colo ", "online s.a.s", " google"], &["google fiber"]);
        for name in [
            "Example Hosting Ltd",
            "EXAMPLEHOSTING",
            "Colo",
            "Acme-Colo, Inc.",
            "ONLINE S.A.S.",
            "Google LLC",
        ] {
            assert!(rules.matches(name), "{name}");
        }
        for name in ["", "Colorado Internet", "Host", "GOOGLE-FIBER", "Agoogle", "Online SAS"] {
            assert!(!rules.matches(name), "{name}");
        }
    }

    #[test]
    fn wrong_rules_are_told() {
        for (text, message) in [
            ("names = [\"abc\"]", "date"),
            ("date = \"today\"\nnames = [\"abc\"]", "expected a day"),
            ("date = \"2026-11-28\"\nnames = []", "there is none"),
            ("date = \"2026-11-28\"\nnames = [\"-\"]", "two letters"),
            ("date = \"2026-11-28\"\nnames = [\"ab\"]\nname = 1", "unknown field"),
        ] {
            let error = NameRules::parse(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    /// Names of well-known hosters and of well-known access networks.
    #[test]
    fn the_shipped_rules_tell_hosters_from_providers_of_access() {
        let rules = NameRules::shipped().unwrap();
        for name in [
            "Amazon.com, Inc.",
            "DIGITALOCEAN-ASN",
            "OVH SAS",
            "Hetzner Online GmbH",
            "Google LLC",
            "GOOGLE-CLOUD-PLATFORM",
            "Microsoft Corporation",
            "Linode, LLC",
            "Contabo GmbH",
            "Leaseweb Deutschland GmbH",
            "ONLINE S.A.S.",
            "Vultr Holdings, LLC",
            "M247 Europe SRL",
            "Alibaba US Technology Co., Ltd.",
            "Tencent Building, Kejizhongyi Avenue",
            "HostGator",
            "Oracle Corporation",
        ] {
            assert!(rules.matches(name), "{name}");
        }
        for name in [
            "Deutsche Telekom AG",
            "Comcast Cable Communications, LLC",
            "Google Fiber Inc.",
            "COLOMBIA TELECOMUNICACIONES S.A. ESP BIC",
            "University of Colorado",
            "Vodafone GmbH",
            "Charter Communications Inc",
            "Orange S.A.",
            "Telefonica de Espana",
            "Verizon Business",
        ] {
            assert!(!rules.matches(name), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_answered(name in ".*") {
            NameRules::shipped().unwrap().matches(&name);
        }
    }
}
