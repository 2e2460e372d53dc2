//! The features that an access log gives, and the dimensions that come with BLISS.
//!
//! A feature is named `MEASURE_WINDOW`, for instance `unique_paths_5m`; any declared dimension whose key is made
//! of `ip`, `user_agent`, `path`, `method`, `host` or `referrer` may have any of them.
//!
//! A request that a decision of ours answered says nothing about what the client would have got and asked for next: it
//! counts in every measure but the shares, so that a client is not kept blocked by having been blocked.

use bliss_core::attribute::Value;
use bliss_core::http::is_asset;
use bliss_core::schema::{Dimension, Feature, FeatureKind, KeyPart};

use super::distinct::ValueHash;
use super::parse::Record;
use super::windows::{DistinctWanted, Hit, Totals, WINDOWS, Window};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// How many requests there were.
    Requests,
    /// How many different user agents (exact up to 128, about 3 % standard error above, never more than there were requests).
    UniqueUserAgents,
    /// How many different paths.
    UniquePaths,
    /// How many different addresses.
    UniqueIps,
    /// The share of answers with a status of 400 or more: the sum of the next two.
    ErrorRatio,
    /// The share of answers with a status of 400 to 499.
    ClientErrorRatio,
    /// The share of answers with a status of 500 or more.
    ServerErrorRatio,
    /// The share of requests for what pages are made of: images, styles, scripts, fonts, media.
    AssetRatio,
    /// The share of requests with a referrer.
    ReferrerRatio,
    /// The share of HEAD requests.
    HeadRatio,
    /// How many requests for `/robots.txt`.
    RobotsTxtRequests,
    /// The mean time between two requests in seconds; its default is the window's length.
    SecondsBetweenRequests,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Measure; 12] = [
        Measure::Requests,
        Measure::UniqueUserAgents,
        Measure::UniquePaths,
        Measure::UniqueIps,
        Measure::ErrorRatio,
        Measure::ClientErrorRatio,
        Measure::ServerErrorRatio,
        Measure::AssetRatio,
        Measure::ReferrerRatio,
        Measure::HeadRatio,
        Measure::RobotsTxtRequests,
        Measure::SecondsBetweenRequests,
    ];

    /// The first part of its features' names.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Requests => "requests",
            Measure::UniqueUserAgents => "unique_user_agents",
            Measure::UniquePaths => "unique_paths",
            Measure::UniqueIps => "unique_ips",
            Measure::ErrorRatio => "error_ratio",
            Measure::ClientErrorRatio => "client_error_ratio",
            Measure::ServerErrorRatio => "server_error_ratio",
            Measure::AssetRatio => "asset_ratio",
            Measure::ReferrerRatio => "referrer_ratio",
            Measure::HeadRatio => "head_ratio",
            Measure::RobotsTxtRequests => "robots_txt_requests",
            Measure::SecondsBetweenRequests => "seconds_between_requests",
        }
    }

    /// The value for a key without data.
    pub fn default_value(self, window: &Window) -> f32 {
        match self {
            Measure::SecondsBetweenRequests => window.seconds as f32,
            _ => 0.0,
        }
    }
}

/// One feature of a dimension, ready to be computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) measure: Measure,
    /// Index in [`WINDOWS`].
    pub(crate) window: usize,
    /// The value where the window holds too few requests.
    pub(crate) default: f32,
}

impl Column {
    /// The column that computes `feature`, or `None` where the name is not `MEASURE_WINDOW`.
    pub(crate) fn new(feature: &Feature) -> Option<Self> {
        let (measure, window) = feature.name.rsplit_once('_')?;
        let measure = Measure::ALL.into_iter().find(|known| known.name() == measure)?;
        let window = WINDOWS.iter().position(|known| known.name == window)?;
        (feature.kind == FeatureKind::F32).then_some(Self { measure, window, default: feature.default })
    }

    pub(crate) fn value(&self, totals: &Totals) -> f32 {
        let ratio = |part: u64| {
            if totals.served == 0 { self.default } else { (part as f64 / totals.served as f64) as f32 }
        };
        match self.measure {
            Measure::Requests => totals.requests as f32,
            Measure::UniqueUserAgents => totals.user_agents as f32,
            Measure::UniquePaths => totals.paths as f32,
            Measure::UniqueIps => totals.ips as f32,
            Measure::ErrorRatio => ratio(totals.client_errors + totals.server_errors),
            Measure::ClientErrorRatio => ratio(totals.client_errors),
            Measure::ServerErrorRatio => ratio(totals.server_errors),
            Measure::AssetRatio => ratio(totals.assets),
            Measure::ReferrerRatio => ratio(totals.referrers),
            Measure::HeadRatio => ratio(totals.heads),
            Measure::RobotsTxtRequests => totals.robots_txt as f32,
            Measure::SecondsBetweenRequests if totals.requests < 2 => self.default,
            Measure::SecondsBetweenRequests => {
                let span = totals.last_ms.saturating_sub(totals.first_ms) as f64 / 1000.0;
                (span / (totals.requests - 1) as f64) as f32
            }
        }
    }
}

/// Which distinct counts the columns of each window need.
pub(crate) fn distinct_wanted(columns: &[Column]) -> [DistinctWanted; WINDOWS.len()] {
    let mut wanted = [DistinctWanted::default(); WINDOWS.len()];
    for column in columns {
        let of_window = &mut wanted[column.window];
        match column.measure {
            Measure::UniqueIps => of_window.ips = true,
            Measure::UniqueUserAgents => of_window.user_agents = true,
            Measure::UniquePaths => of_window.paths = true,
            _ => (),
        }
    }
    wanted
}

