//! Random models and rows, and an evaluator of their splits of a few lines.

use bliss_catboost::ModelRef;
use bliss_catboost::ir::{
    CatFeature, Counts, Ctr, CtrKind, CtrTable, Element, FloatFeature, Model, NanMode, Node, ObliviousTree,
    Split, Tree, Trees,
};
use proptest::prelude::*;

/// A row: a number per numeric feature, a hash per categorical feature.
pub struct Row {
    pub floats: Vec<f32>,
    pub cats: Vec<u32>,
}

// The evaluator of a few lines.

pub fn above(model: &Model, row: &Row, float: usize, border: usize) -> bool {
    let feature = &model.floats[float];
    let x = match row.floats[float] {
        x if x.is_nan() && feature.nan == NanMode::Largest => f32::INFINITY,
        x => x,
    };
    x > feature.borders[border]
}

pub fn ctr(model: &Model, row: &Row, ctr: &Ctr) -> f32 {
    const M: u64 = 0x4906_ba49_4954_cb65;
    let table = &model.ctr_tables[ctr.table];
    let key = table.projection.iter().fold(0_u64, |h, element| {
        let v = match *element {
            Element::Category(c) => row.cats[c] as i32 as i64 as u64,
            Element::Above(f, b) => u64::from(above(model, row, f, b)),
            Element::Equals(c, v) => u64::from(row.cats[c] == v),
        };
        M.wrapping_mul(h.wrapping_add(M.wrapping_mul(v)))
    });
    let at = table.keys.iter().find(|(k, _)| *k == key).map(|(_, at)| *at as usize);
    let (count, total) = match (&table.counts, at) {
        (Counts::Totals { denominator, counts }, at) => {
            (at.map_or(0, |at| counts[at]) as f32, *denominator as f32)
        }
        (_, None) => (0.0, 0.0),
        (Counts::Means(means), Some(at)) => (means[at].0, means[at].1 as f32),
        (Counts::Classes { classes, counts }, Some(at)) => {
            let own = &counts[at * classes..(at + 1) * classes];
            let good = match table.kind {
                CtrKind::Buckets => own[ctr.target_border],
                _ if *classes == 2 => own[1],
                _ => own[ctr.target_border + 1..].iter().sum(),
            };
            (good as f32, own.iter().sum::<i32>() as f32)
        }
    };
    ((count + ctr.prior_numerator) / (total + ctr.prior_denominator) + ctr.shift) * ctr.scale
}

pub fn holds(model: &Model, row: &Row, split: Split) -> bool {
    match split {
        Split::Float(f, b) => above(model, row, f, b),
        Split::OneHot(c, v) => row.cats[c] == v,
        Split::Ctr(c, b) => ctr(model, row, &model.ctrs[c]) > model.ctrs[c].borders[b],
    }
}

// Random models.

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn number(&mut self) -> f32 {
        const SPECIAL: [f32; 10] =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 1e-45, -1e-45, 1e-39, f32::MAX, f32::MIN];
        match self.below(4) {
            0 => SPECIAL[self.below(SPECIAL.len())],
            1 => self.below(200) as f32 - 100.0,
            _ => (self.next() as u32 as f32 / u32::MAX as f32 - 0.5) * 200.0,
        }
    }

    pub fn borders(&mut self, count: usize) -> Vec<f32> {
        let mut borders: Vec<f32> =
            std::iter::repeat_with(|| self.number()).filter(|b| !b.is_nan()).take(count).collect();
        borders.sort_by(f32::total_cmp);
        borders
    }

    /// Few enough that rows meet them.
    pub fn hash(&mut self) -> u32 {
        [0, 1, 7, 0x8000_0000, u32::MAX, 0x7fc0_0000, 0x7f80_0001][self.below(7)]
    }
}

#[derive(Clone, Debug)]
pub struct Shape {
    pub floats: usize,
    pub borders: usize,
    pub cats: usize,
    pub ctrs: usize,
    pub trees: usize,
    pub depth: usize,
    pub dimensions: usize,
    pub any: bool,
    pub scaled: bool,
    pub seed: u64,
}

