//! Policies bound to dimensions and a request's values.

use super::dimensions::BoundDimensions;
use super::source::{BoundSource, Needs};
use crate::attribute::{Canonical, Value};
use crate::http;
use crate::name::Name;
use crate::policy::compiled::PolicyRef;
use crate::policy::decide::Seen;
use crate::policy::exceptions::ExceptionsLayout;
use crate::prefixes::Address;
use crate::publication::frame::{ArchivedSection, FrameError};
use crate::publication::models::{DEFAULT_ROUTE, MAX_ROUTES};
use crate::publication::policies::{MAX_POLICIES, MAX_POLICY_SOURCES, PoliciesRef};
use crate::request::{Names, Request};
use crate::schema::{AttributeKind, OnStale};
use crate::score::Status;
use bliss_catboost::category_hash;

/// All policies of a publication, and the routes that use them.
#[derive(Debug)]
pub struct BoundPolicies {
    is_off: bool,
    policies: Vec<BoundPolicy>,
    routes: Vec<(Name, usize)>,
    sources: Vec<PolicySource>,
    /// Names of those that are unbound, and to which policy they belong.
    unbound: Vec<(usize, Name)>,
    exceptions: Option<ExceptionsLayout>,
    facts: FactIndices,
    no_category: u32,
}

/// One policy.
#[derive(Clone, Copy, Debug)]
pub struct BoundPolicy {
    name: Name,
    section: (usize, usize),
    sources: (usize, usize),
    pub(super) needs: Needs,
    has_paths: bool,
    has_methods: bool,
    has_hosts: bool,
    has_shares: bool,
}

impl BoundPolicy {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// What a condition sees of one feature or value.
#[derive(Clone, Copy, Debug)]
struct PolicySource {
    /// Index in the vector of values; beyond it where there is no such thing.
    at: u32,
    /// The dimension that it is a feature of.
    dimension: Option<u8>,
    is_category: bool,
    /// Whether a stale row counts.
    uses_stale: bool,
}

/// The attributes of a request that policies look at, by the caller's registration.
#[derive(Clone, Copy, Debug, Default)]
struct FactIndices {
    ip: Option<usize>,
    path: Option<usize>,
    method: Option<usize>,
    host: Option<usize>,
    user_agent: Option<usize>,
}

/// What a request says to policies. Each is `None` where it is not told, or is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestFacts<'a> {
    pub(super) address: Option<Address>,
    /// As it was sent.
    pub(super) path: Option<&'a [u8]>,
    pub(super) method: Option<&'a [u8]>,
    pub(super) host: Option<&'a [u8]>,
    pub(super) user_agent: Option<&'a [u8]>,
}

impl BoundPolicies {
    pub(super) fn new() -> Self {
        Self {
            is_off: false,
            policies: Vec::with_capacity(MAX_POLICIES + 1),
            routes: Vec::with_capacity(MAX_ROUTES),
            sources: Vec::with_capacity(MAX_POLICY_SOURCES),
            unbound: Vec::with_capacity(MAX_UNBOUND_NAMES),
            exceptions: None,
            facts: FactIndices::default(),
            no_category: category_hash(b""),
        }
    }

    pub(super) fn unbind(&mut self) {
        self.is_off = false;
        self.policies.clear();
        self.routes.clear();
        self.sources.clear();
        self.unbound.clear();
        self.exceptions = None;
    }

    /// Binds checked policies; the limits of the publication are those of the buffers, so nothing is allocated.
    pub(super) fn bind(
        &mut self,
        policies: PoliciesRef<'_>,
        dimensions: &BoundDimensions,
        names: &Names,
    ) -> Result<(), FrameError> {
        self.unbind();
        let bound = self.bind_all(policies, dimensions, names);
        if bound.is_err() {
            self.unbind();
        }
        bound
    }

