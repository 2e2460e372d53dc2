//! CTR kinds as CatBoost's files spell them.

use super::error::ImportError;
use crate::build::ir::CtrKind;

/// The kind of a CTR by its number in a `.cbm` file.
pub(super) fn kind_of_number(number: i8) -> Result<CtrKind, ImportError> {
    Ok(match number {
        0 => CtrKind::Borders,
        1 => CtrKind::Buckets,
        2 => CtrKind::BinarizedTargetMean,
        3 => CtrKind::FloatTargetMean,
        4 => CtrKind::Counter,
        5 => CtrKind::FeatureFrequency,
        _ => {
            let what = format!("a CTR of the unknown kind {number}");
            return Err(ImportError::Unsupported { what, advice: "train it with CatBoost 1.2" });
        }
    })
}

/// The kind of a CTR by its name in the JSON export.
pub(super) fn kind_of_name(name: &str) -> Result<CtrKind, ImportError> {
    Ok(match name {
        "Borders" => CtrKind::Borders,
        "Buckets" => CtrKind::Buckets,
        "BinarizedTargetMeanValue" => CtrKind::BinarizedTargetMean,
        "FloatTargetMeanValue" => CtrKind::FloatTargetMean,
        "Counter" => CtrKind::Counter,
        "FeatureFreq" => CtrKind::FeatureFrequency,
        _ => {
            let what = format!("a CTR of the unknown kind {name:?}");
            return Err(ImportError::Unsupported { what, advice: "train it with CatBoost 1.2" });
        }
    })
}
