//! Snapshots that are small where they come from and large where they are decoded. Each is refused for what it is, the last good
//! rows stay, and the daemon's memory stays small: what it took at most is the kernel's account of the real process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Daemon, directory, replace};
use flate2::Compression;
use flate2::write::GzEncoder;

mod common;

/// Above the published copies.
const MOST: u64 = 256 << 20;

/// Writes a body, in as many pieces as it likes.
type Body = Box<dyn Fn(&mut dyn Write) -> std::io::Result<()> + Send + Sync>;

/// Compressed as it is written: a bomb's content is nowhere in memory.
fn gzip(body: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static) -> Body {
    Box::new(move |out| {
        let mut encoder = GzEncoder::new(out, Compression::fast());
        body(&mut encoder)?;
        encoder.finish().map(drop)
    })
}

/// Lines of `line`, which gets their number, until the other side closes or there are `count`.
fn lines(
    head: &'static str,
    count: u64,
    line: fn(u64) -> String,
) -> impl Fn(&mut dyn Write) -> std::io::Result<()> {
    move |out| {
        out.write_all(head.as_bytes())?;
        (0..count).try_for_each(|i| out.write_all(line(i).as_bytes()))
    }
}

/// `what` over and over, up to `bytes`.
fn over_and_over(
    head: &'static str,
    what: &'static str,
    bytes: u64,
) -> impl Fn(&mut dyn Write) -> std::io::Result<()> {
    move |out| {
        let piece = what.repeat(65536 / what.len());
        out.write_all(head.as_bytes())?;
        (0..bytes / piece.len() as u64).try_for_each(|_| out.write_all(piece.as_bytes()))
    }
}

/// A web server that sends head and body of what it has at the moment.
struct Server {
    port: u16,
    answer: Arc<Mutex<Arc<(String, Body)>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let empty: Body = Box::new(|_| Ok(()));
        let answer = Arc::new(Mutex::new(Arc::new((String::new(), empty))));
        let current = answer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer: Arc<(String, Body)> = current.lock().unwrap().clone();
                std::thread::spawn(move || serve(stream, &answer));
            }
        });
        Self { port, answer }
    }

    fn set(&self, headers: &str, body: Body) {
        *self.answer.lock().unwrap() = Arc::new((headers.to_owned(), body));
    }
}

/// The other side closes when it has enough.
fn serve(mut stream: TcpStream, (headers, body): &(String, Body)) -> Option<()> {
    let mut request = BufReader::new(stream.try_clone().ok()?).lines();
    while !request.next()?.ok()?.is_empty() {}
    write!(stream, "HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n").ok()?;
    body(&mut stream).ok()
}

