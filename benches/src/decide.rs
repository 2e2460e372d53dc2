//! `decide`: what a policy costs beside the score, on the whole path of a worker: pins, lookups, the model and the decision.
//!
//! Requests rotate over many addresses, paths and agents of the usual lengths. The first subject scores them and decides nothing; the
//! others differ in what is published as policy, on the same features and model. Each takes turns with scoring alone, batch by batch;
//! `cost_ns` is by how much its median is above that of these turns. Percentiles are of averages over batches. What is decided is checked before anything is timed.

use std::hint::black_box;
use std::time::Duration;

use anyhow::ensure;
use bliss_catboost::compile;
use bliss_catboost::ir::{FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_core::attribute::Value;
use bliss_core::build::{Change, DimensionChange, Exception, ModelSet, NamedModel, PolicySet, Rows, Subject};
use bliss_core::http::HttpRequest;
use bliss_core::policy::compiled::Action;
use bliss_core::policy::exceptions::ExceptionKind;
use bliss_core::policy::source::{Policy, Rule};
use bliss_core::prefixes::Prefix;
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_store::{Client, PublishOptions, Publisher};

use crate::measure::{batches, batches_in_turns};
use crate::report::{Report, Row};

/// Requests that are timed together.
const BATCH: u32 = 64;
/// Requests that rotate.
const REQUESTS: usize = 512;
const NOW: u32 = 1_000_000;

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rules of the policy, at most 250.
    #[arg(long, default_value_t = 50)]
    pub rules: usize,
    /// Exceptions of the subject that has some: half networks, half user agents.
    #[arg(long, default_value_t = 65_536)]
    pub exceptions: u32,
    /// How long each subject is measured.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

/// Measures all subjects.
///
/// # Errors
/// Where something cannot be published, or a decision is not what it should be.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    ensure!(options.rules <= 250, "expected at most 250 rules, found {}", options.rules);
    let directory = tempfile::tempdir_in(if cfg!(target_os = "linux") { "/dev/shm" } else { "." })?;
    let mut publisher = Publisher::open(directory.path(), &PublishOptions::default(), schema())?;
    publish_features(&mut publisher)?;
    let mut client = Client::open(directory.path())?;
    let id = client.names().http()?;
    let texts: Vec<_> = (0..REQUESTS).map(texts).collect();
    let requests: Vec<_> = texts
        .iter()
        .map(|(address, target, agent)| {
            let mut request = Request::new();
            let http = HttpRequest {
                ip: Some(Value::Binary(address)),
                method: Some(b"GET"),
                target: Some(target.as_bytes()),
                scheme: Some(b"https"),
                host: Some(b"shop.example"),
                user_agent: Some(agent.as_bytes()),
                ..HttpRequest::default()
            };
            request.set_http(&id, http);
            request
        })
        .collect();
    eprintln!(
        "decide: {} rules, {} exceptions, {REQUESTS} requests in turn; no rule answers but the last, a band",
        options.rules, options.exceptions
    );
    let duration = Duration::from_secs_f64(options.seconds);
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % REQUESTS;
        &requests[at]
    };
    let score = batches(duration, BATCH, || {
        black_box(client.score(next(), "", NOW));
    });
    report.add(Row::new("decide", "score alone").with_times(&score).with("rules", 0));

    let subjects: [(&str, Option<PolicySet>, &str); 6] = [
        ("no policy published", None, "default"),
        ("built-in policy", Some(PolicySet::default()), "default"),
        ("paths, hosts, methods", Some(set(mixed(options.rules, Kind::Request), 0)), "band"),
        ("features", Some(set(mixed(options.rules, Kind::Features), 0)), "band"),
        ("half and half", Some(set(mixed(options.rules, Kind::Both), 0)), "band"),
        (
            "half and half, exceptions",
            Some(set(mixed(options.rules, Kind::Both), options.exceptions)),
            "band",
        ),
    ];
    for (name, set, rule) in subjects {
        let rules =
            set.as_ref().map_or(0, |set| set.policies.iter().map(|p| p.deny.len() + p.band.len()).sum());
        if let Some(set) = set {
            publisher.publish_policies(&set)?;
        }
        for request in &requests {
            let decision = client.decide(request, "", NOW);
            ensure!(decision.rule == rule && decision.answer.outcome.is_ok(), "{name}: {decision:?}");
        }
        let [alone, times] = batches_in_turns(duration, BATCH, |decides| {
            if decides {
                black_box(client.decide(next(), "", NOW).action);
            } else {
                black_box(client.score(next(), "", NOW));
            }
        });
        let cost = times.percentiles().p50 - alone.percentiles().p50;
        let cost = (cost * 10.0).round() / 10.0;
        report.add(Row::new("decide", name).with_times(&times).with("rules", rules).with("cost_ns", cost));
    }
    Ok(())
}

