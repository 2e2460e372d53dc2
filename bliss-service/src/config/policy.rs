//! The sections `[[policy]]`, `[[test]]` and `[policy_gate]`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use bliss_catboost::InputKind;
use bliss_core::http::RequestValue;
use bliss_core::policy::compiled::PolicyRef;
use bliss_core::policy::source::{self, Action, CrawlerState, Outcome};
use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::request::INPUT_PREFIX;
use bliss_core::schema::Schema;
use jiff::Timestamp;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::source::{ConfigError, Source};
use super::{defaults, options};
use crate::check::missing_feature;
use crate::policy::{Gate, TestCase, Told};

#[cfg(test)]
pub(super) const SOURCE: &str = include_str!("policy.rs");

/// The name of the policy of routes that name none.
pub(crate) const DEFAULT_POLICY: &str = "default";
/// The most policies that are published.
const MAX_POLICIES: usize = 64;
/// The stages of a policy, as the configuration names them.
const STAGES: [&str; 5] = ["exempt", "deny", "allow", "crawler", "band"];

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// Its name. Routes that name no policy have the one that is named "default", if there is one, else what comes with BLISS, which
    /// blocks nobody.
    pub(super) name: Spanned<String>,
    /// Whether the exemptions that come with BLISS are in it: /robots.txt, and what certificates are renewed by.
    #[serde(default = "defaults::yes")]
    pub(super) defaults: bool,
    /// What becomes of requests without a score that no rule before the bands answers; allowed if it is left out.
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) on_unscored: Option<Outcome>,
    /// Rules that allow by path, method and host whatever else is known; then those that block unless they say otherwise; those that
    /// allow; those for crawlers, verified ones unless they say otherwise, which are allowed; and those for scores.
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) exempt: Vec<Rule>,
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) deny: Vec<Rule>,
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) allow: Vec<Rule>,
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) crawler: Vec<Rule>,
    #[serde(default)]
    pub(super) band: Vec<Rule>,
}

#[cfg(test)]
pub(super) const POLICY_EXAMPLE: &str = r#"
#name = "default"
#on_unscored = { action = "allow" }
#exempt = [{ name = "health check", path = ["/healthz"], method = ["GET", "HEAD"] }]
#deny = [{ name = "known scanners", list = ["hosting.is_hosting"], path_prefix = ["/login"], status = 403 }]
#allow = [{ name = "partner", host = ["api.shop.example"], when = ["ip.requests_session <= 600"] }]
#crawler = [{ name = "no training", crawler_category = ["ai_training"], action = "block" }]
"#;

/// A rule, here a band of another policy: all its conditions must hold, and of a list one entry. docs/policy.md says what each means.
#[derive(Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Its name, which answers carry.
    pub(super) name: String,
    /// What is done: "allow", "observe", "tag", "rate_limit_key", "challenge" or "block"; the stage's own if it is left out.
    #[cfg_attr(test, serde(skip_serializing))]
    action: Option<Action>,
    /// The status to answer with, and a header to add, "Name: value".
    status: Option<u16>,
    header: Option<String>,
    /// In bands: scores below this; scores above this.
    below: Option<u8>,
    above: Option<u8>,
    /// Whole paths; what paths begin with; methods; hosts without port; countries.
    #[serde(default)]
    path: Vec<String>,
    #[serde(default)]
    path_prefix: Vec<String>,
    #[serde(default)]
    method: Vec<String>,
    #[serde(default)]
    host: Vec<String>,
    #[serde(default)]
    country: Vec<String>,
    /// Features that are 1 for members of a list.
    #[serde(default)]
    list: Vec<String>,
    /// What is known of crawlers: "none", "claimed", "verified", "fake"; and what they are for.
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    crawler_state: Vec<CrawlerState>,
    #[serde(default)]
    crawler_category: Vec<String>,
    /// Conditions on features and values. A missing one satisfies none, unless ` or missing` is at the end.
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    when: Vec<String>,
    /// With the action "challenge": also for clients that passed one, which no other challenge is for.
    #[serde(default)]
    even_if_passed: bool,
    /// Of how many clients in a hundred, always the same ones.
    percent: Option<f64>,
    /// Tell what the rule would do, and do nothing.
    #[serde(default)]
    simulate: bool,
    /// It holds from this time on, and before that one; RFC 3339.
    #[serde(default, deserialize_with = "time")]
    #[cfg_attr(test, serde(skip_serializing))]
    from: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    #[cfg_attr(test, serde(skip_serializing))]
    until: Option<Timestamp>,
}

