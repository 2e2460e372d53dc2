//! Features, found by their index in the training data.

use std::collections::HashMap;

use super::error::ImportError;
use crate::build::ir::{Element, Model};

/// The index in the model of each feature, by its index in the training data.
#[derive(Default)]
pub(super) struct FeatureIndex {
    floats: HashMap<usize, usize>,
    cats: HashMap<usize, usize>,
}

impl FeatureIndex {
    pub(super) fn of(model: &Model) -> Self {
        Self {
            floats: model.floats.iter().enumerate().map(|(i, f)| (f.index, i)).collect(),
            cats: model.cats.iter().enumerate().map(|(i, c)| (c.index, i)).collect(),
        }
    }

    /// The categorical feature of this index.
    pub(super) fn cat(&self, index: usize) -> Result<usize, ImportError> {
        self.cats.get(&index).copied().ok_or_else(|| {
            let detail = format!("no categorical feature has the index {index}, which is used");
            ImportError::corrupt("the features", detail)
        })
    }

    /// The test of a number against a border, which the feature of this index must have.
    pub(super) fn above(&self, model: &Model, index: usize, border: f32) -> Result<Element, ImportError> {
        let found = self.floats.get(&index).and_then(|&float| {
            let borders = &model.floats.get(float)?.borders;
            // Of equal borders any: they answer alike.
            let border =
                borders.binary_search_by(|b| b.partial_cmp(&border).unwrap_or(std::cmp::Ordering::Less));
            Some(Element::Above(float, border.ok()?))
        });
        found.ok_or_else(|| {
            let detail = format!("numeric feature {index} has no border {border}, which a combination tests");
            ImportError::corrupt("a CTR", detail)
        })
    }
}
