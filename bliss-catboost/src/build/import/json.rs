//! CatBoost's JSON export. It names features and borders where the `.cbm` counts them.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::ctr_kind::kind_of_name;
use super::error::ImportError;
use super::features::FeatureIndex;
use super::params::Metadata;
use crate::build::ir::{
    CatFeature, Counts, Ctr, CtrKind, CtrTable, Element, FloatFeature, Model, NanMode, Node, ObliviousTree,
    Split, Tree, Trees,
};

/// `null`, a number, or a list: how CatBoost writes lists of none, one or several numbers.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Numbers {
    #[default]
    None,
    One(f64),
    Many(Vec<f64>),
}

impl Numbers {
    fn into_vec(self) -> Vec<f64> {
        match self {
            Self::None => Vec::new(),
            Self::One(number) => vec![number],
            Self::Many(numbers) => numbers,
        }
    }
}

#[derive(Deserialize)]
struct JsonModel {
    #[serde(default)]
    model_info: Value,
    features_info: Features,
    #[serde(default)]
    oblivious_trees: Option<Vec<JsonOblivious>>,
    #[serde(default)]
    trees: Option<Vec<JsonNode>>,
    #[serde(default)]
    scale_and_bias: Option<(f64, Numbers)>,
    #[serde(default)]
    ctr_data: Option<HashMap<String, JsonTable>>,
}

