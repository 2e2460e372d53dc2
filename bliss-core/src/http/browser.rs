//! Which browser a user agent says it is, and whether the other headers are those of such a browser.
//!
//! Only what browsers always do is held against a client. Over `http` browsers leave out `Sec-Fetch-*` and `Sec-CH-UA*`,
//! except to the own host; so their absence counts where the server says that the scheme is `https`.

use memchr::memchr_iter;

use super::request::ReferrerHost;
use super::{HttpRequest, header};

/// So much of a user agent is looked at.
const MOST_BYTES: usize = 512;

/// Words that stand together in most agents, which need not be looked at one by one: the result is the same. Each ends where a word
/// ends, with what separates it from the next.
const RUNS: [Run; 13] = [
    Run::of(b"Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) ", Platform::Windows),
    Run::of(b"Windows NT 10.0; Win64; x64; ", Platform::Windows),
    Run::of(b"Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) ", Platform::MacOs),
    Run::of(b"Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) ", Platform::MacOs),
    Run::of(b"X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) ", Platform::Linux),
    Run::of(b"Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) ", Platform::Android),
    Run::of(b"iPhone; CPU iPhone OS ", Platform::Ios),
    Run::of(b"X11; Linux x86_64; ", Platform::Linux),
    // All but Firefox say one of these, and it says nothing.
    Run::of(b"AppleWebKit/537.36 (KHTML, like Gecko) ", Platform::Unknown),
    Run::of(b"like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) ", Platform::Unknown),
    Run::of(b"AppleWebKit/605.1.15 (KHTML, like Gecko) ", Platform::Unknown),
    Run { has_engine: true, ..Run::of(b"Gecko/20100101 ", Platform::Unknown) },
    Run { is_mobile: true, ..Run::of(b"Mobile/15E148 ", Platform::Unknown) },
];

/// Words that stand together, and what they say.
struct Run {
    words: &'static [u8],
    platform: Platform,
    has_engine: bool,
    is_mobile: bool,
}

impl Run {
    const fn of(words: &'static [u8], platform: Platform) -> Self {
        Self { words, platform, has_engine: false, is_mobile: false }
    }
}

/// Words with which most agents end. They name an engine, and nothing else is in them.
const LAST_WORDS: [&[u8]; 3] = [b"Safari/537.36", b"Safari/604.1", b"Safari/605.1.15"];

/// What a user agent says of itself, if it is a browser's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Browser {
    /// Major version of Chromium, which Edge, Opera and others name too; 0: another engine.
    chromium: u32,
    /// Major version of Firefox; 0: another browser.
    firefox: u32,
    /// Major version of Safari, or of the system's engine under another name (iOS); 0: another engine.
    safari: u32,
    /// A browser's engine is named, perhaps one whose version nothing asks for: Internet Explorer, Opera before Chromium,
    /// Konqueror, the Mozilla suite.
    has_engine: bool,
    is_mobile: bool,
    platform: Platform,
}

/// What displays pages, under whatever name a browser has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Chrome, Edge, Opera, Samsung's and most others.
    Chromium,
    /// Firefox.
    Firefox,
    /// Safari, and all browsers of iOS.
    Safari,
}

