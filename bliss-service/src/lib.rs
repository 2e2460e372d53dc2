//! The BLISS daemon: fetches features and models, validates them and publishes them to shared memory.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | reads and checks `bliss.toml` |
//! | [`origin`] | where features come from: files, web servers, access logs; each a task of its own |
//! | [`decode`] | from bytes to rows, accepted whole or refused whole |
//! | [`crawlers`] | whether clients are the crawlers that they say they are |
//! | [`lists`] | lists of networks: their formats, and several as one table |
//! | [`access_log`] | features from the host's own traffic, as a synchronous library |
//! | [`checkpoint`] | what is kept on disk over a restart or a reboot |
//! | [`model_files`] | from CatBoost's files to published models |
//! | [`policy`] | policies, exceptions and their switch |
//! | [`publish`] | the one thread that publishes |
//! | [`state`], [`metrics`], [`worker_metrics`], [`admin`] | what the daemon knows of itself and of workers, and its pages |
//! | [`drift`] | whether inputs and scores of models still are what they were |
//! | [`refusal`], [`expiry`] | why rows are refused; which rows are too old |
//! | [`export`] | training rows, read as workers read them |
//! | [`score_log`] | what every request of a log would have got |
//! | [`explain_log`] | why a request of a log would have got its score |
//! | [`train`] | a model of the site's own log |
//! | [`check`] | whether a configuration would work on this host |
//! | [`model_tool`] | what is in a model, and what it answers |
//! | [`demo`] | the whole chain on one screen |
//! | [`daemon`], [`cli`], [`logging`] | all of it together, in two programs: `bliss-service` and `blissctl` |

pub mod access_log;
pub mod admin;
mod category;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod crawlers;
pub mod daemon;
pub mod decisions;
pub mod decode;
pub mod demo;
pub mod drift;
pub mod expiry;
pub mod explain;
pub mod export;
mod fingerprint;
pub mod keys;
pub mod lab;
pub mod lists;
pub mod logging;
pub mod metrics;
pub mod model_files;
pub mod model_tool;
pub mod origin;
mod output;
pub mod policy;
pub mod publish;
pub mod refusal;
pub mod score_log;
pub mod state;
pub mod train;
mod why;
pub mod worker_metrics;

/// The model that comes with BLISS, as CatBoost saves it.
pub(crate) const DEFAULT_MODEL: &[u8] = include_bytes!("../../models/default.cbm");

#[cfg(test)]
mod test_support;
