//! Why an origin's data is refused.

use std::fmt;

/// What is wrong with an origin's data; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It could not be fetched: no file, no connection, a status other than success, a time limit, half a body.
    Unavailable,
    /// It does not follow its format.
    Undecodable,
    /// A row is of a dimension that the origin does not fill.
    UnknownDimension,
    /// A row has a feature that its dimension does not.
    UnknownFeature,
    /// A key lacks an attribute, has one too many, or one of the wrong type.
    BadKey,
    /// A key appears twice with different values.
    DuplicateKey,
    /// A feature appears twice.
    DuplicateFeature,
    /// NaN, an infinity, or a number that is infinite in 32 bits.
    NotFinite,
    /// A value beyond the `min` or `max` of its feature.
    OutOfRange,
    /// More rows than `max_rows`.
    TooManyRows,
    /// Fewer rows than `min_rows`.
    TooFewRows,
    /// More bytes than `max_bytes`.
    TooLarge,
    /// It is good but could not be published, for instance for lack of memory.
    Unpublished,
}

impl Reason {
    /// Its name in metrics and `/status`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Unavailable => "unavailable",
            Reason::Undecodable => "undecodable",
            Reason::UnknownDimension => "unknown_dimension",
            Reason::UnknownFeature => "unknown_feature",
            Reason::BadKey => "bad_key",
            Reason::DuplicateKey => "duplicate_key",
            Reason::DuplicateFeature => "duplicate_feature",
            Reason::NotFinite => "not_finite",
            Reason::OutOfRange => "out_of_range",
            Reason::TooManyRows => "too_many_rows",
            Reason::TooFewRows => "too_few_rows",
            Reason::TooLarge => "too_large",
            Reason::Unpublished => "unpublished",
        }
    }
}

/// Why an origin's data is refused. None of it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub reason: Reason,
    /// What is wrong and where, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal for `reason`, as `message` explains.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// A refusal of something missing or unreachable.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::Unavailable, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason.name())
    }
}

impl std::error::Error for Refusal {}
