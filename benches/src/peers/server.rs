//! A server process that lives as long as its benchmark.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Kills its process when dropped.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Server {
    /// Starts a server and connects to its socket. `None` where the program is not installed.
    ///
    /// # Errors
    /// Where it cannot be started, or ends, or does not listen within ten seconds.
    pub(super) fn start(mut command: Command, socket: &Path) -> anyhow::Result<Option<(Self, UnixStream)>> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut server = match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => Self(other.with_context(|| format!("starting {program}"))?),
        };
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(stream) = UnixStream::connect(socket) {
                return Ok(Some((server, stream)));
            }
            if let Some(status) = server.0.try_wait()? {
                anyhow::bail!("{program} ended by itself: {status}");
            }
            anyhow::ensure!(Instant::now() < end, "{program} does not listen on {}", socket.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
