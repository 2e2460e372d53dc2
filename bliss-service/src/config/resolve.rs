//! From the options of the file to a checked [`Config`].

use std::time::Duration;

use bliss_core::schema::{
    Attribute, AttributeKind, Dimension, Feature, FeatureKind, KeyPart, OnStale, Schema,
};
use bliss_store::PublishOptions;
use toml::Spanned;

use super::source::{ConfigError, Source};
use super::{Config, Model, Route, options, policy};
use crate::checkpoint::KeepOptions;
use crate::{model_files, origin};

/// Checks the whole file.
pub(super) fn resolve(source: Source<'_>, file: options::File) -> Result<Config, ConfigError> {
    let resolver = Resolver { source };
    let interval = file.publish.interval;
    if interval < Duration::from_millis(100) || interval > Duration::from_secs(3600) {
        return Err(source.whole("publish.interval: expected 100ms to 1h"));
    }
    let (drift, sample_one_in) = file.drift.resolve(source)?;
    let publish = PublishOptions {
        sample_one_in,
        grace: file.publish.grace.min(interval),
        mode: resolver.mode("publish.mode", &file.publish.mode, 0o440)?,
        readers_mode: resolver.mode("publish.readers_mode", &file.publish.readers_mode, 0o600)?,
        group: file.publish.group.as_ref().map(|group| resolver.group(group)).transpose()?,
        ..PublishOptions::default()
    };
    let checkpoint = resolver.checkpoint(file.checkpoint)?;
    let level = file.log.level;
    if let Err(error) = level.get_ref().parse::<tracing_subscriber::EnvFilter>() {
        return Err(source.at(&level, format!("log.level: {error}")));
    }
    let offsets: Vec<usize> = file.dimension.iter().map(|dimension| dimension.name.span().start).collect();
    let mut schema = Schema {
        clock_skew_seconds: whole_seconds(file.publish.clock_skew)
            .ok_or_else(|| source.whole("publish.clock_skew: expected 136 years at most"))?,
        max_heartbeat_age_seconds: resolver.max_heartbeat_age(file.publish.max_heartbeat_age)?,
        attributes: file.attribute.iter().map(|a| resolver.attribute(a)).collect::<Result<_, _>>()?,
        site_hosts: resolver.site_hosts(file.site.hosts)?,
        ..Schema::default()
    };
    for (dimension, offset) in file.dimension.into_iter().zip(&offsets) {
        schema.dimensions.push(resolver.dimension(dimension)?);
        // After each, so that the error has the line of the one that is wrong.
        schema.validate().map_err(|error| source.at_offset(*offset, error.to_string()))?;
    }
    let mut origins = origin::Resolver::new(source, schema);
    file.origin.resolve(&mut origins)?;
    file.crawlers.resolve(&mut origins)?;
    let (schema, origins) = origins.finish(&offsets)?;
    let models = resolver.models(file.model)?;
    let policies = policy::policies(source, file.policy, &schema)?;
    let policy_routes = policy::routes(source, &file.route, &policies)?;
    let tests = policy::tests(source, file.test, &schema)?;
    let routes = resolver.routes(file.route, &models)?;
    let uses_default_model =
        file.publish.default_model && models.is_empty() && model_files::default_fits(&schema);
    Ok(Config {
        directory: source.file(file.directory),
        publish_interval: interval,
        publish,
        checkpoint,
        expire_after_max_ages: file.publish.expire_after_max_ages,
        listen: file.admin.listen,
        admin_hosts: resolver.hosts(file.admin.hosts)?,
        log_output: file.log.format,
        log_level: level.into_inner(),
        drift,
        decisions: file.decisions.resolve(source)?,
        schema,
        origins,
        uses_default_model,
        models,
        routes,
        policies,
        policy_routes,
        tests,
        gate: file.policy_gate.resolve(source)?,
    })
}

