//! Why a call fails.

use bliss_core::request::NameError;
use bliss_core::score::Unscored;

use crate::codes::bliss_result_e::{self, *};

/// Why a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallError {
    /// The call is wrong; the text says what was expected.
    Invalid(bliss_result_e, &'static str),
    /// A name cannot be registered.
    Name(NameError),
    /// The call is right, but there is no result.
    Unscored(Unscored),
    /// The message has been written already.
    Reported(bliss_result_e),
}

impl CallError {
    pub(crate) fn code(self) -> bliss_result_e {
        match self {
            Self::Invalid(code, _) | Self::Reported(code) => code,
            Self::Name(NameError::TooMany { .. }) => BLISS_ERROR_FULL,
            Self::Name(_) => BLISS_ERROR_ARGUMENT,
            Self::Unscored(reason) => reason.into(),
        }
    }
}

impl From<NameError> for CallError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<Unscored> for CallError {
    fn from(reason: Unscored) -> Self {
        Self::Unscored(reason)
    }
}
