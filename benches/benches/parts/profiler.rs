//! pprof for Criterion 0.8; what pprof brings itself is for an older Criterion.

use std::path::Path;

use criterion::profiler::Profiler;
use pprof::ProfilerGuard;
use pprof::protos::Message;

/// Samples per second; a number that no timer of the kernel divides.
const FREQUENCY: i32 = 997;

/// Leaves a `profile.pb` per benchmark when Criterion runs with `--profile-time`.
#[derive(Default)]
pub(crate) struct Pprof {
    active: Option<ProfilerGuard<'static>>,
}

impl Profiler for Pprof {
    fn start_profiling(&mut self, benchmark: &str, _folder: &Path) {
        match ProfilerGuard::new(FREQUENCY) {
            Ok(guard) => self.active = Some(guard),
            Err(why) => eprintln!("SKIPPED: the profile of {benchmark} ({why})"),
        }
    }

    fn stop_profiling(&mut self, benchmark: &str, folder: &Path) {
        let Some(active) = self.active.take() else { return };
        let written = || -> anyhow::Result<()> {
            let profile = active.report().build()?.pprof()?;
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("profile.pb"), profile.encode_to_vec())?;
            Ok(())
        };
        if let Err(why) = written() {
            eprintln!("SKIPPED: the profile of {benchmark} ({why:#})");
        }
    }
}
