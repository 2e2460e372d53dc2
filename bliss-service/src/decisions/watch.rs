//! From lines of the web server's log to decisions, on a thread of its own.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::request::{HttpId, Request};
use bliss_store::Client;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;

use super::{Decision, DecisionFile, DimensionRow, Explanation, Input, Simulated};
use crate::access_log::parse::{Parser, Record};
use crate::checkpoint::now_ms;
use crate::why::{Judge, Why};

/// So many lines may wait; more are dropped and counted.
const MOST_WAITING: usize = 1024;
/// One request in so many that were let through shows what is typical.
const TYPICAL_ONE_IN: u64 = 16;
/// Inputs of an explanation.
const INPUTS: usize = 5;
/// A score of a line that is read later than this would be explained by what is not published any more.
const MAX_AGE_MS: u64 = 60_000;
/// Texts of a client are cut here.
const MAX_TEXT: usize = 1024;

/// What is written of decisions, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionOptions {
    /// Of how many requests that were let through one is written; 0: none is.
    pub sample_one_in: u64,
    /// At most so many a second; others are dropped and counted.
    pub max_per_second: u32,
    /// What the file and the one before it may have together.
    pub max_bytes: u64,
    /// The file; in the folder of checkpoints if `None`.
    pub file: Option<PathBuf>,
}

impl Default for DecisionOptions {
    fn default() -> Self {
        Self { sample_one_in: 0, max_per_second: 50, max_bytes: 64 << 20, file: None }
    }
}

/// How many decisions were written, and how many were not.
#[derive(Clone, Debug, Default)]
pub struct DecisionCounts {
    /// Written to the file.
    pub written: Counter,
    /// Beyond the limits, or the file could not be written.
    pub dropped: Counter,
}

struct Line {
    bytes: Box<[u8]>,
    parser: Arc<Parser>,
    /// Whether it is written, or only shows what is typical.
    is_decision: bool,
}

/// The thread that explains and writes. It ends when the last of these, and of the [`LogWatch`]es of it, is gone.
#[derive(Clone, Debug)]
pub struct Watch {
    lines: SyncSender<Line>,
    counts: DecisionCounts,
    sample_one_in: u64,
}

impl Watch {
    /// Starts the thread, which explains by what is published in `directory` and writes to `file`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        options: &DecisionOptions,
        file: PathBuf,
        directory: PathBuf,
        counts: DecisionCounts,
    ) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(MOST_WAITING);
        let thread = Thread {
            file: DecisionFile::new(file, options.max_bytes),
            directory,
            counts: counts.clone(),
            worker: None,
            judge: Judge::default(),
            second: Instant::now(),
            left: options.max_per_second,
            max_per_second: options.max_per_second,
            has_failed: false,
        };
        std::thread::Builder::new().name("decisions".into()).spawn(move || thread.run(&waiting))?;
        Ok(Self { lines, counts, sample_one_in: options.sample_one_in })
    }

    /// For the lines of a log that `parser` reads.
    pub fn of_log(&self, parser: &Parser) -> LogWatch {
        LogWatch { watch: self.clone(), parser: Arc::new(parser.clone()), seen: 0 }
    }
}

/// Takes the lines of one log. Never waits.
#[derive(Debug)]
pub struct LogWatch {
    watch: Watch,
    parser: Arc<Parser>,
    seen: u64,
}

impl LogWatch {
    /// Takes a line that was read as `record`.
    pub fn offer(&mut self, line: &[u8], record: &Record<'_>) {
        let Watch { lines, counts, sample_one_in } = &self.watch;
        self.seen += 1;
        let is_sampled = *sample_one_in > 0 && self.seen.is_multiple_of(*sample_one_in);
        let is_decision = record.is_noted || is_sampled;
        if !is_decision && !self.seen.is_multiple_of(TYPICAL_ONE_IN) {
            return;
        }
        let line = Line { bytes: line.into(), parser: self.parser.clone(), is_decision };
        if lines.try_send(line).is_err() && is_decision {
            counts.dropped.inc();
        }
    }
}

/// What a line of a JSON log tells beyond the request; other formats tell the action alone.
struct Told(serde_json::Map<String, serde_json::Value>);

impl Told {
    fn read(line: &[u8]) -> Self {
        Self(serde_json::from_str(&String::from_utf8_lossy(line)).unwrap_or_default())
    }

    /// The field of this name, as text, behind `bliss_` or else `bot_`. Empty and `-` are none.
    fn get(&self, name: &str) -> Option<String> {
        let field = |prefix: &str| self.0.get(&format!("{prefix}{name}"));
        let text = match field("bliss_").or_else(|| field("bot_"))? {
            serde_json::Value::String(text) => shortened(text.as_bytes()),
            serde_json::Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (!text.is_empty() && text != "-").then_some(text)
    }
}

/// At most [`MAX_TEXT`] bytes of a client's text.
fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes)).into_owned()
}

impl Simulated {
    /// The rule, and its action in a field of its own, or behind the rule as examples/nginx logs it: `rule: action`.
    fn read(told: String, action: Option<String>) -> Self {
        const ACTIONS: [&str; 6] = ["allow", "observe", "tag", "rate_limit_key", "challenge", "block"];
        match told.rsplit_once(": ").filter(|(_, last)| action.is_none() && ACTIONS.contains(last)) {
            Some((rule, action)) => Self { rule: rule.to_owned(), action: Some(action.to_owned()) },
            None => Self { rule: told, action },
        }
    }
}

