//! What tests of the C library, of the Lua module and of nginx have in common: a site with features and a model whose
//! scores are known, and the library as C programs load it.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bliss_catboost::ir::{CatFeature, FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_catboost::{category_hash, compile, compile_explainable};
use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange, Exception, PolicySet, Subject};
use bliss_core::build::{ModelSet, NamedModel, NamedRoute};
use bliss_core::metrics::{self, Kind, Series};
use bliss_core::policy::compiled::Action;
use bliss_core::policy::exceptions::ExceptionKind;
use bliss_core::policy::source::{Policy, Rule};
use bliss_core::prefixes::Prefix;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_store::{MetricsFile, PublishOptions, Publisher};

/// Requests per minute above which the model suspects an address.
pub const MANY_REQUESTS: f32 = 50.0;

/// A directory, and a publisher of it that can be stopped and started.
pub struct Site {
    _directory: Option<tempfile::TempDir>,
    path: PathBuf,
    options: PublishOptions,
    publisher: Option<Publisher>,
}

impl Site {
    /// A directory in which nothing was published yet; on a tmpfs where there is one.
    pub fn empty() -> Self {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("bliss-test-").tempdir_in(parent).unwrap();
        let path = directory.path().to_path_buf();
        Self { _directory: Some(directory), path, options: PublishOptions::default(), publisher: None }
    }

    /// A directory of somebody else.
    pub fn at(path: &Path) -> Self {
        Self {
            _directory: None,
            path: path.to_path_buf(),
            options: PublishOptions::default(),
            publisher: None,
        }
    }

    /// The group of the files that are made from now on.
    pub fn for_group(mut self, group: u32) -> Self {
        self.options.group = Some(group);
        self
    }

    /// A directory with [features](Self::publish_features) and [models](Self::publish_models).
    pub fn published() -> Self {
        let mut site = Self::empty();
        site.publish_features();
        site.publish_models("1");
        site
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn publisher(&mut self) -> &mut Publisher {
        self.publisher.get_or_insert_with(|| {
            let publisher = Publisher::open(&self.path, &self.options, schema()).unwrap();
            // As the daemon does when it starts.
            MetricsFile::open(&self.path, &self.options).unwrap();
            publisher
        })
    }

    /// How many requests have been given a score, or a reason for having none, by the workers' own counters.
    pub fn decisions(&self) -> u64 {
        let mut total = 0;
        let count = |slot: metrics::Slot<'_>| {
            for (series, cells) in slot.entries() {
                let kind = match series {
                    Series::Of(id) => id.kind(),
                    Series::Other(kind) => Some(kind),
                    Series::NoRoute => Some(Kind::Unscored),
                };
                total += match kind {
                    Some(Kind::Scores) => metrics::scores(&cells).0.map(|(_, count)| count).sum(),
                    Some(Kind::Unscored) => metrics::unscored(&cells).map(|(_, count)| count).sum(),
                    _ => 0,
                };
            }
        };
        MetricsFile::open(&self.path, &self.options).unwrap().slots(count).unwrap();
        total
    }

    /// Ends the publisher as the end of its process would: files stay.
    pub fn stop_publisher(&mut self) {
        self.publisher = None;
    }

    /// Addresses 192.0.2.1 to 192.0.2.100: address N made N requests; 127.0.0.1 made 10; those from 192.0.2.90 on are
    /// too old.
    pub fn publish_features(&mut self) {
        let now = now();
        let publisher = self.publisher();
        let mut rows = Rows::new(2);
        let mut row = |address: String, requests: f32, updated_at: u32| {
            let key = publisher.key(0, &[address.as_str().into()]).unwrap();
            rows.push(key, updated_at, &[requests, 1.0]);
        };
        for n in 1..=100 {
            row(format!("192.0.2.{n}"), n as f32, if n < 90 { now } else { now - 100_000 });
        }
        row("127.0.0.1".into(), 10.0, now);
        let mut agents = Rows::new(1);
        agents.push(publisher.key(1, &["curl/8".into()]).unwrap(), now, &[3.0]);
        let dimensions = vec![(0, DimensionChange::Replace(rows)), (1, DimensionChange::Replace(agents))];
        publisher.publish(Change { dimensions }).unwrap();
    }

    /// Lets what is published get old, as if the daemon had ended. The next [heartbeat](Publisher::heartbeat) ends that.
    pub fn fall_silent(&mut self) {
        let schema = Schema { max_heartbeat_age_seconds: 1, ..schema() };
        let publisher = self.publisher();
        publisher.set_schema(schema).unwrap();
        publisher.publish(Change::default()).unwrap();
        std::thread::sleep(Duration::from_millis(2_100));
    }