#[cfg(test)]
pub(super) const RULE_HEADER: &str = "[[policy]]\n#name = \"strict\"\n#[[policy.band]]";
#[cfg(test)]
pub(super) const RULE_EXAMPLE: &str = r#"
#name = "low scores"
#action = "challenge"
#status = 403
#header = "X-Bot: low"
#below = 30
#above = 0
#crawler_state = []
#when = ["ip.requests_session > 60 or missing"]
#percent = 100
#from = "2026-01-01T00:00:00Z"
#until = "2036-01-01T00:00:00Z"
"#;

/// Tests of policies: a request and what becomes of it. `bliss-service check` runs them, and the daemon publishes policies
/// only if all of them pass.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    pub(super) name: Spanned<String>,
    /// The route whose policy is asked.
    #[serde(default = "default_route")]
    pub(super) route: String,
    /// The request. What is left out is not known of it.
    #[serde(default = "get")]
    pub(super) method: String,
    #[serde(default = "root")]
    pub(super) path: String,
    #[serde(default)]
    pub(super) host: String,
    pub(super) ip: Option<IpAddr>,
    pub(super) user_agent: Option<String>,
    pub(super) referrer: Option<String>,
    pub(super) country: Option<String>,
    /// Its score, 1 to 99; none if it is left out.
    pub(super) score: Option<u8>,
    /// Features, numbers or texts; others are missing. crawler.state may be a word. Rules with `percent` hold for nobody in tests.
    #[serde(default)]
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) features: BTreeMap<String, ToldValue>,
    /// Features that are 1.
    #[serde(default)]
    pub(super) list: Vec<String>,
    /// When it is; the time of the test if it is left out.
    #[serde(default, deserialize_with = "time")]
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) at: Option<Timestamp>,
    /// What is expected; the rule, and the rule that is simulated, if they are given.
    #[cfg_attr(test, serde(skip_serializing))]
    pub(super) action: Action,
    pub(super) rule: Option<String>,
    pub(super) simulated: Option<String>,
}

#[cfg(test)]
pub(super) const TEST_EXAMPLE: &str = r##"
#name = "robots are asked"
#ip = "192.0.2.1"
#user_agent = "curl/8"
#referrer = ""
#country = "DE"
#score = 5
#features = { "ip.requests_session" = 700 }
#at = "2026-06-01T00:00:00Z"
#action = "challenge"
#rule = "low scores"
#simulated = ""
"##;

fn default_route() -> String {
    DEFAULT_ROUTE.to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// What a policy that is reloaded, or a model whose file changed, may do, by the requests of the last hours; docs/operate-policies.md says more.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct PolicyGate {
    /// Of the clients of the last hours, the share that a reloaded policy may block, limit or challenge where the policy before did
    /// not; 1: all of them. Verified crawlers and requests that were exempt may never be.
    max_newly_blocked_share: f64,
    /// The hours of the followed access log that are asked; 0: a reload is not compared.
    hours: u32,
}

impl Default for PolicyGate {
    fn default() -> Self {
        let Gate { max_newly_blocked_share, hours } = Gate::default();
        Self { max_newly_blocked_share, hours }
    }
}

impl PolicyGate {
    pub(super) fn resolve(self, source: Source<'_>) -> Result<Gate, ConfigError> {
        let Self { max_newly_blocked_share, hours } = self;
        if !(0.0..=1.0).contains(&max_newly_blocked_share) {
            return Err(source.whole(format!(
                "policy_gate.max_newly_blocked_share: expected 0 to 1, found {max_newly_blocked_share}"
            )));
        }
        if hours > 48 {
            return Err(source.whole(format!("policy_gate.hours: expected 48 at most, found {hours}")));
        }
        Ok(Gate { max_newly_blocked_share, hours })
    }
}