struct Resolver<'a> {
    source: Source<'a>,
}

impl Resolver<'_> {
    /// In seconds. Less than two would be taken for a daemon that died whenever it is late by a moment.
    fn max_heartbeat_age(&self, age: Duration) -> Result<u32, ConfigError> {
        match whole_seconds(age) {
            Some(seconds) if seconds != 1 && (seconds > 0 || age.is_zero()) => Ok(seconds),
            _ => {
                let message = format!(
                    "publish.max_heartbeat_age: expected \"0s\" (never) or 2s to 136 years, found {age:?}"
                );
                Err(self.source.whole(message))
            }
        }
    }

    fn checkpoint(&self, options: options::Checkpoint) -> Result<KeepOptions, ConfigError> {
        let options::Checkpoint { directory, interval, max_bytes } = options;
        if interval < Duration::from_secs(1) || interval > Duration::from_secs(3600) {
            return Err(self.source.whole("checkpoint.interval: expected 1s to 1h"));
        }
        let is_some = !directory.as_os_str().is_empty();
        Ok(KeepOptions { directory: is_some.then(|| self.source.file(directory)), interval, max_bytes })
    }

    /// Permissions in octal digits, which must have the bits of `least`.
    fn hosts(&self, hosts: Vec<Spanned<String>>) -> Result<Vec<String>, ConfigError> {
        let is_name = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        match hosts.iter().find(|host| !is_name(host.get_ref())) {
            Some(host) => {
                let message = format!(
                    "admin.hosts: expected a name of letters, digits, `.`, `-` and `_`, without a port, found {:?}",
                    host.get_ref()
                );
                Err(self.source.at_offset(host.span().start, message))
            }
            None => Ok(hosts.into_iter().map(Spanned::into_inner).collect()),
        }
    }

    fn site_hosts(&self, hosts: Vec<Spanned<String>>) -> Result<Vec<String>, ConfigError> {
        let mut own = Vec::new();
        for host in hosts {
            own.push(host.get_ref().to_ascii_lowercase());
            let schema = Schema { site_hosts: own.clone(), ..Schema::default() };
            let valid = schema.validate();
            valid
                .map_err(|error| self.source.at_offset(host.span().start, format!("site.hosts: {error}")))?;
        }
        Ok(own)
    }

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
    fn group(&self, group: &Spanned<options::Group>) -> Result<u32, ConfigError> {
        let name = match group.get_ref() {
            options::Group::Number(number) => return Ok(*number),
            options::Group::Name(name) => name,
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

    fn attribute(&self, options: &options::Attribute) -> Result<Attribute, ConfigError> {
        let kind = match (options.kind, options.bytes) {
            (options::AttributeKind::Hex, Some(bytes)) => AttributeKind::Hex { bytes },
            (options::AttributeKind::Hex, None) => {
                let message =
                    format!("attribute `{}`: a hex attribute needs `bytes`", options.name.get_ref());
                return Err(self.source.at(&options.name, message));
            }
            (_, Some(_)) => {
                let message = format!("attribute `{}`: `bytes` is for type hex only", options.name.get_ref());
                return Err(self.source.at(&options.name, message));
            }
            (options::AttributeKind::Ip, None) => AttributeKind::Ip,
            (options::AttributeKind::String, None) => AttributeKind::String,
            (options::AttributeKind::U64, None) => AttributeKind::U64,
        };
        let attribute = Attribute { name: options.name.get_ref().clone(), kind };
        let alone = Schema { attributes: vec![attribute.clone()], ..Schema::default() };
        alone.validate().map_err(|error| self.source.at(&options.name, error.to_string()))?;
        Ok(attribute)
    }

    fn dimension(&self, options: options::Dimension) -> Result<Dimension, ConfigError> {
        let features = options.features.into_iter().map(|feature| self.feature(feature));
        let features = features.collect::<Result<_, _>>()?;
        let key = options.key.into_iter().map(|part| KeyPart {
            attribute: part.attr,
            v4_prefix: part.v4_prefix,
            v6_prefix: part.v6_prefix,
            longest_prefix: options.matching == options::Match::LongestPrefix,
        });
        Ok(Dimension {
            key: key.collect(),
            max_age_seconds: whole_seconds(options.max_age).ok_or_else(|| {
                let message =
                    format!("dimension `{}`: max_age: expected 136 years at most", options.name.get_ref());
                self.source.at(&options.name, message)
            })?,
            on_stale: match options.on_stale {
                options::OnStale::Use => OnStale::Use,
                options::OnStale::Default => OnStale::Default,
                options::OnStale::Unscored => OnStale::Unscored,
            },
            name: options.name.into_inner(),
            features,
        })
    }

    fn feature(&self, options: options::Feature) -> Result<Feature, ConfigError> {
        let wrong = |expected: &str| {
            let name = options.name.get_ref();
            Err(self.source.at(&options.name, format!("feature `{name}`: its default must be {expected}")))
        };
        let (kind, default) = match (options.kind, &options.default) {
            (options::FeatureKind::F32, None) => (FeatureKind::F32, 0.0),
            (options::FeatureKind::F32, Some(options::DefaultValue::Number(number))) => {
                (FeatureKind::F32, *number)
            }
            (options::FeatureKind::F32, Some(options::DefaultValue::Category(_))) => {
                return wrong("a number");
            }
            (options::FeatureKind::Category, None) => (FeatureKind::Category, crate::category::category("")),
            (options::FeatureKind::Category, Some(options::DefaultValue::Category(text))) => {
                (FeatureKind::Category, crate::category::category(text))
            }
            (options::FeatureKind::Category, Some(options::DefaultValue::Number(_))) => {
                return wrong("a string");
            }
        };
        let (min, max) = (options.min.map(|min| min.0), options.max.map(|max| max.0));
        Ok(Feature { name: options.name.into_inner(), kind, default, min, max })
    }

    fn models(&self, options: Vec<options::Model>) -> Result<Vec<Model>, ConfigError> {
        let mut models: Vec<Model> = Vec::new();
        for mut model in options {
            self.source.check_name("model", &model.name)?;
            if models.iter().any(|other| other.name == *model.name.get_ref()) {
                let message = format!("model `{}` appears twice; rename one", model.name.get_ref());
                return Err(self.source.at(&model.name, message));
            }
            models.push(Model {
                bot: model.bot(),
                explain: model.explain,
                name: model.name.into_inner(),
                version: model.version,
                path: self.source.file(model.path),
            });
        }
        Ok(models)
    }

    fn routes(&self, options: Vec<options::Route>, models: &[Model]) -> Result<Vec<Route>, ConfigError> {
        let known = |route: &str, option: &str, name: &Spanned<String>| {
            if models.iter().any(|model| model.name == *name.get_ref()) {
                return Ok(name.get_ref().clone());
            }
            let message = format!("route `{route}`: {option}: no [[model]] is named `{}`", name.get_ref());
            Err(self.source.at(name, message))
        };
        let mut routes: Vec<Route> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for route in options {
            self.source.check_name("route", &route.name)?;
            let name = route.name.get_ref().clone();
            if names.contains(&name) {
                return Err(self.source.at(&route.name, format!("route `{name}` appears twice; rename one")));
            }
            names.push(name.clone());
            let Some(active) = &route.active else {
                if let Some(shadow) = route.shadow.first() {
                    let message =
                        format!("route `{name}`: shadow: expected `active` beside it; name the active model");
                    return Err(self.source.at(shadow, message));
                }
                if route.policy.is_none() {
                    let message = format!("route `{name}`: expected `active` or `policy`, found neither");
                    return Err(self.source.at(&route.name, message));
                }
                continue;
            };
            let active = known(&name, "active", active)?;
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
