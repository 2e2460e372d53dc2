use bliss_catboost::distribution::MAX_BINS;
use bliss_catboost::ir::{Bins, Distribution, FloatFeature, InputBins, Model, ObliviousTree, Split, Trees};
use bliss_catboost::{ModelRef, compile};

use super::*;

const SLICE: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A model of the inputs `ip.x` and `request.y`; they and its scores have bins up to 1, up to 2, above, and NaN.
pub(crate) fn model() -> rkyv::util::AlignedVec<64> {
    let bins = |shares: [f32; 3], missing| Bins { borders: vec![1.0, 2.0], shares: shares.into(), missing };
    let input = |name: &str, bins| InputBins { name: name.into(), bins };
    let float =
        |name: &str| FloatFeature { name: name.into(), borders: vec![1.5], ..FloatFeature::default() };
    let model = Model {
        dimensions: 1,
        scale: 1.0,
        floats: vec![float("ip.x"), float("request.y")],
        trees: Trees::Oblivious(vec![ObliviousTree {
            splits: vec![Split::Float(0, 0), Split::Float(1, 0)],
            leaves: vec![0.0; 4],
        }]),
        distribution: Some(Distribution {
            requests: 1,
            score: bins([0.3, 0.3, 0.4], 0.0),
            inputs: vec![
                input("ip.x", bins([0.4, 0.3, 0.3], 0.0)),
                input("request.y", bins([0.3, 0.3, 0.3], 0.1)),
            ],
        }),
        ..Model::default()
    };
    compile(&model).unwrap()
}

/// Rows of its scores and inputs.
fn rows() -> Vec<Row> {
    let compiled = model();
    let model = ModelRef::open(&compiled).unwrap();
    let names: Vec<_> = model.inputs().map(|input| input.name.to_owned()).collect();
    model
        .distribution()
        .iter()
        .map(|row| Row::new(row.input().map(|input| names[input].clone()), row))
        .collect()
}

/// Shares of the three bins and of NaN.
type Traffic = [[f64; 4]; 3];
/// Most inputs are far from training.
const OTHER: Traffic = [[0.9, 0.1, 0.0, 0.0], [0.0, 0.1, 0.9, 0.0], [0.0, 0.0, 0.9, 0.1]];
const USUAL: Traffic = [[0.3, 0.3, 0.4, 0.0], [0.4, 0.3, 0.3, 0.0], [0.3, 0.3, 0.3, 0.1]];

struct World {
    track: Track,
    options: DriftOptions,
    now: Duration,
    seed: u64,
    began: Vec<(Kind, String)>,
    ended: Vec<(Kind, String)>,
}

impl World {
    fn new() -> Self {
        let (track, options) = (Track::new(rows(), None), DriftOptions::default());
        Self { track, options, now: DAY * 20_000, seed: 1, began: vec![], ended: vec![] }
    }

    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Traffic of one slice after the other, of about so many counted requests each.
    fn live(&mut self, time: Duration, requests: u64, mut traffic: impl FnMut(Duration) -> Traffic) {
        let end = self.now + time;
        while self.now < end {
            let mut counts = vec![Counts::default(); 3];
            for (row, shares) in counts.iter_mut().zip(traffic(self.now)) {
                for _ in 0..requests {
                    let mut rest = self.random();
                    let bin = shares.iter().position(|share| {
                        rest -= share;
                        rest < 0.0
                    });
                    row[[0, 1, 2, NAN_BIN][bin.unwrap_or(0)]] += 1;
                }
            }
            let changes = self.track.take(self.now, &counts, &self.options);
            let name = |row: usize| self.track.rows[row].name().to_owned();
            self.began.extend(changes.began.iter().map(|(kind, row)| (*kind, name(*row))));
            self.ended.extend(changes.ended.iter().map(|(kind, row, _)| (*kind, name(*row))));
            self.now += SLICE;
        }
    }
}

/// As a daemon that starts finds it in the file.
fn restarted(track: &Track) -> Track {
    let text = serde_json::to_string(&track.memory()).unwrap();
    Track::new(rows(), Some(serde_json::from_str(&text).unwrap()))
}