impl Engine {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// The engine, and its major version, of the browser that `agent` claims to be; `None` where it claims to be none, or a robot
/// too.
pub fn engine_of(agent: &[u8]) -> Option<(Engine, u32)> {
    let browser = Browser::claimed_by(agent)?;
    let versions = [
        (Engine::Chromium, browser.chromium),
        (Engine::Firefox, browser.firefox),
        (Engine::Safari, browser.safari),
    ];
    versions.into_iter().find(|(_, version)| *version > 0)
}

/// Engine and version of [`engine_of`] as one number: the engine, counted from 1, in the upper 32 bits.
pub fn browser_number(agent: &[u8]) -> Option<u64> {
    engine_of(agent).map(|(engine, version)| (engine as u64 + 1) << 32 | u64::from(version))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Platform {
    #[default]
    Unknown,
    Windows,
    MacOs,
    Linux,
    Android,
    ChromeOs,
    Ios,
}

impl Browser {
    /// What `agent` claims; `None` where it claims to be no browser, or to be a robot or driven by a program too.
    pub(super) fn claimed_by(agent: &[u8]) -> Option<Self> {
        Self::claimed_by_words(agent, &RUNS, &LAST_WORDS)
    }

    #[inline(always)]
    fn claimed_by_words(agent: &[u8], runs: &[Run], last_words: &[&[u8]]) -> Option<Self> {
        let agent = agent.get(..MOST_BYTES).unwrap_or(agent);
        let mut found = Self::default();
        let mut rest = match agent.strip_prefix(b"Mozilla/5.0 (") {
            Some(rest) => rest,
            None => found.older(agent)?,
        };
        let mut named = 0;
        // Each turn looks at a word: what follows a space, a bracket or a semicolon.
        loop {
            rest = found.run(rest, runs);
            if rest.first() == Some(&b'S') && last_words.contains(&rest) {
                found.has_engine = true;
                break;
            }
            let ends = |byte: &u8| matches!(byte, b' ' | b'(' | b';');
            let name = rest.iter().position(|byte| ends(byte) || *byte == b'/').unwrap_or(rest.len());
            let slash = (rest.get(name) == Some(&b'/')).then_some(name);
            let version = rest.get(name..).unwrap_or_default();
            let end = name + version.iter().position(ends).unwrap_or(version.len());
            found.word(rest.get(..end).unwrap_or(rest), rest, slash, &mut named)?;
            match rest.get(end + 1..) {
                Some(next) => rest = next,
                None => break,
            }
        }
        if found.platform == Platform::Ios {
            // All browsers there have the system's engine; in an app's window there may be no version.
            found = Self { chromium: 0, firefox: 0, safari: named.max(1), ..found };
        } else if found.chromium == 0 && found.firefox == 0 {
            found.safari = named;
        }
        let has_version = found.chromium > 0 || found.firefox > 0 || found.safari > 0;
        (has_version || found.has_engine).then_some(found)
    }

    /// The words of an agent that does not begin as those of today's browsers do.
    #[cold]
    fn older<'a>(&mut self, agent: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(rest) = agent.strip_prefix(b"Mozilla/4.0 (") {
            return Some(rest);
        }
        // `Opera/9.80 (X11; …`
        let rest = agent.strip_prefix(b"Opera/")?;
        self.has_engine = true;
        let bracket = rest.iter().take(8).position(|byte| *byte == b'(')?;
        rest.get(bracket + 1..)
    }

