//! `blissctl train`: from a site's own log to a model, by the Python package `bliss-train`.
//!
//! The rows are those of `blissctl features`, so that training reads what serving reads. The package labels, names the lines of the
//! copy in which crawlers lie about their agent, and fits; this module runs the steps one after the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::config::Config;
use crate::export::lists::ListFile;
use crate::policy::control::folder;
use crate::{DEFAULT_MODEL, export, output};
use refresh::Refresh;

mod refresh;

/// What `bliss-train` ends with where the newer model is worse than the active one.
const WORSE: i32 = 5;
/// What `bliss-train` ends with where there is nothing to learn.
const NOTHING_TO_LEARN: i32 = 3;

/// Options of `blissctl train`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The access log: combined format, or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "install")]
    pub log: Vec<PathBuf>,
    /// The folder that the model and its report are written to; made if it is not there.
    #[arg(long, value_name = "DIR", required_unless_present = "install")]
    pub out: Option<PathBuf>,
    /// Take dimensions and options from the access log origin and the lists of this configuration; by default the built-in
    /// dimensions.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A list of networks as the feature `lists.NAME`, as for `blissctl features`; models take `lists.hosting`.
    #[arg(long, value_name = "NAME=FILE")]
    pub list: Vec<ListFile>,
    /// The model that is corrected: "default" (the one that comes with BLISS), "none", or a file.
    #[arg(long, value_name = "MODEL", default_value = "default")]
    pub base: String,
    /// Rules that label, in TOML; by default those of the package.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// What `blissctl allow` and `deny` decided, as labels; by default the file `labels.jsonl` of the daemon of --config.
    #[arg(long, value_name = "FILE")]
    pub decisions: Option<PathBuf>,
    /// Addresses and networks whose clients are no people, one a line.
    #[arg(long, value_name = "FILE")]
    pub not_people: Option<PathBuf>,
    /// Show in the report what CrowdSec's rules name in the same log, as Debian's package `crowdsec` ships them: installed, or
    /// unpacked in this folder. Takes a while: some hundred lines a second.
    #[arg(long, value_name = "ROOT", num_args = 0..=1, default_missing_value = "/")]
    pub crowdsec: Option<PathBuf>,
    /// The same seed gives the same model.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u32,
    /// Compare with the model that is active by --config, on requests later than those that were fitted, and hand the new one over
    /// as a shadow model of a route; never as the active one.
    #[arg(long, requires = "config", conflicts_with = "install")]
    pub refresh: bool,
    /// With --refresh: the route whose active model it is.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub route: String,
    /// With --refresh: the shadow model whose file is replaced, where the route has several.
    #[arg(long, value_name = "NAME", requires = "refresh")]
    pub shadow: Option<String>,
    /// With --refresh: hand it over even if it is worse than the active one.
    #[arg(long, requires = "refresh")]
    pub even_if_worse: bool,
    /// Set the Python package up, in a virtual environment of its own, and end.
    #[arg(long)]
    pub install: bool,
    /// The package's source, for --install: the folder `train` of BLISS.
    #[arg(long, value_name = "DIR")]
    pub package: Option<PathBuf>,
    /// A Python that has the package `bliss-train`; by default that of --install.
    #[arg(long, value_name = "FILE", env = "BLISS_TRAIN_PYTHON")]
    pub python: Option<PathBuf>,
}

