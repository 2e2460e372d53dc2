//! From what a web server knows of a request to the values of attributes.
//!
//! The access log and the worker see one request through different variables: the log has the request line as the client
//! sent it, the worker nginx's `$request_uri`. These functions give both the same value, so that a request finds the rows
//! that requests like it made. Each is idempotent: what went through once is not changed the second time.
//!
//! | attribute | value |
//! |---|---|
//! | `path` | [`path`] of the request's target |
//! | `method` | [`method`] |
//! | `host` | [`host`] of the `Host` header or of `$host`, in lower case |
//! | `user_agent`, `referrer` | [`header`] |
//! | `browser` | [`browser_number`] of the user agent |
//! | `crawler` | [`crawler_name`] of the user agent |
//!
//! What a whole request says by itself, beside these, is a number for each [`RequestValue`].

mod browser;
mod crawler;
mod request;

use memchr::memchr;

pub use browser::{Engine, browser_number, engine_of};
pub use crawler::{CRAWLERS, CRAWLERS_DATE, Crawler, crawler_name, crawler_of};
pub(crate) use request::flag;
pub use request::{HttpRequest, NO_SITES, RequestValue, is_asset, is_of_site};

/// By which of these functions the text of an attribute becomes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// By none: the value is as the caller says it.
    Verbatim,
    /// [`header`].
    Header,
    /// [`method`].
    Method,
    /// [`path`].
    Path,
    /// [`host`], in lower case.
    Host,
    /// Of a user agent [`browser_number`].
    Browser,
    /// Of a user agent [`crawler_name`].
    Crawler,
}

impl Rule {
    /// The rule for the attribute of this name.
    pub fn of(attribute: &str) -> Self {
        match attribute {
            "user_agent" | "referrer" => Self::Header,
            "method" => Self::Method,
            "path" => Self::Path,
            "host" => Self::Host,
            "browser" => Self::Browser,
            "crawler" => Self::Crawler,
            _ => Self::Verbatim,
        }
    }

    /// The part of `value` that counts; `None` where it counts as absent. A host keeps its upper case.
    pub fn apply(self, value: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Verbatim | Self::Browser => Some(value),
            Self::Header => header(value),
            Self::Method => method(value),
            Self::Path => path(value),
            Self::Host => host(value),
            Self::Crawler => crawler_name(value).map(str::as_bytes),
        }
    }
}

/// A header's value; `None` where the request has none. Empty and `-`, which logs write for no value, are none.
pub fn header(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty() && value != b"-").then_some(value)
}

/// A method; `None` where it is not a token of RFC 9110, as when a TLS greeting was sent to a plain port.
pub fn method(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty() && value != b"-" && value.iter().all(|byte| is_token(*byte))).then_some(value)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The path of a request's target: undecoded, up to `?`, without spaces around it. An absolute URL
/// (`http://shop.example/x`) loses scheme and host, as in `$request_uri`; without a path after the host it is `/`, as where
/// only the query is left of it. `None` where there is no target.
pub fn path(target: &[u8]) -> Option<&[u8]> {
    path_and_query(target).0
}

/// The query of a request's target: what follows `?`, without spaces around it; empty where there is none.
pub fn query(target: &[u8]) -> &[u8] {
    path_and_query(target).1
}

/// [`path`] and [`query`].
#[inline]
fn path_and_query(target: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let Some(end) = memchr(b'?', target) else { return (path_alone(target), b"") };
    let path = target.get(..end).map(trim_spaces).unwrap_or_default();
    let query = target.get(end + 1..).map(trim_spaces).unwrap_or_default();
    (if path.is_empty() { Some(b"/") } else { path_alone(path) }, query)
}

/// The path of a target without query.
#[inline]
fn path_alone(target: &[u8]) -> Option<&[u8]> {
    let path = trim_spaces(target);
    if path.first() == Some(&b'/') {
        return Some(path);
    }
    let Some(after_scheme) = after_scheme(path) else {
        return header(path);
    };
    match memchr(b'/', after_scheme) {
        Some(slash) => after_scheme.get(slash..),
        None => Some(b"/"),
    }
}

/// What follows `scheme://`, if the target begins with a scheme of RFC 3986.
fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = target.strip_prefix(b"https://").or_else(|| target.strip_prefix(b"http://")) {
        return Some(rest);
    }
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at_checked(colon)?;
    let is_scheme = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if is_scheme { rest.strip_prefix(b"://") } else { None }
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// The host without port and without dots at its end; upper case stays, and keys are made in lower case. `None` where
/// there is none.
pub fn host(value: &[u8]) -> Option<&[u8]> {
    if !value.iter().any(|byte| matches!(byte, b':' | b']')) {
        return plain_host(value);
    }
    // The colons of an IPv6 address stand in brackets.
    let from = memchr(b']', value).unwrap_or(0);
    let colon = memchr(b':', value.get(from..)?);
    plain_host(value.get(..colon.map_or(value.len(), |at| from + at))?)
}

