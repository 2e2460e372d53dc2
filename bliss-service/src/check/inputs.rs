//! Which inputs of a model have a source: a feature of a dimension that an origin fills, an attribute of requests, or a
//! value that only the web server's program can give.

use bliss_catboost::{InputKind, ModelError, ModelRef};
use bliss_core::http::RequestValue;
use bliss_core::request::INPUT_PREFIX;
use bliss_core::schema::{FeatureKind, Schema};
use bliss_core::scorer::OPTIONAL_INPUTS;

use crate::access_log::features::windowed_dimension;
use crate::model_files::Prepared;

/// Inputs that are named in one message.
const SHOWN: usize = 5;

/// The inputs of a model that no feature and no attribute offers.
#[derive(Default)]
pub(super) struct Sources {
    /// What can never have a value, each with the reason.
    missing: Vec<String>,
    /// What has a value only if the program registers it.
    by_program: Vec<String>,
}

impl Sources {
    /// Looks for the source of each input, as a worker does when it binds a model.
    pub(super) fn of(prepared: &Prepared, schema: &Schema) -> Result<Self, ModelError> {
        let mut sources = Self::default();
        for input in ModelRef::open(&prepared.compiled)?.inputs() {
            if let Some(name) = input.name.strip_prefix(INPUT_PREFIX) {
                // An attribute is a category only.
                let attribute = input.kind == InputKind::Category && schema.attribute_kind(name).is_some();
                // What a whole request says by itself is a number.
                let by_itself = input.kind == InputKind::Float && RequestValue::of(name).is_some();
                if !attribute && !by_itself {
                    sources.by_program.push(input.name.to_owned());
                }
            } else if is_optional(input.name, input.kind, schema) {
                // NaN: the model gives a score all the same.
            } else if let Some(reason) = missing_feature(input.name, input.kind, "the model", schema) {
                sources.missing.push(format!("`{}` ({reason})", input.name));
            }
        }
        Ok(sources)
    }

    /// About inputs that make every request unscored.
    pub(super) fn missing(&self) -> Option<String> {
        let list = list(&self.missing)?;
        Some(format!(
            "no origin will ever offer its inputs {list}; train it on the features that there are, or add them"
        ))
    }

    /// About inputs that the web server's program must give.
    pub(super) fn by_program(&self) -> Option<String> {
        let list = list(&self.by_program)?;
        Some(format!(
            "its inputs {list} have a value only where the web server's program registers them \
             (bliss_number_register, bliss_category_register); without that no request is scored"
        ))
    }
}

/// Whether a model does without this input, which the features do not have.
fn is_optional(name: &str, kind: InputKind, schema: &Schema) -> bool {
    kind == InputKind::Float && OPTIONAL_INPUTS.contains(&name) && schema.feature(name).is_none()
}

fn list(names: &[String]) -> Option<String> {
    let shown = names.get(..names.len().min(SHOWN)).filter(|shown| !shown.is_empty())?.join(", ");
    let more = names.len() - names.len().min(SHOWN);
    Some(if more == 0 { shown } else { format!("{shown} and {more} more") })
}

/// Why there is no feature `name` of the kind that `taker` takes; `None` where there is.
pub(crate) fn missing_feature(name: &str, kind: InputKind, taker: &str, schema: &Schema) -> Option<String> {
    let Some((dimension_name, feature_name)) = name.split_once('.') else {
        return Some(format!(
            "not of the form dimension.feature or {INPUT_PREFIX}name; give the columns names in training"
        ));
    };
    let Some(dimension) = schema.dimensions.iter().find(|dimension| dimension.name == dimension_name) else {
        return Some(format!("no origin fills a dimension `{dimension_name}`"));
    };
    let Some(feature) = dimension.features.iter().find(|feature| feature.name == feature_name) else {
        let is_of_window = windowed_dimension(dimension_name)
            .is_some_and(|windowed| windowed.features.iter().any(|feature| feature.name == feature_name));
        let hint = if is_of_window { "; an access log counts it with `windows = true`" } else { "" };
        return Some(format!("dimension `{dimension_name}` has no feature `{feature_name}`{hint}"));
    };
    match (feature.kind, kind) {
        (FeatureKind::F32, InputKind::Float) | (FeatureKind::Category, InputKind::Category) => None,
        (FeatureKind::F32, InputKind::Category) => Some(format!("a number, {taker} takes a category")),
        (FeatureKind::Category, InputKind::Float) => Some(format!("a category, {taker} takes a number")),
    }
}
