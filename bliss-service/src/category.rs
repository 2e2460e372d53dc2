//! stub
/// A category's hash
pub fn category(_text: &str) -> f32 {
    0.0
}
