//! Whether the lines of a log count as they should: what an operator must be told.
//!
//! Time is an argument: the host's clock in milliseconds since the epoch, and any monotonic clock.

use std::time::Duration;

use jiff::Timestamp;

use super::follow::Unread;
use super::parse::Malformed;
use crate::refusal::Reason;

/// Lines are judged together by the minute in which they were read.
const MINUTE_MS: u64 = 60_000;
/// Fewer lines are not judged, but together with those of the minutes after them.
const MIN_LINES: u64 = 10;
/// How much of a line is shown.
const SHOWN_BYTES: usize = 200;

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// There is no such file, or no longer.
    Missing,
    /// It may not be read, or reading it fails.
    Unreadable,
    /// No line could be read since the daemon started.
    Undecodable,
    /// More than `max_unread_share` of the lines do not count, most of them because they cannot be read.
    Malformed,
    /// The same, most of them because they came too late.
    Late,
    /// The same, most of them because they are from the future.
    Early,
    /// Nothing was written for longer than `quiet_after`.
    Quiet,
    /// What is counted cannot be kept on disk.
    NotKept,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [ProblemKind; 8] = [
        ProblemKind::Missing,
        ProblemKind::Unreadable,
        ProblemKind::Undecodable,
        ProblemKind::Malformed,
        ProblemKind::Late,
        ProblemKind::Early,
        ProblemKind::Quiet,
        ProblemKind::NotKept,
    ];

    /// Its name in metrics and `/status`.
    pub fn name(self) -> &'static str {
        match self {
            ProblemKind::Missing => "missing",
            ProblemKind::Unreadable => "unreadable",
            ProblemKind::Undecodable => "undecodable",
            ProblemKind::Malformed => "malformed",
            ProblemKind::Late => "late",
            ProblemKind::Early => "early",
            ProblemKind::Quiet => "quiet",
            ProblemKind::NotKept => "not_kept",
        }
    }

    /// What the origin is refused for, if it is: none for a log of which some lines count.
    pub fn refusal(self) -> Option<Reason> {
        match self {
            ProblemKind::Missing | ProblemKind::Unreadable => Some(Reason::Unavailable),
            ProblemKind::Undecodable => Some(Reason::Undecodable),
            ProblemKind::Malformed
            | ProblemKind::Late
            | ProblemKind::Early
            | ProblemKind::Quiet
            | ProblemKind::NotKept => None,
        }
    }
}

/// Why the requests of a log do not count as they should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind.
    pub kind: ProblemKind,
    /// What was found, where, and what to do.
    pub message: String,
}

/// What is tolerated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthOptions {
    /// The share of a minute's lines that may be malformed, late or early; 1: all.
    pub max_unread_share: f64,
    /// How long nothing may be written; zero: for ever.
    pub quiet_after: Duration,
    /// As the aggregator has it, for the message.
    pub lateness_ms: u64,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self { max_unread_share: 0.5, quiet_after: Duration::ZERO, lateness_ms: 120_000 }
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// It counts.
    Counted,
    /// It cannot be read, or only in part.
    Malformed(&'a Malformed),
    /// It came too late; its time.
    Late(u64),
    /// It is from the future; its time.
    Early(u64),
}

/// Lines of one or more minutes.
#[derive(Debug, Default)]
struct Round {
    lines: u64,
    /// Malformed, late and early ones.
    unread: [u64; 3],
    /// The first of each.
    examples: [Option<String>; 3],
}

/// Judges the lines of one origin.
#[derive(Debug)]
pub struct Health {
    options: HealthOptions,
    minute: u64,
    round: Round,
    /// What the last round that was judged showed.
    judged: Option<Problem>,
    /// The first line that could not be read, while none could.
    undecodable: Option<String>,
    has_read: bool,
    bytes: u64,
    grew: Duration,
}

impl Health {
    /// Nothing was read yet.
    pub fn new(options: HealthOptions, now_ms: u64, now: Duration) -> Self {
        Self {
            options,
            minute: now_ms / MINUTE_MS,
            round: Round::default(),
            judged: None,
            undecodable: None,
            has_read: false,
            bytes: 0,
            grew: now,
        }
    }

    /// A line was read. One of a backlog is not judged, since it says nothing of what is written now.
    pub fn line(&mut self, line: &[u8], outcome: Outcome<'_>, is_backlog: bool, now_ms: u64) {
        match outcome {
            Outcome::Malformed(malformed) if !self.has_read => {
                self.undecodable.get_or_insert_with(|| {
                    let what = example(line, None, now_ms);
                    format!("no line could be read yet; the first, {what}: {}; {FORMAT}", malformed.error)
                });
            }
            Outcome::Malformed(_) => {}
            _ => {
                self.has_read = true;
                self.undecodable = None;
            }
        }
        if is_backlog {
            return;
        }
        self.roll(now_ms);
        self.round.lines += 1;
        let (at, time_ms) = match outcome {
            Outcome::Counted => return,
            Outcome::Malformed(malformed) => (0, malformed.partial.and_then(|partial| partial.time_ms)),
            Outcome::Late(time_ms) => (1, Some(time_ms)),
            Outcome::Early(time_ms) => (2, Some(time_ms)),
        };
        self.round.unread[at] += 1;
        self.round.examples[at].get_or_insert_with(|| {
            let what = example(line, time_ms, now_ms);
            match outcome {
                Outcome::Malformed(malformed) => format!("{what}: {}", malformed.error),
                _ => what,
            }
        });
    }

