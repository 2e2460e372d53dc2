//! The `.cbm` file: `"CBM1"`, the size of the core, the core (a flatbuffer), then the parts that it names.

mod ctr;
mod cursor;
mod flatbuffer;

use super::error::ImportError;
use super::features::FeatureIndex;
use super::params::Metadata;
use crate::build::ir::{
    CatFeature, FloatFeature, MAX_DEPTH, Model, NanMode, Node, ObliviousTree, Split, Tree, Trees,
};
use cursor::{Cursor, aligned, count};
use flatbuffer::{ModelCore, ModelTrees};

/// What a `.cbm` file starts with.
pub(super) const MAGIC: &[u8] = b"CBM1";

/// Versions of the core that are read (the first is spelt so by CatBoost).
const FORMATS: [&str; 1] = ["FlabuffersModel_v1"];

/// The part with the CTR tables.
const CTR_PART: &str = "static_provider_v1";

/// Reads a `.cbm` file.
pub(super) fn read(file: &[u8]) -> Result<Model, ImportError> {
    let mut rest = Cursor(file);
    rest.take(MAGIC.len() as u64, "the magic number")?;
    let size = rest.size("the size of the core")?;
    let core_bytes = aligned(rest.take(size, "the core")?);
    let core = flatbuffer::root::<ModelCore<'_>>(&core_bytes)
        .map_err(|e| ImportError::corrupt("the core's flatbuffer", e.to_string()))?;
    let format = core.format_version().unwrap_or_default();
    if !FORMATS.contains(&format) {
        let what = format!("the core format {format:?} (known: {FORMATS:?})");
        return Err(ImportError::Unsupported { what, advice: "train it with CatBoost 0.20 or later" });
    }
    let trees = core.trees().ok_or_else(|| ImportError::corrupt("the core", "it holds no trees"))?;
    refuse_unsupported(&trees)?;

    let mut model = Model::default();
    let mut metadata = Metadata::default();
    for line in core.info().iter().flatten() {
        match (line.key().unwrap_or_default(), line.value().unwrap_or_default()) {
            ("model_guid", guid) => model.guid = guid.into(),
            (key, text) => metadata.set(key, &text.into())?,
        }
    }
    metadata.describe(&mut model)?;
    model.dimensions = count(trees.dimensions().unwrap_or(0), "the number of output dimensions")?;
    model.scale = trees.scale().unwrap_or(1.0);
    model.bias = match trees.multi_bias() {
        Some(bias) if !bias.is_empty() => bias.iter().collect(),
        _ => vec![trees.bias().unwrap_or(0.0); model.dimensions.min(1 << 16)],
    };
    read_features(&trees, &mut model)?;
    let index = FeatureIndex::of(&model);
    let mut projections = ctr::Projections::default();
    for feature in trees.ctrs().iter().flatten() {
        ctr::read_feature(&feature, &mut model, &index, &mut projections)?;
    }
    let splits = split_table(&trees, &model, &index)?;
    let weights = leaf_weights(&trees, model.dimensions);
    if trees.steps().is_some_and(|s| !s.is_empty()) {
        let (read, weights) = read_trees(&trees, &splits, &weights, model.dimensions)?;
        (model.trees, model.leaf_weights) = (Trees::NonSymmetric(read), weights);
    } else {
        let read = read_oblivious(&trees, &splits, model.dimensions)?;
        model.leaf_weights = weights_of_trees(&read, &weights);
        model.trees = Trees::Oblivious(read);
    }

    for part in core.parts().iter().flatten() {
        if part != CTR_PART {
            let what = format!("the model part {part:?}");
            return Err(ImportError::Unsupported {
                what,
                advice: "train without text and embedding features",
            });
        }
        ctr::read_tables(&mut rest, &mut model, &mut projections)?;
    }
    projections.complete()?;
    Ok(model)
}

/// Refuses text and embedding features, by name.
fn refuse_unsupported(trees: &ModelTrees<'_>) -> Result<(), ImportError> {
    let mut texts = Vec::new();
    for feature in trees.texts().iter().flatten().filter(|f| f.used().unwrap_or(true)) {
        texts.push(name_or_column(feature.id(), feature.flat_index()));
    }
    if !texts.is_empty() {
        let what = format!("text features ({})", texts.join(", "));
        return Err(ImportError::Unsupported { what, advice: "train it without text_features" });
    }
    let mut embeddings = Vec::new();
    for feature in trees.embeddings().iter().flatten().filter(|f| f.used().unwrap_or(true)) {
        embeddings.push(name_or_column(feature.id(), feature.flat_index()));
    }
    if !embeddings.is_empty() {
        let what = format!("embedding features ({})", embeddings.join(", "));
        return Err(ImportError::Unsupported { what, advice: "train it without embedding_features" });
    }
    if trees.estimated().is_some_and(|e| !e.is_empty()) {
        let what = "features estimated from text or embedding features".into();
        return Err(ImportError::Unsupported {
            what,
            advice: "train it without text and embedding features",
        });
    }
    Ok(())
}

