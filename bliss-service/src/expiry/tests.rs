use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bliss_core::build::DimensionChange;
use bliss_core::build::Rows;
use bliss_core::score::Status;
use bliss_store::Client;

use super::*;
use crate::publish::{PublishHandle, open, start_with};
use crate::state::State;

const CONFIG: &str = r#"
publish.interval = "100ms"
publish.expire_after_max_ages = 3
[[dimension]]
name = "old"
key = ["ip"]
max_age = "100s"
features = [{ name = "x" }]
[[dimension]]
name = "forever"
key = ["ip"]
max_age = "0s"
features = [{ name = "x" }]
[[origin.file]]
name = "rows"
path = "rows.csv"
dimensions = ["old", "forever"]
[[origin.access_log]]
name = "replayed"
path = "access.log"
mode = "replay"
dimensions = ["ip"]
"#;

/// A publishing thread on real files, with a clock that the test moves.
struct Site {
    _directory: tempfile::TempDir,
    /// Features of each dimension.
    widths: Vec<usize>,
    handle: PublishHandle,
    state: Arc<State>,
    clock: Arc<AtomicU32>,
    client: Client,
}

impl Site {
    fn new(now: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("directory = \"shm\"\n{CONFIG}");
        let config = Config::parse(&directory.path().join("bliss.toml"), &text).unwrap();
        assert_eq!(config.expire_after_max_ages, 3);
        let state = Arc::new(State::new(&config));
        let opened = open(&config.directory, &config.publish, &config.schema, &state).unwrap();
        let clock = Arc::new(AtomicU32::new(now));
        let of_test = clock.clone();
        let clock_of_test = Box::new(move || of_test.load(Ordering::Relaxed));
        let expiry = Expiry::with_clock(&config, clock_of_test, Duration::from_millis(1));
        let (handle, _thread) =
            start_with(opened.into_publisher(), config.publish_interval, expiry, state.clone()).unwrap();
        let client = Client::open(&config.directory).unwrap();
        let widths = config.schema.dimensions.iter().map(|dimension| dimension.features.len()).collect();
        Self { _directory: directory, widths, handle, state, clock, client }
    }

    fn publish(&self, dimension: usize, replaces: bool, rows: &[(u64, u32)]) {
        let width = self.widths[dimension];
        let mut given = Rows::new(width);
        rows.iter().for_each(|(key, updated_at)| given.push(*key, *updated_at, &vec![1.0; width]));
        let change = if replaces {
            DimensionChange::Replace(given)
        } else {
            DimensionChange::Patch { upserts: given, deletes: vec![] }
        };
        let change = Change { dimensions: vec![(dimension, change)] };
        self.handle.send(change).blocking_recv().unwrap().unwrap();
    }

    /// Whether dimension `index` has these keys.
    fn has(&mut self, index: usize, keys: &[u64]) -> Vec<bool> {
        let there = |key: &u64| {
            let (_, statuses) = self.client.look_up_keys(&[*key; 3], 1000).unwrap();
            statuses[index] != Status::Missing
        };
        keys.iter().map(there).collect()
    }

    fn expired(&self, dimension: &str) -> u64 {
        self.state.metrics.expired_rows.get_or_create(&label("dimension", dimension)).get()
    }
}

#[test]
fn rows_expire_and_come_back_only_when_newer() {
    let mut site = Site::new(1000);
    // What is too old already is left out, and that is no refusal.
    site.publish(0, true, &[(1, 1000), (2, 800), (3, 699)]);
    site.publish(1, true, &[(1, 0), (2, 0), (3, 0)]);
    site.publish(2, true, &[(1, 5), (2, 5), (3, 5)]);
    assert_eq!(site.has(0, &[1, 2, 3]), [true, true, false]);
    assert_eq!(site.expired("old"), 1);

    // Nothing is published, and time goes on.
    site.clock.store(1101, Ordering::Relaxed);
    for _ in 0..3000 {
        if site.has(0, &[2]) == [false] {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(site.has(0, &[1, 2, 3]), [true, false, false]);
    assert_eq!(site.expired("old"), 2);
    // In both copies: what else is published brings nothing back.
    for round in 0..4 {
        site.publish(1, false, &[(10 + round, 1)]);
        assert_eq!(site.has(0, &[1, 2, 3]), [true, false, false], "round {round}");
    }

    // Its origin brings it again, as it was, and that is no refusal either.
    site.publish(0, false, &[(2, 800)]);
    assert_eq!(site.has(0, &[2]), [false]);
    site.publish(0, true, &[(1, 1000), (2, 800)]);
    assert_eq!(site.has(0, &[1, 2]), [true, false]);
    site.publish(0, false, &[(2, 1100)]);
    assert_eq!(site.has(0, &[1, 2]), [true, true]);

    // With the next publication of anything. Dimensions without max_age, and those of a log that is replayed, stay.
    site.clock.store(1_000_000, Ordering::Relaxed);
    site.publish(1, false, &[(20, 1)]);
    assert_eq!(site.has(0, &[1, 2]), [false, false]);
    assert_eq!(site.has(1, &[1, 2, 3, 10, 20]), [true; 5]);
    assert_eq!(site.has(2, &[1, 2, 3]), [true; 3]);
    assert_eq!((site.expired("forever"), site.expired("ip")), (0, 0));
    let status = serde_json::to_value(site.state.status()).unwrap();
    assert_eq!(status["features"]["failure"], serde_json::Value::Null);
}

#[test]
fn without_the_option_nothing_expires() {
    let text = "directory = \"d\"\n[[origin.access_log]]\nname = \"log\"\npath = \"l\"\n";
    let config = Config::parse(Path::new("/x/bliss.toml"), text).unwrap();
    assert!(Expiry::new(&config).is_none());
}