    fn bind_all(
        &mut self,
        policies: PoliciesRef<'_>,
        dimensions: &BoundDimensions,
        names: &Names,
    ) -> Result<(), FrameError> {
        let metadata = policies.metadata();
        let attribute = |name: &str| names.attribute_index(name);
        self.facts = FactIndices {
            ip: attribute("ip"),
            path: attribute("path"),
            method: attribute("method"),
            host: attribute("host"),
            user_agent: attribute("user_agent"),
        };
        for (index, section) in metadata.policies.iter().enumerate() {
            let policy = policies.policy(index)?;
            let mut bound = BoundPolicy {
                name: Name::truncated(policy.name()),
                section: range(section, index)?,
                sources: (self.sources.len(), policy.sources().len()),
                needs: Needs::default(),
                has_paths: policy.has_paths(),
                has_methods: policy.has_methods(),
                has_hosts: policy.has_hosts(),
                has_shares: policy.has_shares(),
            };
            for (name, is_category, is_optional) in policy.sources() {
                let found = BoundSource::find(name, is_category, dimensions, names);
                if found.is_none() && !is_optional && self.unbound.len() < MAX_UNBOUND_NAMES {
                    self.unbound.push((index, Name::truncated(name)));
                }
                bound.needs |= found.map_or(Needs::default(), |source| source.needs);
                self.sources.push(PolicySource::new(found, is_category, dimensions));
            }
            self.policies.push(bound);
        }
        for route in metadata.routes.iter() {
            let policy = usize::try_from(route.policy.to_native()).map_err(|_| FrameError::Metadata)?;
            self.routes.push((Name::new(&route.name).ok_or(FrameError::Metadata)?, policy));
        }
        let exceptions = policies.exceptions();
        if !exceptions.is_empty() {
            let first = metadata.policies.len();
            let sections = &metadata.exceptions;
            self.exceptions = Some(ExceptionsLayout {
                prefixes: (range(&sections.prefixes, first)?.0, exceptions.prefix_layout()),
                entries: range(&sections.entries, first + 1)?,
                agents: range(&sections.agents, first + 2)?,
                texts: range(&sections.texts, first + 3)?,
            });
        }
        self.is_off = metadata.is_off;
        Ok(())
    }

    /// Whether everything is allowed.
    pub fn is_off(&self) -> bool {
        self.is_off
    }

    /// The bound policies, in the order of the publication; the first one is built in.
    pub fn policies(&self) -> &[BoundPolicy] {
        &self.policies
    }

    /// Features and values that neither the features nor the caller have, or only as the other type, and the policies that ask for
    /// them: the first [`MAX_UNBOUND_NAMES`]. No condition on them holds.
    pub fn unbound(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.unbound
            .iter()
            .map(|(policy, name)| (self.policies.get(*policy).map_or("", BoundPolicy::name), name.as_str()))
    }

    /// The policy of `route`, or that of the default route, or the built-in one; `None` if nothing is bound.
    #[inline]
    pub(super) fn policy_of_route(&self, route: &str) -> Option<&BoundPolicy> {
        let find = |name: &str| self.routes.iter().find(|route| route.0.as_str() == name);
        let found = find(route).or_else(|| find(DEFAULT_ROUTE));
        self.policies.get(found.map_or(0, |(_, policy)| *policy))
    }

    /// The exceptions in the publication that was bound, if it has any.
    #[inline]
    pub(super) fn exceptions(&self) -> Option<&ExceptionsLayout> {
        self.exceptions.as_ref()
    }