    /// What follows those of `runs` with which `text` begins.
    #[inline(always)]
    fn run<'a>(&mut self, mut text: &'a [u8], runs: &[Run]) -> &'a [u8] {
        // No run begins with another letter.
        while matches!(text.first(), Some(b'W' | b'M' | b'X' | b'L' | b'i' | b'A' | b'l' | b'G'))
            && let Some(run) = runs.iter().find(|run| begins(text, run.words))
        {
            self.set_platform(run.platform);
            self.has_engine |= run.has_engine;
            self.is_mobile |= run.is_mobile;
            text = text.get(run.words.len()..).unwrap_or_default();
        }
        text
    }

    /// "Linux" stands beside "X11" and "Android", and "Android" beside both.
    fn set_platform(&mut self, platform: Platform) {
        if platform != Platform::Unknown && self.platform != Platform::ChromeOs {
            self.platform = platform;
        }
    }

    /// Takes in `word`, with which `text` begins and which has its first `/` at `slash`; `None` if it is a robot's.
    #[inline]
    fn word(&mut self, word: &[u8], text: &[u8], slash: Option<usize>, version: &mut u32) -> Option<()> {
        let is = |word: &[u8]| starts_with(text, word);
        let mut platform = Platform::Unknown;
        match text.first() {
            Some(b'c') if is(b"compatible;") => {
                if !is(b"compatible; MSIE ") && !is(b"compatible; Konqueror/") {
                    return None;
                }
                self.has_engine = true;
            }
            Some(b'h' | b'+') if is(b"http://") || is(b"https://") || is(b"+http") => return None,
            Some(b'W') if is(b"Windows NT") => platform = Platform::Windows,
            Some(b'M') if is(b"Macintosh") => platform = Platform::MacOs,
            Some(b'M') if is(b"Mobile") => self.is_mobile = true,
            Some(b'X') if is(b"X11") => platform = Platform::Linux,
            Some(b'A') if is(b"Android") => platform = Platform::Android,
            Some(b'C') if is(b"CrOS") => platform = Platform::ChromeOs,
            Some(b'i') if is(b"iPhone") || is(b"iPad") || is(b"iPod") => platform = Platform::Ios,
            Some(b'C') => self.chromium = self.chromium.max(major(text, b"Chrome/")),
            Some(b'H') if is(b"HeadlessChrome/") => return None,
            Some(b'F') => self.firefox = self.firefox.max(major(text, b"Firefox/")),
            Some(b'V') => *version = (*version).max(major(text, b"Version/")),
            Some(b'T') => self.has_engine |= is(b"Trident/"),
            Some(b'G') => self.has_engine |= is(b"Gecko/"),
            Some(b'S') => self.has_engine |= is(b"Safari/"),
            _ => {}
        }
        self.set_platform(platform);
        let is_robot = match slash {
            Some(slash) => {
                text.get(..slash).is_some_and(|name| is_robots_name(name) || ends_in(name, b"bot"))
            }
            // A phone may be called "…bot", without a version.
            None => is_robots_name(word.strip_suffix(b")").unwrap_or(word)),
        };
        (!is_robot).then_some(())
    }

    /// How many headers of the request contradict this claim or each other.
    pub(super) fn conflicts(&self, request: &HttpRequest<'_>, referrer: &ReferrerHost<'_>) -> u32 {
        let absent = |told: Option<&[u8]>| told.is_some_and(|value| header(value).is_none());
        let present = |told: Option<&[u8]>| told.is_some_and(|value| header(value).is_some());
        let is_https = request.scheme == Some(b"https");
        let is_page_or_form = matches!(request.method, Some(b"GET" | b"POST"));
        let conflicts = [
            absent(request.accept),
            absent(request.accept_language),
            absent(request.accept_encoding),
            is_https && is_page_or_form && self.sends_sec_fetch() && absent(request.sec_fetch_mode),
            is_https && is_page_or_form && self.chromium >= 90 && absent(request.sec_ch_ua),
            self.chromium == 0 && present(request.sec_ch_ua),
            self.contradicts_brands(request),
            self.contradicts_platform(request),
            contradicts_fetch(request),
            contradicts_referrer(request, referrer),
        ];
        conflicts.iter().map(|conflict| u32::from(*conflict)).sum()
    }

    fn sends_sec_fetch(&self) -> bool {
        self.chromium >= 80 || self.firefox >= 90 || self.safari >= 17
    }

    /// `"Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"`: one has the version that the agent names.
    fn contradicts_brands(&self, request: &HttpRequest<'_>) -> bool {
        let Some(brands) = request.sec_ch_ua.and_then(header) else { return false };
        if self.chromium == 0 {
            return false;
        }
        let brands = brands.get(..MOST_BYTES).unwrap_or(brands);
        let has_version = memchr_iter(b'=', brands).any(|at| {
            let version = at.checked_sub(1).and_then(|from| brands.get(from..));
            version.is_some_and(|version| major(version, b"v=\"") == self.chromium)
        });
        !has_version || contains(brands, b"Headless")
    }

    fn contradicts_platform(&self, request: &HttpRequest<'_>) -> bool {
        let mobile = request.sec_ch_ua_mobile.and_then(header);
        let is_other_size = mobile.is_some_and(|mobile| mobile != if self.is_mobile { b"?1" } else { b"?0" });
        let platform = request.sec_ch_ua_platform.and_then(header);
        let names: &[&[u8]] = match self.platform {
            Platform::Unknown => &[],
            Platform::Windows => &[b"\"Windows\""],
            Platform::MacOs => &[b"\"macOS\"", b"\"Mac OS X\""],
            // A telephone that is asked for the page of a desk says that it is one.
            Platform::Linux => &[b"\"Linux\"", b"\"Android\""],
            Platform::Android => &[b"\"Android\""],
            Platform::ChromeOs => &[b"\"Chrome OS\"", b"\"Chromium OS\"", b"\"ChromeOS\""],
            Platform::Ios => &[b"\"iOS\""],
        };
        let is_other_platform = platform.is_some_and(|name| !names.is_empty() && !names.contains(&name));
        is_other_size || is_other_platform
    }
}

