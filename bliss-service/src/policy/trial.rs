//! What a policy would have done with the requests of a log, beside what another one would have: `blissctl policy test`, and the
//! gate before a reloaded policy is published.
//!
//! The log is replayed once with each: every request is decided on with the features that a worker would have read at that moment.
//! Rows of other origins are not in a log, so that rules about them hold for nobody; nor is what DNS says of crawlers, which
//! comes from the daemon's publication where there is one.

mod report;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bliss_core::build::{ModelSet, PolicySet};
use bliss_core::http::RequestValue;
use bliss_core::policy::compiled::CrawlerState;
use bliss_core::policy::source::Action;
use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::request::Request;
use bliss_store::Client;
use serde::Serialize;

use super::set_of;
use crate::DEFAULT_MODEL;
use crate::access_log::replay::{Replay, ReplayOptions};
use crate::config::Config;
use crate::export::walk::{Plan, Published, Seen, walk};
use crate::model_files::{self, prepare};
use crate::origin::{OriginKind, Wanted};
use crate::output;

/// Clients that are named.
const SHOWN: usize = 20;
/// Bytes of an agent that are shown.
const SHOWN_BYTES: usize = 80;
/// What makes a client's requests those of a person: pages and assets that were answered, and the share of assets that the site
/// itself referred to. The rule `browsing` of the training.
const PERSON: (u32, u32, f64) = (1, 2, 0.5);

/// Options of `blissctl policy test`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The configuration whose policies and models are tried.
    pub config: PathBuf,
    /// The access log; by default that of the configuration's access log origin. Several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// Of so many hours at the log's end requests are decided on; what is before them counts in features.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=24 * 31))]
    pub hours: u32,
    /// The configuration of today; without one it is compared with what comes with BLISS, which allows everything.
    #[arg(long, value_name = "CONFIG")]
    pub against: Option<PathBuf>,
    /// The route whose policy and model answer; a log does not tell it.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_ROUTE)]
    pub route: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Tries the policies and prints what they would have done.
///
/// # Errors
/// A configuration, a model or the log cannot be read, or there is no room for the publications.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let candidate = Config::read(&options.config)?;
    let against = options.against.as_deref().map(Config::read).transpose()?;
    let Options { log, hours, route, .. } = options;
    let trial = try_out(Side::of(&candidate), against.as_ref().map(Side::of), log, *hours, route)?;
    if options.json {
        return output::print(format_args!("{}\n", serde_json::to_string_pretty(&trial)?));
    }
    output::print(format_args!("{trial}"))
}

/// One of the two that are compared.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    /// Its policies and dimensions.
    pub(crate) config: &'a Config,
    /// Its models; `None`: those of the configuration's files.
    pub(crate) models: Option<&'a ModelSet>,
}

impl<'a> Side<'a> {
    /// A configuration with the models of its files.
    pub(crate) fn of(config: &'a Config) -> Self {
        Self { config, models: None }
    }
}

/// How many requests and clients got each of the actions that keep a client from what it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Blocked.
    pub block: u64,
    /// Challenged.
    pub challenge: u64,
    /// Limited in their rate.
    pub rate_limit_key: u64,
}

impl Held {
    fn add(&mut self, action: Action) {
        match action {
            Action::Block => self.block += 1,
            Action::Challenge => self.challenge += 1,
            Action::RateLimitKey => self.rate_limit_key += 1,
            Action::Allow | Action::Observe | Action::Tag => {}
        }
    }

    fn any(&self) -> u64 {
        self.block + self.challenge + self.rate_limit_key
    }
}

/// Requests and the clients that they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Requests.
    pub requests: Held,
    /// Clients with at least one such request.
    pub clients: Held,
}

