//! Policies: what is done with a request, by rules in a fixed order of stages; the first rule that holds answers.
//!
//! | module | what it holds |
//! |---|---|
//! | `source` (feature `build`) | a policy as an operator writes it |
//! | `compile` (feature `build`) | from there to the archive that workers read in place |
//! | [`compiled`] | that archive, and its checks |
//! | [`decide`] | the decision for one request, without allocation |
//!
//! Not here yet: exceptions of operators, publication with the models, and binding of features to the vector of values.

#[cfg(feature = "build")]
pub mod compile;
pub mod compiled;
pub mod decide;
#[cfg(feature = "build")]
pub mod source;

#[cfg(test)]
mod tests;
