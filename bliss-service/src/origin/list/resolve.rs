//! From the options of lists to the lists, checked against their dimension.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bliss_core::schema::{Dimension, Feature, FeatureKind, KeyPart, OnStale};
use toml::Spanned;

use super::{List, Options, Place, Source, SourceOptions};
use crate::config::source::ConfigError;
use crate::decode::Limits;
use crate::lists::{Column, ListDecoder, ListFormat, NameRules};
use crate::origin::Resolver;
use crate::origin::http::ServerOptions;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often to look at a file, and to ask a server.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Lists of servers that have not changed for longer are told.
const MAX_UNCHANGED: Duration = Duration::from_secs(30 * 86400);

impl Options {
    pub(in crate::origin) fn resolve(self, resolver: &mut Resolver<'_>) -> Result<(), ConfigError> {
        let Self { name, dimension, source } = self;
        if source.is_empty() {
            return Err(resolver.error(&name, "`source` is empty; name at least one list"));
        }
        if source.iter().any(|source| source.feature.is_some() != source.columns.is_empty()) {
            return Err(resolver
                .error(&name, "a list has neither `feature` nor `columns`, or both; name one of them"));
        }
        let dimension = dimension.unwrap_or_else(|| name.clone());
        // Columns have types, which only a declaration tells.
        if source.iter().all(|source| source.columns.is_empty()) {
            let features = source.iter().filter_map(|source| source.feature.as_ref());
            resolver.declare(&dimension, membership(dimension.get_ref(), features.map(Spanned::get_ref)))?;
        }
        let known = resolver.schema();
        let found =
            known.dimension_index(dimension.get_ref()).and_then(|at| known.dimensions.get(at)).cloned();
        let Some(found) = found else {
            let message =
                "a list has `columns`, which are numbers or categories; declare them in a [[dimension]]";
            return Err(resolver.error(&name, format!("{message} named `{}`", dimension.get_ref())));
        };
        if !found.is_by_prefix() {
            let message = format!("dimension `{}`: lists need match = \"longest_prefix\"", found.name);
            return Err(resolver.error(&name, message));
        }
        let max_age = Duration::from_secs(found.max_age_seconds.into());
        let mut sources: Vec<Source> = Vec::new();
        for options in source {
            let source = options.resolve(resolver, &name, &found)?;
            let mut filled = sources.iter().flat_map(|source| &source.decoder.columns);
            let twice =
                filled.find(|one| source.decoder.columns.iter().any(|other| other.index == one.index));
            if let Some(column) = twice {
                let message = format!("two lists fill `{}`; a feature has one list", column.feature.name);
                return Err(resolver.error(&name, message));
            }
            if !max_age.is_zero() && source.interval * 2 > max_age {
                let message = format!(
                    "list `{}`: it is looked at every {:?}, and rows of `{}` are stale after {max_age:?} (max_age); set an \
                     interval of at most half of it",
                    source.name, source.interval, found.name
                );
                return Err(resolver.error(&name, message));
            }
            sources.push(source);
        }
        let is_filled =
            |at: usize| sources.iter().flat_map(|source| &source.decoder.columns).any(|c| c.index == at);
        if let Some((_, feature)) = found.features.iter().enumerate().find(|(at, _)| !is_filled(*at)) {
            let message = format!("no list fills feature `{}` of dimension `{}`", feature.name, found.name);
            return Err(resolver.error(&name, message));
        }
        resolver.add(&name, &[dimension], List { sources, max_age }).map(drop)
    }
}

/// A dimension of lists alone, whose rows are never stale.
pub(in crate::origin) fn membership<'a>(name: &str, features: impl Iterator<Item = &'a String>) -> Dimension {
    let feature = |name: &String| Feature {
        name: name.clone(),
        kind: FeatureKind::F32,
        default: 0.0,
        min: Some(0.0),
        max: Some(1.0),
    };
    Dimension {
        name: name.to_owned(),
        key: vec![KeyPart {
            attribute: "ip".to_owned(),
            v4_prefix: None,
            v6_prefix: None,
            longest_prefix: true,
        }],
        max_age_seconds: 0,
        on_stale: OnStale::Use,
        features: features.map(feature).collect(),
    }
}

