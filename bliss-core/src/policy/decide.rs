//! The decision for one request.

use super::compiled::*;
use super::exceptions::{EXCEPTION_RULE, ExceptionRef};
use crate::key::{KeySecret, hash_key};

/// What a feature or a value of the request is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// The schema has no such feature: no condition on it holds.
    Unbound,
    /// There is no row, or the request does not tell.
    Missing,
    /// This.
    Is(f32),
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The score, if it has one.
    pub score: Option<u8>,
    /// The path without query, decoded and without dot segments, as the server uses it to choose what to serve.
    pub path: Option<&'a [u8]>,
    /// The method.
    pub method: Option<&'a [u8]>,
    /// The host without port.
    pub host: Option<&'a [u8]>,
    /// The client for shares: its address, 4 bytes, or the first 8 of IPv6.
    pub client: Option<&'a [u8]>,
    /// The installation's secret.
    pub secret: Option<&'a KeySecret>,
    /// Whether it has a pass: then nothing challenges it but rules that say so.
    pub passed: bool,
    /// Seconds since the Unix epoch.
    pub now: u32,
}

/// The answer of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// What to do.
    pub action: Action,
    /// The rule that says so: its name, `exception`, `default`, `unscored` or `off`.
    pub rule: &'p str,
    /// The status to answer with; 0: none.
    pub status: u16,
    /// A header to add.
    pub header: Option<&'p str>,
    /// The first simulated rule that would have answered before, and its action.
    pub simulated: Option<(&'p str, Action)>,
    /// The exception that answered.
    pub exception: Option<&'p str>,
}

impl Verdict<'_> {
    /// Everything is allowed: `rule` is the reason.
    pub const fn allow(rule: &str) -> Verdict<'_> {
        Verdict { action: Action::Allow, rule, status: 0, header: None, simulated: None, exception: None }
    }
}

impl<'p> PolicyRef<'p> {
    /// Asks the rules in their order; `value` tells what a source is, by its index. With `is_off` everything is allowed.
    pub fn decide(&self, is_off: bool, facts: &Facts<'_>, value: impl Fn(usize) -> Seen) -> Verdict<'p> {
        self.decide_with(is_off, facts, None, value)
    }

    /// The same; `exception` is what operators want done with this client, which comes after the rules that exempt.
    pub fn decide_with(
        &self,
        is_off: bool,
        facts: &Facts<'_>,
        mut exception: Option<ExceptionRef<'p>>,
        value: impl Fn(usize) -> Seen,
    ) -> Verdict<'p> {
        if is_off {
            return Verdict::allow("off");
        }
        if facts.passed {
            exception = exception.filter(|exception| exception.kind.action() != Action::Challenge);
        }
        let mut simulated = None;
        let candidates = self.policy.index.candidates(facts, &value);
        for rule in candidates.map_while(|index| self.policy.rules.get(index)) {
            if rule.stage > ArchivedStage::Exempt
                && let Some(exception) = exception.take()
            {
                return Verdict { simulated, ..Verdict::from(exception) };
            }
            if !holds(rule, facts, &value) {
                continue;
            }
            if rule.simulate {
                simulated = simulated.or(Some((rule.name.as_str(), rule.outcome.action.to_native())));
                continue;
            }
            return Verdict { simulated, ..verdict(&rule.outcome, &rule.name) };
        }
        if let Some(exception) = exception {
            return Verdict { simulated, ..Verdict::from(exception) };
        }
        if facts.score.is_none() {
            let verdict = match &self.policy.on_unscored {
                outcome if facts.passed && matches!(outcome.action, ArchivedAction::Challenge) => {
                    Verdict::allow("unscored")
                }
                outcome => verdict(outcome, "unscored"),
            };
            return Verdict { simulated, ..verdict };
        }
        Verdict { simulated, ..Verdict::allow("default") }
    }
}

impl<'a> From<ExceptionRef<'a>> for Verdict<'a> {
    fn from(exception: ExceptionRef<'a>) -> Self {
        Self {
            action: exception.kind.action(),
            rule: EXCEPTION_RULE,
            status: exception.status,
            header: exception.header,
            simulated: None,
            exception: Some(exception.name),
        }
    }
}

fn verdict<'p>(outcome: &'p ArchivedOutcome, rule: &'p str) -> Verdict<'p> {
    Verdict {
        action: outcome.action.to_native(),
        rule,
        status: outcome.status.to_native(),
        header: outcome.header.as_ref().map(|header| header.as_str()),
        simulated: None,
        exception: None,
    }
}

#[inline]
fn holds(rule: &ArchivedRule, facts: &Facts<'_>, value: &impl Fn(usize) -> Seen) -> bool {
    if rule.stage == ArchivedStage::Band
        && !facts.score.is_some_and(|score| (rule.lowest..=rule.highest).contains(&score))
    {
        return false;
    }
    (rule.from.to_native()..rule.until.to_native()).contains(&facts.now)
        && rule.clauses.iter().all(|clause| clause.iter().any(|condition| is_met(condition, facts, value)))
        && is_of_share(rule, facts)
}

/// Whether the client is one of those that the rule is for: always the same ones, and others for each rule.
fn is_of_share(rule: &ArchivedRule, facts: &Facts<'_>) -> bool {
    let share = rule.share.to_native();
    if share >= ALL {
        return true;
    }
    let (Some(secret), Some(client)) = (facts.secret, facts.client) else { return false };
    let parts = [b"percent".as_slice(), client];
    hash_key(secret, &rule.name, parts.into_iter()) >> 32 < share
}

#[inline]
fn is_met(condition: &ArchivedCondition, facts: &Facts<'_>, value: &impl Fn(usize) -> Seen) -> bool {
    let seen = |source: &rkyv::rend::u32_le| usize::try_from(source.to_native()).map_or(Seen::Unbound, value);
    match condition {
        ArchivedCondition::Path(path) => facts.path == Some(path.as_bytes()),
        ArchivedCondition::PathPrefix(prefix) => facts.path.is_some_and(|p| p.starts_with(prefix.as_bytes())),
        ArchivedCondition::Method(method) => facts.method == Some(method.as_bytes()),
        ArchivedCondition::Host(host) => {
            facts.host.is_some_and(|found| found.eq_ignore_ascii_case(host.as_bytes()))
        }
        ArchivedCondition::Number { source, compare, value: limit } => {
            let (Seen::Is(found), limit) = (seen(source), limit.to_native()) else { return false };
            match compare {
                ArchivedCompare::Less => found < limit,
                ArchivedCompare::LessEqual => found <= limit,
                ArchivedCompare::Greater => found > limit,
                ArchivedCompare::GreaterEqual => found >= limit,
                ArchivedCompare::Equal => found == limit,
                // What is not told is NaN, and satisfies nothing.
                ArchivedCompare::NotEqual => !found.is_nan() && found != limit,
            }
        }
        ArchivedCondition::Category { source, is, hash } => {
            matches!(seen(source), Seen::Is(found) if (found.to_bits() == hash.to_native()) == *is)
        }
        ArchivedCondition::Missing { source } => seen(source) == Seen::Missing,
        ArchivedCondition::NotPassed => !facts.passed,
    }
}
