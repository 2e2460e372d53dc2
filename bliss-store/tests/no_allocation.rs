//! F1: after opening, no lookup and no score allocates, not even at the switch to a new version.

use bliss_catboost::ir::{Bins, Distribution, InputBins};
use bliss_catboost::{compile, import};
use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange};
use bliss_core::build::{ModelSet, NamedModel, NamedRoute};
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_core::score::Unscored;
use bliss_store::{Client, MetricsFile, PublishOptions, Publisher};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn f1_nothing_allocates_after_opening() {
    let directory = tempfile::tempdir().unwrap();
    let ip = |extra: usize| Dimension {
        name: "ip".into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 600,
        on_stale: Default::default(),
        features: (0..1 + extra).map(|i| Feature::number(&format!("f{i}"))).collect(),
    };
    let schema =
        |extra| Schema { dimensions: vec![ip(extra)], max_heartbeat_age_seconds: 3, ..Schema::default() };
    // The inputs of every request are counted.
    let options = PublishOptions { sample_one_in: 1, ..PublishOptions::default() };
    let mut publisher = Publisher::open(directory.path(), &options, schema(0)).unwrap();
    let cbm = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/scale_bias.cbm");
    let mut model = import(&std::fs::read(cbm).unwrap()).unwrap();
    model.floats.iter_mut().for_each(|f| f.name = "ip.f0".into());
    let bins = Bins { borders: vec![0.5], shares: vec![0.5, 0.5], missing: 0.0 };
    let input = InputBins { name: "ip.f0".into(), bins: bins.clone() };
    model.distribution = Some(Distribution { requests: 1, score: bins, inputs: vec![input] });
    let compiled = compile(&model).unwrap();
    let set = ModelSet {
        models: (0..9)
            .map(|i| NamedModel {
                name: format!("m{i}"),
                version: "1".into(),
                bot_class: 1,
                compiled: compiled.clone(),
            })
            .collect(),
        routes: vec![NamedRoute {
            name: "default".into(),
            active: Some("m0".into()),
            shadows: (1..9).map(|i| format!("m{i}")).collect(),
        }],
    };

    let mut counters = MetricsFile::open(directory.path(), &PublishOptions::default()).unwrap();

    let _profiler = dhat::Profiler::builder().testing().build();
    let blocks = || dhat::HeapStats::get().total_blocks;
    // Opened before anything is published, so that every later call is one that must not allocate.
    let mut client = Client::open(directory.path()).unwrap();
    let ip = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(ip, "192.0.2.1".into());
    let mut scores = 0;
    for round in 0..20 {
        if round == 10 {
            publisher.set_schema(schema(5)).unwrap();
        }
        let width = publisher.schema().dimensions[0].features.len();
        let mut rows = Rows::new(width);
        (0..2000).for_each(|i| rows.push(i + 1, 1000, &vec![i as f32; width]));
        let change = DimensionChange::Patch { upserts: rows, deletes: vec![] };
        publisher.publish(Change { dimensions: vec![(0, change)] }).unwrap();
        publisher.publish_models(&set).unwrap();
        let before = blocks();
        for _ in 0..100 {
            scores += u32::from(client.score(&request, "", 1000).outcome.is_ok());
            assert_eq!(client.shadows().iter().filter(|shadow| shadow.outcome.is_ok()).count(), 8);
            let _ = client.look_up(&request, 1000).unwrap();
        }
        // A refusal because the daemon is silent, and the way back.
        if round % 10 == 5 {
            std::thread::sleep(std::time::Duration::from_millis(4_100));
            for now in 1004..1010 {
                assert_eq!(client.score(&request, "", now).outcome, Err(Unscored::OldSnapshot));
            }
            publisher.heartbeat();
        }
        let _ = client.look_up(&request, 1000).unwrap();
        assert_eq!(blocks() - before, 0, "round {round}");
    }
    assert_eq!(scores, 2000);
    let (mut entries, mut sampled) = (0, 0);
    let of_row = |slot: bliss_core::metrics::Slot<'_>, row| slot.drift().row(row).iter().sum::<u64>();
    counters
        .slots(|slot| {
            entries += slot.entries().count();
            sampled += of_row(slot, 1);
        })
        .unwrap();
    assert!(entries > 9, "all that was counted");
    assert_eq!(sampled, 2000);
}
