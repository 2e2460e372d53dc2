//! Policies: what is done with a request, by rules in a fixed order of stages; the first rule that holds answers.
//!
//! | module | what it holds |
//! |---|---|
//! | `source` (feature `build`) | a policy as an operator writes it |
//! | `compile` (feature `build`) | from there to the archive that workers read in place |
//! | [`compiled`] | that archive, and its checks |
//! | `index` | which rules may hold, found without asking each |
//! | [`decide`] | the decision for one request, without allocation |
//! | [`path`] | paths as they are compared |
//! | [`exceptions`] | what is done with an address, a network or a user agent until a time |
//!
//! They are published by themselves ([`crate::publication::policies`]), and [`crate::scorer`] binds their features and values.

#[cfg(feature = "build")]
pub mod compile;
pub mod compiled;
pub mod decide;
pub mod exceptions;
mod index;
pub mod path;
#[cfg(feature = "build")]
pub mod source;

#[cfg(test)]
mod tests;
