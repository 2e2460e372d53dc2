//! From raw values to probabilities, as CatBoost computes them.

use super::reference::ModelRef;

impl ModelRef<'_> {
    /// The probability of class 1 for a model with one output dimension: `1 / (1 + exp(-raw))`, with the C
    /// library's `exp` (which is what `f64::exp` calls), bit-equal to CatBoost's.
    #[must_use]
    pub fn probability(raw: f64) -> f64 {
        1.0 / (1.0 + (-raw).exp())
    }

    /// The probability of a class: for one output dimension that of [`probability`](Self::probability) (class 1) or
    /// the rest (class 0); for several the softmax over `raw`. NaN where there is no such class.
    #[must_use]
    pub fn class_probability(&self, raw: &[f64], class: usize) -> f64 {
        match (raw, class) {
            ([raw], 1) => Self::probability(*raw),
            ([raw], 0) => 1.0 - Self::probability(*raw),
            ([], _) | ([_], _) => f64::NAN,
            (raw, class) => {
                let largest = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = raw.iter().map(|r| (r - largest).exp()).sum();
                raw.get(class).map_or(f64::NAN, |r| (r - largest).exp() / sum)
            }
        }
    }
}
