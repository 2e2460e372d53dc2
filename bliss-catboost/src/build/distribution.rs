//! The reference distribution, as it travels in a model's file: the entry `bliss.distribution` of its metadata, JSON.
//!
//! ```json
//! {"version": 1, "requests": 5000,
//!  "score": {"borders": [10, 20], "shares": [0.2, 0.3, 0.5]},
//!  "inputs": [{"name": "ip.requests_1m", "borders": [1, 4], "shares": [0.5, 0.3, 0.1], "missing": 0.1}]}
//! ```
//!
//! A value is in bin n if it exceeds n of the borders; `missing` is the share of NaN. The most important inputs come first.

use serde::Deserialize;

use super::compile::CompileError;
use crate::distribution::{DistributionRow, MAX_BORDERS, MAX_DISTRIBUTION_ROWS};

/// The name of the entry.
pub(super) const ENTRY: &str = "bliss.distribution";
/// The version that is read; others are left aside, so that a newer trainer's model still scores.
const VERSION: u64 = 1;
/// Bytes of the entry at most.
const MAX_BYTES: usize = 1 << 20;

/// What a model's inputs and scores were in the requests of its training.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Distribution {
    /// How many requests that were.
    pub requests: u64,
    /// Scores.
    pub score: Bins,
    /// Inputs, the most important ones first.
    pub inputs: Vec<InputBins>,
}

/// The bins of one input.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct InputBins {
    /// The input's name.
    pub name: String,
    /// Its bins.
    #[serde(flatten)]
    pub bins: Bins,
}

/// Bins and the share of the requests in each.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Bins {
    /// Ascending borders: a value is in bin n if it exceeds n of them.
    pub borders: Vec<f32>,
    /// The share of the requests in each bin, one more than borders.
    pub shares: Vec<f32>,
    /// The share of the requests in which the value is NaN.
    #[serde(default)]
    pub missing: f32,
}

impl Bins {
    fn row(&self, input: Option<u32>) -> Option<DistributionRow> {
        DistributionRow::new(input, &self.borders, &self.shares, self.missing)
    }
}

impl Distribution {
    /// Reads the entry; `None` where it is of another version.
    pub(super) fn read(text: &str) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        if text.len() > MAX_BYTES {
            return Err(format!("expected {MAX_BYTES} bytes at most, found {}", text.len()));
        }
        let Version { version } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Ok(None);
        }
        serde_json::from_str(text).map(Some).map_err(|error| error.to_string())
    }

    /// Checks the limits and every row.
    pub(super) fn check(&self) -> Result<(), String> {
        let limit = MAX_DISTRIBUTION_ROWS - 1;
        if self.inputs.len() > limit {
            return Err(format!("{ENTRY}: expected {limit} inputs at most, found {}", self.inputs.len()));
        }
        let wrong = |what: &str| {
            Err(format!(
                "{ENTRY}: {what}: expected at most {MAX_BORDERS} finite, ascending borders, one share more than borders, and \
                 shares that add up to 1 with `missing`"
            ))
        };
        if self.score.row(None).is_none() {
            return wrong("score");
        }
        for (at, InputBins { name, bins }) in self.inputs.iter().enumerate() {
            if bins.row(Some(0)).is_none() {
                return wrong(&format!("input {name:?}"));
            }
            if self.inputs.iter().take(at).any(|earlier| earlier.name == *name) {
                return Err(format!("{ENTRY}: input {name:?} is there twice"));
            }
        }
        Ok(())
    }

    /// The rows of the compiled model, whose numbers are named `inputs`; what it does not take is left out.
    pub(super) fn rows(&self, inputs: &[String]) -> Result<Vec<DistributionRow>, CompileError> {
        let wrong = || CompileError::Inconsistent(format!("a row of {ENTRY} is not valid"));
        let mut rows = vec![self.score.row(None).ok_or_else(wrong)?];
        for InputBins { name, bins } in &self.inputs {
            if let Some(input) = inputs.iter().position(|input| input == name) {
                rows.push(bins.row(u32::try_from(input).ok()).ok_or_else(wrong)?);
            }
        }
        Ok(rows)
    }
}