    /// The site's own hosts.
    pub fn publish_site_hosts(&mut self, site_hosts: &[String]) {
        let schema = Schema { site_hosts: site_hosts.to_vec(), ..schema() };
        let publisher = self.publisher();
        publisher.set_schema(schema).unwrap();
        publisher.publish(Change::default()).unwrap();
    }

    /// One small change: what `address` did.
    pub fn publish_row(&mut self, address: &str, requests: f32) {
        let publisher = self.publisher();
        let mut upserts = Rows::new(2);
        upserts.push(publisher.key(0, &[address.into()]).unwrap(), now(), &[requests, 1.0]);
        let dimensions = vec![(0, DimensionChange::Patch { upserts, deletes: vec![] })];
        publisher.publish(Change { dimensions }).unwrap();
    }

    /// A policy with rules of several kinds, and exceptions.
    pub fn publish_policies(&mut self, round: u32) {
        let rule =
            |name: &str, when: &str| Rule { name: name.into(), when: vec![when.into()], ..Rule::default() };
        let policy = Policy {
            name: format!("p{round}"),
            deny: vec![rule("many", "ip.requests_1m > 1000"), rule("curl", "user_agent.requests_1m > 5")],
            allow: vec![Rule {
                path: vec!["/health".into()],
                percent: Some(50.0),
                ..rule("xx", "request.country = \"XX\"")
            }],
            band: vec![Rule {
                below: Some(40),
                action: Some(Action::Challenge),
                ..rule("low", "request.has_accept = 1")
            }],
            ..Policy::default()
        };
        let exceptions = (0..round).map(|n| Exception {
            kind: ExceptionKind::Allow,
            subject: Subject::Prefix(Prefix::parse(format!("192.0.{n}.0/24").as_bytes()).unwrap()),
            until: n,
            name: format!("e{n}"),
            status: None,
            header: None,
        });
        let set = PolicySet {
            routes: vec![("default".into(), policy.name.clone())],
            policies: vec![policy],
            exceptions: exceptions.collect(),
            off: false,
        };
        self.publisher().publish_policies(&set).unwrap();
    }

    /// Model `web` for every route, which needs nothing but [features](Self::publish_features) and cannot be explained.
    pub fn publish_web_model(&mut self, version: &str) {
        self.publish_only("web", version, false);
    }

    /// The same model, called `told`, with what explanations need.
    pub fn publish_explainable_web_model(&mut self, version: &str) {
        self.publish_only("told", version, true);
    }

    fn publish_only(&mut self, name: &str, version: &str, explain: bool) {
        let mut web = model(0.0);
        web.floats.truncate(1);
        web.cats.clear();
        if let Trees::Oblivious(trees) = &mut web.trees {
            trees.truncate(1);
        }
        web.leaf_weights.truncate(1);
        let compiled = if explain { compile_explainable(&web) } else { compile(&web) }.unwrap();
        let set = ModelSet {
            models: vec![NamedModel { name: name.into(), version: version.into(), bot_class: 1, compiled }],
            routes: vec![NamedRoute { name: "default".into(), active: Some(name.into()), shadows: vec![] }],
        };
        self.publisher().publish_models(&set).unwrap();
    }

    /// Model `demo` for the default route, and `strict` for route `login`; each is the shadow of the other. Both can be explained.
    pub fn publish_models(&mut self, version: &str) {
        let model = |name: &str, bias| NamedModel {
            name: name.into(),
            version: version.into(),
            bot_class: 1,
            compiled: compile_explainable(&model(bias)).unwrap(),
        };
        let route = |name: &str, active: &str, shadow: &str| NamedRoute {
            name: name.into(),
            active: Some(active.into()),
            shadows: vec![shadow.into()],
        };
        let set = ModelSet {
            models: vec![model("demo", 0.0), model("strict", 1.0)],
            routes: vec![route("default", "demo", "strict"), route("login", "strict", "demo")],
        };
        self.publisher().publish_models(&set).unwrap();
    }
}

/// Seconds since the Unix epoch.
pub fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

