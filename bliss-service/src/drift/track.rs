//! What the daemon knows of one model's inputs and scores: the last window, the site's own past, and what is wrong now.
//!
//! Time is cut in slices, 12 of which are a window, and in days, 7 of which are the past (with the default options they are
//! of five minutes and of a day). The past is made of days that are over, so that what happens now is not compared with
//! itself; until they have all hours of a day, nothing is said to have changed: an evening says nothing of a night.
//!
//! A site's own hours differ: by night, by a crawler that comes once a week. So the limit of an input is not below what
//! its windows of the past came to, and half as much again; and what is above it must be so for a window and a half, since
//! one client in a hurry fills each window that it is in. What is missing is told at once. What lasts for longer than a day
//! becomes the past.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bliss_catboost::DistributionRow;
use bliss_catboost::distribution::NAN_BIN;
use serde::{Deserialize, Serialize};

use super::alert::{Alert, Kind};
use super::psi::{Counts, Past, Shares, bins, psi, shares, total};
use crate::config::DriftOptions;
use stretch::{ALL_HOURS, HOURS, Stretch, add, number, sum, without};

mod stretch;

/// Slices of a window.
const SLICES: u64 = 12;
/// Judgements that something must outlast to be told: as many windows have a part of a burst of half a window.
const LASTING: u64 = SLICES + SLICES / 2;
/// Days of the past.
const DAYS: u64 = 7;
/// How much more than usual an input may differ.
const BEYOND_USUAL: f64 = 1.5;
/// An alert ends below this part of the limit at which it begins: 0.1 for 0.25.
const END: f64 = 0.4;
/// An input that training hardly knew cannot differ from it.
const UNKNOWN_IN_TRAINING: f64 = 0.95;
/// So much more than in the past or in training may be NaN, and ends below half of it.
const MORE_MISSING: f64 = 0.5;
/// One bin that holds so much, and held at most the other in training, says that the input tells nothing.
const CONSTANT: f64 = 0.98;
const NOT_CONSTANT: f64 = 0.9;
const NOT_CONSTANT_BEFORE: f64 = 0.5;
/// The share of judged inputs that must be far from training for the traffic to be another one.
const MOST: f64 = 0.5;

/// A row: scores, or an input.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The input's name; `None` for scores.
    pub(super) input: Option<String>,
    borders: Vec<f32>,
    training: Shares,
}

impl Row {
    pub(super) fn new(input: Option<String>, row: &DistributionRow) -> Self {
        Self { input, borders: row.borders().to_vec(), training: row.shares().map(f64::from) }
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &str {
        self.input.as_deref().unwrap_or("the score")
    }

    /// A bin in words.
    pub(super) fn bin(&self, bin: usize) -> String {
        let border = |at: usize| self.borders.get(at).copied().unwrap_or(f32::INFINITY);
        match bin {
            NAN_BIN => "NaN".into(),
            _ if self.borders.is_empty() => "a value".into(),
            0 => format!("up to {}", border(0)),
            _ if bin >= self.borders.len() => format!("above {}", border(self.borders.len() - 1)),
            _ => format!("above {} up to {}", border(bin - 1), border(bin)),
        }
    }
}

/// What is kept of a model over a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    slices: VecDeque<Stretch>,
    today: Stretch,
    past: VecDeque<Stretch>,
    alerts: Vec<(usize, Kind, Alert)>,
    above: Vec<(usize, Kind, Above)>,
}

#[cfg(test)]
impl Memory {
    /// Requests of the days that are over.
    pub(super) fn past_requests(&self) -> u64 {
        self.past.iter().map(Stretch::requests).sum()
    }
}

/// Indices of a row in the last window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Judged {
    /// Against the site's own past, and the limit; none while that is not known.
    pub(super) past: Option<(f64, f64)>,
    /// Against training; none for an input that training hardly knew.
    pub(super) training: Option<f64>,
    /// The share of NaN.
    pub(super) missing: f64,
}

/// Shares of a row's bins now and before.
struct Compared<'a> {
    is: &'a Shares,
    was: &'a Shares,
    psi: f64,
}

impl Compared<'_> {
    fn is(&self, bin: usize) -> f64 {
        self.is.get(bin).copied().unwrap_or(0.0)
    }

    fn was(&self, bin: usize) -> f64 {
        self.was.get(bin).copied().unwrap_or(0.0)
    }

    fn alert(&self, since: Duration, bin: usize, limit: f64) -> Alert {
        Alert { since, bin, was: self.was(bin), is: self.is(bin), psi: self.psi, limit }
    }
}

/// How long a row has been above a limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Above {
    since: Duration,
    /// How often in a row that was found.
    times: u64,
    /// What was usual on that day before.
    usual: f64,
}