/// Trains.
///
/// # Errors
/// The package is not there, the log cannot be read, nothing can be learned from it, or a step fails; its own message stands
/// above the error.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if options.install {
        return install(options);
    }
    let python = match &options.python {
        Some(python) => python.clone(),
        None => environment()?.join("bin/python"),
    };
    check(&python)?;
    let out = options.out.as_deref().context("--out is missing")?;
    std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
    let refresh = match (&options.config, options.refresh) {
        (Some(config), true) => {
            let config = Config::read(config)?;
            Some(Refresh::find(&config, &options.route, options.shadow.as_deref(), out)?)
        }
        _ => None,
    };
    let scratch = tempfile::tempdir().context("no temporary directory can be created")?;
    let at = |name: &str| scratch.path().join(name);
    let features = |rewrite: Option<PathBuf>, name: &str| {
        export::run(&export::Options {
            log: options.log.clone(),
            out: at(name),
            config: options.config.clone(),
            list: options.list.clone(),
            rewrite,
            interval_seconds: 1,
        })
    };
    let package = |arguments: &mut dyn FnMut(&mut Command)| {
        let mut command = Command::new(&python);
        command.args(["-m", "bliss_train"]);
        arguments(&mut command);
        succeed(command)
    };

    output::note(format_args!("1 of 4: the rows that a web server would have read\n"));
    features(None, "rows.parquet")?;
    output::note(format_args!("2 of 4: labels, by rules\n"));
    package(&mut |command| {
        command.arg("label").arg("--rows").arg(at("rows.parquet")).arg("--out").arg(at("labels.parquet"));
        command.arg("--rewrite").arg(at("rewrite.csv"));
        command.args(["--seed", &options.seed.to_string()]);
        options.add_rules(command);
    })?;
    output::note(format_args!("3 of 4: the rows again, with crawlers that say they are browsers\n"));
    features(Some(at("rewrite.csv")), "disguised.parquet")?;
    if let Some(root) = &options.crowdsec {
        output::note(format_args!("also: what CrowdSec names\n"));
        package(&mut |command| {
            command
                .arg("crowdsec")
                .arg("--rows")
                .arg(at("rows.parquet"))
                .arg("--out")
                .arg(at("crowdsec.csv"));
            command.arg("--root").arg(root);
        })?;
    }
    output::note(format_args!("4 of 4: the model\n"));
    let base = match options.base.as_str() {
        "none" => PathBuf::from("none"),
        "default" => {
            std::fs::write(at("default.cbm"), DEFAULT_MODEL)?;
            at("default.cbm")
        }
        file => PathBuf::from(file),
    };
    package(&mut |command| {
        let files = ["rows.parquet", "labels.parquet", "disguised.parquet"];
        let site = files.map(|name| at(name).display().to_string()).join(":");
        command.arg("fit").arg("--site").arg(format!("own:{site}")).arg("--out").arg(out);
        command.arg("--base").arg(&base).args(["--seed", &options.seed.to_string()]);
        if options.crowdsec.is_some() {
            command.arg("--named").arg(format!("CrowdSec:own:{}", at("crowdsec.csv").display()));
        }
    })?;
    if let Some(refresh) = &refresh {
        output::note(format_args!("and: the newer model beside the active one\n"));
        let files = ["rows.parquet", "labels.parquet", "disguised.parquet"];
        let site = files.map(|name| at(name).display().to_string()).join(":");
        let mut command = Command::new(&python);
        command.args(["-m", "bliss_train", "compare", "--site"]).arg(format!("own:{site}"));
        command.arg("--active").arg(&refresh.active).arg("--base").arg(&base);
        command.arg("--json").arg(out.join("refresh.json")).args(["--seed", &options.seed.to_string()]);
        options.add_rules(&mut command);
        match succeed(command) {
            Err(error) if error.is::<Worse>() && options.even_if_worse => {
                output::note(format_args!("it is handed over all the same, as --even-if-worse says\n"));
            }
            compared => compared?,
        }
        return output::print(format_args!("{}", refresh.hand_over(&out.join("model.cbm"))?));
    }
    output::print(format_args!(
        "{0}/model.cbm is the model, {0}/report.html says what it is worth. Try it on a log: `blissctl score --model \
         {0}/model.cbm --log FILE --out scores.csv`; then name it as a shadow model of a route\n",
        out.display()
    ))
}

impl Options {
    /// The file of what was decided by hand, if there is one.
    fn decisions(&self) -> Option<PathBuf> {
        let of_daemon = || {
            let config = Config::read(self.config.as_deref()?).ok()?;
            let labels = folder(config.checkpoint.directory.as_deref(), &config.directory).labels();
            labels.is_file().then_some(labels)
        };
        self.decisions.clone().or_else(of_daemon)
    }

