//! A whole request as a web server knows it, and the numbers that it says by itself.

use super::browser::Browser;
use super::{header, host, host_of_url, path_and_query};
use crate::attribute::Value;
use crate::pass::Pass;

/// What a web server knows of a request, as its variables have it.
///
/// `None`: the server does not tell. `Some` of an empty value, or of `-`: the request has none. The difference matters: what
/// is not told is NaN to models, so that one model serves poor and rich logs.
///
/// ```
/// use bliss_core::http::{HttpRequest, NO_SITES, RequestValue};
///
/// let request = HttpRequest {
///     method: Some(b"GET"),
///     target: Some(b"/style/site.css?v=3"),
///     referrer: Some(b"https://shop.example/"),
///     host: Some(b"shop.example"),
///     ..HttpRequest::default()
/// };
/// let values = request.values(RequestValue::ALL_BITS, NO_SITES);
/// let value = |of: RequestValue| values[of.index()];
/// assert_eq!((value(RequestValue::IsAsset), value(RequestValue::SiteReferrer)), (1.0, 1.0));
/// assert!(value(RequestValue::HasAccept).is_nan(), "not told");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// The client's address, as text or in network order.
    pub ip: Option<Value<'a>>,
    /// The method.
    pub method: Option<&'a [u8]>,
    /// The request's target with its query, as `$request_uri` has it.
    pub target: Option<&'a [u8]>,
    /// `http` or `https`.
    pub scheme: Option<&'a [u8]>,
    /// The host asked for, with or without port.
    pub host: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`.
    pub referrer: Option<&'a [u8]>,
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Accept-Language`.
    pub accept_language: Option<&'a [u8]>,
    /// `Accept-Encoding`.
    pub accept_encoding: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`.
    pub sec_fetch_site: Option<&'a [u8]>,
    /// `Sec-Fetch-Mode`.
    pub sec_fetch_mode: Option<&'a [u8]>,
    /// `Sec-Fetch-Dest`.
    pub sec_fetch_dest: Option<&'a [u8]>,
    /// `Sec-CH-UA`.
    pub sec_ch_ua: Option<&'a [u8]>,
    /// `Sec-CH-UA-Mobile`.
    pub sec_ch_ua_mobile: Option<&'a [u8]>,
    /// `Sec-CH-UA-Platform`.
    pub sec_ch_ua_platform: Option<&'a [u8]>,
    /// The pass that it brings as a cookie, or whether it had a valid one.
    pub pass: Option<Pass<'a>>,
}

/// A number that a request says by itself. Models call it `request.NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestValue {
    /// 1 if there is no referrer, else 0.
    NoReferrer,
    /// 1 if the referrer's host is the host asked for or another one of the site, else 0; NaN where no host of the site is known.
    SiteReferrer,
    /// 1 if the method is GET, else 0.
    IsGet,
    /// 1 if the path is one of [`is_asset`], else 0.
    IsAsset,
    /// 1 if the path ends in `.xml`, `.txt`, `.json`, `.rss`, `.gz`, `.zip` or `.pdf`, else 0.
    IsData,
    /// How many `/` the path has, at most 255.
    PathDepth,
    /// Bytes after the target's `?`, at most 65,535.
    QueryLength,
    /// 1 if there is an `Accept`, else 0.
    HasAccept,
    /// 1 if there is an `Accept-Language`, else 0.
    HasAcceptLanguage,
    /// 1 if there is an `Accept-Encoding`, else 0.
    HasAcceptEncoding,
    /// 1 if there is a `Sec-Fetch-Mode`; 0 if there is none over https; NaN if there is none otherwise, as browsers have it.
    HasSecFetch,
    /// 1 if there is a `Sec-CH-UA`; 0 if there is none over https; NaN if there is none otherwise, as browsers have it.
    HasSecChUa,
    /// 1 if the user agent claims to be a browser, of whatever time, and no robot, else 0.
    ClaimsBrowser,
    /// How many headers contradict the browser that the user agent claims, or each other; NaN where it claims none, or `Accept`,
    /// `Accept-Language` and `Accept-Encoding` all are not told.
    HeaderConflicts,
    /// 1 if the request has a pass that holds, else 0; NaN if the server does not tell, or a cookie cannot be checked.
    ChallengePassed,
}

use RequestValue::*;

impl RequestValue {
    /// Every one, in the order of [`Self::index`].
    pub const ALL: [Self; 15] = [
        NoReferrer,
        SiteReferrer,
        IsGet,
        IsAsset,
        IsData,
        PathDepth,
        QueryLength,
        HasAccept,
        HasAcceptLanguage,
        HasAcceptEncoding,
        HasSecFetch,
        HasSecChUa,
        ClaimsBrowser,
        HeaderConflicts,
        ChallengePassed,
    ];

    /// The [bits](Self::bit) of all.
    pub const ALL_BITS: u32 = (1 << Self::ALL.len()) - 1;

