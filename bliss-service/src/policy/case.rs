//! A test of policies: a request, what is known of it, and what is expected.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bliss_core::http::{self, HttpRequest, NO_SITES, RequestValue};
use bliss_core::policy::compiled::CrawlerState;
use bliss_core::policy::decide::{Facts, Seen};
use bliss_core::policy::path::{MAX_PATH_BYTES, normalize};
use bliss_core::policy::source::Action;
use bliss_core::publication::policies::PoliciesRef;
use bliss_core::request::INPUT_PREFIX;

use super::action_name;
use crate::category::category;

/// The value that says that the client has a pass.
const CHALLENGE_PASSED: &str = "request.challenge_passed";

/// What a test says of a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A number.
    Number(f32),
    /// A category's text, or the state of a crawler as a word.
    Text(String),
}

/// A test of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    /// Its name.
    pub name: String,
    /// The line of the configuration that it is on.
    pub line: usize,
    /// The route whose policy is asked.
    pub route: String,
    /// The request's method.
    pub method: String,
    /// The request's target; its path is compared as workers compare it.
    pub path: String,
    /// The host asked for; empty: not known.
    pub host: String,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The `Referer` header.
    pub referrer: Option<String>,
    /// The client's country.
    pub country: Option<String>,
    /// The score, if the request has one.
    pub score: Option<u8>,
    /// Features by name; others are missing.
    pub features: BTreeMap<String, Told>,
    /// When it is, in seconds since the epoch; the present if `None`.
    pub at: Option<u32>,
    /// The action that is expected.
    pub action: Action,
    /// The rule that is expected, if it matters.
    pub rule: Option<String>,
    /// The simulated rule that is expected, empty for none, if it matters.
    pub simulated: Option<String>,
}

/// A test that does not give what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name; empty where it is about all of them.
    pub test: String,
    /// Its line; 0 where it is about all of them.
    pub line: usize,
    /// What was expected and found.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.test.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "test {:?}: {}", self.test, self.message)
    }
}

impl TestCase {
    /// Asks the policy of the test's route.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn run(&self, policies: PoliciesRef<'_>) -> Result<(), Failure> {
        let fail = |message: String| Failure { test: self.name.clone(), line: self.line, message };
        let index = policies.policy_of_route(&self.route);
        let policy = policies.policy(index).map_err(|error| fail(error.to_string()))?;
        let sources: Vec<_> = policy.sources().map(|(name, is_category, _)| (name, is_category)).collect();
        let ip = self.ip_bytes();
        let values = self.http(&ip).values(RequestValue::ALL_BITS, NO_SITES);
        let seen = |source: usize| match sources.get(source) {
            Some((name, is_category)) => self.seen(name, *is_category, &values),
            None => Seen::Unbound,
        };
        let mut room = [0; MAX_PATH_BYTES];
        let facts = Facts {
            score: self.score,
            path: http::path(self.path.as_bytes()).and_then(|path| normalize(path, &mut room)),
            method: http::method(self.method.as_bytes()),
            host: http::host(self.host.as_bytes()),
            client: None,
            secret: None,
            passed: matches!(self.features.get(CHALLENGE_PASSED), Some(Told::Number(1.0))),
            now: self.at.unwrap_or_else(now),
        };
        let found = policy.decide(false, &facts, seen);
        let simulated = found.simulated.map_or("", |(rule, _)| rule);
        let is_rule = self.rule.as_deref().is_none_or(|rule| rule == found.rule);
        let is_simulated = self.simulated.as_deref().is_none_or(|rule| rule == simulated);
        if found.action == self.action && is_rule && is_simulated {
            return Ok(());
        }
        let told = |action: Action, rule: Option<&str>, simulated: Option<&str>| {
            let by = rule.map_or(String::new(), |rule| format!(" by rule {rule:?}"));
            let beside = match simulated {
                None => String::new(),
                Some("") => " and nothing simulated".to_owned(),
                Some(rule) => format!(" and rule {rule:?} simulated"),
            };
            format!("{}{by}{beside}", action_name(action))
        };
        Err(fail(format!(
            "expected {}, found {}",
            told(self.action, self.rule.as_deref(), self.simulated.as_deref()),
            told(found.action, Some(found.rule), self.simulated.as_ref().map(|_| simulated)),
        )))
    }

    fn ip_bytes(&self) -> Vec<u8> {
        match self.ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
            None => Vec::new(),
        }
    }

    fn http<'a>(&'a self, ip: &'a [u8]) -> HttpRequest<'a> {
        HttpRequest {
            ip: (!ip.is_empty()).then_some(bliss_core::attribute::Value::Binary(ip)),
            method: Some(self.method.as_bytes()),
            target: Some(self.path.as_bytes()),
            host: (!self.host.is_empty()).then_some(self.host.as_bytes()),
            user_agent: self.user_agent.as_deref().map(str::as_bytes),
            referrer: self.referrer.as_deref().map(str::as_bytes),
            ..HttpRequest::default()
        }
    }

    /// What a source is: what the test says of it, else what the request says by itself.
    fn seen(&self, name: &str, is_category: bool, values: &[f32]) -> Seen {
        let text = |text: &str| if text.is_empty() { Seen::Missing } else { Seen::Is(category(text)) };
        match self.features.get(name) {
            Some(Told::Text(state)) if name == "crawler.state" => return Seen::Is(crawler_state(state)),
            Some(Told::Number(number)) if !is_category && !number.is_nan() => return Seen::Is(*number),
            Some(Told::Text(told)) if is_category => return text(told),
            Some(_) => return Seen::Unbound,
            None => {}
        }
        let Some(value) = name.strip_prefix(INPUT_PREFIX) else { return Seen::Missing };
        if is_category {
            let told = match value {
                "country" => self.country.as_deref(),
                "user_agent" => self.user_agent.as_deref(),
                "referrer" => self.referrer.as_deref(),
                "method" => Some(self.method.as_str()),
                "host" => Some(self.host.as_str()),
                _ => None,
            };
            return told.map_or(Seen::Missing, text);
        }
        let found = RequestValue::of(value).and_then(|value| values.get(value.index()));
        found.filter(|value| !value.is_nan()).map_or(Seen::Missing, |value| Seen::Is(*value))
    }
}

/// The number of a crawler's state; 0 for a word that is none.
fn crawler_state(word: &str) -> f32 {
    let states = [
        ("claimed", CrawlerState::Claimed),
        ("verified", CrawlerState::Verified),
        ("fake", CrawlerState::Fake),
    ];
    let found = states.into_iter().find(|(name, _)| *name == word).map(|(_, state)| state);
    f32::from(found.unwrap_or(CrawlerState::None) as u8)
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
