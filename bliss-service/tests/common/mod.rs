//! What tests of the running daemon have in common.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const BINARY: &str = env!("CARGO_BIN_EXE_bliss-service");

/// What every configuration here begins with; the system gives the port.
pub const COMMON: &str = "directory = \"shm\"\npublish.interval = \"100ms\"\nadmin.listen = \"127.0.0.1:0\"\ncheckpoint.directory = \"state\"\n";

pub mod dns;

/// A daemon, stopped by the test that started it.
pub struct Daemon {
    pub child: Child,
    pub port: u16,
    /// What it said on standard error so far.
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts it and waits until its log says on which port its pages answer.
    pub fn start(directory: &Path, config: &str) -> Self {
        let path = directory.join("bliss.toml");
        fs::write(&path, format!("{COMMON}{config}")).unwrap();
        Self::start_with(&mut command(&path))
    }

    /// The same with a command that names a configuration already.
    pub fn start_with(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let port = log.find_map(|line| {
            said.push(line.unwrap());
            said.last()?.split_once("admin=127.0.0.1:")?.1.split(' ').next()?.parse().ok()
        });
        // The pipe must be read, or the daemon would block on it.
        let Some(port) = port else { panic!("the daemon ended: {said:?} {:?}", child.wait()) };
        let said = Arc::new(Mutex::new(said));
        let kept = said.clone();
        std::thread::spawn(move || {
            log.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line))
        });
        Self { child, port, log: said }
    }

    /// Lines of its log from line `from` on that contain `part`.
    pub fn said(&self, from: usize, part: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().skip(from).filter(|line| line.contains(part)).cloned().collect()
    }

    pub fn get(&self, page: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/status").unwrap().1).unwrap()
    }

    /// Waits until `done`; the limit is only there so that a failing test ends.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..1500 {
            if done(self) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended while waiting for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("gave up waiting for {what}: {:?}", self.get("/status"));
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(mut self) -> ExitStatus {
        // SAFETY:
        // - the process is our child and has not been waited for, so its id is still its own
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(config: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["run", "--config"]).arg(config).env_remove("BLISS_LOG").stderr(Stdio::null());
    command
}

/// Runs it to its end; returns its exit status and its log.
pub fn run(config: &Path) -> (ExitStatus, String) {
    let output = command(config).stderr(Stdio::piped()).output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// On a tmpfs where there is one, as in production.
pub fn directory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub fn replace(directory: &Path, name: &str, text: &str) {
    let new = directory.join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, directory.join(name)).unwrap();
}

/// `bliss-scorer`, which is another package's program, so that Cargo does not say where it is.
pub fn scorer() -> PathBuf {
    let service = Path::new(env!("CARGO_BIN_EXE_bliss-service"));
    let folder = service.parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--package", "bliss-ffi", "--bin", "bliss-scorer"]);
    cargo.arg("--target-dir").arg(folder.parent().unwrap());
    let profile = folder.file_name().unwrap().to_str().unwrap();
    if profile != "debug" {
        cargo.args(["--profile", profile]);
    }
    assert!(cargo.status().unwrap().success(), "{cargo:?}");
    folder.join("bliss-scorer")
}