    /// Its name, without `request.`.
    pub fn name(self) -> &'static str {
        match self {
            NoReferrer => "no_referrer",
            SiteReferrer => "site_referrer",
            IsGet => "is_get",
            IsAsset => "is_asset",
            IsData => "is_data",
            PathDepth => "path_depth",
            QueryLength => "query_length",
            HasAccept => "has_accept",
            HasAcceptLanguage => "has_accept_language",
            HasAcceptEncoding => "has_accept_encoding",
            HasSecFetch => "has_sec_fetch",
            HasSecChUa => "has_sec_ch_ua",
            ClaimsBrowser => "claims_browser",
            HeaderConflicts => "header_conflicts",
            ChallengePassed => "challenge_passed",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// Where it stands in [`HttpRequest::values`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The bit that stands for it where some are asked for.
    pub fn bit(self) -> u32 {
        1 << self.index()
    }
}

/// For a site of which only the host that the request asks for is known.
pub const NO_SITES: fn(&[u8]) -> Option<bool> = |_| None;

impl HttpRequest<'_> {
    /// The numbers whose [bits](RequestValue::bit) are in `wanted`; NaN at the places of the others, and of what is not told.
    ///
    /// `is_site` says whether a host, without port and in either case, is the site's; `None` where that is not known of any.
    /// The cookie of a pass is not checked here, for want of the secret and the time: [`crate::scorer::Scorer::request_values`] does.
    /// Does not allocate.
    pub fn values(
        &self,
        wanted: u32,
        is_site: impl Fn(&[u8]) -> Option<bool>,
    ) -> [f32; RequestValue::ALL.len()] {
        let mut values = [f32::NAN; RequestValue::ALL.len()];
        let wants = |of: RequestValue| wanted & of.bit() != 0;
        let mut set = |of: RequestValue, value: Option<f32>| {
            if let (true, Some(place), Some(value)) = (wants(of), values.get_mut(of.index()), value) {
                *place = value;
            }
        };
        set(NoReferrer, self.referrer.map(|value| flag(header(value).is_none())));
        let hosts = if wants(SiteReferrer) || wants(HeaderConflicts) {
            self.referrer_host()
        } else {
            ReferrerHost::default()
        };
        if wants(SiteReferrer) && self.referrer.is_some() {
            set(SiteReferrer, hosts.is_site(is_site));
        }
        set(IsGet, self.method.map(|method| flag(method == b"GET")));
        if let Some(target) = self.target {
            let (path, query) = path_and_query(target);
            if wants(IsAsset) || wants(IsData) || wants(PathDepth) {
                let path = path.unwrap_or_default();
                let content = content(path);
                set(IsAsset, Some(flag(content == Some(Content::Asset))));
                set(IsData, Some(flag(content == Some(Content::Data))));
                let counted = path.get(..MOST_PATH_BYTES).unwrap_or(path);
                let depth: u16 = counted.iter().map(|byte| u16::from(*byte == b'/')).sum();
                set(PathDepth, Some(f32::from(depth.min(255))));
            }
            if wants(QueryLength) {
                set(QueryLength, Some(query.len().min(65_535) as f32));
            }
        }
        let has = |told: Option<&[u8]>| told.map(|value| flag(header(value).is_some()));
        set(HasAccept, has(self.accept));
        set(HasAcceptLanguage, has(self.accept_language));
        set(HasAcceptEncoding, has(self.accept_encoding));
        // Over http browsers leave them out: only over https their absence says something.
        let is_https = self.scheme == Some(b"https");
        let has_secure = |told| has(told).filter(|has| is_https || *has > 0.0);
        set(HasSecFetch, has_secure(self.sec_fetch_mode));
        set(HasSecChUa, has_secure(self.sec_ch_ua));
        if let Some(agent) = self.user_agent
            && (wants(ClaimsBrowser) || wants(HeaderConflicts))
        {
            let browser = Browser::claimed_by(agent);
            set(ClaimsBrowser, Some(flag(browser.is_some())));
            let is_told = self.accept.or(self.accept_language).or(self.accept_encoding).is_some();
            let browser = browser.filter(|_| is_told && wants(HeaderConflicts));
            set(HeaderConflicts, browser.map(|browser| browser.conflicts(self, &hosts) as f32));
        }
        set(ChallengePassed, self.passed(|_| None).map(flag));
        values
    }

    /// Whether the request has a pass that holds; `None` where that is not told, or `check` does not know of a cookie that is there.
    #[inline]
    pub(crate) fn passed(&self, check: impl FnOnce(&[u8]) -> Option<bool>) -> Option<bool> {
        match self.pass? {
            Pass::Checked(passed) => Some(passed),
            Pass::Cookie(cookie) => header(cookie).map_or(Some(false), check),
        }
    }

    fn referrer_host(&self) -> ReferrerHost<'_> {
        ReferrerHost {
            from: self.referrer.and_then(header).and_then(host_of_url),
            here: self.host.and_then(host),
        }
    }
}

/// The hosts that a referrer, and the request that has it, name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReferrerHost<'a> {
    pub(super) from: Option<&'a [u8]>,
    pub(super) here: Option<&'a [u8]>,
}

