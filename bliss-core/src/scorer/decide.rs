//! The decision for one request: its score, and what the policy of its route says.

use super::Scorer;
use crate::name::{Name, Text};
use crate::policy::compiled::Action;
use crate::policy::decide::{Facts, Verdict};
use crate::policy::exceptions::MAX_HEADER_BYTES;
use crate::policy::path::normalize;
use crate::prefixes::Address;
use crate::request::Request;
use crate::score::{Answer, Status, Unscored};

/// Why no policy was asked. Everything is allowed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum NoPolicy {
    /// No policy was published yet.
    NotPublished = 1,
    /// What is published is damaged, of another version, or cannot be read.
    BadPolicy = 2,
    /// The daemon has given no sign of life for longer than the features allow
    /// ([`crate::schema::Schema::max_heartbeat_age_seconds`]), so that nobody could switch the policy off.
    OldPolicy = 3,
}

impl NoPolicy {
    /// The reason in a few words that stay the same between versions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPublished => "no policy",
            Self::BadPolicy => "bad policy",
            Self::OldPolicy => "old policy",
        }
    }
}

impl core::fmt::Display for NoPolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for NoPolicy {}

/// What is to be done with a request, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<'a> {
    /// Its score, or why it has none.
    pub answer: Answer,
    /// What the web server is to do.
    pub action: Action,
    /// The rule that says so: its name, `exception`, `default`, `unscored` or `off`. Never empty.
    pub rule: &'a str,
    /// The status to answer with; 0: none.
    pub status: u16,
    /// A header to add, `Name: value`.
    pub header: Option<&'a str>,
    /// The first simulated rule that would have answered before, and its action.
    pub simulated: Option<(&'a str, Action)>,
    /// The exception that answered.
    pub exception: Option<&'a str>,
    /// The policy that was asked; `""` where none was.
    pub policy: &'a str,
    /// Why none was.
    pub no_policy: Option<NoPolicy>,
    /// Whether the request brought a pass that holds; `None` where that is not told, or could not be checked.
    pub challenge_passed: Option<bool>,
}

/// The last decision, copied out of the publication.
#[derive(Debug)]
pub(super) struct Decided {
    answer: Answer,
    action: Action,
    rule: Name,
    status: u16,
    has_header: bool,
    header: Text<MAX_HEADER_BYTES>,
    simulated: Option<Action>,
    simulated_rule: Name,
    has_exception: bool,
    exception: Name,
    policy: Name,
    no_policy: Option<NoPolicy>,
    challenge_passed: Option<bool>,
}

impl Decided {
    pub(super) fn new() -> Self {
        let mut made = Self {
            answer: Answer::unscored(Unscored::NoSnapshot),
            action: Action::Allow,
            rule: Name::EMPTY,
            status: 0,
            has_header: false,
            header: Text::EMPTY,
            simulated: None,
            simulated_rule: Name::EMPTY,
            has_exception: false,
            exception: Name::EMPTY,
            policy: Name::EMPTY,
            no_policy: Some(NoPolicy::NotPublished),
            challenge_passed: None,
        };
        made.allow(made.answer, NoPolicy::NotPublished);
        made
    }

    /// No policy is asked.
    fn allow(&mut self, answer: Answer, why: NoPolicy) {
        let rule = if answer.outcome.is_ok() { "default" } else { "unscored" };
        self.copy(answer, &Verdict::allow(rule));
        self.policy.set("");
        self.no_policy = Some(why);
    }

    /// Copies what a policy said. The compiler sees to it that texts are no longer than there is room.
    fn copy(&mut self, answer: Answer, verdict: &Verdict<'_>) {
        self.answer = answer;
        self.action = verdict.action;
        if !self.rule.set(verdict.rule) {
            self.rule = Name::truncated(verdict.rule);
        }
        self.status = verdict.status;
        self.has_header = verdict.header.is_some_and(|header| self.header.set(header));
        self.simulated = verdict.simulated.map(|(rule, action)| {
            self.simulated_rule.set(rule);
            action
        });
        self.has_exception = verdict.exception.is_some_and(|name| self.exception.set(name));
    }
}

/// The bytes by which a client is among those that a rule is for, or not: its IPv4 address, or its IPv6 network of 64 bits.
pub(crate) struct ClientBytes {
    bytes: [u8; 8],
    len: usize,
}

