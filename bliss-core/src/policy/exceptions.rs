//! Operators' exceptions: what is done with an address, a network or a user agent until a time.
//!
//! ```text
//! prefixes  a prefix table, whose values are indices of entries
//! entries   32 bytes each:
//!           offset 0    4  until, u32 LE, seconds since the Unix epoch
//!           offset 4    4  index + 1 of the entry that answers where this one has run out, lower than its own; 0: none
//!           offset 8    1  kind: 0 allow, 1 deny, 2 challenge
//!           offset 9    1  zero
//!           offset 10   2  status, u16 LE
//!           offset 12   4  offset in the texts of its name, header and user agent, one behind the other
//!           offset 16   6  length of each of them, u16 LE
//!           offset 22  10  zero
//! agents    slots of 8 bytes, as many as a power of two: the upper half of the hash, u32 LE, and index + 1 of an entry, u32 LE,
//!           0 where the slot is empty; the lower bits of the hash say where to begin, the next slots follow
//! texts     UTF-8
//! ```
//!
//! The entry that follows one is that of the next shorter prefix around it, or an older one of the same prefix or user agent. So
//! the longest prefix that has not run out answers without a search.

use xxhash_rust::xxh3::xxh3_64;

use super::compiled::Action;
use crate::prefixes::{Address, PrefixLayout, PrefixTable};
use crate::schema::MAX_NAME_BYTES;

/// The most exceptions of a publication.
pub const MAX_EXCEPTIONS: usize = 1 << 17;
/// The longest user agent of an exception, in bytes.
pub const MAX_AGENT_BYTES: usize = 1024;
/// The longest header of an answer, `Name: value`, in bytes.
pub const MAX_HEADER_BYTES: usize = 256;
/// The rule that answers where an exception does.
pub const EXCEPTION_RULE: &str = "exception";

pub(crate) const ENTRY_BYTES: usize = 32;
pub(crate) const AGENT_SLOT_BYTES: usize = 8;
/// The most entries that are asked one after the other: IPv6 has 129 lengths, and each may be there a few times.
const MOST_ASKED: usize = 1024;
/// The most slots that one user agent is looked for in; the table is at most half full.
pub(crate) const MOST_PROBES: usize = 64;

/// What an exception does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "build", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum ExceptionKind {
    /// The request is allowed.
    Allow = 0,
    /// It is blocked.
    Deny = 1,
    /// It is challenged.
    Challenge = 2,
}

impl ExceptionKind {
    /// The action of such an exception.
    pub fn action(self) -> Action {
        match self {
            Self::Allow => Action::Allow,
            Self::Deny => Action::Block,
            Self::Challenge => Action::Challenge,
        }
    }
}

/// An exception that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionRef<'a> {
    /// What it does.
    pub kind: ExceptionKind,
    /// Its name.
    pub name: &'a str,
    /// The status to answer with; 0: none.
    pub status: u16,
    /// A header to add.
    pub header: Option<&'a str>,
    /// It holds before this time, in seconds since the Unix epoch.
    pub until: u32,
}

/// Exceptions in borrowed bytes. Every access is checked, so that wrong bytes give a wrong answer at worst.
#[derive(Clone, Copy, Debug)]
pub struct Exceptions<'a> {
    prefixes: PrefixTable<'a>,
    entries: &'a [u8],
    agents: &'a [u8],
    texts: &'a [u8],
}

/// Where the parts of checked exceptions are in a publication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExceptionsLayout {
    pub(crate) prefixes: (usize, PrefixLayout),
    pub(crate) entries: (usize, usize),
    pub(crate) agents: (usize, usize),
    pub(crate) texts: (usize, usize),
}

impl ExceptionsLayout {
    /// The exceptions in the publication `bytes`; `None` where these are others.
    #[inline]
    pub(crate) fn of<'a>(&self, bytes: &'a [u8]) -> Option<Exceptions<'a>> {
        let part = |(at, len): (usize, usize)| bytes.get(at..)?.get(..len);
        let (at, layout) = self.prefixes;
        Some(Exceptions {
            prefixes: PrefixTable::with_layout(bytes.get(at..)?, layout),
            entries: part(self.entries)?,
            agents: part(self.agents)?,
            texts: part(self.texts)?,
        })
    }
}

/// The hash of a user agent.
pub(crate) fn agent_hash(agent: &[u8]) -> u64 {
    xxh3_64(agent)
}

/// Where a user agent is looked for first among `slots`, a power of two, and what its slot says.
pub(crate) fn agent_slot(hash: u64, slots: usize) -> (usize, u32) {
    // The lower half, and the upper one: both fit.
    ((hash as u32) as usize & (slots - 1), (hash >> 32) as u32)
}