impl ReferrerHost<'_> {
    fn is_site(&self, is_site: impl Fn(&[u8]) -> Option<bool>) -> Option<f32> {
        // No site has a referrer without a host.
        let Some(from) = self.from else { return Some(0.0) };
        match self.here.map(|here| is_same_host(from, here)) {
            Some(true) => Some(1.0),
            Some(false) => Some(flag(is_site(from) == Some(true))),
            None => is_site(from).map(flag),
        }
    }
}

/// Whether `host` is one of the site's, whatever its case and with or without `www.`; `None` where the site has none that are
/// known.
pub fn is_of_site<'h>(mut site: impl Iterator<Item = &'h [u8]>, host: &[u8]) -> Option<bool> {
    let is = |own: &[u8]| is_same_host(own, host);
    let first = site.next()?;
    Some(is(first) || site.any(is))
}

pub(crate) fn flag(is: bool) -> f32 {
    if is { 1.0 } else { 0.0 }
}

/// Whether two hosts are one, but for case and `www.`.
fn is_same_host(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (without_www(a), without_www(b));
    // Most often byte for byte.
    a == b || a.eq_ignore_ascii_case(b)
}

/// The host of a site often has both names.
fn without_www(host: &[u8]) -> &[u8] {
    match host.split_at_checked(4) {
        Some((www, rest)) if www.eq_ignore_ascii_case(b"www.") => rest,
        _ => host,
    }
}

/// So much of a path is looked at.
const MOST_PATH_BYTES: usize = 1024;

/// Extensions of what pages are made of: images, styles, scripts, fonts, media.
const ASSETS: [&str; 32] = [
    "aac", "avif", "bmp", "css", "eot", "flac", "gif", "ico", "jpeg", "jpg", "js", "m4a", "m4v", "map",
    "mjs", "mov", "mp3", "mp4", "ogg", "ogv", "opus", "otf", "png", "svg", "swf", "ttf", "wasm", "wav",
    "webm", "webp", "woff", "woff2",
];

/// Extensions of what programs read.
const DATA: [&str; 7] = ["xml", "txt", "json", "rss", "gz", "zip", "pdf"];

/// No extension of those is longer.
const LONGEST_EXTENSION: usize = 5;

/// What a path's extension says of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Asset,
    Data,
}

/// Known extensions, [packed], each at its [place] or the next free one behind it.
const EXTENSIONS: [Option<(u64, Content)>; 128] = {
    let mut table = [None; 128];
    place_all(&mut table, &ASSETS, Content::Asset);
    place_all(&mut table, &DATA, Content::Data);
    table
};

#[allow(clippy::indexing_slicing)] // Only while compiling.
const fn place_all(table: &mut [Option<(u64, Content)>; 128], extensions: &[&str], content: Content) {
    let mut next = 0;
    while next < extensions.len() {
        let extension = packed(extensions[next].as_bytes());
        let mut at = place(extension);
        while table[at].is_some() {
            at = (at + 1) % table.len();
        }
        table[at] = Some((extension, content));
        next += 1;
    }
}

/// Of 128 places. The uppermost bits of the product are mixed best.
const fn place(extension: u64) -> usize {
    (extension.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize
}

/// What the extension of a path says of it, if anything.
fn content(path: &[u8]) -> Option<Content> {
    let extension = extension(path)?;
    let known = EXTENSIONS.iter().cycle().skip(place(extension)).take_while(|entry| entry.is_some());
    known.flatten().find(|(known, _)| *known == extension).map(|(_, content)| *content)
}

/// Up to seven bytes in lower case as a number, another one for each length.
const fn packed(mut bytes: &[u8]) -> u64 {
    let mut number = 1;
    while let [byte, rest @ ..] = bytes {
        number = number << 8 | byte.to_ascii_lowercase() as u64;
        bytes = rest;
    }
    number
}

/// Whether a path's extension is that of what pages are made of: an image, a style, a script, a font, sound or film.
pub fn is_asset(path: &[u8]) -> bool {
    content(path) == Some(Content::Asset)
}

/// The [packed](packed) extension of a path, if it is no longer than those that are known.
fn extension(path: &[u8]) -> Option<u64> {
    let tail = path.get(path.len().saturating_sub(LONGEST_EXTENSION + 1)..)?;
    let at = tail.iter().rposition(|byte| matches!(byte, b'.' | b'/'))?;
    match tail.get(at..) {
        Some([b'.', extension @ ..]) => Some(packed(extension)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_extension_is_found_and_no_other() {
        let of = |extension: &str| content(format!("/a.b/c.{extension}").as_bytes());
        for (extensions, expected) in [(&ASSETS[..], Content::Asset), (&DATA[..], Content::Data)] {
            for extension in extensions {
                assert!(extension.len() <= LONGEST_EXTENSION);
                assert!(of(extension) == Some(expected), "{extension}");
                assert!(of(&extension.to_uppercase()) == Some(expected), "{extension}");
            }
        }
        let is_known = |extension: &str| ASSETS.contains(&extension) || DATA.contains(&extension);
        let letters = || ('a'..='z').chain('0'..='9');
        for others in letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c]))) {
            for extension in [String::from_iter(others), String::from_iter(&others[..2])] {
                assert!(is_known(&extension) || of(&extension).is_none(), "{extension}");
            }
        }
    }
}
