use bliss_core::build::NamedModel;

use super::track::tests::model;
use super::*;
use crate::checkpoint::KeepOptions;

const DAY: Duration = Duration::from_secs(86_400);

fn published(version: &str) -> ModelSet {
    let (name, version) = ("m".to_owned(), version.to_owned());
    ModelSet::of_one(NamedModel { name, version, bot_class: 0, compiled: model() })
}

fn drift(directory: &std::path::Path) -> Drift {
    let path = directory.join("bliss.toml");
    let config = Config::parse(&path, &format!("directory = {directory:?}")).unwrap();
    let drift = Drift::default();
    drift.configure(&config, None);
    drift
}

/// A day of requests for the active model, of which nothing is missing.
fn count_a_day(drift: &Drift, day: u32) {
    let mut inner = drift.lock();
    let Inner { models, options, .. } = &mut *inner;
    let track = models[0].track.as_mut().unwrap();
    for hour in 0..=24 {
        let counts = vec![[100; bliss_catboost::distribution::MAX_BINS]; track.rows.len()];
        track.take(DAY * day + DAY / 24 * hour, &counts, options);
    }
}

/// Requests of the days that are over.
fn past(drift: &Drift) -> u64 {
    let inner = drift.lock();
    inner.models[0].track.as_ref().unwrap().memory().past_requests()
}

#[test]
fn a_rollback_and_a_restart_find_what_is_known_of_the_model_before() {
    let dir = tempfile::tempdir().unwrap();
    let first = drift(dir.path());
    first.learn_models(&published("a"));
    count_a_day(&first, 20_000);
    let known = past(&first);
    assert!(known > 0);
    first.learn_models(&published("b"));
    assert_eq!(past(&first), 0, "another model");
    first.learn_models(&published("a"));
    assert_eq!(past(&first), known, "a rollback");
    first.learn_models(&published("b"));
    count_a_day(&first, 20_001);
    first.save();
    // Nothing is forgotten before the first model is published, nor by it.
    let second = drift(dir.path());
    second.save();
    second.learn_models(&published("b"));
    assert_eq!(past(&second), known);
    second.save();
    let third = drift(dir.path());
    third.learn_models(&published("a"));
    assert_eq!(past(&third), known);
    // Of so many models only.
    for version in 0..100 {
        third.learn_models(&published(&version.to_string()));
        assert!(third.lock().kept.iter().count() <= 16);
    }
    third.learn_models(&published("90"));
    assert_eq!(third.lock().kept.iter().count(), 16, "it is not kept twice");
    third.learn_models(&published("b"));
    assert_eq!(past(&third), 0, "the oldest are forgotten");
}

#[test]
fn where_there_is_a_folder_for_it_a_reboot_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = KeepOptions { directory: Some(dir.path().join("kept")), ..KeepOptions::default() };
    let keep = Keep::open(&options).unwrap();
    let config = |more: &str| {
        let text = format!("directory = {:?}\n{more}", dir.path().join("run"));
        Config::parse(&dir.path().join("bliss.toml"), &text).unwrap()
    };
    let file = |config: &Config, keep: Option<&Keep>| {
        let drift = Drift::default();
        drift.configure(config, keep);
        drift.lock().file.clone().unwrap()
    };
    assert_eq!(file(&config(""), keep.as_ref()), dir.path().join("kept/drift.state"));
    assert_eq!(file(&config(""), None), dir.path().join("run/drift.state"));
    let named = config("drift.state = \"/elsewhere/drift\"");
    assert_eq!(file(&named, keep.as_ref()), PathBuf::from("/elsewhere/drift"));
}
