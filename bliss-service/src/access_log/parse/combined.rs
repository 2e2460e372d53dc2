//! Lines of the combined format, and of Debian's `vhost_combined`, which has the host in front.

use std::borrow::Cow;

use super::values::{combined_time, ip, is_noted, own_answer, status};
use super::{Malformed, ParseError, Partial, Record, Told, split_request};

/// Length of `[17/May/2015:10:05:03 +0000]`.
const TIME_BYTES: usize = 28;

/// `[host[:port] ]address identity user [time] "request" status bytes "referrer" "user agent"`, then perhaps
/// `bot_action=ACTION`; anything may follow.
pub(super) fn parse(line: &[u8]) -> Result<Record<'_>, Malformed> {
    let mut partial = None;
    fields(line, &mut partial).map_err(|error| Malformed { error, partial })
}

fn fields<'a>(line: &'a [u8], partial: &mut Option<Partial>) -> Result<Record<'a>, ParseError> {
    let expected = |expected| ParseError::Combined { expected };
    let mut rest = Cursor(line);
    let first = rest.until(b' ').ok_or(expected("a client's address"))?;
    let (ip, host) = match ip(first) {
        Ok(ip) => (ip, None),
        Err(error) => {
            let address = rest.until(b' ').and_then(|second| ip(second).ok());
            (address.ok_or(error)?, bliss_core::http::host(&unescape(first)).map(<[u8]>::to_ascii_lowercase))
        }
    };
    let found = partial.insert(Partial { ip, time_ms: None });
    let time = rest.until_time().ok_or(expected("`[time] \"request\"`"))?;
    let time_ms = combined_time(time)?;
    found.time_ms = Some(time_ms);
    let request = rest.quoted().ok_or(expected("the quoted request and a space"))?;
    let status_text = rest.until(b' ').ok_or(expected("a status"))?;
    rest.until(b' ').ok_or(expected("the number of bytes sent"))?;
    let referrer = rest.quoted().ok_or(expected("the quoted referrer and a space"))?;
    let user_agent = rest.quoted().ok_or(expected("the quoted user agent, and a space or the line's end"))?;
    let (method, target) = split_request(request);
    let status = status(status_text)?;
    let action = ACTIONS.iter().find_map(|name| rest.0.strip_prefix(*name));
    let action = action.map(until_space).unwrap_or_default();
    Ok(Record {
        time_ms,
        ip,
        user_agent: super::with(user_agent, bliss_core::http::header),
        referrer: super::with(referrer, bliss_core::http::header),
        method: method.unwrap_or_default(),
        path: target
            .clone()
            .and_then(|target| super::with(target, bliss_core::http::path))
            .unwrap_or_default(),
        target: target.unwrap_or_default(),
        host: host.map(Cow::Owned),
        told: Told { user_agent: true, referrer: true, ..Told::default() },
        status,
        own_answer: own_answer(action, status),
        is_noted: is_noted(action),
    })
}

/// What our decision did. Only directly after the user agent: what clients send may stand farther behind.
const ACTIONS: [&[u8]; 2] = [b"bliss_action=", b"bot_action="];

fn until_space(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b' ').next().unwrap_or_default()
}

/// What is left of a line.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|byte| *byte == end)?;
        let (found, rest) = (&self.0[..at], &self.0[at + 1..]);
        self.0 = rest;
        Some(found)
    }

    /// The time between the brackets directly before the first quote. The user's name, which the client chooses, stands
    /// before it and may hold spaces and brackets, but no quote that is not escaped.
    fn until_time(&mut self) -> Option<&'a [u8]> {
        let quote = self.0.windows(3).position(|three| three == b"] \"")? + 2;
        let time = self.0.get((quote - 1).checked_sub(TIME_BYTES)?..quote - 1)?;
        self.0 = &self.0[quote..];
        time.strip_prefix(b"[")?.strip_suffix(b"]")
    }

    /// A string in quotes, with its escapes undone, and the space after it. A quote that is followed by something else
    /// was not escaped: where the string ends is not known then.
    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let text = self.0.strip_prefix(b"\"")?;
        let mut escaped = false;
        let mut at = 0;
        loop {
            match text.get(at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        let (text, rest) = (&text[..at], &text[at + 1..]);
        self.0 = match rest {
            [] => rest,
            [b' ', rest @ ..] => rest,
            _ => return None,
        };
        Some(if escaped { Cow::Owned(unescape(text)) } else { Cow::Borrowed(text) })
    }
}

/// Undoes what nginx (`\x22`) and Apache (`\"`, `\\`, `\n`, `\x22`) write for bytes that would break the line.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match rest {
            [b'x' | b'X', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0) as u8;
                out.push(digit(high) << 4 | digit(low));
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    other => *other,
                });
                rest = tail;
            }
            [] => out.push(b'\\'),
        }
    }
    out
}
