//! Inter-request features from the host's own access log.
//!
//! Three steps, each a plain synchronous library in which time is an argument:
//!
//! 1. [`parse`] turns a line into a [`Record`](parse::Record); [`follow`] finds new lines of a live file through
//!    rotation, and [`replay`] reads a finished file by the log's own clock.
//! 2. [`Aggregator`](aggregate::Aggregator) counts records in sliding [`windows`], per dimension and key.
//! 3. [`Aggregator::tick`](aggregate::Aggregator::tick) returns the rows that changed since the previous tick, as
//!    [`features`] names them.
//!
//! # The clock
//!
//! Publication T holds exactly the requests with a time before T; a request at time t reads the last publication
//! with T ≤ t. A request therefore never counts itself, nor another of the same publication interval, and a model
//! trained on a replay sees in production what it saw in training.

pub mod aggregate;
mod built_in;
mod distinct;
pub mod features;
pub mod follow;
pub mod health;
pub mod intake;
mod memory;
pub mod parse;
mod population;
pub mod replay;
mod saved;
pub mod site;
pub mod windows;