pub fn shapes() -> impl Strategy<Value = Shape> {
    let floats = prop_oneof![3 => 0_usize..24, 2 => 24_usize..300, 1 => 300_usize..1400];
    let borders = prop_oneof![4 => 1_usize..20, 1 => 20_usize..900];
    let depth = prop_oneof![6 => 0_usize..8, 2 => 8_usize..12];
    (
        floats,
        borders,
        0_usize..4,
        0_usize..6,
        0_usize..140,
        depth,
        1_usize..5,
        any::<(bool, bool)>(),
        any::<u64>(),
    )
        .prop_map(|(floats, borders, cats, ctrs, trees, depth, dimensions, (any, scaled), seed)| Shape {
            floats,
            borders: if floats > 100 { borders.min(12) } else { borders },
            cats,
            ctrs: if cats == 0 { 0 } else { ctrs },
            trees: if depth > 7 { trees.min(70) } else { trees },
            depth,
            dimensions,
            any,
            scaled,
            seed,
        })
}

pub fn ctr_table(model: &Model, random: &mut Random) -> CtrTable {
    let kinds = [
        CtrKind::Borders,
        CtrKind::Buckets,
        CtrKind::BinarizedTargetMean,
        CtrKind::FloatTargetMean,
        CtrKind::Counter,
        CtrKind::FeatureFrequency,
    ];
    let kind = kinds[random.below(kinds.len())];
    let mut projection = vec![Element::Category(random.below(model.cats.len()))];
    for _ in 0..random.below(3) {
        projection.push(match random.below(3) {
            0 if !model.floats.is_empty() => {
                let float = random.below(model.floats.len());
                Element::Above(float, random.below(model.floats[float].borders.len()))
            }
            1 => Element::Equals(random.below(model.cats.len()), random.hash()),
            _ => Element::Category(random.below(model.cats.len())),
        });
    }
    // Keys of random rows, so that some are met; a few others.
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..random.below(60) {
        keys.insert(random.next());
    }
    for _ in 0..random.below(60) {
        let key = projection.iter().fold(0_u64, |h, element| {
            const M: u64 = 0x4906_ba49_4954_cb65;
            let v = match element {
                Element::Category(_) => random.hash() as i32 as i64 as u64,
                _ => random.next() & 1,
            };
            M.wrapping_mul(h.wrapping_add(M.wrapping_mul(v)))
        });
        keys.insert(key);
    }
    let rows = keys.len().max(1);
    let mut count = || random.below(1000) as i32;
    let counts = match kind {
        CtrKind::Borders | CtrKind::Buckets => {
            let classes = 2 + count() as usize % 4;
            Counts::Classes { classes, counts: (0..rows * classes).map(|_| count()).collect() }
        }
        CtrKind::BinarizedTargetMean | CtrKind::FloatTargetMean => {
            Counts::Means((0..rows).map(|_| (count() as f32 / 7.0, count())).collect())
        }
        CtrKind::Counter | CtrKind::FeatureFrequency => {
            Counts::Totals { denominator: count(), counts: (0..rows).map(|_| count()).collect() }
        }
    };
    let keys = keys.into_iter().enumerate().map(|(at, key)| (key, at as u32)).collect();
    CtrTable { projection, kind, keys, counts }
}

