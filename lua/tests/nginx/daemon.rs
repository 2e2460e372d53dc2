//! `bliss-service` on the log of an nginx, and `blissctl`.
#![allow(dead_code)] // Not every test uses all of it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::program;

/// The daemon, killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    configuration: PathBuf,
    port: u16,
}

impl Daemon {
    /// Starts it in `home` with `configuration`, beside what it needs to publish to `site`; it keeps nothing, unless that says so.
    pub(crate) fn start(home: &Path, site: &Path, configuration: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = home.join("bliss.toml");
        let common = format!(
            "directory = {site:?}\npublish.interval = \"100ms\"\nadmin.listen = \"127.0.0.1:{port}\"\n{configuration}"
        );
        fs::write(&path, common).unwrap();
        let log = fs::File::create(home.join("daemon.log")).unwrap();
        let mut command = Command::new(program("bliss-service"));
        command.args(["run", "--config"]).arg(&path);
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, configuration: path, port }
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        let log = self.configuration.with_file_name("daemon.log");
        fs::read_to_string(log).unwrap_or_default()
    }

    /// `blissctl` with its configuration.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("blissctl"));
        command.args(arguments).arg("--config").arg(&self.configuration);
        command.arg("--admin").arg(format!("127.0.0.1:{}", self.port)).output().unwrap()
    }

    /// Runs `blissctl`, which must find that the daemon has taken it.
    pub(crate) fn take(&self, arguments: &[&str]) {
        let output = self.ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn end(mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY:
        // - the process is a child of ours that was not waited for, so that the number is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
