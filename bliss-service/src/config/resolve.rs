//! From the file as it is written to a checked [`Config`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::{Attribute, AttributeKind, Dimension, Feature, FeatureKind, KeyPart, Schema};
use bliss_store::PublishOptions;
use toml::Spanned;

use super::{
    AccessLogOrigin, Config, ConfigError, FileOrigin, HttpOrigin, Limits, Model, Origin, OriginKind, Route,
    RowFormat, raw,
};
use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{BUILT_IN_DIMENSIONS, built_in_dimension};
use crate::access_log::parse::Parser;

/// The file's name and text, for errors.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map(|span| span.start);
        let mut message = error.message().to_owned();
        if let Some(option) = start.and_then(|start| self.option_before(start)) {
            message = format!("{option}: {message}");
        }
        ConfigError { path: self.path.to_owned(), line: start.map(|start| self.line(start)), message }
    }

    /// The option whose value begins at `offset`.
    fn option_before(&self, offset: usize) -> Option<&str> {
        let before = self.text.get(..offset)?.trim_end().strip_suffix('=')?.trim_end();
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let start = before.trim_end_matches(name).len();
        before.get(start..).filter(|option| !option.is_empty())
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn at<T>(&self, what: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        self.at_offset(what.span().start, message)
    }

    fn at_offset(&self, offset: usize, message: impl Into<String>) -> ConfigError {
        ConfigError { path: self.path.to_owned(), line: Some(self.line(offset)), message: message.into() }
    }

    fn whole(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { path: self.path.to_owned(), line: None, message: message.into() }
    }

    fn file(&self, path: PathBuf) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

pub(super) struct Resolver<'a> {
    source: Source<'a>,
    schema: Schema,
    /// For each dimension, the origin that fills it.
    filled_by: Vec<Option<String>>,
    origins: Vec<Origin>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self { source, schema: Schema::default(), filled_by: Vec::new(), origins: Vec::new() }
    }

    pub(super) fn resolve(mut self, file: raw::File) -> Result<Config, ConfigError> {
        let source = self.source;
        let interval = file.publish.interval;
        if interval < Duration::from_millis(100) || interval > Duration::from_secs(3600) {
            return Err(source.whole("publish.interval: expected 100ms to 1h"));
        }
        self.schema.clock_skew_seconds = whole_seconds(file.publish.clock_skew)
            .ok_or_else(|| source.whole("publish.clock_skew: expected 136 years at most"))?;
        let publish = PublishOptions {
            grace: file.publish.grace.min(interval),
            mode: self.mode("publish.mode", &file.publish.mode, 0o440)?,
            readers_mode: self.mode("publish.readers_mode", &file.publish.readers_mode, 0o600)?,
            group: file.publish.group.as_ref().map(|group| self.group(group)).transpose()?,
            ..PublishOptions::default()
        };
        let log_level = match file.log.level {
            None => "info".to_owned(),
            Some(level) => match level.get_ref().parse::<tracing_subscriber::EnvFilter>() {
                Ok(_) => level.into_inner(),
                Err(error) => return Err(source.at(&level, format!("log.level: {error}"))),
            },
        };
        let lines: Vec<usize> = file.dimension.iter().map(|dimension| dimension.name.span().start).collect();
        self.schema.attributes =
            file.attribute.iter().map(|a| self.attribute(a)).collect::<Result<_, _>>()?;
        for dimension in file.dimension {
            let dimension = self.dimension(dimension)?;
            self.schema.dimensions.push(dimension);
            // After each, so that the error has the line of the one that is wrong.
            let line = lines[self.schema.dimensions.len() - 1];
            self.schema.validate().map_err(|error| source.at_offset(line, error.to_string()))?;
        }
        self.filled_by = vec![None; self.schema.dimensions.len()];
        for origin in file.origin.file {
            self.file_origin(origin)?;
        }
        for origin in file.origin.http {
            self.http_origin(origin)?;
        }
        for origin in file.origin.access_log {
            self.access_log_origin(origin)?;
        }
        for ((dimension, filled_by), line) in self.schema.dimensions.iter().zip(&self.filled_by).zip(&lines) {
            if filled_by.is_none() {
                let message =
                    format!("dimension `{}` is filled by no origin; name it in one", dimension.name);
                return Err(source.at_offset(*line, message));
            }
        }
        let models = self.models(file.model)?;
        let routes = self.routes(file.route, &models)?;
        Ok(Config {
            directory: source.file(file.directory),
            publish_interval: interval,
            publish,
            expire_after_max_ages: file.publish.expire_after_max_ages,
            listen: file.admin.listen,
            log_output: file.log.format,
            log_level,
            schema: self.schema,
            origins: self.origins,
            models,
            routes,
        })
    }

    /// Permissions in octal digits, which must have the bits of `least`.
    fn mode(&self, option: &str, text: &Spanned<String>, least: u32) -> Result<u32, ConfigError> {
        match u32::from_str_radix(text.get_ref(), 8) {
            Ok(mode) if mode <= 0o777 && mode & least == least => Ok(mode),
            _ => {
                let found = text.get_ref();
                let message = format!(
                    "{option}: expected octal digits with at least {least:04o}, for instance \"0660\", found {found:?}"
                );
                Err(self.source.at(text, message))
            }
        }
    }

    /// The number of a group. Names are those of this host; a group of a directory service goes by its number.
    fn group(&self, group: &Spanned<raw::Group>) -> Result<u32, ConfigError> {
        let name = match group.get_ref() {
            raw::Group::Number(number) => return Ok(*number),
            raw::Group::Name(name) => name,
        };
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let number = groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? == name { fields.nth(1)?.parse().ok() } else { None }
        });
        number.ok_or_else(|| {
            let message = format!(
                "publish.group: there is no group {name:?} in /etc/group; name another, or its number"
            );
            self.source.at(group, message)
        })
    }

    fn attribute(&self, raw: &raw::Attribute) -> Result<Attribute, ConfigError> {
        let kind = match (raw.kind, raw.bytes) {
            (raw::AttributeKind::Hex, Some(bytes)) => AttributeKind::Hex { bytes },
            (raw::AttributeKind::Hex, None) => {
                let message = format!("attribute `{}`: a hex attribute needs `bytes`", raw.name.get_ref());
                return Err(self.source.at(&raw.name, message));
            }
            (_, Some(_)) => {
                let message = format!("attribute `{}`: `bytes` is for type hex only", raw.name.get_ref());
                return Err(self.source.at(&raw.name, message));
            }
            (raw::AttributeKind::Ip, None) => AttributeKind::Ip,
            (raw::AttributeKind::String, None) => AttributeKind::String,
            (raw::AttributeKind::U64, None) => AttributeKind::U64,
        };
        let attribute = Attribute { name: raw.name.get_ref().clone(), kind };
        let alone = Schema { attributes: vec![attribute.clone()], ..Schema::default() };
        alone.validate().map_err(|error| self.source.at(&raw.name, error.to_string()))?;
        Ok(attribute)
    }

    fn dimension(&self, raw: raw::Dimension) -> Result<Dimension, ConfigError> {
        let features = raw.features.into_iter().map(|feature| self.feature(feature));
        let features = features.collect::<Result<_, _>>()?;
        let key = raw.key.into_iter().map(|part| KeyPart {
            attribute: part.attr,
            v4_prefix: part.v4_prefix,
            v6_prefix: part.v6_prefix,
        });
        Ok(Dimension {
            key: key.collect(),
            max_age_seconds: whole_seconds(raw.max_age).ok_or_else(|| {
                let message =
                    format!("dimension `{}`: max_age: expected 136 years at most", raw.name.get_ref());
                self.source.at(&raw.name, message)
            })?,
            name: raw.name.into_inner(),
            features,
        })
    }

    fn feature(&self, raw: raw::Feature) -> Result<Feature, ConfigError> {
        let wrong = |expected: &str| {
            let name = raw.name.get_ref();
            Err(self.source.at(&raw.name, format!("feature `{name}`: its default must be {expected}")))
        };
        let (kind, default) = match (raw.kind, &raw.default) {
            (raw::FeatureKind::F32, None) => (FeatureKind::F32, 0.0),
            (raw::FeatureKind::F32, Some(raw::Default_::Number(number))) => (FeatureKind::F32, *number),
            (raw::FeatureKind::F32, Some(raw::Default_::Category(_))) => return wrong("a number"),
            (raw::FeatureKind::Category, None) => (FeatureKind::Category, crate::category::category("")),
            (raw::FeatureKind::Category, Some(raw::Default_::Category(text))) => {
                (FeatureKind::Category, crate::category::category(text))
            }
            (raw::FeatureKind::Category, Some(raw::Default_::Number(_))) => return wrong("a string"),
        };
        let (min, max) = (raw.min.map(|min| min.0), raw.max.map(|max| max.0));
        Ok(Feature { name: raw.name.into_inner(), kind, default, min, max })
    }

    /// Checks an origin's name and takes its dimensions.
    fn origin(
        &mut self,
        name: &Spanned<String>,
        dimensions: &[Spanned<String>],
        kind: OriginKind,
    ) -> Result<(), ConfigError> {
        let text = name.get_ref();
        check_name(&self.source, "origin", name)?;
        if self.origins.iter().any(|other| other.name == *text) {
            return Err(self.source.at(name, format!("origin `{text}` is there twice; rename one")));
        }
        if dimensions.is_empty() {
            return Err(self
                .source
                .at(name, format!("origin `{text}`: `dimensions` is empty; name at least one")));
        }
        let mut places = Vec::new();
        for dimension in dimensions {
            let Some(place) = self.schema.dimension_index(dimension.get_ref()) else {
                let known: Vec<_> = self.schema.dimensions.iter().map(|known| known.name.as_str()).collect();
                let message = format!(
                    "origin `{text}`: no [[dimension]] is named `{}`; there are: {}",
                    dimension.get_ref(),
                    known.join(", ")
                );
                return Err(self.source.at(dimension, message));
            };
            if let Some(other) = &self.filled_by[place] {
                let message = format!(
                    "origin `{text}`: dimension `{}` is filled by origin `{other}` already; a dimension has one \
                     origin",
                    dimension.get_ref()
                );
                return Err(self.source.at(dimension, message));
            }
            self.filled_by[place] = Some(text.clone());
            places.push(place);
        }
        self.origins.push(Origin { name: text.clone(), dimensions: places, kind });
        Ok(())
    }

    fn waits(&self, name: &Spanned<String>, waits: &[(&str, Duration)]) -> Result<(), ConfigError> {
        match waits.iter().find(|(_, wait)| wait.is_zero() || *wait > Duration::from_secs(7 * 86400)) {
            None => Ok(()),
            Some((option, _)) => {
                let message =
                    format!("origin `{}`: {option}: expected more than 0 and at most 7days", name.get_ref());
                Err(self.source.at(name, message))
            }
        }
    }

    fn format(
        &self,
        name: &Spanned<String>,
        format: Option<RowFormat>,
        path: &str,
    ) -> Result<RowFormat, ConfigError> {
        let by_extension = || match Path::new(path).extension()?.to_str()? {
            "jsonl" | "ndjson" => Some(RowFormat::Jsonl),
            "csv" => Some(RowFormat::Csv),
            _ => None,
        };
        format.or_else(by_extension).ok_or_else(|| {
            let message = format!(
                "origin `{}`: `{path}` does not end in .jsonl, .ndjson or .csv; say format = \"jsonl\" or \"csv\"",
                name.get_ref()
            );
            self.source.at(name, message)
        })
    }

    fn file_origin(&mut self, raw: raw::FileOrigin) -> Result<(), ConfigError> {
        self.waits(&raw.name, &[("interval", raw.interval), ("timeout", raw.timeout)])?;
        let format = self.format(&raw.name, raw.format, &raw.path.to_string_lossy())?;
        let kind = OriginKind::File(FileOrigin {
            path: self.source.file(raw.path),
            format,
            interval: raw.interval,
            timeout: raw.timeout,
            limits: Limits { max_bytes: raw.max_bytes, max_rows: raw.max_rows, min_rows: raw.min_rows },
        });
        self.origin(&raw.name, &raw.dimensions, kind)
    }

    fn http_origin(&mut self, raw: raw::HttpOrigin) -> Result<(), ConfigError> {
        let waits = [
            ("interval", raw.interval),
            ("connect_timeout", raw.connect_timeout),
            ("timeout", raw.timeout),
            ("retry_min", raw.retry_min),
            ("retry_max", raw.retry_max),
        ];
        self.waits(&raw.name, &waits)?;
        let source = self.source;
        let name = raw.name.get_ref();
        let url = |option: &str, text: &Spanned<String>| match text.get_ref().parse::<reqwest::Url>() {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            Ok(_) => Err(source.at(text, format!("origin `{name}`: {option}: expected http:// or https://"))),
            Err(error) => Err(source.at(text, format!("origin `{name}`: {option}: {error}"))),
        };
        let mut headers = reqwest::header::HeaderMap::new();
        for (header, value) in &raw.headers {
            // The value may be a secret and is not repeated.
            let wrong =
                |_| source.at(header, format!("origin `{name}`: header `{}` is none", header.get_ref()));
            let key = header.get_ref().parse::<reqwest::header::HeaderName>().map_err(|_| wrong(()))?;
            let mut value = value.parse::<reqwest::header::HeaderValue>().map_err(|_| wrong(()))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let parsed = url("url", &raw.url)?;
        let kind = OriginKind::Http(Box::new(HttpOrigin {
            format: self.format(&raw.name, raw.format, parsed.path())?,
            url: parsed,
            headers,
            proxy: raw.proxy.as_ref().map(|proxy| url("proxy", proxy)).transpose()?,
            interval: raw.interval,
            connect_timeout: raw.connect_timeout,
            timeout: raw.timeout,
            retry_min: raw.retry_min,
            retry_max: raw.retry_max.max(raw.retry_min),
            limits: Limits { max_bytes: raw.max_bytes, max_rows: raw.max_rows, min_rows: raw.min_rows },
        }));
        self.origin(&raw.name, &raw.dimensions, kind)
    }

    fn access_log_origin(&mut self, raw: raw::AccessLogOrigin) -> Result<(), ConfigError> {
        let name = &raw.name;
        let built_in =
            || BUILT_IN_DIMENSIONS.iter().map(|name| Spanned::new(raw.name.span(), (*name).to_owned()));
        let dimensions = raw.dimensions.unwrap_or_else(|| built_in().collect());
        // Built-in dimensions need no declaration.
        for dimension in &dimensions {
            let undeclared = self.schema.dimension_index(dimension.get_ref()).is_none();
            if let Some(built_in) = built_in_dimension(dimension.get_ref())
                && undeclared
            {
                self.schema.dimensions.push(built_in);
                self.filled_by.push(None);
                self.schema.validate().map_err(|error| self.source.at(dimension, error.to_string()))?;
            }
        }
        if raw.max_keys == 0 {
            let message = format!("origin `{}`: max_keys: expected at least 1", name.get_ref());
            return Err(self.source.at(name, message));
        }
        if raw.lateness > Duration::from_secs(3600) {
            let message = format!("origin `{}`: lateness: expected at most 1h", name.get_ref());
            return Err(self.source.at(name, message));
        }
        let fields: Vec<_> = raw.fields.into_iter().collect();
        let lateness_ms = raw.lateness.as_millis() as u64;
        let kind = OriginKind::AccessLog(AccessLogOrigin {
            path: self.source.file(raw.path),
            mode: raw.mode,
            parser: Parser::new(raw.format, &fields),
            aggregate: AggregateOptions { lateness_ms, max_keys: raw.max_keys },
            backlog_bytes: raw.backlog_bytes,
        });
        self.origin(name, &dimensions, kind)?;
        let places = &self.origins[self.origins.len() - 1].dimensions;
        Aggregator::new(&self.schema, places, &KeySecret([0; SECRET_BYTES]), AggregateOptions::default())
            .map_err(|error| self.source.at(name, format!("origin `{}`: {error}", name.get_ref())))?;
        Ok(())
    }

    fn models(&self, raw: Vec<raw::Model>) -> Result<Vec<Model>, ConfigError> {
        let mut models: Vec<Model> = Vec::new();
        for model in raw {
            check_name(&self.source, "model", &model.name)?;
            if models.iter().any(|other| other.name == *model.name.get_ref()) {
                let message = format!("model `{}` is there twice; rename one", model.name.get_ref());
                return Err(self.source.at(&model.name, message));
            }
            models.push(Model {
                name: model.name.into_inner(),
                version: model.version,
                path: self.source.file(model.path),
                bot_class: model.bot_class,
            });
        }
        Ok(models)
    }

    fn routes(&self, raw: Vec<raw::Route>, models: &[Model]) -> Result<Vec<Route>, ConfigError> {
        let known = |route: &str, option: &str, name: &Spanned<String>| {
            if models.iter().any(|model| model.name == *name.get_ref()) {
                return Ok(name.get_ref().clone());
            }
            let message = format!("route `{route}`: {option}: no [[model]] is named `{}`", name.get_ref());
            Err(self.source.at(name, message))
        };
        let mut routes: Vec<Route> = Vec::new();
        for route in raw {
            check_name(&self.source, "route", &route.name)?;
            let name = route.name.get_ref().clone();
            if routes.iter().any(|other| other.name == name) {
                return Err(self
                    .source
                    .at(&route.name, format!("route `{name}` is there twice; rename one")));
            }
            let active = known(&name, "active", &route.active)?;
            let shadow = route.shadow.iter().map(|shadow| known(&name, "shadow", shadow));
            routes.push(Route { active, shadow: shadow.collect::<Result<_, _>>()?, name });
        }
        match (models, routes.is_empty()) {
            // One model needs no route: it answers for everybody.
            ([only], true) => {
                Ok(vec![Route { name: "default".into(), active: only.name.clone(), shadow: vec![] }])
            }
            ([_, _, ..], true) => {
                Err(self.source.whole("there are several [[model]]s and no [[route]] says which one answers"))
            }
            _ => Ok(routes),
        }
    }
}

/// Seconds, a started one counted whole.
fn whole_seconds(duration: Duration) -> Option<u32> {
    u32::try_from(duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).ok()
}

fn check_name(source: &Source<'_>, what: &str, name: &Spanned<String>) -> Result<(), ConfigError> {
    let text = name.get_ref();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(());
    }
    Err(source.at(
        name,
        format!("{what} {text:?}: expected a name of 1 to 64 ASCII letters, digits, `_`, `-` or `.`"),
    ))
}
