//! Values of a log line: addresses, times, statuses.

use std::net::IpAddr;
use std::str::FromStr;

use super::ParseError;

pub(super) fn field(expected: &'static str, found: &[u8]) -> ParseError {
    let shown = String::from_utf8_lossy(&found[..found.len().min(60)]).into_owned();
    ParseError::Field { expected, found: shown }
}

pub(super) fn ip(text: &[u8]) -> Result<IpAddr, ParseError> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    parsed.map(|ip| ip.to_canonical()).ok_or_else(|| field("an IP address", text))
}

pub(super) fn status(text: &[u8]) -> Result<u16, ParseError> {
    match digits(text) {
        Some(status) if text.len() <= 3 => Ok(status as u16),
        _ => Err(field("a status", text)),
    }
}

/// Whether a decision of ours answered the request, by what the log says that it did: nothing, `-`, `allow`, `observe` and `tag`
/// are a request that was served, and so is one whose rate was within its limit.
pub(super) fn own_answer(action: &[u8], status: u16) -> bool {
    let Some(action) = bliss_core::http::header(action) else { return false };
    if action.eq_ignore_ascii_case(b"rate_limit_key") {
        return status == 429;
    }
    !["allow", "observe", "tag"].iter().any(|served| action.eq_ignore_ascii_case(served.as_bytes()))
}

/// Whether a rule said more of a request than to let it through, by the action that the log has.
pub(super) fn is_noted(action: &[u8]) -> bool {
    bliss_core::http::header(action).is_some_and(|action| !action.eq_ignore_ascii_case(b"allow"))
}

fn digits(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

pub(super) fn epoch_seconds(seconds: f64) -> Result<u64, ParseError> {
    if (0.0..=f64::from(u32::MAX)).contains(&seconds) {
        Ok((seconds * 1000.0).round() as u64)
    } else {
        Err(field("seconds since 1970", seconds.to_string().as_bytes()))
    }
}

pub(super) fn any_time(text: &[u8]) -> Result<u64, ParseError> {
    let bad = || field("a time", text);
    let string = std::str::from_utf8(text).map_err(|_| bad())?;
    if let Ok(seconds) = string.parse::<f64>() {
        return epoch_seconds(seconds);
    }
    if let Ok(timestamp) = jiff::Timestamp::from_str(string) {
        return u64::try_from(timestamp.as_millisecond()).map_err(|_| bad());
    }
    combined_time(text)
}

/// `17/May/2015:10:05:03 +0000`, in milliseconds since the Unix epoch.
pub(super) fn combined_time(text: &[u8]) -> Result<u64, ParseError> {
    parse_combined_time(text).ok_or_else(|| field("a time as `17/May/2015:10:05:03 +0000`", text))
}

fn parse_combined_time(text: &[u8]) -> Option<u64> {
    let punctuation = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':'), (20, b' ')];
    if text.len() != 26 || punctuation.iter().any(|(at, byte)| text[*at] != *byte) {
        return None;
    }
    let number = |from: usize, to: usize| digits(&text[from..to]);
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = 1 + MONTHS.chunks(3).position(|name| name == &text[3..6])? as i8;
    let date = jiff::civil::Date::new(number(7, 11)? as i16, month, number(0, 2)? as i8).ok()?;
    let (hour, minute, second) = (number(12, 14)?, number(15, 17)?, number(18, 20)?);
    let (zone_hour, zone_minute) = (number(22, 24)?, number(24, 26)?);
    if hour > 23 || minute > 59 || second > 60 || zone_hour > 23 || zone_minute > 59 {
        return None;
    }
    let zone = i64::from(zone_hour * 3600 + zone_minute * 60);
    let offset = match text[21] {
        b'+' => zone,
        b'-' => -zone,
        _ => return None,
    };
    let midnight = date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    let seconds = midnight + i64::from(hour * 3600 + minute * 60 + second) - offset;
    u64::try_from(seconds).ok().map(|seconds| seconds * 1000)
}