    /// What is wrong now, the worst first: logs that are `unread`, no line that can be read, lines that do not count, no
    /// lines. `bytes` is how much was read so far.
    pub fn problem(&mut self, unread: &[Unread], bytes: u64, now_ms: u64, now: Duration) -> Option<Problem> {
        self.roll(now_ms);
        if bytes != self.bytes {
            (self.bytes, self.grew) = (bytes, now);
        }
        let of_files = || {
            let first = unread.iter().find(|unread| !unread.is_missing).or(unread.first())?;
            let kind = if first.is_missing { ProblemKind::Missing } else { ProblemKind::Unreadable };
            let message = match unread.len() - 1 {
                0 => first.message.clone(),
                others => format!("{} (and {others} more)", first.message),
            };
            Some(Problem { kind, message })
        };
        let of_all_lines = || {
            let message = self.undecodable.clone()?;
            Some(Problem { kind: ProblemKind::Undecodable, message })
        };
        let of_silence = || {
            let (silent, limit) = (now.saturating_sub(self.grew), self.options.quiet_after);
            let message = format!(
                "no line was written for more than {limit:?} (`quiet_after`): see whether the web server still \
                 writes to this file, or reopened another one"
            );
            let is_quiet = !limit.is_zero() && silent > limit;
            is_quiet.then_some(Problem { kind: ProblemKind::Quiet, message })
        };
        of_files().or_else(of_all_lines).or_else(|| self.judged.clone()).or_else(of_silence)
    }

    /// Whether no line could be read yet, although there are some.
    pub fn is_undecodable(&self) -> bool {
        self.undecodable.is_some()
    }

    /// Judges the minute that has passed, if one has.
    fn roll(&mut self, now_ms: u64) {
        let minute = now_ms / MINUTE_MS;
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        let Round { lines, unread, .. } = &self.round;
        if *lines < MIN_LINES {
            return;
        }
        let all: u64 = unread.iter().sum();
        if all as f64 <= self.options.max_unread_share * *lines as f64 {
            self.judged = None;
        } else {
            let most = (0..unread.len()).max_by_key(|at| (unread[*at], std::cmp::Reverse(*at))).unwrap_or(0);
            let kind = [ProblemKind::Malformed, ProblemKind::Late, ProblemKind::Early][most];
            // The first minute's words stay, so that what is told is one thing for as long as it lasts.
            if self.judged.as_ref().is_none_or(|judged| judged.kind != kind) {
                self.judged = Some(Problem { kind, message: self.words(most) });
            }
        }
        self.round = Round::default();
    }

    fn words(&self, most: usize) -> String {
        let Round { lines, unread: [malformed, late, early], examples } = &self.round;
        let lateness = Duration::from_millis(self.options.lateness_ms);
        let why = match most {
            0 => FORMAT.to_owned(),
            1 => format!(
                "their time is more than `lateness` ({lateness:?}) behind: the web server holds lines back (nginx: \
                 `access_log … buffer=` without a `flush=` well below `lateness`), or a clock or time zone is wrong; \
                 shorten `flush=`, or raise `lateness`"
            ),
            _ => "their time is in the future: see to the clocks, and to the time zone of the log".to_owned(),
        };
        let example = examples.get(most).and_then(Option::as_deref).unwrap_or_default();
        format!(
            "of the last {lines} lines, {malformed} cannot be read, {late} came too late and {early} are \
             from the future; {example}; {why}"
        )
    }
}

const FORMAT: &str =
    "compare the log's format with docs/access-log.md and the origin's `format` and `fields`";

/// A line, its time and the present one, safe to be shown: cut, and with escapes.
fn example(line: &[u8], time_ms: Option<u64>, now_ms: u64) -> String {
    let shown = line.get(..SHOWN_BYTES).unwrap_or(line).escape_ascii();
    let cut = if line.len() > SHOWN_BYTES { "…" } else { "" };
    let time = time_ms.map(|time_ms| format!(" with the time {}", timestamp(time_ms))).unwrap_or_default();
    format!("read at {}{time}: `{shown}{cut}`", timestamp(now_ms))
}

fn timestamp(ms: u64) -> String {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| format!("{ms} ms"), |timestamp| timestamp.to_string())
}

#[cfg(test)]
mod tests;
