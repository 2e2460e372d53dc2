//! Why a model is not compiled.

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The model contradicts itself.
    #[error("the model is inconsistent: {0}; import it again")]
    Inconsistent(String),
    /// The model exceeds a limit of the compiled form.
    #[error(
        "the model has {found} {what}, more than the {limit} that a compiled model can hold; train a smaller one"
    )]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much can be held.
        limit: u64,
    },
    /// The model has no leaf weights, which explanations need.
    #[error(
        "the model's file holds no weights of its leaves ({0}), which explanations need; save it as .cbm or JSON from CatBoost, \
         not from a sum of models, or compile it without explanations"
    )]
    LeafWeights(String),
    /// The names could not be archived.
    #[error("the names could not be archived: {0}")]
    Names(rkyv::rancor::Error),
}

/// Narrows a number to the 32 bits that the compiled form has for it.
pub(super) fn narrow(value: usize, what: &'static str) -> Result<u32, CompileError> {
    u32::try_from(value).map_err(|_| CompileError::TooLarge {
        what,
        found: value as u64,
        limit: u64::from(u32::MAX),
    })
}
