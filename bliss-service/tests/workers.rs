//! What workers count, in the daemon's metrics.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Daemon, directory, scorer};

mod common;

const CONFIG: &str = r#"
[[dimension]]
name = "ip"
key = ["ip"]
max_age = "1h"
features = [{ name = "x" }]

[[origin.file]]
name = "rows"
path = "rows.csv"
dimensions = ["ip"]

[[model]]
name = "old"
version = "1"
path = "old.json"

[[model]]
name = "new"
version = "2"
path = "new.json"

[[model]]
name = "lost"
version = "3"
path = "lost.json"

[[route]]
name = "default"
active = "old"
shadow = ["new", "lost"]
"#;

/// A model whose raw value is `low` for `input` up to 10, else `high`, as CatBoost's JSON export has it.
fn model(directory: &Path, name: &str, input: &str, low: f64, high: f64) {
    let text = format!(
        r#"{{"model_info":{{"params":{{"loss_function":{{"type":"Logloss"}}}}}},
        "features_info":{{"float_features":[{{"feature_index":0,"flat_feature_index":0,"feature_id":"{input}",
        "borders":[10],"has_nans":false,"nan_value_treatment":"AsIs"}}]}},
        "oblivious_trees":[{{"leaf_values":[{low},{high}],"splits":[{{"split_index":0,"border":10}}]}}],
        "scale_and_bias":[1,[0]]}}"#
    );
    fs::write(directory.join(format!("{name}.json")), text).unwrap();
}

/// What the scorer says of a request: status, score, and for each shadow its place, status and score.
type Reply = (i32, u32, Vec<(u32, i32, u32)>);

struct Scorer(Child);

