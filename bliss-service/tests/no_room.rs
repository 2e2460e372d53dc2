//! Rows within `max_decoded_bytes` for which a real control group or file system has no room.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{COMMON, Daemon, command, directory};

mod common;

const CONFIG: &str = "[[dimension]]\nname = \"d\"\nkey = [\"asn\"]\nfeatures = [{ name = \"x\" }]\n[[origin.file]]\nname = \"o\"\ndimensions = \
     [\"d\"]\npath = \"rows.jsonl\"\ninterval = \"100ms\"\n";

/// Puts so many rows in the place of those that are there. On a disk: they are no memory of the daemon's group.
fn put(directory: &Path, disk: &Path, rows: u32) {
    let file = disk.join(format!("{rows}.jsonl"));
    let mut out = std::io::BufWriter::new(fs::File::create(&file).unwrap());
    (0..rows).for_each(|asn| {
        writeln!(out, "{{\"key\":{{\"asn\":{asn}}},\"updated_at\":1,\"features\":{{\"x\":1}}}}").unwrap()
    });
    out.flush().unwrap();
    let link = directory.join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    fs::rename(link, directory.join("rows.jsonl")).unwrap();
}

fn refusal(daemon: &Daemon) -> String {
    daemon.status()["origins"][0]["last_refusal"]["message"].to_string()
}

fn rows(daemon: &Daemon) -> u64 {
    daemon.status()["features"]["dimensions"][0]["rows"].as_u64().unwrap_or(0)
}

/// A mounted tmpfs.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn s12_a_file_system_without_room_is_known_before_rows_are_decoded() {
    let (dir, disk) = (directory(), tempfile::tempdir().unwrap());
    let shm = dir.path().join("shm");
    fs::create_dir(&shm).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs"]).arg(&shm).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: s12_a_file_system_without_room_is_known_before_rows_are_decoded: mounting needs root"
        );
        return;
    }
    let mount = Mount(shm);
    put(dir.path(), disk.path(), 1);
    let mut daemon = Daemon::start(dir.path(), CONFIG);
    daemon.until("good rows", |daemon| rows(daemon) == 1);
    put(dir.path(), disk.path(), 1_000_000);
    daemon.until("a refusal", |daemon| refusal(daemon).contains("the file system of"));
    assert_eq!(rows(&daemon), 1);
    // What fits is published.
    put(dir.path(), disk.path(), 1000);
    daemon.until("rows that fit", |daemon| rows(daemon) == 1000);
    assert!(daemon.terminate().success());
    drop(mount);
}

/// A memory control group, if this process may make one.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("bliss-test-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory").join(&name);
        let v2 = Path::new("/sys/fs/cgroup").join(&name);
        if fs::create_dir(&v1).is_ok() {
            fs::write(v1.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
            return Some(Self(v1));
        }
        fs::create_dir(&v2).ok()?;
        let group = Self(v2);
        fs::write(group.0.join("memory.max"), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn s12_a_control_group_without_room_is_a_refusal_and_not_a_kill() {
    let Some(group) = Group::new(96 << 20) else {
        eprintln!(
            "SKIPPED: s12_a_control_group_without_room_is_a_refusal_and_not_a_kill: making a memory control group needs root and \
             a writable cgroup file system"
        );
        return;
    };
    let (dir, disk) = (directory(), tempfile::tempdir().unwrap());
    put(dir.path(), disk.path(), 1);
    let path = dir.path().join("bliss.toml");
    fs::write(&path, format!("{COMMON}{CONFIG}")).unwrap();
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let daemon_alone = command(&path);
    let mut inside = Command::new("sh");
    inside.args(["-c", &script, "sh"]).arg(daemon_alone.get_program()).args(daemon_alone.get_args());
    let mut daemon = Daemon::start_with(&mut inside);
    daemon.until("good rows", |daemon| rows(daemon) == 1);
    put(dir.path(), disk.path(), 2_000_000);
    daemon.until("a refusal", |daemon| refusal(daemon).contains("control group"));
    assert_eq!(rows(&daemon), 1);
    put(dir.path(), disk.path(), 1000);
    daemon.until("rows that fit", |daemon| rows(daemon) == 1000);
    assert!(daemon.terminate().success());
    drop(dir);
}