fn name_or_column(id: Option<&str>, flat_index: Option<i32>) -> String {
    match id {
        Some(id) if !id.is_empty() => format!("{id:?}"),
        _ => format!("column {}", flat_index.unwrap_or(-1)),
    }
}

fn read_features(trees: &ModelTrees<'_>, model: &mut Model) -> Result<(), ImportError> {
    for feature in trees.floats().iter().flatten() {
        // AsIs and AsFalse (minus infinity) both exceed no border.
        let largest = feature.has_nans().unwrap_or(false) && feature.nan_treatment() == Some(2);
        model.floats.push(FloatFeature {
            index: count(feature.index().unwrap_or(-1), "the index of a numeric feature")?,
            name: feature.id().unwrap_or_default().into(),
            borders: feature.borders().iter().flatten().collect(),
            nan: if largest { NanMode::Largest } else { NanMode::Smallest },
        });
    }
    for feature in trees.cats().iter().flatten() {
        model.cats.push(CatFeature {
            index: count(feature.index().unwrap_or(-1), "the index of a categorical feature")?,
            name: feature.id().unwrap_or_default().into(),
        });
    }
    Ok(())
}

/// All splits in the order that `TreeSplits` counts them.
fn split_table(
    trees: &ModelTrees<'_>,
    model: &Model,
    index: &FeatureIndex,
) -> Result<Vec<Split>, ImportError> {
    let mut splits = Vec::new();
    for (f, feature) in model.floats.iter().enumerate() {
        splits.extend((0..feature.borders.len()).map(|b| Split::Float(f, b)));
    }
    for feature in trees.one_hots().iter().flatten() {
        let cat = index.cat(count(feature.index().unwrap_or(-1), "the index of a one-hot feature")?)?;
        splits.extend(feature.values().iter().flatten().map(|v| Split::OneHot(cat, v.cast_unsigned())));
    }
    for (c, ctr) in model.ctrs.iter().enumerate() {
        splits.extend((0..ctr.borders.len()).map(|b| Split::Ctr(c, b)));
    }
    Ok(splits)
}

/// Splits of one tree after the other, checked to follow each other without a gap.
struct TreeSlices<'a> {
    sizes: flatbuffers::Vector<'a, i32>,
    starts: flatbuffers::Vector<'a, i32>,
}

fn tree_slices<'a>(trees: &ModelTrees<'a>) -> Result<Option<TreeSlices<'a>>, ImportError> {
    match (trees.sizes(), trees.starts()) {
        (Some(sizes), Some(starts)) if sizes.len() == starts.len() => Ok(Some(TreeSlices { sizes, starts })),
        (None, None) => Ok(None),
        (sizes, starts) => {
            let found = (sizes.map(|s| s.len()), starts.map(|s| s.len()));
            Err(ImportError::corrupt(
                "the trees",
                format!("as many sizes as offsets expected, found {found:?}"),
            ))
        }
    }
}

impl TreeSlices<'_> {
    fn ranges(&self) -> impl Iterator<Item = Result<std::ops::Range<usize>, ImportError>> {
        let mut end = 0_usize;
        self.sizes.iter().zip(self.starts.iter()).map(move |(size, start)| {
            let start = count(start, "a tree's offset")?;
            if start != end {
                return Err(ImportError::corrupt(
                    "a tree's offset",
                    format!("expected {end}, found {start}"),
                ));
            }
            end = start.saturating_add(count(size, "a tree's size")?);
            Ok(start..end)
        })
    }
}

fn read_oblivious(
    trees: &ModelTrees<'_>,
    table: &[Split],
    dimensions: usize,
) -> Result<Vec<ObliviousTree>, ImportError> {
    let Some(slices) = tree_slices(trees)? else { return Ok(Vec::new()) };
    let splits: Vec<i32> = trees.splits().iter().flatten().collect();
    let leaves: Vec<f64> = trees.leaves().iter().flatten().collect();
    let mut leaves = leaves.as_slice();
    let mut result = Vec::with_capacity(slices.sizes.len());
    for range in slices.ranges() {
        let own =
            splits.get(range?).ok_or_else(|| ImportError::corrupt("a tree", "its splits are missing"))?;
        if own.len() > MAX_DEPTH {
            let detail = format!("expected a depth of at most {MAX_DEPTH}, found {}", own.len());
            return Err(ImportError::corrupt("a tree", detail));
        }
        let values = leaves.split_at_checked(dimensions.saturating_mul(1 << own.len()));
        let (values, rest) =
            values.ok_or_else(|| ImportError::corrupt("a tree", "its leaf values are missing"))?;
        leaves = rest;
        result.push(ObliviousTree { splits: resolve(own, table)?, leaves: values.to_vec() });
    }
    if !leaves.is_empty() {
        return Err(ImportError::corrupt("the leaf values", format!("{} belong to no tree", leaves.len())));
    }
    Ok(result)
}

