//! Passes: what a client that passed a challenge brings with its next requests, so that it is not challenged again.
//!
//! ```text
//! pass = "v1." expires "." tag            at most 46 bytes
//! expires = seconds since the Unix epoch, in decimal without leading zeros
//! tag     = SipHash-2-4-128 of message, as 32 lower-case hexadecimal digits
//! message = expires as u32 LE, length of client as one byte, client, user agent
//! client  = the 4 bytes of an IPv4 address, or the first 8 of an IPv6 address
//! key     = SipHash-2-4-128 of "bliss challenge pass v1" and bytes 16 to 191 of the installation's secret, under its bytes 0 to 15
//! ```
//!
//! A user agent that is empty or `-` is none, and counts as empty. Test vectors are in `docs/pass-vectors.jsonl`; decision 0023 says
//! why it is so. Nothing in here allocates.

use core::fmt;
use core::hash::Hasher;
use core::hint::black_box;
use std::io::Write;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::attribute::{Canonical, Value};
use crate::http::header;
use crate::key::KeySecret;
use crate::prefixes::Address;
use crate::schema::AttributeKind;
use crate::score::Unscored;
use crate::scorer::ClientBytes;

/// The longest pass in bytes.
pub const MAX_PASS_BYTES: usize = VERSION.len() + 10 + 1 + TAG_BYTES;
/// The longest time that a pass is made for: 30 days.
pub const MAX_VALID_SECONDS: u32 = 30 * 86_400;
/// A pass that ends later than so many seconds from now was made with a wrong clock: a day more, for clocks that differ.
const LATEST_SECONDS: u32 = MAX_VALID_SECONDS + 86_400;

const VERSION: &[u8] = b"v1.";
const TAG_BYTES: usize = 32;

/// What a server tells of the pass that a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass<'a> {
    /// The cookie's value, to be checked; empty where there is none.
    Cookie(&'a [u8]),
    /// Whether there is a valid one, by whom it was checked before: the server's own log.
    Checked(bool),
}

/// A pass as text. Whoever has it, at the address and with the user agent that it is for, is not challenged: its `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PassText {
    bytes: [u8; MAX_PASS_BYTES],
    len: usize,
}

impl PassText {
    /// The text, in ASCII.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for PassText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassText(..)")
    }
}

/// Why no pass can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPass {
    /// The installation's secret, which comes with the features, is not there.
    #[error(transparent)]
    Unscored(#[from] Unscored),
    /// The client's address is not told.
    #[error("a pass is for an address, and the request's is not told or is none; tell `ip` or `ip_bytes`")]
    NoAddress,
    /// It would hold for too long, or not at all.
    #[error("a pass holds for 1 to {MAX_VALID_SECONDS} seconds, found {0}")]
    Validity(u32),
}

/// The address that a request's attribute `ip` tells.
pub(crate) fn address_of(ip: Option<Value<'_>>) -> Option<Address> {
    Address::of_bytes(Canonical::new(AttributeKind::Ip, ip?)?.bytes())
}

/// The key under which an installation makes and checks passes. Its `Debug` shows nothing of it.
#[derive(Clone, Copy)]
pub struct PassKey([u8; 16]);

impl fmt::Debug for PassKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassKey(..)")
    }
}

impl PassKey {
    /// The key of an installation.
    pub fn of(secret: &KeySecret) -> Self {
        let (key, rest) = secret.0.split_first_chunk().unwrap_or((&[0; 16], &[]));
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write(b"bliss challenge pass v1");
        hasher.write(rest);
        Self(hasher.finish128().as_bytes())
    }

    /// A pass for the client at `address` with this user agent, from `now` on for so many seconds.
    ///
    /// # Errors
    /// [`NoPass::Validity`], where it is not for 1 to [`MAX_VALID_SECONDS`] seconds; [`NoPass::NoAddress`].
    pub fn make(
        &self,
        address: Option<Address>,
        user_agent: &[u8],
        valid_seconds: u32,
        now: u32,
    ) -> Result<PassText, NoPass> {
        let expires =
            now.checked_add(valid_seconds).filter(|_| (1..=MAX_VALID_SECONDS).contains(&valid_seconds));
        let expires = expires.ok_or(NoPass::Validity(valid_seconds))?;
        let client = ClientBytes::of(address);
        let tag = self.tag(expires, client.bytes().ok_or(NoPass::NoAddress)?, user_agent);
        let mut bytes = [0; MAX_PASS_BYTES];
        let mut rest = bytes.as_mut_slice();
        // There is room for the longest.
        let _ = rest.write_all(VERSION);
        let _ = write!(rest, "{expires}.");
        let _ = rest.write_all(&tag);
        let unused = rest.len();
        Ok(PassText { bytes, len: MAX_PASS_BYTES - unused })
    }

    /// Whether `pass` was made for the client at `address` with this user agent, and has not run out. Takes the same time
    /// wherever the tag differs.
    pub fn holds(&self, pass: &[u8], address: Option<Address>, user_agent: &[u8], now: u32) -> bool {
        let Some((expires, tag)) = parse(pass) else { return false };
        let client = ClientBytes::of(address);
        let Some(client) = client.bytes() else { return false };
        let is_in_time = now < expires && expires <= now.saturating_add(LATEST_SECONDS);
        is_in_time && is_same(tag, &self.tag(expires, client, user_agent))
    }

    fn tag(&self, expires: u32, client: &[u8], user_agent: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&expires.to_le_bytes());
        // 4 or 8.
        hasher.write(&[client.len().to_le_bytes()[0]]);
        hasher.write(client);
        hasher.write(header(user_agent).unwrap_or_default());
        let mut tag = [0; TAG_BYTES];
        // Twice as long as the hash.
        let _ = const_hex::encode_to_slice(hasher.finish128().as_bytes(), &mut tag);
        tag
    }
}

/// When a pass runs out, and its tag; `None` where it is not written as [`PassKey::make`] writes one.
fn parse(pass: &[u8]) -> Option<(u32, &[u8; TAG_BYTES])> {
    let (expires, tag) = pass.strip_prefix(VERSION)?.split_last_chunk()?;
    let digits = expires.strip_suffix(b".")?;
    if matches!(digits, [] | [b'0', ..]) {
        return None;
    }
    let expires = digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })?;
    Some((expires, tag))
}

/// Compares without stopping at the first difference.
fn is_same(a: &[u8; TAG_BYTES], b: &[u8; TAG_BYTES]) -> bool {
    let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let differences = a.iter().zip(b).fold(0, |differences, (a, b)| {
        black_box(differences | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)))
    });
    differences == 0
}

#[cfg(test)]
mod tests;