impl Decision {
    /// From a line of a log, and the request that it is about.
    fn read(line: &[u8], record: &Record<'_>) -> Self {
        let told = Told::read(line);
        let score = told.get("score").and_then(|score| score.parse().ok());
        let own = if record.own_answer { "block" } else { "allow" };
        let time = i64::try_from(record.time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self {
            time: time.unwrap_or_default(),
            request_id: told.get("request_id"),
            ip: record.ip,
            method: shortened(&record.method),
            host: record.host.as_deref().map(shortened),
            path: shortened(&record.path),
            user_agent: record.user_agent.as_deref().map(shortened),
            status: record.status,
            route: told.get("route").unwrap_or_else(|| DEFAULT_ROUTE.to_owned()),
            action: told.get("action").unwrap_or_else(|| own.to_owned()),
            rule: told.get("rule"),
            simulated: told.get("simulated").map(|rule| Simulated::read(rule, told.get("simulated_action"))),
            score,
            unscored: told.get("status").filter(|status| status != "scored" && score.is_none()),
            model: told.get("model"),
            model_version: told.get("model_version"),
            explanation: None,
            not_explained: None,
        }
    }
}

/// The handle that explains.
struct Worker {
    client: Client,
    http: HttpId,
}

impl Worker {
    fn open(directory: &std::path::Path) -> Result<Self, String> {
        let mut client = Client::open(directory).map_err(|error| error.to_string())?;
        let http = client.names().http().map_err(|error| error.to_string())?;
        Ok(Self { client, http })
    }
}

struct Thread {
    file: DecisionFile,
    directory: PathBuf,
    counts: DecisionCounts,
    worker: Option<Worker>,
    judge: Judge,
    second: Instant,
    left: u32,
    max_per_second: u32,
    /// The last decision could not be written.
    has_failed: bool,
}

impl Thread {
    fn run(mut self, waiting: &Receiver<Line>) {
        while let Ok(line) = waiting.recv() {
            self.take(&line);
        }
    }

    fn take(&mut self, line: &Line) {
        // It was read once, so it can be read.
        let Ok(record) = line.parser.parse(&line.bytes) else { return };
        if !line.is_decision {
            return self.show_what_is_typical(&record);
        }
        if self.second.elapsed().as_secs() > 0 {
            (self.second, self.left) = (Instant::now(), self.max_per_second);
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.counts.dropped.inc();
            return;
        };
        self.left = left;
        let mut decision = Decision::read(&line.bytes, &record);
        match self.explain(&record, &decision.route) {
            Ok(explanation) => decision.explanation = Some(explanation),
            Err(reason) => decision.not_explained = Some(reason),
        }
        let written = self.file.append(&decision);
        match &written {
            Ok(()) => {
                self.counts.written.inc();
                if self.has_failed {
                    tracing::info!("decisions are written again");
                }
            }
            Err(error) => {
                self.counts.dropped.inc();
                if !self.has_failed {
                    tracing::error!("decisions cannot be written, and are dropped until they can: {error}");
                }
            }
        }
        self.has_failed = written.is_err();
    }

    /// Calls `with` with the handle and the request.
    fn with<R>(
        &mut self,
        record: &Record<'_>,
        with: impl FnOnce(&mut Judge, &mut Client, &Request<'_>, u32) -> R,
    ) -> Result<R, String> {
        if self.worker.is_none() {
            self.worker = Some(Worker::open(&self.directory)?);
        }
        let Some(worker) = &mut self.worker else { return Err("no handle".to_owned()) };
        let ip: &[u8] = match &record.ip {
            IpAddr::V4(ip) => &ip.octets(),
            IpAddr::V6(ip) => &ip.octets(),
        };
        let mut request = Request::new();
        request.set_http(&worker.http, record.http(ip));
        let _ = worker.client.maintain();
        let now = u32::try_from(now_ms() / 1000).unwrap_or(u32::MAX);
        Ok(with(&mut self.judge, &mut worker.client, &request, now))
    }

    fn show_what_is_typical(&mut self, record: &Record<'_>) {
        // Without a publication there is nothing to show.
        let _ = self.with(record, |judge, client, request, now| judge.sample(client, request, now));
    }

    fn explain(&mut self, record: &Record<'_>, route: &str) -> Result<Explanation, String> {
        let age_ms = now_ms().saturating_sub(record.time_ms);
        if age_ms > MAX_AGE_MS {
            return Err(format!("it was read {} s after it was made", age_ms / 1000));
        }
        let explained = self.with(record, |judge, client, request, now| {
            let why = judge.explain(client, request, route, now).map_err(|error| error.to_string())?;
            let Why { explained, contributions } = why;
            let inputs = contributions.into_iter().take(INPUTS).map(|part| Input {
                typical: judge.typical(part.index),
                name: part.name,
                value: part.value,
                points: (part.points * 100.0).round() / 100.0,
            });
            Ok(Explanation {
                score: explained.scored.score,
                expected_score: explained.expected_score,
                features_generation: client.features_generation(),
                models_generation: client.models_generation(),
                dimensions: DimensionRow::of(client.scorer(), now),
                inputs: inputs.collect(),
            })
        });
        explained.and_then(|explained| explained)
    }
}

#[cfg(test)]
mod tests;
