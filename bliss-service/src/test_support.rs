//! What tests of several modules use: a store in memory, a configuration, a web server that misbehaves.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bliss_core::build::{Change, DimensionChange};
use bliss_core::build::{ModelSet, PolicySet};
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::publication::features::FeaturesRef;
use bliss_store::{Publication, PublishMethod};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Keep;
use crate::config::Config;
use crate::crawlers::Claims;
use crate::origin::{self, Context};
use crate::publish::{Store, start_with};
use crate::state::State;

pub(crate) const SECRET: KeySecret = KeySecret([9; SECRET_BYTES]);

/// A store in memory that keeps every publication.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) changes: Arc<Mutex<Vec<Change>>>,
    pub(crate) models: Arc<Mutex<Vec<ModelSet>>>,
    pub(crate) failing: Arc<AtomicBool>,
    /// Rows of each dimension that a previous daemon published; none if empty.
    pub(crate) before: Vec<u64>,
    /// Fails only what changes this dimension.
    pub(crate) failing_dimension: Option<usize>,
}

impl Store for Kept {
    fn publish(&mut self, change: Change) -> Result<Publication, String> {
        let bad =
            self.failing_dimension.is_some_and(|bad| change.dimensions.iter().any(|(at, _)| *at == bad));
        if bad || self.failing.load(Ordering::Relaxed) {
            return Err("no room".into());
        }
        let mut changes = self.changes.lock().unwrap();
        changes.push(change);
        Ok(Publication {
            generation: changes.len() as u64,
            bytes: 0,
            fresh_file: false,
            method: PublishMethod::Built,
        })
    }

    fn publish_models(&mut self, set: &ModelSet) -> Result<u64, String> {
        self.models.lock().unwrap().push(set.clone());
        Ok(1)
    }

    fn publish_policies(&mut self, _: &PolicySet) -> Result<u64, String> {
        Ok(1)
    }

    fn heartbeat(&mut self) {}

    fn current(&self) -> Option<FeaturesRef<'_>> {
        None
    }
}

impl Kept {
    pub(crate) fn publications(&self) -> usize {
        self.changes.lock().unwrap().len()
    }

    /// Keys of the last publication's first dimension, and its first values.
    pub(crate) fn last(&self) -> (usize, Vec<f32>) {
        match &self.changes.lock().unwrap().last().unwrap().dimensions[0].1 {
            DimensionChange::Replace(rows) => (rows.len(), rows.values.clone()),
            DimensionChange::Prefixes(prefixes) => {
                let rows = prefixes.open().unwrap();
                let rows: Vec<_> = (0..rows.layout().rows()).filter_map(|at| rows.row(at)).collect();
                let values = rows.iter().flat_map(|row| row.values());
                (prefixes.len(), values.collect())
            }
            DimensionChange::Patch { upserts, .. } => (upserts.len(), upserts.values.clone()),
        }
    }
}

/// A daemon without the files: origins that publish to [`Kept`].
pub(crate) struct Running {
    pub(crate) kept: Kept,
    pub(crate) state: Arc<State>,
    pub(crate) stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Running {
    /// Runs all origins of the configuration `text`, which needs no `directory`. What is counted is kept where `checkpoint` says.
    pub(crate) fn start(directory: &Path, text: &str, kept: Kept) -> Self {
        let keep = if text.contains("checkpoint.") { "" } else { "checkpoint.directory = \"\"\n" };
        let text = format!("directory = \"unused\"\npublish.interval = \"100ms\"\n{keep}{text}");
        let config =
            Config::parse(&directory.join("bliss.toml"), &text).unwrap_or_else(|error| panic!("{error}"));
        let state = Arc::new(State::new(&config));
        if !kept.before.is_empty() {
            state.found_published(1, &kept.before);
        }
        let (publisher, _thread) =
            start_with(kept.clone(), config.publish_interval, None, state.clone()).unwrap();
        let stop = CancellationToken::new();
        let config = Arc::new(config);
        let keep = Keep::open(&config.checkpoint).unwrap().map(Arc::new);
        let claims = Claims::of(&config, &state);
        for index in 0..config.origins.len() {
            let context = Context {
                index,
                state: state.clone(),
                publisher: publisher.clone(),
                decisions: None,
                claims: claims.clone(),
                keep: keep.clone(),
                stop: stop.clone(),
            };
            let config = config.clone();
            tokio::spawn(async move {
                let target = config.target(context.index, &SECRET).unwrap();
                origin::run(context, target).await.unwrap();
            });
        }
        Self { kept, state, stop }
    }

    /// The part of `/status` under the JSON pointer `pointer`.
    pub(crate) fn status(&self, pointer: &str) -> serde_json::Value {
        let status = serde_json::to_value(self.state.status()).unwrap();
        status.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {status}")).clone()
    }

    /// Waits until `done`; the limit is only there so that a failing test ends.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("gave up waiting for: {what}\n{:#?}", self.state.status());
    }