impl ClientBytes {
    #[inline]
    pub(crate) fn of(address: Option<Address>) -> Self {
        let (number, len) = match address {
            None => (0, 0),
            Some(Address::V4(address)) => (u64::from(address) << 32, 4),
            // The upper half.
            Some(Address::V6(address)) => ((address >> 64) as u64, 8),
        };
        Self { bytes: number.to_be_bytes(), len }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len).filter(|bytes| !bytes.is_empty())
    }
}

impl Scorer {
    /// Scores `request` as [`Self::score`] does, and asks the policy of `route` what to do with it: [`Self::decision`] tells.
    /// Features that the policy refers to are looked up with those of the models, and also where there is no model.
    ///
    /// What is missing, each with the reason why: without `features` the request has no score, and conditions on features and
    /// values do not hold; without `models` it has no score; without `policies` everything is allowed.
    ///
    /// # Safety
    /// `models` and `policies` are the bytes that [`Self::bind_models`] and [`Self::bind_policies`] accepted last, unchanged.
    pub unsafe fn decide(
        &mut self,
        features: Result<&[u8], Unscored>,
        models: Result<&[u8], Unscored>,
        policies: Result<&[u8], NoPolicy>,
        request: &Request<'_>,
        route: &str,
        now: u32,
    ) -> Answer {
        let policy = self.policies.policy_of_route(route).copied().filter(|_| policies.is_ok());
        let asked = policy.filter(|_| !self.policies.is_off());
        let needs = asked.map(|policy| policy.needs).unwrap_or_default();
        let answer = match features {
            // SAFETY:
            // - `models` are the bytes bound last, unchanged: this function's own contract
            Ok(features) => unsafe { self.score_with(features, models, request, route, needs, now) },
            Err(reason) => {
                self.forget();
                Answer::unscored(reason)
            }
        };
        let Self { dimensions, policies: bound, buffers, decided, path, .. } = self;
        decided.challenge_passed = request.http().and_then(|http| match features {
            Ok(_) => dimensions.passed(http, now),
            Err(_) => http.passed(|_| None),
        });
        let (policy, bytes) = match (policy, policies) {
            (Some(policy), Ok(bytes)) => (policy, bytes),
            (_, policies) => {
                decided.allow(answer, policies.err().unwrap_or(NoPolicy::BadPolicy));
                return answer;
            }
        };
        // SAFETY:
        // - `policies` are the bytes bound last, unchanged: this function's own contract
        let Some(opened) = (unsafe { bound.open(&policy, bytes) }) else {
            decided.allow(answer, NoPolicy::BadPolicy);
            return answer;
        };
        let told = bound.facts(&policy, request);
        let client = ClientBytes::of(told.address);
        let exceptions = bound.exceptions().and_then(|layout| layout.of(bytes));
        let facts = Facts {
            score: answer.outcome.ok().map(|scored| scored.score),
            path: told.path.and_then(|raw| normalize(raw, path)),
            method: told.method,
            host: told.host,
            client: client.bytes(),
            secret: features.is_ok().then_some(dimensions.secret()),
            // Who brings a pass that we cannot check is left alone: that is our own failure.
            passed: decided
                .challenge_passed
                .unwrap_or_else(|| request.http().is_some_and(|http| http.pass.is_some())),
            now,
        };
        let (values, statuses): (&[f32], &[Status]) = match features {
            Ok(_) => (&buffers.values, buffers.statuses.get(..dimensions.len()).unwrap_or_default()),
            // Not even missing, which a condition may ask for: that they are not there is our own failure.
            Err(_) => (&[], &[]),
        };
        let exception = exceptions.and_then(|all| all.find(told.address, told.user_agent, now));
        let seen = bound.seen(&policy, values, statuses);
        let verdict = opened.decide_with(bound.is_off(), &facts, exception, seen);
        decided.copy(answer, &verdict);
        decided.policy.set(policy.name());
        decided.no_policy = None;
        answer
    }

    /// What the last [`Self::decide`] came to.
    pub fn decision(&self) -> Decision<'_> {
        let decided = &self.decided;
        Decision {
            answer: decided.answer,
            action: decided.action,
            rule: decided.rule.as_str(),
            status: decided.status,
            header: decided.has_header.then(|| decided.header.as_str()),
            simulated: decided.simulated.map(|action| (decided.simulated_rule.as_str(), action)),
            exception: decided.has_exception.then(|| decided.exception.as_str()),
            policy: decided.policy.as_str(),
            no_policy: decided.no_policy,
            challenge_passed: decided.challenge_passed,
        }
    }
}
