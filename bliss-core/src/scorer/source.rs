//! Where what a model or a policy calls by name is in the vector of values, and what has to be looked up for it.

use super::dimensions::BoundDimensions;
use super::{ATTRIBUTES_AT, HTTP_AT, INPUTS_AT, OPTIONAL_AT, OPTIONAL_INPUTS};
use crate::http::RequestValue;
use crate::request::{INPUT_PREFIX, Names};

/// What is looked up and computed for models and policies, as masks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// Dimensions.
    pub(super) dimensions: u64,
    /// Attributes of the request that are taken as categories, by their indices.
    pub(super) attributes: u64,
    /// Values that a whole request says by itself, by their bits.
    pub(super) request_values: u32,
}

impl core::ops::BitOrAssign for Needs {
    fn bitor_assign(&mut self, other: Self) {
        self.dimensions |= other.dimensions;
        self.attributes |= other.attributes;
        self.request_values |= other.request_values;
    }
}

/// One source.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundSource {
    /// Index in the vector of values.
    pub(super) at: usize,
    /// The dimension that it is a feature of.
    pub(super) dimension: Option<usize>,
    pub(super) needs: Needs,
}

impl BoundSource {
    /// As [`Self::find`], for an input of a model: one of [`OPTIONAL_INPUTS`] that is not there is NaN.
    pub(super) fn find_input(
        name: &str,
        is_category: bool,
        dimensions: &BoundDimensions,
        names: &Names,
    ) -> Option<Self> {
        let optional = || {
            // One of the other type is there, and is missing as any other would be.
            let is_there = is_category || dimensions.find(name).is_some();
            let index =
                OPTIONAL_INPUTS.iter().position(|optional| *optional == name).filter(|_| !is_there)?;
            Some(Self { at: OPTIONAL_AT + index, dimension: None, needs: Needs::default() })
        };
        Self::find(name, is_category, dimensions, names).or_else(optional)
    }

    /// `dimension.feature` or `request.value`, as a category or a number; `None` where there is none, or only of the other type.
    pub(super) fn find(
        name: &str,
        is_category: bool,
        dimensions: &BoundDimensions,
        names: &Names,
    ) -> Option<Self> {
        let none = Needs::default();
        let Some(own) = name.strip_prefix(INPUT_PREFIX) else {
            let (dimension, at, is_one) = dimensions.find(name)?;
            let needs = Needs { dimensions: 1_u64.checked_shl(u32::try_from(dimension).ok()?)?, ..none };
            return (is_one == is_category).then_some(Self { at, dimension: Some(dimension), needs });
        };
        // An attribute whose kind the schema knows, unless an input has its name.
        let attribute = || {
            let index = names.attribute_index(own)?;
            dimensions.attribute_kind(index).map(|_| index)
        };
        let (at, is_one, needs) = if let Some((index, is_one)) = names.input_index(own) {
            (INPUTS_AT + index, is_one, none)
        } else if let Some(index) = attribute() {
            (ATTRIBUTES_AT + index, true, Needs { attributes: 1 << index, ..none })
        } else {
            let value = RequestValue::of(own).filter(|_| names.has_http())?;
            (HTTP_AT + value.index(), false, Needs { request_values: value.bit(), ..none })
        };
        (is_one == is_category).then_some(Self { at, dimension: None, needs })
    }
}
