//! What a model's file says about its training.

use serde_json::Value;

use super::error::ImportError;
use crate::build::distribution::ENTRY;
use crate::build::ir::{Distribution, Model};

/// Metadata of a file by its name: text in a `.cbm`, text or an object in a JSON export.
#[derive(Default)]
pub(super) struct Metadata {
    class_params: Option<Value>,
    params: Option<Value>,
    loss_function: Option<Value>,
    distribution: Option<Distribution>,
}

impl Metadata {
    /// Takes an entry, if it is one that says something about losses, classes or the reference distribution.
    pub(super) fn set(&mut self, name: &str, value: &Value) -> Result<(), ImportError> {
        if let (ENTRY, Value::String(text)) = (name, value) {
            self.distribution =
                Distribution::read(text).map_err(|detail| ImportError::corrupt(ENTRY, detail))?;
            return Ok(());
        }
        let (what, entry) = match name {
            "class_params" => ("class_params", &mut self.class_params),
            "params" => ("params", &mut self.params),
            // Of models that were summed, whose `params` are empty.
            "loss_function" => ("loss_function", &mut self.loss_function),
            _ => return Ok(()),
        };
        *entry = match value {
            Value::String(text) if text.trim().is_empty() => None,
            // A loss may be a plain name.
            Value::String(text) if name == "loss_function" && !text.trim_start().starts_with('{') => {
                Some(value.clone())
            }
            Value::String(text) => {
                Some(serde_json::from_str(text).map_err(|e| ImportError::corrupt(what, e.to_string()))?)
            }
            Value::Null => None,
            value => Some(value.clone()),
        };
        Ok(())
    }

    /// Writes the loss, the names of the classes and the reference distribution to the model.
    pub(super) fn describe(&mut self, model: &mut Model) -> Result<(), ImportError> {
        model.distribution = self.distribution.take();
        let trained = self.params.as_ref();
        let loss = self.loss_function.as_ref().or_else(|| trained?.get("loss_function"));
        model.loss = loss.map(loss_name).transpose()?.unwrap_or_default();
        model.answer = super::super::bot::answer_of_loss(&model.loss).unwrap_or_default();
        let of_classes = self.class_params.as_ref().and_then(|params| params.get("class_names"));
        let of_training = || trained?.pointer("/data_processing_options/class_names");
        model.class_names = match of_classes.or_else(of_training) {
            Some(names) => class_names(names)?,
            None => Vec::new(),
        };
        Ok(())
    }
}

/// A loss's name, without its parameters: of `{"type":"Quantile","params":{…}}`, or of `Quantile:alpha=0.9`.
fn loss_name(loss: &Value) -> Result<String, ImportError> {
    let name = loss.get("type").unwrap_or(loss).as_str();
    let name = name.and_then(|name| name.split(':').next()).map(str::trim);
    // It is repeated in messages.
    let fits = |name: &&str| (1..=128).contains(&name.len()) && !name.contains(char::is_control);
    name.filter(fits).map(Into::into).ok_or_else(|| {
        ImportError::corrupt(
            "loss_function",
            "expected the name of a loss, of 1 to 128 bytes, found something else",
        )
    })
}

/// Names of classes as text, whatever their type in the training data: `0`, `0.5`, `true`, `bot`.
fn class_names(names: &Value) -> Result<Vec<String>, ImportError> {
    let text = |name: &Value| match name {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        // As whole numbers are written, `1` and not `1.0`.
        Value::Number(number) if number.is_f64() => number.as_f64().map(|number| number.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let found = match names {
        Value::Null => Some(Vec::new()),
        names => names.as_array().and_then(|names| names.iter().map(text).collect()),
    };
    found.ok_or_else(|| {
        ImportError::corrupt("class_names", "expected a list of strings, numbers or truth values")
    })
}