/// What the rules look at.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    Features,
    Both,
}

/// Rules that deny, none of which holds, and one band that does.
fn mixed(count: usize, kind: Kind) -> Policy {
    let deny = (1..count).map(|i| {
        let rule = Rule { name: format!("rule {i}"), ..Rule::default() };
        match (kind, i % 4) {
            (Kind::Features, _) | (Kind::Both, 0 | 1) => {
                Rule { when: vec![format!("ip.f{} > 1000", i % 8), format!("subnet.f{} < 5", i % 8)], ..rule }
            }
            (_, 0) => Rule { method: vec!["PUT".into(), "DELETE".into()], ..rule },
            (_, 1) => Rule { host: vec![format!("host{i}.example")], ..rule },
            _ => Rule { path_prefix: vec![format!("/category/{i}/"), format!("/admin/{i}")], ..rule },
        }
    });
    let band = Rule { name: "band".into(), below: Some(100), action: Some(Action::Tag), ..Rule::default() };
    Policy { name: "measured".into(), deny: deny.collect(), band: vec![band], ..Policy::default() }
}

fn set(policy: Policy, exceptions: u32) -> PolicySet {
    let exception = |n: u32| {
        // 198.18.0.0/15 and more: none of them is a client's.
        let network = std::net::Ipv4Addr::from_bits((198 << 24 | 18 << 16) + n);
        let prefix = Prefix::new(network.into(), 32).ok().filter(|_| n.is_multiple_of(2));
        Exception {
            kind: ExceptionKind::Deny,
            subject: prefix.map_or_else(|| Subject::UserAgent(format!("agent/{n}")), Subject::Prefix),
            until: u32::MAX,
            name: format!("exception {n}"),
            status: None,
            header: None,
        }
    };
    PolicySet {
        off: false,
        routes: vec![("default".into(), policy.name.clone())],
        policies: vec![policy],
        exceptions: (0..exceptions).map(exception).collect(),
    }
}

fn schema() -> Schema {
    let dimension = |name: &str, key: KeyPart| Dimension {
        name: name.into(),
        key: vec![key],
        max_age_seconds: 0,
        on_stale: Default::default(),
        features: (0..8).map(|i| Feature::number(&format!("f{i}"))).collect(),
    };
    Schema {
        dimensions: vec![
            dimension("ip", KeyPart::whole("ip")),
            dimension("subnet", KeyPart::subnet("ip", 24, 48)),
        ],
        ..Schema::default()
    }
}

fn address(n: usize) -> [u8; 4] {
    [10, (n >> 6) as u8, (n >> 3) as u8 & 7, n as u8]
}

fn texts(n: usize) -> ([u8; 4], String, String) {
    let agent = format!(
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
        100 + n % 40
    );
    (address(n), format!("/category/shoes-and-more/product-{n}.html?size={}", n % 50), agent)
}

/// Both dimensions for all addresses, and a model of 200 trees.
fn publish_features(publisher: &mut Publisher) -> anyhow::Result<()> {
    let mut tables = [Rows::new(8), Rows::new(8)];
    for n in 0..REQUESTS {
        for (index, rows) in tables.iter_mut().enumerate() {
            // Eight addresses share a subnet.
            if index == 1 && n % 8 != 0 {
                continue;
            }
            let address = address(n);
            let key = publisher.key(index, &[Value::Binary(&address)]);
            let Some(key) = key else { anyhow::bail!("an address is none") };
            rows.push(key, NOW, &[n as f32; 8]);
        }
    }
    let dimensions = tables.map(DimensionChange::Replace).into_iter().enumerate().collect();
    publisher.publish(Change { dimensions })?;
    let float = |index: usize| FloatFeature {
        index,
        name: format!("{}.f{}", ["ip", "subnet"][index / 8], index % 8),
        borders: (0..16).map(|border| (border * 32) as f32).collect(),
        ..FloatFeature::default()
    };
    let tree = |i: usize| ObliviousTree {
        splits: (0..6).map(|depth| Split::Float((i + depth) % 16, (i * 7 + depth * 3) % 16)).collect(),
        leaves: (0..64).map(|leaf| f64::from((leaf * 37 + i as i32) % 11 - 5) / 100.0).collect(),
    };
    let model = Model {
        dimensions: 1,
        scale: 1.0,
        floats: (0..16).map(float).collect(),
        trees: Trees::Oblivious((0..200).map(tree).collect()),
        ..Model::default()
    };
    let compiled = compile(&model)?;
    let model = NamedModel { name: "m".into(), version: "1".into(), bot_class: 1, compiled };
    publisher.publish_models(&ModelSet::of_one(model))?;
    Ok(())
}
