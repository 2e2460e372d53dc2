//! Categories as a column holds them.

/// CatBoost's hash of a category, as the bits of an `f32`.
pub(crate) fn category(text: &str) -> f32 {
    f32::from_bits(bliss_catboost::category_hash(text.as_bytes()))
}
