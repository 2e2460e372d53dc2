//! Tests of the scorer; this file holds what they share.

mod binding;
mod decisions;
mod explanations;
mod instructions;
mod lookups;
mod networks;
mod request_values;
mod scores;
mod shadows;
mod stale;

use rkyv::util::AlignedVec;

use super::*;
use crate::attribute::Value;
use crate::build::{
    BuildJob, Change, DimensionChange, FeaturesBuilder, ModelSet, NamedModel, NamedRoute, Rows,
};
use crate::key::{KeySecret, SECRET_BYTES};
use crate::publication::models::DEFAULT_ROUTE;
use crate::schema::{Attribute, AttributeKind, Dimension, Feature, FeatureKind, KeyPart, Schema};
use crate::score::{Counts, bot_score};
use bliss_catboost::ir::{AnswerForm, CatFeature, FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_catboost::{category_hash, compile};

const NOW: u32 = 1_000_000;

fn dimension(name: &str, key: Vec<KeyPart>, features: Vec<Feature>) -> Dimension {
    Dimension { name: name.into(), key, max_age_seconds: 600, on_stale: Default::default(), features }
}

fn with_default(name: &str, default: f32) -> Feature {
    Feature { default, ..Feature::number(name) }
}

fn schema() -> Schema {
    let category = Feature { kind: FeatureKind::Category, ..Feature::number("network") };
    Schema {
        attributes: vec![Attribute { name: "tenant".into(), kind: AttributeKind::U64 }],
        dimensions: vec![
            dimension("ip", vec![KeyPart::whole("ip")], vec![with_default("requests_1m", 0.5), category]),
            dimension("subnet", vec![KeyPart::subnet("ip", 24, 48)], vec![with_default("ips", -1.0)]),
            dimension(
                "tenant_path",
                vec![KeyPart::whole("tenant"), KeyPart::whole("path")],
                vec![with_default("errors", 7.0)],
            ),
        ],
        clock_skew_seconds: 60,
        max_heartbeat_age_seconds: 0,
        site_hosts: vec!["static.example".into()],
    }
}

/// Publishes rows given as dimension, attribute values, age in seconds, and columns.
fn pack_rows(schema: &Schema, rows: &[(usize, &[Value<'_>], i64, &[f32])]) -> AlignedVec<64> {
    let secret = KeySecret([3; SECRET_BYTES]);
    let empty = pack_change(schema, &secret, &Change::default());
    let mut keys = BoundDimensions::new();
    keys.bind(FeaturesRef::open(&empty).unwrap(), &Names::default()).unwrap();
    let tables = schema.dimensions.iter().enumerate().map(|(i, d)| {
        let mut table = Rows::new(d.features.len());
        for (_, values, age, columns) in rows.iter().filter(|r| r.0 == i) {
            table.push(keys.key(i, values).unwrap(), (i64::from(NOW) - age) as u32, columns);
        }
        (i, DimensionChange::Replace(table))
    });
    pack_change(schema, &secret, &Change { dimensions: tables.collect() })
}

fn pack_change(schema: &Schema, secret: &KeySecret, change: &Change) -> AlignedVec<64> {
    let builder = FeaturesBuilder::plan(schema, secret, None, change).unwrap();
    let mut bytes = AlignedVec::new();
    bytes.resize(builder.bytes() as usize, 0);
    builder.write(&mut bytes, 1, |jobs| jobs.into_iter().map(BuildJob::run).sum()).unwrap();
    bytes
}

fn number(name: &str, border: f32) -> FloatFeature {
    FloatFeature { name: name.into(), borders: vec![border], ..FloatFeature::default() }
}

/// A model that adds `weight` for each of its numbers above its border.
fn stumps(features: &[(&str, f32, f64)]) -> Model {
    Model {
        dimensions: 1,
        scale: 1.0,
        floats: features
            .iter()
            .enumerate()
            .map(|(index, (name, border, _))| FloatFeature { index, ..number(name, *border) })
            .collect(),
        trees: Trees::Oblivious(
            features
                .iter()
                .enumerate()
                .map(|(i, (_, _, weight))| ObliviousTree {
                    splits: vec![Split::Float(i, 0)],
                    leaves: vec![0.0, *weight],
                })
                .collect(),
        ),
        ..Model::default()
    }
}

fn named(name: &str, model: &Model) -> NamedModel {
    let compiled = compile(model).unwrap();
    NamedModel { name: name.into(), version: "7".into(), bot_class: 1, compiled }
}

fn route(name: &str, active: &str) -> NamedRoute {
    NamedRoute { name: name.into(), active: Some(active.into()), shadows: vec![] }
}

fn sigmoid(raw: f64) -> f64 {
    1.0 / (1.0 + (-raw).exp())
}

struct Bench {
    names: Names,
    scorer: Scorer,
    features: AlignedVec<64>,
    models: AlignedVec<64>,
}

impl Bench {
    fn new(features: AlignedVec<64>, set: &ModelSet) -> Self {
        let mut bench =
            Self { names: Names::default(), scorer: Scorer::new(), features, models: set.pack().unwrap() };
        for name in ["ip", "tenant", "path"] {
            bench.names.attribute(name).unwrap();
        }
        bench.names.number("header_count").unwrap();
        bench.names.category("country").unwrap();
        bench.bind();
        bench
    }

    fn bind(&mut self) {
        self.scorer.bind_features(&self.features, &self.names).unwrap();
        self.scorer.bind_models(&self.models, &self.names).unwrap();
    }

    fn request<'a>(&mut self, attributes: &[(&str, Value<'a>)]) -> Request<'a> {
        let mut request = Request::new();
        attributes
            .iter()
            .for_each(|(name, value)| request.set_attribute(self.names.attribute(name).unwrap(), *value));
        request
    }

    fn score(&mut self, request: &Request<'_>, route: &str) -> Answer {
        // SAFETY:
        // - `self.models` was bound last and is not changed
        unsafe { self.scorer.score(&self.features, &self.models, request, route, NOW) }
    }
}

fn one_model(model: &Model) -> ModelSet {
    ModelSet { models: vec![named("m", model)], routes: vec![route(DEFAULT_ROUTE, "m")] }
}

fn rows_of_one_client() -> AlignedVec<64> {
    let network = f32::from_bits(category_hash(b"hosting"));
    pack_rows(
        &schema(),
        &[
            (0, &["192.0.2.1".into()], 10, &[42.0, network]),
            (1, &["192.0.2.99".into()], 601, &[5.0]),
            (2, &[Value::U64(9), "/".into()], -60, &[0.25]),
        ],
    )
}
