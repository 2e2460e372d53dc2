//! What it costs a request that workers count the inputs of one in 16: looks all dimensions up and scores, with the model that comes
//! with BLISS or the file that is named, with counts of
//! none, of one in 16 and of all, in turns. Prints nanoseconds of processor time per request, the best and the median of many rounds.
//!
//! ```text
//! cargo run --profile demo -p bliss-store --features publish --example store_sample_cost
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use bliss_catboost::ir::{Bins, Distribution, InputBins};
use bliss_catboost::{compile, import};
use bliss_core::build::{Change, DimensionChange, ModelSet, NamedModel, NamedRoute, Rows};
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_store::{Client, MetricsFile, PublishOptions, Publisher};

const ROUNDS: usize = 400;
const REQUESTS: usize = 2000;
const ADDRESSES: usize = 1000;

/// Processor time of this thread: others that run on the machine do not count.
fn cpu_nanoseconds() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY:
    // - `time` is writable and of the type that the call fills in
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn main() -> Result<(), Box<dyn Error>> {
    let default = || concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.cbm").to_owned();
    let file = std::fs::read(std::env::args().nth(1).unwrap_or_else(default))?;
    let mut model = import(&file)?;
    let bins = |step: f32| Bins {
        borders: (0..9).map(|n| n as f32 * step).collect(),
        shares: vec![0.1; 10],
        missing: 0.0,
    };
    let names: Vec<String> = model.floats.iter().map(|float| float.name.clone()).collect();
    let inputs =
        names.iter().take(128).map(|name| InputBins { name: name.clone(), bins: bins(0.1) }).collect();
    model.distribution = Some(Distribution { requests: 1, score: bins(10.0), inputs });
    let compiled = compile(&model)?;
    // Each dimension that the model names, with the features that it takes, keyed by the address.
    let mut dimensions: BTreeMap<&str, Vec<Feature>> = BTreeMap::new();
    for (dimension, feature) in
        names.iter().filter_map(|name| name.split_once('.')).filter(|(d, _)| *d != "request")
    {
        dimensions.entry(dimension).or_default().push(Feature::number(feature));
    }
    let dimensions = dimensions.into_iter().map(|(name, features)| Dimension {
        name: name.into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 0,
        on_stale: Default::default(),
        features,
    });
    let schema = Schema { dimensions: dimensions.collect(), ..Schema::default() };
    let address = |n: usize| format!("192.0.{}.{}", n / 250, n % 250);

    let mut clients = Vec::new();
    for one_in in [0, 16, 1] {
        let directory = tempfile::tempdir_in("/dev/shm")?;
        let options = PublishOptions { sample_one_in: one_in, ..PublishOptions::default() };
        let mut publisher = Publisher::open(directory.path(), &options, schema.clone())?;
        let mut changes = Vec::new();
        for (index, dimension) in schema.dimensions.iter().enumerate() {
            let mut rows = Rows::new(dimension.features.len());
            for n in 0..ADDRESSES {
                let key = publisher.key(index, &[address(n).as_str().into()]).ok_or("not an address")?;
                let values: Vec<f32> =
                    (0..dimension.features.len()).map(|f| ((n * 31 + f * 7) % 100) as f32 / 90.0).collect();
                rows.push(key, 1000, &values);
            }
            changes.push((index, DimensionChange::Replace(rows)));
        }
        publisher.publish(Change { dimensions: changes })?;
        let named =
            NamedModel { name: "m".into(), version: "1".into(), bot_class: 1, compiled: compiled.clone() };
        let route = NamedRoute { name: "default".into(), active: Some("m".into()), shadows: vec![] };
        publisher.publish_models(&ModelSet { models: vec![named], routes: vec![route] })?;
        let file = MetricsFile::open(directory.path(), &options)?;
        let mut client = Client::open(directory.path())?;
        let ip = client.names().attribute("ip")?;
        let numbers: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("request.")).collect();
        let numbers =
            numbers.into_iter().map(|name| client.names().number(name)).collect::<Result<Vec<_>, _>>()?;
        clients.push((one_in, client, ip, numbers, f64::INFINITY, Vec::new(), (directory, publisher, file)));
    }
    let addresses: Vec<String> = (0..ADDRESSES).map(address).collect();
    let mut scored = 0;
    for _ in 0..ROUNDS {
        for (_, client, ip, numbers, best, all, _) in &mut clients {
            let began = cpu_nanoseconds();
            for n in 0..REQUESTS {
                let mut request = Request::new();
                request.set_attribute(*ip, addresses.get(n % ADDRESSES).map_or("", String::as_str).into());
                for number in numbers.iter() {
                    request.set_number(*number, (n % 3) as f32);
                }
                scored += usize::from(client.score(&request, "", 1010).outcome.is_ok());
            }
            let took = (cpu_nanoseconds() - began) as f64 / REQUESTS as f64;
            *best = best.min(took);
            all.push(took);
        }
    }
    assert_eq!(scored, clients.len() * ROUNDS * REQUESTS, "every request has a score");
    for (one_in, _, _, _, best, all, _) in &mut clients {
        all.sort_by(f64::total_cmp);
        let median = all.get(all.len() / 2).copied().unwrap_or(0.0);
        println!(
            "counts of one in {one_in} (0: none): best {best:.1} ns, median {median:.1} ns, {} inputs",
            names.len()
        );
    }
    Ok(())
}
