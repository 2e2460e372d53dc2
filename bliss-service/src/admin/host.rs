//! Which names the pages may be asked for by.
//!
//! A page in an operator's browser may have a name of its own resolve to this listener's address (DNS rebinding), and would
//! then read the pages here as its own. Its requests carry that name.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests for other names. One without a name is no browser's.
pub(super) async fn check(State(names): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let uri = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let headers = request.headers().get_all(header::HOST).iter();
    let hosts = headers.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).chain(uri);
    match hosts.into_iter().find(|host| !is_allowed(host, &names)) {
        Some(host) => (StatusCode::MISDIRECTED_REQUEST, refusal(&host)).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(host: &str) -> String {
    format!(
        "expected an address, localhost or a name of admin.hosts as Host, found {host:?}; ask by address, or add the name to \
         admin.hosts\n"
    )
}

/// Whether `host`, with or without a port, is an address, `localhost`, or one of `names`. No name can be rebound to an
/// address that stands for itself.
fn is_allowed(host: &str, names: &[String]) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port));
    }
    let name = match host.split_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return false,
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|allowed| allowed.eq_ignore_ascii_case(&name))
}

/// A colon and digits.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_names_that_could_be_rebound_are_refused() {
        let names = ["bliss.example".to_owned()];
        let allowed = [
            "127.0.0.1",
            "127.0.0.1:9180",
            "192.0.2.1:9180",
            "[::1]",
            "[::1]:9180",
            "[2001:db8::1]:",
            "localhost",
            "LOCALHOST:9180",
            "localhost.",
            "admin.localhost:1",
            "bliss.example",
            "Bliss.Example.:9180",
        ];
        for host in allowed {
            assert!(is_allowed(host, &names), "{host}");
        }
        let refused = [
            "",
            ":9180",
            "evil.example",
            "evil.example:9180",
            "bliss.example.evil.example",
            "notbliss.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1:9180.evil.example",
            "127.1",
            "[::1",
            "[::1]evil",
            "[evil.example]:80",
            "::1",
            "user@127.0.0.1",
        ];
        for host in refused {
            assert!(!is_allowed(host, &names), "{host}");
        }
    }
}
