//! CTRs: which counts a model needs, and the tables that hold them.

use std::collections::HashMap;

use super::cursor::{Cursor, aligned, count};
use super::flatbuffer::{self, CtrBase, CtrFeature};
use crate::build::import::ctr_kind::kind_of_number;
use crate::build::import::error::ImportError;
use crate::build::import::features::FeatureIndex;
use crate::build::ir::{Counts, Ctr, CtrKind, CtrTable, Element, Model};

/// What identifies a table: the combination of features, what is counted, which binarisation of the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TableId {
    cats: Vec<i32>,
    floats: Vec<(i32, u32)>,
    one_hots: Vec<(i32, i32)>,
    kind: i8,
    classifier: i32,
}

/// The tables that the model's CTRs need, each until it is found.
#[derive(Default)]
pub(super) struct Projections {
    needed: HashMap<TableId, usize>,
    found: Vec<bool>,
}

impl Projections {
    /// Which table of the model it is, if the model needs it; remembers that it was found.
    fn find(&mut self, id: &TableId) -> Result<Option<usize>, ImportError> {
        let Some(&at) = self.needed.get(id) else { return Ok(None) };
        match self.found.get_mut(at) {
            Some(found) if !*found => *found = true,
            _ => return Err(ImportError::corrupt("the CTR tables", format!("{id:?} is there twice"))),
        }
        Ok(Some(at))
    }

    /// Whether every table was found.
    pub(super) fn complete(&self) -> Result<(), ImportError> {
        match self.needed.iter().find(|(_, at)| !self.found.get(**at).copied().unwrap_or(false)) {
            None => Ok(()),
            Some((id, _)) => Err(ImportError::corrupt("the CTR tables", format!("there is none for {id:?}"))),
        }
    }
}

fn table_id(base: Option<CtrBase<'_>>) -> Result<TableId, ImportError> {
    let base = base.ok_or_else(|| ImportError::corrupt("a CTR", "it does not say what it counts"))?;
    let projection = base.projection();
    let projection = projection.ok_or_else(|| ImportError::corrupt("a CTR", "it counts no features"))?;
    Ok(TableId {
        cats: projection.cats().iter().flatten().collect(),
        floats: projection
            .floats()
            .iter()
            .flatten()
            .map(|split| (split.parts().0, split.parts().1.to_bits()))
            .collect(),
        one_hots: projection.one_hots().iter().flatten().map(flatbuffer::OneHotSplit::parts).collect(),
        kind: base.kind().unwrap_or(0),
        classifier: base.classifier().unwrap_or(0),
    })
}

/// The combination of features in the order in which CatBoost hashes it.
fn elements(id: &TableId, model: &Model, index: &FeatureIndex) -> Result<Vec<Element>, ImportError> {
    let mut elements = Vec::new();
    for &cat in &id.cats {
        elements.push(Element::Category(index.cat(count(cat, "the index of a categorical feature")?)?));
    }
    for &(feature, border) in &id.floats {
        let feature = count(feature, "the index of a numeric feature")?;
        elements.push(index.above(model, feature, f32::from_bits(border))?);
    }
    for &(cat, value) in &id.one_hots {
        let cat = index.cat(count(cat, "the index of a one-hot feature")?)?;
        elements.push(Element::Equals(cat, value.cast_unsigned()));
    }
    Ok(elements)
}

/// Reads a CTR of the core; its table comes later.
pub(super) fn read_feature(
    feature: &CtrFeature<'_>,
    model: &mut Model,
    index: &FeatureIndex,
    projections: &mut Projections,
) -> Result<(), ImportError> {
    let ctr = feature.ctr().ok_or_else(|| ImportError::corrupt("a CTR", "it is empty"))?;
    let id = table_id(ctr.base())?;
    let table = match projections.needed.get(&id) {
        Some(&table) => table,
        None => {
            let kind = kind_of_number(id.kind)?;
            let counts = Counts::Means(Vec::new());
            let projection = elements(&id, model, index)?;
            model.ctr_tables.push(CtrTable { projection, kind, keys: Vec::new(), counts });
            projections.found.push(false);
            projections.needed.insert(id, model.ctr_tables.len() - 1);
            model.ctr_tables.len() - 1
        }
    };
    model.ctrs.push(Ctr {
        table,
        target_border: count(ctr.target_border().unwrap_or(0), "a CTR's target border")?,
        prior_numerator: ctr.prior_numerator().unwrap_or(0.0),
        prior_denominator: ctr.prior_denominator().unwrap_or(1.0),
        shift: ctr.shift().unwrap_or(0.0),
        scale: ctr.scale().unwrap_or(1.0),
        borders: feature.borders().iter().flatten().collect(),
    });
    Ok(())
}

/// Marks an empty bucket of CatBoost's hash tables.
const EMPTY: u64 = u64::MAX;

/// Bytes of a bucket: the key, and the index of its counts.
const BUCKET: usize = 12;

/// Reads the part with the tables.
pub(super) fn read_tables(
    rest: &mut Cursor<'_>,
    model: &mut Model,
    projections: &mut Projections,
) -> Result<(), ImportError> {
    let tables = rest.size("the number of CTR tables")?;
    for _ in 0..tables {
        let size = rest.size("the size of a CTR table")?;
        let bytes = aligned(rest.take(size, "a CTR table")?);
        let table = flatbuffer::root::<flatbuffer::CtrTable<'_>>(&bytes)
            .map_err(|e| ImportError::corrupt("a CTR table's flatbuffer", e.to_string()))?;
        let Some(at) = projections.find(&table_id(table.base())?)? else { continue };
        let Some(target) = model.ctr_tables.get_mut(at) else { continue };
        let index = table.index().map(|v| v.bytes()).unwrap_or_default();
        if index.len() % BUCKET != 0 {
            let detail = format!("expected buckets of {BUCKET} bytes, found {} bytes", index.len());
            return Err(ImportError::corrupt("a CTR table", detail));
        }
        for bucket in index.as_chunks::<BUCKET>().0 {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *bucket;
            let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            if key != EMPTY {
                target.keys.push((key, u32::from_le_bytes([i, j, k, l])));
            }
        }
        let blob = table.blob().map(|v| v.bytes()).unwrap_or_default();
        let words = blob.as_chunks::<4>().0.iter().map(|w| i32::from_le_bytes(*w));
        target.counts = match target.kind {
            CtrKind::Borders | CtrKind::Buckets => Counts::Classes {
                classes: count(table.target_classes().unwrap_or(0), "the number of target classes")?,
                counts: words.collect(),
            },
            CtrKind::BinarizedTargetMean | CtrKind::FloatTargetMean => {
                let pairs = blob.as_chunks::<8>().0.iter();
                Counts::Means(pairs.map(|p| mean(*p)).collect())
            }
            CtrKind::Counter | CtrKind::FeatureFrequency => Counts::Totals {
                denominator: table.counter_denominator().unwrap_or(0),
                counts: words.collect(),
            },
        };
    }
    Ok(())
}

fn mean([a, b, c, d, e, f, g, h]: [u8; 8]) -> (f32, i32) {
    (f32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
}
