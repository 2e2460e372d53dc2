//! What an operator decides by hand: `blissctl allow`, `deny`, `challenge`, `exceptions`, `forget`, `off` and `on`.
//!
//! They write the file of [`super::overrides`] and then ask the daemon's page `/status` whether it is in force. The configuration
//! is read for three options only, so that a file that is broken otherwise does not keep policies switched on.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bliss_core::build::Subject;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::overrides::{Entry, Folder, Kind, MAX_REASON_BYTES, Off, Overrides, subject};
use crate::checkpoint::DEFAULT_DIRECTORY;
use crate::output;

/// How long the daemon has to take what was written.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest time that an exception may hold.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Which daemon is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/bliss/bliss.toml")]
    pub config: PathBuf,
    /// Where its pages answer, if not where `admin.listen` says.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub admin: Option<SocketAddr>,
}

/// Options of `blissctl allow`, `deny` and `challenge`.
#[derive(Clone, Debug, clap::Args)]
pub struct Add {
    /// An address, a network such as 192.0.2.0/24, or a whole user agent.
    pub subject: String,
    /// How long, for instance 2h or 7d.
    #[arg(long = "for", value_name = "TIME", default_value = "7d", value_parser = how_long)]
    pub time: Duration,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = a_reason)]
    pub reason: String,
    /// Take a network larger than /8 (IPv4) or /24 (IPv6) too.
    #[arg(long)]
    pub wide: bool,
    /// Which daemon is meant.
    #[command(flatten)]
    pub which: Which,
}

/// Options of `blissctl forget`.
#[derive(Clone, Debug, clap::Args)]
pub struct Forget {
    /// The number of an exception, or its address, network or user agent.
    pub what: String,
    /// Which daemon is meant.
    #[command(flatten)]
    pub which: Which,
}

/// Options of `blissctl exceptions`.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Which daemon is meant.
    #[command(flatten)]
    pub which: Which,
}

/// Options of `blissctl off` and `on`.
#[derive(Clone, Debug, clap::Args)]
pub struct Switch {
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = a_reason)]
    pub reason: String,
    /// Which daemon is meant.
    #[command(flatten)]
    pub which: Which,
}

fn how_long(text: &str) -> Result<Duration, String> {
    let time =
        humantime_serde::re::humantime::parse_duration(text).map_err(|error| format!("{error}: {text:?}"))?;
    if time < Duration::from_secs(1) || time > LONGEST {
        return Err("expected 1s to 10years".into());
    }
    Ok(time)
}

fn a_reason(text: &str) -> Result<String, String> {
    if text.len() > MAX_REASON_BYTES || text.chars().any(char::is_control) {
        return Err(format!("expected one line of {MAX_REASON_BYTES} bytes at most"));
    }
    Ok(text.to_owned())
}

/// Makes an exception.
///
/// # Errors
/// The subject is no address, network or user agent, the file cannot be written, or the daemon has not taken it.
pub fn add(kind: Kind, options: &Add) -> anyhow::Result<()> {
    let subject = subject(&options.subject).map_err(anyhow::Error::msg)?;
    if let (Subject::Prefix(prefix), false, Kind::Deny | Kind::Challenge) = (&subject, options.wide, kind) {
        let least = if prefix.address().bits() == 32 { 8 } else { 24 };
        anyhow::ensure!(
            prefix.bits() >= least,
            "{prefix} is a very large network; if it is meant, say so with --wide"
        );
    }
    let daemon = Daemon::of(&options.which)?;
    let now = Timestamp::now();
    let until = SignedDuration::try_from(options.time).ok().and_then(|time| now.checked_add(time).ok());
    let until = until.context("--for: the time ends too late")?;
    let (id, overrides) =
        daemon.change(|overrides| overrides.add(kind, &subject, now, until, &options.reason))?;
    if let Some(entry) = overrides.exceptions.iter().find(|entry| entry.id == id)
        && kind != Kind::Challenge
    {
        daemon.label(Some(kind), entry);
    }
    daemon.await_force(&overrides)?;
    output::print(format_args!(
        "in force: {} {} until {until} (number {id})\n",
        kind.name(),
        shown(&options.subject)
    ))
}

/// Removes exceptions.
///
/// # Errors
/// There is none such, the file cannot be written, or the daemon has not taken it.
pub fn forget(options: &Forget) -> anyhow::Result<()> {
    let daemon = Daemon::of(&options.which)?;
    let (gone, overrides) = daemon.change(|overrides| {
        let gone = overrides.forget(&options.what);
        if gone.is_empty() {
            return Err(format!(
                "there is no exception {:?}; `blissctl exceptions` lists them",
                options.what
            ));
        }
        Ok(gone)
    })?;
    for entry in gone.iter().filter(|entry| entry.kind != Kind::Challenge) {
        daemon.label(None, entry);
    }
    daemon.await_force(&overrides)?;
    for Entry { id, kind, subject, .. } in &gone {
        output::print(format_args!("forgotten: {} {} (number {id})\n", kind.name(), shown(subject)))?;
    }
    Ok(())
}

/// Switches policies off or on.
///
/// # Errors
/// The file cannot be written, or the daemon has not taken it.
pub fn switch(on: bool, options: &Switch) -> anyhow::Result<()> {
    let daemon = Daemon::of(&options.which)?;
    let ((), overrides) = daemon.change(|overrides| {
        overrides.off = (!on).then(|| Off { since: Timestamp::now(), reason: options.reason.clone() });
        Ok(())
    })?;
    daemon.await_force(&overrides)?;
    output::print(format_args!(
        "in force: policies are {}\n",
        if on { "on" } else { "off, every request is allowed" }
    ))
}

