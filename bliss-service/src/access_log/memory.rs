//! What a key has done over hours and days: counts that fade, sessions, and when it was first seen.
//!
//! A count that fades with half-life H weighs a request by 2^(-age / H). A session ends with thirty minutes of silence. What changes
//! by time alone (a session's end, an hour or a day that is over) is published at the end of its minute, so that neither a busy
//! nor a quiet site publishes more often for it.

use super::distinct::ALLOCATION_BYTES;
use super::saved;
use super::windows::Hit;
use crate::checkpoint::bounded;
use serde::{Deserialize, Serialize};

/// A half-life by its features' suffix, in milliseconds.
pub(crate) const HALF_LIVES: [(&str, u64); 3] =
    [("h12h", 12 * 3_600_000), ("h1d", 24 * 3_600_000), ("h7d", 7 * 24 * 3_600_000)];
/// So long a silence ends a session.
const SESSION_MS: u64 = 30 * 60_000;
/// So long it counts that a key asked for `/robots.txt`.
const ROBOTS_MS: u64 = 24 * 3_600_000;
/// So long after its last request a key that has an age is known.
const AGE_MS: u64 = 30 * 24 * 3_600_000;
/// So many half-lives after its last request a key is forgotten: a sixteenth is left.
const KEPT_HALF_LIVES: u64 = 4;
/// Changes by time alone are published at whole minutes.
const MINUTE_MS: u64 = 60_000;

/// Over which time requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// With this half-life, by its index in [`HALF_LIVES`].
    Fading(usize),
    /// In the session.
    Session,
}

impl Span {
    /// The span of a feature's suffix.
    pub(crate) fn of(suffix: &str) -> Option<Self> {
        if suffix == "session" {
            return Some(Self::Session);
        }
        HALF_LIVES.iter().position(|(name, _)| *name == suffix).map(Self::Fading)
    }
}

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Asset,
    NoReferrerPage,
    Robots,
    Error,
    Referrer,
    SiteReferrer,
    Post,
}

impl Share {
    pub(crate) const ALL: [(&str, Self); 7] = [
        ("asset_share", Self::Asset),
        ("no_referrer_page_share", Self::NoReferrerPage),
        ("robots_share", Self::Robots),
        ("error_share", Self::Error),
        ("referrer_share", Self::Referrer),
        ("site_referrer_share", Self::SiteReferrer),
        ("post_share", Self::Post),
    ];
}

/// Requests that are counted, each by its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// The time of the latest; what the weights are at.
    at_ms: u64,
    pub(crate) requests: f32,
    /// Those of them of which the log tells the referrer.
    heard: f32,
    /// Those of them that were for no asset.
    pages: f32,
    no_referrer_pages: f32,
    referrers: f32,
    /// Those of which it is known whether the referrer is the site's.
    placed: f32,
    site_referrers: f32,
    assets: f32,
    robots: f32,
    errors: f32,
    posts: f32,
}

impl Counts {
    fn add(&mut self, hit: &Hit, weight: f32) {
        let add = |count: &mut f32, is: bool| *count += if is { weight } else { 0.0 };
        let heard = hit.referrer_told;
        add(&mut self.requests, true);
        add(&mut self.robots, hit.robots_txt);
        add(&mut self.assets, hit.asset);
        add(&mut self.errors, hit.error);
        add(&mut self.posts, hit.post);
        add(&mut self.heard, heard);
        add(&mut self.referrers, heard && hit.referrer);
        add(&mut self.placed, heard && hit.site_referrer.is_some());
        add(&mut self.site_referrers, heard && hit.site_referrer == Some(true));
        add(&mut self.pages, heard && !hit.asset);
        add(&mut self.no_referrer_pages, heard && !hit.asset && !hit.referrer);
    }

    fn fade(&mut self, factor: f32) {
        for count in [
            &mut self.requests,
            &mut self.heard,
            &mut self.pages,
            &mut self.no_referrer_pages,
            &mut self.referrers,
            &mut self.placed,
            &mut self.site_referrers,
            &mut self.assets,
            &mut self.robots,
            &mut self.errors,
            &mut self.posts,
        ] {
            *count *= factor;
        }
    }

