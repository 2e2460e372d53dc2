//! Packing policies, routes and exceptions into a publication.

use std::collections::HashMap;

use rkyv::util::AlignedVec;

use super::frame::{Packer, write_header};
use super::prefixes::{PrefixTableBuilder, PrefixesError};
use crate::policy::compile::{CompileError, check_header, check_status};
use crate::policy::exceptions::{
    AGENT_SLOT_BYTES, ENTRY_BYTES, ExceptionKind, MAX_AGENT_BYTES, MAX_EXCEPTIONS, MOST_PROBES, agent_hash,
    agent_slot,
};
use crate::policy::source::Policy;
use crate::prefixes::Prefix;
use crate::publication::frame::{FrameError, Kind, Section};
use crate::publication::policies::{ExceptionSections, MAX_POLICIES, Metadata, PoliciesRef, Route};
use crate::schema::MAX_NAME_BYTES;

/// Policies, the routes that use them, and operators' exceptions.
///
/// A route without a policy has that of the route `default`; where that has none either, the built-in one, which allows everything
/// that no exception denies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    /// Whether everything is allowed, whatever policies and exceptions say.
    pub off: bool,
    /// The policies, each name once.
    pub policies: Vec<Policy>,
    /// Names of routes, each once, and of their policies.
    pub routes: Vec<(String, String)>,
    /// Exceptions. Of several for one network or user agent, the last one that has not run out counts.
    pub exceptions: Vec<Exception>,
}

/// What an operator wants done with a network or a user agent, until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// What is done.
    pub kind: ExceptionKind,
    /// With whom.
    pub subject: Subject,
    /// It holds before this time, in seconds since the Unix epoch.
    pub until: u32,
    /// Its name, which answers carry.
    pub name: String,
    /// The status to answer with; 403 if `None`, and the request is not allowed.
    pub status: Option<u16>,
    /// A header to add, `Name: value`.
    pub header: Option<String>,
}

/// Whom an exception is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A network, or an address by itself. The longest one counts, and any before a user agent.
    Prefix(Prefix),
    /// Exactly this user agent.
    UserAgent(String),
}