/// A client that the candidate holds up and the other one does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Newly {
    /// Its address.
    pub ip: String,
    /// The beginning of its user agent.
    pub user_agent: String,
    /// Its requests.
    pub requests: u64,
    /// Those that are held up newly.
    pub held: u64,
    /// The rule that holds most of them up.
    pub rule: String,
    /// Whether it has strong signs of a person.
    pub is_person: bool,
    /// Whether it is a crawler that was verified.
    pub is_verified_crawler: bool,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trial {
    /// Requests that were decided on.
    pub requests: u64,
    /// Their clients: pairs of an address and a user agent.
    pub clients: u64,
    /// What the policy of today does.
    pub against: Counted,
    /// What the candidate does.
    pub candidate: Counted,
    /// Clients with a request that the candidate holds up and the other one does not.
    pub newly_held_clients: u64,
    /// Such requests.
    pub newly_held_requests: u64,
    /// Clients with a request that the other one holds up and the candidate does not.
    pub newly_let_through_clients: u64,
    /// Of the clients newly held up, those with strong signs of a person.
    pub newly_held_people: u64,
    /// Of them, verified crawlers; `None` where nothing is published that says which are.
    pub newly_held_verified_crawlers: Option<u64>,
    /// Requests newly held up that a rule of today exempts.
    pub newly_held_exempt_requests: u64,
    /// The largest of the clients newly held up.
    pub largest: Vec<Newly>,
}

impl Trial {
    /// Why the candidate is not to be published; `None`: it may be.
    pub fn refusal(&self, max_newly_held_share: f64) -> Option<String> {
        let first = self.largest.first().map_or(String::new(), |client| {
            format!("; the largest is {} ({:?}) by rule {:?}", client.ip, client.user_agent, client.rule)
        });
        if self.newly_held_exempt_requests > 0 {
            let count = self.newly_held_exempt_requests;
            return Some(format!(
                "{count} requests that are exempt today would be blocked, limited or challenged{first}"
            ));
        }
        if let Some(count) = self.newly_held_verified_crawlers.filter(|count| *count > 0) {
            return Some(format!("{count} verified crawlers would be blocked, limited or challenged{first}"));
        }
        let share = self.newly_held_clients as f64 / self.clients.max(1) as f64;
        (share > max_newly_held_share).then(|| {
            format!(
                "{} of {} clients ({:.1} %) would newly be blocked, limited or challenged, and policy_gate.max_newly_blocked_share \
                 allows {:.1} %{first}",
                self.newly_held_clients,
                self.clients,
                100.0 * share,
                100.0 * max_newly_held_share
            )
        })
    }
}

/// What is known of a client.
#[derive(Default)]
struct Tally {
    requests: u64,
    newly_held: u64,
    newly_let_through: u64,
    against: Held,
    candidate: Held,
    claims_browser: bool,
    pages: u32,
    assets: u32,
    site_assets: u32,
    rules: HashMap<String, u64>,
}

impl Tally {
    fn see(&mut self, seen: &Seen<'_>) {
        self.requests += 1;
        let is = |value: RequestValue| seen.values[value.index()] == 1.0;
        self.claims_browser |= is(RequestValue::ClaimsBrowser);
        // What our own decision answered says nothing of what the client would have got.
        if seen.record.own_answer || seen.record.status >= 400 {
            return;
        }
        if is(RequestValue::IsAsset) {
            self.assets += 1;
            self.site_assets += u32::from(is(RequestValue::SiteReferrer));
        } else {
            self.pages += 1;
        }
    }

    fn is_person(&self) -> bool {
        let (pages, assets, site_share) = PERSON;
        self.claims_browser
            && self.pages >= pages
            && self.assets >= assets
            && f64::from(self.site_assets) >= site_share * f64::from(self.assets)
    }
}

type ClientName = (IpAddr, Vec<u8>);

