//! The dimensions that come with BLISS.

use bliss_core::schema::{Dimension, Feature, KeyPart};

use super::features::Measure;
use super::windows::{WEEK, WINDOWS};

/// Names of the dimensions that come with BLISS.
pub const BUILT_IN_DIMENSIONS: [&str; 7] =
    ["ip", "subnet", "user_agent", "ip_user_agent", "subnet16", "path", "browser"];

/// How long rows of the built-in dimensions are fresh. A row is written only when it changes, which may be weeks apart, so this
/// is longer than anything is remembered.
const BUILT_IN_MAX_AGE_SECONDS: u32 = 31 * 24 * 3600;

/// The key of a dimension that comes with BLISS.
fn built_in_key(name: &str) -> Option<Vec<KeyPart>> {
    Some(match name {
        "ip" => vec![KeyPart::whole("ip")],
        "subnet" => vec![KeyPart::subnet("ip", 24, 48)],
        "subnet16" => vec![KeyPart::subnet("ip", 16, 32)],
        "user_agent" => vec![KeyPart::whole("user_agent")],
        "ip_user_agent" => vec![KeyPart::whole("ip"), KeyPart::whole("user_agent")],
        "path" => vec![KeyPart::whole("path")],
        "browser" => vec![KeyPart::whole("browser")],
        _ => return None,
    })
}

/// A dimension that comes with BLISS, with what it remembers over hours and days, unless the configuration declares one of the
/// same name.
pub fn built_in_dimension(name: &str) -> Option<Dimension> {
    // By name with the default, and the most that is counted.
    let none = f32::INFINITY;
    let features: &[(&str, f32, f32)] = match name {
        "ip" => &[
            ("robots_1d", 0.0, none),
            ("asset_share_h12h", -1.0, none),
            ("error_share_session", -1.0, none),
            ("post_share_session", -1.0, none),
            ("requests_session", 0.0, 1024.0),
        ],
        "subnet" => &[
            ("asset_share_h1d", -1.0, none),
            ("no_referrer_page_share_h1d", -1.0, none),
            ("error_share_h1d", -1.0, none),
            ("unique_ips_7d", 0.0, 64.0),
        ],
        "subnet16" => &[("unique_ips_7d", 0.0, 512.0)],
        "user_agent" => &[
            ("asset_share_h7d", -1.0, none),
            ("no_referrer_page_share_h7d", -1.0, none),
            ("robots_share_h7d", -1.0, none),
            ("error_share_h7d", -1.0, none),
            ("requests_per_ip_h7d", 0.0, 1024.0),
            ("ip_share_7d", 0.0, 1.0),
            ("age_30d", 0.0, none),
        ],
        "ip_user_agent" => &[
            ("referrer_share_session", -1.0, none),
            ("asset_share_session", -1.0, none),
            ("requests_session", 0.0, 1024.0),
        ],
        "path" => &[
            ("unique_ips_7d", 0.0, 64.0),
            ("error_share_h7d", -1.0, none),
            ("referrer_share_h7d", -1.0, none),
            ("site_referrer_share_h7d", -1.0, none),
        ],
        "browser" => &[
            ("asset_share_h7d", -1.0, none),
            ("no_referrer_page_share_h7d", -1.0, none),
            ("ip_share_7d", 0.0, 1.0),
            ("staleness_7d", -99.0, none),
        ],
        _ => return None,
    };
    let feature = |(name, default, max): &(&str, f32, f32)| Feature {
        default: *default,
        max: max.is_finite().then_some(*max),
        ..Feature::number(name)
    };
    Some(Dimension {
        name: name.to_owned(),
        key: built_in_key(name)?,
        max_age_seconds: BUILT_IN_MAX_AGE_SECONDS,
        on_stale: Default::default(),
        features: features.iter().map(feature).collect(),
    })
}

/// The dimensions that come with BLISS and are counted in windows of a minute, five minutes and an hour too.
pub const WINDOWED_DIMENSIONS: [&str; 4] = ["ip", "subnet", "user_agent", "ip_user_agent"];

/// What a dimension that comes with BLISS counts in windows of a minute, five minutes and an hour, for rates and limits.
pub fn windowed_dimension(name: &str) -> Option<Dimension> {
    use Measure::*;
    let without: &[Measure] = match name {
        "ip" => &[UniqueIps],
        "subnet" => &[],
        "user_agent" => &[UniqueUserAgents],
        "ip_user_agent" => &[UniqueIps, UniqueUserAgents],
        _ => return None,
    };
    let measures = || Measure::ALL.into_iter().filter(|measure| !without.contains(measure));
    let features = WINDOWS.iter().take(WEEK).flat_map(|window| {
        measures().map(|measure| Feature {
            default: measure.default_value(window),
            ..Feature::number(&format!("{}_{}", measure.name(), window.name))
        })
    });
    Some(Dimension {
        name: name.to_owned(),
        key: built_in_key(name)?,
        // A row may change an hour after the last request only, when it leaves the longest window.
        max_age_seconds: 2 * 3600,
        on_stale: Default::default(),
        features: features.collect(),
    })
}

/// A dimension that comes with BLISS, with windows and what it remembers.
pub fn full_dimension(name: &str) -> Option<Dimension> {
    let remembered = built_in_dimension(name)?;
    let windowed = windowed_dimension(name).into_iter().flat_map(|windowed| windowed.features);
    Some(Dimension { features: windowed.chain(remembered.features).collect(), ..remembered })
}

#[cfg(test)]
mod tests {
    use super::super::features::Column;
    use super::*;

    #[test]
    fn built_in_dimensions_are_a_valid_schema_that_the_log_can_fill() {
        let of = |dimension: fn(&str) -> Option<Dimension>| {
            BUILT_IN_DIMENSIONS.iter().filter_map(move |name| dimension(name)).collect::<Vec<_>>()
        };
        let kinds: [(_, &[usize]); 3] = [
            (of(built_in_dimension), &[5, 4, 7, 3, 1, 4, 4]),
            (of(windowed_dimension), &[33, 36, 33, 30]),
            (of(full_dimension), &[38, 40, 40, 33, 1, 4, 4]),
        ];
        for (dimensions, expected) in kinds {
            let widths: Vec<_> = dimensions.iter().map(|dimension| dimension.features.len()).collect();
            assert_eq!(widths, expected);
            for feature in dimensions.iter().flat_map(|dimension| &dimension.features) {
                assert!(Column::new(feature).is_some(), "{}", feature.name);
            }
            bliss_core::schema::Schema { dimensions, ..Default::default() }.validate().unwrap();
        }
    }
}