    /// How labels are given, as the user says.
    fn add_rules(&self, command: &mut Command) {
        if let Some(rules) = &self.rules {
            command.arg("--rules").arg(rules);
        }
        if let Some(decisions) = self.decisions() {
            command.arg("--decisions").arg(decisions);
        }
        if let Some(not_people) = &self.not_people {
            command.arg("--not-people").arg(not_people);
        }
    }
}

/// The newer model is worse than the active one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the newer model is worse than the active one, for the reason above, and is not handed over; it is in --out. Hand it over all \
     the same with --even-if-worse"
)]
struct Worse;

/// Where `--install` puts the virtual environment.
fn environment() -> anyhow::Result<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".local/share")));
    Ok(data
        .context("neither HOME nor XDG_DATA_HOME is set; name a Python with --python")?
        .join("bliss/train"))
}

fn check(python: &Path) -> anyhow::Result<()> {
    let found = Command::new(python).args(["-m", "bliss_train", "--version"]).output();
    match found {
        Ok(found) if found.status.success() => Ok(()),
        Ok(found) => anyhow::bail!(
            "{}: expected a Python with the package bliss-train, found none: {}; `blissctl train --install` sets it up",
            python.display(),
            String::from_utf8_lossy(&found.stderr).lines().last().unwrap_or("it says nothing")
        ),
        Err(error) => anyhow::bail!(
            "{}: {error}; training needs the Python package bliss-train: `blissctl train --install` sets it up",
            python.display()
        ),
    }
}

fn install(options: &Options) -> anyhow::Result<()> {
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent);
    let places = [
        options.package.clone(),
        beside.map(|programs| programs.join("../share/bliss/train")),
        // A checkout of BLISS: target/demo/blissctl.
        beside.map(|programs| programs.join("../../train")),
        Some(PathBuf::from("train")),
    ];
    let is_package = |place: &PathBuf| place.join("pyproject.toml").is_file();
    let package = places.into_iter().flatten().find(is_package).context(
        "the source of the Python package bliss-train is not found; name the folder `train` of BLISS with --package",
    )?;
    let environment = environment()?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&environment);
    succeed(venv).context("Debian: apt install python3-venv")?;
    let python = environment.join("bin/python");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(package.join("requirements.txt"));
    pip.arg(&package);
    succeed(pip)?;
    check(&python)?;
    output::print(format_args!("{} has bliss-train\n", environment.display()))
}

fn succeed(mut command: Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{program} cannot be started"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(NOTHING_TO_LEARN) => {
            anyhow::bail!(
                "nothing can be learned from this log, for the reason above; use the model that is in use now"
            )
        }
        Some(WORSE) => Err(Worse.into()),
        _ => anyhow::bail!("{program} ended with {status}; its message is above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            log: vec![PathBuf::from("/nonexistent/log")],
            out: Some(PathBuf::from("/nonexistent/out")),
            config: None,
            list: Vec::new(),
            base: "default".into(),
            rules: None,
            decisions: None,
            not_people: None,
            crowdsec: None,
            seed: 1,
            refresh: false,
            route: "default".into(),
            shadow: None,
            even_if_worse: false,
            install: false,
            package: None,
            python: Some(PathBuf::from("/nonexistent/python")),
        }
    }

    #[test]
    fn a_missing_package_is_told_with_what_to_do() {
        let error = run(&options()).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/python") && error.contains("blissctl train --install"),
            "{error}"
        );
        let other = Options { python: Some(PathBuf::from("/bin/false")), ..options() };
        let error = run(&other).unwrap_err().to_string();
        assert!(error.contains("expected a Python with the package bliss-train"), "{error}");
    }

    #[test]
    fn what_the_package_ends_with_is_told() {
        let ended = |code: i32| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exit {code}")]);
            succeed(command)
        };
        assert!(ended(0).is_ok());
        assert!(ended(3).unwrap_err().to_string().contains("nothing can be learned"));
        assert!(ended(5).unwrap_err().is::<Worse>());
        assert!(ended(1).unwrap_err().to_string().contains("its message is above"));
    }
}
