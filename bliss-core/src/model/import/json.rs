//! CatBoost's JSON export.

use super::ImportError;
use crate::model::ir::Model;

/// Names of the classes in the text of CatBoost's `class_params`; none where there are none.
pub(super) fn class_names_of_text(text: &str) -> Vec<String> {
    serde_json::from_str(text).map(|value| class_names(&value)).unwrap_or_default()
}

fn class_names(params: &serde_json::Value) -> Vec<String> {
    let names = params.get("class_names").and_then(serde_json::Value::as_array);
    let text = |name: &serde_json::Value| name.as_str().map_or_else(|| name.to_string(), Into::into);
    names.map(|names| names.iter().map(text).collect()).unwrap_or_default()
}

/// Reads a JSON export.
pub(super) fn read(_file: &[u8]) -> Result<Model, ImportError> {
    let what = "the JSON form".into();
    Err(ImportError::Unsupported { what, advice: "save it as .cbm" })
}
