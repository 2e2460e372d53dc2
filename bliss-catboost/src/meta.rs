//! What a compiled model says about itself.

/// Names and the like, archived by rkyv in the first section of a compiled model.
#[derive(rkyv::Archive, rkyv::Serialize, Clone, Debug, Default)]
pub(crate) struct Meta {
    pub(crate) guid: String,
    pub(crate) class_names: Vec<String>,
    /// Names of the inputs, numbers first.
    pub(crate) inputs: Vec<String>,
}
