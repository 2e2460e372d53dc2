//! Drift: a daemon, a worker, and traffic that stays or changes.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bliss_core::request::Request;
use bliss_store::{Client, METRICS};
use common::{Daemon, directory};
use serde_json::{Value, json};

mod common;

/// A day is four seconds, a window one.
const CONFIG: &str = r#"
[drift]
sample_one_in = 1
window = "1s"
past = "28s"
min_requests = 100

[[dimension]]
name = "ip"
key = ["ip"]
max_age = "1h"
features = [{ name = "x" }, { name = "y" }]

[[origin.file]]
name = "rows"
path = "rows.csv"
dimensions = ["ip"]

[[model]]
name = "told"
version = "1"
path = "told.json"
"#;

/// A model of `ip.x` and `ip.y`, as CatBoost's JSON export, with or without what it was trained on.
fn model(directory: &Path, distribution: Option<Value>) {
    let float = |index: u32, name: &str| {
        json!({"feature_index": index, "flat_feature_index": index, "feature_id": name, "borders": [50.0], "has_nans": false,
            "nan_value_treatment": "AsIs"})
    };
    let split = |index: u32| json!({"split_index": index, "border": 50.0});
    let mut model = json!({
        "model_info": {"params": {"loss_function": {"type": "Logloss"}}},
        "features_info": {"float_features": [float(0, "ip.x"), float(1, "ip.y")]},
        "oblivious_trees": [{"leaf_values": [-1.0, -1.0, 1.0, 1.0], "splits": [split(0), split(1)]}],
        "scale_and_bias": [1.0, [0.0]],
    });
    if let Some(distribution) = distribution {
        model["model_info"]["bliss.distribution"] = distribution.to_string().into();
    }
    let fresh = directory.join("told.new");
    fs::write(&fresh, model.to_string()).unwrap();
    fs::rename(fresh, directory.join("told.json")).unwrap();
}

fn distribution() -> Value {
    let input =
        |name: &str| json!({"name": name, "borders": [25.0, 50.0, 75.0], "shares": [0.25, 0.25, 0.25, 0.25]});
    json!({"version": 1, "requests": 1000, "score": {"borders": [50.0], "shares": [0.5, 0.5]}, "inputs": [input("ip.x"), input("ip.y")]})
}

/// Rows of 100 addresses: `x` and `y` go from 1 to 100, one up, one down in another order.
fn rows(directory: &Path) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let rows: String =
        (0..100).map(|n| format!("192.0.2.{n},{now},{},{}\n", n + 1, n * 37 % 100 + 1)).collect();
    fs::write(directory.join("rows.csv"), format!("key.ip,updated_at,x,y\n{rows}")).unwrap();
}

const USUAL: u8 = 0;
/// Addresses whose `x` is above 50, and whose `y` is as always.
const LARGE_X: u8 = 1;

