//! Which crawler a user agent claims to be.
//!
//! The crawlers are those of `crawlers.toml`, compiled in. Whether a claim is true is another question, which the daemon answers.

mod table;

pub use table::{CRAWLERS, CRAWLERS_DATE};

/// So much of a user agent is looked at.
const MOST_BYTES: usize = 512;

/// With these the agents of most browsers begin. No token is in one, and each ends where a word may begin.
const BEGINNINGS: [&[u8]; 8] = [
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/",
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:",
    b"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS ",
];
/// With these they end.
const ENDS: [&[u8]; 2] = [b" Safari/537.36", b" Mobile Safari/537.36"];
/// This stands in those of telephones.
const RUN: &[u8] = b"like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/";

/// A crawler that says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crawler {
    /// Its name, which is one of its tokens: the value of the attribute `crawler`.
    pub name: &'static str,
    /// Parts of a user agent, in either case.
    pub tokens: &'static [&'static str],
    /// What it is for: `search`, `ai_training`, `ai_assistant`, `preview`, `monitoring`, `feed`, `seo` or `archive`.
    pub category: &'static str,
    /// Domains in which its addresses have names that have the addresses.
    pub domains: &'static [&'static str],
    /// Where its operator publishes its networks; nothing fetches them from there unless it is told to.
    pub ranges_url: Option<&'static str>,
}

/// The index in [`CRAWLERS`] of the crawler that `agent` claims to be; `None` where it claims to be none. Does not allocate.
///
/// ```
/// use bliss_core::http::{CRAWLERS, crawler_of};
///
/// let agent = b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)";
/// assert_eq!(crawler_of(agent).map(|index| CRAWLERS[index].name), Some("bingbot"));
/// assert_eq!(crawler_of(b"curl/8.5.0"), None);
/// ```
pub fn crawler_of(agent: &[u8]) -> Option<usize> {
    let agent = agent.get(..MOST_BYTES).unwrap_or(agent);
    let mut rest = without_beginning(agent);
    if let Some(part) = ENDS.iter().rev().find_map(|end| rest.strip_suffix(*end)) {
        rest = part;
    }
    let mut is_inside = false;
    while let [first, behind @ ..] = rest {
        let is_word = first.is_ascii_alphanumeric();
        if is_word && !is_inside {
            if *first == b'l'
                && let Some(part) = rest.strip_prefix(RUN)
            {
                rest = part;
                continue;
            }
            let second = behind.first().copied().unwrap_or_default();
            let seconds = SECONDS.get(letter(*first)).copied().unwrap_or_default();
            if seconds >> letter(second) & 1 == 1
                && let Some(found) = token_at(rest)
            {
                return Some(found);
            }
        }
        is_inside = is_word;
        rest = behind;
    }
    None
}

/// The name of the crawler that `agent` claims to be.
pub fn crawler_name(agent: &[u8]) -> Option<&'static str> {
    CRAWLERS.get(crawler_of(agent)?).map(|crawler| crawler.name)
}

#[inline]
fn without_beginning(agent: &[u8]) -> &[u8] {
    let Some(platform) = agent.get(13) else { return agent };
    let mut beginnings = BEGINNINGS.iter().filter(|beginning| beginning.get(13) == Some(platform));
    beginnings.find_map(|beginning| agent.strip_prefix(*beginning)).unwrap_or(agent)
}

/// Of 32: letters in either case have one number; other bytes share theirs with them.
const fn letter(byte: u8) -> usize {
    (byte & 31) as usize
}

/// For the [`letter`] that tokens begin with, those that follow, as a mask.
#[allow(clippy::indexing_slicing)] // Only while compiling.
const SECONDS: [u32; 32] = {
    let mut seconds = [0; 32];
    let mut crawler = 0;
    while crawler < CRAWLERS.len() {
        mark(&mut seconds, CRAWLERS[crawler].tokens);
        crawler += 1;
    }
    seconds
};

#[allow(clippy::indexing_slicing)] // Only while compiling.
const fn mark(seconds: &mut [u32; 32], tokens: &[&str]) {
    let mut token = 0;
    while token < tokens.len() {
        let bytes = tokens[token].as_bytes();
        seconds[letter(bytes[0])] |= 1 << letter(bytes[1]);
        token += 1;
    }
}

/// The crawler with the longest token that `text` begins with, as a word.
#[cold]
fn token_at(text: &[u8]) -> Option<usize> {
    let mut longest = None;
    for (index, crawler) in CRAWLERS.iter().enumerate() {
        for token in crawler.tokens {
            let Some((start, behind)) = text.split_at_checked(token.len()) else { continue };
            let is_longer = longest.is_none_or(|(_, length)| length < token.len());
            let is_whole = behind.first().is_none_or(|byte| !byte.is_ascii_alphanumeric());
            if is_longer && is_whole && start.eq_ignore_ascii_case(token.as_bytes()) {
                longest = Some((index, token.len()));
            }
        }
    }
    longest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests;
