//! nginx with the configuration of `examples/nginx`, in a directory of its own.
#![allow(dead_code)] // Not every test uses all of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{installed, library, skipped, wait_until};

/// A running nginx, stopped when it is dropped.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

/// An answer: its status, headers in lower case, and body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The value of a header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value =
            |line: &'_ str| line.split_once(':').filter(|(n, _)| *n == name).map(|(n, _)| n.len() + 1);
        self.head.lines().find_map(|line| value(line).map(|at| line[at..].trim())).unwrap_or_default()
    }

    pub(crate) fn score(&self) -> Option<u8> {
        self.header("x-bot-score").parse().ok()
    }
}

pub(crate) fn is_root() -> bool {
    // SAFETY:
    // - has no conditions.
    unsafe { libc::geteuid() == 0 }
}

/// Whether nginx and its Lua module are here; says so if they are not.
pub(crate) fn can_run() -> bool {
    if !installed("nginx") {
        return false;
    }
    let module = Path::new("/usr/lib/nginx/modules/ngx_http_lua_module.so").exists();
    if !module {
        skipped("nginx's Lua module is not installed (libnginx-mod-http-lua)");
    }
    module
}

/// What a test changes in the example's configuration.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Where features are published.
    pub(crate) site: &'a Path,
    /// More directives for the http block.
    pub(crate) http: &'a str,
    /// More directives for the server.
    pub(crate) server: &'a str,
    /// Whether bliss.conf is included.
    pub(crate) include: bool,
    /// Without what needs bliss.conf: the log's format and answers that tell what was found.
    pub(crate) plain: bool,
    /// In place of the server's location.
    pub(crate) location: Option<&'a str>,
    /// What the example's `init` is called with after the directory.
    pub(crate) options: &'a str,
    /// Lua that is run before `init`.
    pub(crate) lua: &'a str,
    /// The directive for the workers' user.
    pub(crate) user: Option<&'a str>,
    /// libblissffi, if it is installed.
    pub(crate) library: Option<&'a Path>,
    /// In place of the answer that nobody passed a challenge.
    pub(crate) verifier: Option<&'a str>,
}

impl<'a> Setup<'a> {
    /// Two workers on the features in `site`. Route `strict` blocks below 50, `lenient` below 2, `all` whatever has a score.
    pub(crate) fn new(site: &'a Path) -> Self {
        Self {
            site,
            http: "",
            server: "",
            include: true,
            plain: false,
            location: None,
            options: "block_below = { default = 0, strict = 50, lenient = 2, all = 100 },",
            lua: "",
            user: None,
            library: Some(&library().shared),
            verifier: None,
        }
    }

    pub(crate) fn start(&self) -> Nginx {
        Nginx::start_with(self)
    }

    /// What `nginx` says when it does not start.
    pub(crate) fn refused(&self) -> String {
        let directory = lay_out(self);
        let path = directory.path();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write_configuration(path, self, address);
        let mut child = spawn(path);
        let mut status = None;
        wait_until("nginx to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert!(!status.unwrap().success());
        fs::read_to_string(path.join("logs/error.log")).unwrap_or_default()
    }
}

/// A directory with all that nginx needs but its configuration.
fn lay_out(setup: &Setup<'_>) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("bliss-nginx-").tempdir().unwrap();
    let path = directory.path();
    // Workers may be another user.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let root = path.join("html");
    for folder in ["html", "html/folder", "logs", "lib", "tmp", "lua", "lua/resty", "lua/resty/bliss"] {
        fs::create_dir(path.join(folder)).unwrap();
    }
    for page in ["index.html", "folder/index.html", "blocked.html", "404.html"] {
        fs::write(root.join(page), format!("hello from {page}\n")).unwrap();
    }
    // Debian's module configuration names them relative to the prefix.
    std::os::unix::fs::symlink("/usr/lib/nginx/modules", path.join("modules")).unwrap();
    // Copied, since other users may not be able to look into the sources.
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (from, to) in [
        ("../examples/nginx/bot_score.lua", "lua/bot_score.lua"),
        ("lib/resty/bliss.lua", "lua/resty/bliss.lua"),
        ("lib/resty/bliss/cdefs.lua", "lua/resty/bliss/cdefs.lua"),
    ] {
        fs::copy(crate_dir.join(from), path.join(to)).unwrap();
    }
    if let Some(library) = setup.library {
        fs::copy(library, path.join("lib/libblissffi.so.0")).unwrap();
    }
    directory
}

impl Nginx {
    /// Starts it with two workers on the features in `site`; in `extra` are more directives for the server.
    pub(crate) fn start(site: &Path, extra: &str) -> Self {
        Setup { server: extra, ..Setup::new(site) }.start()
    }

