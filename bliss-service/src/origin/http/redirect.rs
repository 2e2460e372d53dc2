//! Redirects, and what they carry.

use reqwest::Url;
use reqwest::header::HeaderValue;

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
}

impl Hop {
    pub(super) fn first(configured: &Url) -> Self {
        Self { url: configured.clone(), is_configured_server: true }
    }

    /// The next hop: on the `configured` server, or on one of `others`, which were configured too. Those get nothing that
    /// was configured for the first: no header, no user, no part of the query, even if the redirect repeats it. A redirect
    /// back from there gets nothing either.
    ///
    /// # Errors
    /// What is wrong with the redirect.
    pub(super) fn follow(
        &self,
        location: &HeaderValue,
        configured: &Url,
        others: &[Url],
    ) -> Result<Self, String> {
        let text = std::str::from_utf8(location.as_bytes()).map_err(|_| "the address is not UTF-8")?;
        let mut url = self.url.join(text).map_err(|error| error.to_string())?;
        if url.scheme() != configured.scheme() {
            let (scheme, other) = (configured.scheme(), url.scheme());
            return Err(format!(
                "from {scheme} to {other}: another scheme is never followed; if this is the right one, set `url` to it"
            ));
        }
        let is_known = |known: &Url| known.origin() == url.origin();
        if !is_known(configured) && !others.iter().any(is_known) {
            let server = url.origin().ascii_serialization();
            return Err(format!(
                "to another server, {server}, which is not followed; set `url` to it, or name it in `redirect_to`"
            ));
        }
        let is_configured_server = self.is_configured_server && url.origin() == configured.origin();
        if !is_configured_server {
            // Neither fails: there is a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            remove_query_of(&mut url, configured);
        }
        Ok(Self { url, is_configured_server })
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

    #[test]
    fn what_a_redirect_carries() {
        let configured = url("https://u:p@a.example/d/r.jsonl?token=QUERYSECRET&v=1");
        let others = [url("https://b.example"), url("https://a.example:8443")];
        // From, to, and where that leads; a star where configured headers are sent.
        for (location, expected) in [
            ("/x", "* https://u:p@a.example/x"),
            ("x?y=1", "* https://u:p@a.example/d/x?y=1"),
            ("https://a.example/x?token=QUERYSECRET", "* https://a.example/x?token=QUERYSECRET"),
            ("https://a.example:443/x", "* https://a.example/x"),
            ("https://A.EXAMPLE/x", "* https://a.example/x"),
            ("//b.example/x", "https://b.example/x"),
            ("https://a.example:8443/x?token=QUERYSECRET", "https://a.example:8443/x"),
            ("https://b.example/x?v=1&token=QUERYSECRET&w=2", "https://b.example/x?w=2"),
            ("https://b.example/x?sig=abc%20d&v=1&&Expires=5", "https://b.example/x?sig=abc%20d&Expires=5"),
            ("https://b.example/x?t=QUERYSECRE%54", "https://b.example/x"),
            ("https://b.example/x?other=1", "https://b.example/x?other=1"),
            ("https://u:p@b.example/x", "https://b.example/x"),
            ("https://a.example@b.example/x", "https://b.example/x"),
        ] {
            let hop =
                Hop::first(&configured).follow(&location.parse().unwrap(), &configured, &others).unwrap();
            let mark = if hop.is_configured_server { "* " } else { "" };
            assert_eq!(format!("{mark}{}", hop.url), expected, "{location}");
        }
        let first = Hop::first(&configured);
        let away = first.follow(&"https://b.example/".parse().unwrap(), &configured, &others).unwrap();
        let back =
            away.follow(&"https://a.example/x?token=QUERYSECRET".parse().unwrap(), &configured, &others);
        let back = back.unwrap();
        assert_eq!((back.url.as_str(), back.is_configured_server), ("https://a.example/x", false));
    }

    #[test]
    fn s15_a_redirect_stays_on_servers_that_were_configured() {
        let error = |from: &str, others: &[Url], location: &str| {
            let configured = url(from);
            Hop::first(&configured).follow(&location.parse().unwrap(), &configured, others).unwrap_err()
        };
        let others = [url("https://b.example")];
        for (location, message) in [
            ("file:///etc/passwd", "another scheme"),
            ("ftp://a.example/", "another scheme"),
            ("http://a.example/x", "from https to http: another scheme"),
            ("http://b.example/x", "another scheme"),
            ("https://[x", "invalid"),
            ("https://", "empty host"),
            ("https://c.example/x", "another server, https://c.example,"),
            ("//c.example/x", "another server"),
            ("https://b.example:8443/x", "another server"),
            ("https://a.example:8443/x", "another server"),
            ("https://a.example./x", "another server"),
            ("https://a.example.b.example/x", "another server"),
            ("https://b.example@c.example/x", "another server, https://c.example,"),
            ("https://127.0.0.1/x", "another server"),
        ] {
            let error = error("https://a.example/r", &others, location);
            assert!(error.contains(message), "{location}: {error}");
        }
        for location in ["https://a.example/r", "https://a.example:80/r"] {
            let error = error("http://a.example/r", &[], location);
            assert!(error.contains("from http to https: another scheme"), "{error}");
        }
    }
}
