//! Errors of the read path. None of them allocates.

use super::instruction_set::InstructionSet;

/// Why bytes were not accepted as a compiled model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The bytes do not start at a multiple of 64.
    #[error(
        "expected a compiled model at an address that is a multiple of 64, found remainder {remainder}; align it to 64 bytes"
    )]
    Misaligned {
        /// Remainder of the address.
        remainder: usize,
    },
    /// The bytes are fewer or more than the model's header says.
    #[error("expected a compiled model of {expected} bytes, found {found}; publish it again")]
    Length {
        /// Bytes that the header announces (at least: a whole header).
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The bytes do not start as a compiled model does.
    #[error(
        "expected a compiled model (it starts with \"BLISSMDL\"), found other bytes; compile the .cbm file first"
    )]
    Magic,
    /// The model was compiled by another version.
    #[error(
        "expected version {expected} of the compiled layout, found {found}; compile the model again with this version of BLISS"
    )]
    Version {
        /// Version that this code reads.
        expected: u32,
        /// Version of the bytes.
        found: u32,
    },
    /// A number of the header is out of range.
    #[error("a compiled model is corrupt: {field} is {found}; publish it again")]
    Header {
        /// Which number.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// A section lies outside the model, or has another length than the header implies.
    #[error("a compiled model is corrupt: section {section} has {found} elements; publish it again")]
    Section {
        /// Which section.
        section: &'static str,
        /// Elements that it claims.
        found: u64,
    },
    /// An element of a section leads outside another section.
    #[error(
        "a compiled model is corrupt: element {index} of section {section} leads outside its range; publish it again"
    )]
    Range {
        /// Which section.
        section: &'static str,
        /// Which element.
        index: usize,
    },
    /// The names are not valid archives.
    #[error("a compiled model is corrupt: its names are not a valid archive; publish it again")]
    Names,
    /// This processor lacks the instructions asked for.
    #[error("this processor has no {0} instructions; choose another set or none")]
    InstructionSet(InstructionSet),
}

/// Why a row was not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The binding has not one entry per input.
    #[error("expected a binding of {expected} inputs, found {found}; bind the model again")]
    BindingLength {
        /// Inputs of the model.
        expected: usize,
        /// Entries of the binding.
        found: usize,
    },
    /// The binding leads outside the values.
    #[error("expected a binding below {values} values, found {found}; bind the model again")]
    BindingRange {
        /// Values that were given.
        values: usize,
        /// Largest entry of the binding.
        found: u32,
    },
    /// The output does not have one value per dimension.
    #[error("expected room for {expected} output values, found {found}")]
    OutputLength {
        /// Dimensions of the model.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// The scratch memory was made for smaller models.
    #[error("scratch memory is too small for this model; call Scratch::reserve when a model is opened")]
    Scratch,
}

/// Why a model is not explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The model was compiled without the weights of its leaves.
    #[error(
        "this compiled model holds no weights of its leaves, which explanations need; compile it with compile_explainable"
    )]
    NoLeafWeights,
    /// The weights, or the trees that they belong to, contradict each other.
    #[error("a compiled model is corrupt: the leaf weights of tree {tree} do not fit it; publish it again")]
    Corrupt {
        /// Which tree.
        tree: usize,
    },
    /// There are too many values to add up.
    #[error(
        "the model has {found} features times outputs, more than the {limit} that are explained; train a smaller one"
    )]
    TooLarge {
        /// How many.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A tree has too many edges for memory that was made beforehand.
    #[error(
        "tree {tree} has {found} edges, more than the {limit} that are explained; train the model with smaller trees"
    )]
    TreeTooLarge {
        /// Which tree.
        tree: usize,
        /// Edges of the tree, the one to its root included.
        found: usize,
        /// Edges that a tree may have.
        limit: usize,
    },
    /// The row cannot be evaluated.
    #[error(transparent)]
    Row(#[from] EvalError),
    /// A tree is too deep.
    #[error(
        "tree {tree} is deeper than the {limit} levels that are explained; train the model with a smaller depth"
    )]
    TooDeep {
        /// Which tree.
        tree: usize,
        /// Levels that a tree may have.
        limit: usize,
    },
}
