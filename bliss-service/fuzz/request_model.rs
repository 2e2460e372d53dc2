//! Requests as a client may send them, and how nginx logs them. Shared by a property test of the parser and by a fuzz target.
//!
//! After nginx's `ngx_http_log_module.c` and `ngx_string.c` (1.26): with `escape=default` a byte below 0x20 or from 0x7f on, `"`
//! and `\` become `\xHH`, and what a request does not have is `-`; with `escape=json` `"` and `\` get a backslash, bytes below
//! 0x20 become `\n` and the like or `\u00HH`, all others stay, and what a request does not have is empty.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// 17/May/2015:10:05:03 +0000
const TIME_MS: u64 = 1_431_857_103_000;

/// What nginx let through.
#[derive(Debug)]
pub(crate) struct Request {
    address: IpAddr,
    user: Vec<u8>,
    method: Vec<u8>,
    target: Vec<u8>,
    referrer: Vec<u8>,
    agent: Vec<u8>,
}

/// What a parser made of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub address: IpAddr,
    pub time_ms: u64,
    pub method: Vec<u8>,
    pub path: Vec<u8>,
    pub referrer: Option<Vec<u8>>,
    pub agent: Option<Vec<u8>>,
}

impl Request {
    /// From any bytes: each part has its length in front.
    pub(crate) fn new(mut bytes: &[u8]) -> Self {
        let mut part = || {
            let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
            let (part, rest) = rest.split_at(rest.len().min(usize::from(*length)));
            bytes = rest;
            part
        };
        let address = match *part() {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            [a, b, ..] => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a.into(), 0, 0, 0, 0, b.into())),
            _ => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        };
        // A user is decoded from Base64 and may hold anything but the colon before the password.
        let user = part().iter().copied().filter(|byte| *byte != b':').collect();
        let method: Vec<u8> = part().iter().map(|byte| b'A' + byte % 26).collect();
        // nginx refuses control bytes and spaces in the target.
        let target = part().iter().copied().filter(|byte| *byte > b' ' && *byte != 0x7f);
        let target = [b"/".as_slice(), &target.collect::<Vec<_>>()].concat();
        // It refuses NUL in a header, and takes the spaces around a value away.
        let mut header = || {
            let value: Vec<u8> = part().iter().copied().filter(|byte| !b"\0\r\n".contains(byte)).collect();
            let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
            let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
            let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
            value[start..end].to_vec()
        };
        let (referrer, agent) = (header(), header());
        let method = if method.is_empty() { b"GET".to_vec() } else { method };
        Self { address, user, method, target, referrer, agent }
    }

    /// The line of the format `combined`.
    pub(crate) fn combined(&self) -> Vec<u8> {
        let request = [&self.method, b" ".as_slice(), &self.target, b" HTTP/1.1"].concat();
        let mut line = format!("{} - ", self.address).into_bytes();
        line.extend(escaped(&self.user));
        line.extend(b" [17/May/2015:10:05:03 +0000] \"");
        line.extend(escaped(&request));
        line.extend(b"\" 200 12 \"");
        line.extend(escaped(&self.referrer));
        line.extend(b"\" \"");
        line.extend(escaped(&self.agent));
        line.push(b'"');
        line
    }

    /// The line of the format with `escape=json` in `docs/access-log.md`.
    pub(crate) fn json(&self) -> Vec<u8> {
        let mut line = format!("{{\"msec\":1431857103.000,\"remote_addr\":\"{}\"", self.address).into_bytes();
        let fields = [
            ("request_method", &self.method),
            ("request_uri", &self.target),
            ("host", &b"shop.example".to_vec()),
            ("http_referer", &self.referrer),
            ("http_user_agent", &self.agent),
        ];
        for (name, value) in fields {
            line.extend(format!(",\"{name}\":\"").bytes());
            line.extend(escaped_json(value));
            line.push(b'"');
        }
        line.extend(b",\"status\":200}");
        line
    }

    /// What a parser must make of either.
    pub(crate) fn expected(&self) -> Found {
        let header = |value: &[u8]| bliss_core::http::header(value).map(<[u8]>::to_vec);
        Found {
            address: self.address.to_canonical(),
            time_ms: TIME_MS,
            method: self.method.clone(),
            path: bliss_core::http::path(&self.target).unwrap_or_default().to_vec(),
            referrer: header(&self.referrer),
            agent: header(&self.agent),
        }
    }
}

fn escaped(value: &[u8]) -> Vec<u8> {
    if value.is_empty() {
        return b"-".to_vec();
    }
    let escape = |byte: &u8| match byte {
        b'"' | b'\\' | 0..0x20 | 0x7f.. => format!("\\x{byte:02X}").into_bytes(),
        byte => vec![*byte],
    };
    value.iter().flat_map(escape).collect()
}

fn escaped_json(value: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', *byte],
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        0x08 => b"\\b".to_vec(),
        0x0c => b"\\f".to_vec(),
        0..0x20 => format!("\\u{byte:04X}").into_bytes(),
        byte => vec![*byte],
    };
    value.iter().flat_map(escape).collect()
}
