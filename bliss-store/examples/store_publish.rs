//! Publishes features of addresses and a model that reads them, then changes one row.
//!
//! ```sh
//! mkdir /dev/shm/bliss-example
//! cargo run -p bliss-store --example store_publish -- /dev/shm/bliss-example
//! ```
//!
//! `store_look_up` and `store_score` read what it publishes.

use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use bliss_catboost::compile;
use bliss_catboost::ir::{FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_core::build::{Change, DimensionChange, ModelSet, NamedModel, NamedRoute, Rows};
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_store::{PublishOptions, Publisher};

/// Index of the only dimension.
const IP: usize = 0;

/// One dimension, `ip`: two numbers per client address, fresh for ten minutes.
fn schema() -> Schema {
    let ip = Dimension {
        name: "ip".into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 600,
        on_stale: Default::default(),
        features: vec![Feature::number("requests_1m"), Feature::number("errors_1m")],
    };
    Schema { dimensions: vec![ip], ..Schema::default() }
}

/// A model of one tree: more than 100 requests in a minute look automated. Models from CatBoost are read with
/// `bliss_catboost::import`; their inputs are named like this one, `dimension.feature`.
fn models() -> Result<ModelSet, Box<dyn Error>> {
    let requests =
        FloatFeature { name: "ip.requests_1m".into(), borders: vec![100.0], ..FloatFeature::default() };
    // Leaves are log-odds of class 1.
    let tree = ObliviousTree { splits: vec![Split::Float(0, 0)], leaves: vec![-3.0, 3.0] };
    let model = Model {
        dimensions: 1,
        scale: 1.0,
        floats: vec![requests],
        trees: Trees::Oblivious(vec![tree]),
        ..Model::default()
    };
    let rate =
        NamedModel { name: "rate".into(), version: "1".into(), bot_class: 1, compiled: compile(&model)? };
    let route = NamedRoute { name: "default".into(), active: Some("rate".into()), shadows: vec![] };
    Ok(ModelSet { models: vec![rate], routes: vec![route] })
}

/// Rows of the dimension `ip`.
fn rows(publisher: &Publisher, now: u32, addresses: &[(&str, [f32; 2])]) -> Result<Rows, Box<dyn Error>> {
    let mut rows = Rows::new(2);
    for (address, values) in addresses {
        let key = publisher.key(IP, &[(*address).into()]).ok_or("not an address")?;
        rows.push(key, now, values);
    }
    Ok(rows)
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: publish DIRECTORY")?;
    let now = u32::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_secs())?;
    let mut publisher = Publisher::open(Path::new(&directory), &PublishOptions::default(), schema())?;

    // All rows of the dimension.
    let all = rows(&publisher, now, &[("192.0.2.1", [3.0, 0.0]), ("192.0.2.2", [20.0, 1.0])])?;
    publisher.publish(Change { dimensions: vec![(IP, DimensionChange::Replace(all))] })?;

    // Some of them. What a change does not name stays as it is.
    let upserts = rows(&publisher, now, &[("192.0.2.2", [240.0, 31.0])])?;
    let patch = DimensionChange::Patch { upserts, deletes: vec![] };
    let features = publisher.publish(Change { dimensions: vec![(IP, patch)] })?;
    println!("features: generation {}, {} bytes", features.generation, features.bytes);

    let models = publisher.publish_models(&models()?)?;
    println!("models: generation {}, {} bytes", models.generation, models.bytes);
    // A daemon goes on publishing, and calls `heartbeat` once a second. What is published stays when it ends.
    Ok(())
}