/// A [`host`] that has no port.
#[inline]
fn plain_host(mut name: &[u8]) -> Option<&[u8]> {
    while let [rest @ .., b'.'] = name {
        name = rest;
    }
    header(name)
}

/// The [`host`] of a URL with a scheme, `https://shop.example:443/x`, without user; `None` where there is none.
pub fn host_of_url(url: &[u8]) -> Option<&[u8]> {
    let rest = after_scheme(url)?;
    let is_end = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
    // A plain name, as nearly all are, in one go: names are too short for searches that prepare themselves.
    let at = rest.iter().position(|byte| is_end(byte) || matches!(byte, b'@' | b':' | b']'));
    let Some(at) = at else { return host(rest) };
    if rest.get(at).is_some_and(is_end) {
        return plain_host(rest.get(..at)?);
    }
    let end = rest.iter().position(is_end).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    let from = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    host(authority.get(from..)?)
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_of_targets() {
        for (target, expected) in [
            ("/", Some("/")),
            ("/a?b?c", Some("/a")),
            ("/h#frag?x=1", Some("/h#frag")),
            ("/?u=http://x/y", Some("/")),
            ("//x/y", Some("//x/y")),
            ("http://shop.example/abs?x", Some("/abs")),
            ("HTTP://shop.example/up?x", Some("/up")),
            ("http://shop.example", Some("/")),
            ("http://shop.example?x=/y", Some("/")),
            ("http://shop.example:8080/", Some("/")),
            ("coap+tcp://h/x", Some("/x")),
            ("1http://h/x", Some("1http://h/x")),
            ("://h/x", Some("://h/x")),
            ("http:/x", Some("http:/x")),
            ("shop.example:443", Some("shop.example:443")),
            ("*", Some("*")),
            (" /sp ", Some("/sp")),
            ("/a b c", Some("/a b c")),
            ("?x", Some("/")),
            (" ?x=/y", Some("/")),
            ("-", None),
            ("", None),
            ("  ", None),
        ] {
            let expected = expected.map(str::as_bytes);
            assert_eq!(path(target.as_bytes()), expected, "{target}");
        }
    }

    #[test]
    fn hosts_lose_port_and_dot() {
        for (value, expected) in [
            ("shop.example", Some("shop.example")),
            ("shop.example:443", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("shop.example.:80", Some("shop.example")),
            ("[2001:db8::1]:443", Some("[2001:db8::1]")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("-", None),
            ("", None),
            (":80", None),
            (".", None),
        ] {
            assert_eq!(host(value.as_bytes()), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn methods_are_tokens_and_headers_are_not_a_dash() {
        for known in ["GET", "M-SEARCH", "VERSION_CONTROL", "get", "X2"] {
            assert_eq!(method(known.as_bytes()), Some(known.as_bytes()));
        }
        for unknown in ["", "-", "\x16\x03", "GE T", "GET/"] {
            assert_eq!(method(unknown.as_bytes()), None);
        }
        assert_eq!((header(b""), header(b"-"), header(b"--")), (None, None, Some(b"--".as_slice())));
    }

    /// As the definition reads: up to what ends an authority, without user, the host of the rest.
    fn host_of_url_by_parts(url: &[u8]) -> Option<&[u8]> {
        let rest = after_scheme(url)?;
        let authority = rest.split(|byte| b"/?#".contains(byte)).next()?;
        host(authority.rsplit(|byte| *byte == b'@').next()?)
    }

    #[test]
    fn hosts_of_urls() {
        for (url, expected) in [
            ("https://shop.example/x", Some("shop.example")),
            ("http://shop.example", Some("shop.example")),
            ("https://shop.example:443?x", Some("shop.example")),
            ("https://user:secret@shop.example./", Some("shop.example")),
            ("https://[2001:db8::1]:443/", Some("[2001:db8::1]")),
            ("https://shop.example/@other.example", Some("shop.example")),
            ("https:///x", None),
            ("shop.example/x", None),
            ("-", None),
        ] {
            assert_eq!(host_of_url(url.as_bytes()), expected.map(str::as_bytes), "{url}");
        }
    }

    proptest! {
        #[test]
        fn hosts_of_urls_are_those_of_their_parts(
            rest in proptest::collection::vec(prop::sample::select(b"a.:]@/?#-[".to_vec()), 0..16),
        ) {
            let url = [b"http://".as_slice(), &rest].concat();
            prop_assert_eq!(host_of_url(&url), host_of_url_by_parts(&url));
        }

        #[test]
        fn what_went_through_once_does_not_change(
            value in proptest::collection::vec(prop::sample::select(b"ab:/?#. -[]%\xff".to_vec()), 0..20),
        ) {
            for rule in [Rule::Header, Rule::Method, Rule::Path, Rule::Host, Rule::Crawler] {
                if let Some(once) = rule.apply(&value) {
                    prop_assert_eq!(rule.apply(once), Some(once));
                }
            }
        }
    }
}
