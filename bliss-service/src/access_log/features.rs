//! The features that an access log gives, and the dimensions that come with BLISS.
//!
//! A feature is named `MEASURE_WINDOW`, for instance `unique_paths_5m`, or `MEASURE_SPAN`, for instance `asset_share_h7d`; any
//! declared dimension whose key is made of `ip`, `user_agent`, `browser`, `path`, `method`, `host` or `referrer` may have any of them.
//!
//! A request that a decision of ours answered says nothing about what the client would have got and asked for next: it counts in
//! no measure, so that a client is not kept blocked by having been blocked.

use bliss_core::attribute::Value;
use bliss_core::http::{RequestValue, engine_of, is_asset};
use bliss_core::schema::{Feature, FeatureKind};

pub use super::built_in::{
    BUILT_IN_DIMENSIONS, WINDOWED_DIMENSIONS, built_in_dimension, full_dimension, windowed_dimension,
};

use super::distinct::{self, ValueHash};
use super::memory::{Memory, MemoryPlan, Share, Span};
use super::parse::Record;
use super::windows::{DistinctWanted, Hit, Totals, WEEK, WINDOWS, Window};

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
    what: What,
    /// The value where too few requests count.
    default: f32,
    /// The value is at most this.
    max: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// In a window, by its index in [`WINDOWS`].
    Window(Measure, usize),
    Share(Share, Span),
    Requests(Span),
    RequestsPerIp(Span),
    /// Of all addresses of the site the share that has this key.
    IpShare,
    Age,
    Staleness,
    Robots,
}

/// What a column's value is made of.
pub(crate) struct Known<'a> {
    pub(crate) totals: &'a [Totals; WINDOWS.len()],
    pub(crate) plan: &'a MemoryPlan,
    pub(crate) memory: &'a Memory,
    /// How many versions the browser of the key is behind.
    pub(crate) staleness: Option<f32>,
    /// How many addresses the site has.
    pub(crate) site_ips: usize,
}

impl Column {
    /// The column that computes `feature`, or `None` where the name is no feature's.
    pub(crate) fn new(feature: &Feature) -> Option<Self> {
        let what = What::of(&feature.name)?;
        let max = feature.max.unwrap_or(f32::INFINITY);
        (feature.kind == FeatureKind::F32).then_some(Self { what, default: feature.default, max })
    }

    pub(crate) fn value(&self, known: &Known<'_>) -> f32 {
        let counts = |span| known.memory.counts(known.plan, span);
        let week_ips = || known.totals[WEEK].ips.max(1) as f32;
        let value = match self.what {
            What::Window(measure, window) => measure.value(&known.totals[window], self.default),
            What::Share(share, span) => counts(span).share(share).unwrap_or(self.default),
            What::Requests(span) => counts(span).requests,
            What::RequestsPerIp(span) => counts(span).requests / week_ips(),
            What::IpShare => week_ips() / known.site_ips.max(1) as f32,
            What::Age => known.memory.age_seconds(),
            What::Staleness => known.staleness.unwrap_or(self.default),
            What::Robots => f32::from(u8::from(known.memory.asked_for_robots())),
        };
        value.min(self.max)
    }
}

impl What {
    fn of(name: &str) -> Option<Self> {
        match name {
            "ip_share_7d" => return Some(Self::IpShare),
            "age_30d" => return Some(Self::Age),
            "staleness_7d" => return Some(Self::Staleness),
            "robots_1d" => return Some(Self::Robots),
            _ => {}
        }
        let (measure, suffix) = name.rsplit_once('_')?;
        if let Some(span) = Span::of(suffix) {
            let share = Share::ALL.into_iter().find(|(known, _)| *known == measure);
            return match (share, measure) {
                (Some((_, share)), _) => Some(Self::Share(share, span)),
                (None, "requests") => Some(Self::Requests(span)),
                (None, "requests_per_ip") => Some(Self::RequestsPerIp(span)),
                _ => None,
            };
        }
        let measure = Measure::ALL.into_iter().find(|known| known.name() == measure)?;
        let window = WINDOWS.iter().position(|known| known.name == suffix)?;
        Some(Self::Window(measure, window))
    }
}

impl Measure {
    fn value(self, totals: &Totals, default: f32) -> f32 {
        let ratio = |part: u64| {
            if totals.requests == 0 { default } else { (part as f64 / totals.requests as f64) as f32 }
        };
        match self {
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
            Measure::SecondsBetweenRequests if totals.requests < 2 => default,
            Measure::SecondsBetweenRequests => {
                let span = totals.last_ms.saturating_sub(totals.first_ms) as f64 / 1000.0;
                (span / (totals.requests - 1) as f64) as f32
            }
        }
    }
}

/// What must be kept for the columns of a dimension.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Which windows are counted.
    pub(crate) windows: [bool; WINDOWS.len()],
    /// Which distinct values in them.
    pub(crate) distinct: [DistinctWanted; WINDOWS.len()],
    pub(crate) memory: MemoryPlan,
    /// Whether browsers' versions are compared with those of others.
    pub(crate) staleness: bool,
    /// Whether the site's addresses are counted.
    pub(crate) site_ips: bool,
}