/// Replays the log with both sides; without `against` everything is allowed there.
pub(crate) fn try_out(
    candidate: Side<'_>,
    against: Option<Side<'_>>,
    log: &[PathBuf],
    hours: u32,
    route: &str,
) -> anyhow::Result<Trial> {
    let log = if log.is_empty() { logs_of(candidate.config)? } else { log.to_vec() };
    let mut before: Vec<(Action, bool)> = Vec::new();
    if let Some(against) = against {
        let exempt = exempt_rules(against.config);
        replay(against, &log, hours, |client, seen| {
            let decision = client.decide(&seen.request, route, seen.now);
            before.push((decision.action, exempt.iter().any(|name| name == decision.rule)));
            Ok(())
        })?;
    }
    let mut trial = Trial::default();
    let mut tallies: HashMap<ClientName, Tally> = HashMap::new();
    let mut at = 0;
    replay(candidate, &log, hours, |client, seen| {
        let decision = client.decide(&seen.request, route, seen.now);
        let (was, was_exempt) = before.get(at).copied().unwrap_or((Action::Allow, false));
        at += 1;
        let agent = seen.record.user_agent.as_deref().unwrap_or_default().to_vec();
        let tally = tallies.entry((seen.record.ip, agent)).or_default();
        tally.see(seen);
        tally.against.add(was);
        tally.candidate.add(decision.action);
        trial.requests += 1;
        trial.against.requests.add(was);
        trial.candidate.requests.add(decision.action);
        match (holds_up(was), holds_up(decision.action)) {
            (false, true) => {
                trial.newly_held_requests += 1;
                trial.newly_held_exempt_requests += u64::from(was_exempt);
                tally.newly_held += 1;
                *tally.rules.entry(decision.rule.to_owned()).or_default() += 1;
            }
            (true, false) => tally.newly_let_through += 1,
            _ => {}
        }
        Ok(())
    })?;
    let verified = Verified::open(candidate.config);
    trial.finish(tallies, verified);
    Ok(trial)
}

fn holds_up(action: Action) -> bool {
    matches!(action, Action::Block | Action::Challenge | Action::RateLimitKey)
}

/// Names of the rules that exempt.
fn exempt_rules(config: &Config) -> Vec<String> {
    let own = config.policies.iter().flat_map(|policy| policy.exempt.iter().map(|rule| rule.name.clone()));
    own.chain(["acme challenge".to_owned(), "robots.txt".to_owned()]).collect()
}

impl Trial {
    fn finish(&mut self, tallies: HashMap<ClientName, Tally>, mut verified: Option<Verified>) {
        self.clients = tallies.len() as u64;
        self.newly_held_verified_crawlers = verified.as_ref().map(|_| 0);
        let mut newly = Vec::new();
        for ((ip, agent), tally) in tallies {
            for (counted, held) in
                [(&mut self.against, &tally.against), (&mut self.candidate, &tally.candidate)]
            {
                counted.clients.block += u64::from(held.block > 0);
                counted.clients.challenge += u64::from(held.challenge > 0);
                counted.clients.rate_limit_key += u64::from(held.rate_limit_key > 0);
            }
            self.newly_let_through_clients += u64::from(tally.newly_let_through > 0);
            if tally.newly_held == 0 {
                continue;
            }
            let is_person = tally.is_person();
            let is_verified = verified.as_mut().is_some_and(|verified| verified.is(ip, &agent));
            self.newly_held_clients += 1;
            self.newly_held_people += u64::from(is_person);
            if let Some(count) = &mut self.newly_held_verified_crawlers {
                *count += u64::from(is_verified);
            }
            let rule = tally.rules.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(*name)));
            newly.push(Newly {
                ip: ip.to_string(),
                user_agent: shown(&agent),
                requests: tally.requests,
                held: tally.newly_held,
                rule: rule.map(|(name, _)| name.clone()).unwrap_or_default(),
                is_person,
                is_verified_crawler: is_verified,
            });
        }
        newly.sort_by(|a, b| (b.held, &a.ip, &a.user_agent).cmp(&(a.held, &b.ip, &b.user_agent)));
        newly.truncate(SHOWN);
        self.largest = newly;
    }
}

/// The start of a text that clients chose, without what a terminal would obey.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..SHOWN_BYTES).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn logs_of(config: &Config) -> anyhow::Result<Vec<PathBuf>> {
    let found = config.origins.iter().find_map(|origin| match &origin.kind {
        OriginKind::AccessLog(log) => Some(log.paths.look()),
        _ => None,
    });
    let (paths, wrong) =
        found.context("the configuration has no [[origin.access_log]]; name a log with --log")?;
    anyhow::ensure!(!paths.is_empty(), "no log is there: {}", wrong.join("; "));
    Ok(paths)
}

