//! Snapshots that are small when they are sent and large when they are decoded: refused, in little memory.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use common::{Daemon, directory};
use flate2::Compression;
use flate2::write::GzEncoder;

mod common;

/// What a refused snapshot may take.
const MOST: u64 = 256 << 20;

const GOOD: &str = "{\"key\":{\"asn\":7},\"updated_at\":1,\"features\":{}}\n";

/// A server of one answer at a time.
struct Server {
    port: u16,
    answer: Arc<Mutex<Arc<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, stop) = (Arc::new(Mutex::new(Arc::new(Vec::new()))), Arc::new(AtomicBool::new(false)));
        let (answers, stopped) = (answer.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let answer = answers.lock().unwrap().clone();
                // The daemon may have heard enough.
                let _ = serve(stream.unwrap(), &answer);
            }
        });
        Self { port, answer, stop, thread: Some(thread) }
    }

    fn set(&self, encoding: &str, body: &[u8]) {
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n{encoding}Content-Length: {}\r\n\r\n",
            body.len()
        );
        *self.answer.lock().unwrap() = Arc::new([head.as_bytes(), body].concat());
    }
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(answer)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().unwrap().join();
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn rows(count: u32) -> Vec<u8> {
    let mut text = Vec::new();
    (0..count).for_each(|asn| {
        writeln!(text, "{{\"key\":{{\"asn\":{asn}}},\"updated_at\":1,\"features\":{{}}}}").unwrap()
    });
    text
}

/// Forgets the most memory that the process had; what it has now.
fn forget_peak(daemon: &Daemon) -> u64 {
    fs::write(format!("/proc/{}/clear_refs", daemon.child.id()), "5").unwrap();
    peak(daemon)
}

fn peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A dimension with so many features, filled by this origin.
fn config(features: usize, origin: &str) -> String {
    let features: Vec<String> = (0..features.max(1)).map(|at| format!("{{ name = \"f{at}\" }}")).collect();
    format!(
        "[[attribute]]\nname = \"asn\"\ntype = \"u64\"\n[[dimension]]\nname = \"d\"\nkey = [\"asn\"]\nfeatures = [{}]\n{origin}",
        features.join(", ")
    )
}

fn http(port: u16, format: &str) -> String {
    format!(
        "[[origin.http]]\nname = \"o\"\ndimensions = [\"d\"]\nurl = \"http://127.0.0.1:{port}/\"\nformat = \"{format}\"\n\
         interval = \"300ms\"\nretry_min = \"300ms\"\nmax_bytes = 268435456\n"
    )
}

fn refusal(daemon: &Daemon) -> String {
    daemon.status()["origins"][0]["last_refusal"].to_string()
}

fn is_accepted(daemon: &Daemon) -> bool {
    daemon.status()["origins"][0]["state"] == "accepted"
}

#[test]
fn s12_no_refused_snapshot_takes_more_than_256_megabytes() {
    let endless = gzip(&vec![b'a'; 16 << 20]).repeat(80);
    let quote = [gzip(b"key.asn,updated_at\n7,1\n8,\""), endless.clone()].concat();
    let many = gzip(&rows(3_000_000));
    let blank = gzip(&vec![b'\n'; 16 << 20]).repeat(17);
    let deep = [vec![b'['; 900_000], b"\n".to_vec()].concat();
    let pairs = format!("{{\"updated_at\":1,\"key\":{{{}}}}}\n", vec!["\"asn\":1"; 100_000].join(","));
    let header = (0..100_000).map(|at| format!("f{at}")).collect::<Vec<_>>().join(",");
    let cases: [(&str, &str, usize, Vec<u8>, &str); 8] = [
        ("many small rows", "jsonl", 0, many.clone(), "max_decoded_bytes"),
        ("fewer wide ones", "jsonl", 200, many, "max_decoded_bytes"),
        ("a line without end", "jsonl", 0, endless, "max_line_bytes"),
        ("a quote without end", "csv", 0, quote, "max_line_bytes"),
        ("more empty lines than max_bytes", "jsonl", 0, blank, "max_bytes"),
        ("deep brackets", "jsonl", 0, gzip(&deep), "undecodable"),
        ("one key a hundred thousand times", "jsonl", 0, gzip(pairs.as_bytes()), "appears twice"),
        ("a hundred thousand columns", "csv", 1, gzip(header.as_bytes()), "is not a feature"),
    ];
    for (what, format, features, body, expected) in cases {
        let server = Server::start();
        let dir = directory();
        server.set("", if format == "csv" { b"key.asn,updated_at\n7,1\n" } else { GOOD.as_bytes() });
        let mut daemon = Daemon::start(dir.path(), &config(features, &http(server.port, format)));
        daemon.until("good rows", is_accepted);
        let before = forget_peak(&daemon);
        assert!(body.len() < 20 << 20, "{what}: {}", body.len());
        server.set("Content-Encoding: gzip\r\n", &body);
        daemon.until("a refusal", |daemon| refusal(daemon).contains(expected));
        let more = peak(&daemon).saturating_sub(before);
        eprintln!("{what}: {} bytes take {} MB; {}", body.len(), more >> 20, refusal(&daemon));
        assert!(more <= MOST, "{what}: {more}");
        assert!(refusal(&daemon).len() < 1000);
        assert_eq!(
            daemon.status()["features"]["dimensions"][0]["rows"],
            1,
            "{}",
            daemon.status()["features"]
        );
        assert!(daemon.terminate().success());
    }
}

