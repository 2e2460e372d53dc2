//! A policy as an operator writes it.

use serde::Deserialize;

pub use super::compiled::{Action, CrawlerState};

/// A policy: rules by stage, in the order in which the stages are asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Whether the shipped exemptions belong to it, which are asked after its own: for the renewal of certificates
    /// (`/.well-known/acme-challenge/`) and `/robots.txt`. They do unless this is `false`.
    pub defaults: Option<bool>,
    /// What becomes of requests without a score that no rule before the bands answers.
    pub on_unscored: Option<Outcome>,
    /// Rules of paths, methods and hosts that allow whatever else is known.
    pub exempt: Vec<Rule>,
    /// Rules that block unless they say otherwise.
    pub deny: Vec<Rule>,
    /// Rules that allow.
    pub allow: Vec<Rule>,
    /// Rules for crawlers: verified ones unless they say otherwise, which are allowed unless they say otherwise.
    pub crawler: Vec<Rule>,
    /// Rules for requests with a score.
    pub band: Vec<Rule>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What the web server is to do.
    pub action: Action,
    /// The status to answer with; 403 for `challenge` and `block`, 429 for `rate_limit_key`, else 0: none.
    pub status: Option<u16>,
    /// A header to add, `Name: value`.
    pub header: Option<String>,
}

/// A rule: all its conditions must hold, and of a list one entry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Its name, which answers carry.
    pub name: String,
    /// What is done; the stage's own action if `None`.
    pub action: Option<Action>,
    /// As in [`Outcome`].
    pub status: Option<u16>,
    /// As in [`Outcome`].
    pub header: Option<String>,
    /// In bands: the score is below this.
    pub below: Option<u8>,
    /// In bands: the score is above this.
    pub above: Option<u8>,
    /// Whole paths.
    pub path: Vec<String>,
    /// What a path begins with, byte for byte.
    pub path_prefix: Vec<String>,
    /// Methods.
    pub method: Vec<String>,
    /// Hosts without port.
    pub host: Vec<String>,
    /// Countries, by `request.country`.
    pub country: Vec<String>,
    /// Features that are 1 for members of a list.
    pub list: Vec<String>,
    /// States of crawlers.
    pub crawler_state: Vec<CrawlerState>,
    /// Categories of crawlers.
    pub crawler_category: Vec<String>,
    /// Conditions on features and values, such as `ip.requests_1m > 600`; ` or missing` at the end lets a missing one satisfy it.
    pub when: Vec<String>,
    /// With the action `challenge`: also for clients that have a pass, which no other challenge is for.
    pub even_if_passed: bool,
    /// Of how many clients in a hundred, always the same ones.
    pub percent: Option<f64>,
    /// Tell what the rule would do, and go on as if it were not there.
    pub simulate: bool,
    /// It holds from this time on, in seconds since the Unix epoch.
    pub from: Option<u32>,
    /// It holds before this time.
    pub until: Option<u32>,
}
