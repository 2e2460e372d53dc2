//! Publishes policies, exceptions and the switch, and again when one of them changes: policies on SIGHUP, the others as soon as their
//! file does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bliss_core::build::PolicySet;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gate::gate;
use super::overrides::{Folder, Overrides, Unusable};
use super::trial::Side;
use super::{Failure, run_tests, set_of};
use crate::config::Config;
use crate::fingerprint::Fingerprint;
use crate::publish::PublishHandle;
use crate::refusal::{Reason, Refusal};
use crate::state::State;

/// How often the file of exceptions is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long to wait before a publication that failed is tried again, in looks.
const RETRY_LOOKS: u32 = 10;

/// A configuration as it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it says.
    pub config: Arc<Config>,
}

/// What the task works with.
pub struct Options {
    /// The configuration that the daemon began with.
    pub loaded: Loaded,
    /// Where exceptions and the switch are kept.
    pub folder: Folder,
    /// Told when the configuration is to be read again.
    pub reload: Arc<Notify>,
    /// Told of the configuration whose policies are in force.
    pub in_force: watch::Sender<Arc<Config>>,
    /// What the daemon knows of itself.
    pub state: Arc<State>,
    /// Where publications go.
    pub publisher: PublishHandle,
    /// Cancelled when the daemon ends.
    pub stop: CancellationToken,
}

/// A configuration whose policies are good.
struct Accepted {
    config: Config,
    /// Options that changed and that only a restart changes.
    waiting: Vec<String>,
}

/// Runs until the daemon ends.
pub async fn run(options: Options) {
    let Options { loaded, folder, reload, in_force, state, publisher, stop } = options;
    let mut policies = match tests_of(&loaded.config) {
        Ok(()) => {
            state.policies_accepted(Vec::new());
            Some(set_of(&loaded.config))
        }
        Err(message) => {
            state.policies_refused(&Refusal::new(Reason::Tests, message));
            None
        }
    };
    let mut looker = Looker { folder, seen: None, began: false };
    let mut overrides = Arc::new(Overrides::default());
    let mut published: Option<PolicySet> = None;
    let mut reading: Option<JoinHandle<Result<Accepted, Refusal>>> = None;
    // Whether something may differ from what is published, and how many looks a failed publication is waited for.
    let (mut is_new, mut wait_looks) = (true, 0_u32);
    loop {
        // Off the threads of the runtime: the folder may be on a slow disk.
        let known = overrides.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let found = looker.look(&known);
            (looker, found)
        });
        match looked.await {
            Ok((back, found)) => {
                looker = back;
                if let Some(found) = found {
                    state.overrides_problem(found.as_ref().err());
                    if let Ok(found) = found {
                        tell(&overrides, &found);
                        overrides = Arc::new(found);
                        is_new = true;
                    }
                }
            }
            Err(error) if error.is_cancelled() => return,
            // It panicked, and is gone with what it knew.
            Err(error) => {
                state.policies_refused(&Refusal::unavailable(format!("exceptions: {error}")));
                return stop.cancelled().await;
            }
        }
        if is_new
            && wait_looks == 0
            && let Some(set) = wanted(policies.as_ref(), &overrides, published.is_some())
        {
            if published.as_ref() == Some(&set) {
                state.overrides_in_force(&overrides);
                is_new = false;
            } else {
                match publisher.publish_policies(set.clone()).await {
                    Ok(generation) => {
                        state.policies_published(generation, &set, &overrides);
                        published = Some(set);
                        is_new = false;
                    }
                    Err(_) if stop.is_cancelled() => return,
                    Err(error) => {
                        state.publish_failed(&format!("policies: {error}"));
                        wait_looks = RETRY_LOOKS;
                    }
                }
            }
        }
        wait_looks = wait_looks.saturating_sub(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            () = reload.notified(), if reading.is_none() => {
                let (path, text, running) = (loaded.path.clone(), loaded.text.clone(), in_force.borrow().clone());
                reading = Some(tokio::task::spawn_blocking(move || read_again(&path, &text, &running)));
            }
            read = finished(&mut reading), if reading.is_some() => {
                reading = None;
                match read {
                    Ok(Ok(accepted)) => {
                        tracing::info!(
                            policies = accepted.config.policies.len(),
                            tests = accepted.config.tests.len(),
                            "SIGHUP: the policies were read again"
                        );
                        state.policies_accepted(accepted.waiting);
                        policies = Some(set_of(&accepted.config));
                        in_force.send_replace(Arc::new(accepted.config));
                        is_new = true;
                    }
                    Ok(Err(refusal)) => state.policies_refused(&refusal),
                    Err(error) => state.policies_refused(&Refusal::unavailable(error.to_string())),
                }
            }
        }
    }
}

