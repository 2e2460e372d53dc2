use std::path::Path;

use super::*;
use crate::config::Config;

const LOG: &str = "directory = \"/d\"\n[[origin.access_log]]\nname = \"log\"\npath = \"/l\"\n";

fn config(section: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/bliss/bliss.toml"), &format!("{LOG}[crawlers]\n{section}"))
        .map_err(|error| error.to_string())
}

#[test]
fn crawlers_are_verified_only_where_it_is_switched_on() {
    for section in ["", "enabled = false\n", "ranges = [{ crawler = \"GPTBot\", path = \"gptbot.json\" }]\n"]
    {
        let config = config(section).unwrap();
        assert_eq!((config.origins.len(), config.schema.dimension_index(DIMENSION)), (1, None), "{section}");
    }
    let config = config("enabled = true\nresolvers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\n").unwrap();
    let dimension = &config.schema.dimensions[config.schema.dimension_index(DIMENSION).unwrap()];
    assert_eq!(dimension.max_age_seconds, 2 * 86_400);
    let OriginKind::Crawlers(crawlers) = &config.origins[1].kind else { panic!() };
    let expected: Vec<SocketAddr> =
        vec!["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()];
    assert_eq!(crawlers.options.resolvers, expected);
}

#[test]
fn wrong_options_are_told_with_their_line() {
    for (section, words) in [
        ("enabled = true\nresolvers = [\"dns.example\"]", "crawlers.resolvers: expected an address"),
        ("enabled = true\ntimeout = \"0s\"", "crawlers.timeout: expected 10ms to 1m"),
        ("enabled = true\nattempts = 0", "crawlers.attempts"),
        ("enabled = true\nmin_ttl = \"2days\"", "crawlers.min_ttl"),
        ("enabled = true\nmax_ttl = \"31days\"", "crawlers.max_ttl"),
        ("enabled = true\nmax_clients = 0", "crawlers.max_clients"),
        ("enabled = true\nconcurrency = 0", "crawlers.concurrency"),
        ("enabled = true\nrules = \"no such.toml\"", "crawlers.rules: /etc/bliss/no such.toml"),
        ("enabled = true\nranges = [{ crawler = \"mybot\", path = \"x\" }]", "no crawler is named \"mybot\""),
        ("enabled = true\nranges = [{ crawler = \"GPTBot\" }]", "expected `path` or `url`"),
        (
            "enabled = true\nranges = [{ crawler = \"GPTBot\", path = \"x\", format = \"mmdb\" }]",
            "\"text\" or \"json\"",
        ),
        ("enable = true", "enable"),
        (
            "enabled = true\n[[dimension]]\nname = \"crawler\"\nkey = [\"ip\"]\nfeatures = [{ name = \"state\" }]\n\
             [[origin.file]]\nname = \"f\"\npath = \"f.csv\"\ndimensions = [\"crawler\"]",
            "it fills the dimension `crawler` itself",
        ),
    ] {
        let error = config(section).unwrap_err();
        assert!(error.starts_with("/etc/bliss/bliss.toml, line "), "{error}");
        assert!(error.contains(words), "{section}: {error}");
    }
    let alone =
        Config::parse(Path::new("/c"), "directory = \"/d\"\n[crawlers]\nenabled = true\n").unwrap_err();
    assert!(alone.to_string().contains("[[origin.access_log]]"), "{alone}");
}

#[test]
fn rules_of_policies_know_the_dimension() {
    let policy = "[[policy]]\nname = \"default\"\ndeny = [{ name = \"fakes\", crawler_state = [\"fake\"] }]\n\
        crawler = [{ name = \"training\", crawler_category = [\"ai_training\"], action = \"block\" }]\n";
    config(&format!("enabled = true\n{policy}")).unwrap();
    let error = config(policy).unwrap_err();
    assert!(error.contains("there is no `crawler.state`"), "{error}");
}