/// Lists exceptions, and says whether policies act.
///
/// # Errors
/// The file cannot be read.
pub fn list(options: &List) -> anyhow::Result<()> {
    let daemon = Daemon::of(&options.which)?;
    let mut overrides = daemon.folder.read()?;
    let now = Timestamp::now();
    overrides.exceptions.retain(|entry| entry.until > now);
    if options.json {
        return output::print(format_args!("{}\n", serde_json::to_string_pretty(&overrides)?));
    }
    let mut text = String::new();
    if let Some(Off { since, reason }) = &overrides.off {
        let _ = writeln!(text, "policies are off since {since:.0}: {}", shown(reason));
    }
    if overrides.exceptions.is_empty() {
        text.push_str("there are no exceptions\n");
    } else {
        let _ = writeln!(text, "{:>6}  {:<9}  {:<20}  subject and reason", "number", "what", "until");
    }
    for Entry { id, kind, subject, until, reason, .. } in &overrides.exceptions {
        let _ = write!(text, "{id:>6}  {:<9}  {until:.0}  {}", kind.name(), shown(subject));
        let _ = if reason.is_empty() { writeln!(text) } else { writeln!(text, ": {}", shown(reason)) };
    }
    output::print(format_args!("{text}"))
}

/// A text without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Where a daemon is reached.
struct Daemon {
    folder: Folder,
    listen: SocketAddr,
    heartbeat: String,
}

/// The options of a configuration that matter here; whatever else is in it may be wrong.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Few {
    directory: Option<PathBuf>,
    checkpoint: FewOfCheckpoint,
    admin: FewOfAdmin,
    publish: FewOfPublish,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FewOfCheckpoint {
    directory: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FewOfAdmin {
    listen: Option<SocketAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FewOfPublish {
    max_heartbeat_age: Option<String>,
}

/// Where exceptions are kept: in the folder of checkpoints, or beside what is published where there is none, until a reboot.
pub fn folder(checkpoint: Option<&Path>, directory: &Path) -> Folder {
    match checkpoint {
        Some(folder) if folder != Path::new(DEFAULT_DIRECTORY) || folder.is_dir() => {
            Folder::new(folder.to_owned())
        }
        _ => Folder::new(directory.to_owned()),
    }
}

impl Daemon {
    fn of(which: &Which) -> anyhow::Result<Self> {
        let path = &which.config;
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("--config {}: the daemon's configuration cannot be read", path.display())
        })?;
        let few: Few = toml::from_str(&text).with_context(|| format!("--config {}", path.display()))?;
        let beside = |file: PathBuf| path.parent().unwrap_or(Path::new("")).join(file);
        let directory = beside(few.directory.unwrap_or_else(crate::config::default_directory));
        let checkpoint = few.checkpoint.directory.unwrap_or_else(|| DEFAULT_DIRECTORY.into());
        let checkpoint = (!checkpoint.as_os_str().is_empty()).then(|| beside(checkpoint));
        let listen = which.admin.or(few.admin.listen).unwrap_or(([127, 0, 0, 1], 9180).into());
        Ok(Self {
            folder: folder(checkpoint.as_deref(), &directory),
            listen,
            heartbeat: few.publish.max_heartbeat_age.unwrap_or_else(|| "60s".into()),
        })
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Overrides) -> Result<T, String>,
    ) -> anyhow::Result<(T, Overrides)> {
        let mut say = |text: String| output::note(format_args!("warning: {text}\n"));
        self.folder.change(&mut say, change).map_err(anyhow::Error::msg)
    }

    /// A label that cannot be written takes no exception away.
    fn label(&self, kind: Option<Kind>, entry: &Entry) {
        if let Err(error) = self.folder.label(kind, entry) {
            let file = self.folder.labels();
            output::note(format_args!(
                "warning: {}: no label for training is kept: {error}\n",
                file.display()
            ));
        }
    }

    /// Waits until the daemon has published what was written.
    fn await_force(&self, overrides: &Overrides) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut why = String::new();
        while let Some(left) = PATIENCE.checked_sub(began.elapsed()) {
            match revision(self.listen, left) {
                Ok((revision, _)) if revision >= overrides.revision => return Ok(()),
                Ok((_, Some(problem))) => why = problem,
                Ok((revision, None)) => why = format!("it still has revision {revision}"),
                Err(error) => why = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!(
            "{} is written and takes effect as soon as the daemon reads it, but it is not in force: the daemon at {} has not \
             taken it within a second ({why}). Until then workers do what was published before. Start or restart the daemon \
             (`systemctl restart bliss-service`). If that cannot be: end it, and workers allow every request {} later \
             (publish.max_heartbeat_age), or take the action out of the web server's configuration",
            self.folder.file().display(),
            self.listen,
            self.heartbeat
        )
    }
}

/// The revision that is in force, and why exceptions are not read, by the daemon's page.
fn revision(listen: SocketAddr, within: Duration) -> anyhow::Result<(u64, Option<String>)> {
    let within = within.max(Duration::from_millis(10));
    let mut stream = TcpStream::connect_timeout(&listen, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").context("it does not answer by HTTP")?;
    let status: serde_json::Value = serde_json::from_str(body).context("its /status is not understood")?;
    let policy =
        status.get("policy").context("its /status tells nothing of policies; is it an older version?")?;
    let revision = policy.get("overrides_revision").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let text = |value: Option<&serde_json::Value>| Some(value?.as_str()?.to_owned());
    let problem = text(policy.get("overrides_problem")).or_else(|| {
        text(policy.get("refusal").and_then(|refusal| refusal.get("message")))
            .map(|message| format!("its policies are refused: {message}"))
    });
    Ok((revision, problem))
}
