//! A compiled model, opened.

use rkyv::{Archived, access_unchecked};

use super::distribution::DistributionRow;
use super::error::ModelError;
use super::instruction_set::InstructionSet;
use super::layout::{ALIGN, FLAG_NON_SYMMETRIC, Header, MAGIC, Pod, Section, SectionId};
use super::meta::Meta;
use super::validate;

/// A compiled model, in place in a larger buffer. A copy is two words and a byte; many threads may share it.
#[derive(Clone, Copy)]
pub struct ModelRef<'a> {
    /// A whole model that `validate::check` accepted.
    bytes: &'a [u8],
    instruction_set: InstructionSet,
}

/// What an input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// A number.
    Float,
    /// A category: [`category_hash`](super::category_hash) of its text, bit-cast by `f32::from_bits`.
    Category,
}

/// A named input of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input<'a> {
    /// Its name in the model's file, or `float_N` and `cat_N` where the file has none (N counts the numeric,
    /// respectively categorical features of the training data from 0).
    pub name: &'a str,
    /// What it takes.
    pub kind: InputKind,
}

impl<'a> ModelRef<'a> {
    /// Opens a compiled model and validates all of it: afterwards no content of these bytes can lead an evaluation
    /// outside of them. Takes time in proportion to the model's size; does not allocate.
    ///
    /// The fastest [`InstructionSet`] of the processor is chosen here.
    ///
    /// # Errors
    ///
    /// [`ModelError`] where the bytes are no compiled model of this version, are not exactly one, are not 64-byte
    /// aligned, or lead outside themselves.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ModelError> {
        validate::check(bytes)?;
        Ok(Self { bytes, instruction_set: InstructionSet::detect() })
    }

    /// Opens bytes that were opened before, in a few nanoseconds.
    ///
    /// # Safety
    ///
    /// - [`ModelRef::open`] accepted bytes of the same contents and length
    /// - these bytes start at a multiple of 64
    #[must_use]
    pub unsafe fn open_unchecked(bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.starts_with(&MAGIC), "open_unchecked wants bytes that open accepted");
        debug_assert!(
            bytes.as_ptr().addr().is_multiple_of(ALIGN),
            "open_unchecked wants 64-byte aligned bytes"
        );
        Self { bytes, instruction_set: InstructionSet::detect() }
    }

    /// The same model, evaluated with other instructions, for tests and to rule instructions out.
    ///
    /// # Errors
    ///
    /// [`ModelError::InstructionSet`] where this processor lacks the instructions.
    pub fn with_instruction_set(self, instruction_set: InstructionSet) -> Result<Self, ModelError> {
        if instruction_set.is_available() {
            Ok(Self { instruction_set, ..self })
        } else {
            Err(ModelError::InstructionSet(instruction_set))
        }
    }

    /// The instructions that evaluate this model.
    #[must_use]
    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }

    /// The inputs, numbers first, each in the order of the model's file; only those that a split uses.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Input<'a>> + use<'a> {
        let floats = self.header().float_inputs as usize;
        self.meta().inputs.iter().enumerate().map(move |(i, name)| Input {
            name: name.as_str(),
            kind: if i < floats { InputKind::Float } else { InputKind::Category },
        })
    }

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.header().trees as usize
    }

    /// Depth of the deepest tree.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.header().depth as usize
    }

    /// Whether all nodes of a level test the same split in every tree.
    #[must_use]
    pub fn is_oblivious(&self) -> bool {
        self.header().flags & FLAG_NON_SYMMETRIC == 0
    }

    /// Whether it was compiled with the weights of its leaves, which explanations need.
    #[must_use]
    pub fn is_explainable(&self) -> bool {
        // Of a model without them, the header has zeros there.
        self.header().sections.get(SectionId::Weights as usize).is_some_and(|section| section.offset != 0)
    }

    /// Values per row: what [`raw`](Self::raw) writes.
    #[must_use]
    pub fn output_dimensions(&self) -> usize {
        self.header().dimensions as usize
    }

    /// Number of leaf values over all trees.
    #[must_use]
    pub fn leaf_values(&self) -> usize {
        self.section::<f64>(SectionId::Leaves).len()
    }

    /// Bytes of the compiled model.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// CatBoost's identifier of the model; empty where its file has none.
    #[must_use]
    pub fn guid(&self) -> &'a str {
        self.meta().guid.as_str()
    }

    /// Names of the classes as the file gives them. With one output dimension the second is the one whose
    /// probability is given; none for a regression.
    pub fn class_names(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.meta().class_names.iter().map(|name| name.as_str())
    }

    /// The reference distribution: the row of scores, then one for each input of which it is known, the most important
    /// first; empty where the model carries none.
    #[must_use]
    pub fn distribution(&self) -> &'a [DistributionRow] {
        match self.header().sections.get(SectionId::Distribution as usize) {
            Some(section) if section.offset != 0 => self.section(SectionId::Distribution),
            _ => &[],
        }
    }

    fn meta(&self) -> &'a Archived<Meta> {
        // SAFETY:
        // - `validate::check` ran `access` on these very bytes
        unsafe { access_unchecked::<Archived<Meta>>(self.section(SectionId::Meta)) }
    }

    pub(super) fn header(&self) -> &'a Header {
        // SAFETY:
        // - the bytes are 64-byte aligned and at least a header long (`validate::check`); any bits are a `Header`
        unsafe { &*self.bytes.as_ptr().cast::<Header>() }
    }

    pub(super) fn section<T: Pod>(&self, at: SectionId) -> &'a [T] {
        let Section { offset, count } = self.header().sections.get(at as usize).copied().unwrap_or_default();
        // SAFETY:
        // - `validate::check` found that `offset` is a multiple of 64 (no `Pod` type wants more) and that `count`
        //   elements of this section's type from there on are inside the bytes
        // - `T` is the section's type: each section is asked for with one type only, here and in `validate`
        // - any bits are a `Pod`
        unsafe {
            std::slice::from_raw_parts(self.bytes.as_ptr().add(offset as usize).cast::<T>(), count as usize)
        }
    }
}

impl std::fmt::Debug for ModelRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelRef")
            .field("guid", &self.guid())
            .field("trees", &self.trees())
            .field("bytes", &self.bytes.len())
            .field("instruction_set", &self.instruction_set)
            .finish_non_exhaustive()
    }
}