    fn is_sound(&self) -> bool {
        let Self { at_ms, requests, heard, pages, no_referrer_pages, referrers, placed, .. } = *self;
        let Self { site_referrers, assets, robots, errors, posts, .. } = *self;
        let counts = [requests, heard, pages, no_referrer_pages, referrers, placed];
        let others = [site_referrers, assets, robots, errors, posts];
        at_ms <= saved::MOST_MS
            && counts.iter().chain(&others).all(|count| count.is_finite() && *count >= 0.0)
    }

    fn add_fading(&mut self, hit: &Hit, half_life_ms: u64) {
        let factor = |ms: u64| if ms == 0 { 1.0 } else { (-(ms as f32) / half_life_ms as f32).exp2() };
        let weight = if hit.time_ms >= self.at_ms {
            self.fade(factor(hit.time_ms - self.at_ms));
            self.at_ms = hit.time_ms;
            1.0
        } else {
            factor(self.at_ms - hit.time_ms)
        };
        self.add(hit, weight);
    }

    fn add_to_session(&mut self, hit: &Hit) {
        if hit.time_ms > self.at_ms.saturating_add(SESSION_MS) {
            *self = Self::default();
        }
        self.at_ms = self.at_ms.max(hit.time_ms);
        self.add(hit, 1.0);
    }

    /// The share; `None` where nothing counted that it is of.
    pub(crate) fn share(&self, share: Share) -> Option<f32> {
        let (part, of) = match share {
            Share::Asset => (self.assets, self.requests),
            Share::NoReferrerPage => (self.no_referrer_pages, self.pages),
            Share::Robots => (self.robots, self.requests),
            Share::Error => (self.errors, self.requests),
            Share::Referrer => (self.referrers, self.heard),
            Share::SiteReferrer => (self.site_referrers, self.placed),
            Share::Post => (self.posts, self.requests),
        };
        (of > 0.0).then(|| part / of)
    }
}

/// What the keys of a dimension remember.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryPlan {
    fading: [bool; HALF_LIVES.len()],
    session: bool,
    robots: bool,
    age: bool,
}

impl MemoryPlan {
    pub(crate) fn want(&mut self, span: Span) {
        match span {
            Span::Fading(index) => self.fading[index] = true,
            Span::Session => self.session = true,
        }
    }

    pub(crate) fn want_robots(&mut self) {
        self.robots = true;
    }

    pub(crate) fn want_age(&mut self) {
        self.age = true;
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        let fading = (0..HALF_LIVES.len()).filter(|index| self.fading[*index]).map(Span::Fading);
        fading.chain(self.session.then_some(Span::Session))
    }

    /// How long after its last request a key remembers anything.
    pub(crate) fn kept_ms(&self) -> u64 {
        let of_span = self.spans().map(|span| match span {
            Span::Fading(index) => KEPT_HALF_LIVES * HALF_LIVES[index].1,
            Span::Session => SESSION_MS,
        });
        let others = [(self.robots, ROBOTS_MS), (self.age, AGE_MS)];
        of_span.chain(others.into_iter().map(|(wanted, ms)| u64::from(wanted) * ms)).max().unwrap_or(0)
    }
}

/// What one key remembers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// In the order of [`MemoryPlan::spans`].
    #[serde(deserialize_with = "counts")]
    counts: Box<[Counts]>,
    first_ms: u64,
    last_ms: u64,
    robots_ms: u64,
}

fn counts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Box<[Counts]>, D::Error> {
    bounded::vec::<D, Counts, { HALF_LIVES.len() + 1 }>(deserializer).map(Vec::into_boxed_slice)
}

