//! A model as it was trained, in plain collections: what [`import`](super::import) reads and
//! [`compile`](super::compile) turns into the form that is evaluated.

pub use super::distribution::{Bins, Distribution, InputBins};

/// A trained model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// CatBoost's identifier of the model; empty where the file has none.
    pub guid: String,
    /// Names of the classes in order of the output dimensions (for two classes: 0, then 1).
    pub class_names: Vec<String>,
    /// CatBoost's name of the loss, without parameters; empty where the file has none.
    pub loss: String,
    /// From values to probabilities; [`select_bot`](Self::select_bot) decides it.
    pub answer: AnswerForm,
    /// Values per row: 1, or the number of classes or targets.
    pub dimensions: usize,
    /// The sum over the trees is multiplied by this.
    pub scale: f64,
    /// Then this is added, one per dimension (empty: zeros).
    pub bias: Vec<f64>,
    /// Numeric features, in the file's order.
    pub floats: Vec<FloatFeature>,
    /// Categorical features, in the file's order.
    pub cats: Vec<CatFeature>,
    /// CTRs.
    pub ctrs: Vec<Ctr>,
    /// The tables that CTRs look up.
    pub ctr_tables: Vec<CtrTable>,
    /// The trees.
    pub trees: Trees,
    /// Per tree the weight of each leaf: how much of the training data came there, in the order of the tree's `leaves`. Empty
    /// where the file has none; only [`compile_explainable`](super::compile_explainable) needs them.
    pub leaf_weights: Vec<Vec<f64>>,
    /// What inputs and scores were in training; `None` where the file does not say.
    pub distribution: Option<Distribution>,
}

/// From the values of a row to probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerForm {
    /// One value is the log-odds of class 1 of two; of several the softmax is taken.
    #[default]
    Classes,
    /// Each value is the log-odds of a class or label for itself, so that probabilities do not add up to 1.
    EachSigmoid,
    /// The values are probabilities; one value is that of class 1 of two.
    Probabilities,
}

/// What becomes of NaN in a numeric feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanMode {
    /// Compares false with every border (also CatBoost's "Min": minus infinity exceeds no border either).
    #[default]
    Smallest,
    /// Plus infinity (CatBoost's "Max").
    Largest,
}

/// A numeric feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatFeature {
    /// Position among the numeric features of the training data.
    pub index: usize,
    /// Name, or empty.
    pub name: String,
    /// Ascending borders; a split tests `x > border`.
    pub borders: Vec<f32>,
    /// What becomes of NaN.
    pub nan: NanMode,
}

/// A categorical feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatFeature {
    /// Position among the categorical features of the training data.
    pub index: usize,
    /// Name, or empty.
    pub name: String,
}

/// What a CTR counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtrKind {
    /// Share of the rows above a target border.
    Borders,
    /// Share of the rows in a target bucket.
    Buckets,
    /// Mean of the binarised target.
    BinarizedTargetMean,
    /// Mean of the target.
    FloatTargetMean,
    /// Share of the rows with this key, against the largest.
    Counter,
    /// Share of the rows with this key.
    FeatureFrequency,
}

/// A number made from the counts of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Ctr {
    /// Its table, an index of [`Model::ctr_tables`].
    pub table: usize,
    /// Which target border or bucket.
    pub target_border: usize,
    /// Added to the count.
    pub prior_numerator: f32,
    /// Added to the total.
    pub prior_denominator: f32,
    /// Added to the quotient.
    pub shift: f32,
    /// Multiplied at last.
    pub scale: f32,
    /// Ascending borders; a split tests `ctr > border`.
    pub borders: Vec<f32>,
}

/// One feature of the combination that makes a CTR's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// The hash of a category: an index of [`Model::cats`].
    Category(usize),
    /// Whether a number exceeds a border: an index of [`Model::floats`], the border's index.
    Above(usize, usize),
    /// Whether a category has a value: an index of [`Model::cats`], the value's hash.
    Equals(usize, u32),
}

/// What a key's counts are.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// Per key `classes` counts in a row.
    Classes {
        /// Counts per key.
        classes: usize,
        /// All counts.
        counts: Vec<i32>,
    },
    /// Per key a sum and a number of rows.
    Means(Vec<(f32, i32)>),
    /// Per key a number of rows.
    Totals {
        /// The total that every key is divided by.
        denominator: i32,
        /// All counts.
        counts: Vec<i32>,
    },
}

