//! From a model's probability to a bot score, and what an answer says.

/// A bot score: 1 is certainly automated, 99 certainly human.
///
/// `1 + floor(98 · P(human) + 0.5)`; `None` where `bot` is not a probability.
pub fn bot_score(bot: f64) -> Option<u8> {
    if !(0.0..=1.0).contains(&bot) {
        return None;
    }
    let score = 1.0 + (98.0 * (1.0 - bot) + 0.5).floor();
    // Between 1 and 99 by the range of `bot`.
    Some(score as u8)
}

/// Why a request has no score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Unscored {
    /// Nothing was published yet, or nothing can be read.
    NoSnapshot = 1,
    /// No models were published yet.
    NoModels = 2,
    /// The request's route, and the default one, have no active model.
    NoActiveModel = 3,
    /// The active model has an input that neither the features nor the caller have.
    MissingInput = 4,
    /// The published features are damaged or of another version.
    BadSnapshot = 5,
    /// The published models are damaged or of another version.
    BadModels = 6,
    /// The model's answer is no probability.
    NoProbability = 7,
    /// The daemon has given no sign of life for longer than the publication allows
    /// ([`crate::schema::Schema::max_heartbeat_age_seconds`]).
    OldSnapshot = 8,
    /// The row of a dimension that the model uses is stale, and the dimension is not to be used then
    /// ([`crate::schema::OnStale::Unscored`]).
    StaleDimension = 9,
}

impl Unscored {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::NoSnapshot,
        Self::NoModels,
        Self::NoActiveModel,
        Self::MissingInput,
        Self::BadSnapshot,
        Self::BadModels,
        Self::NoProbability,
        Self::OldSnapshot,
        Self::StaleDimension,
    ];

    /// The reason in a few words that stay the same between versions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSnapshot => "no snapshot",
            Self::NoModels => "no models",
            Self::NoActiveModel => "no active model",
            Self::MissingInput => "missing input",
            Self::BadSnapshot => "bad snapshot",
            Self::BadModels => "bad models",
            Self::NoProbability => "no probability",
            Self::OldSnapshot => "old snapshot",
            Self::StaleDimension => "stale dimension",
        }
    }
}

impl core::fmt::Display for Unscored {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for Unscored {}

/// How a dimension answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Not asked: no model of the route uses it, and no policy that was asked.
    #[default]
    Unused = 0,
    /// A row, and young enough.
    Fresh = 1,
    /// A row, but older than the dimension's `max_age`; whether its values are used, the dimension says
    /// ([`crate::schema::OnStale`]).
    Stale = 2,
    /// No row; the default values are used.
    Missing = 3,
    /// The request lacks an attribute of the key, or it does not fit its kind; the default values are used.
    Absent = 4,
}

impl Status {
    /// The status in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Absent => "absent",
        }
    }
}

/// How many dimensions answered how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows young enough.
    pub fresh: u32,
    /// Rows too old.
    pub stale: u32,
    /// No rows.
    pub missing: u32,
    /// No keys.
    pub absent: u32,
}

impl Counts {
    /// Counts statuses.
    #[inline]
    #[must_use]
    pub fn of(statuses: &[Status]) -> Self {
        let count = |wanted| statuses.iter().map(|status| u32::from(*status == wanted)).sum();
        Self {
            fresh: count(Status::Fresh),
            stale: count(Status::Stale),
            missing: count(Status::Missing),
            absent: count(Status::Absent),
        }
    }
}

/// A model's answer for one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// 1 (certainly automated) to 99 (certainly human).
    pub score: u8,
    /// Probability that the request is automated.
    pub bot_probability: f64,
    /// Index of the model in the publication.
    pub model: usize,
}

/// The outcome of a shadow model for one request: one that is evaluated beside the active model and decides nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shadow {
    /// Index of the model in the publication.
    pub model: usize,
    /// Its score, or why there is none.
    pub outcome: Result<Scored, Unscored>,
}

/// What is known of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The score, or why there is none.
    pub outcome: Result<Scored, Unscored>,
    /// How the dimensions answered that the models of the route use, and its policy if that was asked.
    pub counts: Counts,
}

impl Answer {
    /// No score and no dimensions.
    pub fn unscored(reason: Unscored) -> Self {
        Self { outcome: Err(reason), counts: Counts::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_go_from_1_to_99() {
        assert_eq!(bot_score(1.0), Some(1));
        assert_eq!(bot_score(0.0), Some(99));
        assert_eq!(bot_score(0.5), Some(50));
        // 98 · (1 - p) + 0.5 reaches 1 at p = 1 - 0.5/98.
        assert_eq!(bot_score(1.0 - 0.49 / 98.0), Some(1));
        assert_eq!(bot_score(1.0 - 0.51 / 98.0), Some(2));
        for wrong in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            assert_eq!(bot_score(wrong), None);
        }
        let mut last = 99;
        for i in 0..=1000 {
            let score = bot_score(f64::from(i) / 1000.0).unwrap();
            assert!((1..=99).contains(&score) && score <= last);
            last = score;
        }
    }

    #[test]
    fn reasons_are_told_apart() {
        for (i, a) in Unscored::ALL.iter().enumerate() {
            assert_eq!(*a as usize, i + 1);
            assert!(Unscored::ALL[..i].iter().all(|b| a.as_str() != b.as_str()));
        }
    }
}
