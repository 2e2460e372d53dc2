//! The cases of `docs/policy-vectors.jsonl`, and a site on which they hold: what tests of Rust, C, Lua and nginx have in common.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use bliss_catboost::ir::{FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_catboost::{category_hash, compile};
use bliss_core::build::{Change, DimensionChange, Exception, ModelSet, NamedModel, PolicySet, Rows, Subject};
use bliss_core::pass::PassKey;
use bliss_core::policy::exceptions::ExceptionKind;
use bliss_core::policy::source::Policy;
use bliss_core::prefixes::{Address, Prefix};
use bliss_core::schema::{Dimension, Feature, FeatureKind, KeyPart, Schema};
use bliss_store::{MetricsFile, PublishOptions, Publisher};
use serde_json::Value;

/// What is published, and requests with the decisions about them.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    pub name: String,
    /// Times are relative to the moment of the request.
    set: Value,
    /// Whether no model is published.
    #[serde(default)]
    pub unscored: bool,
    /// How many features the schema lacks.
    #[serde(default)]
    pub unbound: usize,
    pub requests: Vec<Case>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Fields of `bliss_http_t`. A `pass` that is "its own", "another's" or "run out" is made by [`vectors_of`].
    pub request: BTreeMap<String, String>,
    pub route: String,
    pub decision: Decided,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    pub action: String,
    pub rule: String,
    pub status: u16,
    #[serde(default)]
    pub header: Option<String>,
    /// Rule and action.
    #[serde(default)]
    pub simulated: Option<(String, String)>,
    #[serde(default)]
    pub exception: Option<String>,
}

