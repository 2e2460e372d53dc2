//! Policies, from the operator's side.
//!
//! | module | what it does |
//! |---|---|
//! | [`case`](TestCase) | tests of policies, as a configuration has them |
//! | [`overrides`] | exceptions and the switch, in a file that outlives the daemon |
//! | [`control`] | `blissctl allow`, `deny`, `challenge`, `exceptions`, `forget`, `off` and `on` |
//! | [`task`] | publishes all of it, and again when something changes |
//! | [`trial`] | what a policy would have done with the requests of a log |
//! | `gate` | whether policies or models may take the place of those in force |

mod case;
pub mod control;
pub(crate) mod gate;
pub mod overrides;
pub mod task;
pub mod trial;

use bliss_core::build::{PoliciesError, PolicySet};
use bliss_core::policy::source::Action;
use bliss_core::publication::frame::FrameError;
use bliss_core::publication::policies::PoliciesRef;

pub use case::{Failure, TestCase, Told};

use crate::config::Config;

/// What a reloaded policy may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// The share of clients that it may act against where the one before did not.
    pub max_newly_blocked_share: f64,
    /// The hours of the log that are asked; 0: none.
    pub hours: u32,
}

impl Default for Gate {
    fn default() -> Self {
        Self { max_newly_blocked_share: 0.02, hours: 0 }
    }
}

/// The policies of `config` without exceptions, switched on.
pub fn set_of(config: &Config) -> PolicySet {
    let Config { policies, policy_routes, .. } = config;
    PolicySet { policies: policies.clone(), routes: policy_routes.clone(), ..PolicySet::default() }
}

/// Runs the tests of `config`.
///
/// # Errors
/// The policies cannot be packed, or each test that fails.
pub fn run_tests(config: &Config) -> Result<(), Vec<Failure>> {
    if config.tests.is_empty() {
        return Ok(());
    }
    let whole = |message: String| vec![Failure { test: String::new(), line: 0, message }];
    let packed = set_of(config).pack().map_err(|error: PoliciesError| whole(error.to_string()))?;
    let policies = PoliciesRef::open(&packed).map_err(|error: FrameError| whole(error.to_string()))?;
    let failures: Vec<_> = config.tests.iter().filter_map(|test| test.run(policies).err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// An action as a configuration writes it.
pub(crate) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Observe => "observe",
        Action::Tag => "tag",
        Action::RateLimitKey => "rate_limit_key",
        Action::Challenge => "challenge",
        Action::Block => "block",
    }
}
