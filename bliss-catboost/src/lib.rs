//! CatBoost models, compiled into bytes that are evaluated in place: one row per call, no allocation, no panic,
//! bit-equal to CatBoost's `RawFormulaVal` and `Probability`.
//!
//! The daemon reads CatBoost's file and compiles it (feature `build`); a web worker opens the compiled bytes:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bliss_catboost::{ModelRef, Scratch, compile, import};
//!
//! // Daemon: once per model.
//! let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/models/scale_bias.cbm"))?;
//! let compiled = compile(&import(&file)?)?;
//!
//! // Worker: once per published version.
//! let opened = ModelRef::open(&compiled)?;
//! let mut scratch = Scratch::for_model(&opened);
//! let binding: Vec<u32> = (0..opened.inputs().len() as u32).collect();
//!
//! // Worker: once per request.
//! let values = vec![0.5_f32; binding.len()];
//! let mut raw = [0.0];
//! opened.raw(&values, &binding, &mut scratch, &mut raw)?;
//! let probability = ModelRef::probability(raw[0]);
//! # assert!((0.0..=1.0).contains(&probability));
//! # Ok(())
//! # }
//! ```
//!
//! # How does it work?
//!
//! Each number is *quantised* once: counted against the borders that any tree tests, into a *slot* (a byte). A
//! category that is compared with a value fills a slot with 0 or 1; a CTR's slots come from a table that leads from
//! the key straight to them. Every split is then "slot >= threshold", so that the trees read bytes only. Leaf
//! values are added in tree order, which is what makes the answers bit-equal. `docs/models.md` has the layout.
//!
//! [`Explainer`] says which inputs an answer comes from: exact SHAP values, of models compiled by
//! `compile_explainable`.
//!
//! # Trade-offs
//!
//! - [`ModelRef::open`] reads the whole model (all but the CTR tables' rows); [`ModelRef::open_unchecked`] is for
//!   bytes that were opened before.
//! - One thread per [`Scratch`]; a [`ModelRef`] is `Copy` and may be used by many threads.
//!
//! # Limits
//!
//! - Text and embedding features are refused by name when a file is imported.
//! - Oblivious trees are at most 16 deep; a model has at most 65,536 slots and output dimensions.
//! - Little-endian machines only. One row per call; [`ModelRef::raw_many`] takes several models.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(feature = "build")]
mod build;
pub mod distribution;
mod error;
mod eval;
mod explain;
mod hash;
mod instruction_set;
mod layout;
mod meta;
mod probability;
mod reference;
mod scratch;
mod validate;

#[cfg(feature = "build")]
pub use build::{
    AnswerKind, BotClass, BotError, BotOptions, CompileError, ImportError, compile, compile_explainable,
    import, ir,
};
pub use distribution::DistributionRow;
pub use error::{EvalError, ExplainError, ModelError};
pub use eval::Evaluation;
pub use explain::{BoundedExplainer, Convention, ExplainOptions, ExplainScratch, Explainer};
pub use hash::category_hash;
pub use instruction_set::InstructionSet;
pub use reference::{Input, InputKind, ModelRef};
pub use scratch::Scratch;
