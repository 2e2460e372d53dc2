//! What a schema, a feature table, a model, a request and a score are, and how each lies in shared memory.
//!
//! This crate knows no files, sockets, threads or clocks: bytes and the time are arguments. The daemon
//! builds publications with it (cargo feature `build`), web workers read them in place.
//!
//! | module | what it holds |
//! |---|---|
//! | [`schema`] | dimensions, their keys and their features |
//! | [`attribute`] | a request's attributes and their canonical bytes |
//! | [`key`] | the keyed 64-bit hash that names a row |
//! | [`frame`] | how a publication is laid out: header, rkyv metadata, aligned sections |
//! | [`table`] | the feature table of a dimension: one cache miss per lookup |
//! | [`snapshot`] | all tables and their schema as one publication |
//! | [`models`] | compiled models and the routes that use them as one publication |
//! | [`request`], [`plan`], [`score`] | from a request to feature values and a bot score |
//! | [`counters`] | what workers count in memory that they share with the daemon |
//!
//! # Read path
//!
//! Nothing reachable from [`plan::Plan`] allocates, locks, makes a system call or panics; the crate's lints
//! forbid `unwrap`, `expect` and indexing outside tests and outside the `build` modules.

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod attribute;
pub mod counters;
pub mod frame;
pub mod key;
pub mod models;
pub mod plan;
pub mod request;
pub mod schema;
pub mod score;
pub mod snapshot;
pub mod table;