impl Memory {
    /// Bytes that it takes beside itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        if self.counts.is_empty() { 0 } else { size_of_val(&*self.counts) + ALLOCATION_BYTES }
    }

    /// Whether it could have come about with this plan: what was read back may be anything.
    pub(crate) fn is_sound(&self, plan: &MemoryPlan) -> bool {
        let times = [self.first_ms, self.last_ms, self.robots_ms];
        self.counts.len() == plan.spans().count()
            && self.counts.iter().all(Counts::is_sound)
            && times.iter().all(|time| *time <= saved::MOST_MS)
    }

    pub(crate) fn new(plan: &MemoryPlan) -> Self {
        Self { counts: plan.spans().map(|_| Counts::default()).collect(), ..Self::default() }
    }

    pub(crate) fn add(&mut self, plan: &MemoryPlan, hit: &Hit) {
        for (span, counts) in plan.spans().zip(&mut self.counts) {
            match span {
                Span::Fading(index) => counts.add_fading(hit, HALF_LIVES[index].1),
                Span::Session => counts.add_to_session(hit),
            }
        }
        if self.first_ms == 0 {
            self.first_ms = hit.time_ms;
        }
        self.first_ms = self.first_ms.min(hit.time_ms);
        self.last_ms = self.last_ms.max(hit.time_ms);
        if hit.robots_txt {
            self.robots_ms = self.robots_ms.max(hit.time_ms);
        }
    }

    /// Forgets what is over at publication `at_ms`.
    pub(crate) fn expire(&mut self, plan: &MemoryPlan, at_ms: u64) {
        if let Some(end) = self.session_end(plan)
            && at_ms > end
            && let Some(session) = self.counts.last_mut()
        {
            *session = Counts::default();
        }
        if self.robots_ms > 0 && at_ms > whole_minutes(self.robots_ms + ROBOTS_MS) {
            self.robots_ms = 0;
        }
    }

    fn session_end(&self, plan: &MemoryPlan) -> Option<u64> {
        let session = self.counts.last().filter(|session| plan.session && session.at_ms > 0)?;
        Some(whole_minutes(session.at_ms + SESSION_MS))
    }

    /// Whether nothing is remembered at publication `at_ms`.
    pub(crate) fn is_over(&self, plan: &MemoryPlan, at_ms: u64) -> bool {
        at_ms > self.end_ms(plan)
    }

    fn end_ms(&self, plan: &MemoryPlan) -> u64 {
        match plan.kept_ms() {
            0 => 0,
            kept_ms => whole_minutes(self.last_ms.saturating_add(kept_ms)),
        }
    }

    /// From publication `at_ms` on the last millisecond at which nothing has changed without a request.
    pub(crate) fn due_ms(&self, plan: &MemoryPlan, at_ms: u64) -> Option<u64> {
        let robots = (plan.robots && self.robots_ms > 0).then(|| whole_minutes(self.robots_ms + ROBOTS_MS));
        let end = Some(self.end_ms(plan)).filter(|end| *end > 0);
        [self.session_end(plan), robots, end].into_iter().flatten().filter(|due| *due >= at_ms).min()
    }

    pub(crate) fn counts(&self, plan: &MemoryPlan, span: Span) -> Counts {
        let at = plan.spans().position(|known| known == span);
        at.and_then(|at| self.counts.get(at)).copied().unwrap_or_default()
    }

    /// Whether it asked for `/robots.txt` within a day.
    pub(crate) fn asked_for_robots(&self) -> bool {
        self.robots_ms > 0
    }

    /// Seconds from its first request to its last one.
    pub(crate) fn age_seconds(&self) -> f32 {
        (self.last_ms.saturating_sub(self.first_ms) / 1000) as f32
    }
}

