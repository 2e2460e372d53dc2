//! Schemas, feature tables, requests and scores: their layout in shared memory, and the read path.
//!
//! This crate knows no files, sockets, threads or clocks: bytes and the time are arguments. Web workers read publications
//! in place; the daemon builds them with the module `build` (cargo feature `build`).
//!
//! | module | what it holds |
//! |---|---|
//! | [`schema`] | dimensions, their keys and their features |
//! | [`attribute`] | a request's attributes and their canonical bytes |
//! | [`http`] | from what a web server knows of a request to attributes |
//! | [`key`] | the keyed 64-bit hash that names a row |
//! | [`table`] | the feature table of a dimension: one cache miss per lookup |
//! | [`prefixes`] | networks of addresses: the longest prefix that matches |
//! | [`publication`] | the two publications, features and models, and the frame around them |
//! | [`request`], [`scorer`], [`score`] | from a request to feature values and a bot score |
//! | [`pass`] | what a client that passed a challenge brings with its next requests |
//! | [`policy`] | what is done with a request, and which rule says so |
//! | [`metrics`] | what workers count in memory that they share with the daemon |
//! | `build` | making publications, and changing them in place |
//!
//! Start with [`Scorer`](scorer::Scorer), [`Schema`](schema::Schema) and [`KeyBuilder`](key::KeyBuilder), or with
//! `examples/score_request.rs`, which goes from rows and a model to a score.
//!
//! # Read path
//!
//! Nothing reachable from [`scorer::Scorer`] allocates, locks, makes a system call or panics; the crate's lints forbid
//! `unwrap`, `expect` and indexing outside tests and outside `build`.

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod attribute;
#[cfg(feature = "build")]
pub mod build;
pub mod http;
pub mod key;
pub mod metrics;
mod name;
pub mod pass;
pub mod policy;
pub mod prefixes;
pub mod publication;
pub mod request;
pub mod schema;
pub mod score;
pub mod scorer;
pub mod table;