pub fn model(shape: &Shape) -> Model {
    let mut random = Random(shape.seed);
    let mut model = Model { dimensions: shape.dimensions, scale: 1.0, ..Model::default() };
    if shape.scaled {
        model.scale = [1.0, 0.5, -3.0][random.below(3)];
        model.bias = (0..shape.dimensions).map(|_| [0.0, 0.25, -7.125][random.below(3)]).collect();
    }
    for index in 0..shape.floats {
        let count = 1 + random.below(shape.borders);
        let nan = if random.below(2) == 0 { NanMode::Smallest } else { NanMode::Largest };
        let borders = random.borders(count);
        model.floats.push(FloatFeature { index, name: format!("f{index}"), borders, nan });
    }
    for index in 0..shape.cats {
        model.cats.push(CatFeature { index, name: format!("c{index}") });
    }
    for _ in 0..shape.ctrs {
        if model.ctr_tables.is_empty() || random.below(2) == 0 {
            let table = ctr_table(&model, &mut random);
            model.ctr_tables.push(table);
        }
        let table = random.below(model.ctr_tables.len());
        let classes = match &model.ctr_tables[table].counts {
            Counts::Classes { classes, .. } => *classes,
            _ => 1,
        };
        model.ctrs.push(Ctr {
            table,
            target_border: random.below(classes),
            prior_numerator: random.below(4) as f32 / 2.0,
            prior_denominator: random.below(3) as f32,
            shift: random.below(3) as f32 - 1.0,
            scale: [1.0, 15.0, -2.0][random.below(3)],
            borders: {
                let count = 1 + random.below(shape.borders.min(300));
                let mut borders: Vec<f32> = (0..count).map(|_| random.below(3000) as f32 / 100.0).collect();
                borders.sort_by(f32::total_cmp);
                borders
            },
        });
    }
    let split = |random: &mut Random| loop {
        match random.below(4) {
            0 | 1 if shape.floats > 0 => {
                let float = random.below(shape.floats);
                break Split::Float(float, random.below(model.floats[float].borders.len()));
            }
            2 if shape.cats > 0 => break Split::OneHot(random.below(shape.cats), random.hash()),
            3 if shape.ctrs > 0 => {
                let ctr = random.below(shape.ctrs);
                break Split::Ctr(ctr, random.below(model.ctrs[ctr].borders.len()));
            }
            _ => {}
        }
    };
    let depth = if shape.floats + shape.cats == 0 { 0 } else { shape.depth };
    let leaf = |random: &mut Random| random.next() as i32 as f64 / 1e9;
    model.trees = if shape.any {
        let tree = |random: &mut Random| {
            let mut tree = Tree::default();
            // Grows level by level; a node stops with a chance.
            let mut open = vec![(0, 0)];
            let mut at = 0;
            while let Some((_, level)) = open.get(at).copied() {
                if level < depth && random.below(4) > 0 && open.len() < 200 {
                    let left = open.len();
                    open.extend([(left, level + 1), (left + 1, level + 1)]);
                    tree.nodes.push(Node::Split { split: split(random), left, right: left + 1 });
                } else {
                    tree.nodes.push(Node::Leaf(tree.leaves.len()));
                    tree.leaves.extend((0..shape.dimensions).map(|_| leaf(random)));
                }
                at += 1;
            }
            tree
        };
        Trees::NonSymmetric((0..shape.trees).map(|_| tree(&mut random)).collect())
    } else {
        let tree = |random: &mut Random| {
            let depth = if random.below(4) == 0 { random.below(depth + 1) } else { depth };
            ObliviousTree {
                splits: (0..depth).map(|_| split(random)).collect(),
                leaves: (0..shape.dimensions << depth).map(|_| leaf(random)).collect(),
            }
        };
        Trees::Oblivious((0..shape.trees).map(|_| tree(&mut random)).collect())
    };
    model
}

/// A row of special, random and border values.
pub fn row(model: &Model, random: &mut Random) -> Row {
    let floats = model.floats.iter().map(|f| match random.below(3) {
        0 => f.borders[random.below(f.borders.len())],
        _ => random.number(),
    });
    let floats = floats.collect();
    Row { floats, cats: model.cats.iter().map(|_| random.hash()).collect() }
}

/// The values of a row, scattered, with numbers between that no input takes; and where each input is.
pub fn scatter(model: &Model, opened: &ModelRef<'_>, row: &Row, random: &mut Random) -> (Vec<f32>, Vec<u32>) {
    let (floats, cats) = (model.floats.len(), model.cats.len());
    let step = 1 + random.below(3);
    let mut values = vec![f32::NAN; (floats + cats) * step + 1];
    for (at, x) in row.floats.iter().enumerate() {
        values[at * step] = *x;
    }
    for (at, hash) in row.cats.iter().enumerate() {
        values[(floats + at) * step] = f32::from_bits(*hash);
    }
    let column = |name: &str| {
        let index: usize = name[1..].parse().unwrap();
        if name.starts_with('f') { index } else { floats + index }
    };
    (values, opened.inputs().map(|input| (column(input.name) * step) as u32).collect())
}
