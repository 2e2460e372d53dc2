//! Redirects, where they may lead and what they carry.

use std::net::SocketAddr;

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::address;

/// Redirects that are followed for one answer.
pub(super) const MOST: usize = 10;
/// A value of the configured query that is as long is a secret under any name.
const SECRET_CHARS: usize = 8;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) url: Url,
    /// Whether it, and every hop before it, has the scheme, host and port of the configuration: only then are the
    /// configured headers sent.
    pub(super) is_configured_server: bool,
    /// Whether it may not lead to this host or a private network: once a server of the internet has redirected.
    pub(super) is_public_only: bool,
}

impl Hop {
    pub(super) fn first(configured: &Url) -> Self {
        Self { url: configured.clone(), is_configured_server: true, is_public_only: false }
    }

    /// The next hop, to the scheme, host and port of the configuration or of one of `allowed`; `from` is the address that
    /// redirected, as far as it is known. Another server, another port, and the same server with or without TLS get nothing of what was
    /// configured: no header, no user, no part of the query, even if the redirect repeats it. A redirect back from there
    /// gets nothing either.
    ///
    /// # Errors
    /// What is wrong with the redirect.
    pub(super) fn follow(
        &self,
        location: &HeaderValue,
        from: Option<SocketAddr>,
        configured: &Url,
        allowed: &[Url],
    ) -> Result<Self, String> {
        let text = std::str::from_utf8(location.as_bytes()).map_err(|_| "the address is not UTF-8")?;
        let mut url = self.url.join(text).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("expected an address of http or https, found {}", url.scheme()));
        }
        let target = url.origin();
        if url.scheme() != configured.scheme() {
            return Err(format!(
                "it leads from {} to {}; if that is right, set `url` to where it leads",
                configured.scheme(),
                target.ascii_serialization()
            ));
        }
        if target != configured.origin() && !allowed.iter().any(|allowed| allowed.origin() == target) {
            return Err(format!(
                "it leads from {} to another server, {}; if that is right, set `url` to it or add it to `redirects`",
                configured.origin().ascii_serialization(),
                target.ascii_serialization()
            ));
        }
        let from = from.map(|from| from.ip()).or_else(|| address::literal(&self.url));
        let is_public_only = self.is_public_only || from.is_none_or(address::is_public);
        if let Some(found) =
            address::literal(&url).filter(|found| is_public_only && !address::is_public(*found))
        {
            return Err(address::not_public(url.host_str().unwrap_or_default(), found));
        }
        let is_configured_server = self.is_configured_server && url.origin() == configured.origin();
        if !is_configured_server {
            // Neither fails: there is a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            remove_query_of(&mut url, configured);
        }
        Ok(Self { url, is_configured_server, is_public_only })
    }
}