impl Scorer {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(scorer());
        command.arg(directory).arg("ip").stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn score(&mut self, ips: &[&str], now: u32) -> Vec<Reply> {
        let mut batch = (ips.len() as u32).to_le_bytes().to_vec();
        for ip in ips {
            batch.extend(now.to_le_bytes());
            batch.extend((ip.len() as u32).to_le_bytes());
            batch.extend(ip.as_bytes());
        }
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(&batch).unwrap();
        input.flush().unwrap();
        ips.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> Reply {
        let output = self.0.stdout.as_mut().unwrap();
        let mut bytes = [0; 36];
        output.read_exact(&mut bytes).unwrap();
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let shadows = (0..word(&bytes, 32)).map(|_| {
            let mut shadow = [0; 20];
            output.read_exact(&mut shadow).unwrap();
            (word(&shadow, 0), word(&shadow, 4).cast_signed(), word(&shadow, 8))
        });
        (word(&bytes, 0).cast_signed(), word(&bytes, 4), shadows.collect())
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that is blocked when the daemon dies does not stay blocked.
#[test]
fn s10_a_killed_daemon_leaves_no_scores_behind() {
    let dir = directory();
    fs::write(dir.path().join("rows.csv"), format!("key.ip,updated_at,x\n192.0.2.1,{},50\n", now())).unwrap();
    model(dir.path(), "old", "ip.x", -2.0, 2.0);
    model(dir.path(), "new", "ip.x", -2.0, 2.0);
    let config = CONFIG.replace("\"lost\"\n", "\"unused\"\n").replace("lost.json", "new.json");
    let config = config.replace("\"new\", \"lost\"", "\"new\"");
    let config = format!("publish.max_heartbeat_age = \"3s\"\n{config}");
    let daemon = Daemon::start(dir.path(), &config);
    let mut scorer = Scorer::start(&dir.path().join("shm"));
    let mut until = |what: &str, wanted: (i32, u32)| {
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let (status, score, _) = scorer.score(&["192.0.2.1"], now()).remove(0);
            if (status, score) == wanted {
                return;
            }
            assert!(std::time::Instant::now() < patience, "{what}: status {status}, score {score}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    };
    until("a bot", (0, 13));
    daemon.kill();
    until("old snapshot", (8, 0));
    let _next = Daemon::start(dir.path(), &config);
    until("a bot again", (0, 13));
}

fn now() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32
}

/// The value of a series, whose labels are given as they are written.
fn value(daemon: &Daemon, series: &str) -> Option<f64> {
    let (_, metrics) = daemon.get("/metrics").unwrap();
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn lookups_scores_and_shadow_differences_are_metrics() {
    let dir = directory();
    let now = now();
    let rows =
        format!("key.ip,updated_at,x\n192.0.2.1,{now},5\n192.0.2.2,{now},50\n192.0.2.3,{},50\n", now - 7200);
    fs::write(dir.path().join("rows.csv"), rows).unwrap();
    model(dir.path(), "old", "ip.x", -2.0, 2.0);
    model(dir.path(), "new", "ip.x", -2.0, -2.0);
    model(dir.path(), "lost", "ip.gone", 0.0, 0.0);
    let mut daemon = Daemon::start(dir.path(), CONFIG);
    daemon.until("features and models", |d| {
        let status = d.status();
        !status["models_generation"].is_null() && !status["features"]["generation"].is_null()
    });
    let mut scorer = Scorer::start(&dir.path().join("shm"));
    let ips = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "no address"];
    let replies = scorer.score(&ips, now);
    // 1 + floor(98 (1 - sigmoid(±2)) + 0.5)
    for ((status, score, shadows), expected) in replies.iter().zip([87, 13, 13, 87, 87]) {
        assert_eq!((*status, *score), (0, expected));
        assert_eq!(shadows.as_slice(), [(1, 0, 87), (2, 4, 0)], "`lost` misses an input");
    }
    // Every other request was looked up once more for the scorer's figures.
    let expected = [
        ("bliss_lookups_total{dimension=\"ip\",status=\"fresh\"}", 3.0),
        ("bliss_lookups_total{dimension=\"ip\",status=\"stale\"}", 2.0),
        ("bliss_lookups_total{dimension=\"ip\",status=\"missing\"}", 1.0),
        ("bliss_lookups_total{dimension=\"ip\",status=\"absent\"}", 2.0),
        ("bliss_scores_count{route=\"default\",model=\"old\",version=\"1\"}", 5.0),
        ("bliss_scores_sum{route=\"default\",model=\"old\",version=\"1\"}", 287.0),
        ("bliss_scores_bucket{le=\"20.0\",route=\"default\",model=\"old\",version=\"1\"}", 2.0),
        ("bliss_scores_bucket{le=\"+Inf\",route=\"default\",model=\"old\",version=\"1\"}", 5.0),
        ("bliss_shadow_differences_total{route=\"default\",model=\"new\",version=\"2\",band=\"0\"}", 3.0),
        (
            "bliss_shadow_differences_total{route=\"default\",model=\"new\",version=\"2\",band=\"51..98\"}",
            2.0,
        ),
        ("bliss_shadow_difference_sum{route=\"default\",model=\"new\",version=\"2\"}", 148.0),
        (
            "bliss_shadow_unscored_total{route=\"default\",model=\"lost\",version=\"3\",reason=\"missing input\"}",
            5.0,
        ),
    ];
    for (series, expected) in expected {
        assert_eq!(
            value(&daemon, series),
            Some(expected),
            "{series} in\n{}",
            daemon.get("/metrics").unwrap().1
        );
    }

    // The scorer is killed, the daemon restarted: totals go on.
    drop(scorer);
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), CONFIG);
    let series = expected[4].0;
    assert_eq!(value(&daemon, series), Some(5.0));
    let mut scorer = Scorer::start(&dir.path().join("shm"));
    assert!(scorer.score(&ips, now).iter().all(|(status, ..)| *status == 0));
    assert_eq!(value(&daemon, series), Some(10.0));
    assert!(!daemon.get("/metrics").unwrap().1.contains("\"other\""), "all names are known");
}

#[test]
fn what_nobody_knows_by_name_is_counted_as_other() {
    let dir = directory();
    fs::write(dir.path().join("rows.csv"), "key.ip,updated_at,x\n192.0.2.1,7,5\n").unwrap();
    let first = CONFIG.split("[[model]]").next().unwrap();
    let mut daemon = Daemon::start(dir.path(), first);
    daemon.until("features", |d| !d.status()["features"]["generation"].is_null());
    let mut scorer = Scorer::start(&dir.path().join("shm"));
    assert_eq!(scorer.score(&["192.0.2.1"], 7)[0], (2, 0, vec![]), "no models");
    assert_eq!(value(&daemon, "bliss_unscored_total{route=\"\",reason=\"no models\"}"), Some(1.0));
    assert_eq!(value(&daemon, "bliss_lookups_total{dimension=\"ip\",status=\"fresh\"}"), Some(1.0));
    drop(scorer);
    assert!(daemon.terminate().success());

    // The next daemon has never heard of the dimension, once what was published before is replaced.
    let renamed = first.replace("name = \"ip\"", "name = \"address\"").replace("[\"ip\"]\n\n", "[\"ip\"]\n");
    let renamed = renamed.replace("dimensions = [\"ip\"]", "dimensions = [\"address\"]");
    let mut daemon = Daemon::start(dir.path(), &renamed);
    daemon.until("features", |d| d.status()["features"]["dimensions"][0]["rows"] == 1);
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &renamed);
    let (_, metrics) = daemon.get("/metrics").unwrap();
    assert!(metrics.contains("bliss_lookups_total{dimension=\"other\",status=\"fresh\"} 1"), "{metrics}");
}

/// One of those who may write `counters` shortens and lengthens it, while others ask for the sums.
#[test]
fn m7_counters_shortened_while_metrics_are_asked_do_not_kill_the_daemon() {
    use std::os::unix::fs::FileExt;
    const SLOT: u64 = bliss_core::metrics::SLOT_BYTES as u64;
    let dir = directory();
    fs::write(dir.path().join("log"), "").unwrap();
    let config = "[[origin.access_log]]\nname = \"traffic\"\npath = \"log\"\n";
    let mut daemon = Daemon::start(dir.path(), config);
    let path = dir.path().join("shm/counters");
    let start = std::time::Instant::now();
    let (mut shortened, mut asked) = (0_u32, 0_u32);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0_u32;
                    while start.elapsed().as_secs() < 2 {
                        // None once the daemon is gone.
                        let Some((status, _)) = daemon.get("/metrics") else { break };
                        asked += u32::from(status == 200);
                    }
                    asked
                })
            })
            .collect();
        while start.elapsed().as_secs() < 2 && !asking.iter().all(|thread| thread.is_finished()) {
            let opened = fs::OpenOptions::new().read(true).write(true).open(&path);
            let Ok(file) = opened else { continue };
            let length = file.metadata().unwrap().len();
            let mut head = [0; 4096];
            let Ok(()) = file.read_exact_at(&mut head, 0) else { continue };
            (1..1024).step_by(2).for_each(|slot| file.write_all_at(&[1], slot * SLOT).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(2 * u64::from(shortened % 7)));
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
            file.write_all_at(&head, 0).unwrap();
            shortened += 1;
        }
        asked = asking.into_iter().map(|thread| thread.join().unwrap()).sum();
    });
    let ended = daemon.child.try_wait().unwrap();
    assert!(ended.is_none(), "{ended:?} after {shortened} rounds, asked {asked} times");
    assert!(shortened > 5 && asked > 5, "{shortened} rounds, asked {asked} times");
    assert_eq!(daemon.get("/healthz").unwrap().0, 200);
}
