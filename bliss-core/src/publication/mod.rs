//! The three publications of an installation, as readers see them: [features], [models] and [policies], each in a [frame].

pub mod features;
pub mod frame;
pub mod models;
pub mod policies;