/// The counts of one combination of features.
#[derive(Clone, Debug, PartialEq)]
pub struct CtrTable {
    /// What makes the key, in hashing order.
    pub projection: Vec<Element>,
    /// What is counted.
    pub kind: CtrKind,
    /// Keys and the index of their counts.
    pub keys: Vec<(u64, u32)>,
    /// The counts.
    pub counts: Counts,
}

/// A test that sends a row to the right (true) or to the left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// `x > border`: an index of [`Model::floats`], the border's index.
    Float(usize, usize),
    /// The category equals: an index of [`Model::cats`], the value's hash.
    OneHot(usize, u32),
    /// `ctr > border`: an index of [`Model::ctrs`], the border's index.
    Ctr(usize, usize),
}

/// A tree that tests the same split in all nodes of a level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObliviousTree {
    /// Split of each level: split d sets bit d of the leaf's index.
    pub splits: Vec<Split>,
    /// `dimensions` values per leaf, `2^splits` leaves.
    pub leaves: Vec<f64>,
}

/// A node of a non-symmetric tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// Continues at one of two nodes of the same tree.
    Split {
        /// The test.
        split: Split,
        /// The next node where the test is false.
        left: usize,
        /// The next node where the test is true.
        right: usize,
    },
    /// Ends: index of the first of `dimensions` values in the tree's `leaves`.
    Leaf(usize),
}

/// A non-symmetric tree; node 0 is its root.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Its nodes, children behind their parents.
    pub nodes: Vec<Node>,
    /// Values of its leaves.
    pub leaves: Vec<f64>,
    /// How many of the nodes, the last ones, are leaves that a `.cbm` file keeps in their parent. CatBoost's own explanations
    /// treat them in another way ([`Convention::CatBoost`](crate::Convention::CatBoost)).
    pub implied: usize,
}

/// The trees of a model, in the order in which they are summed.
#[derive(Clone, Debug, PartialEq)]
pub enum Trees {
    /// Trees with one split per level.
    Oblivious(Vec<ObliviousTree>),
    /// Non-symmetric trees (Lossguide, Depthwise).
    NonSymmetric(Vec<Tree>),
}

impl Default for Trees {
    fn default() -> Self {
        Self::Oblivious(Vec::new())
    }
}

impl Trees {
    /// Number of trees.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Oblivious(trees) => trees.len(),
            Self::NonSymmetric(trees) => trees.len(),
        }
    }

    /// Whether there is no tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Depth of the deepest tree.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Oblivious(trees) => trees.iter().map(|t| t.splits.len()).max().unwrap_or(0),
            Self::NonSymmetric(trees) => {
                trees.iter().map(|t| t.depths().into_iter().max().unwrap_or(0)).max().unwrap_or(0)
            }
        }
    }
}

impl Tree {
    /// Depth of each node (0 for the root, and for nodes that nothing leads to).
    pub(crate) fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            if let Node::Split { left, right, .. } = *node {
                let depth = depths.get(at).copied().unwrap_or(0) + 1;
                for child in [left, right] {
                    if let Some(d) = depths.get_mut(child) {
                        *d = depth;
                    }
                }
            }
        }
        depths
    }
}

/// Depth that an oblivious tree may have; CatBoost's own limit.
pub(crate) const MAX_DEPTH: usize = 16;

impl Model {
    /// Checks that every index leads somewhere and that borders ascend: what `compile` relies on.
    pub(crate) fn check(&self) -> Result<(), String> {
        let dimensions = self.dimensions;
        if dimensions == 0 || dimensions > 1 << 16 {
            return Err(format!("expected 1 to 65536 output dimensions, found {dimensions}"));
        }
        if !self.bias.is_empty() && self.bias.len() != dimensions {
            return Err(format!("expected a bias per dimension ({dimensions}), found {}", self.bias.len()));
        }
        for feature in &self.floats {
            ascending(&feature.borders, "numeric feature", feature.index)?;
        }
        for (i, ctr) in self.ctrs.iter().enumerate() {
            ascending(&ctr.borders, "CTR", i)?;
            let table = self.ctr_tables.get(ctr.table).ok_or_else(|| format!("CTR {i} has no table"))?;
            if let Counts::Classes { classes, .. } = &table.counts {
                // With two classes CatBoost looks at the second one whatever the border says.
                let fixed = table.kind == CtrKind::Borders && *classes == 2;
                if ctr.target_border >= *classes && !fixed {
                    return Err(format!(
                        "CTR {i}: expected a target border below {classes}, found {}",
                        ctr.target_border
                    ));
                }
            }
        }
        for (i, table) in self.ctr_tables.iter().enumerate() {
            self.check_table(table).map_err(|e| format!("CTR table {i}: {e}"))?;
        }
        self.distribution.as_ref().map_or(Ok(()), Distribution::check)?;
        match &self.trees {
            Trees::Oblivious(trees) => {
                for (t, tree) in trees.iter().enumerate() {
                    self.check_oblivious(tree).map_err(|e| format!("tree {t}: {e}"))?;
                }
            }
            Trees::NonSymmetric(trees) => {
                for (t, tree) in trees.iter().enumerate() {
                    self.check_tree(tree).map_err(|e| format!("tree {t}: {e}"))?;
                }
            }
        }
        Ok(())
    }