/// Of the process's account, in bytes.
fn account(daemon: &Daemon, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    1024 * line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// Begins a new account of the most memory.
fn forget_peak(daemon: &Daemon) {
    fs::write(format!("/proc/{}/clear_refs", daemon.child.id()), "5").unwrap();
}

fn published(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(directory.join("shm")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// Two dimensions, a narrow and a wide one.
fn schema() -> String {
    let wide: Vec<_> = (0..200).map(|i| format!("{{ name = \"f{i}\" }}")).collect();
    format!(
        "[[dimension]]\nname = \"narrow\"\nkey = [\"asn\"]\nfeatures = [{{ name = \"x\" }}]\n\
         [[dimension]]\nname = \"wide\"\nkey = [\"asn\"]\nfeatures = [{}]\n",
        wide.join(", ")
    )
}

const GOOD: &str = "{\"dimension\":\"wide\",\"key\":{\"asn\":1},\"updated_at\":1,\"features\":{\"f0\":1}}\n";

fn narrow(i: u64) -> String {
    format!("{{\"dimension\":\"narrow\",\"key\":{{\"asn\":{i}}},\"updated_at\":1}}\n")
}

fn wide(i: u64) -> String {
    format!("{{\"dimension\":\"wide\",\"key\":{{\"asn\":{i}}},\"updated_at\":1}}\n")
}

/// The generation of what is published, once it stays: on a busy machine the status lags behind the rows.
fn settled(daemon: &Daemon) -> serde_json::Value {
    let generation = || daemon.status()["features"]["generation"].clone();
    let mut last = generation();
    loop {
        std::thread::sleep(Duration::from_millis(700));
        let now = generation();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// A daemon with one origin, and good rows of it.
struct Attacked {
    dir: tempfile::TempDir,
    daemon: Daemon,
    refusals: u64,
    /// Refusals to wait for: a server may have been asked before it had the bomb.
    looks: usize,
}

impl Attacked {
    fn start(dir: tempfile::TempDir, origin: &str, looks: usize) -> Self {
        let config = format!("{}{origin}dimensions = [\"narrow\", \"wide\"]\nname = \"o\"\n", schema());
        let mut daemon = Daemon::start(dir.path(), &config);
        daemon.until("good rows", |daemon| {
            let status = daemon.status();
            status["origins"][0]["state"] == "accepted" && status["features"]["dimensions"][1]["rows"] == 1
        });
        // The status may lag behind the publication.
        std::thread::sleep(Duration::from_millis(500));
        Self { dir, daemon, refusals: 0, looks }
    }

    /// Gives it a bomb, waits for its refusal and says how much memory was taken.
    fn bomb(&mut self, what: &str, reason: &str, message: &str, give: impl FnOnce(&Path)) {
        // A server is asked again and again, and its good rows are published again, until it has the bomb.
        let mut generation = (self.looks == 1).then(|| settled(&self.daemon));
        let mut last = self.daemon.status()["origins"][0]["last_refusal"]["last_at"].clone();
        forget_peak(&self.daemon);
        let copies = published(self.dir.path());
        give(self.dir.path());
        for _ in 0..self.looks {
            let last_at = |daemon: &Daemon| daemon.status()["origins"][0]["last_refusal"]["last_at"].clone();
            self.daemon.until(what, |daemon| last_at(daemon) != last);
            last = last_at(&self.daemon);
            generation.get_or_insert_with(|| settled(&self.daemon));
        }
        self.daemon.until(what, |daemon| {
            let refusal = &daemon.status()["origins"][0]["last_refusal"];
            refusal["reason"] == reason
                && refusal["message"].as_str().is_some_and(|text| text.contains(message))
        });
        let peak = account(&self.daemon, "VmHWM");
        let above = peak.saturating_sub(copies);
        eprintln!("{what}: {} MB at most, {} MB above the copies", peak >> 20, above >> 20);
        assert!(above <= MOST, "{what}: {} MB above the published copies", above >> 20);
        let status = self.daemon.status();
        assert_eq!(Some(&status["features"]["generation"]), generation.as_ref(), "{what}: published");
        assert_eq!(status["origins"][0]["rows"], 1, "{what}: the good rows stay");
        self.refusals += 1;
    }
}

#[test]
fn s12_bombs_of_a_server_take_little_memory() {
    let server = Server::start();
    server.set("", Box::new(|out| out.write_all(GOOD.as_bytes())));
    let origin = format!(
        "[[origin.http]]\nurl = \"http://127.0.0.1:{}/r.jsonl\"\ninterval = \"100ms\"\nretry_min = \"100ms\"\nretry_max = \"200ms\"\n\
         timeout = \"60s\"\n\
         max_bytes = 268435456\n",
        server.port
    );
    let mut attacked = Attacked::start(directory(), &origin, 2);
    let packed = "Content-Encoding: gzip\r\n";
    let chunked = "Content-Encoding: zstd\r\n";
    let nested = |open: &'static str| over_and_over("{\"dimension\":\"wide\",\"key\":", open, 900_000);
    let mut name_without_end = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    name_without_end.extend([b'n'; 1000]);
    let bombs: Vec<(&str, &str, Body, &str, &str)> = vec![
        (
            "2,000,000 wide rows",
            packed,
            gzip(lines("", 2_000_000, wide)),
            "too_large",
            "(max_decoded_bytes; a row of `wide` takes 848)",
        ),
        (
            "5,000,000 narrow rows",
            packed,
            gzip(lines("", 5_000_000, narrow)),
            "too_many_rows",
            "(max_decoded_bytes)",
        ),
        (
            "narrow rows, not compressed",
            "",
            Box::new(lines("", 5_000_000, narrow)),
            "too_many_rows",
            "(max_decoded_bytes)",
        ),
        (
            "one line of 1 GiB",
            packed,
            gzip(over_and_over("", "a", 1 << 30)),
            "too_large",
            "line 1: more than 1048576 bytes",
        ),
        (
            "one string of 1 GiB",
            packed,
            gzip(over_and_over("{\"key\":{\"asn\":\"", "0", 1 << 30)),
            "too_large",
            "max_line_bytes",
        ),
        ("empty lines", packed, gzip(over_and_over("", "\n", 5 << 26)), "too_large", "(max_bytes)"),
        (
            "one row over and over",
            packed,
            gzip(lines("", 10_000_000, |_| narrow(1))),
            "too_many_rows",
            "(max_decoded_bytes)",
        ),
        ("deep arrays", "", Box::new(nested("[")), "undecodable", "line 1"),
        ("deep objects", "", Box::new(nested("{\"k\":")), "undecodable", "line 1"),
        (
            "many members",
            "",
            Box::new(over_and_over("{\"key\":{", "\"asn\":1,", 1_000_000)),
            "undecodable",
            "line 1",
        ),
        (
            "a zstd window",
            chunked,
            Box::new(|out| out.write_all(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8])),
            "undecodable",
            "found Content-Encoding `zstd`",
        ),
        (
            "a gzip name without end",
            packed,
            Box::new(move |out| {
                (0..300_000).try_for_each(|i| {
                    out.write_all(if i == 0 { &name_without_end } else { &name_without_end[10..] })
                })
            }),
            "unavailable",
            "gzip: member 1 is broken",
        ),
        ("nothing", "", Box::new(|_| Ok(())), "too_few_rows", "0 rows"),
    ];
    for (what, headers, body, reason, message) in bombs {
        attacked.bomb(what, reason, message, |_| server.set(headers, body));
    }
    let many: String = (0..100_000).map(|i| format!("X-{i}: {}\r\n", "a".repeat(400))).collect();
    attacked.bomb("40 MB of headers", "unavailable", "the request failed", |_| {
        server.set(&many, Box::new(|_| Ok(())))
    });
    assert_eq!(attacked.refusals, 14);
    server.set("", Box::new(|out| out.write_all((GOOD.to_owned() + &narrow(2)).as_bytes())));
    attacked.daemon.until("good rows again", |daemon| daemon.status()["origins"][0]["rows"] == 2);
    assert!(attacked.daemon.terminate().success());
}

#[test]
fn s12_bombs_in_a_file_take_little_memory() {
    for (format, bombs) in [
        (
            "jsonl",
            vec![
                (
                    "wide rows",
                    Box::new(lines("", 1_000_000, wide)) as Body,
                    "too_large",
                    "(max_decoded_bytes; a row of `wide` takes 848)",
                ),
                (
                    "narrow rows",
                    Box::new(lines("", 3_000_000, narrow)),
                    "too_many_rows",
                    "(max_decoded_bytes)",
                ),
                (
                    "one line",
                    Box::new(over_and_over("", "a", 300 << 20)),
                    "too_large",
                    "line 1: more than 1048576 bytes",
                ),
            ],
        ),
        (
            "csv",
            vec![
                (
                    "wide rows",
                    Box::new(lines("dimension,key.asn,updated_at\n", 1_000_000, |i| format!("wide,{i},1\n")))
                        as Body,
                    "too_large",
                    "(max_decoded_bytes",
                ),
                (
                    "a cell in quotes without end",
                    Box::new(over_and_over("dimension,key.asn,updated_at\nwide,\"", "a\n", 300 << 20)),
                    "too_large",
                    "(max_line_bytes)",
                ),
                (
                    "a header without end",
                    Box::new(over_and_over("", "f1,", 300 << 20)),
                    "too_large",
                    "line 1: more than 1048576 bytes",
                ),
                (
                    "empty cells",
                    Box::new(over_and_over("dimension,key.asn,updated_at\n", ",", 300 << 20)),
                    "too_large",
                    "(max_line_bytes)",
                ),
            ],
        ),
    ] {
        let dir = directory();
        let good = if format == "csv" { "dimension,key.asn,updated_at,f0\nwide,1,1,1\n" } else { GOOD };
        let name = format!("rows.{format}");
        replace(dir.path(), &name, good);
        let origin = format!("[[origin.file]]\npath = \"{name}\"\ninterval = \"100ms\"\n");
        let mut attacked = Attacked::start(dir, &origin, 1);
        let disk = tempfile::tempdir().unwrap();
        for (what, body, reason, message) in bombs {
            attacked.bomb(&format!("{format}: {what}"), reason, message, |dir| {
                // On a disk: the file itself is no memory of anybody. A link is put in its place.
                let file = disk.path().join(what);
                body(&mut std::io::BufWriter::new(fs::File::create(&file).unwrap())).unwrap();
                std::os::unix::fs::symlink(&file, dir.join("link")).unwrap();
                fs::rename(dir.join("link"), dir.join(&name)).unwrap();
            });
        }
        attacked.bomb(&format!("{format}: 1 TiB of holes"), "too_large", "(max_line_bytes)", |dir| {
            let file = fs::File::create(dir.join("holes")).unwrap();
            file.set_len(1 << 40).unwrap();
            fs::rename(dir.join("holes"), dir.join(&name)).unwrap();
        });
        assert!(attacked.daemon.terminate().success());
    }
}