async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// What is to be published. Where the policies were refused at the start, what a previous daemon published stays, unless they are
/// switched off.
fn wanted(policies: Option<&PolicySet>, overrides: &Overrides, has_published: bool) -> Option<PolicySet> {
    let off = overrides.off.is_some();
    let policies = match policies {
        Some(policies) => policies.clone(),
        None if off || has_published => PolicySet::default(),
        None => return None,
    };
    Some(PolicySet { off, exceptions: overrides.exceptions(Timestamp::now()), ..policies })
}

/// Says what changed.
fn tell(before: &Overrides, now: &Overrides) {
    match (&before.off, &now.off) {
        (None, Some(off)) => {
            tracing::warn!(reason = off.reason, "policies are switched off: every request is allowed");
        }
        (Some(_), None) => tracing::warn!("policies are switched on again"),
        _ => {}
    }
    if before.exceptions != now.exceptions {
        tracing::info!(exceptions = now.exceptions.len(), "exceptions changed");
    }
}

/// Runs the tests of a configuration; the error has one line for each that fails.
fn tests_of(config: &Config) -> Result<(), String> {
    run_tests(config).map_err(|failures| {
        let lines: Vec<_> = failures.iter().map(Failure::to_string).collect();
        lines.join("\n")
    })
}

fn read_again(path: &Path, running: &str, in_force: &Config) -> Result<Accepted, Refusal> {
    let text =
        Config::read_text(path).map_err(|error| Refusal::new(Reason::Unavailable, error.to_string()))?;
    let config =
        Config::parse(path, &text).map_err(|error| Refusal::new(Reason::Undecodable, error.to_string()))?;
    tests_of(&config).map_err(|message| Refusal::new(Reason::Tests, message))?;
    if set_of(&config) != set_of(in_force) {
        gate(Side::of(&config), Side::of(in_force))?;
    }
    Ok(Accepted { config, waiting: changed(running, &text) })
}

/// The options that differ and that are read at the start only.
fn changed(running: &str, now: &str) -> Vec<String> {
    let (Some(running), Some(now)) = (at_start_only(running), at_start_only(now)) else { return Vec::new() };
    let mut names: Vec<_> = running.keys().chain(now.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| running.get(name) != now.get(name));
    names
}

fn at_start_only(text: &str) -> Option<toml::Table> {
    let mut table: toml::Table = text.parse().ok()?;
    ["policy", "policy_gate", "test"].iter().for_each(|name| drop(table.remove(*name)));
    if let Some(toml::Value::Array(routes)) = table.get_mut("route") {
        for route in routes.iter_mut().filter_map(toml::Value::as_table_mut) {
            route.remove("policy");
        }
        // Those that only had a policy say nothing of models.
        routes.retain(|route| route.get("active").is_some());
        if routes.is_empty() {
            table.remove("route");
        }
    }
    Some(table)
}

/// Looks whether the file of exceptions changed.
struct Looker {
    folder: Folder,
    seen: Option<Fingerprint>,
    began: bool,
}

impl Looker {
    /// What the file says, if it is not what was read last. A damaged one is set aside, and what is `known` goes on.
    fn look(&mut self, known: &Overrides) -> Option<Result<Overrides, Unusable>> {
        let now = self.folder.look();
        let is_same = match &now {
            Some(now) => now.is_still(self.seen.as_ref()),
            None => self.seen.is_none(),
        };
        if is_same && self.began {
            return None;
        }
        (self.seen, self.began) = (now, true);
        let read = self.folder.read();
        let Err(damaged @ Unusable::Damaged { .. }) = read else { return Some(read) };
        let mut told = String::new();
        let changed = self.folder.change(&mut |text| told = text, |overrides| {
            // Begun anew, and not repaired by another program meanwhile.
            if overrides.revision == 0 {
                overrides.clone_from(known);
            }
            Ok(())
        });
        match changed {
            Ok(((), overrides)) => {
                tracing::error!("exceptions: {told}");
                Some(Ok(overrides))
            }
            Err(error) => {
                tracing::error!("exceptions: {error}");
                Some(Err(damaged))
            }
        }
    }
}

#[cfg(test)]
mod tests;
