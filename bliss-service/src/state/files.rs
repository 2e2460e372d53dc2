//! Whether the published files are in place.

use std::path::Path;
use std::time::{Duration, Instant};

use bliss_store::missing_files;
use jiff::Timestamp;
use serde::Serialize;

use super::{State, Status};
use crate::refusal::without_values;

/// Files that somebody removes again and again are in the log no more often than this.
const QUIET: Duration = Duration::from_secs(60);

/// The part `files` of `/status`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Files {
    /// Names of files that are missing at this moment; they are made again within a second.
    missing: Vec<String>,
    /// Why files that were removed or replaced cannot be made again.
    failure: Option<String>,
    made_again: u64,
    made_again_at: Option<Timestamp>,
    /// Files that could not be given the configured group or mode, and why.
    permissions: Vec<String>,
    /// Whether the directory is on a file system in memory; not known if absent.
    in_memory: Option<bool>,
    /// The directory is that of this process.
    #[serde(skip)]
    is_open: bool,
    #[serde(skip)]
    logged: Option<Instant>,
}

impl Status {
    /// Names of files that are missing at this moment.
    pub(super) fn missing_files(&self) -> Vec<String> {
        if !self.files.is_open {
            return Vec::new();
        }
        let generations = [self.features.generation, self.models_generation, self.policies_generation];
        missing_files(Path::new(&self.directory), generations)
    }

    pub(super) fn look_for_files(&mut self) {
        self.files.missing = self.missing_files();
    }

    /// Why readers that start now do not find what was published, if they do not; or, with `counts`, cannot count.
    pub(super) fn files_ready(&self, counts: bool) -> Result<(), String> {
        if let Some(failure) = &self.files.failure {
            return Err(format!("published files are gone and cannot be made again: {failure}"));
        }
        let missing = self.missing_files().into_iter().filter(|name| counts || name != bliss_store::METRICS);
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "missing in {}: {}; they are made again within a second",
            self.directory,
            missing.join(", ")
        ))
    }

    pub(super) fn files_have_failed(&self) -> bool {
        self.files.failure.is_some()
    }
}

impl State {
    /// The directory is open: from now on its files are looked for. Logs what is wrong with it that can be lived with:
    /// `permissions` are the files that could not be given the configured group or mode.
    pub fn opened(&self, permissions: Vec<String>, in_memory: Option<bool>) {
        let mut status = self.lock();
        for refused in &permissions {
            tracing::warn!(
                "{refused}. It is used as it is; a publication that needs a new file will fail, and workers that may not read \
                 these files have no scores"
            );
        }
        if in_memory == Some(false) {
            tracing::warn!(
                "directory {}: it is not on a tmpfs, so that workers may wait for a disk; use a directory below /run, or \
                 mount a tmpfs there",
                status.directory
            );
        }
        status.files.permissions = permissions;
        status.files.in_memory = in_memory;
        status.files.is_open = true;
    }

    /// Names of published files that are missing at this moment.
    pub fn missing_files(&self) -> Vec<String> {
        self.lock().missing_files()
    }

    /// Files that had been removed or replaced, those named `missing` and perhaps others, are there again.
    pub fn files_made_again(&self, missing: &[String]) {
        self.metrics.files_made_again.inc();
        let mut status = self.lock();
        let directory = status.directory.clone();
        let files = &mut status.files;
        files.made_again += 1;
        files.made_again_at = Some(Timestamp::now());
        // The end of a failure is in the log as that.
        if files.failure.is_some() || files.logged.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        files.logged = Some(Instant::now());
        let what = if missing.is_empty() { "replaced".to_owned() } else { missing.join(", ") };
        tracing::warn!(
            times = files.made_again,
            "published files in {directory} were removed or replaced by somebody ({what}) and have been published again; \
             see who removes them, for instance RemoveIPC of logind or a rule of tmpfiles"
        );
    }

    /// Files that were removed or replaced cannot be made again. Logged when it begins or its kind changes.
    pub fn files_failed(&self, error: &str) {
        let mut status = self.lock();
        let before = status.files.failure.replace(error.to_owned());
        if before.is_none_or(|before| without_values(&before) != without_values(error)) {
            tracing::error!(
                "published files were removed or replaced, and cannot be made again; it is tried twice a second, and workers \
                 that have them go on: {error}"
            );
        }
    }

    /// All files are in place.
    pub fn files_in_place(&self) {
        if self.lock().files.failure.take().is_some() {
            tracing::info!("the published files are in place again");
        }
    }
}