/// The value of attribute `name` in a log line; `ip` is its address in bytes, for the value to borrow.
pub fn attribute<'a>(record: &'a Record<'_>, ip: &'a [u8], name: &str) -> Option<Value<'a>> {
    let filled = |bytes: &'a [u8]| (!bytes.is_empty()).then_some(Value::Text(bytes));
    match name {
        "ip" => Some(Value::Binary(ip)),
        "user_agent" => record.user_agent.as_deref().map(Value::Text),
        "referrer" => record.referrer.as_deref().map(Value::Text),
        "host" => record.host.as_deref().map(Value::Text),
        "scheme" => record.told.scheme.as_deref().map(Value::Text),
        "method" => filled(&record.method),
        "path" => filled(&record.path),
        _ => None,
    }
}

/// The attributes that a log line has.
pub const ATTRIBUTES: [&str; 7] = ["ip", "user_agent", "path", "method", "host", "scheme", "referrer"];

/// What one line adds to the windows.
pub(crate) fn hit(record: &Record<'_>, ip: &[u8], values: &ValueHash) -> Hit {
    Hit {
        time_ms: record.time_ms,
        own_answer: record.own_answer,
        client_error: (400..500).contains(&record.status),
        server_error: record.status >= 500,
        asset: is_asset(&record.path),
        referrer: record.referrer.is_some(),
        head: record.method.as_ref() == b"HEAD",
        robots_txt: record.path.as_ref() == b"/robots.txt",
        ip: values.hash(ip),
        user_agent: record.user_agent.as_deref().map_or(0, |agent| values.hash(agent)),
        path: values.hash(&record.path),
    }
}

/// Names of the dimensions that come with BLISS.
pub const BUILT_IN_DIMENSIONS: [&str; 4] = ["ip", "subnet", "user_agent", "ip_user_agent"];

/// How long rows of the built-in dimensions are fresh. A row is written only when it changes, which may be an hour
/// apart, so this is longer than the longest window.
const BUILT_IN_MAX_AGE_SECONDS: u32 = 2 * 3600;

/// A dimension that comes with BLISS, unless the configuration declares one of the same name.
pub fn built_in_dimension(name: &str) -> Option<Dimension> {
    use Measure::*;
    let (key, without): (Vec<KeyPart>, &[Measure]) = match name {
        "ip" => (vec![KeyPart::whole("ip")], &[UniqueIps]),
        "subnet" => (vec![KeyPart::subnet("ip", 24, 48)], &[]),
        "user_agent" => (vec![KeyPart::whole("user_agent")], &[UniqueUserAgents]),
        "ip_user_agent" => {
            (vec![KeyPart::whole("ip"), KeyPart::whole("user_agent")], &[UniqueIps, UniqueUserAgents])
        }
        _ => return None,
    };
    let measures = || Measure::ALL.into_iter().filter(|measure| !without.contains(measure));
    let features = WINDOWS.iter().flat_map(|window| {
        measures().map(|measure| Feature {
            default: measure.default_value(window),
            ..Feature::number(&format!("{}_{}", measure.name(), window.name))
        })
    });
    Some(Dimension {
        name: name.to_owned(),
        key,
        max_age_seconds: BUILT_IN_MAX_AGE_SECONDS,
        on_stale: Default::default(),
        features: features.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_dimensions_are_a_valid_schema_that_the_log_can_fill() {
        let dimensions: Vec<_> = BUILT_IN_DIMENSIONS.iter().map(|n| built_in_dimension(n).unwrap()).collect();
        let widths: Vec<_> = dimensions.iter().map(|dimension| dimension.features.len()).collect();
        assert_eq!(widths, [33, 36, 33, 30]);
        for feature in dimensions.iter().flat_map(|dimension| &dimension.features) {
            assert!(Column::new(feature).is_some(), "{}", feature.name);
        }
        bliss_core::schema::Schema { dimensions, ..Default::default() }.validate().unwrap();
    }

    #[test]
    fn only_measure_and_window_make_a_feature() {
        for name in ["requests", "requests_2m", "_1m", "bytes_1m", "requests_1m_1m"] {
            assert!(Column::new(&Feature::number(name)).is_none(), "{name}");
        }
        let category = Feature { kind: FeatureKind::Category, ..Feature::number("requests_1m") };
        assert!(Column::new(&category).is_none());
    }

    #[test]
    fn assets_are_known_by_their_extension() {
        for path in ["/a.css", "/x/Y.PNG", "/f.tar.js"] {
            assert!(is_asset(path.as_bytes()), "{path}");
        }
        for path in ["", "/", "/css", "/a.css/", "/page.html", "/feed.xml", "/robots.txt", "/x.js/y"] {
            assert!(!is_asset(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn measures_of_known_totals() {
        let totals = Totals {
            requests: 5,
            served: 4,
            client_errors: 1,
            server_errors: 2,
            assets: 2,
            referrers: 3,
            heads: 0,
            robots_txt: 1,
            first_ms: 1_000,
            last_ms: 10_000,
            ips: 1,
            user_agents: 2,
            paths: 3,
        };
        let value = |measure, totals| Column { measure, window: 0, default: 60.0 }.value(totals);
        let values = Measure::ALL.map(|measure| value(measure, &totals));
        assert_eq!(values, [5.0, 2.0, 3.0, 1.0, 0.75, 0.25, 0.5, 0.5, 0.75, 0.0, 1.0, 2.25]);
        let one = Totals { requests: 1, ..totals };
        assert_eq!(value(Measure::SecondsBetweenRequests, &one), 60.0);
        assert_eq!(value(Measure::ErrorRatio, &Totals { served: 0, ..totals }), 60.0);
    }
}