/// Replays the log with one side's features, models and policies, and passes the requests of its last hours.
fn replay(
    side: Side<'_>,
    log: &[PathBuf],
    hours: u32,
    mut on: impl FnMut(&mut Client, &Seen<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Side { config, models } = side;
    let mut plan = Plan::of(config, Wanted::Files)?;
    // A replay takes as long as it takes.
    plan.schema.max_heartbeat_age_seconds = 0;
    let options = ReplayOptions { lateness_ms: plan.aggregate.lateness_ms, ..ReplayOptions::default() };
    let names = log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(" ");
    let replay =
        Replay::open_all(log, plan.parser.clone(), options).with_context(|| format!("the log {names}"))?;
    anyhow::ensure!(
        replay.summary().requests > 0,
        "the log {names}: no line of it is a request in the combined format or nginx's JSON"
    );
    let from_ms = replay.summary().last_ms.saturating_sub(u64::from(hours) * 3_600_000);
    let read = if models.is_none() { models_of(config)? } else { None };
    let policies: PolicySet = set_of(config);
    let published = Published { models: models.or(read.as_ref()), policies: Some(&policies) };
    walk(
        &plan,
        &replay,
        published,
        |client, seen| {
            if seen.record.time_ms >= from_ms { on(client, seen) } else { Ok(()) }
        },
    )
    .map_err(output::closed)?;
    Ok(())
}

fn models_of(config: &Config) -> anyhow::Result<Option<ModelSet>> {
    if config.uses_default_model {
        let prepared = prepare(DEFAULT_MODEL, &bliss_catboost::BotOptions::default(), false)?;
        return Ok(Some(ModelSet::of_one(prepared.named("default", "1"))));
    }
    let mut set = ModelSet { models: Vec::new(), routes: model_files::routes(config) };
    for model in &config.models {
        let bytes = std::fs::read(&model.path)
            .with_context(|| format!("model `{}`: {}", model.name, model.path.display()))?;
        let prepared =
            prepare(&bytes, &model.bot, false).with_context(|| format!("model `{}`", model.name))?;
        set.models.push(prepared.named(&model.name, &model.version));
    }
    Ok((!set.models.is_empty()).then_some(set))
}

/// What the daemon's publication says of crawlers now.
struct Verified {
    client: Client,
    /// The place of `crawler.state` among the features.
    column: usize,
}

impl Verified {
    fn open(config: &Config) -> Option<Self> {
        let mut column = 0;
        let mut found = None;
        for dimension in &config.schema.dimensions {
            for feature in &dimension.features {
                if dimension.name == "crawler" && feature.name == "state" {
                    found = Some(column);
                }
                column += 1;
            }
        }
        let is_there = Path::new(&config.directory).join("features_state").exists();
        let client = is_there.then(|| Client::open(&config.directory).ok()).flatten()?;
        Some(Self { client, column: found? })
    }

    fn is(&mut self, ip: IpAddr, agent: &[u8]) -> bool {
        let Ok(id) = self.client.names().http() else { return false };
        let bytes: &[u8] = match &ip {
            IpAddr::V4(ip) => &ip.octets(),
            IpAddr::V6(ip) => &ip.octets(),
        };
        let mut request = Request::new();
        let http = bliss_core::http::HttpRequest {
            ip: Some(bliss_core::attribute::Value::Binary(bytes)),
            user_agent: Some(agent),
            ..bliss_core::http::HttpRequest::default()
        };
        request.set_http(&id, http);
        let now = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or(u32::MAX);
        let Ok((values, _)) = self.client.look_up(&request, now) else { return false };
        values.get(self.column) == Some(&f32::from(CrawlerState::Verified as u8))
    }
}

#[cfg(test)]
mod tests;