/// One model.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) rows: Vec<Row>,
    memory: Memory,
    /// The last look, since the epoch.
    looked: Option<Duration>,
    /// Of each row, once a window has enough requests.
    judged: Vec<Judged>,
    above: BTreeMap<(Kind, usize), Above>,
    alerts: BTreeMap<(Kind, usize), Alert>,
}

/// How far the daemon's knowledge goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Knowledge {
    /// The window has too few requests.
    TooFewRequests,
    /// Only what training says is compared with: the site's own past is not long enough.
    Learning,
    /// Everything is.
    Watching,
}

/// What began and what ended.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) began: Vec<(Kind, usize)>,
    pub(super) ended: Vec<(Kind, usize, Alert)>,
}

impl Track {
    pub(super) fn new(rows: Vec<Row>, memory: Option<Memory>) -> Self {
        let count = rows.len();
        let fits = |stretch: &Stretch| stretch.counts.len() == count && stretch.usual.len() == count;
        let mut memory = memory.unwrap_or_default();
        // A file may say anything.
        memory.slices.retain(fits);
        memory.past.retain(fits);
        memory.slices.truncate(SLICES as usize + 1);
        memory.past.truncate(DAYS as usize);
        if !fits(&memory.today) {
            memory.today = Stretch::new(0, count);
        }
        let alerts = memory.alerts.drain(..).filter(|(row, _, _)| *row < count);
        let alerts = alerts.map(|(row, kind, alert)| ((kind, row), alert)).collect();
        let above = memory.above.drain(..).filter(|(row, _, _)| *row < count);
        let above = above.map(|(row, kind, above)| ((kind, row), above)).collect();
        Self { rows, memory, looked: None, judged: Vec::new(), above, alerts }
    }

    /// What is to be kept.
    pub(super) fn memory(&self) -> Memory {
        let alerts = self.alerts.iter().map(|((kind, row), alert)| (*row, *kind, alert.clone()));
        let above = self.above.iter().map(|((kind, row), above)| (*row, *kind, *above));
        Memory { alerts: alerts.collect(), above: above.collect(), ..self.memory.clone() }
    }

    pub(super) fn alerts(&self) -> impl Iterator<Item = (Kind, &Row, &Alert)> {
        self.alerts.iter().filter_map(|((kind, row), alert)| Some((*kind, self.rows.get(*row)?, alert)))
    }

    pub(super) fn judged(&self) -> impl Iterator<Item = (&Row, Judged)> {
        self.rows.iter().zip(self.judged.iter().copied())
    }

    /// Counted requests of the last window.
    pub(super) fn requests(&self) -> u64 {
        self.memory.slices.iter().fold(0, |sum, slice| sum.saturating_add(slice.requests()))
    }

    pub(super) fn knowledge(&self) -> Knowledge {
        match (self.judged.is_empty(), self.knows_a_day()) {
            (true, _) => Knowledge::TooFewRequests,
            (false, false) => Knowledge::Learning,
            (false, true) => Knowledge::Watching,
        }
    }

    /// Whether the past has all hours of a day, be it of several days.
    fn knows_a_day(&self) -> bool {
        self.memory.past.iter().fold(0, |hours, day| hours | day.hours) == ALL_HOURS
    }

    /// Takes what was counted up to `now`, since the epoch. Judges when a slice is over, and gives what began and ended.
    pub(super) fn take(&mut self, now: Duration, counts: &[Counts], options: &DriftOptions) -> Changes {
        let slice = number(now, options.window / SLICES as u32);
        let day = number(now, options.past / DAYS as u32);
        let rows = self.rows.len();
        let looked =
            self.looked.replace(now).filter(|looked| *looked <= now && now - *looked <= options.window);
        let looked = looked.unwrap_or(now);
        let mut changes = Changes::default();
        if self.memory.slices.back().is_none_or(|last| last.number != slice) {
            self.memory
                .slices
                .retain(|old| old.number.saturating_add(SLICES) >= slice && old.number <= slice);
            if self.memory.slices.is_empty() {
                // Nobody looked for a window: whether it lasted is not known.
                self.correct_usual(now, options);
                self.above.clear();
            }
            self.judge(now, options, &mut changes);
            self.memory.slices.retain(|old| old.number.saturating_add(SLICES) > slice);
            self.memory.slices.push_back(Stretch::new(slice, rows));
        }
        self.see(looked, now, options);
        if self.memory.today.number != day {
            self.correct_usual(now, options);
            self.end_day(day, options);
        }
        self.memory.today.add(counts);
        self.see(looked, now, options);
        if let Some(last) = self.memory.slices.back_mut() {
            last.add(counts);
        }
        changes
    }

