//! Compiled policies: an rkyv archive that workers read in place.
#![allow(missing_docs)] // rkyv's derive makes undocumented types of an enum's fields.

use rkyv::rancor::Failure;
use rkyv::{Archive, Serialize};

use super::index::Index;

/// The most rules of a policy.
pub const MAX_RULES: usize = 256;
/// The most conditions of a policy.
pub const MAX_CONDITIONS: usize = 8192;
/// The most features and values that a policy refers to.
pub const MAX_SOURCES: usize = 256;
/// The most bytes of a compiled policy.
pub const MAX_BYTES: usize = 1 << 22;
/// The percentage of all, in parts of 2^32.
pub const ALL: u64 = 1 << 32;

/// What the web server is to do.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "build", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[rkyv(derive(Clone, Copy, Debug))]
pub enum Action {
    Allow,
    Observe,
    Tag,
    RateLimitKey,
    Challenge,
    Block,
}

/// What is known of a client that claims to be a crawler: the feature `crawler.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "build", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum CrawlerState {
    None,
    Claimed,
    Verified,
    Fake,
}

/// Stages, in the order in which they are asked.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, PartialOrd))]
pub enum Stage {
    Exempt,
    Deny,
    Allow,
    Crawler,
    Band,
}

#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Compiled {
    pub name: String,
    pub on_unscored: Outcome,
    pub sources: Vec<Source>,
    pub rules: Vec<Rule>,
    /// Which of the rules may hold.
    pub index: Index,
}

#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Outcome {
    pub action: Action,
    pub status: u16,
    pub header: Option<String>,
}

/// A feature or a value of the request, by name.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Source {
    pub name: String,
    pub is_category: bool,
    /// Asked for by what comes with every policy: that a schema lacks it is no error.
    pub is_optional: bool,
}

#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: String,
    pub stage: Stage,
    pub outcome: Outcome,
    /// The scores it is for; only bands look at it.
    pub lowest: u8,
    pub highest: u8,
    pub from: u32,
    pub until: u32,
    /// The clients it is for, in parts of [`ALL`].
    pub share: u64,
    pub simulate: bool,
    /// All must hold; of each, one condition.
    pub clauses: Vec<Vec<Condition>>,
}

#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub enum Condition {
    Path(String),
    PathPrefix(String),
    Method(String),
    Host(String),
    Number { source: u32, compare: Compare, value: f32 },
    Category { source: u32, is: bool, hash: u32 },
    Missing { source: u32 },
    NotPassed,
}

#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug))]
pub enum Compare {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// Why bytes are refused as a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy is damaged, or beyond the limits of this library")]
pub struct PolicyError;

/// A checked policy in borrowed bytes.
#[derive(Clone, Copy)]
pub struct PolicyRef<'a> {
    pub(super) policy: &'a ArchivedCompiled,
}

impl<'a> PolicyRef<'a> {
    /// Checks `bytes`, without allocating: layout, limits, order of stages, and that exempt requests are allowed. That the
    /// index fits the rules is not checked.
    ///
    /// # Errors
    /// Anything is not as the compiler makes it.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_BYTES {
            return Err(PolicyError);
        }
        let policy = rkyv::access::<ArchivedCompiled, Failure>(bytes).map_err(|_| PolicyError)?;
        let mut conditions = 0;
        let mut stage = ArchivedStage::Exempt;
        for rule in policy.rules.iter() {
            let allows = matches!(rule.outcome.action, ArchivedAction::Allow);
            if rule.stage < stage || (rule.stage == ArchivedStage::Exempt && !allows) {
                return Err(PolicyError);
            }
            stage = rule.stage;
            conditions += rule.clauses.iter().map(|clause| clause.len().max(1)).sum::<usize>();
        }
        let within = policy.rules.len() <= MAX_RULES
            && policy.sources.len() <= MAX_SOURCES
            && conditions <= MAX_CONDITIONS
            && policy.index.is_sound();
        if within { Ok(Self { policy }) } else { Err(PolicyError) }
    }

    /// The policy in `bytes`, which are not checked.
    ///
    /// # Safety
    /// [`Self::open`] accepted these bytes, and they have not changed since.
    pub unsafe fn open_unchecked(bytes: &'a [u8]) -> Self {
        // SAFETY:
        // - `open` found an archived policy at the end of these bytes, which have not changed since: this function's contract
        Self { policy: unsafe { rkyv::access_unchecked::<ArchivedCompiled>(bytes) } }
    }

    /// Whether a rule looks at the path.
    pub fn has_paths(&self) -> bool {
        self.policy.index.has_paths()
    }

    /// Whether a rule looks at the method.
    pub fn has_methods(&self) -> bool {
        self.policy.index.has_methods()
    }

    /// Whether a rule looks at the host.
    pub fn has_hosts(&self) -> bool {
        self.policy.index.has_hosts()
    }

    /// Whether a rule is for some of the clients only.
    pub fn has_shares(&self) -> bool {
        self.policy.rules.iter().any(|rule| rule.share.to_native() < ALL)
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.policy.name
    }

    /// The features and values it refers to, which conditions count.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = (&'a str, bool, bool)> {
        self.policy
            .sources
            .iter()
            .map(|source| (source.name.as_str(), source.is_category, source.is_optional))
    }
}

impl ArchivedAction {
    pub fn to_native(self) -> Action {
        match self {
            Self::Allow => Action::Allow,
            Self::Observe => Action::Observe,
            Self::Tag => Action::Tag,
            Self::RateLimitKey => Action::RateLimitKey,
            Self::Challenge => Action::Challenge,
            Self::Block => Action::Block,
        }
    }
}
