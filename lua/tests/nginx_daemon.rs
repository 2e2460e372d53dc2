//! The whole chain: nginx logs its requests, `bliss-service` follows the log, makes features and publishes them, and
//! nginx scores the next request by them.

use std::fs;
use std::path::Path;
use std::time::Duration;

#[path = "nginx/daemon.rs"]
mod daemon;
#[path = "nginx/server.rs"]
mod server;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use daemon::Daemon;
use server::{Nginx, can_run, under_load};
use support::{MANY_REQUESTS, Site, wait_until, web_score};

/// The daemon on the log of `nginx`; it publishes to `site`, which it makes if need be.
fn start(home: &Path, site: &Path, nginx: &Nginx) -> Daemon {
    fs::write(home.join("web.json"), model()).unwrap();
    let log = nginx.access_log_path();
    let configuration = format!(
        "checkpoint.directory = \"\"
        [[origin.access_log]]
        name = \"traffic\"
        path = {log:?}
        dimensions = [\"ip\"]
        windows = true
        [[model]]
        name = \"web\"
        version = \"1\"
        path = \"web.json\""
    );
    Daemon::start(home, site, &configuration)
}

/// The model `web` of the other tests, as CatBoost exports models to JSON.
fn model() -> String {
    format!(
        r#"{{"model_info": {{"params": {{"loss_function": {{"type": "Logloss"}}}}}},
        "features_info": {{"float_features": [{{"feature_index": 0, "flat_feature_index": 0,
            "feature_id": "ip.requests_1m", "borders": [{MANY_REQUESTS:.1}], "has_nans": false,
            "nan_value_treatment": "AsIs"}}]}},
        "oblivious_trees": [{{"leaf_values": [-2.0, 2.0], "leaf_weights": [1, 1],
            "splits": [{{"split_index": 0, "split_type": "FloatFeature", "float_feature_index": 0,
                "border": {MANY_REQUESTS:.1}}}]}}],
        "scale_and_bias": [1, [0]]}}"#
    )
}

#[test]
fn a_request_is_scored_by_what_was_published_a_moment_ago() {
    if !can_run() {
        return;
    }
    let parent = Site::empty();
    let site = parent.path().join("bliss");
    let home = tempfile::tempdir().unwrap();
    let said = || fs::read_to_string(home.path().join("daemon.log")).unwrap_or_default();
    let nginx = Nginx::start(&site, "");
    assert_eq!(nginx.ask("192.0.2.7").header("x-bot-status"), "no snapshot");

    let daemon = start(home.path(), &site, &nginx);
    let (human, bot) = (web_score(1.0), web_score(1000.0));
    wait_until("scores", || {
        std::thread::sleep(Duration::from_millis(200));
        nginx.ask("192.0.2.7").score() == Some(human)
    });
    // So many requests in a minute are a bot's; another address is not affected.
    let mut requests = 0;
    wait_until("a bot's score", || {
        requests += 1;
        nginx.ask("192.0.2.70").score() == Some(bot)
    });
    assert!(requests > MANY_REQUESTS as u32, "{requests}");
    assert_eq!(nginx.ask("198.51.100.1").score(), Some(human));

    // Killed and started again while requests run: none fails, none is without a score.
    let mut daemon = Some(daemon);
    let (scores, failures) = under_load(&nginx, || {
        for _ in 0..3 {
            daemon.take().unwrap().kill();
            std::thread::sleep(Duration::from_millis(300));
            daemon = Some(start(home.path(), &site, &nginx));
            std::thread::sleep(Duration::from_millis(700));
        }
    });
    assert_eq!(failures, Vec::<String>::new());
    assert!(scores.keys().all(|score| [human, bot].contains(score)), "{scores:?}\n{}", said());
    let mut requests = 0;
    wait_until("features of what happened since", || {
        requests += 1;
        nginx.ask("203.0.113.9").score() == Some(bot)
    });
    assert!(requests > MANY_REQUESTS as u32, "{requests}");

    // Ended: what was published stays.
    daemon.take().unwrap().end();
    assert_eq!(nginx.ask("203.0.113.9").score(), Some(bot));
    assert_eq!(nginx.error_log(), "");
}