    /// Starts it as an administrator would: the workers belong to Debian's user www-data. For root only.
    pub(crate) fn start_as_www_data(site: &Path) -> Self {
        Setup { user: Some("user www-data;"), ..Setup::new(site) }.start()
    }

    /// Starts it where libblissffi is not installed.
    pub(crate) fn start_without_library(site: &Path) -> Self {
        Setup { library: None, ..Setup::new(site) }.start()
    }

    fn start_with(setup: &Setup<'_>) -> Self {
        let directory = lay_out(setup);
        let path = directory.path();
        loop {
            // The port is free at this moment; somebody may take it before nginx does.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            write_configuration(path, setup, address);
            let mut child = spawn(path);
            let mut ended = None;
            wait_until("nginx", || {
                ended = child.try_wait().unwrap();
                ended.is_some() || TcpStream::connect(address).is_ok()
            });
            let Some(status) = ended else { return Self { child, address, directory } };
            let said = fs::read_to_string(path.join("logs/error.log")).unwrap_or_default();
            assert!(said.contains("Address already in use"), "nginx ended with {status}: {said}");
            fs::remove_file(path.join("logs/error.log")).unwrap();
        }
    }

    pub(crate) fn error_log(&self) -> String {
        fs::read_to_string(self.directory.path().join("logs/error.log")).unwrap_or_default()
    }

    pub(crate) fn access_log_path(&self) -> PathBuf {
        self.directory.path().join("logs/access.log")
    }

    pub(crate) fn access_log(&self) -> String {
        fs::read_to_string(self.access_log_path()).unwrap_or_default()
    }

    /// What `nginx -s reload` does.
    pub(crate) fn reload(&self) {
        self.signal(libc::SIGHUP);
    }

    fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY:
        // - the process is a child of ours that was not waited for, so that the number is its own.
        unsafe { libc::kill(pid, signal) };
    }