/// A value of a feature: a number, or a category's text.
pub(super) struct ToldValue(Told);

impl<'de> Deserialize<'de> for ToldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = ToldValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ToldValue, E> {
                self.visit_f64(value as f64)
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<ToldValue, E> {
                Ok(ToldValue(Told::Number(value as f32)))
            }
            fn visit_str<E>(self, text: &str) -> Result<ToldValue, E> {
                Ok(ToldValue(Told::Text(text.to_owned())))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A time, as TOML writes it or as text.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    struct Time;
    impl<'de> Visitor<'de> for Time {
        type Value = Timestamp;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time with its zone, for instance \"2026-01-01T00:00:00Z\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
        // A date of TOML comes as a map of one text.
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Timestamp, A::Error> {
            match map.next_entry::<String, String>()? {
                Some((_, text)) => self.visit_str(&text),
                None => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
            }
        }
    }
    deserializer.deserialize_any(Time).map(Some)
}

fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_second().max(0)).unwrap_or(u32::MAX)
}

impl Rule {
    fn into_source(self) -> source::Rule {
        source::Rule {
            name: self.name,
            action: self.action,
            status: self.status,
            header: self.header,
            below: self.below,
            above: self.above,
            path: self.path,
            path_prefix: self.path_prefix,
            method: self.method,
            host: self.host,
            country: self.country,
            list: self.list,
            crawler_state: self.crawler_state,
            crawler_category: self.crawler_category,
            when: self.when,
            even_if_passed: self.even_if_passed,
            percent: self.percent,
            simulate: self.simulate,
            from: self.from.map(seconds),
            until: self.until.map(seconds),
        }
    }
}

impl Policy {
    fn into_source(self) -> source::Policy {
        let rules = |rules: Vec<Rule>| rules.into_iter().map(Rule::into_source).collect();
        source::Policy {
            name: self.name.into_inner(),
            defaults: Some(self.defaults),
            on_unscored: self.on_unscored,
            exempt: rules(self.exempt),
            deny: rules(self.deny),
            allow: rules(self.allow),
            crawler: rules(self.crawler),
            band: rules(self.band),
        }
    }
}

/// The policies, each compiled once to see that it is good and that `schema` has what its rules name.
pub(super) fn policies(
    source: Source<'_>,
    options: Vec<Policy>,
    schema: &Schema,
) -> Result<Vec<source::Policy>, ConfigError> {
    if options.len() > MAX_POLICIES {
        return Err(
            source.whole(format!("[[policy]]: expected {MAX_POLICIES} at most, found {}", options.len()))
        );
    }
    let mut policies: Vec<source::Policy> = Vec::new();
    for (index, policy) in options.into_iter().enumerate() {
        source.check_name("policy", &policy.name)?;
        let at = policy.name.span().start;
        let policy = policy.into_source();
        if policies.iter().any(|other| other.name == policy.name) {
            let message = format!("policy `{}` appears twice; rename one", policy.name);
            return Err(source.at_offset(at, message));
        }
        check(source, index, at, &policy, schema)?;
        policies.push(policy);
    }
    Ok(policies)
}

