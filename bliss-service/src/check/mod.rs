//! `bliss-service check`: whether a configuration would work on this host, without doing any of it.
//!
//! What [`Config::parse`] refuses ends it at once. Everything else is a [`Finding`]: all of them are told, each on a line
//! with the place in the configuration that it is about.

mod host;
mod inputs;
mod places;

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use bliss_core::build::ModelSet;
use bliss_core::publication::models::DEFAULT_ROUTE;

use crate::config::source::ConfigError;
use crate::config::{self, Config};
use crate::fingerprint::open_regular;
use crate::model_files::{self, PrepareError, Prepared};
use crate::origin::OriginKind;
use crate::output;
use crate::policy;
use host::Host;
use places::Places;

pub(crate) use inputs::missing_feature;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// A part of the configuration does nothing as it is.
    Error,
    /// It works, but perhaps not as it is meant.
    Warning,
}

/// Something that an operator should know before the daemon runs.
#[derive(Debug)]
struct Finding {
    level: Level,
    /// Where it is in the configuration, what is wrong, and what to do.
    what: ConfigError,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(f, "{level}: {}", self.what)
    }
}

/// Checks the configuration at `path`; what it finds goes to standard error, and that it is good to standard output.
///
/// # Errors
/// The configuration cannot be read, a finding is an error, or with `strict` there is any finding.
pub fn run(path: &Path, strict: bool) -> anyhow::Result<()> {
    let text = Config::read_text(path)?;
    let config = Config::parse(path, &text)?;
    let findings = Check::new(path, &text, &config, Host::current()).findings();
    for finding in &findings {
        output::note(format_args!("{finding}\n"));
    }
    let count = |level, one: &str| {
        let count = findings.iter().filter(|finding| finding.level == level).count();
        (count, format!("{count} {one}{}", if count == 1 { "" } else { "s" }))
    };
    let (errors, of_errors) = count(Level::Error, "error");
    let (warnings, of_warnings) = count(Level::Warning, "warning");
    anyhow::ensure!(errors == 0, "{}: {of_errors}, {of_warnings}", path.display());
    anyhow::ensure!(warnings == 0 || !strict, "{}: {of_warnings}, and --strict is set", path.display());
    output::print(format_args!(
        "good: {} dimensions with {} features, {} origins, {} models, {of_warnings}\n",
        config.schema.dimensions.len(),
        config.schema.width(),
        config.origins.len(),
        config.models.len()
    ))
}