    /// Whether the publication has exceptions.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions.is_some()
    }

    /// What `policy` and exceptions look at of a request; what they do not look at is not told.
    #[inline]
    pub(super) fn facts<'a>(&self, policy: &BoundPolicy, request: &Request<'a>) -> RequestFacts<'a> {
        let value = |index: Option<usize>| request.attribute(index?);
        let text = |index: Option<usize>| match value(index)? {
            Value::Text(text) | Value::Binary(text) => Some(text),
            Value::U64(_) => None,
        };
        let address = || {
            let value = value(self.facts.ip)?;
            match value {
                Value::Binary(bytes) => Address::of_bytes(bytes),
                other => Address::of_bytes(Canonical::new(AttributeKind::Ip, other)?.bytes()),
            }
        };
        let has_exceptions = self.exceptions.is_some();
        let looked_at = |is_looked_at: bool, index: Option<usize>| text(index.filter(|_| is_looked_at));
        RequestFacts {
            address: if has_exceptions || policy.has_shares { address() } else { None },
            path: looked_at(policy.has_paths, self.facts.path).and_then(http::path),
            method: looked_at(policy.has_methods, self.facts.method).and_then(http::method),
            host: looked_at(policy.has_hosts, self.facts.host).and_then(http::host),
            user_agent: looked_at(has_exceptions, self.facts.user_agent).and_then(http::header),
        }
    }

    /// What the sources of `policy` are, by their index, after values and statuses were looked up.
    #[inline]
    pub(super) fn seen<'s>(
        &'s self,
        policy: &BoundPolicy,
        values: &'s [f32],
        statuses: &'s [Status],
    ) -> impl Fn(usize) -> Seen + 's {
        let (first, count) = policy.sources;
        let sources = self.sources.get(first..).and_then(|rest| rest.get(..count)).unwrap_or_default();
        let no_category = self.no_category;
        move |index| {
            sources.get(index).map_or(Seen::Unbound, |source| source.seen(values, statuses, no_category))
        }
    }

    /// The bytes of `policy` in the publication that was bound.
    ///
    /// # Safety
    /// `policies` are the bytes that were [bound](Self::bind) last, unchanged.
    #[inline]
    pub(super) unsafe fn open<'p>(&self, policy: &BoundPolicy, policies: &'p [u8]) -> Option<PolicyRef<'p>> {
        let (at, len) = policy.section;
        let bytes = policies.get(at..)?.get(..len)?;
        // SAFETY:
        // - `PoliciesRef::open` opened these very bytes as a policy before they were bound
        // - by this function's contract they have not changed since
        Some(unsafe { PolicyRef::open_unchecked(bytes) })
    }
}

/// The most names of unbound features and values that are told.
pub const MAX_UNBOUND_NAMES: usize = 64;

fn range(section: &ArchivedSection, index: usize) -> Result<(usize, usize), FrameError> {
    let native = |n: u64| usize::try_from(n).map_err(|_| FrameError::Section { index });
    Ok((native(section.offset.to_native())?, native(section.len.to_native())?))
}

impl PolicySource {
    fn new(found: Option<BoundSource>, is_category: bool, dimensions: &BoundDimensions) -> Self {
        let dimension = found.and_then(|source| source.dimension);
        Self {
            at: found.and_then(|source| u32::try_from(source.at).ok()).unwrap_or(u32::MAX),
            dimension: dimension.and_then(|dimension| u8::try_from(dimension).ok()),
            is_category,
            uses_stale: dimension.is_none_or(|d| dimensions.on_stale(d) == Some(OnStale::Use)),
        }
    }

    /// What a condition sees: as decision 0019 has it.
    #[inline]
    fn seen(&self, values: &[f32], statuses: &[Status], no_category: u32) -> Seen {
        let Some(value) = usize::try_from(self.at).ok().and_then(|at| values.get(at)) else {
            return Seen::Unbound;
        };
        if let Some(dimension) = self.dimension {
            match statuses.get(usize::from(dimension)) {
                Some(Status::Fresh) => {}
                Some(Status::Stale) if self.uses_stale => {}
                Some(_) => return Seen::Missing,
                None => return Seen::Unbound,
            }
        }
        let is_nothing = if self.is_category { value.to_bits() == no_category } else { value.is_nan() };
        if is_nothing { Seen::Missing } else { Seen::Is(*value) }
    }
}
