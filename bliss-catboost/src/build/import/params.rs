//! What a model's file says about its training.

use serde_json::Value;

/// [`class_names`] of JSON text; none where there are none.
pub(super) fn class_names_of_text(text: &str) -> Vec<String> {
    serde_json::from_str(text).map(|value| class_names(&value)).unwrap_or_default()
}

/// Names of the classes in CatBoost's `class_params`.
pub(super) fn class_names(params: &Value) -> Vec<String> {
    let names = params.get("class_names").and_then(Value::as_array);
    let text = |name: &Value| name.as_str().map_or_else(|| name.to_string(), Into::into);
    names.map(|names| names.iter().map(text).collect()).unwrap_or_default()
}

/// [`one_vs_all`] of JSON text.
pub(super) fn one_vs_all_of_text(text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|value| one_vs_all(&value))
}

/// Whether CatBoost's training parameters name the loss of one class against all others.
pub(super) fn one_vs_all(params: &Value) -> bool {
    params.pointer("/loss_function/type").is_some_and(|loss| loss == "MultiClassOneVsAll")
}