    /// One request on a connection of its own, from `client`.
    pub(crate) fn get(&self, path: &str, client: &str) -> std::io::Result<Reply> {
        let agent = "User-Agent: curl/8\r\n";
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nX-Client: {client}\r\n{agent}Connection: close\r\n\r\n"
        );
        self.send(request.as_bytes())
    }

    /// One request to the server for people of this host, in a version of HTTP that has no chunks.
    pub(crate) fn ask_people(&self, target: &str) -> Reply {
        let stream = UnixStream::connect(self.directory.path().join("people.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!("GET {target} HTTP/1.0\r\nHost: test\r\n\r\n");
        exchange(stream, request.as_bytes()).unwrap()
    }

    /// One request as it is, on a connection of its own, which it must ask to be closed.
    pub(crate) fn send(&self, request: &[u8]) -> std::io::Result<Reply> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        exchange(stream, request)
    }

    /// [`Self::get`] where nothing can go wrong.
    pub(crate) fn ask(&self, client: &str) -> Reply {
        let reply = self.get("/", client).unwrap();
        assert_eq!(reply.status, 200, "{}", self.error_log());
        reply
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        for _ in 0..200 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request and reads until the connection is closed.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Reply> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status =
        head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let lower = |line: &str| line.split_once(':').map(|(n, v)| format!("{}:{v}", n.to_lowercase()));
    let head = head.lines().filter_map(lower).collect::<Vec<_>>().join("\n");
    Ok(Reply { status, head, body: body.to_owned() })
}

/// nginx in the foreground, with `path` as its prefix.
fn spawn(path: &Path) -> Child {
    let mut nginx = Command::new("nginx");
    nginx
        .arg("-p")
        .arg(path)
        .arg("-c")
        .arg(path.join("nginx.conf"))
        .arg("-e")
        .arg(path.join("logs/error.log"));
    // Cargo's, in which libblissffi would be found.
    nginx.env_remove("LD_LIBRARY_PATH").stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The example's files with their paths replaced, two workers, the client's address from a header, and answers that tell
/// what was found and by whom.
fn write_configuration(path: &Path, setup: &Setup<'_>, address: SocketAddr) {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let user = setup.user.unwrap_or(if is_root() { "user root;" } else { "" });
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/tmp/{name};\n", path.display()))
        .concat();
    let found = "add_header X-Bot-Score $bot_score always;
                    add_header X-Bot-Status $bot_status always;
                    add_header X-Bot-Action $bot_action always;
                    add_header X-Bliss-Action $bliss_action always;
                    add_header X-Bliss-Rule $bliss_rule always;
                    add_header X-Bliss-Simulated $bliss_simulated always;
                    add_header X-Bliss-Passed $bliss_passed always;
                    add_header X-Bliss-Request-Id $bliss_request_id always;
                    add_header X-Bot-Model $bot_model/$bot_model_version always;";
    let location = "location / {\n            try_files $uri $uri/index.html =404;\n        }";
    replaced(
        path,
        "nginx.conf",
        &[
            ("include /etc/nginx/modules-enabled/*.conf;", None),
            ("user www-data;", Some(format!("{user}\ndaemon off;"))),
            ("worker_processes auto;", Some("worker_processes 2;".into())),
            ("/run/nginx.pid", Some(text(&path.join("nginx.pid")))),
            ("/var/log/nginx/error.log", Some(text(&path.join("logs/error.log")))),
            (
                "http {\n",
                Some(format!(
                    "http {{\n{temporary}{}\n",
                    setup.http.replace("LUA", &text(&path.join("lua/?.lua")))
                )),
            ),
            (
                "include /etc/nginx/bliss.conf;",
                Some(match setup.include {
                    true => format!("include {};", path.join("bliss.conf").display()),
                    false => String::new(),
                }),
            ),
            (
                "listen 8080;",
                Some(format!(
                    "listen {address};
                    set_real_ip_from 127.0.0.1;
                    real_ip_header X-Client;
                    {}
                    add_header X-Worker $pid always;
                    {}",
                    if setup.plain { "" } else { found },
                    setup.server
                )),
            ),
            ("listen 127.0.0.1:8081;", Some(format!("listen unix:{};", text(&path.join("people.sock"))))),
            (location, setup.location.map(str::to_owned)),
            ("            return 403;\n", setup.verifier.map(|verifier| format!("            {verifier}\n"))),
            ("/usr/share/nginx/html", Some(text(&path.join("html")))),
            ("/var/log/nginx/bot_score.log", Some(text(&path.join("logs/access.log")))),
            ("bot_json;", setup.plain.then(|| "combined;".into())),
            ("$bliss_limit_key", setup.plain.then(|| "$binary_remote_addr".into())),
        ],
    );
    replaced(
        path,
        "bliss.conf",
        &[
            ("/usr/local/share/bliss/?.lua", Some(text(&path.join("lua/?.lua")))),
            ("/usr/local/lib/?.so", Some(text(&path.join("lib/?.so")))),
            ("require(\"bot_score\").init {", Some(format!("{} require(\"bot_score\").init {{", setup.lua))),
            ("\"/run/bliss\"", Some(format!("\"{}\"", text(setup.site)))),
            ("block_below = { default = 0 },", Some(setup.options.to_owned())),
        ],
    );
}

/// Writes a file of the example to `path`, with the first of each of these texts replaced; each must be there.
fn replaced(path: &Path, name: &str, replacements: &[(&str, Option<String>)]) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nginx").join(name);
    let mut text = fs::read_to_string(example).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "the example's {name} has no {from:?} any more");
        if let Some(to) = to {
            text = text.replacen(from, to, 1);
        }
    }
    fs::write(path.join(name), text).unwrap();
}

/// Runs `body` while two clients make requests; returns how many requests there were by score, and what failed
/// or had none.
pub(crate) fn under_load(nginx: &Nginx, body: impl FnOnce()) -> (BTreeMap<u8, u32>, Vec<String>) {
    let stop = AtomicBool::new(false);
    let client = |client: &'static str| {
        let stop = &stop;
        move || {
            let (mut scores, mut failures) = (BTreeMap::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                match nginx.get("/", client) {
                    Ok(reply) if reply.status != 200 => failures.push(format!("status {}", reply.status)),
                    Ok(reply) => match reply.score() {
                        Some(score) => *scores.entry(score).or_insert(0) += 1,
                        None => failures.push(format!("unscored: {}", reply.header("x-bot-status"))),
                    },
                    Err(error) => failures.push(error.to_string()),
                }
            }
            (scores, failures)
        }
    };
    std::thread::scope(|scope| {
        let running = [scope.spawn(client("192.0.2.7")), scope.spawn(client("192.0.2.70"))];
        body();
        stop.store(true, Ordering::Relaxed);
        let mut all = (BTreeMap::new(), Vec::new());
        for (scores, failures) in running.map(|r| r.join().unwrap()) {
            scores.into_iter().for_each(|(score, count)| *all.0.entry(score).or_insert(0) += count);
            all.1.extend(failures);
        }
        all
    })
}