    /// Marks the hours of today from `since` to `now`. Those before the first request are not seen: workers are not there yet.
    fn see(&mut self, since: Duration, now: Duration, options: &DriftOptions) {
        let Memory { today, past, .. } = &mut self.memory;
        if today.requests() == 0 && past.is_empty() {
            return;
        }
        let hour = |time: Duration| number(time * HOURS as u32, options.past / DAYS as u32);
        for hour in (hour(since)..=hour(now)).filter(|hour| hour / HOURS == today.number) {
            today.hours |= 1 << (hour % HOURS);
        }
    }

    fn end_day(&mut self, day: u64, options: &DriftOptions) {
        let over = std::mem::replace(&mut self.memory.today, Stretch::new(day, self.rows.len()));
        if over.requests() >= options.min_requests {
            self.memory.past.push_back(over);
        }
        self.memory.past.retain(|old| old.number < day && old.number.saturating_add(DAYS) >= day);
    }

    fn judge(&mut self, now: Duration, options: &DriftOptions, changes: &mut Changes) {
        if self.requests() < options.min_requests {
            // What is known of alerts stays: silence is no sign that anything is over.
            self.judged.clear();
            return;
        }
        let day = options.past / DAYS as u32;
        let mut judged = Vec::with_capacity(self.rows.len());
        let known = self.knows_a_day();
        for at in 0..self.rows.len() {
            let is = sum(&self.memory.slices, at);
            let mut was = sum(&self.memory.past, at);
            let Some(row) = self.rows.get(at).cloned() else { continue };
            let borders = row.borders.len();
            let usual =
                self.memory.past.iter().filter_map(|day| day.usual.get(at)).fold(0.0, |a: f64, b| a.max(*b));
            let limit = options.max_psi.max(BEYOND_USUAL * usual);
            if !known {
                // Until a day is known, its windows are compared with the rest of it.
                add(&mut was, &without(self.memory.today.counts.get(at), &is));
            }
            let index = psi(&is, &Past::Counts(&was), borders);
            let now_shares = shares(&is);
            let training = training(&row, &is);
            if known {
                let before = shares(&was);
                let compared = Compared { is: &now_shares, was: &before, psi: index };
                let bin = most_risen(&compared, borders);
                let alert = |since| compared.alert(since, bin, limit);
                self.update_lasting(
                    Kind::Changed,
                    at,
                    now,
                    index >= limit,
                    index < END * limit,
                    alert,
                    changes,
                );
                if row.input.is_some() {
                    self.judge_missing(Kind::Lost, at, now, &compared, changes);
                }
            }
            if self.lasts_for(at, now).is_none_or(|time| time >= day)
                && total(&was) >= options.min_requests
                && let Some(usual) = self.memory.today.usual.get_mut(at)
            {
                *usual = usual.max(index);
            }
            if let Some(index) = training.filter(|_| row.input.is_some()) {
                let compared = Compared { is: &now_shares, was: &row.training, psi: index };
                self.judge_missing(Kind::Missing, at, now, &compared, changes);
                self.judge_constant(at, now, borders, &compared, changes);
            }
            judged.push(Judged {
                past: known.then_some((index, limit)),
                training,
                missing: now_shares.get(NAN_BIN).copied().unwrap_or(0.0),
            });
        }
        self.judge_traffic(now, &judged, options, changes);
        self.judged = judged;
    }

    /// How long it has been told that row `at` changed.
    fn lasts_for(&self, at: usize, now: Duration) -> Option<Duration> {
        self.alerts.get(&(Kind::Changed, at)).map(|alert| now.saturating_sub(alert.since))
    }

    /// What is above its limit is not usual, unless it has been told for a day: otherwise it is not told of when the day is
    /// over, or not again.
    fn correct_usual(&mut self, now: Duration, options: &DriftOptions) {
        let day = options.past / DAYS as u32;
        for ((_, at), above) in self.above.iter().filter(|((kind, _), _)| *kind == Kind::Changed) {
            if self.lasts_for(*at, now).is_none_or(|time| time < day)
                && let Some(usual) = self.memory.today.usual.get_mut(*at)
            {
                *usual = usual.min(above.usual);
            }
        }
    }

    /// Since when row `at` is above a limit, and whether that is for long enough.
    fn lasts(&mut self, kind: Kind, at: usize, now: Duration, is_above: bool) -> (Duration, bool) {
        if !is_above {
            self.above.remove(&(kind, at));
            return (now, false);
        }
        let usual = self.memory.today.usual.get_mut(at);
        let before = usual.as_deref().copied().unwrap_or_default();
        let above = self.above.entry((kind, at)).or_insert(Above { since: now, times: 0, usual: before });
        above.times = above.times.saturating_add(1);
        let lasts = above.times > LASTING;
        if let Some(usual) = usual.filter(|_| lasts && kind == Kind::Changed) {
            // What is told of is not usual, or it would not be told of again.
            *usual = usual.min(above.usual);
        }
        (above.since, lasts)
    }

