//! The two publications of an installation, as readers see them: [features] and [models], each in a [frame].

pub mod features;
pub mod frame;
pub mod models;
