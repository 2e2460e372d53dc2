//! From rows and a model to a bot score, in one process: `cargo run -p bliss-core --features build --example score_request`
//!
//! A daemon makes the two publications and workers read them from shared memory (crate `bliss-store`); here they are
//! buffers.

use bliss_catboost::compile;
use bliss_catboost::ir::{FloatFeature, Model, ObliviousTree, Split, Trees};
use bliss_core::build::{
    BuildJob, Change, DimensionChange, FeaturesBuilder, ModelSet, NamedModel, NamedRoute, Rows,
};
use bliss_core::key::{KeyBuilder, KeySecret, SECRET_BYTES};
use bliss_core::request::{Names, Request};
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_core::scorer::Scorer;
use rkyv::util::AlignedVec;

type Error = Box<dyn std::error::Error>;

const NOW: u32 = 1_800_000_000;

fn main() -> Result<(), Error> {
    score_two_clients()?.iter().for_each(|line| println!("{line}"));
    Ok(())
}

pub(crate) fn score_two_clients() -> Result<Vec<String>, Error> {
    let (features, models) = (publish_features()?, publish_models()?);

    // Worker, once: the names that requests will have.
    let mut names = Names::default();
    let ip = names.attribute("ip")?;
    let mut scorer = Scorer::new();

    // Worker, once per publication.
    scorer.bind_features(&features, &names)?;
    scorer.bind_models(&models, &names)?;

    // Worker, once per request.
    let mut lines = Vec::new();
    for address in ["192.0.2.1", "198.51.100.7"] {
        let mut request = Request::new();
        request.set_attribute(ip, address.into());
        // SAFETY:
        // - `models` was bound last and has not changed
        let answer = unsafe { scorer.score(&features, &models, &request, "default", NOW) };
        let (_, statuses) = scorer.last();
        lines.push(match answer.outcome {
            Ok(scored) => format!("{address}: score {}, {}", scored.score, statuses[0].as_str()),
            Err(reason) => format!("{address}: unscored, {reason}"),
        });
    }
    Ok(lines)
}

/// One dimension, with a row for one address that made 900 requests.
fn publish_features() -> Result<AlignedVec<64>, Error> {
    let dimension = Dimension {
        name: "ip".into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 600,
        on_stale: Default::default(),
        features: vec![Feature::number("requests_1m")],
    };
    let schema = Schema { dimensions: vec![dimension], ..Schema::default() };
    // A daemon makes it at random and keeps it.
    let secret = KeySecret([7; SECRET_BYTES]);

    let keys = KeyBuilder::new(&schema, &schema.dimensions[0]).ok_or("the key has an unknown attribute")?;
    let key = keys.key(&secret, |_| Some("192.0.2.1".into())).map_err(|e| format!("no key: {e:?}"))?;
    let mut rows = Rows::new(1);
    rows.push(key, NOW - 10, &[900.0]);

    let change = Change { dimensions: vec![(0, DimensionChange::Replace(rows))] };
    let builder = FeaturesBuilder::plan(&schema, &secret, None, &change)?;
    let mut bytes = AlignedVec::new();
    bytes.resize(usize::try_from(builder.bytes())?, 0);
    builder.write(&mut bytes, 1, |jobs| jobs.into_iter().map(BuildJob::run).sum())?;
    Ok(bytes)
}

/// A model of one tree: over 100 requests a minute mean a bot. `bliss_catboost::import` reads one that CatBoost saved.
fn publish_models() -> Result<AlignedVec<64>, Error> {
    let input =
        FloatFeature { name: "ip.requests_1m".into(), borders: vec![100.0], ..FloatFeature::default() };
    let tree = ObliviousTree { splits: vec![Split::Float(0, 0)], leaves: vec![-2.0, 3.0] };
    let model = Model {
        dimensions: 1,
        scale: 1.0,
        floats: vec![input],
        trees: Trees::Oblivious(vec![tree]),
        ..Model::default()
    };
    let named =
        NamedModel { name: "stump".into(), version: "1".into(), bot_class: 1, compiled: compile(&model)? };
    let route = NamedRoute { name: "default".into(), active: Some("stump".into()), shadows: vec![] };
    Ok(ModelSet { models: vec![named], routes: vec![route] }.pack()?)
}
