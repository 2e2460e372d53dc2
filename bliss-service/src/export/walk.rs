//! A log gone through request by request, beside publications as a web server's worker would see them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bliss_core::build::{BuiltPrefixes, Change, DimensionChange, ModelSet, PolicySet};
use bliss_core::http::RequestValue;
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, OnStale, Schema};
use bliss_store::{Client, PublishOptions, Publisher};

use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{BUILT_IN_DIMENSIONS, full_dimension};
use crate::access_log::parse::{Parser, Record};
use crate::access_log::replay::{Event, Replay};
use crate::access_log::site::SiteHosts;
use crate::config::Config;
use crate::export::lists::{ListFile, config_of};
use crate::origin::{OriginKind, Wanted};

/// What is computed, and how lines are read.
pub(crate) struct Plan {
    pub(crate) schema: Schema,
    dimensions: Vec<usize>,
    pub(crate) parser: Parser,
    pub(crate) aggregate: AggregateOptions,
    /// Dimensions of lists, by their index in the schema, and what they hold from the first request on.
    lists: Vec<(usize, BuiltPrefixes)>,
}

impl Plan {
    /// Of the access log origin and the lists of a configuration, or with the built-in dimensions; and with more lists.
    pub(crate) fn new(config: Option<&Path>, lists: &[ListFile]) -> anyhow::Result<Self> {
        let mut plan = match config {
            Some(path) => {
                Self::of(&Config::read(path)?, Wanted::All).with_context(|| path.display().to_string())?
            }
            None => Self::built_in(),
        };
        if !lists.is_empty() {
            plan.add_lists(&config_of(lists)?, Wanted::All).context("--list")?;
        }
        Ok(plan)
    }

    fn built_in() -> Self {
        let dimensions = BUILT_IN_DIMENSIONS.iter().filter_map(|name| full_dimension(name)).collect();
        Self {
            schema: Schema { dimensions, ..Schema::default() },
            dimensions: (0..BUILT_IN_DIMENSIONS.len()).collect(),
            parser: Parser::default(),
            aggregate: AggregateOptions { is_replay: true, ..AggregateOptions::default() },
            lists: Vec::new(),
        }
    }

    /// Of the access log origin of a configuration, and of its lists.
    pub(crate) fn of(config: &Config, wanted: Wanted) -> anyhow::Result<Self> {
        let found = config.origins.iter().find_map(|origin| match &origin.kind {
            OriginKind::AccessLog(options) => Some((origin, options)),
            _ => None,
        });
        let Some((origin, options)) = found else {
            anyhow::bail!("there is no [[origin.access_log]] to take features from");
        };
        // Rows of other origins but lists are not in the log: their dimensions are left out.
        let indices = origin.dimensions.iter();
        let dimensions = indices.map(|index| config.schema.dimensions[*index].clone()).collect::<Vec<_>>();
        let mut plan = Self {
            dimensions: (0..dimensions.len()).collect(),
            schema: Schema { dimensions, ..config.schema.clone() },
            parser: options.parser.clone(),
            aggregate: AggregateOptions { is_replay: true, ..options.aggregate },
            lists: Vec::new(),
        };
        plan.add_lists(config, wanted)?;
        Ok(plan)
    }

    /// Adds what the lists of a configuration say of networks now, whenever the log was written.
    fn add_lists(&mut self, config: &Config, wanted: Wanted) -> anyhow::Result<()> {
        for origin in &config.origins {
            let OriginKind::List(list) = &origin.kind else { continue };
            let found = origin.dimensions.first().and_then(|index| config.schema.dimensions.get(*index));
            let Some(dimension) = found else { continue };
            anyhow::ensure!(
                self.schema.dimension_index(&dimension.name).is_none(),
                "the dimension `{}` is there already, from the configuration; name the list in its [[origin.list]]",
                dimension.name
            );
            let rows =
                list.read_once(dimension, wanted).with_context(|| format!("origin `{}`", origin.name))?;
            self.lists.push((self.schema.dimensions.len(), rows));
            // A live list is read again in time; the one that was read now is never stale in the log's time.
            let dimension = Dimension { max_age_seconds: 0, on_stale: OnStale::Use, ..dimension.clone() };
            self.schema.dimensions.push(dimension);
        }
        self.schema.validate()?;
        Ok(())
    }
}

/// What is published beside features.
#[derive(Clone, Copy, Default)]
pub(crate) struct Published<'a> {
    pub(crate) models: Option<&'a ModelSet>,
    pub(crate) policies: Option<&'a PolicySet>,
}

/// A request of the log at its moment.
pub(crate) struct Seen<'a> {
    /// The number of its line.
    pub(crate) line: u64,
    pub(crate) record: &'a Record<'a>,
    /// As a worker would hand it over.
    pub(crate) request: Request<'a>,
    /// What it says by itself, in the order of [`RequestValue::index`].
    pub(crate) values: [f32; RequestValue::ALL.len()],
    /// Its time in seconds since the epoch.
    pub(crate) now: u32,
}

/// Replays the log into a folder of shared memory and passes each request, with the client of that folder, before it counts.
/// Returns how many publications were made.
///
/// # Errors
/// What `on` returned, the file has changed, or there is no room for the publications.
pub(crate) fn walk(
    plan: &Plan,
    replay: &Replay,
    published: Published<'_>,
    mut on: impl FnMut(&mut Client, &Seen<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let directory = Scratch::new()?;
    let publish_options = PublishOptions { grace: Duration::ZERO, ..PublishOptions::default() };
    let mut publisher = Publisher::open(&directory.0, &publish_options, plan.schema.clone())?;
    if let Some(models) = published.models {
        publisher.publish_models(models)?;
    }
    if let Some(policies) = published.policies {
        publisher.publish_policies(policies)?;
    }
    if !plan.lists.is_empty() {
        let lists = plan.lists.iter().map(|(at, rows)| (*at, DimensionChange::Prefixes(rows.clone())));
        publisher.publish(Change { dimensions: lists.collect() })?;
    }
    let mut aggregator = Aggregator::new(&plan.schema, &plan.dimensions, publisher.secret(), plan.aggregate)?;
    let mut client = Client::open(&directory.0)?;
    let http_id = client.names().http()?;
    // What the log teaches of the site's hosts a worker knows from the request.
    let site_referrer = client.names().number(RequestValue::SiteReferrer.name())?;
    let mut hosts = SiteHosts::default();

    let mut publications = 0;
    replay.run::<anyhow::Error>(&mut aggregator, |event| {
        match event {
            Event::Publication { change, .. } => {
                publisher.publish(change)?;
                publications += 1;
            }
            Event::Request { line, record } => {
                let ip: &[u8] = match &record.ip {
                    IpAddr::V4(ip) => &ip.octets(),
                    IpAddr::V6(ip) => &ip.octets(),
                };
                let http = record.http(ip);
                let known = &plan.schema.site_hosts;
                let values = http.values(RequestValue::ALL_BITS, |host| hosts.is_site(known, host));
                let mut request = Request::new();
                request.set_http(&http_id, http);
                request.set_number(site_referrer, values[RequestValue::SiteReferrer.index()]);
                let now = u32::try_from(record.time_ms / 1000).unwrap_or(u32::MAX);
                on(&mut client, &Seen { line, record, request, values, now })?;
                if !record.own_answer {
                    hosts.learn(record);
                }
            }
        }
        Ok(())
    })?;
    Ok(publications)
}

/// A folder for the publications, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        // No two processes share an id; the random part is for what a killed one left behind.
        let random = getrandom::u32().unwrap_or_default();
        let path = parent.join(format!("bliss-features-{}-{random:08x}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
