//! Reading CatBoost's files: `.cbm` and the JSON export.
//!
//! A file is hostile until it is read: every offset and length is checked, memory grows only in proportion to
//! the file, and what is not supported is refused by name.

mod cbm;
mod ctr_kind;
mod error;
mod features;
mod json;
mod params;

use super::ir::Model;

pub use error::ImportError;

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
