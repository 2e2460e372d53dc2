//! Building publications: what a daemon needs and a web worker must not carry.

mod features;
mod frame;
mod models;
mod policies;
pub(crate) mod prefixes;
mod table;

pub use features::{
    Change, DimensionChange, FeaturesBuilder, FeaturesError, SpaceBudget, TableRelocation, apply_in_place,
    schema_id,
};
pub use models::{ModelSet, NamedModel, NamedRoute};
pub use policies::{BUILT_IN_POLICY, Exception, PoliciesError, PolicySet, Subject};
pub use prefixes::{BuiltPrefixes, PrefixRows, PrefixTableBuilder, PrefixesError};
pub use table::{BuildJob, Column, Rows, Source, TableMut, Target, build, build_jobs, finish};
