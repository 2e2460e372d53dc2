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
    /// A list lost more than `max_shrink` of its networks.
    Shrunk,
    /// More bytes than `max_bytes`, `max_line_bytes` or `max_decoded_bytes`.
    TooLarge,
    /// A test of the configuration fails.
    Tests,
    /// A policy acts against more clients than it may.
    Gate,
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
            Reason::Shrunk => "shrunk",
            Reason::TooLarge => "too_large",
            Reason::Tests => "tests",
            Reason::Gate => "gate",
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

/// A message without its values: numbers, and what stands in double quotes. Two messages are of one kind if nothing else
/// differs, so that a text with a changing number stays one refusal. Names, in backticks, stay.
pub(crate) fn without_values(message: &str) -> String {
    let mut kind = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let (part, shown) = match first {
            '"' => match quoted(rest) {
                Some(part) => (part, "\"\""),
                None => ("\"", "\""),
            },
            '`' => {
                match rest.get(1..).and_then(|inner| inner.find('`')).and_then(|end| rest.get(..end + 2)) {
                    Some(part) if part.trim_matches('`').parse::<f64>().is_ok() => (part, "`#`"),
                    Some(part) => (part, part),
                    None => ("`", "`"),
                }
            }
            _ => {
                let in_token = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | ':');
                let end = rest.find(|c: char| !in_token(c)).unwrap_or(rest.len()).max(first.len_utf8());
                let part = rest.get(..end).unwrap_or(rest);
                let number = part.contains(|c: char| c.is_ascii_digit())
                    || part.trim_end_matches(['.', ':']).parse::<f64>().is_ok();
                (part, if number { "#" } else { part })
            }
        };
        kind.push_str(shown);
        rest = rest.get(part.len()..).unwrap_or_default();
    }
    kind
}

/// The text in double quotes that `text` begins with, with its quotes; `None` if it has no end.
fn quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        is_end
    });
    text.get(..=end?.0)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason.name())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_of_one_kind_whatever_their_values() {
        let same = [
            (
                "f, line 2: updated_at: expected seconds, found \"1764.5\"",
                "f, line 31: updated_at: expected seconds, found \"x y\"",
            ),
            (
                "invalid value: integer `1764160401123`, expected u32 at column 47",
                "invalid value: integer `-7`, expected u32 at column 9",
            ),
            (
                "feature `a`: 10.5 is out of its range (min 0, max 10)",
                "feature `a`: -1e9 is out of its range (min 0, max 10)",
            ),
            ("found inf", "found NaN"),
            ("found \"a \\\" b\"", "found \"\""),
            ("0 rows, expected at least 5 (min_rows)", "4 rows, expected at least 5 (min_rows)"),
            ("request 4f2a-11 failed", "request 9b-2 failed"),
        ];
        for (one, other) in same {
            assert_eq!(without_values(one), without_values(other));
        }
        let different = [
            ("dimension `ip` has no feature `requests_1m`", "dimension `ip` has no feature `requests_5m`"),
            ("line 2: EOF at column 3", "line 2: expected value at column 3"),
            ("cannot connect: refused", "cannot connect: timed out"),
        ];
        for (one, other) in different {
            assert_ne!(without_values(one), without_values(other));
        }
        for whole in ["", "\"", "`", "a \"b", "`b", "ü ` \" é"] {
            assert_eq!(without_values(whole), whole);
        }
    }

    proptest! {
        #[test]
        fn any_number_and_any_quoted_text_is_a_value(
            a in any::<f64>(), b in any::<f64>(), n in any::<i64>(), m in any::<u64>(), s in ".*", t in ".*",
        ) {
            let message = |x: f64, n: &dyn fmt::Display, text: &str| {
                format!("rows.csv, line {n}: feature `x`: expected {x}, found {text:?} or `{x}` ({n} rows)")
            };
            prop_assert_eq!(without_values(&message(a, &n, &s)), without_values(&message(b, &m, &t)));
        }

        #[test]
        fn no_text_makes_it_panic_and_only_values_go(text in ".*", letters in "[a-z `,]*") {
            without_values(&text);
            let without_number_words = ["nan", "inf", "infinity"].iter().all(|word| !letters.contains(word));
            if without_number_words {
                prop_assert_eq!(without_values(&letters), letters);
            }
        }
    }
}
