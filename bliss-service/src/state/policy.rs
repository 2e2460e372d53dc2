//! What the daemon knows of its policies.

use bliss_core::build::PolicySet;
use jiff::Timestamp;
use serde::Serialize;

use super::{RefusalStatus, State, noted, same};
use crate::policy::overrides::{Off, Overrides, Unusable};
use crate::refusal::{Refusal, without_values};

/// The part `policy` of `/status`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct PolicyStatus {
    published_at: Option<Timestamp>,
    /// The names of the policies in force; every route without one has what comes with BLISS.
    policies: Vec<String>,
    /// When the configuration that they are from was read.
    read_at: Option<Timestamp>,
    /// Why a configuration that was read later is refused; absent once one is accepted.
    refusal: Option<RefusalStatus>,
    /// Options that were changed in the file and that only a restart changes.
    restart_for: Vec<String>,
    /// Since when and why policies do not act; absent while they do.
    off: Option<Off>,
    exceptions: usize,
    /// The revision of the file of exceptions that is in force.
    overrides_revision: u64,
    /// Why the file of exceptions is not used.
    overrides_problem: Option<String>,
}

impl State {
    /// The policies of the configuration are good; `restart_for` names options that wait for a restart.
    pub fn policies_accepted(&self, restart_for: Vec<String>) {
        self.metrics.policy_refused.set(0);
        let mut status = self.lock();
        if !restart_for.is_empty() {
            tracing::warn!(
                "SIGHUP: changes of {} need a restart; policies, their tests and the policies of routes are in force",
                restart_for.join(", ")
            );
        }
        status.policy.read_at = Some(Timestamp::now());
        status.policy.restart_for = restart_for;
        status.policy.refusal = None;
    }

    /// The policies of the configuration are refused.
    pub fn policies_refused(&self, refusal: &Refusal) {
        self.metrics.policy_refused.set(1);
        self.metrics.policy_refusals.inc();
        let mut status = self.lock();
        let policy = &mut status.policy;
        let is_new = !same(policy.refusal.as_ref(), refusal);
        if is_new {
            tracing::error!(
                reason = refusal.reason.name(),
                "policies refused; what was published before stays: {}",
                refusal.message
            );
        }
        policy.refusal = Some(noted(policy.refusal.take(), refusal, is_new));
    }

    /// Policies, exceptions and the switch were published.
    pub fn policies_published(&self, generation: u64, set: &PolicySet, overrides: &Overrides) {
        self.metrics.policies_generation.set(generation as i64);
        self.metrics.policy_off.set(i64::from(set.off));
        self.metrics.policy_exceptions.set(set.exceptions.len() as i64);
        self.found_policies(generation);
        let mut status = self.lock();
        let policy = &mut status.policy;
        policy.published_at = Some(Timestamp::now());
        policy.policies = set.policies.iter().map(|policy| policy.name.clone()).collect();
        policy.off = overrides.off.clone();
        policy.exceptions = set.exceptions.len();
        policy.overrides_revision = overrides.revision;
        tracing::info!(generation, off = set.off, exceptions = set.exceptions.len(), "policies published");
    }

    /// What the file of exceptions says is what is published.
    pub fn overrides_in_force(&self, overrides: &Overrides) {
        let mut status = self.lock();
        status.policy.off.clone_from(&overrides.off);
        status.policy.overrides_revision = overrides.revision;
    }

    /// Why the file of exceptions is not used, if it is not. Logged when that changes.
    pub fn overrides_problem(&self, problem: Option<&Unusable>) {
        let problem = problem.map(ToString::to_string);
        let mut status = self.lock();
        let before = std::mem::replace(&mut status.policy.overrides_problem, problem.clone());
        let is_new = before.as_deref().map(without_values) != problem.as_deref().map(without_values);
        match problem {
            Some(problem) if is_new => {
                tracing::error!("exceptions and the switch stay what they were: {problem}");
            }
            None if is_new => tracing::info!("the file of exceptions is read again"),
            _ => {}
        }
    }
}