/// Why policies are not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoliciesError {
    /// The frame or its metadata.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// One of the policies.
    #[error(transparent)]
    Policy(#[from] CompileError),
    /// The networks of exceptions.
    #[error("exceptions: {0}")]
    Prefixes(#[from] PrefixesError),
    /// A name, a text, or a number of them; the text says which and what to do.
    #[error("{0}")]
    Invalid(String),
}

/// The name of the built-in policy.
pub const BUILT_IN_POLICY: &str = "built-in";

impl PolicySet {
    /// The publication's bytes, checked as a reader will check them.
    ///
    /// # Errors
    /// Where a policy or an exception is wrong, a name is there twice or unknown, or there are too many.
    pub fn pack(&self) -> Result<AlignedVec<64>, PoliciesError> {
        let invalid = |text: String| Err(PoliciesError::Invalid(text));
        let (found, most) = (self.policies.len(), MAX_POLICIES);
        if found > most {
            return invalid(format!("expected at most {most} policies, found {found}; remove some"));
        }
        unique("policy", self.policies.iter().map(|policy| &policy.name))?;
        unique("route", self.routes.iter().map(|(route, _)| route))?;
        let mut compiled = vec![Policy { name: BUILT_IN_POLICY.into(), ..Policy::default() }.compile()?];
        for policy in &self.policies {
            compiled.push(policy.compile()?);
        }
        let mut routes = Vec::with_capacity(self.routes.len());
        for (name, policy) in &self.routes {
            let index = self.policies.iter().position(|p| p.name == *policy).map(|index| index + 1);
            let built_in = (policy == BUILT_IN_POLICY).then_some(0);
            let Some(index) = index.or(built_in).and_then(|index| u32::try_from(index).ok()) else {
                return invalid(format!(
                    "route {name:?}: there is no policy {policy:?}; name one that is there"
                ));
            };
            routes.push(Route { name: name.clone(), policy: index });
        }
        let exceptions = Packed::new(&self.exceptions)?;
        let parts: Vec<&[u8]> =
            compiled.iter().map(|policy| policy.as_slice()).chain(exceptions.parts()).collect();
        let archive = |sections: &[Section]| {
            let Some((policies, [prefixes, entries, agents, texts])) = sections.split_last_chunk::<4>()
            else {
                return Err(PoliciesError::Frame(FrameError::Metadata));
            };
            let [prefixes, entries, agents, texts] = [*prefixes, *entries, *agents, *texts];
            let exceptions = ExceptionSections { prefixes, entries, agents, texts };
            let policies = policies.to_vec();
            let metadata = Metadata { is_off: self.off, policies, routes: routes.clone(), exceptions };
            rkyv::to_bytes::<rkyv::rancor::Error>(&metadata)
                .map_err(|e| PoliciesError::Invalid(format!("metadata cannot be serialised: {e}")))
        };
        // The archive's size does not depend on where the sections lie.
        let nowhere = vec![Section { offset: 0, len: 0 }; parts.len()];
        let mut packer = Packer::new();
        let metadata_at = packer.append(archive(&nowhere)?.len());
        let sections: Vec<_> = parts.iter().map(|part| packer.append(part.len())).collect();
        let metadata = archive(&sections)?;
        let mut bytes =
            packer.fill(sections.iter().zip(parts).chain([(&metadata_at, metadata.as_slice())]))?;
        write_header(&mut bytes, Kind::Policies, metadata_at)?;
        PoliciesRef::open(&bytes)?;
        Ok(bytes)
    }
}

/// Exceptions as [`crate::policy::exceptions`] lays them out.
struct Packed {
    prefixes: Vec<u8>,
    entries: Vec<u8>,
    agents: Vec<u8>,
    texts: Vec<u8>,
}

impl Packed {
    fn new(exceptions: &[Exception]) -> Result<Self, PoliciesError> {
        let (found, most) = (exceptions.len(), MAX_EXCEPTIONS);
        if found > most {
            let text = format!("expected at most {most} exceptions, found {found}; let some run out");
            return Err(PoliciesError::Invalid(text));
        }
        let mut of_prefixes: Vec<(Prefix, &Exception)> = Vec::new();
        let mut of_agents: Vec<(&str, &Exception)> = Vec::new();
        for exception in exceptions {
            exception.check()?;
            match &exception.subject {
                Subject::Prefix(prefix) => of_prefixes.push((*prefix, exception)),
                Subject::UserAgent(agent) => of_agents.push((agent, exception)),
            }
        }
        let mut packed =
            Self { prefixes: Vec::new(), entries: Vec::new(), agents: Vec::new(), texts: Vec::new() };
        // A prefix follows those around it, and of the same ones a newer one an older one.
        of_prefixes.sort_by_key(|(prefix, _)| *prefix);
        let mut table = PrefixTableBuilder::default();
        let mut around: Vec<(Prefix, u32)> = Vec::new();
        for (at, (prefix, exception)) in of_prefixes.iter().enumerate() {
            while around.pop_if(|(outer, _)| !outer.contains_prefix(*prefix)).is_some() {}
            let index = packed.push(exception, around.last().map(|(_, index)| *index), "")?;
            around.push((*prefix, index));
            if of_prefixes.get(at + 1).is_none_or(|(next, _)| next != prefix) {
                table.push(*prefix, index)?;
            }
        }
        packed.prefixes = table.build()?;
        let mut newest: HashMap<&str, u32> = HashMap::new();
        for (agent, exception) in of_agents {
            let index = packed.push(exception, newest.get(agent).copied(), agent)?;
            newest.insert(agent, index);
        }
        packed.fill_agents(&newest)?;
        Ok(packed)
    }

    /// Adds an entry and returns its index; `next` is asked where it has run out.
    fn push(&mut self, exception: &Exception, next: Option<u32>, agent: &str) -> Result<u32, PoliciesError> {
        let too_long = || PoliciesError::Invalid("the texts of exceptions are too long; shorten some".into());
        let index = u32::try_from(self.entries.len() / ENTRY_BYTES).map_err(|_| too_long())?;
        let at = u32::try_from(self.texts.len()).map_err(|_| too_long())?;
        let status = match exception.kind {
            ExceptionKind::Allow => 0,
            ExceptionKind::Deny | ExceptionKind::Challenge => 403,
        };
        self.entries.extend(exception.until.to_le_bytes());
        self.entries.extend(next.map_or(0, |next| next + 1).to_le_bytes());
        self.entries.extend([exception.kind as u8, 0]);
        self.entries.extend(exception.status.unwrap_or(status).to_le_bytes());
        self.entries.extend(at.to_le_bytes());
        for text in [&exception.name, exception.header.as_deref().unwrap_or_default(), agent] {
            self.entries.extend(u16::try_from(text.len()).map_err(|_| too_long())?.to_le_bytes());
            self.texts.extend(text.as_bytes());
        }
        self.entries.resize(self.entries.len().next_multiple_of(ENTRY_BYTES), 0);
        Ok(index)
    }

    /// Makes the table of user agents, so large that none is further than [`MOST_PROBES`] from where it is looked for first.
    fn fill_agents(&mut self, newest: &HashMap<&str, u32>) -> Result<(), PoliciesError> {
        let mut slots = if newest.is_empty() { 1 } else { (newest.len() * 2).next_power_of_two().max(2) };
        'larger: while slots <= MAX_EXCEPTIONS * 16 {
            let mut table = vec![(0_u32, 0_u32); slots];
            for (agent, index) in newest {
                let (first, tag) = agent_slot(agent_hash(agent.as_bytes()), slots);
                let free = (0..MOST_PROBES).map(|probe| (first + probe) & (slots - 1));
                let Some(slot) = free.into_iter().find(|at| table.get(*at).is_some_and(|slot| slot.1 == 0))
                else {
                    slots *= 2;
                    continue 'larger;
                };
                if let Some(slot) = table.get_mut(slot) {
                    *slot = (tag, index + 1);
                }
            }
            self.agents.reserve(slots * AGENT_SLOT_BYTES);
            for (tag, index) in table {
                self.agents.extend(tag.to_le_bytes());
                self.agents.extend(index.to_le_bytes());
            }
            return Ok(());
        }
        Err(PoliciesError::Invalid("the user agents of exceptions share their hashes; remove some".into()))
    }

    fn parts(&self) -> [&[u8]; 4] {
        [&self.prefixes, &self.entries, &self.agents, &self.texts]
    }
}

impl Exception {
    fn check(&self) -> Result<(), PoliciesError> {
        let fail = |text: String| Err(PoliciesError::Invalid(format!("exception {:?}: {text}", self.name)));
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return fail(format!("a name has 1 to {MAX_NAME_BYTES} bytes"));
        }
        if let Subject::UserAgent(agent) = &self.subject
            && (agent.is_empty() || agent == "-" || agent.len() > MAX_AGENT_BYTES)
        {
            return fail(format!(
                "expected a user agent of 1 to {MAX_AGENT_BYTES} bytes, found {}",
                agent.len()
            ));
        }
        check_status(self.status).or_else(fail)?;
        check_header(self.header.as_deref()).or_else(fail)
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String> + Clone) -> Result<(), PoliciesError> {
    super::models::unique(what, names).map_err(|error| PoliciesError::Invalid(error.to_string()))
}