/// The same from a file, which may be sparse.
#[test]
fn s12_a_file_is_limited_too() {
    let dir = directory();
    fs::write(dir.path().join("rows.jsonl"), GOOD).unwrap();
    let origin =
        "[[origin.file]]\nname = \"o\"\ndimensions = [\"d\"]\npath = \"rows.jsonl\"\ninterval = \"100ms\"\n";
    let mut daemon = Daemon::start(dir.path(), &config(0, origin));
    daemon.until("good rows", is_accepted);
    let before = forget_peak(&daemon);
    for (bytes, expected) in [(8 << 30, "max_line_bytes"), (100, "undecodable")] {
        let sparse = fs::File::create(dir.path().join("new")).unwrap();
        sparse.set_len(bytes).unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("rows.jsonl")).unwrap();
        daemon.until("a refusal", |daemon| refusal(daemon).contains(expected));
    }
    let more = peak(&daemon).saturating_sub(before);
    assert!(more <= MOST, "{more}");
    assert!(daemon.terminate().success());
}

/// Rows within `max_decoded_bytes` for which the directory's file system has no room.
#[test]
fn s12_a_file_system_without_room_is_known_before_rows_are_decoded() {
    let dir = directory();
    let shm = dir.path().join("shm");
    fs::create_dir(&shm).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs"]).arg(&shm).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: s12_a_file_system_without_room_is_known_before_rows_are_decoded: mounting a tmpfs needs root"
        );
        return;
    }
    let unmount = Unmount(&shm);
    let server = Server::start();
    server.set("", GOOD.as_bytes());
    let mut daemon = Daemon::start(dir.path(), &config(0, &http(server.port, "jsonl")));
    daemon.until("good rows", is_accepted);
    let before = forget_peak(&daemon);
    server.set("Content-Encoding: gzip\r\n", &gzip(&rows(1_000_000)));
    daemon.until("a refusal", |daemon| refusal(daemon).contains("has room; make the file system larger"));
    let more = peak(&daemon).saturating_sub(before);
    assert!(more <= 64 << 20, "{more}");
    // What fits is published.
    server.set("", &rows(1000));
    daemon.until("rows that fit", |daemon| daemon.status()["features"]["dimensions"][0]["rows"] == 1000);
    assert!(daemon.terminate().success());
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

/// A control group of 128 MB, in which the daemon takes some 20.
#[test]
fn s12_a_control_group_without_room_is_a_refusal_and_not_a_kill() {
    let name = format!("bliss-test-{}", std::process::id());
    let v1 = Path::new("/sys/fs/cgroup/memory").join(&name);
    let v2 = Path::new("/sys/fs/cgroup").join(&name);
    let (group, limit) = if fs::create_dir(&v1).is_ok() {
        (v1, "memory.limit_in_bytes")
    } else if fs::create_dir(&v2).is_ok() && v2.join("memory.max").exists() {
        (v2, "memory.max")
    } else {
        let _ = fs::remove_dir(&v2);
        eprintln!(
            "SKIPPED: s12_a_control_group_without_room_is_a_refusal_and_not_a_kill: making a memory control group needs root \
             and a writable cgroup file system"
        );
        return;
    };
    fs::write(group.join(limit), (128_u64 << 20).to_string()).unwrap();
    let server = Server::start();
    server.set("", GOOD.as_bytes());
    let dir = directory();
    let path = dir.path().join("bliss.toml");
    fs::write(&path, format!("{}{}", common::COMMON, config(0, &http(server.port, "jsonl")))).unwrap();
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", common::BINARY, "run", "--config"]).arg(&path);
    let mut daemon = Daemon::start_with(&mut command);
    daemon.until("good rows", is_accepted);
    server.set("Content-Encoding: gzip\r\n", &gzip(&rows(2_000_000)));
    daemon.until("a refusal", |daemon| refusal(daemon).contains("control group leaves"));
    assert!(daemon.terminate().success());
    drop(dir);
    for _ in 0..1000 {
        if fs::remove_dir(&group).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