pub fn vectors() -> Vec<Vector> {
    let lines = include_str!("../../../docs/policy-vectors.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The same, with passes under the publisher's secret for requests at time `now`.
pub fn vectors_of(publisher: &Publisher, now: u32) -> Vec<Vector> {
    let key = PassKey::of(publisher.secret());
    let mut vectors = vectors();
    for request in vectors.iter_mut().flat_map(|vector| &mut vector.requests).map(|case| &mut case.request) {
        let Some(pass) = request.get("pass") else { continue };
        let (ip, from) = match pass.as_str() {
            "its own" => (request["ip"].as_str(), now),
            "another's" => ("192.0.2.250", now),
            "run out" => (request["ip"].as_str(), now - 3600),
            _ => continue,
        };
        let ip: std::net::Ipv4Addr = ip.parse().unwrap();
        let made =
            key.make(Some(Address::V4(ip.into())), request["user_agent"].as_bytes(), 3600, from).unwrap();
        request.insert("pass".into(), made.as_str().into());
    }
    vectors
}

impl Vector {
    /// What is to be published, for requests at time `now`.
    pub fn set(&self, now: u32) -> PolicySet {
        let time = |value: &Value| (i64::from(now) + value.as_i64().unwrap()) as u32;
        let list = |name: &str| self.set[name].as_array().cloned().unwrap_or_default();
        let policies = list("policies").into_iter().map(|mut policy| {
            for stage in policy.as_object_mut().unwrap().values_mut() {
                for rule in stage.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                    for name in ["from", "until"] {
                        rule.entry(name).and_modify(|value| *value = time(value).into());
                    }
                    rule.retain(|_, value| !value.is_null());
                }
            }
            serde_json::from_value::<Policy>(policy).unwrap()
        });
        let routes = self.set["routes"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let exceptions = list("exceptions").into_iter().map(|e| Exception {
            kind: serde_json::from_value::<ExceptionKind>(e["kind"].clone()).unwrap(),
            subject: match text(&e["prefix"]) {
                Some(prefix) => Subject::Prefix(Prefix::parse(prefix.as_bytes()).unwrap()),
                None => Subject::UserAgent(text(&e["user_agent"]).unwrap()),
            },
            until: time(&e["until"]),
            name: text(&e["name"]).unwrap(),
            status: e["status"].as_u64().map(|status| status as u16),
            header: text(&e["header"]),
        });
        PolicySet {
            off: self.set["off"].as_bool().unwrap_or(false),
            policies: policies.collect(),
            routes: routes.map(|(route, policy)| (route.clone(), text(policy).unwrap())).collect(),
            exceptions: exceptions.collect(),
        }
    }
}

/// Dimensions `ip`, `crawler` and `lists`, each by address.
pub fn schema() -> Schema {
    let dimension = |name: &str, features: Vec<Feature>| Dimension {
        name: name.into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 3600,
        on_stale: Default::default(),
        features,
    };
    let category = Feature { kind: FeatureKind::Category, ..Feature::number("category") };
    Schema {
        dimensions: vec![
            dimension("ip", vec![Feature::number("requests_1m")]),
            dimension("crawler", vec![Feature::number("state"), category]),
            dimension("lists", vec![Feature::number("vpn")]),
        ],
        ..Schema::default()
    }
}

/// A publisher with the features: address 192.0.2.N made N requests for N up to 100, those from 90 on long ago; of those from 200 on
/// see below; others have no row.
pub fn publisher(directory: &Path, options: &PublishOptions, now: u32) -> Publisher {
    let mut publisher = Publisher::open(directory, options, schema()).unwrap();
    MetricsFile::open(directory, options).unwrap();
    let (mut requests, mut crawlers, mut lists) = (Rows::new(1), Rows::new(2), Rows::new(1));
    let key = |index: usize, n: u32| {
        let address = format!("192.0.2.{n}");
        publisher.key(index, &[address.as_str().into()]).unwrap()
    };
    for n in 1..=100 {
        requests.push(key(0, n), if n < 90 { now } else { now - 100_000 }, &[n as f32]);
    }
    lists.push(key(2, 200), now, &[1.0]);
    lists.push(key(2, 1), now, &[0.0]);
    requests.push(key(0, 201), now, &[5_000.0]);
    // Verified for search and for training, fake, and claimed.
    for (n, state, category) in
        [(202, 2.0, "search"), (203, 2.0, "ai_training"), (204, 3.0, "search"), (205, 1.0, "search")]
    {
        crawlers.push(key(1, n), now, &[state, f32::from_bits(category_hash(category.as_bytes()))]);
        requests.push(key(0, n), now, &[70.0]);
    }
    let tables = [requests, crawlers, lists].map(DimensionChange::Replace);
    publisher.publish(Change { dimensions: tables.into_iter().enumerate().collect() }).unwrap();
    publisher
}

/// Publishes the model: up to 20 requests are a person's, more than 50 a robot's, and those between could be either's.
pub fn publish_model(publisher: &mut Publisher) {
    let requests =
        FloatFeature { name: "ip.requests_1m".into(), borders: vec![20.0, 50.0], ..FloatFeature::default() };
    let model = Model {
        class_names: vec!["0".into(), "1".into()],
        dimensions: 1,
        scale: 1.0,
        bias: vec![-4.0],
        floats: vec![requests],
        trees: Trees::Oblivious(vec![ObliviousTree {
            splits: vec![Split::Float(0, 0), Split::Float(0, 1)],
            leaves: vec![0.0, 4.0, 0.0, 8.0],
        }]),
        ..Model::default()
    };
    let compiled = compile(&model).unwrap();
    let model = NamedModel { name: "requests".into(), version: "1".into(), bot_class: 1, compiled };
    publisher.publish_models(&ModelSet::of_one(model)).unwrap();
}

/// Publishes what a vector needs.
pub fn publish(publisher: &mut Publisher, vector: &Vector, now: u32) {
    if vector.unscored {
        publisher.publish_models(&ModelSet::default()).unwrap();
    } else {
        publish_model(publisher);
    }
    publisher.publish_policies(&vector.set(now)).unwrap();
}
