//! From CatBoost's files to the compiled form: what a daemon needs and a web worker must not carry.

mod bot;
mod compile;
mod distribution;
mod import;
pub mod ir;

pub use bot::{AnswerKind, BotClass, BotError, BotOptions};
pub use compile::{CompileError, compile, compile_explainable};
pub use import::{ImportError, import};
