//! Lists of networks from files and web servers, laid over each other as the columns of one dimension.

pub(super) mod follow;
mod once;
pub(super) mod resolve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bliss_core::build::{Change, DimensionChange};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use toml::Spanned;

use super::http::Server;
use super::retry::Backoff;
use super::{Context, Outcome, Target};
use crate::config::defaults::{max_decoded_bytes, max_line_bytes, min_rows, seconds, warn_shrink};
use crate::decode::{Accepted, Given};
use crate::lists::{HostBits, Layer, ListDecoder, ListFormat, overlay};
use crate::refusal::{Reason, Refusal};

pub(crate) use once::Wanted;

/// Lists of networks, each a feature of one dimension that is found by the longest prefix: 1 for the addresses in the list, else 0. The
/// dimension needs no declaration unless there are `columns`. docs/lists.md has the formats.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    name: Spanned<String>,
    /// What the lists fill; by default the dimension with the name of the origin.
    dimension: Option<Spanned<String>>,
    /// Each is read for itself, and keeps its last good version. It has `feature`, or `columns` where its networks have fields, and:
    /// path or url: where it is; headers, redirect_to and proxy as above.
    /// format: "text" (an address, a network or a range in a line, or ipset save), "json" (ranges of crawlers and clouds), "mmdb"
    /// (a MaxMind DB file) or "location" (Debian's libloc-database); by default what the path ends in: .json, .mmdb, .db, else text.
    /// columns: features by the fields they are taken from, such as { country = "country.iso_code" }.
    /// rules, field: where `feature` is of a format with fields, it is 1 where the field, by default the name of the autonomous
    /// system, is one of these rules, by default those for hosters; a file in TOML.
    /// members: for json, the members of the document that hold networks.
    /// host_bits: whether to "refuse" a list with bits set beyond a network's length, or to "mask" them.
    /// interval ("1m" for files, "1h" for servers), timeout ("1m"): how often to look, and how long that may take.
    /// min_rows (1), max_shrink (0.5): a list with fewer networks, or that lost more than this share of them, is refused.
    /// max_unchanged ("30days" for servers; "0s": never): a list that has not changed for longer is told in the log and in /status.
    /// max_bytes (128 MiB), max_line_bytes, max_decoded_bytes, max_rows: as for files, 36 bytes a network of IPv4, 96 of IPv6.
    #[cfg_attr(test, serde(skip_serializing))]
    source: Vec<SourceOptions>,
}

/// A list of an origin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceOptions {
    pub(super) feature: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) columns: BTreeMap<Spanned<String>, String>,
    pub(super) path: Option<PathBuf>,
    pub(super) url: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    pub(super) redirect_to: Vec<Spanned<String>>,
    pub(super) proxy: Option<Spanned<String>>,
    pub(super) format: Option<ListFormat>,
    pub(super) rules: Option<Spanned<PathBuf>>,
    pub(super) field: Option<String>,
    #[serde(default)]
    pub(super) members: Vec<String>,
    #[serde(default)]
    pub(super) host_bits: HostBits,
    #[serde(default, with = "humantime_serde")]
    pub(super) interval: Option<Duration>,
    #[serde(default = "seconds::<60>", with = "humantime_serde")]
    pub(super) timeout: Duration,
    #[serde(default = "min_rows")]
    pub(super) min_rows: u64,
    #[serde(default = "warn_shrink")]
    pub(super) max_shrink: f64,
    #[serde(default, with = "humantime_serde")]
    pub(super) max_unchanged: Option<Duration>,
    #[serde(default = "max_list_bytes")]
    pub(super) max_bytes: u64,
    #[serde(default = "max_line_bytes")]
    pub(super) max_line_bytes: u64,
    #[serde(default = "max_decoded_bytes")]
    pub(super) max_decoded_bytes: u64,
    pub(super) max_rows: Option<u64>,
}

/// A database is in memory as a whole while it is read.
pub(super) fn max_list_bytes() -> u64 {
    128 << 20
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"
#name = "lists"
#dimension = "lists"
#source = [
#{ feature = "hosting", path = "/usr/share/libloc-location/location.db", interval = "1h" },
#{ feature = "tor", url = "https://lists.example/tor.netset", interval = "30m", max_unchanged = "2days" },
#{ feature = "vpn", path = "vpn.netset", max_shrink = 0.2, min_rows = 1000 },
#{ feature = "googlebot", url = "https://crawlers.example/googlebot.json" },
#{ columns = { country = "country.iso_code", in_eu = "country.is_in_european_union" }, path = "country.mmdb" },
#]

#[[dimension]]
#name = "lists"
#key = ["ip"]
#match = "longest_prefix"
#max_age = "0s"
#features = [
#{ name = "hosting" }, { name = "tor" }, { name = "vpn" }, { name = "googlebot" },
#{ name = "country", type = "category" }, { name = "in_eu" },
#]
"#;

/// `[[origin.list]]`, resolved.
#[derive(Clone, Debug)]
pub struct List {
    /// Its lists.
    pub sources: Vec<Source>,
    /// The `max_age` of its dimension; zero: never.
    pub max_age: Duration,
}

/// A list, and where it is.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in logs, metrics and `/status`: the features that it fills.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// What reads it.
    pub decoder: ListDecoder,
    /// How often to look.
    pub interval: Duration,
    /// A list that lost more than this share of its networks is refused.
    pub max_shrink: f64,
    /// A list that has not changed for longer is told.
    pub max_unchanged: Option<Duration>,
}

/// Where a list is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A web server.
    Server(Box<Server>),
}

