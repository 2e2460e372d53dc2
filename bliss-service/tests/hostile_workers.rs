//! A worker that means harm writes what it may write, the file in which readers announce themselves, while the daemon runs and
//! before it starts.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bliss_store::Client;
use common::{Daemon, directory, replace};

mod common;

const FILE: &str = "[[dimension]]\nname = \"ip\"\nkey = [\"ip\"]\nfeatures = [{ name = \"x\" }]\n[[origin.file]]\nname = \"f\"\ndimensions = [\"ip\"]\npath = \
     \"rows.csv\"\ninterval = \"100ms\"\n";

fn rows(value: u32) -> String {
    format!("key.ip,updated_at,x\n192.0.2.1,7,{value}\n")
}

fn generation(daemon: &Daemon) -> u64 {
    daemon.status()["features"]["generation"].as_u64().unwrap_or(0)
}

fn readers(shm: &Path) -> std::fs::File {
    OpenOptions::new().read(true).write(true).open(shm.join("features_readers")).unwrap()
}

/// Brings another row, and waits until it is published.
fn publishes(daemon: &mut Daemon, directory: &Path, value: u32) {
    let before = generation(daemon);
    replace(directory, "rows.csv", &rows(value));
    daemon.until("a publication", |daemon| generation(daemon) > before);
}

#[test]
fn m7_a_worker_that_ruins_the_slots_neither_ends_the_daemon_nor_keeps_it_from_starting() {
    type Harm = (&'static str, fn(&std::fs::File));
    let harms: [Harm; 5] = [
        ("long and sparse", |file| {
            file.set_len(64 << 30).unwrap();
            file.write_all_at(&[0xff; 8], 24).unwrap();
        }),
        ("no magic", |file| file.write_all_at(&[0; 8], 0).unwrap()),
        ("another number", |file| file.write_all_at(&[0x55; 8], 16).unwrap()),
        ("short", |file| file.set_len(100).unwrap()),
        ("empty", |file| file.set_len(0).unwrap()),
    ];
    let dir = directory();
    let shm = dir.path().join("shm");
    replace(dir.path(), "rows.csv", &rows(0));
    let mut daemon = Daemon::start(dir.path(), FILE);
    daemon.until("the first rows", |daemon| generation(daemon) > 0);
    let mut value = 0;
    for (what, harm) in harms {
        for running in [true, false] {
            if running {
                harm(&readers(&shm));
            } else {
                daemon.kill();
                harm(&readers(&shm));
                daemon = Daemon::start(dir.path(), FILE);
            }
            for _ in 0..3 {
                value += 1;
                publishes(&mut daemon, dir.path(), value);
            }
            daemon.until("new workers", |_| Client::open(&shm).is_ok());
            eprintln!("lives: {what}, {}", if running { "while it ran" } else { "before it started" });
        }
    }
    assert!(daemon.terminate().success());
}

#[test]
fn m3_a_worker_that_never_lets_go_is_named_by_log_and_metrics() {
    let dir = directory();
    let shm = dir.path().join("shm");
    replace(dir.path(), "rows.csv", &rows(0));
    let mut daemon = Daemon::start(dir.path(), FILE);
    daemon.until("the first rows", |daemon| generation(daemon) > 0);
    // Handles of this process: their slots are held. It pins each generation that comes, in cells of its own.
    let clients: Vec<Client> = (0..12).map(|_| Client::open(&shm).unwrap()).collect();
    let file = readers(&shm);
    let own: Vec<u64> = (0..1024_u64)
        .filter(|slot| {
            let mut pid = [0; 4];
            file.read_exact_at(&mut pid, 4096 + 128 * slot).unwrap();
            u32::from_le_bytes(pid) == std::process::id()
        })
        .collect();
    assert!(own.len() >= 6, "{own:?}");
    let mut value = 0;
    let mut refused = false;
    for _ in 0..400 {
        let current = generation(&daemon);
        let (slot, cell) = (own[(current as usize / 12) % own.len()], current % 12);
        file.write_all_at(
            &mmap_sync::protocol::committed(current).to_le_bytes(),
            4096 + 128 * slot + 32 + 8 * cell,
        )
        .unwrap();
        value += 1;
        replace(dir.path(), "rows.csv", &rows(value));
        daemon.until("a publication or a refusal", |daemon| {
            refused = !daemon.said(0, "not overwritten, since process").is_empty();
            refused || generation(daemon) > current
        });
        if refused {
            break;
        }
    }
    assert!(refused, "{} files", std::fs::read_dir(&shm).unwrap().count());
    let pid = std::process::id();
    assert!(!daemon.said(0, &format!("since process {pid} (reader slot")).is_empty());
    let metric = format!("bliss_holder_pid{{publication=\"features\"}} {pid}");
    daemon.until("the metric", |daemon| daemon.get("/metrics").unwrap().1.contains(&metric));
    assert!(daemon.get("/metrics").unwrap().1.contains("bliss_held_files{publication=\"features\"} 64"));
    // They let go.
    for slot in own {
        file.write_all_at(&[0; 96], 4096 + 128 * slot + 32).unwrap();
    }
    publishes(&mut daemon, dir.path(), 1_000_000);
    drop(clients);
    assert!(daemon.terminate().success());
}