    fn check_table(&self, table: &CtrTable) -> Result<(), String> {
        for element in &table.projection {
            let known = match *element {
                Element::Category(cat) | Element::Equals(cat, _) => cat < self.cats.len(),
                Element::Above(float, border) => {
                    self.floats.get(float).is_some_and(|f| border < f.borders.len())
                }
            };
            if !known {
                return Err(format!("{element:?} is not a feature of the model"));
            }
        }
        let (fits, rows) = match (&table.counts, table.kind) {
            (Counts::Classes { classes, counts }, CtrKind::Borders | CtrKind::Buckets) => {
                let enough = if table.kind == CtrKind::Borders { *classes >= 2 } else { *classes >= 1 };
                (enough, if *classes == 0 { 0 } else { counts.len() / classes })
            }
            (Counts::Means(means), CtrKind::BinarizedTargetMean | CtrKind::FloatTargetMean) => {
                (true, means.len())
            }
            (Counts::Totals { counts, .. }, CtrKind::Counter | CtrKind::FeatureFrequency) => {
                (true, counts.len())
            }
            _ => (false, 0),
        };
        if !fits {
            return Err(format!("its counts are not those of a {:?} CTR", table.kind));
        }
        match table.keys.iter().find(|(_, row)| *row as usize >= rows) {
            Some((_, row)) => Err(format!("a key leads to row {row} of {rows}")),
            None => Ok(()),
        }
    }

    fn check_split(&self, split: Split) -> Result<(), String> {
        let known = match split {
            Split::Float(float, border) => self.floats.get(float).is_some_and(|f| border < f.borders.len()),
            Split::OneHot(cat, _) => cat < self.cats.len(),
            Split::Ctr(ctr, border) => self.ctrs.get(ctr).is_some_and(|c| border < c.borders.len()),
        };
        if known { Ok(()) } else { Err(format!("{split:?} is not a split of the model's features")) }
    }

    fn check_oblivious(&self, tree: &ObliviousTree) -> Result<(), String> {
        let depth = tree.splits.len();
        if depth > MAX_DEPTH {
            return Err(format!("expected a depth of at most {MAX_DEPTH}, found {depth}"));
        }
        tree.splits.iter().try_for_each(|s| self.check_split(*s))?;
        let expected = self.dimensions << depth;
        if tree.leaves.len() != expected {
            return Err(format!("expected {expected} leaf values, found {}", tree.leaves.len()));
        }
        Ok(())
    }

    fn check_tree(&self, tree: &Tree) -> Result<(), String> {
        if tree.nodes.is_empty() {
            return Err("expected a root, found no node".into());
        }
        let mut parents = vec![0_u8; tree.nodes.len()];
        for (at, node) in tree.nodes.iter().enumerate() {
            match *node {
                Node::Leaf(value) => {
                    if value.checked_add(self.dimensions).is_none_or(|end| end > tree.leaves.len()) {
                        return Err(format!("node {at}: leaf value {value} of {}", tree.leaves.len()));
                    }
                }
                Node::Split { split, left, right } => {
                    self.check_split(split)?;
                    for child in [left, right] {
                        // Children behind parents: no loop. One parent each: no blow-up when compiled.
                        let seen = parents.get_mut(child).filter(|seen| child > at && **seen == 0);
                        *seen.ok_or_else(|| {
                            format!("node {at} continues at node {child}, which is not its child")
                        })? = 1;
                    }
                }
            }
        }
        Ok(())
    }
}

fn ascending(borders: &[f32], what: &str, index: usize) -> Result<(), String> {
    if borders.iter().any(|b| b.is_nan()) {
        return Err(format!("{what} {index}: a border is NaN"));
    }
    match borders.windows(2).find(|w| w.first() > w.last()) {
        Some(w) => Err(format!("{what} {index}: borders must ascend, found {w:?}")),
        None => Ok(()),
    }
}