fn check(
    source: Source<'_>,
    index: usize,
    at: usize,
    policy: &source::Policy,
    schema: &Schema,
) -> Result<(), ConfigError> {
    // Each rule alone, so that what is wrong has a line.
    for (stage, rules) in STAGES.iter().zip(rules_by_stage(policy)) {
        for (number, rule) in rules.iter().enumerate() {
            let alone = alone(policy, stage, rule);
            let place = |option: &str| rule_option(source.text, index, stage, number, option).unwrap_or(at);
            let bytes = alone.compile().map_err(|error| {
                let told = error.to_string();
                let prefix = format!("policy {:?}: rule {:?}: ", policy.name, rule.name);
                let option = told.strip_prefix(&prefix).and_then(|rest| rest.split([' ', ':']).next());
                source.at_offset(place(option.unwrap_or("name")), told.clone())
            })?;
            if let Some((option, message)) = missing_source(&bytes, rule, schema) {
                let message = format!("policy {:?}: rule {:?}: {option}: {message}", policy.name, rule.name);
                return Err(source.at_offset(place(option), message));
            }
        }
    }
    policy.compile().map(drop).map_err(|error| source.at_offset(at, error.to_string()))
}

/// The rules of each of [`STAGES`].
pub(crate) fn rules_by_stage(policy: &source::Policy) -> [&[source::Rule]; 5] {
    [&policy.exempt, &policy.deny, &policy.allow, &policy.crawler, &policy.band]
}

/// The policy with one of its rules only.
fn alone(policy: &source::Policy, stage: &str, rule: &source::Rule) -> source::Policy {
    let of = |name: &str| if name == stage { vec![rule.clone()] } else { Vec::new() };
    source::Policy {
        exempt: of("exempt"),
        deny: of("deny"),
        allow: of("allow"),
        crawler: of("crawler"),
        band: of("band"),
        on_unscored: None,
        defaults: Some(false),
        ..policy.clone()
    }
}

/// The option that names something that `schema` will never have, and what to do.
fn missing_source(bytes: &[u8], rule: &source::Rule, schema: &Schema) -> Option<(&'static str, String)> {
    let compiled = PolicyRef::open(bytes).ok()?;
    compiled.sources().find_map(|(name, is_category, is_optional)| {
        // Values of the request that BLISS does not know are the web server's program's to give.
        if is_optional || name.starts_with(INPUT_PREFIX) {
            return None;
        }
        let kind = if is_category { InputKind::Category } else { InputKind::Float };
        let reason = missing_feature(name, kind, "the rule", schema)?;
        let near = near(name, schema);
        let option = if rule.list.iter().any(|list| list == name) {
            "list"
        } else if rule.when.iter().any(|text| text.contains(name)) {
            "when"
        } else if name == "crawler.category" {
            "crawler_category"
        } else {
            "crawler_state"
        };
        Some((option, format!("there is no `{name}`: {reason}{near}")))
    })
}

/// Values of the request that only the web server's program can give, by the rule that names them.
pub(crate) fn by_program<'p>(policy: &'p source::Policy, schema: &Schema) -> Vec<(&'p str, String)> {
    let mut found = Vec::new();
    for (stage, rules) in STAGES.iter().zip(rules_by_stage(policy)) {
        for rule in rules {
            let Ok(bytes) = alone(policy, stage, rule).compile() else { continue };
            let Ok(compiled) = PolicyRef::open(&bytes) else { continue };
            for (name, is_category, _) in compiled.sources() {
                let Some(value) = name.strip_prefix(INPUT_PREFIX) else { continue };
                let is_known = if is_category {
                    schema.attribute_kind(value).is_some()
                } else {
                    RequestValue::of(value).is_some()
                };
                if !is_known {
                    found.push((rule.name.as_str(), name.to_owned()));
                }
            }
        }
    }
    found
}

/// Names of the schema that may be meant, as the end of a message.
fn near(name: &str, schema: &Schema) -> String {
    const SHOWN: usize = 3;
    let all = schema.dimensions.iter().flat_map(|dimension| {
        dimension.features.iter().map(|feature| format!("{}.{}", dimension.name, feature.name))
    });
    let mut found: Vec<(usize, String)> = all.map(|known| (distance(name, &known), known)).collect();
    found.retain(|(distance, _)| *distance <= (name.len() / 4).max(2));
    found.sort();
    let shown: Vec<_> = found.into_iter().take(SHOWN).map(|(_, name)| format!("`{name}`")).collect();
    if shown.is_empty() { String::new() } else { format!("; near are {}", shown.join(", ")) }
}