impl List {
    /// The files that it reads.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.sources.iter().filter_map(|source| match &source.place {
            Place::File(path) => Some(path),
            Place::Server(_) => None,
        })
    }
}

/// What is known of each list.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Its last good version.
    pub(super) layer: Option<Arc<Layer>>,
    /// When it was last found to be good, in seconds since the epoch.
    confirmed_at: u32,
    /// Whether it was looked at.
    was_looked_at: bool,
    /// Whether the last look found it good.
    pub(super) is_good: bool,
}

/// The lists of an origin, which follow their places, and what lays them over each other.
#[derive(Debug)]
pub(super) struct Shared {
    slots: Mutex<(Vec<Slot>, u64)>,
    pub(super) changed: Notify,
}

impl Shared {
    /// For so many lists.
    pub(super) fn new(lists: usize) -> Self {
        Self { slots: Mutex::new((vec![Slot::default(); lists], 1)), changed: Notify::new() }
    }

    /// Changes the slot of a list; `is_new` if there is something to publish.
    fn update(&self, list: usize, is_new: bool, change: impl FnOnce(&mut Slot)) {
        let mut held = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let (slots, version) = &mut *held;
        let Some(slot) = slots.get_mut(list) else { return };
        let is_first = !slot.was_looked_at;
        change(slot);
        slot.was_looked_at = true;
        *version += u64::from(is_new);
        if is_new || is_first {
            self.changed.notify_one();
        }
    }

    /// All slots, and a number that grows with each change of them.
    pub(super) fn slots(&self) -> (Vec<Slot>, u64) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl super::Kind for List {
    async fn run(&self, context: Context, target: Target<'_>) -> anyhow::Result<()> {
        let shared = Arc::new(Shared::new(self.sources.len()));
        let mut following = JoinSet::new();
        for (index, source) in self.sources.iter().enumerate() {
            let mut source = source.clone();
            source.decoder = source.decoder.for_directory(target.directory);
            following.spawn(follow::run(index, source, context.clone(), shared.clone()));
        }
        tokio::select! {
            published = self.publish(&context, target, &shared) => published,
            Some(ended) = following.join_next() => match ended {
                // The daemon ends.
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(panic.into()),
            },
        }
    }
}

impl List {
    /// Publishes what lists change, until the daemon ends.
    async fn publish(&self, context: &Context, target: Target<'_>, shared: &Shared) -> anyhow::Result<()> {
        let Some(&dimension) = target.origin.dimensions.first() else { return Ok(()) };
        let Some(of) = target.schema.dimensions.get(dimension) else { return Ok(()) };
        let defaults: Arc<[f32]> = of.features.iter().map(|feature| feature.default).collect();
        let given = Given { dimension, has_features: !defaults.is_empty(), ..Given::default() };
        // What a previous daemon published has lists that this one may not have read yet.
        let before = context.state.dimension_rows(&[given]).first().copied().flatten().unwrap_or(0);
        let refresh = if self.max_age.is_zero() { Duration::MAX } else { self.max_age / 4 };
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut published: Option<(u64, u32)> = None;
        let mut wait = Duration::MAX;
        loop {
            tokio::select! {
                () = context.stop.cancelled() => return Ok(()),
                () = shared.changed.notified() => (),
                () = tokio::time::sleep(wait.min(refresh).min(Duration::from_secs(3600))) => (),
            }
            let (slots, version) = shared.slots();
            let layers: Vec<_> = slots.iter().filter_map(|slot| slot.layer.clone()).collect();
            let may_be_partial = published.is_some() || before == 0;
            let is_complete =
                layers.len() == slots.len() || may_be_partial && slots.iter().all(|slot| slot.was_looked_at);
            if layers.is_empty() || !is_complete {
                continue;
            }
            let with_rows = slots.iter().filter(|slot| slot.layer.is_some());
            let confirmed_at = with_rows.map(|slot| slot.confirmed_at).min().unwrap_or_default();
            let is_old = |at: u32| {
                !self.max_age.is_zero()
                    && u64::from(confirmed_at.saturating_sub(at)) * 4 > self.max_age.as_secs()
            };
            if published.is_some_and(|(held, at)| held == version && !is_old(at)) {
                continue;
            }
            let (values, count) = (defaults.clone(), layers.len() as u64);
            let built = tokio::task::spawn_blocking(move || {
                let layers: Vec<&Layer> = layers.iter().map(|layer| &**layer).collect();
                overlay(&layers, &values, confirmed_at)
            });
            let built = match built.await {
                Ok(Ok(built)) => Ok(built),
                Ok(Err(error)) => Err(error.to_string()),
                Err(panic) => Err(panic.to_string()),
            };
            let accepted = built.map(|built| {
                let rows = built.len() as u64;
                Accepted {
                    given: vec![Given { rows, values: rows * count, ..given }],
                    change: Change { dimensions: vec![(dimension, DimensionChange::Prefixes(built))] },
                    rows,
                    key_collisions: 0,
                    newest_updated_at: confirmed_at,
                }
            });
            let accepted = accepted.map_err(|error| {
                Refusal::new(Reason::Unpublished, format!("lists cannot be laid over each other: {error}"))
            });
            wait = match context.conclude(accepted, warn_shrink()).await {
                Outcome::Published => {
                    published = Some((version, confirmed_at));
                    backoff.succeeded();
                    context.state.lists_published(context.index);
                    Duration::MAX
                }
                _ => backoff.failed(),
            };
        }
    }
}

/// Seconds since the epoch, as rows have them.
fn seconds_of(time: Timestamp) -> u32 {
    u32::try_from(time.as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
