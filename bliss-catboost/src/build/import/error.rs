//! Why a file is not accepted as a model.

/// Why a file was not accepted as a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The bytes are neither a `.cbm` file nor a JSON export.
    #[error(
        "expected a CatBoost model (a file starting with \"CBM1\", or its JSON export), found {found}; save the \
         model with save_model(..., format=\"cbm\")"
    )]
    NotAModel {
        /// What the file starts with.
        found: String,
    },
    /// The file ends before what its header or tables declare.
    #[error("the file is truncated: {what} needs {expected} bytes, {found} are there; copy the file again")]
    Truncated {
        /// Which part ends early.
        what: &'static str,
        /// Bytes that the part needs.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A structure of the file contradicts the format.
    #[error("the file is corrupt: {what}: {detail}; save or copy the model again")]
    Corrupt {
        /// Which part is corrupt.
        what: &'static str,
        /// What was expected and what was found.
        detail: String,
    },
    /// The model uses something that is not supported.
    #[error("the model uses {what}, which BLISS does not evaluate; {advice}")]
    Unsupported {
        /// What it uses.
        what: String,
        /// What to do.
        advice: &'static str,
    },
}

impl ImportError {
    pub(crate) fn corrupt(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Corrupt { what, detail: detail.into() }
    }
}
