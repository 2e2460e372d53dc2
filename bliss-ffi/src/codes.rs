//! Numbers that functions return.

use bliss_core::score::{Status, Unscored};

/// What became of a call.
///
/// Above 0: the request is unscored, or has no features; other numbers than these may be added and mean the same.
/// Below 0: the call was wrong, or failed.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bliss_result_e {
    /// Done.
    BLISS_OK = 0,
    /// Nothing was published yet, or nothing can be read.
    BLISS_NO_SNAPSHOT = 1,
    /// No models were published yet.
    BLISS_NO_MODELS = 2,
    /// The request's route, and the default one, have no active model.
    BLISS_NO_ACTIVE_MODEL = 3,
    /// The active model has an input that neither the features nor the caller provide.
    BLISS_MISSING_INPUT = 4,
    /// The published features are damaged or of another version.
    BLISS_BAD_SNAPSHOT = 5,
    /// The published models are damaged or of another version.
    BLISS_BAD_MODELS = 6,
    /// The model's result is not a probability.
    BLISS_NO_PROBABILITY = 7,
    /// The daemon has given no sign of life for longer than its configuration allows (`publish.max_heartbeat_age`).
    BLISS_OLD_SNAPSHOT = 8,
    /// The row of a dimension that the model uses is stale, and the dimension has `on_stale = "unscored"`.
    BLISS_STALE_DIMENSION = 9,
    /// The model cannot be explained: it was published without the weights of its leaves.
    BLISS_NO_LEAF_WEIGHTS = 32,
    /// The model cannot be explained: it has too many inputs or too large trees for the memory that explanations have.
    BLISS_TOO_LARGE_TO_EXPLAIN = 33,
    /// No model of this name is published.
    BLISS_NO_SUCH_MODEL = 34,
    /// A pointer that must not be NULL is.
    BLISS_ERROR_NULL = -1,
    /// An id, a name, a number or a length is not valid for this function.
    BLISS_ERROR_ARGUMENT = -2,
    /// The size that a struct begins with is neither this version's nor a known earlier one's.
    BLISS_ERROR_SIZE = -3,
    /// The handle belongs to another thread.
    BLISS_ERROR_THREAD = -4,
    /// Files in the directory cannot be used.
    BLISS_ERROR_OPEN = -5,
    /// No more names can be registered.
    BLISS_ERROR_FULL = -6,
    /// A bug in the library was caught; close the handle and open another one.
    BLISS_ERROR_PANIC = -7,
}

use bliss_result_e::*;

impl From<Unscored> for bliss_result_e {
    fn from(reason: Unscored) -> Self {
        match reason {
            Unscored::NoSnapshot => BLISS_NO_SNAPSHOT,
            Unscored::NoModels => BLISS_NO_MODELS,
            Unscored::NoActiveModel => BLISS_NO_ACTIVE_MODEL,
            Unscored::MissingInput => BLISS_MISSING_INPUT,
            Unscored::BadSnapshot => BLISS_BAD_SNAPSHOT,
            Unscored::BadModels => BLISS_BAD_MODELS,
            Unscored::NoProbability => BLISS_NO_PROBABILITY,
            Unscored::OldSnapshot => BLISS_OLD_SNAPSHOT,
            Unscored::StaleDimension => BLISS_STALE_DIMENSION,
        }
    }
}

/// How a dimension answered.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bliss_status_e {
    /// Not asked: no model of the route uses it.
    BLISS_STATUS_UNUSED = 0,
    /// A row, and young enough.
    BLISS_STATUS_FRESH = 1,
    /// A row, but older than the dimension's `max_age`; its values are used unless its `on_stale` says otherwise.
    BLISS_STATUS_STALE = 2,
    /// No row; the default values are used.
    BLISS_STATUS_MISSING = 3,
    /// The request lacks an attribute of the key, or it does not fit its kind; the default values are used.
    BLISS_STATUS_ABSENT = 4,
}

const _: () = {
    assert!(bliss_status_e::BLISS_STATUS_UNUSED as u8 == Status::Unused as u8);
    assert!(bliss_status_e::BLISS_STATUS_FRESH as u8 == Status::Fresh as u8);
    assert!(bliss_status_e::BLISS_STATUS_STALE as u8 == Status::Stale as u8);
    assert!(bliss_status_e::BLISS_STATUS_MISSING as u8 == Status::Missing as u8);
    assert!(bliss_status_e::BLISS_STATUS_ABSENT as u8 == Status::Absent as u8);
    assert!(size_of::<Status>() == 1, "statuses are handed out as bytes");
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_keep_their_numbers() {
        for reason in Unscored::ALL {
            assert_eq!(bliss_result_e::from(reason) as u32, reason as u32);
        }
    }
}
