//! Compiled policies, the routes that use them, and operators' exceptions, as one publication.
//!
//! A [frame](crate::publication::frame) of kind 3. Its metadata is [`Metadata`]; each compiled policy is a section, and so is each
//! part of the [exceptions](crate::policy::exceptions).

use rkyv::{Archive, Deserialize, Serialize};

use crate::policy::compiled::PolicyRef;
use crate::policy::exceptions::{Exceptions, MAX_EXCEPTIONS};
use crate::publication::frame::{self, FrameError, Kind, Section};
use crate::publication::models::{DEFAULT_ROUTE, MAX_ROUTES};
use crate::schema::MAX_NAME_BYTES;

/// The most policies in one publication, the built-in one not counted.
pub const MAX_POLICIES: usize = 64;
/// The most features and values that all policies of a publication may refer to together.
pub const MAX_POLICY_SOURCES: usize = 4096;

/// What travels with the compiled policies.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
#[rkyv(derive(Debug))]
pub struct Metadata {
    /// Whether everything is allowed, whatever policies and exceptions say.
    pub is_off: bool,
    /// The policies; the first one is built in, for routes that have none.
    #[rkyv(attr(allow(missing_docs)))]
    pub policies: Vec<Section>,
    /// The routes that have a policy.
    pub routes: Vec<Route>,
    /// The parts of the exceptions.
    pub exceptions: ExceptionSections,
}

/// The policy of a route.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Route {
    /// Its name; [`DEFAULT_ROUTE`] for requests that name none.
    pub name: String,
    /// Its policy, as an index in [`Metadata::policies`].
    pub policy: u32,
}

/// Where the parts of the exceptions are, as [`crate::policy::exceptions`] says.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
#[rkyv(derive(Debug))]
pub struct ExceptionSections {
    /// A table of prefixes, whose values are indices of entries.
    #[rkyv(attr(allow(missing_docs)))]
    pub prefixes: Section,
    /// The entries.
    #[rkyv(attr(allow(missing_docs)))]
    pub entries: Section,
    /// A table from hashes of user agents to indices of entries.
    #[rkyv(attr(allow(missing_docs)))]
    pub agents: Section,
    /// What entries have in texts.
    #[rkyv(attr(allow(missing_docs)))]
    pub texts: Section,
}

/// A checked publication of policies in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct PoliciesRef<'a> {
    bytes: &'a [u8],
    metadata: &'a ArchivedMetadata,
    exceptions: Exceptions<'a>,
}

impl<'a> PoliciesRef<'a> {
    /// Checks the frame, the routes and every policy, without allocating. What entries of exceptions say is checked when they are
    /// read: their number adds nothing to the time it takes.
    ///
    /// # Errors
    /// Where anything is damaged, cut off, of another version, or beyond the limits of this module.
    pub fn open(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let metadata = frame::open::<Metadata>(bytes, Kind::Policies)?;
        let limit = |what, found: usize, limit: usize| {
            if found > limit { Err(FrameError::TooMany { what, found, limit }) } else { Ok(()) }
        };
        limit("policies", metadata.policies.len(), MAX_POLICIES + 1)?;
        limit("routes", metadata.routes.len(), MAX_ROUTES)?;
        let mut sources = 0;
        for (index, section) in metadata.policies.iter().enumerate() {
            let policy = PolicyRef::open(section.of(bytes, index)?);
            sources += policy.map_err(|_| FrameError::Section { index })?.sources().len();
        }
        limit("features that policies refer to", sources, MAX_POLICY_SOURCES)?;
        let is_known = |route: &ArchivedRoute| {
            usize::try_from(route.policy.to_native()).is_ok_and(|index| index < metadata.policies.len())
                && route.name.len() <= MAX_NAME_BYTES
        };
        if metadata.policies.is_empty() || !metadata.routes.iter().all(is_known) {
            return Err(FrameError::Metadata);
        }
        let first = metadata.policies.len();
        let part = |number: usize, section: &frame::ArchivedSection| section.of(bytes, first + number);
        let sections = &metadata.exceptions;
        let exceptions = Exceptions::open(
            part(0, &sections.prefixes)?,
            part(1, &sections.entries)?,
            part(2, &sections.agents)?,
            part(3, &sections.texts)?,
        );
        let exceptions = exceptions.ok_or(FrameError::Section { index: first })?;
        limit("exceptions", exceptions.len(), MAX_EXCEPTIONS)?;
        Ok(Self { bytes, metadata, exceptions })
    }

    /// The switch, sections and routes.
    pub fn metadata(&self) -> &'a ArchivedMetadata {
        self.metadata
    }

    /// Number of policies, the built-in one among them.
    pub fn len(&self) -> usize {
        self.metadata.policies.len()
    }

    /// Whether there is no policy: never after [`Self::open`].
    pub fn is_empty(&self) -> bool {
        self.metadata.policies.is_empty()
    }

    /// Policy `index`; the built-in one is the first.
    ///
    /// # Errors
    /// Where there is no such policy.
    pub fn policy(&self, index: usize) -> Result<PolicyRef<'a>, FrameError> {
        let section = self.metadata.policies.get(index).ok_or(FrameError::Section { index })?;
        PolicyRef::open(section.of(self.bytes, index)?).map_err(|_| FrameError::Section { index })
    }

    /// Index of the policy of `route`, or that of the default route, or the built-in one.
    pub fn policy_of_route(&self, route: &str) -> usize {
        let find = |name: &str| self.metadata.routes.iter().find(|route| route.name.as_str() == name);
        let found = find(route).or_else(|| find(DEFAULT_ROUTE));
        found.and_then(|route| usize::try_from(route.policy.to_native()).ok()).unwrap_or(0)
    }

    /// The exceptions.
    pub fn exceptions(&self) -> Exceptions<'a> {
        self.exceptions
    }
}