impl SourceOptions {
    pub(in crate::origin) fn resolve(
        self,
        resolver: &Resolver<'_>,
        name: &Spanned<String>,
        dimension: &Dimension,
    ) -> Result<Source, ConfigError> {
        let names: Vec<_> =
            self.feature.iter().chain(self.columns.keys()).map(|name| name.get_ref().clone()).collect();
        let list = names.join(",");
        let wrong = |message: String| resolver.error(name, format!("list `{list}`: {message}"));
        let text = match (&self.path, &self.url) {
            (Some(path), None) => path.to_string_lossy().into_owned(),
            (None, Some(url)) => url.get_ref().split(['?', '#']).next().unwrap_or_default().to_owned(),
            _ => return Err(wrong("expected `path` or `url`, and one of them".to_owned())),
        };
        let format = self.format.unwrap_or_else(|| by_extension(&text));
        let is_ruled = self.feature.is_some() && format.has_fields();
        if !self.columns.is_empty() && !format.has_fields() {
            return Err(wrong(
                "`columns` are taken from fields, which only mmdb and location have".to_owned(),
            ));
        }
        if !is_ruled && (self.rules.is_some() || self.field.is_some()) {
            return Err(wrong("`rules` and `field` are for a `feature` of mmdb or location".to_owned()));
        }
        if !self.members.is_empty() && format != ListFormat::Json {
            return Err(wrong("`members` is for json".to_owned()));
        }
        let rules = if is_ruled { Some(Arc::new(self.rules(resolver, &wrong)?)) } else { None };
        let default_field = match format {
            ListFormat::Location => "as_name",
            _ => "autonomous_system_organization",
        };
        let field = self.field.clone().unwrap_or_else(|| default_field.to_owned());
        let of_feature = self.feature.iter().map(|feature| (feature, field.clone()));
        let of_columns = self.columns.iter().map(|(feature, field)| (feature, field.clone()));
        let mut columns = Vec::new();
        for (feature, field) in of_feature.chain(of_columns) {
            let index = dimension.features.iter().position(|known| known.name == *feature.get_ref());
            let known = index.and_then(|index| Some((index, dimension.features.get(index)?)));
            let Some((index, known)) = known else {
                let message = format!("dimension `{}` has no such feature", dimension.name);
                return Err(resolver.source.at(feature, format!("list `{}`: {message}", feature.get_ref())));
            };
            let is_number = known.kind == FeatureKind::F32 && known.accepts(1.0);
            if self.feature.is_some() && !is_number {
                return Err(wrong(
                    "being in a list is the number 1, which its feature does not take".to_owned(),
                ));
            }
            if format == ListFormat::Location && !ListFormat::LOCATION_FIELDS.contains(&field.as_str()) {
                let fields = ListFormat::LOCATION_FIELDS.join(", ");
                return Err(wrong(format!("a location database has no field {field:?}; it has: {fields}")));
            }
            columns.push(Column { index, feature: known.clone(), field, rules: rules.clone() });
        }
        let is_server = self.url.is_some();
        let interval = self.interval.unwrap_or(if is_server { INTERVALS.1 } else { INTERVALS.0 });
        resolver.check_durations(name, &[("interval", interval), ("timeout", self.timeout)])?;
        resolver.check_share(name, "max_shrink", self.max_shrink)?;
        let limits = Limits {
            max_bytes: self.max_bytes,
            max_line_bytes: self.max_line_bytes,
            max_decoded_bytes: self.max_decoded_bytes,
            max_rows: self.max_rows,
            min_rows: self.min_rows,
        };
        let max_unchanged = self.max_unchanged.or(is_server.then_some(MAX_UNCHANGED));
        let mut decoder = ListDecoder::new(format, columns, limits);
        decoder.members = self.members;
        decoder.host_bits = self.host_bits;
        decoder.timeout = self.timeout;
        let place = match (self.path, self.url) {
            (Some(path), _) => {
                if !self.headers.is_empty() || !self.redirect_to.is_empty() || self.proxy.is_some() {
                    return Err(wrong("`headers`, `redirect_to` and `proxy` are for a `url`".to_owned()));
                }
                Place::File(resolver.file(path))
            }
            (None, Some(url)) => {
                let server = ServerOptions {
                    url,
                    headers: self.headers,
                    redirect_to: self.redirect_to,
                    proxy: self.proxy,
                    connect_timeout: CONNECT_TIMEOUT,
                    timeout: self.timeout,
                    retry_min: RETRY.0.min(interval),
                    retry_max: RETRY.1.min(interval),
                    max_bytes: self.max_bytes,
                };
                Place::Server(Box::new(server.resolve(resolver, name)?))
            }
            (None, None) => return Err(wrong("expected `path` or `url`".to_owned())),
        };
        Ok(Source {
            name: list.clone(),
            place,
            decoder,
            interval,
            max_shrink: self.max_shrink,
            max_unchanged: max_unchanged.filter(|most| !most.is_zero()),
        })
    }

    /// The rules over names: those of the operator's file, or the shipped ones for hosters.
    fn rules(
        &self,
        resolver: &Resolver<'_>,
        wrong: &impl Fn(String) -> ConfigError,
    ) -> Result<NameRules, ConfigError> {
        let Some(path) = &self.rules else { return NameRules::shipped().map_err(wrong) };
        let file = resolver.file(path.get_ref().clone());
        let at = |message: String| resolver.source.at(path, format!("rules: {}: {message}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(|error| at(error.to_string()))?;
        NameRules::parse(&text).map_err(at)
    }
}

fn by_extension(path: &str) -> ListFormat {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("json") => ListFormat::Json,
        Some("mmdb") => ListFormat::Mmdb,
        Some("db") => ListFormat::Location,
        _ => ListFormat::Text,
    }
}
