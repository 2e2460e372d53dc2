//! Reading CatBoost's files: `.cbm` and the JSON export.
//!
//! A file is hostile until it is read: every offset and length is checked, memory grows only in proportion to
//! the file, and what is not supported is refused by its name.

mod cbm;
mod ctr;
mod flat;
mod json;

use std::collections::HashMap;

use super::ir::{Element, Model};

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
    /// The file ends before what its own header or tables announce.
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

/// Where in the model a feature is, by its index in the training data.
#[derive(Default)]
struct Index {
    floats: HashMap<usize, usize>,
    cats: HashMap<usize, usize>,
}

impl Index {
    fn of(model: &Model) -> Self {
        Self {
            floats: model.floats.iter().enumerate().map(|(at, f)| (f.index, at)).collect(),
            cats: model.cats.iter().enumerate().map(|(at, c)| (c.index, at)).collect(),
        }
    }

    /// The categorical feature of this index.
    fn cat(&self, index: usize) -> Result<usize, ImportError> {
        self.cats.get(&index).copied().ok_or_else(|| {
            let detail = format!("no categorical feature has the index {index}, which is used");
            ImportError::corrupt("the features", detail)
        })
    }

    /// The test of a number against a border, which the feature of this index must have.
    fn above(&self, model: &Model, index: usize, border: f32) -> Result<Element, ImportError> {
        let found = self.floats.get(&index).and_then(|&at| {
            let borders = &model.floats.get(at)?.borders;
            // Of equal borders any: they answer alike.
            let border =
                borders.binary_search_by(|b| b.partial_cmp(&border).unwrap_or(std::cmp::Ordering::Less));
            Some(Element::Above(at, border.ok()?))
        });
        found.ok_or_else(|| {
            let detail = format!("numeric feature {index} has no border {border}, which a combination tests");
            ImportError::corrupt("a CTR", detail)
        })
    }
}

/// Reads a model from the bytes of a `.cbm` file or of a JSON export; which of the two, the first bytes tell.
///
/// # Errors
///
/// [`ImportError`] where the bytes are no model, are truncated or corrupt, or use text or embedding features.
pub fn import(bytes: &[u8]) -> Result<Model, ImportError> {
    let model = if bytes.starts_with(cbm::MAGIC) {
        cbm::read(bytes)?
    } else if bytes.trim_ascii_start().starts_with(b"{") {
        json::read(bytes)?
    } else {
        let head = bytes.get(..bytes.len().min(8)).unwrap_or_default();
        let found = if bytes.is_empty() {
            "an empty file".into()
        } else {
            format!("the bytes \"{}\"", head.escape_ascii())
        };
        return Err(ImportError::NotAModel { found });
    };
    model.check().map_err(|detail| ImportError::corrupt("the model", detail))?;
    Ok(model)
}