fn whole_minutes(ms: u64) -> u64 {
    ms.div_ceil(MINUTE_MS) * MINUTE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn plan(spans: &[Span]) -> MemoryPlan {
        let mut plan = MemoryPlan::default();
        spans.iter().for_each(|span| plan.want(*span));
        plan
    }

    fn hit(time_ms: u64, asset: bool) -> Hit {
        Hit { time_ms, asset, referrer_told: true, ..Hit::default() }
    }

    #[test]
    fn counts_halve_and_the_order_of_late_requests_makes_no_difference() {
        let span = Span::of("h12h").unwrap();
        let plan = plan(&[span]);
        let times = [(100, false), (106, true), (112, false), (103, true)].map(|(h, a)| hit(h * HOUR, a));
        let mut orders = [times, times];
        orders[1].reverse();
        for order in orders {
            let mut memory = Memory::new(&plan);
            order.iter().for_each(|hit| memory.add(&plan, hit));
            let counts = memory.counts(&plan, span);
            let weights = [0.5, 0.5_f32.powf(0.5), 1.0, 0.5_f32.powf(0.75)];
            let expected: f32 = weights.iter().sum();
            assert!((counts.requests - expected).abs() < 1e-5, "{counts:?}");
            let assets = (weights[1] + weights[3]) / expected;
            assert!((counts.share(Share::Asset).unwrap() - assets).abs() < 1e-5);
        }
    }

    #[test]
    fn a_session_ends_with_half_an_hour_of_silence() {
        let plan = plan(&[Span::Session]);
        let mut memory = Memory::new(&plan);
        let minute = |minute: u64| 1_000 * HOUR + minute * MINUTE_MS;
        for (at, requests) in [(0, 1.0), (29, 2.0), (59, 3.0), (90, 1.0)] {
            memory.add(&plan, &hit(minute(at) + 1, false));
            assert_eq!(memory.counts(&plan, Span::Session).requests, requests, "{at}");
        }
        let due = memory.due_ms(&plan, minute(90)).unwrap();
        assert_eq!(due, minute(121));
        memory.expire(&plan, due);
        assert_eq!(memory.counts(&plan, Span::Session).requests, 1.0);
        memory.expire(&plan, due + 1);
        assert_eq!(memory.counts(&plan, Span::Session).share(Share::Asset), None);
        assert!(memory.is_over(&plan, due + 1) && !memory.is_over(&plan, due));
    }

    #[test]
    fn d3_shares_are_of_what_they_can_be_of() {
        let plan = plan(&[Span::Session]);
        let mut memory = Memory::new(&plan);
        let time_ms = 1_000 * HOUR;
        let base = Hit { time_ms, referrer_told: true, ..Hit::default() };
        for hit in [
            Hit { asset: true, referrer: true, site_referrer: Some(true), ..base },
            Hit { post: true, site_referrer: Some(false), ..base },
            Hit { referrer: true, error: true, ..base },
            // The log does not tell.
            Hit { referrer_told: false, ..base },
            Hit { robots_txt: true, referrer_told: false, ..base },
        ] {
            memory.add(&plan, &hit);
        }
        let counts = memory.counts(&plan, Span::Session);
        let share = |share| counts.share(share).unwrap();
        assert_eq!(counts.requests, 5.0);
        assert_eq!((share(Share::Asset), share(Share::Error), share(Share::Post)), (0.2, 0.2, 0.2));
        assert_eq!((share(Share::Referrer), share(Share::NoReferrerPage)), (2.0 / 3.0, 0.5));
        assert_eq!((share(Share::Robots), share(Share::SiteReferrer)), (0.2, 0.5));
    }

    #[test]
    fn robots_are_remembered_for_a_day_and_keys_for_as_long_as_anything_counts() {
        let mut plan = MemoryPlan::default();
        plan.want_robots();
        let mut memory = Memory::new(&plan);
        let start = 1_000 * HOUR;
        memory.add(&plan, &Hit { time_ms: start, robots_txt: true, ..Hit::default() });
        memory.add(&plan, &hit(start + HOUR, false));
        memory.expire(&plan, start + 24 * HOUR);
        assert!(memory.asked_for_robots());
        memory.expire(&plan, start + 24 * HOUR + 1);
        assert!(!memory.asked_for_robots() && !memory.is_over(&plan, start + 25 * HOUR));
        assert_eq!(memory.age_seconds(), 3600.0);
        plan.want(Span::of("h7d").unwrap());
        assert_eq!(plan.kept_ms(), 28 * 24 * HOUR);
        plan.want_age();
        assert_eq!(plan.kept_ms(), 30 * 24 * HOUR);
    }
}