    /// An input that is NaN where it was not, in the past or in training.
    fn judge_missing(
        &mut self,
        kind: Kind,
        at: usize,
        now: Duration,
        compared: &Compared<'_>,
        changes: &mut Changes,
    ) {
        let more = compared.is(NAN_BIN) - compared.was(NAN_BIN);
        let alert = |since| compared.alert(since, NAN_BIN, MORE_MISSING);
        self.update(kind, at, now, more >= MORE_MISSING, more < MORE_MISSING / 2.0, alert, changes);
    }

    /// An input that is always the same, which it was not in training.
    fn judge_constant(
        &mut self,
        at: usize,
        now: Duration,
        borders: usize,
        compared: &Compared<'_>,
        changes: &mut Changes,
    ) {
        let values = bins(borders).filter(|bin| *bin != NAN_BIN);
        let fullest = values.max_by(|a, b| compared.is(*a).total_cmp(&compared.is(*b))).unwrap_or(0);
        let begins = compared.is(fullest) >= CONSTANT && compared.was(fullest) <= NOT_CONSTANT_BEFORE;
        let alert = |since| compared.alert(since, fullest, CONSTANT);
        let ends = compared.is(fullest) < NOT_CONSTANT;
        self.update_lasting(Kind::Constant, at, now, begins, ends, alert, changes);
    }

    /// Traffic of which most inputs are far from training: one alert, at the row of scores.
    fn judge_traffic(
        &mut self,
        now: Duration,
        judged: &[Judged],
        options: &DriftOptions,
        changes: &mut Changes,
    ) {
        let known: Vec<f64> = judged.iter().skip(1).filter_map(|judged| judged.training).collect();
        let far = known.iter().filter(|psi| **psi >= options.max_training_psi).count();
        let share = far as f64 / known.len().max(1) as f64;
        let psi = judged.first().and_then(|score| score.training).unwrap_or(0.0);
        let alert =
            |since| Alert { since, bin: 0, was: 0.0, is: share, psi, limit: options.max_training_psi };
        let (begins, ends) = (share > MOST, share < MOST * 0.8);
        self.update_lasting(Kind::OtherTraffic, 0, now, begins, ends, alert, changes);
    }

    /// What one client in a hurry can bring about begins once it lasts.
    #[expect(clippy::too_many_arguments, reason = "what an alert is, and what becomes of it")]
    fn update_lasting(
        &mut self,
        kind: Kind,
        row: usize,
        now: Duration,
        is_above: bool,
        ends: bool,
        alert: impl FnOnce(Duration) -> Alert,
        changes: &mut Changes,
    ) {
        let (since, begins) = self.lasts(kind, row, now, is_above);
        self.update(kind, row, since, begins, ends, alert, changes);
    }

    #[expect(clippy::too_many_arguments, reason = "what an alert is, and what becomes of it")]
    fn update(
        &mut self,
        kind: Kind,
        row: usize,
        now: Duration,
        begins: bool,
        ends: bool,
        alert: impl FnOnce(Duration) -> Alert,
        changes: &mut Changes,
    ) {
        let key = (kind, row);
        match self.alerts.get_mut(&key) {
            Some(_) if ends => changes.ended.extend(self.alerts.remove(&key).map(|alert| (kind, row, alert))),
            Some(known) => *known = alert(known.since),
            None if begins => {
                self.alerts.insert(key, alert(now));
                changes.began.push(key);
            }
            None => {}
        }
    }

    /// The alert of a row.
    pub(super) fn alert(&self, kind: Kind, row: usize) -> Option<(&Row, &Alert)> {
        Some((self.rows.get(row)?, self.alerts.get(&(kind, row))?))
    }
}

/// The index against training, where training knew the input.
fn training(row: &Row, is: &Counts) -> Option<f64> {
    let unknown = row.training.get(NAN_BIN).is_some_and(|share| *share >= UNKNOWN_IN_TRAINING);
    (!unknown).then(|| psi(is, &Past::Shares(&row.training), row.borders.len()))
}

/// The bin whose share rose most, since that is what one looks for.
fn most_risen(compared: &Compared<'_>, borders: usize) -> usize {
    let rise = |bin: &usize| compared.is(*bin) - compared.was(*bin);
    bins(borders).max_by(|a, b| rise(a).total_cmp(&rise(b))).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests;