impl Wanted {
    pub(crate) fn by(columns: &[Column]) -> Self {
        let mut wanted = Self::default();
        for column in columns {
            match column.what {
                What::Window(measure, window) => {
                    wanted.windows[window] = true;
                    let distinct = &mut wanted.distinct[window];
                    match measure {
                        Measure::UniqueIps => distinct.ips = true,
                        Measure::UniqueUserAgents => distinct.user_agents = true,
                        Measure::UniquePaths => distinct.paths = true,
                        _ => (),
                    }
                }
                What::Share(_, span) | What::Requests(span) => wanted.memory.want(span),
                What::RequestsPerIp(span) => {
                    wanted.memory.want(span);
                    wanted.want_week_ips();
                }
                What::IpShare => {
                    wanted.want_week_ips();
                    wanted.site_ips = true;
                }
                What::Age => wanted.memory.want_age(),
                What::Staleness => wanted.staleness = true,
                What::Robots => wanted.memory.want_robots(),
            }
        }
        wanted
    }

    fn want_week_ips(&mut self) {
        self.windows[WEEK] = true;
        self.distinct[WEEK].ips = true;
    }

    /// How far back requests count, in milliseconds.
    pub(crate) fn reach_ms(&self) -> u64 {
        let windows = WINDOWS.iter().zip(self.windows).filter(|(_, wanted)| *wanted);
        let longest = windows.map(|(window, _)| u64::from(window.seconds) * 1000).max().unwrap_or(0);
        longest.max(self.memory.kept_ms())
    }
}

/// The value of attribute `name` in a log line; `ip` is its address in bytes, for the value to borrow.
pub fn attribute<'a>(record: &'a Record<'_>, ip: &'a [u8], name: &str) -> Option<Value<'a>> {
    let filled = |bytes: &'a [u8]| (!bytes.is_empty()).then_some(Value::Text(bytes));
    match name {
        "ip" => Some(Value::Binary(ip)),
        // Of `browser` and `crawler` it is the user agent too: the key is made of what it claims.
        "user_agent" | "browser" | "crawler" => record.user_agent.as_deref().map(Value::Text),
        "referrer" => record.referrer.as_deref().map(Value::Text),
        "host" => record.host.as_deref().map(Value::Text),
        "scheme" => record.told.scheme.as_deref().map(Value::Text),
        "method" => filled(&record.method),
        "path" => filled(&record.path),
        _ => None,
    }
}

/// The attributes that a log line has.
pub const ATTRIBUTES: [&str; 9] =
    ["ip", "user_agent", "browser", "crawler", "path", "method", "host", "scheme", "referrer"];

/// What one line adds to the windows.
pub(crate) fn hit(
    record: &Record<'_>,
    ip: &[u8],
    values: &ValueHash,
    is_site: impl Fn(&[u8]) -> Option<bool>,
) -> Hit {
    let site_referrer = RequestValue::SiteReferrer;
    let of_request = record.http(ip).values(site_referrer.bit(), is_site)[site_referrer.index()];
    Hit {
        time_ms: record.time_ms,
        error: (400..500).contains(&record.status) && !matches!(record.status, 403 | 429),
        referrer_told: record.told.referrer,
        site_referrer: (!of_request.is_nan()).then_some(of_request > 0.0),
        post: record.method.as_ref() == b"POST",
        browser: record.user_agent.as_deref().and_then(engine_of),
        network: distinct::network(record.ip),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measure_and_window_or_span_make_a_feature() {
        for name in [
            "asset_share",
            "asset_share_7d",
            "asset_ratio_h7d",
            "session",
            "age",
            "age_7d",
            "requests",
            "requests_2m",
            "_1m",
            "bytes_1m",
            "requests_1m_1m",
        ] {
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

    /// Ours or not, a refusal is no error of the client's, and neither is what the server fails at.
    #[test]
    fn d3_refusals_and_failures_of_the_server_are_no_errors() {
        let parser = crate::access_log::parse::Parser::default();
        let is_error = |status: u16| {
            let line = format!(
                "192.0.2.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" {status} 1 \"-\" \"a\""
            );
            hit(&parser.parse(line.as_bytes()).unwrap(), &[192, 0, 2, 1], &ValueHash::fixed(), |_| None).error
        };
        let errors: Vec<u16> = (200..600).filter(|status| is_error(*status)).collect();
        let expected: Vec<u16> = (400..500).filter(|status| ![403, 429].contains(status)).collect();
        assert_eq!(errors, expected);
    }

    #[test]
    fn measures_of_known_totals() {
        let totals = Totals {
            requests: 4,
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
        let value = |measure: Measure, totals| measure.value(totals, 60.0);
        let values = Measure::ALL.map(|measure| value(measure, &totals));
        assert_eq!(values, [4.0, 2.0, 3.0, 1.0, 0.75, 0.25, 0.5, 0.5, 0.75, 0.0, 1.0, 3.0]);
        let one = Totals { requests: 1, ..totals };
        assert_eq!(value(Measure::SecondsBetweenRequests, &one), 60.0);
        assert_eq!(value(Measure::ErrorRatio, &Totals { requests: 0, ..totals }), 60.0);
    }
}
