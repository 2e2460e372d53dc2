//! Non-symmetric trees: nodes whose two children lie side by side, walked eight trees at a time.

use super::error::{CompileError, narrow};
use super::slots::Slots;
use crate::build::ir::{Node as IrNode, Tree};
use crate::layout::{Node, TRAVERSAL_TREES, Traversal, UNREACHABLE_THRESHOLD};

/// The sections of non-symmetric trees.
#[derive(Default)]
pub(super) struct Compiled {
    pub(super) leaves: Vec<f64>,
    pub(super) nodes: Vec<Node>,
    pub(super) node_leaves: Vec<u32>,
    pub(super) roots: Vec<u32>,
    pub(super) walks: Vec<Traversal>,
    pub(super) weights: Vec<u64>,
}

pub(super) fn compile(
    trees: &[Tree],
    weights: Option<&[Vec<f64>]>,
    dimensions: usize,
    slots: &Slots,
) -> Result<Compiled, CompileError> {
    let mut compiled = Compiled::default();
    let mut depths = Vec::with_capacity(trees.len());
    for (at, tree) in trees.iter().enumerate() {
        let own = weights.and_then(|weights| weights.get(at)).map(Vec::as_slice);
        let depth = compiled.push_tree(tree, own, dimensions, slots)?;
        depths.push((depth, narrow(at, "trees")?));
    }
    // A walk takes as many steps as its deepest tree.
    depths.sort_unstable();
    for group in depths.chunks(TRAVERSAL_TREES) {
        let mut walk = Traversal {
            steps: group.iter().map(|(depth, _)| *depth).max().unwrap_or(0),
            ..Traversal::default()
        };
        for (index, tree) in walk.trees.iter_mut().enumerate() {
            *tree = group.get(index).or(group.first()).map_or(0, |(_, tree)| *tree);
        }
        compiled.walks.push(walk);
    }
    narrow(compiled.nodes.len(), "nodes")?;
    Ok(compiled)
}

impl Compiled {
    fn push_node(&mut self, node: Node) {
        self.nodes.push(node);
        self.node_leaves.push(0);
    }

    /// Adds a tree level by level; gives its depth.
    fn push_tree(
        &mut self,
        tree: &Tree,
        weights: Option<&[f64]>,
        dimensions: usize,
        slots: &Slots,
    ) -> Result<u32, CompileError> {
        let first_implied = tree.nodes.len().saturating_sub(tree.implied);
        self.roots.push(narrow(self.nodes.len(), "nodes")?);
        self.push_node(Node::default());
        let mut level = vec![(self.nodes.len() - 1, 0)];
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (at, node) in level {
                let base = self.nodes.len();
                let (compiled, leaf) = match tree.nodes.get(node) {
                    Some(IrNode::Split { split, left, right }) => {
                        let test = slots.test(*split)?;
                        self.push_node(Node::default());
                        self.push_node(Node::default());
                        next.extend([(base, *left), (base + 1, *right)]);
                        let base = narrow(base, "nodes")?;
                        (Node { base, slot: test.slot, threshold: test.threshold, implied: 0 }, 0)
                    }
                    Some(IrNode::Leaf(value)) => {
                        let first = narrow(self.leaves.len(), "leaf values")?;
                        let values = tree.leaves.get(*value..).and_then(|l| l.get(..dimensions));
                        self.leaves.extend_from_slice(values.unwrap_or_default());
                        if let Some(weights) = weights {
                            let weight = weights.get(value / dimensions).copied().unwrap_or(0.0);
                            self.weights.push(weight.to_bits());
                        }
                        (
                            Node {
                                base: narrow(at, "nodes")?,
                                threshold: UNREACHABLE_THRESHOLD,
                                implied: u8::from(weights.is_some() && node >= first_implied),
                                ..Node::default()
                            },
                            first,
                        )
                    }
                    None => return Err(CompileError::Inconsistent(format!("node {node} is missing"))),
                };
                if let (Some(empty), Some(value)) = (self.nodes.get_mut(at), self.node_leaves.get_mut(at)) {
                    *empty = compiled;
                    *value = leaf;
                }
            }
            if !next.is_empty() {
                depth += 1;
            }
            level = next;
        }
        narrow(self.leaves.len(), "leaf values")?;
        Ok(depth)
    }
}
