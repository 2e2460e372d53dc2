//! stub
/// rows
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// k
    pub keys: Vec<u64>,
    /// u
    pub updated_at: Vec<u32>,
    /// v
    pub values: Vec<f32>,
}
impl Rows {
    /// new
    pub fn new(_width: usize) -> Self {
        Self::default()
    }
    /// e
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
/// change
#[derive(Debug, Clone, PartialEq)]
pub struct DimensionChange {
    /// d
    pub dimension: usize,
    /// c
    pub rows: RowsChange,
}
/// change
#[derive(Debug, Clone, PartialEq)]
pub enum RowsChange {
    /// r
    Replace(Rows),
    /// p
    Patch {
        /// u
        upserts: Rows,
        /// d
        deletes: Vec<u64>,
    },
}
impl DimensionChange {
    pub(crate) fn replace(dimension: usize, rows: Rows) -> Self {
        Self { dimension, rows: RowsChange::Replace(rows) }
    }
    pub(crate) fn patch(dimension: usize, upserts: Rows, deletes: Vec<u64>) -> Self {
        Self { dimension, rows: RowsChange::Patch { upserts, deletes } }
    }
}
/// c
pub fn category(_text: &str) -> f32 {
    0.0
}
