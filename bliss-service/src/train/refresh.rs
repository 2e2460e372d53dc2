//! `blissctl train --refresh`: which model is active, and how the newer one is handed over beside it.
//!
//! The newer model only ever becomes a shadow. Which model is active, the configuration says, and only a person changes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::DEFAULT_MODEL;
use crate::config::{Config, Route};

/// Name of the newer model in the lines that are suggested.
const NEWER: &str = "next";

/// The model that is active, and where the newer one goes.
#[derive(Debug)]
pub(super) struct Refresh {
    /// The file of the active model.
    pub(super) active: PathBuf,
    /// Whether that is the one that comes with BLISS, which has no file of its own.
    is_default: bool,
    route: String,
    /// The shadow model, by name and file, that is replaced.
    shadow: Option<(String, PathBuf)>,
    /// Whether the configuration has the route.
    has_route: bool,
    active_name: String,
}

impl Refresh {
    /// Looks for the active model of `route`, and for the shadow: the one named `shadow`, or the only one. The file of the model
    /// that comes with BLISS is written to `out` where that one is active.
    ///
    /// # Errors
    /// There is no such route or shadow, several shadows and none is named, or the shadow's file is that of an active model.
    pub(super) fn find(
        config: &Config,
        route: &str,
        shadow: Option<&str>,
        out: &Path,
    ) -> anyhow::Result<Self> {
        if config.models.is_empty() {
            let active = out.join("active.cbm");
            anyhow::ensure!(
                config.uses_default_model,
                "the configuration names no [[model]], and its features are not those of the model that comes with BLISS: nothing is \
                 active; train without --refresh"
            );
            anyhow::ensure!(shadow.is_none(), "--shadow: the configuration names no [[model]]");
            fs::write(&active, DEFAULT_MODEL).with_context(|| format!("{}", active.display()))?;
            let (route, active_name) = (route.to_owned(), "default".to_owned());
            return Ok(Self { active, is_default: true, route, shadow: None, has_route: false, active_name });
        }
        let found = config.routes.iter().find(|found| found.name == route).with_context(|| {
            let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
            format!("--route: there is no [[route]] {route:?}; there are {}", names.join(", "))
        })?;
        let file = |name: &str| {
            config.models.iter().find(|model| model.name == name).map(|model| model.path.clone())
        };
        let active =
            file(&found.active).with_context(|| format!("route {route:?}: its active model has no file"))?;
        let shadow = match (shadow, found.shadow.as_slice()) {
            (Some(name), shadows) if shadows.iter().any(|known| known == name) => Some(name.to_owned()),
            (Some(name), _) => {
                anyhow::bail!("--shadow: {name:?} is no shadow model of route {route:?}; see its `shadow`")
            }
            (None, []) => None,
            (None, [only]) => Some(only.clone()),
            (None, several) => anyhow::bail!(
                "route {route:?} has several shadow models ({}); say with --shadow which one is replaced",
                several.join(", ")
            ),
        };
        let shadow = shadow.and_then(|name| Some((name.clone(), file(&name)?)));
        if let Some((name, path)) = &shadow {
            not_active(config, name, path)?;
        }
        let (route, active_name) = (route.to_owned(), found.active.clone());
        Ok(Self { active, is_default: false, route, shadow, has_route: true, active_name })
    }

    /// Hands the newer model over. Returns what there is to say: what was done, or what is to be added to the configuration.
    ///
    /// # Errors
    /// The shadow's file cannot be written; the old one stays.
    pub(super) fn hand_over(&self, model: &Path) -> anyhow::Result<String> {
        let Self { active, route, active_name, .. } = self;
        if let Some((name, path)) = &self.shadow {
            let mut fresh = path.clone().into_os_string();
            fresh.push(".new");
            let fresh = PathBuf::from(fresh);
            let copied = fs::copy(model, &fresh).and_then(|_| fs::rename(&fresh, path));
            copied.with_context(|| {
                format!(
                    "{}: the newer model cannot be written there; it is {}, copy it by hand",
                    path.display(),
                    model.display()
                )
            })?;
            return Ok(format!(
                "{} is the newer model now: shadow model `{name}` of route `{route}`, which a running daemon reads within seconds. \
                 `{active_name}` answers as before.\n",
                path.display()
            ));
        }
        let model = fs::canonicalize(model).unwrap_or_else(|_| model.to_owned());
        let entry = |name: &str, version: &str, path: &Path| {
            format!(
                "[[model]]\nname = \"{name}\"\nversion = \"{version}\"\npath = {:?}\n\n",
                path.display().to_string()
            )
        };
        let mut text = "The newer model is beside the active one once the configuration has:\n\n".to_owned();
        if self.is_default {
            let active = fs::canonicalize(active).unwrap_or_else(|_| active.clone());
            text += &entry(active_name, env!("CARGO_PKG_VERSION"), &active);
        }
        let today = jiff::Zoned::now().date().to_string();
        text += &entry(NEWER, &today, &model);
        text += &if self.has_route {
            format!("and, in the [[route]] `{route}`:\n\nshadow = [\"{NEWER}\"]\n")
        } else {
            format!("[[route]]\nname = \"{route}\"\nactive = \"{active_name}\"\nshadow = [\"{NEWER}\"]\n")
        };
        Ok(text)
    }
}