fn with(row: usize, shares: [f64; 4]) -> Traffic {
    let mut traffic = USUAL;
    traffic[row] = shares;
    traffic
}

#[test]
fn d7_the_same_traffic_is_never_told() {
    let mut world = World::new();
    // Counts as a site with 3 requests a second has, by night a third of them and others.
    let by_night = [[0.2, 0.3, 0.5, 0.0], [0.6, 0.2, 0.2, 0.0], [0.4, 0.3, 0.2, 0.1]];
    world.live(DAY * 10, 50, |now| if now.as_secs() / 3600 % 24 < 7 { by_night } else { USUAL });
    assert_eq!((world.began, world.ended), (vec![], vec![]));
    assert_eq!(world.track.knowledge(), Knowledge::Watching);
}

#[test]
fn d7_a_day_begins_at_any_hour_and_its_night_is_never_told() {
    // By night so different that it would be told, were the past an evening.
    let by_night = [[0.1, 0.2, 0.7, 0.0], [0.8, 0.1, 0.1, 0.0], [0.3, 0.3, 0.1, 0.3]];
    for hour in [18, 0, 3, 6, 7, 8, 12, 21, 23] {
        let mut world = World::new();
        world.now += HOUR * hour;
        let traffic = |now: Duration| if now.as_secs() / 3600 % 24 < 7 { by_night } else { USUAL };
        world.live(HOUR * 23, 50, traffic);
        assert_eq!(world.track.knowledge(), Knowledge::Learning, "{hour}: an hour is not known yet");
        world.live(DAY * 3, 50, traffic);
        assert_eq!((&world.began, &world.ended), (&vec![], &vec![]), "{hour}");
        assert_eq!(world.track.knowledge(), Knowledge::Watching, "{hour}");
    }
}

#[test]
fn d7_an_hour_without_a_look_or_before_the_first_worker_is_not_known() {
    let mut world = World::new();
    // The daemon is there for the whole day, workers are from 18:00 on.
    world.live(HOUR * 18, 0, |_| USUAL);
    world.live(HOUR * 8, 50, |_| USUAL);
    assert_eq!(world.track.knowledge(), Knowledge::Learning);
    world.live(HOUR * 23, 50, |_| USUAL);
    assert_eq!(world.track.knowledge(), Knowledge::Watching);

    // The daemon is away each afternoon.
    let mut world = World::new();
    for _ in 0..4 {
        world.live(HOUR * 14, 50, |_| USUAL);
        world.now += HOUR * 4;
        world.live(HOUR * 6, 50, |_| USUAL);
        assert_eq!(world.track.knowledge(), Knowledge::Learning);
    }
    // Looks that are late by more than an hour of a short day leave none out.
    let mut world = World::new();
    world.options.past = HOUR * 7;
    for minutes in [0, 6, 13, 22, 31, 39, 48, 57, 62] {
        world.now = DAY * 20_000 + Duration::from_secs(60 * minutes);
        world.live(SLICE, 100, |_| USUAL);
    }
    assert_eq!(world.track.memory.past[0].hours, ALL_HOURS);
}

#[test]
fn d7_a_change_is_told_of_the_input_that_changed_and_its_end() {
    let mut world = World::new();
    world.live(DAY * 3, 50, |_| USUAL);
    let began = world.now;
    let other = |_| with(1, [0.1, 0.2, 0.7, 0.0]);
    world.live(3 * HOUR, 50, other);
    assert_eq!(world.began, [(Kind::Changed, "ip.x".into())]);
    let (row, alert) = world.track.alert(Kind::Changed, 1).unwrap();
    assert!(
        alert.since >= began && alert.since <= began + 9 * SLICE,
        "since when it is so, not since it is told"
    );
    let words = alert.words(Kind::Changed, row);
    assert!(words.starts_with("ip.x is above 2 in ") && words.contains("was in 30 % in the past"), "{words}");
    world.live(2 * HOUR, 50, |_| USUAL);
    assert_eq!(world.ended.iter().filter(|(kind, _)| *kind == Kind::Changed).count(), 1);
    assert_eq!(world.track.alerts().count(), 0);
    // And again: it was too short to become usual.
    world.began.clear();
    world.live(3 * HOUR, 50, other);
    assert_eq!(world.began, [(Kind::Changed, "ip.x".into())]);
}

