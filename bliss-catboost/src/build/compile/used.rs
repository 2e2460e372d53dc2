//! Which splits a model uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::ir::{Element as IrElement, Model, Node, Split, Trees};

/// What the trees test, and what the keys of their CTRs test.
#[derive(Default)]
pub(super) struct Used {
    pub(super) floats: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) equals: BTreeSet<(usize, u32)>,
    pub(super) cats: BTreeSet<usize>,
    pub(super) ctrs: BTreeMap<usize, BTreeSet<usize>>,
}

impl Used {
    pub(super) fn of(model: &Model) -> Self {
        let mut used = Self::default();
        match &model.trees {
            Trees::Oblivious(trees) => trees.iter().flat_map(|t| &t.splits).for_each(|s| used.add(model, *s)),
            Trees::NonSymmetric(trees) => {
                for node in trees.iter().flat_map(|t| &t.nodes) {
                    if let Node::Split { split, .. } = node {
                        used.add(model, *split);
                    }
                }
            }
        }
        used
    }

    fn add(&mut self, model: &Model, split: Split) {
        match split {
            Split::Float(float, border) => {
                self.floats.entry(float).or_default().insert(border);
            }
            Split::OneHot(cat, value) => {
                self.cats.insert(cat);
                self.equals.insert((cat, value));
            }
            Split::Ctr(ctr, border) => {
                let first = !self.ctrs.contains_key(&ctr);
                self.ctrs.entry(ctr).or_default().insert(border);
                let table = model.ctrs.get(ctr).and_then(|c| model.ctr_tables.get(c.table));
                for element in table.iter().filter(|_| first).flat_map(|t| &t.projection) {
                    match *element {
                        IrElement::Category(cat) => {
                            self.cats.insert(cat);
                        }
                        IrElement::Above(float, border) => self.add(model, Split::Float(float, border)),
                        IrElement::Equals(cat, value) => self.add(model, Split::OneHot(cat, value)),
                    }
                }
            }
        }
    }
}

/// Distinct borders, and for each index that is used its rank among them (from 1).
pub(super) fn ranks(borders: &[f32], used: &BTreeSet<usize>) -> (Vec<f32>, Vec<(usize, usize)>) {
    let mut distinct: Vec<f32> = Vec::new();
    let mut ranks = Vec::new();
    for &index in used {
        let Some(&border) = borders.get(index) else { continue };
        if distinct.last() != Some(&border) {
            distinct.push(border);
        }
        ranks.push((index, distinct.len()));
    }
    (distinct, ranks)
}
