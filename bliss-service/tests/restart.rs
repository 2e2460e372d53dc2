//! The daemon's counts over a kill and a reboot.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bliss_core::request::Request;
use bliss_core::score::Status;
use bliss_store::Client;
use common::{Daemon, directory};

/// Nothing of the log's past is read: what is known of it is in the checkpoint.
const LOG: &str = "[[origin.access_log]]\nname = \"traffic\"\npath = \"access.log\"\nbacklog_bytes = 1\n\
                   dimensions = [\"ip\"]\n";

fn append(directory: &Path, requests: usize) {
    let mut log = fs::File::options().append(true).create(true).open(directory.join("access.log")).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as f64 / 1000.0;
    for _ in 0..requests {
        writeln!(
            log,
            "{{\"msec\":{now},\"remote_addr\":\"192.0.2.1\",\"status\":200,\"request\":\"GET / HTTP/1.1\"}}"
        )
        .unwrap();
    }
}

/// `ip.requests_session` of the visitor.
fn requests(directory: &Path) -> Option<f32> {
    let mut client = Client::open(directory.join("shm")).ok()?;
    let id = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(id, "192.0.2.1".into());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let (values, statuses) = client.look_up(&request, now).ok()?;
    (statuses[0] == Status::Fresh).then(|| values[values.len() - 1])
}

fn signal(daemon: &Daemon, signal: i32) {
    // SAFETY:
    // - the process is our child and has not been waited for, so its id is still its own
    assert_eq!(unsafe { libc::kill(daemon.child.id() as i32, signal) }, 0);
}

#[test]
fn d6_a_kill_and_a_reboot_forget_nothing() {
    let dir = directory();
    append(dir.path(), 0);
    let mut daemon = Daemon::start(dir.path(), LOG);
    // The file must have been found empty.
    daemon.until("the log", |d| {
        d.get("/metrics").unwrap().1.contains("bliss_access_log_files{origin=\"traffic\"} 1")
    });
    append(dir.path(), 5);
    daemon.until("five", |_| requests(dir.path()) == Some(5.0));
    let file = dir.path().join("state/traffic.checkpoint");
    assert!(!file.exists());
    signal(&daemon, libc::SIGUSR2);
    daemon.until("the checkpoint", |_| file.exists());
    append(dir.path(), 3);
    daemon.until("eight", |_| requests(dir.path()) == Some(8.0));
    daemon.kill();

    // A reboot: nothing is in memory any more. Meanwhile the server goes on, and its log is rotated.
    fs::remove_dir_all(dir.path().join("shm")).unwrap();
    append(dir.path(), 2);
    fs::rename(dir.path().join("access.log"), dir.path().join("access.log.1")).unwrap();
    append(dir.path(), 1);
    let mut daemon = Daemon::start(dir.path(), LOG);
    daemon.until("eleven", |_| requests(dir.path()) == Some(11.0));
    assert_eq!(daemon.said(0, "going on from the checkpoint").len(), 1);
    assert!(daemon.terminate().success());

    // One at the end; the memory is still there this time.
    append(dir.path(), 1);
    let mut daemon = Daemon::start(dir.path(), LOG);
    daemon.until("twelve", |_| requests(dir.path()) == Some(12.0));
    // It stays.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(requests(dir.path()), Some(12.0));
    assert!(daemon.terminate().success());

    // A damaged one is said.
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut daemon = Daemon::start(dir.path(), LOG);
    daemon.until("a warning", |d| !d.said(0, "is not used").is_empty());
    assert!(daemon.said(0, "it is damaged")[0].contains("WARN"));
    append(dir.path(), 1);
    daemon.until("one", |_| requests(dir.path()) == Some(1.0));
}

#[test]
fn a_folder_that_cannot_be_used_is_said_and_the_daemon_goes_on() {
    let dir = directory();
    fs::write(dir.path().join("state"), "no folder").unwrap();
    append(dir.path(), 0);
    let mut daemon = Daemon::start(dir.path(), LOG);
    daemon.until("the log", |d| {
        d.get("/metrics").unwrap().1.contains("bliss_access_log_files{origin=\"traffic\"} 1")
    });
    append(dir.path(), 2);
    daemon.until("two", |_| requests(dir.path()) == Some(2.0));
    assert_eq!(daemon.said(0, "is not kept over a restart").len(), 1);
    signal(&daemon, libc::SIGUSR2);
    daemon.until("an answer", |d| !d.said(0, "SIGUSR2 is ignored").is_empty());
    assert!(daemon.terminate().success());
}