#[test]
fn d7_a_change_is_told_at_whatever_hour_it_begins_and_over_a_restart() {
    let mut usual = World::new();
    usual.live(DAY * 3, 50, |_| USUAL);
    for hour in 0..24 {
        for restarts in [false, true] {
            let mut world = World::new();
            (world.now, world.track) = (usual.now, restarted(&usual.track));
            for _ in 0..9 {
                world.live(4 * SLICE, 50, |_| with(1, [0.1, 0.2, 0.7, 0.0]));
                if restarts {
                    world.track = restarted(&world.track);
                }
            }
            assert_eq!(world.began, [(Kind::Changed, "ip.x".into())], "{hour}, {restarts}");
            assert!(world.track.alert(Kind::Changed, 1).unwrap().1.since < usual.now + HOUR);
        }
        usual.live(HOUR, 50, |_| USUAL);
    }
    // The daemon is away from soon after it began until the next day.
    let mut world = World::new();
    world.live(DAY * 3 + 22 * HOUR, 50, |_| USUAL);
    let other = |_| with(1, [0.1, 0.2, 0.7, 0.0]);
    world.live(HOUR, 50, other);
    world.track = restarted(&world.track);
    world.now += 3 * HOUR;
    world.live(4 * HOUR, 50, other);
    assert_eq!(world.began, [(Kind::Changed, "ip.x".into())]);
}

#[test]
fn d7_what_is_missing_is_told_before_the_hour_is_over() {
    let mut world = World::new();
    world.live(DAY * 3, 50, |_| USUAL);
    let broken = world.now;
    world.live(HOUR, 50, |_| with(1, [0.0, 0.0, 0.0, 1.0]));
    let (row, alert) = world.track.alert(Kind::Lost, 1).unwrap();
    assert!(alert.since < broken + HOUR);
    let words = alert.words(Kind::Lost, row);
    assert!(
        words.starts_with("ip.x is missing (NaN) in ")
            && words.contains("and was in 0 % in the past (since "),
        "{words}"
    );
    world.live(2 * HOUR, 50, |_| USUAL);
    assert_eq!(world.track.alerts().count(), 0);
}

#[test]
fn d7_a_burst_that_one_window_forgets_is_not_told() {
    let mut usual = World::new();
    usual.live(DAY * 3, 50, |_| USUAL);
    // One client in a hurry, 60 times as fast as all others together; up to half an hour, which touches seven slices.
    for slices in [1, 2, 3, 6, 7] {
        let mut world = World::new();
        (world.now, world.track) = (usual.now, restarted(&usual.track));
        for _ in 0..2 {
            world.live(slices * SLICE, 3000, |_| with(1, [0.0, 0.0, 1.0, 0.0]));
            world.live(5 * HOUR, 50, |_| USUAL);
        }
        assert_eq!((world.began, world.ended), (vec![], vec![]), "{slices} slices");
    }
    // On the first day there is training to differ from.
    for slices in [1, 2, 7] {
        for traffic in [with(1, [0.0, 0.0, 1.0, 0.0]), OTHER] {
            let mut world = World::new();
            world.live(2 * HOUR, 50, |_| USUAL);
            world.live(slices * SLICE, 20_000, |_| traffic);
            world.live(SLICE, 50, |_| USUAL);
            assert!(world.track.judged().any(|(_, judged)| judged.training > Some(1.0)));
            world.live(5 * HOUR, 50, |_| USUAL);
            assert_eq!((world.began, world.ended), (vec![], vec![]), "{slices} slices");
        }
    }
}

#[test]
fn what_lasts_becomes_the_past() {
    let mut world = World::new();
    world.live(DAY * 4, 50, |_| USUAL);
    world.live(DAY * 3, 50, |_| with(0, [0.8, 0.1, 0.1, 0.0]));
    assert_eq!(world.began, [(Kind::Changed, "the score".into())]);
    assert_eq!(world.ended, [(Kind::Changed, "the score".into())]);
}

