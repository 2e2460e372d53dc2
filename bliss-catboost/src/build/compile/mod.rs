//! Turns a [`Model`] into the bytes that are evaluated in place.

mod ctr;
mod error;
mod non_symmetric;
mod oblivious;
mod slots;
mod used;

use rkyv::util::AlignedVec;

use super::ir::{AnswerForm, Model, Trees};
use crate::layout::{
    ALIGN, FLAG_EACH_SIGMOID, FLAG_NON_SYMMETRIC, FLAG_PROBABILITIES, FLAG_WIDE_SLOTS, Header, MAGIC, Pod,
    SECTIONS, Section, SectionId, VERSION, bytes_of,
};
use crate::meta::Meta;
use error::narrow;
use slots::Slots;
use used::Used;

pub use error::CompileError;

/// All sections but the names.
#[derive(Default)]
struct Sections {
    bytes: Vec<u8>,
    at: [Section; SECTIONS],
}

impl Sections {
    /// Appends a section; called in the order of [`SectionId`].
    fn push<T: Pod>(&mut self, at: SectionId, elements: &[T]) {
        let offset = (size_of::<Header>() + self.bytes.len()) as u64;
        if let Some(section) = self.at.get_mut(at as usize) {
            *section = Section { offset, count: elements.len() as u64 };
        }
        self.bytes.extend_from_slice(bytes_of(elements));
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

/// A hash of everything that slots are filled by: sections, and what the header says of inputs and slots.
fn slots_id(header: &Header, sections: &Sections) -> u64 {
    const OF: [SectionId; 7] = [
        SectionId::Lanes,
        SectionId::Groups,
        SectionId::Borders,
        SectionId::OneHots,
        SectionId::Projections,
        SectionId::Elements,
        SectionId::Ctrs,
    ];
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for number in [header.flags & FLAG_WIDE_SLOTS, header.inputs, header.float_inputs, header.slots] {
        hasher.update(&number.to_le_bytes());
    }
    // They lie one behind the other, from the first to where the next one begins.
    let offset = |at: SectionId| sections.at.get(at as usize).map_or(0, |section| section.offset);
    for at in OF {
        hasher.update(&sections.at.get(at as usize).map_or(0, |section| section.count).to_le_bytes());
    }
    let start = offset(SectionId::Lanes).saturating_sub(size_of::<Header>() as u64) as usize;
    let end = offset(SectionId::Blocks).saturating_sub(size_of::<Header>() as u64) as usize;
    hasher.update(sections.bytes.get(start..end).unwrap_or_default());
    hasher.digest().max(1)
}

/// Compiles a model: the bytes that [`ModelRef::open`](crate::ModelRef::open) takes.
///
/// # Errors
///
/// [`CompileError`] where the model contradicts itself (an imported one never does) or is too large.
pub fn compile(model: &Model) -> Result<AlignedVec<64>, CompileError> {
    compile_with(model, None)
}

/// Compiles a model as [`compile`] does, and adds the weights of its leaves, which [`Explainer`](crate::Explainer) needs: eight
/// bytes per leaf. Scores neither read them nor change.
///
/// # Errors
///
/// [`CompileError::LeafWeights`] where the model has none; else as [`compile`].
pub fn compile_explainable(model: &Model) -> Result<AlignedVec<64>, CompileError> {
    model.check().map_err(CompileError::Inconsistent)?;
    check_weights(model).map_err(CompileError::LeafWeights)?;
    compile_with(model, Some(&model.leaf_weights))
}

/// Checks that each leaf has a weight.
fn check_weights(model: &Model) -> Result<(), String> {
    if model.leaf_weights.len() != model.trees.len() {
        return Err(format!("of {} trees {} have any", model.trees.len(), model.leaf_weights.len()));
    }
    for (at, weights) in model.leaf_weights.iter().enumerate() {
        let values = match &model.trees {
            Trees::Oblivious(trees) => trees.get(at).map_or(0, |tree| tree.leaves.len()),
            Trees::NonSymmetric(trees) => trees.get(at).map_or(0, |tree| tree.leaves.len()),
        };
        if weights.len().saturating_mul(model.dimensions) != values {
            let leaves = values / model.dimensions.max(1);
            return Err(format!("tree {at} has {} for {leaves} leaves", weights.len()));
        }
        if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(format!("tree {at} has the weight {weight}"));
        }
    }
    Ok(())
}

fn compile_with(model: &Model, weights: Option<&[Vec<f64>]>) -> Result<AlignedVec<64>, CompileError> {
    model.check().map_err(CompileError::Inconsistent)?;
    let used = Used::of(model);
    let mut slots = Slots::of_inputs(model, &used)?;
    ctr::compile(model, &used, &mut slots)?;
    slots.check_count()?;
    let wide = slots.count > 256;
    let mut flags = if wide { FLAG_WIDE_SLOTS } else { 0 };
    flags |= match model.answer {
        AnswerForm::Classes => 0,
        AnswerForm::EachSigmoid => FLAG_EACH_SIGMOID,
        AnswerForm::Probabilities => FLAG_PROBABILITIES,
    };

    let meta = Meta {
        guid: model.guid.clone(),
        class_names: model.class_names.clone(),
        inputs: slots.input_names.clone(),
    };
    let meta = rkyv::to_bytes::<rkyv::rancor::Error>(&meta).map_err(CompileError::Names)?;

    let mut sections = Sections::default();
    sections.push(SectionId::Meta, meta.as_slice());
    sections.push(SectionId::Lanes, &slots.lanes);
    sections.push(SectionId::Groups, &slots.groups);
    sections.push(SectionId::Borders, &slots.rows);
    sections.push(SectionId::OneHots, &slots.one_hots);
    sections.push(SectionId::Projections, &slots.projections);
    sections.push(SectionId::Elements, &slots.elements);
    sections.push(SectionId::Ctrs, &slots.tables);
    let compiled_weights = match &model.trees {
        Trees::Oblivious(trees) => {
            let compiled = oblivious::compile(trees, weights, model.dimensions, &slots, wide)?;
            sections.push(SectionId::Blocks, &compiled.blocks);
            sections.push(SectionId::Pages, &compiled.pages);
            sections.push(SectionId::Tests, &compiled.tests);
            sections.push(SectionId::LeafBases, &compiled.leaf_bases);
            sections.push(SectionId::Leaves, &compiled.leaves);
            for at in [SectionId::Nodes, SectionId::NodeLeaves, SectionId::Roots, SectionId::Walks] {
                sections.push::<u8>(at, &[]);
            }
            compiled.weights
        }
        Trees::NonSymmetric(trees) => {
            flags |= FLAG_NON_SYMMETRIC;
            let compiled = non_symmetric::compile(trees, weights, model.dimensions, &slots)?;
            for at in [SectionId::Blocks, SectionId::Pages, SectionId::Tests, SectionId::LeafBases] {
                sections.push::<u8>(at, &[]);
            }
            sections.push(SectionId::Leaves, &compiled.leaves);
            sections.push(SectionId::Nodes, &compiled.nodes);
            sections.push(SectionId::NodeLeaves, &compiled.node_leaves);
            sections.push(SectionId::Roots, &compiled.roots);
            sections.push(SectionId::Walks, &compiled.walks);
            compiled.weights
        }
    };
    let mut bias = model.bias.clone();
    bias.resize(model.dimensions, 0.0);
    sections.push(SectionId::Bias, &bias);
    if weights.is_some() {
        sections.push(SectionId::Weights, &compiled_weights);
    }
    if let Some(distribution) = &model.distribution {
        let numbers = slots.input_names.get(..slots.float_inputs).unwrap_or_default();
        sections.push(SectionId::Distribution, &distribution.rows(numbers)?);
    }

    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        flags,
        bytes: (size_of::<Header>() + sections.bytes.len()) as u64,
        scale: model.scale,
        inputs: narrow(slots.input_names.len(), "inputs")?,
        float_inputs: narrow(slots.float_inputs, "inputs")?,
        dimensions: narrow(model.dimensions, "output dimensions")?,
        trees: narrow(model.trees.len(), "trees")?,
        slots: narrow(slots.count, "slots")?,
        depth: narrow(model.trees.depth(), "levels")?,
        slots_id: 0,
        sections: sections.at,
    };
    header.slots_id = slots_id(&header, &sections);
    let mut bytes = AlignedVec::with_capacity(size_of::<Header>() + sections.bytes.len());
    bytes.extend_from_slice(bytes_of(&[header]));
    bytes.extend_from_slice(&sections.bytes);
    Ok(bytes)
}