#[derive(Deserialize)]
struct Features {
    #[serde(default)]
    float_features: Option<Vec<JsonFloat>>,
    #[serde(default)]
    categorical_features: Option<Vec<JsonCat>>,
    #[serde(default)]
    ctrs: Option<Vec<JsonCtr>>,
    #[serde(default)]
    text_features: Option<Vec<Value>>,
    #[serde(default)]
    embedding_features: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct JsonFloat {
    feature_index: usize,
    #[serde(default)]
    feature_id: String,
    #[serde(default)]
    borders: Option<Vec<f32>>,
    #[serde(default)]
    has_nans: bool,
    #[serde(default)]
    nan_value_treatment: String,
}

#[derive(Deserialize)]
struct JsonCat {
    feature_index: usize,
    #[serde(default)]
    feature_id: String,
    #[serde(default)]
    values: Option<Vec<i64>>,
}

#[derive(Deserialize)]
struct JsonElement {
    combination_element: String,
    #[serde(default)]
    cat_feature_index: Option<usize>,
    #[serde(default)]
    float_feature_index: Option<usize>,
    #[serde(default)]
    border: Option<f32>,
    #[serde(default)]
    value: Option<i64>,
}

#[derive(Deserialize)]
struct JsonCtr {
    identifier: String,
    #[serde(default)]
    elements: Option<Vec<JsonElement>>,
    ctr_type: String,
    target_border_idx: usize,
    prior_numerator: f32,
    /// Spelt so by CatBoost.
    prior_denomerator: f32,
    shift: f32,
    scale: f32,
    #[serde(default)]
    borders: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct JsonTable {
    hash_map: Vec<Value>,
    hash_stride: usize,
    #[serde(default)]
    counter_denominator: i32,
}

#[derive(Deserialize)]
struct JsonOblivious {
    #[serde(default)]
    leaf_values: Numbers,
    #[serde(default)]
    leaf_weights: Numbers,
    #[serde(default)]
    splits: Option<Vec<JsonSplit>>,
}

#[derive(Deserialize)]
struct JsonSplit {
    split_index: usize,
    #[serde(default)]
    border: Option<f32>,
    #[serde(default)]
    value: Option<i64>,
}

/// A node of a non-symmetric tree; the parser limits how deep they nest.
#[derive(Deserialize)]
struct JsonNode {
    #[serde(default)]
    split: Option<JsonSplit>,
    #[serde(default)]
    left: Option<Box<JsonNode>>,
    #[serde(default)]
    right: Option<Box<JsonNode>>,
    #[serde(default)]
    value: Numbers,
    #[serde(default)]
    weight: Option<f64>,
}

/// Reads a JSON export.
pub(super) fn read(file: &[u8]) -> Result<Model, ImportError> {
    let json: JsonModel =
        serde_json::from_slice(file).map_err(|e| ImportError::corrupt("the JSON export", e.to_string()))?;
    for (features, kind) in
        [(&json.features_info.text_features, "text"), (&json.features_info.embedding_features, "embedding")]
    {
        if let Some(features) = features.as_ref().filter(|f| !f.is_empty()) {
            let what = format!("{kind} features ({} of them)", features.len());
            return Err(ImportError::Unsupported {
                what,
                advice: "train it without text and embedding features",
            });
        }
    }
    let (scale, bias) = json.scale_and_bias.unwrap_or((1.0, Numbers::None));
    let mut model = Model { scale, bias: bias.into_vec(), ..Model::default() };
    if let Some(guid) = json.model_info.get("model_guid").and_then(Value::as_str) {
        model.guid = guid.into();
    }
    let mut metadata = Metadata::default();
    for (key, value) in json.model_info.as_object().into_iter().flatten() {
        metadata.set(key, value)?;
    }
    metadata.describe(&mut model)?;
    let splits = read_features(json.features_info, json.ctr_data.unwrap_or_default(), &mut model)?;
    match (json.oblivious_trees, json.trees) {
        (Some(trees), None) => read_oblivious(trees, &splits, &mut model)?,
        (None, Some(trees)) => read_trees(trees, &splits, &mut model)?,
        (None, None) => model.dimensions = model.bias.len().max(1),
        (Some(_), Some(_)) => {
            return Err(ImportError::corrupt("the JSON export", "it holds both kinds of trees"));
        }
    }
    if model.bias.len() == 1 {
        model.bias = vec![model.bias.first().copied().unwrap_or(0.0); model.dimensions.min(1 << 16)];
    }
    Ok(model)
}

/// Reads all features; gives the splits in the order in which `split_index` counts them.
fn read_features(
    features: Features,
    mut tables: HashMap<String, JsonTable>,
    model: &mut Model,
) -> Result<Vec<Split>, ImportError> {
    let mut splits = Vec::new();
    for (at, feature) in features.float_features.unwrap_or_default().into_iter().enumerate() {
        let borders = feature.borders.unwrap_or_default();
        splits.extend((0..borders.len()).map(|b| Split::Float(at, b)));
        let largest = feature.has_nans && feature.nan_value_treatment == "AsTrue";
        model.floats.push(FloatFeature {
            index: feature.feature_index,
            name: feature.feature_id,
            borders,
            nan: if largest { NanMode::Largest } else { NanMode::Smallest },
        });
    }
    for (at, feature) in features.categorical_features.unwrap_or_default().into_iter().enumerate() {
        model.cats.push(CatFeature { index: feature.feature_index, name: feature.feature_id });
        for value in feature.values.unwrap_or_default() {
            splits.push(Split::OneHot(at, hash(value)?));
        }
    }
    let index = FeatureIndex::of(model);
    let mut known: HashMap<String, usize> = HashMap::new();
    for (at, ctr) in features.ctrs.unwrap_or_default().into_iter().enumerate() {
        let kind = kind_of_name(&ctr.ctr_type)?;
        let table = match known.get(&ctr.identifier) {
            Some(&table) => table,
            None => {
                let json = tables.remove(&ctr.identifier).ok_or_else(|| {
                    ImportError::corrupt("the CTR tables", format!("there is none for {}", ctr.identifier))
                })?;
                let mut projection = Vec::new();
                for element in ctr.elements.unwrap_or_default() {
                    projection.push(read_element(&element, model, &index)?);
                }
                model.ctr_tables.push(read_table(&json, projection, kind)?);
                known.insert(ctr.identifier, model.ctr_tables.len() - 1);
                model.ctr_tables.len() - 1
            }
        };
        let borders = ctr.borders.unwrap_or_default();
        splits.extend((0..borders.len()).map(|b| Split::Ctr(at, b)));
        model.ctrs.push(Ctr {
            table,
            target_border: ctr.target_border_idx,
            prior_numerator: ctr.prior_numerator,
            prior_denominator: ctr.prior_denomerator,
            shift: ctr.shift,
            scale: ctr.scale,
            borders,
        });
    }
    Ok(splits)
}

/// A category's hash, which JSON writes signed.
fn hash(value: i64) -> Result<u32, ImportError> {
    let signed = i32::try_from(value).map(i32::cast_unsigned);
    signed.or_else(|_| u32::try_from(value)).map_err(|_| {
        ImportError::corrupt("a categorical value", format!("expected a hash of 32 bits, found {value}"))
    })
}

fn read_element(
    element: &JsonElement,
    model: &Model,
    features: &FeatureIndex,
) -> Result<Element, ImportError> {
    let missing =
        || ImportError::corrupt("a CTR", format!("element {:?} lacks a field", element.combination_element));
    match element.combination_element.as_str() {
        "cat_feature_value" => {
            Ok(Element::Category(features.cat(element.cat_feature_index.ok_or_else(missing)?)?))
        }
        "float_feature" => {
            let index = element.float_feature_index.ok_or_else(missing)?;
            features.above(model, index, element.border.ok_or_else(missing)?)
        }
        "cat_feature_exact_value" => {
            let cat = features.cat(element.cat_feature_index.ok_or_else(missing)?)?;
            Ok(Element::Equals(cat, hash(element.value.ok_or_else(missing)?)?))
        }
        other => {
            let what = format!("a combination of {other:?}");
            Err(ImportError::Unsupported { what, advice: "save it as .cbm" })
        }
    }
}

/// A table: per key its text and `hash_stride - 1` counts.
fn read_table(json: &JsonTable, projection: Vec<Element>, kind: CtrKind) -> Result<CtrTable, ImportError> {
    let corrupt = |detail: String| ImportError::corrupt("a CTR table", detail);
    if json.hash_stride < 2 {
        return Err(corrupt(format!("expected a stride of 2 or more, found {}", json.hash_stride)));
    }
    let mut keys = Vec::new();
    let mut numbers = Vec::new();
    for entry in json.hash_map.chunks(json.hash_stride) {
        let (Some((key, counts)), true) = (entry.split_first(), entry.len() == json.hash_stride) else {
            return Err(corrupt("its last entry is incomplete".into()));
        };
        let key = key.as_str().and_then(|k| k.parse().ok()).or_else(|| key.as_u64());
        let key: u64 = key.ok_or_else(|| corrupt("a key is no number".into()))?;
        if key == u64::MAX {
            continue; // CatBoost's mark of an empty bucket
        }
        keys.push((key, u32::try_from(keys.len()).map_err(|_| corrupt("it has too many keys".into()))?));
        for count in counts {
            numbers.push(count.as_f64().ok_or_else(|| corrupt("a count is no number".into()))?);
        }
    }
    let whole = |n: &f64| if n.fract() == 0.0 { Some(*n as i32) } else { None };
    let whole_all = |numbers: &[f64]| {
        let counts: Option<Vec<i32>> = numbers.iter().map(whole).collect();
        counts.ok_or_else(|| corrupt("a count is no whole number".into()))
    };
    let counts = match kind {
        CtrKind::Borders | CtrKind::Buckets => {
            Counts::Classes { classes: json.hash_stride - 1, counts: whole_all(&numbers)? }
        }
        CtrKind::Counter | CtrKind::FeatureFrequency => {
            Counts::Totals { denominator: json.counter_denominator, counts: whole_all(&numbers)? }
        }
        CtrKind::BinarizedTargetMean | CtrKind::FloatTargetMean => Counts::Means(
            numbers.as_chunks::<2>().0.iter().map(|[sum, count]| (*sum as f32, *count as i32)).collect(),
        ),
    };
    Ok(CtrTable { projection, kind, keys, counts })
}

/// The split of an index; its border or value, where JSON repeats it, must be the same.
fn resolve(json: &JsonSplit, splits: &[Split], model: &Model) -> Result<Split, ImportError> {
    let corrupt = |detail: String| ImportError::corrupt("a split", detail);
    let split = splits.get(json.split_index).copied();
    let split = split.ok_or_else(|| {
        corrupt(format!("expected a number below {}, found {}", splits.len(), json.split_index))
    })?;
    let same = match (split, json.border, json.value) {
        (Split::Float(f, b), Some(border), _) => {
            model.floats.get(f).and_then(|f| f.borders.get(b)).is_some_and(|own| *own == border)
        }
        (Split::Ctr(c, b), Some(border), _) => {
            model.ctrs.get(c).and_then(|c| c.borders.get(b)).is_some_and(|own| *own == border)
        }
        (Split::OneHot(_, own), _, Some(value)) => own == hash(value)?,
        _ => true,
    };
    if same {
        Ok(split)
    } else {
        Err(corrupt(format!("split_index {} names another border", json.split_index)))
    }
}

fn read_oblivious(trees: Vec<JsonOblivious>, splits: &[Split], model: &mut Model) -> Result<(), ImportError> {
    let mut result = Vec::with_capacity(trees.len());
    model.dimensions = model.bias.len().max(1);
    for (at, json) in trees.into_iter().enumerate() {
        let mut tree = ObliviousTree { leaves: json.leaf_values.into_vec(), ..ObliviousTree::default() };
        for split in json.splits.iter().flatten() {
            tree.splits.push(resolve(split, splits, model)?);
        }
        model.leaf_weights.push(json.leaf_weights.into_vec());
        if at == 0 && tree.splits.len() < usize::BITS as usize {
            model.dimensions = tree.leaves.len() >> tree.splits.len();
        }
        result.push(tree);
    }
    // Of all trees or of none.
    if result.iter().zip(&model.leaf_weights).any(|(tree, weights)| weights.len() != 1 << tree.splits.len()) {
        model.leaf_weights.clear();
    }
    model.trees = Trees::Oblivious(result);
    Ok(())
}

fn read_trees(trees: Vec<JsonNode>, splits: &[Split], model: &mut Model) -> Result<(), ImportError> {
    let mut result = Vec::with_capacity(trees.len());
    let mut dimensions = None;
    for json in trees {
        let mut tree = Tree::default();
        let mut weights = Vec::new();
        // Parents before children: a node is numbered when its parent is read.
        let mut waiting = std::collections::VecDeque::from([json]);
        let mut numbered = 1;
        while let Some(json) = waiting.pop_front() {
            let node = match (json.split, json.left, json.right) {
                (Some(split), Some(left), Some(right)) => {
                    waiting.extend([*left, *right]);
                    numbered += 2;
                    Node::Split {
                        split: resolve(&split, splits, model)?,
                        left: numbered - 2,
                        right: numbered - 1,
                    }
                }
                (None, None, None) => {
                    let values = json.value.into_vec();
                    if *dimensions.get_or_insert(values.len()) != values.len() {
                        return Err(ImportError::corrupt(
                            "a leaf",
                            format!("it has {} values", values.len()),
                        ));
                    }
                    tree.leaves.extend(&values);
                    weights.push(json.weight);
                    Node::Leaf(tree.leaves.len() - values.len())
                }
                _ => {
                    return Err(ImportError::corrupt(
                        "a node",
                        "it is neither a leaf nor a split with two sides",
                    ));
                }
            };
            tree.nodes.push(node);
        }
        result.push(tree);
        model.leaf_weights.extend(weights.into_iter().collect::<Option<Vec<f64>>>());
    }
    if model.leaf_weights.len() != result.len() {
        model.leaf_weights.clear();
    }
    model.dimensions = dimensions.unwrap_or(model.bias.len().max(1));
    model.trees = Trees::NonSymmetric(result);
    Ok(())
}