/// Removes the parts of the query that `configured` has too.
fn remove_query_of(url: &mut Url, configured: &Url) {
    let Some(query) = url.query() else { return };
    let known: Vec<_> = configured.query_pairs().collect();
    let is_known = |(name, value): &(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        known.iter().any(|(known_name, known_value)| {
            known_value == value && (known_name == name || value.chars().count() >= SECRET_CHARS)
        })
    };
    // Pairs are made of the pieces that are not empty.
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let kept: Vec<&str> =
        pieces.zip(url.query_pairs()).filter(|(_, pair)| !is_known(pair)).map(|(piece, _)| piece).collect();
    let kept = (!kept.is_empty()).then(|| kept.join("&"));
    url.set_query(kept.as_deref());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    /// Follows one redirect from the configured URL at this address.
    fn from_at(location: &str, from: &str, configured: &Url, allowed: &[&str]) -> Result<Hop, String> {
        let allowed: Vec<Url> = allowed.iter().map(|allowed| url(allowed)).collect();
        let from = (!from.is_empty()).then(|| SocketAddr::new(from.parse().unwrap(), 80));
        Hop::first(configured).follow(&location.parse().unwrap(), from, configured, &allowed)
    }

    #[test]
    fn s15_what_a_redirect_carries() {
        let configured = url("https://u:p@a.example/d/r.jsonl?token=QUERYSECRET&v=1");
        let allowed = ["https://b.example", "https://a.example:8443/", "https://a.example.b.example"];
        // To, and where that leads; a star where configured headers are sent.
        for (location, expected) in [
            ("/x", "* https://u:p@a.example/x"),
            ("x?y=1", "* https://u:p@a.example/d/x?y=1"),
            ("https://a.example/x?token=QUERYSECRET", "* https://a.example/x?token=QUERYSECRET"),
            ("https://a.example:443/x", "* https://a.example/x"),
            ("https://A.EXAMPLE/x", "* https://a.example/x"),
            ("//b.example/x", "https://b.example/x"),
            ("https://a.example:8443/x?token=QUERYSECRET", "https://a.example:8443/x"),
            ("https://b.example/x?v=1&token=QUERYSECRET&w=2", "https://b.example/x?w=2"),
            ("https://a.example.b.example/x", "https://a.example.b.example/x"),
            ("https://b.example/x?sig=abc%20d&v=1&&Expires=5", "https://b.example/x?sig=abc%20d&Expires=5"),
            ("https://b.example/x?t=QUERYSECRE%54", "https://b.example/x"),
            ("https://b.example/x?other=1", "https://b.example/x?other=1"),
            ("https://u:p@b.example/x", "https://b.example/x"),
            ("https://a.example@b.example/x", "https://b.example/x"),
        ] {
            let hop = from_at(location, "8.8.8.8", &configured, &allowed).unwrap();
            let mark = if hop.is_configured_server { "* " } else { "" };
            assert_eq!(format!("{mark}{}", hop.url), expected, "{location}");
        }
        let away = from_at("https://b.example/", "", &configured, &allowed).unwrap();
        let location = "https://a.example/x?token=QUERYSECRET".parse().unwrap();
        let back = away.follow(&location, None, &configured, &[]).unwrap();
        assert_eq!((back.url.as_str(), back.is_configured_server), ("https://a.example/x", false));
    }

    #[test]
    fn s15_where_a_redirect_may_lead() {
        let configured = url("https://a.example/r.jsonl");
        for (location, expected) in [
            ("file:///etc/passwd", "found file"),
            ("ftp://a.example/", "found ftp"),
            ("https://[x", "invalid"),
            ("http://", "empty host"),
            // Another scheme, listed or not.
            ("http://a.example/r.jsonl", "from https to http://a.example; if"),
            ("http://b.example/", "from https to http://b.example; if"),
            ("https://a.example:8443/", "another server, https://a.example:8443; if"),
            ("https://c.example/", "another server, https://c.example; if"),
            ("https://a.example@c.example/", "another server, https://c.example; if"),
            ("https://[::1]/", "another server, https://[::1]; if"),
            ("https://127.0.0.1:9/", "https://127.0.0.1:9; if"),
            // Allowed, but not from the internet.
            ("https://10.0.0.1/x", "redirects to 10.0.0.1, which has"),
            ("https://[fd00::1]/x", "redirects to [fd00::1], which has"),
        ] {
            let allowed = ["https://b.example", "http://b.example", "https://10.0.0.1", "https://[fd00::1]"];
            for from in ["8.8.8.8", "2a00::1", ""] {
                let error = from_at(location, from, &configured, &allowed).unwrap_err();
                assert!(error.contains(expected), "{location}: {error}");
            }
        }
        // From a private network everything that is allowed.
        for from in ["10.1.1.1", "::1", "127.0.0.1"] {
            let hop = from_at("https://10.0.0.1/x", from, &configured, &["https://10.0.0.1"]).unwrap();
            assert!(!hop.is_public_only);
        }
        let private = url("https://127.0.0.1/");
        assert!(!from_at("/x", "", &private, &[]).unwrap().is_public_only);
        // Once through the internet, a private server sends nobody on to another one.
        let hop = from_at("/x", "8.8.8.8", &configured, &[]).unwrap();
        assert!(hop.is_public_only);
        let from = Some(SocketAddr::from(([10, 0, 0, 1], 80)));
        assert!(hop.follow(&"/y".parse().unwrap(), from, &configured, &[]).unwrap().is_public_only);
    }
}
