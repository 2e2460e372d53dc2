//! Lists of addresses and networks, one in a line; and what `ipset save` writes.

use std::io::BufRead;
use std::net::IpAddr;

use bliss_core::prefixes::{Prefix, PrefixError};

use super::HostBits;
use super::layer::LayerBuilder;
use crate::decode::{at_line, unreadable};
use crate::refusal::{Reason, Refusal};

/// What an entry is in the list.
pub(super) struct Rows {
    /// The row of an address that is in it.
    pub(super) member: u32,
    /// The row of one that is left out of it (`nomatch`).
    pub(super) left_out: u32,
}

/// Reads lines of an address, a network or a range `first-last`. What follows `#` or `;` is a comment.
pub(super) fn read(
    mut input: impl BufRead,
    rows: &Rows,
    host_bits: HostBits,
    builder: &mut LayerBuilder<'_>,
) -> Result<(), Refusal> {
    let (mut line, mut number) = (Vec::new(), 0);
    let mut set = None;
    let most = builder.limits.max_line_bytes.saturating_add(1);
    loop {
        line.clear();
        number += 1;
        let read = std::io::Read::take(&mut input, most).read_until(b'\n', &mut line);
        if read.map_err(|error| at_line(number)(unreadable(&error)))? == 0 {
            return Ok(());
        }
        if line.len() as u64 == most && !line.ends_with(b"\n") {
            return Err(at_line(number)(builder.limits.long_line()));
        }
        self::line(&line, rows, host_bits, &mut set, builder).map_err(at_line(number))?;
        if number % 4096 == 0 {
            builder.look_at_time()?;
        }
    }
}

fn line(
    line: &[u8],
    rows: &Rows,
    host_bits: HostBits,
    set: &mut Option<Vec<u8>>,
    builder: &mut LayerBuilder<'_>,
) -> Result<(), Refusal> {
    let line = line.trim_ascii();
    let (entry, row) = match line.strip_prefix(b"add ") {
        Some(rest) => entry_of_set(rest, rows, set)?,
        None => {
            let end = line.iter().position(|byte| matches!(byte, b'#' | b';')).unwrap_or(line.len());
            let entry = line.split_at(end).0.trim_ascii();
            let word = entry.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            if matches!(word, b"" | b"create" | b"flush" | b"COMMIT") {
                return Ok(());
            }
            (entry, rows.member)
        }
    };
    if let Some((first, last)) = range(entry) {
        return push_range(first, last, row, builder);
    }
    push(entry, row, host_bits, builder)
}

/// Adds one network, as text.
pub(super) fn push(
    entry: &[u8],
    row: u32,
    host_bits: HostBits,
    builder: &mut LayerBuilder<'_>,
) -> Result<(), Refusal> {
    let prefix = match Prefix::parse(entry) {
        Ok(prefix) => prefix,
        Err(PrefixError::HostBits(prefix)) if host_bits == HostBits::Mask => prefix,
        Err(error) => {
            let advice = match error {
                PrefixError::HostBits(_) => "; host_bits = \"mask\" takes the network",
                _ => "",
            };
            let message = format!("{error}{advice}; found {}", shown(entry));
            return Err(Refusal::new(Reason::BadKey, message));
        }
    };
    if prefix.bits() == 0 {
        let message = format!("{prefix} is every address, which no list means");
        return Err(Refusal::new(Reason::OutOfRange, message));
    }
    builder.push(prefix, row)
}

/// The entry of a line `add SET ENTRY …`, and its row.
fn entry_of_set<'l>(
    rest: &'l [u8],
    rows: &Rows,
    set: &mut Option<Vec<u8>>,
) -> Result<(&'l [u8], u32), Refusal> {
    // Only the comment of an entry is in quotes, and it has no quote in it.
    let outside = rest.split(|byte| *byte == b'"').step_by(2);
    let words = outside.flat_map(|part| part.split(u8::is_ascii_whitespace));
    let mut words = words.filter(|word| !word.is_empty() && !word.starts_with(b"-"));
    let (name, entry) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if set.get_or_insert_with(|| name.to_vec()) != name {
        let message = format!("a second set, {}; save one alone: ipset save NAME", shown(name));
        return Err(Refusal::new(Reason::Undecodable, message));
    }
    let row = if words.any(|word| word == b"nomatch") { rows.left_out } else { rows.member };
    Ok((entry, row))
}

fn range(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = entry.iter().position(|byte| *byte == b'-')?;
    let (first, last) = entry.split_at(at);
    Some((first.trim_ascii(), last.strip_prefix(b"-")?.trim_ascii()))
}

/// Adds the networks that make up the addresses from `first` to `last`.
fn push_range(first: &[u8], last: &[u8], row: u32, builder: &mut LayerBuilder<'_>) -> Result<(), Refusal> {
    let address = |text: &[u8]| {
        let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
        parsed.map(|address| address.to_canonical()).ok_or_else(|| {
            let message =
                format!("expected a range of addresses, such as 192.0.2.1-192.0.2.9; found {}", shown(text));
            Refusal::new(Reason::BadKey, message)
        })
    };
    let (first, last) = (address(first)?, address(last)?);
    let (from, to, width) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits().into(), u128::from(last.to_bits()), 32_u32),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits(), last.to_bits(), 128),
        _ => {
            let message =
                format!("the range {first}-{last} begins with one family of addresses and ends with another");
            return Err(Refusal::new(Reason::BadKey, message));
        }
    };
    if from > to {
        let message = format!("the range {first}-{last} ends before it begins");
        return Err(Refusal::new(Reason::BadKey, message));
    }
    let mut at = from;
    loop {
        // The largest network that begins here and ends within the range.
        let aligned = if at == 0 { width } else { at.trailing_zeros().min(width) };
        let fits = (to - at).checked_add(1).map_or(width, u128::ilog2);
        let free = aligned.min(fits);
        let bits = u8::try_from(width - free).unwrap_or(u8::MAX);
        let address = match width {
            32 => std::net::Ipv4Addr::from_bits(u32::try_from(at).unwrap_or(u32::MAX)).into(),
            _ => IpAddr::V6(std::net::Ipv6Addr::from_bits(at)),
        };
        let unlikely = |error| Refusal::new(Reason::BadKey, format!("the range {first}-{last}: {error}"));
        if bits == 0 {
            let message = format!("the range {first}-{last} is every address, which no list means");
            return Err(Refusal::new(Reason::OutOfRange, message));
        }
        builder.push(Prefix::new(address, bits).map_err(unlikely)?, row)?;
        match at.checked_add(1_u128 << free) {
            Some(next) if next <= to => at = next,
            _ => return Ok(()),
        }
    }
}

/// What was found, for messages.
pub(super) fn shown(found: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(found).chars().take(60).collect();
    format!("{text:?}")
}
