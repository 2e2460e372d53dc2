use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    date: String,
    crawler: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    tokens: Vec<String>,
    category: String,
    #[serde(default)]
    domains: Vec<String>,
    ranges_url: Option<String>,
}

fn file() -> File {
    toml::from_str(include_str!("../../../crawlers.toml")).unwrap()
}

/// The Rust that says what the file says.
fn table() -> String {
    let File { date, crawler } = file();
    let mut text = "//! What `crawlers.toml` says. Written by `BLISS_WRITE_CRAWLERS=1 cargo test -p bliss-core crawlers`.\n\n\
        use super::Crawler;\n\n\
        /// The day that the list of crawlers is of.\n"
        .to_owned();
    writeln!(text, "pub const CRAWLERS_DATE: &str = {date:?};\n").unwrap();
    text += "/// Crawlers that say who they are.\n#[rustfmt::skip]\n";
    writeln!(text, "pub const CRAWLERS: [Crawler; {}] = [", crawler.len()).unwrap();
    for Entry { name, tokens, category, domains, ranges_url } in crawler {
        write!(text, "    Crawler {{\n        name: {name:?},\n        tokens: &{tokens:?},\n").unwrap();
        write!(text, "        category: {category:?},\n        domains: &{domains:?},\n").unwrap();
        write!(text, "        ranges_url: {ranges_url:?},\n    }},\n").unwrap();
    }
    text + "];\n"
}

#[test]
fn the_table_of_crawlers_is_what_their_file_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/crawler/table.rs");
    let table = table();
    if std::env::var_os("BLISS_WRITE_CRAWLERS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == table,
        "src/http/crawler/table.rs is not what crawlers.toml says; write it with \
         `BLISS_WRITE_CRAWLERS=1 cargo test -p bliss-core crawlers`"
    );
}

#[test]
fn crawlers_are_well_formed() {
    const CATEGORIES: [&str; 8] =
        ["search", "ai_training", "ai_assistant", "preview", "monitoring", "feed", "seo", "archive"];
    assert_eq!(CRAWLERS.len(), 40);
    let mut seen = Vec::new();
    for (index, crawler) in CRAWLERS.iter().enumerate() {
        assert_eq!(crawler_of(crawler.name.as_bytes()), Some(index), "{}: its name claims it", crawler.name);
        assert!(CATEGORIES.contains(&crawler.category), "{}", crawler.name);
        for token in crawler.tokens {
            assert!(token.len() > 4 && token.is_ascii(), "{token}");
            assert_eq!(crawler_of(token.as_bytes()), Some(index), "{token}");
            assert!(!seen.contains(&token.to_lowercase()), "{token} is there twice");
            seen.push(token.to_lowercase());
        }
        for domain in crawler.domains {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            assert!(domain.bytes().all(fits) && domain.contains('.') && !domain.starts_with('.'), "{domain}");
        }
        assert!(crawler.ranges_url.is_none_or(|url| url.starts_with("https://")), "{}", crawler.name);
    }
    assert!(CRAWLERS_DATE.len() == 10);
}

#[test]
fn agents_claim_crawlers() {
    for (agent, expected) in [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Some("Googlebot")),
        ("Googlebot-Image/1.0", Some("Googlebot")),
        (
            "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 \
             Mobile Safari/537.36 (compatible; GoogleBot/2.1; +http://www.google.com/bot.html)",
            Some("Googlebot"),
        ),
        ("Mozilla/5.0 (compatible; Google-InspectionTool/1.0)", Some("Googlebot")),
        ("AdsBot-Google (+http://www.google.com/adsbot.html)", Some("AdsBot-Google")),
        ("AdsBot-Google-Mobile-Apps", Some("AdsBot-Google")),
        (
            "Feedfetcher-Google; (+http://www.google.com/feedfetcher.html; 1 subscribers)",
            Some("FeedFetcher-Google"),
        ),
        (
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) \
             Chrome/103.0.5060.134 Safari/537.36",
            Some("bingbot"),
        ),
        (
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            Some("GPTBot"),
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15 \
             (Applebot/0.1; +http://www.apple.com/go/applebot)",
            Some("Applebot"),
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 \
             facebookexternalhit/1.1 Facebot Twitterbot/1.0",
            Some("iMessage-Preview"),
        ),
        (
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            Some("facebookexternalhit"),
        ),
        ("TelegramBot (like TwitterBot)", Some("TelegramBot")),
        ("Mozilla/5.0 (compatible; Yeti/1.1; +https://naver.me/spd)", Some("NaverBot")),
        ("Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)", Some("Sogou web spider")),
        ("Mozilla/5.0 (compatible; SemrushBot-BA; +http://www.semrush.com/bot.html)", Some("SemrushBot")),
        ("googlebot", Some("Googlebot")),
        // People, and what only sounds like a crawler.
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
            None,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 \
             [Pinterest/iOS]",
            None,
        ),
        ("Mozilla/5.0 (compatible; NotGooglebot/2.1)", None),
        ("Googlebots/2.1", None),
        ("mygooglebot", None),
        ("Mozilla/5.0 (compatible; Yeti/21)", None),
        ("curl/8.5.0", None),
        ("", None),
        ("-", None),
    ] {
        assert_eq!(crawler_name(agent.as_bytes()), expected, "{agent}");
    }
    let far = format!("{}Googlebot/2.1", "x ".repeat(MOST_BYTES / 2));
    assert_eq!(crawler_name(far.as_bytes()), None, "beyond what is looked at");
}

/// At each place that begins a word, the longest token that is one.
fn naive(agent: &[u8]) -> Option<&'static str> {
    let agent = &agent[..agent.len().min(MOST_BYTES)];
    let is_word = |at: usize| agent.get(at).is_some_and(u8::is_ascii_alphanumeric);
    for at in 0..agent.len() {
        if at > 0 && is_word(at - 1) {
            continue;
        }
        let tokens =
            CRAWLERS.iter().flat_map(|crawler| crawler.tokens.iter().map(move |token| (token, crawler)));
        let found = tokens.filter(|(token, _)| {
            let part = agent.get(at..at + token.len());
            part.is_some_and(|part| part.eq_ignore_ascii_case(token.as_bytes())) && !is_word(at + token.len())
        });
        if let Some((_, crawler)) = found.max_by_key(|(token, _)| token.len()) {
            return Some(crawler.name);
        }
    }
    None
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    let tokens: Vec<&'static str> =
        CRAWLERS.iter().flat_map(|crawler| crawler.tokens.iter().copied()).collect();
    let known: Vec<&'static [u8]> = BEGINNINGS.iter().chain(&ENDS).copied().chain([RUN]).collect();
    prop_oneof![
        4 => prop::sample::select(tokens.clone()).prop_map(|token| token.as_bytes().to_vec()),
        2 => (prop::sample::select(tokens), 0..12usize).prop_map(|(token, cut)| {
            token.to_uppercase().as_bytes()[..token.len().saturating_sub(cut)].to_vec()
        }),
        3 => prop::sample::select(known.clone()).prop_map(<[u8]>::to_vec),
        1 => (prop::sample::select(known), 0..40usize).prop_map(|(known, cut)| known[..known.len().saturating_sub(cut)].to_vec()),
        2 => prop::collection::vec(prop::sample::select(b" ();/.-_Gglb10\xff".to_vec()), 0..4),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ]
}

proptest! {
    #[test]
    fn claims_are_those_of_a_naive_search(parts in prop::collection::vec(part(), 0..6)) {
        let agent = parts.concat();
        prop_assert_eq!(crawler_name(&agent), naive(&agent), "{}", String::from_utf8_lossy(&agent));
    }
}