/// How many bytes must be put in, taken out or replaced to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Where the value of `option` is in a rule, or where its name is if it has none.
fn rule_option(text: &str, policy: usize, stage: &str, rule: usize, option: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let rules = entry(list(root.get_ref(), "policy")?, policy)?;
    let rule = entry(list(rules, stage)?, rule)?;
    let value = |name: &str| rule.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value);
    let found: Option<&Spanned<DeValue<'_>>> = value(option).or_else(|| value("name"));
    Some(found?.span().start)
}

fn list<'t, 'a>(table: &'t DeTable<'a>, name: &str) -> Option<&'t DeArray<'a>> {
    table.iter().find(|(key, _)| key.get_ref() == name)?.1.get_ref().as_array()
}

fn entry<'t, 'a>(list: &'t DeArray<'a>, index: usize) -> Option<&'t DeTable<'a>> {
    list.get(index)?.get_ref().as_table()
}

/// Which policy answers under which route: those that a route names, and for the others the one named "default".
pub(super) fn routes(
    source: Source<'_>,
    routes: &[options::Route],
    policies: &[source::Policy],
) -> Result<Vec<(String, String)>, ConfigError> {
    let has = |name: &str| policies.iter().any(|policy| policy.name == name);
    let mut found = Vec::new();
    for route in routes {
        let name = route.name.get_ref();
        match &route.policy {
            Some(policy) if !has(policy.get_ref()) => {
                let message =
                    format!("route `{name}`: policy: no [[policy]] is named `{}`", policy.get_ref());
                return Err(source.at(policy, message));
            }
            Some(policy) => found.push((name.clone(), policy.get_ref().clone())),
            None if has(DEFAULT_POLICY) => found.push((name.clone(), DEFAULT_POLICY.to_owned())),
            None => {}
        }
    }
    if has(DEFAULT_POLICY) && !found.iter().any(|(route, _)| route == DEFAULT_ROUTE) {
        found.push((DEFAULT_ROUTE.to_owned(), DEFAULT_POLICY.to_owned()));
    }
    Ok(found)
}

/// The tests of policies.
pub(super) fn tests(
    source: Source<'_>,
    options: Vec<Test>,
    schema: &Schema,
) -> Result<Vec<TestCase>, ConfigError> {
    let mut tests: Vec<TestCase> = Vec::new();
    for test in options {
        let (at, name) = (test.name.span().start, test.name.into_inner());
        if name.is_empty() || tests.iter().any(|other| other.name == name) {
            return Err(source.at_offset(at, format!("test {name:?}: expected a name of its own")));
        }
        if test.score.is_some_and(|score| !(1..=99).contains(&score)) {
            return Err(source.at_offset(at, format!("test {name:?}: score: expected 1 to 99")));
        }
        let mut features: BTreeMap<String, Told> =
            test.features.into_iter().map(|(name, ToldValue(value))| (name, value)).collect();
        features.extend(test.list.into_iter().map(|list| (list, Told::Number(1.0))));
        for (feature, told) in &features {
            // What is known of crawlers may be tested without them.
            if feature.starts_with("crawler.") || feature.starts_with(INPUT_PREFIX) {
                continue;
            }
            let kind = if matches!(told, Told::Text(_)) { InputKind::Category } else { InputKind::Float };
            if let Some(reason) = missing_feature(feature, kind, "the test", schema) {
                let message =
                    format!("test {name:?}: there is no `{feature}`: {reason}{}", near(feature, schema));
                return Err(source.at_offset(at, message));
            }
        }
        tests.push(TestCase {
            name,
            line: source.line(at),
            route: test.route,
            method: test.method,
            path: test.path,
            host: test.host,
            ip: test.ip,
            user_agent: test.user_agent,
            referrer: test.referrer,
            country: test.country,
            score: test.score,
            features,
            at: test.at.map(seconds),
            action: test.action,
            rule: test.rule,
            simulated: test.simulated,
        });
    }
    Ok(tests)
}

#[cfg(test)]
mod tests;