#[test]
fn d7_against_training_it_is_told_on_the_first_day() {
    let mut world = World::new();
    world.live(2 * HOUR, 50, |_| with(2, [0.0, 0.0, 0.0, 1.0]));
    assert_eq!(world.began, [(Kind::Missing, "request.y".into())]);
    assert_eq!(world.track.knowledge(), Knowledge::Learning);
    let (row, alert) = world.track.alert(Kind::Missing, 2).unwrap();
    let words = alert.words(Kind::Missing, row);
    assert!(
        words.starts_with(
            "request.y is missing (NaN) in 100 % of requests, and was in 10 % of those in training ("
        ),
        "{words}"
    );

    let mut world = World::new();
    world.live(3 * HOUR, 50, |_| with(1, [1.0, 0.0, 0.0, 0.0]));
    assert_eq!(world.began, [(Kind::Constant, "ip.x".into())]);
    world.live(2 * HOUR, 50, |_| USUAL);
    assert_eq!(world.ended, [(Kind::Constant, "ip.x".into())]);

    let mut world = World::new();
    world.live(DAY * 3, 50, |_| OTHER);
    assert_eq!(world.began, [(Kind::OtherTraffic, "the score".into())], "one alert, however many inputs");
}

#[test]
fn few_requests_tell_nothing_and_end_nothing() {
    let mut world = World::new();
    world.live(DAY * 2, 40, |_| with(1, [1.0, 0.0, 0.0, 0.0]));
    assert_eq!(world.began, []);
    assert_eq!(world.track.knowledge(), Knowledge::TooFewRequests);
    let mut world = World::new();
    world.live(DAY, 50, |_| with(1, [1.0, 0.0, 0.0, 0.0]));
    world.live(DAY, 1, |_| USUAL);
    assert_eq!((world.ended, world.track.alerts().count()), (vec![], 1));
}

#[test]
fn what_is_known_outlives_a_restart() {
    let mut world = World::new();
    world.live(DAY * 2, 50, |_| USUAL);
    world.live(3 * HOUR, 50, |_| with(1, [0.1, 0.2, 0.7, 0.0]));
    let since = world.track.alert(Kind::Changed, 1).unwrap().1.since;
    let text = serde_json::to_string(&world.track.memory()).unwrap();
    world.track = restarted(&world.track);
    world.began.clear();
    world.live(3 * HOUR, 50, |_| with(1, [0.1, 0.2, 0.7, 0.0]));
    assert_eq!(world.track.alert(Kind::Changed, 1).unwrap().1.since, since, "it goes on");
    assert!(!world.began.contains(&(Kind::Changed, "ip.x".into())));
    // Of another model, or damaged.
    let mut memory: Memory = serde_json::from_str(&text).unwrap();
    memory.today.counts.pop();
    memory.past.iter_mut().for_each(|day| day.counts.clear());
    memory.alerts.push((99, Kind::Changed, world.track.alert(Kind::Changed, 1).unwrap().1.clone()));
    let track = Track::new(rows(), Some(memory));
    assert!(track.memory.past.is_empty() && track.alerts().all(|(_, row, _)| row.name() == "ip.x"));
}

#[test]
fn a_clock_that_jumps_loses_a_window_at_most() {
    let mut world = World::new();
    world.live(DAY * 2, 50, |_| USUAL);
    world.now -= DAY * 10;
    world.live(DAY, 50, |_| USUAL);
    world.now += DAY * 400;
    world.live(DAY * 2, 50, |_| USUAL);
    assert_eq!(world.began, []);
    assert_eq!(world.track.knowledge(), Knowledge::Watching);
    let full = vec![[u64::MAX; MAX_BINS]; 3];
    world.track.take(world.now, &full, &world.options);
    world.live(DAY, 50, |_| USUAL);
    assert!(world.track.judged().all(|(_, judged)| judged.missing.is_finite()));
}
