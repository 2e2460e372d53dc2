//! What was decided, and why: a bounded log of decisions, in JSON lines.
//!
//! Workers write no such log: a decision is a few fields of the web server's own access log. The daemon, which follows that log
//! anyway, picks the requests that were answered otherwise than with what they asked for, and some of the others; explains their
//! scores by what is published at that moment, off every request's path; and writes them to one file of limited size.

mod file;
mod record;
mod show;
mod watch;

pub use file::{DecisionFile, FILE_NAME};
pub use record::{Decision, DimensionRow, Explanation, Input, Simulated};
pub use show::{Options as ShowOptions, run as show};
pub(crate) use show::{Source, plain};
pub use watch::{DecisionCounts, DecisionOptions, LogWatch, Watch};

#[cfg(test)]
pub(crate) use record::tests;