/// A worker that scores requests, of the traffic that `which` says, until `stop`.
fn work(directory: &Path, which: &AtomicU8, stop: &AtomicBool) {
    let mut client = Client::open(directory).unwrap();
    let ip = client.names().attribute("ip").unwrap();
    for n in 0_u32.. {
        if stop.load(Relaxed) {
            return;
        }
        let number = if which.load(Relaxed) == LARGE_X { 50 + n % 50 } else { n % 100 };
        let address = format!("192.0.2.{number}");
        let mut request = Request::new();
        request.set_attribute(ip, address.as_str().into());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        client.score(&request, "", now as u32);
        if n % 20 == 0 {
            let _ = client.maintain();
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn alerts(daemon: &Daemon) -> Vec<(String, String)> {
    let status = daemon.status();
    let alerts = status["drift"][0]["alerts"].as_array().cloned().unwrap_or_default();
    alerts
        .iter()
        .map(|alert| {
            (alert["kind"].as_str().unwrap().to_owned(), alert["input"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn state(daemon: &Daemon) -> String {
    daemon.status()["drift"][0]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn d7_a_shift_of_traffic_is_told_by_its_input_and_the_same_traffic_is_not() {
    let dir = directory();
    rows(dir.path());
    model(dir.path(), Some(distribution()));
    let mut daemon = Daemon::start(dir.path(), CONFIG);
    let (which, stop) = (AtomicU8::new(USUAL), AtomicBool::new(false));
    let shm = dir.path().join("shm");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(&shm, &which, &stop));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            daemon.until("the first day", |daemon| state(daemon) == "watching");
            // The same traffic for two days more.
            for _ in 0..80 {
                std::thread::sleep(Duration::from_millis(100));
                assert_eq!(alerts(&daemon), []);
            }
            which.store(LARGE_X, Relaxed);
            let told = ("changed".to_owned(), "ip.x".to_owned());
            daemon.until("the change", |daemon| alerts(daemon).contains(&told));
            let said = daemon.said(0, "drift begins: ip.x is above ");
            assert!(
                said.len() == 1 && said[0].contains("origin that fills dimension ip"),
                "{:?}",
                daemon.log.lock()
            );
            assert!(
                daemon
                    .get("/metrics")
                    .unwrap()
                    .1
                    .contains(r#"bliss_model_drift{model="told",version="1",kind="changed"}"#)
            );
            assert_eq!(daemon.get("/readyz").unwrap().0, 200, "scores are as good as before");
            which.store(USUAL, Relaxed);
            daemon.until("the end", |daemon| alerts(daemon).is_empty());
            assert!(!daemon.said(0, "drift is over: ").is_empty());
        }));
        stop.store(true, Relaxed);
        worker.join().unwrap();
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    // What is known is kept.
    assert!(daemon.terminate().success());
    assert!(dir.path().join("state/drift.state").is_file());
    let daemon = Daemon::start(dir.path(), CONFIG);
    assert!(daemon.said(0, "learning starts over").is_empty(), "{:?}", daemon.log.lock());
}

#[test]
fn d7_whatever_workers_leave_in_the_counts_the_daemon_lives() {
    let dir = directory();
    rows(dir.path());
    model(dir.path(), Some(distribution()));
    let mut daemon = Daemon::start(dir.path(), CONFIG);
    let (which, stop) = (AtomicU8::new(USUAL), AtomicBool::new(false));
    let shm = dir.path().join("shm");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(&shm, &which, &stop));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let counted = |daemon: &Daemon| daemon.status()["drift"][0]["requests"].as_u64() > Some(0);
            daemon.until("requests", counted);
            let file = fs::OpenOptions::new().read(true).write(true).open(shm.join(METRICS)).unwrap();
            let slot = bliss_core::metrics::SLOT_BYTES as u64;
            let mut seed = 1_u64;
            for round in 0..60 {
                // All but the plan, so that it is read as counts.
                let mut bytes = vec![0_u8; slot as usize / 2 - 128];
                for byte in &mut bytes {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = if round % 3 == 0 { 0xff } else { (seed >> 56) as u8 };
                }
                file.write_all_at(&bytes, slot + slot / 2 + 128).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                let status = daemon.status();
                assert_eq!(status["drift"].as_array().unwrap().len(), 1, "{status}");
            }
            let metrics = daemon.get("/metrics").unwrap().1;
            assert!(
                !metrics.contains("bliss_drift_implausible_total 0\n") && !metrics.contains("NaN"),
                "{metrics}"
            );
            assert_eq!(daemon.get("/readyz").unwrap().0, 200);
        }));
        stop.store(true, Relaxed);
        worker.join().unwrap();
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(daemon.terminate().success());
    // The next one reads what this one wrote, or a file of which nothing can be used.
    fs::write(dir.path().join("state/drift.state"), "{").unwrap();
    let mut daemon = Daemon::start(dir.path(), CONFIG);
    daemon.until("its models", |daemon| !state(daemon).is_empty());
    assert_eq!(daemon.said(0, "learning starts over").len(), 1);
}

#[test]
fn d7_of_a_model_that_carries_no_distribution_nothing_can_be_told() {
    let dir = directory();
    rows(dir.path());
    model(dir.path(), None);
    let mut daemon = Daemon::start(dir.path(), CONFIG);
    daemon.until("its models", |daemon| state(daemon) == "not_told");
    let status = daemon.status();
    assert!(status["drift"][0]["message"].as_str().unwrap().contains("train it again"), "{status}");
    // A good one takes its place while the daemon runs.
    model(dir.path(), Some(distribution()));
    daemon.until("the other file", |daemon| state(daemon) == "too_few_requests");
}
