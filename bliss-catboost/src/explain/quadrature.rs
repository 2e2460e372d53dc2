//! Gauss-Legendre quadrature: how the mean over all orders of features becomes a few sums.
//!
//! A Shapley value weighs each set of s of the k - 1 other features by `s! (k - 1 - s)! / k!`, which is the integral of
//! `t^s (1 - t)^(k - 1 - s)` from 0 to 1. Summed over all sets, the integrand is a polynomial of degree k - 1 that factors
//! feature by feature, and n points integrate degree 2n - 1 exactly. All points lie inside of (0, 1), and all weights are
//! positive: nothing is subtracted that was added before, as the "unwinding" of paths does.

use std::f64::consts::PI;

/// Points in (0, 1) and their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rule {
    pub(super) points: Vec<f64>,
    pub(super) weights: Vec<f64>,
}

impl Rule {
    /// The rule that is exact for paths with up to `features` different features.
    pub(super) fn for_features(features: usize) -> Self {
        let mut rule = Self::default();
        rule.set(features);
        rule
    }

    /// Memory for [`set`](Self::set) with up to so many features.
    pub(super) fn with_room(features: usize) -> Self {
        let room = || Vec::with_capacity(points(features));
        Self { points: room(), weights: room() }
    }

    /// Becomes the rule that is exact for paths with up to `features` different features, unless it is that already.
    pub(super) fn set(&mut self, features: usize) {
        let count = points(features);
        if self.points.len() == count {
            return;
        }
        self.points.clear();
        self.weights.clear();
        let n = count as f64;
        for at in 0..count {
            // Newton's method on the Legendre polynomial converges in a few steps from here.
            let mut x = (PI * (at as f64 + 0.75) / (n + 0.5)).cos();
            for _ in 0..8 {
                let (value, slope) = legendre(count, x);
                x -= value / slope;
            }
            let (_, slope) = legendre(count, x);
            self.points.push((x + 1.0) / 2.0);
            self.weights.push(1.0 / ((1.0 - x * x) * slope * slope));
        }
    }
}

/// Points of the rule for so many features.
fn points(features: usize) -> usize {
    features.div_ceil(2).max(1)
}

/// The Legendre polynomial of this degree (1 or more) at x, and its derivative.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=degree {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        for features in 1..=256 {
            let rule = Rule::for_features(features);
            for degree in [0, features / 2, features - 1] {
                let found: f64 =
                    rule.points.iter().zip(&rule.weights).map(|(t, w)| w * t.powi(degree as i32)).sum();
                let expected = 1.0 / (degree as f64 + 1.0);
                assert!((found - expected).abs() < 1e-14, "{features} features, degree {degree}: {found}");
            }
            assert!(rule.points.iter().all(|t| *t > 0.0 && *t < 1.0));
        }
    }
}
