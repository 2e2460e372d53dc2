//! From a policy as an operator writes it to the archive that workers read.

use super::compiled::{self, *};
use super::exceptions::{EXCEPTION_RULE, MAX_HEADER_BYTES};
use super::index::Index;
use super::source;
use crate::schema::MAX_NAME_BYTES;
use bliss_catboost::category_hash;

/// Why a policy is refused; the text names the rule and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(pub String);

impl source::Policy {
    /// Compiles and checks the policy. Verified crawlers that no rule for crawlers answers are allowed, by the rule
    /// `verified crawler`.
    ///
    /// # Errors
    /// The first rule that is wrong, and why.
    pub fn compile(&self) -> Result<rkyv::util::AlignedVec, CompileError> {
        let at_policy = |text: String| CompileError(format!("policy {:?}: {text}", self.name));
        let mut compiler = Compiler { sources: Vec::new() };
        let mut rules: Vec<compiled::Rule> = Vec::new();
        let verified = source::Rule {
            name: "verified crawler".into(),
            crawler_state: vec![CrawlerState::Verified],
            ..Default::default()
        };
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return Err(at_policy(format!("name: expected 1 to {MAX_NAME_BYTES} bytes; give it another")));
        }
        let exemptions = if self.defaults == Some(false) { vec![] } else { shipped_exemptions() };
        let stages: [(_, _, &[_]); 5] = [
            (Stage::Exempt, &self.exempt, &exemptions),
            (Stage::Deny, &self.deny, &[]),
            (Stage::Allow, &self.allow, &[]),
            (Stage::Crawler, &self.crawler, &[verified]),
            (Stage::Band, &self.band, &[]),
        ];
        for (stage, own, shipped) in stages {
            for (rule, is_shipped) in
                own.iter().map(|rule| (rule, false)).chain(shipped.iter().map(|rule| (rule, true)))
            {
                let compiled = compiler.rule(stage, rule, is_shipped);
                let compiled = compiled.map_err(|text| at_policy(format!("rule {:?}: {text}", rule.name)))?;
                if rules.iter().any(|other| other.name == compiled.name) {
                    return Err(at_policy(format!(
                        "rule {:?}: the name is taken; give it another",
                        rule.name
                    )));
                }
                rules.push(compiled);
            }
        }
        let on_unscored = match &self.on_unscored {
            Some(o) => outcome(o.action, o.status, o.header.as_ref())
                .map_err(|text| at_policy(format!("on_unscored: {text}")))?,
            None => compiled::Outcome { action: Action::Allow, status: 0, header: None },
        };
        let conditions =
            rules.iter().flat_map(|rule| &rule.clauses).map(|clause| clause.len().max(1)).sum::<usize>();
        let (found, sources) = (rules.len(), compiler.sources.len());
        // Before the index is made, which takes a time in proportion to the square of the conditions.
        if found > MAX_RULES || conditions > MAX_CONDITIONS || sources > MAX_SOURCES {
            return Err(at_policy(format!(
                "expected at most {MAX_RULES} rules, {MAX_CONDITIONS} conditions and {MAX_SOURCES} features, found {found} rules, \
                 {conditions} conditions and {sources} features; split it"
            )));
        }
        let index = Index::of(&rules);
        let compiled =
            Compiled { name: self.name.clone(), on_unscored, sources: compiler.sources, rules, index };
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&compiled).map_err(|e| at_policy(e.to_string()))?;
        PolicyRef::open(&bytes).map_err(|_| {
            at_policy(format!("expected at most {MAX_BYTES} bytes, found {}; split it", bytes.len()))
        })?;
        Ok(bytes)
    }
}

/// The exemptions that come with every policy.
fn shipped_exemptions() -> Vec<source::Rule> {
    vec![
        source::Rule {
            name: "acme challenge".into(),
            path_prefix: vec!["/.well-known/acme-challenge/".into()],
            ..Default::default()
        },
        source::Rule {
            name: "robots.txt".into(),
            path: vec!["/robots.txt".into()],
            method: vec!["GET".into(), "HEAD".into()],
            ..Default::default()
        },
    ]
}