fn schema() -> Schema {
    let dimension = |name: &str, attribute: &str, features: &[&str]| Dimension {
        name: name.into(),
        key: vec![KeyPart::whole(attribute)],
        max_age_seconds: 3600,
        on_stale: Default::default(),
        features: features.iter().map(|name| Feature::number(name)).collect(),
    };
    Schema {
        dimensions: vec![
            dimension("ip", "ip", &["requests_1m", "unique_user_agents_5m"]),
            dimension("user_agent", "user_agent", &["requests_1m"]),
        ],
        max_heartbeat_age_seconds: 3600,
        ..Schema::default()
    }
}

/// Raw value: -2 or, with many requests, +2; +0.5 where the request has few headers, else -0.5; +1 where it comes from
/// country `XX`; and the bias. Of the training data 60 % had many requests, 30 % many headers, and 10 % came from `XX`, so that
/// 0.7 and the bias are expected: 0.4, 0.2 and 0.1 of the trees.
fn model(bias: f64) -> Model {
    let float = |index, name: &str, border| FloatFeature {
        index,
        name: name.into(),
        borders: vec![border],
        ..FloatFeature::default()
    };
    let tree = |split, leaves: [f64; 2]| ObliviousTree { splits: vec![split], leaves: leaves.into() };
    Model {
        class_names: vec!["0".into(), "1".into()],
        dimensions: 1,
        scale: 1.0,
        bias: vec![bias],
        floats: vec![float(0, "ip.requests_1m", MANY_REQUESTS), float(1, "request.header_count", 5.0)],
        cats: vec![CatFeature { index: 0, name: "request.country".into() }],
        trees: Trees::Oblivious(vec![
            tree(Split::Float(0, 0), [-2.0, 2.0]),
            tree(Split::Float(1, 0), [0.5, -0.5]),
            tree(Split::OneHot(0, category_hash(b"XX")), [0.0, 1.0]),
        ]),
        leaf_weights: vec![vec![40.0, 60.0], vec![70.0, 30.0], vec![90.0, 10.0]],
        ..Model::default()
    }
}

/// The score that [`model`] leads to.
pub fn expected_score(requests: f32, headers: f32, country: &str, bias: f64) -> u8 {
    let raw = bias
        + if requests > MANY_REQUESTS { 2.0 } else { -2.0 }
        + if headers > 5.0 { -0.5 } else { 0.5 }
        + if country == "XX" { 1.0 } else { 0.0 };
    bliss_core::score::bot_score(1.0 / (1.0 + f64::exp(-raw))).unwrap()
}

/// The score that the model `web` leads to.
pub fn web_score(requests: f32) -> u8 {
    let raw: f64 = if requests > MANY_REQUESTS { 2.0 } else { -2.0 };
    bliss_core::score::bot_score(1.0 / (1.0 + f64::exp(-raw))).unwrap()
}

/// libblissffi as it is installed: shared and static, built without the features that tests turn on.
pub struct Library {
    pub shared: PathBuf,
    pub archive: PathBuf,
}

/// Builds libblissffi in the target directory of the running test, unless it is up to date.
pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let files = build(&["--package", "bliss-ffi", "--lib"], "blissffi");
        let with = |extension: &str| {
            let found = files.iter().find(|file| file.extension().is_some_and(|e| e == extension));
            found.unwrap_or_else(|| panic!("no .{extension} among {files:?}")).clone()
        };
        Library { shared: with("so"), archive: with("a") }
    })
}

/// Builds a program of the workspace, unless it is up to date. A test is named as well, so that cargo chooses the
/// features of dependencies as it does for the tests of the workspace, and what those were built with is used again.
pub fn program(name: &str) -> PathBuf {
    build(&["--workspace", "--bin", name, "--test", "cdefs"], name).pop().unwrap()
}

/// What cargo makes of `target`, in the target directory and profile of the running test.
fn build(arguments: &[&str], target: &str) -> Vec<PathBuf> {
    // target/PROFILE/deps/test-1234
    let test = std::env::current_exe().unwrap();
    let directory = test.ancestors().nth(3).unwrap();
    let profile = test.ancestors().nth(2).and_then(Path::file_name).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg("build").args(arguments).args(["--message-format", "json", "--target-dir"]).arg(directory);
    if profile != "debug" {
        cargo.arg("--profile").arg(profile);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = cargo.current_dir(workspace).output().unwrap();
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten()
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .collect()
}

/// Says why something is not tested, where it is seen: what `eprintln!` says is only shown of tests that fail.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Whether a program is installed; says so if it is not.
pub fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

/// Waits until `done`, which is asked again and again; the limit is only there so that a failing test ends.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(std::time::Instant::now() < end, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