    /// The values of an address in the last publication's first dimension, which is found by the longest prefix.
    pub(crate) fn at(&self, address: &str) -> Option<Vec<f32>> {
        let changes = self.kept.changes.lock().unwrap();
        let DimensionChange::Prefixes(prefixes) = &changes.last()?.dimensions[0].1 else { return None };
        let address: std::net::IpAddr = address.parse().unwrap();
        Some(prefixes.open()?.get(address.into())?.values().collect())
    }

    pub(crate) async fn until_refused(&self, origin: usize, reason: &str, message: &str) {
        let of = |this: &Self| this.status(&format!("/origins/{origin}/last_refusal"));
        self.until(&format!("{reason}: {message}"), |this| {
            let refusal = of(this);
            refusal["reason"] == reason && refusal["message"].as_str().is_some_and(|m| m.contains(message))
        })
        .await;
    }
}

/// The log of a real site, where the environment says that it is here.
pub(crate) fn real_log(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("BLISS_TEST_DATA");
    if folder.is_none() {
        let why = "BLISS_TEST_DATA does not name a folder with access.log";
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    }
    Some(Path::new(&folder?).join("access.log"))
}

/// One dimension `ip` with a feature `x`.
pub(crate) const DIMENSION: &str =
    "[[dimension]]\nname = \"ip\"\nkey = [\"ip\"]\nfeatures = [{ name = \"x\", max = 100 }]\n";

/// JSON Lines with a row of that dimension for each value.
pub(crate) fn rows(values: &[f32]) -> String {
    let row = |(i, value): (usize, &f32)| {
        format!("{{\"key\":{{\"ip\":\"192.0.2.{i}\"}},\"updated_at\":7,\"features\":{{\"x\":{value}}}}}\n")
    };
    values.iter().enumerate().map(row).collect()
}

/// An origin that reads the file `path`.
pub(crate) fn file_origin(name: &str, path: &str, dimension: &str) -> String {
    format!(
        "[[origin.file]]\nname = \"{name}\"\npath = \"{path}\"\ndimensions = [\"{dimension}\"]\ninterval = \"20ms\"\n"
    )
}

/// An origin that asks a web server here.
pub(crate) fn http_origin(port: u16, dimension: &str, options: &str) -> String {
    format!(
        "[[origin.http]]\nname = \"h\"\nurl = \"http://127.0.0.1:{port}/rows.jsonl?token=secret\"\n\
         dimensions = [\"{dimension}\"]\ninterval = \"30ms\"\nretry_min = \"20ms\"\nretry_max = \"50ms\"\n{options}"
    )
}

/// How the web server answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// With these bytes, head and body, and then it closes.
    Bytes(Vec<u8>),
    /// With these bytes, and then it says nothing more.
    Hang(Vec<u8>),
}

/// A web server with a given answer, which keeps the requests.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) answer: Arc<Mutex<Answer>>,
    /// The answer to requests whose path begins so.
    by_path: Arc<Mutex<Option<(String, Answer)>>>,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self {
            port,
            answer: Arc::new(Mutex::new(answer)),
            by_path: Arc::default(),
            requests: Arc::default(),
        };
        let (answer, by_path) = (server.answer.clone(), server.by_path.clone());
        let requests = server.requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), by_path.clone(), requests.clone()));
            }
        });
        server
    }

    pub(crate) fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn answer_by_path(&self, path: &str, answer: Answer) {
        *self.by_path.lock().unwrap() = Some((format!("GET {path}"), answer));
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<Mutex<Answer>>,
    by_path: Arc<Mutex<Option<(String, Answer)>>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    requests.lock().unwrap().push(String::from_utf8_lossy(&request).to_lowercase());
    let by_path = by_path.lock().unwrap().clone().filter(|(start, _)| request.starts_with(start.as_bytes()));
    let answer = by_path.map_or_else(|| answer.lock().unwrap().clone(), |(_, answer)| answer);
    match answer {
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Answer::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            // Until the other side closes.
            let _ = stream.read_u8().await;
        }
    }
}

/// A whole answer with these headers, each ended by `\r\n`.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    Answer::Bytes([head.as_bytes(), body].concat())
}