/// Fails if the file of a shadow model is that of a model which is active somewhere, by whatever name.
fn not_active(config: &Config, name: &str, path: &Path) -> anyhow::Result<()> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_active = |route: &&Route| {
        let active = config.models.iter().find(|model| model.name == route.active);
        active.is_some_and(|model| model.name == name || real(&model.path) == real(path))
    };
    match config.routes.iter().find(is_active) {
        Some(route) => anyhow::bail!(
            "{}: shadow model `{name}` has the file of a model that is active on route {:?}; give it a file of its own",
            path.display(),
            route.name
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, text: &str) -> Config {
        let dimension = "[[dimension]]\nname = \"ip\"\nkey = [\"ip\"]\nfeatures = [{ name = \"x\" }]\n";
        let origin = "[[origin.file]]\nname = \"f\"\npath = \"f.csv\"\ndimensions = [\"ip\"]\n";
        Config::parse(&dir.join("bliss.toml"), &format!("{dimension}{origin}{text}")).unwrap()
    }

    fn models(names: &[&str]) -> String {
        let model =
            |name: &&str| format!("[[model]]\nname = \"{name}\"\nversion = \"1\"\npath = \"{name}.cbm\"\n");
        names.iter().map(model).collect()
    }

    #[test]
    fn the_only_shadow_gets_the_newer_model_and_the_active_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["old", "beside", "newer"] {
            fs::write(at(&format!("{name}.cbm")), name).unwrap();
        }
        let text = models(&["old", "beside"])
            + "[[route]]\nname = \"default\"\nactive = \"old\"\nshadow = [\"beside\"]\n";
        let refresh = Refresh::find(&config(dir.path(), &text), "default", None, dir.path()).unwrap();
        assert_eq!(refresh.active, at("old.cbm"));
        let said = refresh.hand_over(&at("newer.cbm")).unwrap();
        assert!(said.contains("shadow model `beside` of route `default`"), "{said}");
        assert_eq!(fs::read_to_string(at("beside.cbm")).unwrap(), "newer");
        assert_eq!(fs::read_to_string(at("old.cbm")).unwrap(), "old");
        // It cannot be written: what was there stays.
        fs::create_dir(at("beside.cbm.new")).unwrap();
        let error = format!("{:#}", refresh.hand_over(&at("old.cbm")).unwrap_err());
        assert!(error.contains("copy it by hand"), "{error}");
        assert_eq!(fs::read_to_string(at("beside.cbm")).unwrap(), "newer");
    }

    #[test]
    fn without_a_shadow_the_configuration_to_add_is_told_and_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let newer = dir.path().join("newer.cbm");
        fs::write(&newer, "newer").unwrap();
        let refresh =
            Refresh::find(&config(dir.path(), &models(&["old"])), "default", None, dir.path()).unwrap();
        let said = refresh.hand_over(&newer).unwrap();
        assert!(said.contains("name = \"next\"") && said.contains("shadow = [\"next\"]"), "{said}");
        assert!(!dir.path().join("old.cbm").exists(), "no file was written");
        // Where the model that comes with BLISS answers.
        let log = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\n";
        let config = Config::parse(&dir.path().join("bliss.toml"), log).unwrap();
        let refresh = Refresh::find(&config, "default", None, dir.path()).unwrap();
        assert_eq!(fs::read(&refresh.active).unwrap(), DEFAULT_MODEL);
        let said = refresh.hand_over(&newer).unwrap();
        let added = said.split_once("\n\n").unwrap().1;
        let config = Config::parse(&dir.path().join("bliss.toml"), &format!("{log}{added}")).unwrap();
        assert_eq!(
            (config.routes[0].active.as_str(), config.routes[0].shadow.as_slice()),
            ("default", &["next".to_owned()][..])
        );
        assert!(config.models.iter().all(|model| model.path.is_file()), "{:?}", config.models);
    }

    #[test]
    fn a_file_that_is_active_anywhere_is_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let same = models(&["old", "beside"]).replace("beside.cbm", "old.cbm");
        let route = |name: &str, active: &str, shadow: &str| {
            format!("[[route]]\nname = \"{name}\"\nactive = \"{active}\"\nshadow = [{shadow}]\n")
        };
        let cases = [
            (same + &route("default", "old", "\"beside\""), None, "has the file of a model that is active"),
            (
                models(&["old", "beside"])
                    + &route("default", "old", "\"beside\"")
                    + &route("shop", "beside", ""),
                None,
                "active on route \"shop\"",
            ),
            (
                models(&["old", "a", "b"]) + &route("default", "old", "\"a\", \"b\""),
                None,
                "say with --shadow",
            ),
            (models(&["old", "a", "b"]) + &route("default", "old", "\"a\""), Some("b"), "no shadow model"),
            (
                models(&["old"]) + &route("shop", "old", ""),
                None,
                "there is no [[route]] \"default\"; there are shop",
            ),
        ];
        for (text, shadow, expected) in cases {
            let error = Refresh::find(&config(dir.path(), &text), "default", shadow, dir.path()).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        let error =
            Refresh::find(&config(dir.path(), ""), "default", None, dir.path()).unwrap_err().to_string();
        assert!(error.contains("nothing is active"), "{error}");
    }
}
