//! From CatBoost's files to the compiled form: what a daemon needs and a web worker must not carry.

mod compile;
mod import;
pub mod ir;

pub use compile::{CompileError, compile};
pub use import::{ImportError, import};