impl<'a> Exceptions<'a> {
    /// Exceptions in these parts; `None` where one cannot be.
    pub(crate) fn open(
        prefixes: &'a [u8],
        entries: &'a [u8],
        agents: &'a [u8],
        texts: &'a [u8],
    ) -> Option<Self> {
        let prefixes = PrefixTable::with_layout(prefixes, PrefixLayout::read(prefixes).ok()?);
        let slots = agents.len() / AGENT_SLOT_BYTES;
        let fits = entries.len().is_multiple_of(ENTRY_BYTES)
            && agents.len().is_multiple_of(AGENT_SLOT_BYTES)
            && slots.is_power_of_two();
        fits.then_some(Self { prefixes, entries, agents, texts })
    }

    /// Sizes of the table of prefixes.
    pub(crate) fn prefix_layout(&self) -> PrefixLayout {
        *self.prefixes.layout()
    }

    /// Number of exceptions.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The exception for a request at time `now`: that of the longest prefix of its address that has not run out, else that of
    /// exactly its user agent.
    #[inline]
    pub fn find(&self, address: Option<Address>, agent: Option<&[u8]>, now: u32) -> Option<ExceptionRef<'a>> {
        if self.entries.is_empty() {
            return None;
        }
        let first = address.and_then(|address| self.prefixes.get(address));
        let by_address = first.and_then(|first| self.first_that_holds(first, now));
        by_address.or_else(|| self.first_that_holds(self.entry_of_agent(agent?)?, now))
    }

    fn first_that_holds(&self, first: u32, now: u32) -> Option<ExceptionRef<'a>> {
        let mut index = first;
        for _ in 0..MOST_ASKED {
            let entry = self.entry(index)?;
            if now < entry.until {
                return entry.exception();
            }
            // Ever lower, so that it ends whatever the bytes say.
            index = entry.next.checked_sub(1).filter(|next| *next < index)?;
        }
        None
    }

    fn entry(&self, index: u32) -> Option<Entry<'a>> {
        let at = usize::try_from(index).ok()?.checked_mul(ENTRY_BYTES)?;
        Entry::read(self.entries.get(at..)?.first_chunk::<ENTRY_BYTES>()?, self.texts)
    }

    /// The newest entry of exactly this user agent.
    fn entry_of_agent(&self, agent: &[u8]) -> Option<u32> {
        let (slots, _) = self.agents.as_chunks::<AGENT_SLOT_BYTES>();
        if slots.len() < 2 {
            return None;
        }
        let (first, wanted) = agent_slot(agent_hash(agent), slots.len());
        for probe in 0..MOST_PROBES {
            let slot = u64::from_le_bytes(*slots.get((first + probe) & (slots.len() - 1))?);
            let (tag, index) = (slot as u32, ((slot >> 32) as u32).checked_sub(1)?);
            if tag == wanted && self.entry(index).is_some_and(|entry| entry.agent == agent) {
                return Some(index);
            }
        }
        None
    }
}

/// One entry.
struct Entry<'a> {
    until: u32,
    next: u32,
    kind: u8,
    status: u16,
    name: &'a [u8],
    header: &'a [u8],
    agent: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(bytes: &[u8; ENTRY_BYTES], texts: &'a [u8]) -> Option<Self> {
        let [until, next, kind_status, at, lengths, rest, ..] = bytes.as_chunks::<4>().0 else { return None };
        let half = |low: u8, high: u8| u16::from_le_bytes([low, high]);
        let [kind, _, low, high] = *kind_status;
        let status = half(low, high);
        let texts = texts.get(usize::try_from(u32::from_le_bytes(*at)).ok()?..)?;
        let ([n, m, h, g], [a, b, ..]) = (*lengths, *rest);
        let (name, texts) = texts.split_at_checked(usize::from(half(n, m)))?;
        let (header, texts) = texts.split_at_checked(usize::from(half(h, g)))?;
        let agent = texts.get(..usize::from(half(a, b)))?;
        let (until, next) = (u32::from_le_bytes(*until), u32::from_le_bytes(*next));
        Some(Self { until, next, kind, status, name, header, agent })
    }

    fn exception(&self) -> Option<ExceptionRef<'a>> {
        let kind = match self.kind {
            0 => ExceptionKind::Allow,
            1 => ExceptionKind::Deny,
            2 => ExceptionKind::Challenge,
            _ => return None,
        };
        if self.name.len() > MAX_NAME_BYTES || self.header.len() > MAX_HEADER_BYTES {
            return None;
        }
        let name = core::str::from_utf8(self.name).ok()?;
        let header = core::str::from_utf8(self.header).ok()?;
        let header = (!header.is_empty()).then_some(header);
        Some(ExceptionRef { kind, name, status: self.status, header, until: self.until })
    }
}