/// A check under way.
struct Check<'a> {
    config: &'a Config,
    places: Places<'a>,
    host: Host,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    fn new(path: &'a Path, text: &'a str, config: &'a Config, host: Host) -> Self {
        Self { config, places: Places::new(path, text), host, findings: Vec::new() }
    }

    fn findings(mut self) -> Vec<Finding> {
        self.directory();
        self.group();
        self.origins();
        self.models();
        self.routes();
        self.policies();
        self.findings
    }

    /// Adds a finding about what is at `offset` in the file, or about all of it.
    fn add(&mut self, level: Level, offset: Option<usize>, message: impl Into<String>) {
        // Names in it come from files; a finding is one line.
        let message = message.into().replace(char::is_control, "\u{fffd}");
        let what = self.places.error(offset, message);
        self.findings.push(Finding { level, what });
    }

    fn directory(&mut self) {
        let directory = &self.config.directory;
        let at = self.places.option(&["directory"]);
        if let Err(message) = self.host.check_directory(directory) {
            self.add(Level::Error, at, format!("directory: {message}"));
        } else if host::is_on_disk(directory) {
            let message = format!(
                "directory: {} is not on a tmpfs, so that a read may wait for a disk; take one below /run, or mount a \
                 tmpfs there",
                directory.display()
            );
            self.add(Level::Warning, at, message);
        }
    }

    fn group(&mut self) {
        let Some(group) = self.config.publish.group else { return };
        if let Err(message) = self.host.check_group(group) {
            let at = self.places.option(&["publish", "group"]);
            self.add(Level::Error, at, format!("publish.group: {message}"));
        }
    }

    fn origins(&mut self) {
        if self.config.origins.is_empty() && self.config.schema.dimensions.is_empty() {
            let message = "there is no [[origin]] and no [[dimension]]: nothing would be published; add an origin, for \
                           instance [[origin.access_log]]";
            self.add(Level::Error, None, message);
        }
        for origin in &self.config.origins {
            let (paths, mut wrong) = match &origin.kind {
                OriginKind::AccessLog(log) => log.paths.look(),
                OriginKind::File(file) => (vec![file.path.clone()], Vec::new()),
                OriginKind::List(list) => (list.files().cloned().collect(), Vec::new()),
                OriginKind::Crawlers(crawlers) => (crawlers.files().cloned().collect(), Vec::new()),
                // Whether a server answers now says little about later.
                OriginKind::Http(_) => continue,
            };
            wrong.extend(paths.iter().filter_map(|path| self.host.check_file(path).err()));
            let entry = |option| {
                self.places
                    .entry(&["origin", origin.kind.name()], &origin.name, option)
                    .map(|at| (option, at))
            };
            let (option, at) = entry("path")
                .or_else(|| entry("paths"))
                .or_else(|| entry("source"))
                .or_else(|| self.places.option(&["crawlers", "ranges"]).map(|at| ("ranges", at)))
                .map_or(("path", None), |(option, at)| (option, Some(at)));
            for message in wrong {
                self.add(Level::Error, at, format!("origin `{}`: {option}: {message}", origin.name));
            }
        }
    }

    fn models(&mut self) {
        let config = self.config;
        if config.models.is_empty() && !config.uses_default_model && !config.origins.is_empty() {
            let message =
                "there is no [[model]]: features would be published, and no request would be scored";
            self.add(Level::Warning, None, message);
        }
        let mut set = ModelSet { models: Vec::new(), routes: model_files::routes(config) };
        for model in &config.models {
            let Some(prepared) = self.model(model) else { continue };
            set.models.push(prepared.named(&model.name, &model.version));
        }
        // One that is missing is told already.
        if set.models.len() == config.models.len()
            && !set.models.is_empty()
            && let Err(error) = set.pack()
        {
            self.add(Level::Error, None, format!("the models cannot be published: {error}"));
        }
    }

    /// Reads one model as the daemon will.
    fn model(&mut self, model: &config::Model) -> Option<Prepared> {
        let name = format!("model `{}`", model.name);
        let of = |places: &Places<'_>, option| places.entry(&["model"], &model.name, option);
        let path = of(&self.places, "path");
        let bytes = match self.read_model(&model.path) {
            Ok(bytes) => bytes,
            Err(message) => {
                self.add(Level::Error, path, format!("{name}: path: {message}"));
                return None;
            }
        };
        let prepared = match model_files::prepare(&bytes, &model.bot, model.explain) {
            Ok(prepared) => prepared,
            Err(error) => {
                let at = match &error {
                    PrepareError::Bot(_) => {
                        of(&self.places, "bot_class").or_else(|| of(&self.places, "answer")).or(path)
                    }
                    _ => path,
                };
                self.add(Level::Error, at, format!("{name}, {}: {error}", model.path.display()));
                return None;
            }
        };
        if model.bot.class.is_none() && prepared.model.has_numbered_labels() {
            let message = format!(
                "{name}: its labels have no names, and label {} is taken for that of bots; set bot_class = {0} if it \
                 is, or the index of the one that is",
                prepared.bot_class
            );
            self.add(Level::Warning, path, message);
        }
        // By default it is published as it is; who writes `explain = true` counts on it.
        let explain = of(&self.places, "explain");
        if explain.is_some() && model.explain && !prepared.is_explainable() {
            self.add(Level::Warning, explain, format!("{name}: {}", model_files::NOT_EXPLAINABLE));
        }
        match inputs::Sources::of(&prepared, &self.config.schema) {
            Ok(sources) => {
                if let Some(message) = sources.missing() {
                    self.add(Level::Error, path, format!("{name}: {message}"));
                }
                if let Some(message) = sources.by_program() {
                    self.add(Level::Warning, path, format!("{name}: {message}"));
                }
            }
            Err(error) => self.add(Level::Error, path, format!("{name}: {error}")),
        }
        Some(prepared)
    }

    fn read_model(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.host.check_file(path)?;
        let at = |error: std::io::Error| format!("{}: {error}", path.display());
        let (mut file, fingerprint) = open_regular(path).map_err(at)?;
        if fingerprint.bytes() > model_files::MAX_BYTES {
            let (found, most) = (fingerprint.bytes(), model_files::MAX_BYTES);
            return Err(format!("{}: {found} bytes, expected {most} at most", path.display()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at)?;
        Ok(bytes)
    }

    /// Runs the tests, and tells of what no route uses and of values that only the web server's program gives.
    fn policies(&mut self) {
        let config = self.config;
        for failure in policy::run_tests(config).err().unwrap_or_default() {
            let at = self.places.entry(&["test"], &failure.test, "name");
            self.add(Level::Error, at, failure.to_string());
        }
        for policy in &config.policies {
            let at = self.places.entry(&["policy"], &policy.name, "name");
            if !config.policy_routes.iter().any(|(_, name)| *name == policy.name) {
                let message = format!(
                    "policy `{}`: no [[route]] names it; name it, call it \"default\", or remove it",
                    policy.name
                );
                self.add(Level::Warning, at, message);
            }
            for (rule, value) in config::policy::by_program(policy, &config.schema) {
                let message = format!(
                    "policy `{}`: rule {rule:?}: `{value}` has a value only where the web server's program registers it; \
                     without that no condition on it holds",
                    policy.name
                );
                self.add(Level::Warning, at, message);
            }
        }
        for test in &config.tests {
            let is_known = |route: &str| {
                route == DEFAULT_ROUTE
                    || config.routes.iter().any(|known| known.name == route)
                    || config.policy_routes.iter().any(|(known, _)| known == route)
            };
            if !is_known(&test.route) {
                let at = self.places.entry(&["test"], &test.name, "route");
                let message = format!(
                    "test {:?}: route: no [[route]] is named `{}`, so that the default one's policy is asked",
                    test.name, test.route
                );
                self.add(Level::Warning, at, message);
            }
        }
    }

    fn routes(&mut self) {
        let config = self.config;
        for model in &config.models {
            let used =
                |route: &config::Route| route.active == model.name || route.shadow.contains(&model.name);
            if !config.routes.iter().any(used) {
                let at = self.places.entry(&["model"], &model.name, "name");
                let message = format!("model `{}`: no [[route]] names it; name it, or remove it", model.name);
                self.add(Level::Warning, at, message);
            }
        }
        if !config.routes.is_empty() && !config.routes.iter().any(|route| route.name == DEFAULT_ROUTE) {
            let message = "no [[route]] is named \"default\": requests that name no route, or one that is not there, \
                           would not be scored";
            self.add(Level::Warning, None, message);
        }
    }
}

#[cfg(test)]
mod tests;