/// Whether a program calls itself so that visits pages for somebody.
fn is_robots_name(name: &[u8]) -> bool {
    let names: &[&[u8]] = match name.last() {
        Some(b'r' | b'R') => {
            &[b"crawler", b"spider", b"monitor", b"scanner", b"fetcher", b"checker", b"validator"]
        }
        Some(b'w' | b'W') => &[b"preview"],
        Some(b'n' | b'N') => &[b"favicon"],
        Some(b'y' | b'Y') => &[b"imageproxy"],
        Some(b'e' | b'E') => &[b"lighthouse"],
        Some(b'T') => &[b"PTST"],
        _ => &[],
    };
    names.iter().any(|end| ends_in(name, end))
}

fn ends_in(name: &[u8], end: &[u8]) -> bool {
    let tail = name.len().checked_sub(end.len()).and_then(|from| name.get(from..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// Whether `Sec-Fetch-*` are not as the Fetch Metadata specification has them, or ask for a page that `Accept` does not.
fn contradicts_fetch(request: &HttpRequest<'_>) -> bool {
    let (site, mode, dest) = (
        request.sec_fetch_site.and_then(header),
        request.sec_fetch_mode.and_then(header),
        request.sec_fetch_dest.and_then(header),
    );
    let is_unknown = site
        .is_some_and(|site| !matches!(site, b"none" | b"same-origin" | b"same-site" | b"cross-site"))
        || mode.is_some_and(|mode| {
            !matches!(mode, b"navigate" | b"cors" | b"no-cors" | b"same-origin" | b"websocket")
        });
    let is_page = dest.is_some_and(|dest| {
        matches!(dest, b"document" | b"iframe" | b"frame" | b"embed" | b"object" | b"fencedframe")
    });
    let is_navigation = mode == Some(b"navigate");
    // Those that are told come together.
    let told =
        [request.sec_fetch_site, request.sec_fetch_mode, request.sec_fetch_dest].iter().flatten().count();
    let there = [site, mode, dest].iter().flatten().count();
    let accept = request.accept.and_then(header);
    is_unknown
        || (there > 0 && there < told)
        || (is_navigation && dest.is_some() && !is_page)
        || (dest == Some(b"document") && accept.is_some_and(|accept| !contains(accept, b"text/html")))
}

/// Whether `Sec-Fetch-Site` says something else than the referrer.
fn contradicts_referrer(request: &HttpRequest<'_>, referrer: &ReferrerHost<'_>) -> bool {
    if request.referrer.and_then(header).is_none() {
        return false;
    }
    match request.sec_fetch_site {
        Some(b"none") => true,
        Some(b"same-origin") => match (referrer.from, referrer.here) {
            (Some(from), Some(here)) => !from.eq_ignore_ascii_case(here),
            _ => false,
        },
        _ => false,
    }
}

/// The number that follows `name` at the start of `text`; 0 where there is none.
fn major(text: &[u8], name: &[u8]) -> u32 {
    if !starts_with(text, name) {
        return 0;
    }
    let rest = text.get(name.len()..).unwrap_or_default();
    let digits = rest.iter().take(6).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// Without a call: the words are short.
#[inline(always)]
fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.len() >= start.len() && text.iter().zip(start).all(|(byte, expected)| byte == expected)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    text.starts_with(part)
        || memchr_iter(*first, text).any(|at| text.get(at..).is_some_and(|rest| rest.starts_with(part)))
}

/// Whether `text` begins with `start`, of which most differ in the first bytes.
#[inline(always)]
fn begins(text: &[u8], start: &[u8]) -> bool {
    text.first() == start.first() && text.starts_with(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the runs, word by word, every agent claims the same.
    #[test]
    fn runs_say_what_their_words_say() {
        let ends = [
            "",
            "Chrome/124.0.0.0 Safari/537.36",
            "rv:128.0) Gecko/20100101 Firefox/128.0",
            "Version/17.4 Mobile/15E148",
            "Version/17.4 Mobile/15E148 Safari/604.1",
            "Version/17.4 Safari/605.1.15",
            "Safari/537.36 Edg/124.0",
            "Chrome/99 (x; bot/1",
            "CrOS x86_64",
        ];
        for Run { words: run, .. } in RUNS {
            assert_eq!(run.last(), Some(&b' '), "ends where a word ends");
            for (cut, before) in
                (0..=run.len()).flat_map(|cut| ["", "X11; ", "CrOS; "].map(|before| (cut, before)))
            {
                for end in ends {
                    let agent = [b"Mozilla/5.0 (", before.as_bytes(), &run[..cut], end.as_bytes()].concat();
                    let text = String::from_utf8_lossy(&agent);
                    assert_eq!(
                        Browser::claimed_by(&agent),
                        Browser::claimed_by_words(&agent, &[], &[]),
                        "{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn browsers_of_all_times_claim_to_be_one_and_programs_do_not() {
        let browsers = [
            "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1; .NET CLR 1.1.4322)",
            "Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)",
            "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
            "Opera/9.80 (X11; Linux x86_64) Presto/2.12.388 Version/12.16",
            "Mozilla/5.0 (compatible; Konqueror/3.5; Linux) KHTML/3.5.6 (like Gecko)",
            "Mozilla/5.0 (X11; U; Linux i686; en-US; rv:1.7.12) Gecko/20050922 Epiphany/1.8.2",
            "Mozilla/5.0 (Macintosh; U; PPC Mac OS X; en) AppleWebKit/418 (KHTML, like Gecko) Safari/417.9.3",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
            "Mozilla/5.0 (Linux; Android 12; Cubot Note) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Mobile Safari/537.36",
        ];
        let programs = [
            "",
            "curl/8.5.0",
            "Mozilla/5.0",
            "Opera/",
            "Mozilla/4.0 (compatible;)",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Mozilla/4.5 (compatible; HTTrack 3.0x; Windows 98)",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/124.0.0.0 Safari/537.36",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko; Google Web Preview) Chrome/27.0.1453 Safari/537.36",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/49.0.2623.75 Safari/537.36 Google Favicon",
            "Mozilla/5.0 (Windows; U; Windows NT 5.1; de; rv:1.9.0.7) Gecko/2009 Firefox/3.0.7 (via ggpht.com GoogleImageProxy)",
            "Mozilla/5.0 (Windows; U; Windows NT 5.1; zh-CN; )  Firefox/1.5.0.11; 360Spider",
            "Mozilla/5.0 (Linux; Android 11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36 Chrome-Lighthouse",
            "Mozilla/5.0 (Linux; Android 8.1.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36 PTST/240201",
            "SiteCheck/1.0 Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/120.0",
        ];
        for (agents, expected) in [(&browsers[..], true), (&programs[..], false)] {
            for agent in agents {
                assert_eq!(Browser::claimed_by(agent.as_bytes()).is_some(), expected, "{agent}");
            }
        }
    }
}
