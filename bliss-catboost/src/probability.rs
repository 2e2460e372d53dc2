//! From raw values to probabilities, as CatBoost computes them.

use super::layout::{FLAG_EACH_SIGMOID, FLAG_PROBABILITIES};
use super::reference::ModelRef;

impl ModelRef<'_> {
    /// The probability of class 1 for a model with one output dimension: `1 / (1 + exp(-raw))`, with the C
    /// library's `exp` (which is what `f64::exp` calls), bit-equal to CatBoost's.
    #[must_use]
    pub fn probability(raw: f64) -> f64 {
        1.0 / (1.0 + (-raw).exp())
    }

    /// The probability of a class, bit-equal to what CatBoost's `predict_proba` gives. One output dimension: that of
    /// [`probability`](Self::probability) (class 1) or the rest (class 0). Several: the softmax over `raw`, or each for
    /// itself where the loss was `MultiClassOneVsAll`, `MultiLogloss` or `MultiCrossEntropy`. Where the model was
    /// compiled as one whose answers are probabilities already, they are given as they are, even beyond 0 to 1. NaN
    /// where there is no such class.
    #[must_use]
    pub fn class_probability(&self, raw: &[f64], class: usize) -> f64 {
        let flags = self.header().flags;
        let own = |raw: f64| {
            if flags & FLAG_PROBABILITIES == 0 { Self::probability(raw) } else { raw }
        };
        match (raw, class) {
            ([raw], 1) => own(*raw),
            ([raw], 0) => 1.0 - own(*raw),
            ([] | [_], _) => f64::NAN,
            _ if flags & (FLAG_EACH_SIGMOID | FLAG_PROBABILITIES) != 0 => {
                raw.get(class).map_or(f64::NAN, |raw| own(*raw))
            }
            _ => {
                let largest = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum = raw.iter().fold(0.0, |sum, r| sum + fast_exp(r - largest));
                raw.get(class).map_or(f64::NAN, |r| fast_exp(r - largest) / sum)
            }
        }
    }

    /// Which output dimension is a class's own answer, and whether it is of the other class and has to be turned round: class 0
    /// of a model with one dimension. `None` where there is no such class.
    #[must_use]
    pub fn class_dimension(&self, class: usize) -> Option<(usize, bool)> {
        match (self.output_dimensions(), class) {
            (1, 0) => Some((0, true)),
            (1, 1) => Some((0, false)),
            (1, _) => None,
            (dimensions, class) => (class < dimensions).then_some((class, false)),
        }
    }

    /// A class's own answer out of raw values, or out of expected ones: log-odds, the class's sum where there are several, or
    /// the probability itself where the model answers with that. NaN where there is no such class.
    #[must_use]
    pub fn class_answer(&self, raw: &[f64], class: usize) -> f64 {
        let found = self.class_dimension(class).and_then(|(at, turned)| Some((*raw.get(at)?, turned)));
        match found {
            Some((raw, false)) => raw,
            Some((raw, true)) if self.header().flags & FLAG_PROBABILITIES != 0 => 1.0 - raw,
            Some((raw, true)) => -raw,
            None => f64::NAN,
        }
    }

    /// By how much a class's probability rises with its own [answer](Self::class_answer) there, those of other classes being
    /// what they are.
    #[must_use]
    pub fn class_slope(&self, raw: &[f64], class: usize) -> f64 {
        if self.header().flags & FLAG_PROBABILITIES != 0 {
            return 1.0;
        }
        let own = self.class_probability(raw, class);
        own * (1.0 - own)
    }
}

/// The exponential function that CatBoost's softmax uses: powers of two in steps of 1/2048, and a polynomial of degree
/// three for the rest. Its last bits differ from those of the C library.
fn fast_exp(x: f64) -> f64 {
    const STEPS: f64 = 2048.0;
    // The sum with it rounds to a whole number, which its low bits then hold.
    const ROUND: f64 = (3_u64 << 51) as f64;
    if x <= -708.396_418_532_264_1 {
        return 0.0;
    }
    if x >= 709.782_712_893_384 {
        return f64::INFINITY;
    }
    let scale = STEPS / std::f64::consts::LN_2;
    let sum = x * scale + ROUND;
    let bits = sum.to_bits();
    let fraction = 2_f64.powf((bits & 2047) as f64 * (1.0 / STEPS)).to_bits() & ((1 << 52) - 1);
    let exponent = (bits.wrapping_add((1 << 21) - (1 << 11)) >> 11) << 52;
    let t = (sum - ROUND) * (1.0 / scale) - x;
    let rest = (3.000_000_002_795_539_4 - t) * (t * t) * 0.166_666_666_852_278_35 - t + 1.0;
    rest * f64::from_bits(exponent | fraction)
}