/// Checks that a status is one to answer with.
pub(crate) fn check_status(status: Option<u16>) -> Result<(), String> {
    match status.filter(|status| !(200..=599).contains(status)) {
        Some(status) => Err(format!("status: expected 200 to 599, found {status}")),
        None => Ok(()),
    }
}

/// Checks that a text is a header.
pub(crate) fn check_header(header: Option<&str>) -> Result<(), String> {
    let is_header = |text: &str| {
        let name = text.split_once(": ").map(|(name, _)| name.as_bytes());
        name.and_then(crate::http::method).is_some() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    match header.filter(|text| text.len() > MAX_HEADER_BYTES || !is_header(text)) {
        Some(text) => Err(format!(
            "header: expected `Name: value` in ASCII of at most {MAX_HEADER_BYTES} bytes, found {text:?}"
        )),
        None => Ok(()),
    }
}

fn outcome(
    action: Action,
    status: Option<u16>,
    header: Option<&String>,
) -> Result<compiled::Outcome, String> {
    let usual = match action {
        Action::Challenge | Action::Block => 403,
        Action::RateLimitKey => 429,
        Action::Allow | Action::Observe | Action::Tag => 0,
    };
    check_status(status)?;
    check_header(header.map(String::as_str))?;
    Ok(compiled::Outcome { action, status: status.unwrap_or(usual), header: header.cloned() })
}

struct Compiler {
    sources: Vec<Source>,
}

impl Compiler {
    fn rule(
        &mut self,
        stage: Stage,
        rule: &source::Rule,
        is_optional: bool,
    ) -> Result<compiled::Rule, String> {
        if rule.name.is_empty() || rule.name.len() > MAX_NAME_BYTES {
            return Err(format!("name: expected 1 to {MAX_NAME_BYTES} bytes"));
        }
        if ["default", "unscored", "off", EXCEPTION_RULE].contains(&rule.name.as_str()) {
            return Err("name: it is taken by answers that no rule gives; give it another".into());
        }
        let usual = if stage == Stage::Deny { Action::Block } else { Action::Allow };
        let action = match rule.action {
            None if stage == Stage::Band => return Err("action: a band has to say what it does".into()),
            given => given.unwrap_or(usual),
        };
        if matches!(stage, Stage::Exempt | Stage::Allow) && action != Action::Allow {
            return Err(format!("action: rules of this stage allow, found {action:?}; remove it"));
        }
        if stage != Stage::Band && (rule.below.is_some() || rule.above.is_some()) {
            return Err("below and above: only bands look at the score; move the rule there".into());
        }
        let (lowest, highest) =
            (rule.above.map_or(1, |n| n.saturating_add(1)), rule.below.map_or(99, |n| n.saturating_sub(1)));
        if lowest > highest || highest > 99 {
            return Err(format!("below and above: no score from 1 to 99 is within {lowest} to {highest}"));
        }
        let percent = rule.percent.unwrap_or(100.0);
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("percent: expected 0 to 100, found {percent}"));
        }
        let texts = |texts: &[String], kind: fn(String) -> Condition| {
            texts.iter().cloned().map(kind).collect::<Vec<_>>()
        };
        let mut paths = texts(&rule.path, Condition::Path);
        paths.extend(texts(&rule.path_prefix, Condition::PathPrefix));
        let state = match (stage, rule.crawler_state.as_slice()) {
            (Stage::Crawler, []) => vec![CrawlerState::Verified],
            (_, states) => states.to_vec(),
        };
        let mut clauses = Vec::new();
        let equal = Compare::Equal;
        for state in state {
            let source = self.source("crawler.state", false, is_optional)?;
            clauses.push(Condition::Number { source, compare: equal, value: f32::from(state as u8) });
        }
        let mut clauses = vec![clauses];
        for (name, texts) in
            [("crawler.category", &rule.crawler_category), ("request.country", &rule.country)]
        {
            let mut any = Vec::new();
            for text in texts {
                let source = self.source(name, true, is_optional)?;
                any.push(Condition::Category { source, is: true, hash: category_hash(text.as_bytes()) });
            }
            clauses.push(any);
        }
        let mut lists = Vec::new();
        for list in &rule.list {
            lists.push(Condition::Number {
                source: self.source(list, false, false)?,
                compare: equal,
                value: 1.0,
            });
        }
        clauses.push(lists);
        for text in &rule.when {
            clauses.push(self.condition(text).map_err(|e| format!("when {text:?}: {e}"))?);
        }
        clauses.extend([texts(&rule.method, Condition::Method), paths, texts(&rule.host, Condition::Host)]);
        match (action, rule.even_if_passed) {
            (Action::Challenge, false) => clauses.push(vec![Condition::NotPassed]),
            (Action::Challenge, true) | (_, false) => {}
            (other, true) => {
                return Err(format!(
                    "even_if_passed: it is for the action challenge, found {other:?}; remove it"
                ));
            }
        }
        clauses.retain(|clause| !clause.is_empty());
        let knows_request = |clause: &Vec<Condition>| {
            !clause.iter().any(|c| {
                matches!(c, Condition::Number { .. } | Condition::Category { .. } | Condition::Missing { .. })
            })
        };
        if stage == Stage::Exempt && (clauses.is_empty() || !clauses.iter().all(knows_request)) {
            return Err(
                "an exemption needs paths, methods or hosts, and has nothing else; use `allow` for features"
                    .into(),
            );
        }
        Ok(compiled::Rule {
            name: rule.name.clone(),
            stage,
            outcome: outcome(action, rule.status, rule.header.as_ref())?,
            lowest,
            highest,
            from: rule.from.unwrap_or(0),
            until: rule.until.unwrap_or(u32::MAX),
            // At most 2^32, and not negative.
            share: (percent / 100.0 * ALL as f64) as u64,
            simulate: rule.simulate,
            clauses,
        })
    }

    fn source(&mut self, name: &str, is_category: bool, is_optional: bool) -> Result<u32, String> {
        if name.split_once('.').is_none_or(|(dimension, feature)| dimension.is_empty() || feature.is_empty())
        {
            return Err(format!("{name:?}: expected `dimension.feature` or `request.value`"));
        }
        let known = self.sources.iter().position(|s| s.name == name && s.is_category == is_category);
        let index = known.unwrap_or(self.sources.len());
        match self.sources.get_mut(index) {
            Some(source) => source.is_optional &= is_optional,
            None => self.sources.push(Source { name: name.into(), is_category, is_optional }),
        }
        u32::try_from(index).map_err(|e| e.to_string())
    }

    /// `name OPERATOR literal`, `name OPERATOR literal or missing` or `name missing`, as conditions of which one must hold.
    fn condition(&mut self, text: &str) -> Result<Vec<Condition>, String> {
        let form = "expected for instance `ip.requests_1m > 600`, `network.kind = \"hosting\"` or `ip.requests_1m missing`";
        let Some(at) = text.find(['<', '>', '=', '!']) else {
            let name = text.trim_end().strip_suffix(" missing").ok_or(form)?;
            return Ok(vec![Condition::Missing { source: self.source(name.trim(), false, false)? }]);
        };
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let operators = [
            ("<=", Compare::LessEqual),
            (">=", Compare::GreaterEqual),
            ("!=", Compare::NotEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
            ("=", Compare::Equal),
        ];
        let found =
            operators.iter().find_map(|(sign, compare)| Some((rest.strip_prefix(sign)?.trim(), *compare)));
        let (literal, compare) = found.ok_or(form)?;
        let (literal, or_missing) =
            literal.strip_suffix(" or missing").map_or((literal, false), |literal| (literal.trim(), true));
        let string = literal.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let source = self.source(name, string.is_some(), false)?;
        let condition = match (string, compare) {
            (Some(text), Compare::Equal | Compare::NotEqual) => {
                let hash = category_hash(text.as_bytes());
                Condition::Category { source, is: compare == Compare::Equal, hash }
            }
            (Some(_), _) => return Err("texts are compared by = and != only".into()),
            (None, _) => {
                let value: f32 = literal.parse().map_err(|_| form)?;
                if !value.is_finite() {
                    return Err("expected a finite number".into());
                }
                Condition::Number { source, compare, value }
            }
        };
        let missing = or_missing.then_some(Condition::Missing { source });
        Ok(std::iter::once(condition).chain(missing).collect())
    }
}
