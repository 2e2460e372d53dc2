//! Benchmarks of BLISS and of its peers, in one run.
//!
//! `cargo run --release -p benches --bin compare -- NAME` measures, one module per NAME:
//!
//! | module | what is measured |
//! |---|---|
//! | [`lookup`] | reading the rows of 12 dimensions for one request |
//! | [`prefixes`] | the longest prefix that an address is in |
//! | [`publish`] | publishing all rows, or a change of some |
//! | [`sync`] | pins, typed reads and writes of the synchronizer alone |
//! | [`ipc`] | messages to another process and back |
//! | [`locks`] | one writer and its readers, by locks and without |
//! | [`score`] | evaluating a model for one row |
//! | [`decide`] | what a policy costs beside the score |
//!
//! [`records`] keeps runs as JSON beside their [`goals`], [`chart`] draws them.
//!
//! Subjects run one after the other on the same data and the same mount, and each frees its memory. Answers are
//! checked, outside the time that is measured. `docs/benchmarks.md` says
//! how it stands.

pub mod chart;
pub mod decide;
pub mod goals;
pub mod ipc;
pub mod locks;
pub mod lookup;
pub mod machine;
pub mod measure;
pub mod peers;
pub mod prefixes;
pub mod process;
pub mod publish;
pub mod records;
pub mod report;
pub mod score;
pub mod sync;
pub mod workload;