/// The weights of all leaves; none where there is not one per leaf. Scores do not need them.
fn leaf_weights(trees: &ModelTrees<'_>, dimensions: usize) -> Vec<f64> {
    let weights: Vec<f64> = trees.weights().iter().flatten().collect();
    let values = trees.leaves().map_or(0, |leaves| leaves.len());
    if weights.len().saturating_mul(dimensions) == values { weights } else { Vec::new() }
}

/// Per tree the weights of its leaves.
fn weights_of_trees(trees: &[ObliviousTree], mut weights: &[f64]) -> Vec<Vec<f64>> {
    let mut result = Vec::new();
    for tree in trees {
        let Some((own, rest)) = weights.split_at_checked(1 << tree.splits.len()) else { return Vec::new() };
        weights = rest;
        result.push(own.to_vec());
    }
    result
}

fn resolve(splits: &[i32], table: &[Split]) -> Result<Vec<Split>, ImportError> {
    splits.iter().map(|s| resolve_one(*s, table)).collect()
}

fn resolve_one(split: i32, table: &[Split]) -> Result<Split, ImportError> {
    let found = usize::try_from(split).ok().and_then(|s| table.get(s));
    found.copied().ok_or_else(|| {
        ImportError::corrupt("a split", format!("expected a number below {}, found {split}", table.len()))
    })
}

/// The trees, and per tree the weights of its leaves where the file has them.
fn read_trees(
    trees: &ModelTrees<'_>,
    table: &[Split],
    weights: &[f64],
    dimensions: usize,
) -> Result<(Vec<Tree>, Vec<Vec<f64>>), ImportError> {
    let Some(slices) = tree_slices(trees)? else { return Ok(Default::default()) };
    let splits: Vec<i32> = trees.splits().iter().flatten().collect();
    let steps: Vec<(u16, u16)> = trees.steps().iter().flatten().map(flatbuffer::StepNode::diffs).collect();
    let ids: Vec<u32> = trees.node_leaves().iter().flatten().collect();
    let leaves: Vec<f64> = trees.leaves().iter().flatten().collect();
    let mut result = Vec::with_capacity(slices.sizes.len());
    let mut result_weights = Vec::new();
    for range in slices.ranges() {
        let range = range?;
        let (Some(splits), Some(steps), Some(ids)) =
            (splits.get(range.clone()), steps.get(range.clone()), ids.get(range))
        else {
            return Err(ImportError::corrupt("a tree", "its nodes are missing"));
        };
        let (tree, own) = read_tree(splits, steps, ids, (&leaves, weights), table, dimensions)?;
        result.push(tree);
        if !weights.is_empty() {
            result_weights.push(own);
        }
    }
    Ok((result, result_weights))
}

/// One non-symmetric tree, and the weights of its leaves: a difference of 0 ends at the node itself.
fn read_tree(
    splits: &[i32],
    steps: &[(u16, u16)],
    ids: &[u32],
    (values, weights): (&[f64], &[f64]),
    table: &[Split],
    dimensions: usize,
) -> Result<(Tree, Vec<f64>), ImportError> {
    let mut tree = Tree::default();
    let mut ends = Vec::new();
    let mut own_weights = Vec::new();
    let mut leaf = |tree: &mut Tree, at: usize| -> Result<Node, ImportError> {
        let first = ids.get(at).map_or(usize::MAX, |id| *id as usize);
        let own = values.get(first..).and_then(|v| v.get(..dimensions));
        let own = own.ok_or_else(|| {
            ImportError::corrupt("a leaf", format!("value {first} of {} is missing", values.len()))
        })?;
        tree.leaves.extend_from_slice(own);
        own_weights.push(weights.get(first / dimensions.max(1)).copied().unwrap_or(0.0));
        Ok(Node::Leaf(tree.leaves.len() - dimensions))
    };
    for (at, (&(left, right), &split)) in steps.iter().zip(splits).enumerate() {
        let node = if left == 0 && right == 0 {
            leaf(&mut tree, at)?
        } else {
            let mut child = |tree: &mut Tree, diff: u16| {
                if diff > 0 {
                    return Ok(at + usize::from(diff));
                }
                ends.push(leaf(tree, at)?);
                Ok(steps.len() + ends.len() - 1)
            };
            let (left, right) = (child(&mut tree, left)?, child(&mut tree, right)?);
            Node::Split { split: resolve_one(split, table)?, left, right }
        };
        tree.nodes.push(node);
    }
    tree.implied = ends.len();
    tree.nodes.append(&mut ends);
    Ok((tree, own_weights))
}
