//! `membarrier` between processes: what of it this process can use.

use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

use crate::{Result, errno};

/// Whether [`everywhere`] works.
pub fn available() -> bool {
    membarrier_query().contains_command(MembarrierCommand::GlobalExpedited)
}

/// Makes [`everywhere`] reach this process. Survives `fork`, not `exec`.
pub fn register() -> bool {
    const COMMAND: MembarrierCommand = MembarrierCommand::RegisterGlobalExpedited;
    membarrier_query().contains_command(COMMAND) && membarrier(COMMAND).is_ok()
}

/// Every running thread of every registered process has passed a full barrier when this returns.
pub fn everywhere() -> Result<()> {
    membarrier(MembarrierCommand::GlobalExpedited).map_err(errno)
}
