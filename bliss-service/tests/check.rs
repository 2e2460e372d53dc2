//! `bliss-service check`: its output and exit code, and what another user than root may not do.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

const SERVICE: &str = env!("CARGO_BIN_EXE_bliss-service");

/// The exit code, and all that was written.
fn check(folder: &Path, text: &str, arguments: &[&str]) -> (Option<i32>, String) {
    fs::write(folder.join("bliss.toml"), text).unwrap();
    let mut command = Command::new(SERVICE);
    command.arg("check").arg("--config").arg(folder.join("bliss.toml")).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stderr) + &text(output.stdout))
}

#[test]
fn errors_exit_with_1_and_warnings_only_if_strict() {
    let dir = tempfile::tempdir().unwrap();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(dir.path().join("access.log"), "").unwrap();
    let directory = format!("directory = {:?}\n", shm.path());
    let log = "[[origin.access_log]]\nname = \"l\"\npath = \"access.log\"\n";
    let model = concat!(
        "[[model]]\nname = \"m\"\nversion = \"1\"\npath = \"",
        env!("CARGO_MANIFEST_DIR"),
        "/../models/default.cbm\"\n"
    );
    let good = format!("{directory}{log}{model}");
    let (code, text) = check(dir.path(), &good, &["--strict"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("good: 7 dimensions with ") && text.contains("1 models, 0 warnings"), "{text}");

    // Without a model the one that comes with BLISS answers, unless it is switched off.
    let (code, text) = check(dir.path(), &format!("{directory}{log}"), &["--strict"]);
    assert_eq!(code, Some(0), "{text}");
    let directory = format!("{directory}[publish]\ndefault_model = false\n");
    let (code, text) = check(dir.path(), &format!("{directory}{log}"), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("warning: ") && text.contains("\ngood: "), "{text}");
    let (code, text) = check(dir.path(), &format!("{directory}{log}"), &["--strict"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("1 warning, and --strict is set"), "{text}");

    let bad = good.replace("access.log\"", "none.log\"").replace("default.cbm", "none.cbm");
    let (code, text) = check(dir.path(), &bad, &[]);
    assert_eq!(code, Some(1), "{text}");
    // And one line that counts them.
    assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 3, "all are told: {text}");
    assert!(text.contains("2 errors, 0 warnings") && !text.contains("good: "), "{text}");

    let (code, text) = check(dir.path(), &format!("{good}nonsense = 1\n"), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.contains("line 9") && text.contains("nonsense"), "{text}");
}

/// As the user `nobody`: a log of others, a directory of others, a group of others, and a directory that others may write.
#[test]
fn s11_check_tells_of_a_squatted_directory() {
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(dir.path(), 0o755);
    open(shm.path(), 0o755);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("access.log"), "").unwrap();
    open(&path("access.log"), 0o600);
    let service = path("bliss-service");
    fs::copy(SERVICE, &service).unwrap();
    let mut text = format!(
        "directory = {:?}\npublish.group = 0\n[[origin.access_log]]\nname = \"l\"\npath = \"access.log\"\n",
        shm.path()
    );
    fs::write(path("bliss.toml"), &text).unwrap();
    let run = || {
        let mut command = Command::new(&service);
        command.arg("check").arg("--config").arg(path("bliss.toml")).uid(NOBODY).gid(NOBODY);
        command.output().map(|output| String::from_utf8([output.stderr, output.stdout].concat()).unwrap())
    };
    let found = match run() {
        Ok(found) => found,
        Err(error) => {
            eprintln!("SKIPPED: a check as another user (needs root: {error})");
            return;
        }
    };
    for part in [
        "line 1: directory: ",
        "cannot be written by user id 65534",
        "line 2: publish.group: user id 65534 is not a member of group 0",
        "line 5: origin `l`: path: ",
        "access.log cannot be read by user id 65534",
        "`adm` on Debian",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert_eq!(found.lines().filter(|line| line.contains(", line ")).count(), 3, "{found}");

    // Not there, and not to be made; then all as it should be.
    text = text.replace(shm.path().to_str().unwrap(), shm.path().join("bliss").to_str().unwrap());
    fs::write(path("bliss.toml"), &text).unwrap();
    assert!(run().unwrap().contains("is not there and cannot be made: user id 65534"), "{}", run().unwrap());
    open(&path("access.log"), 0o644);
    // Where anybody may replace anything it can be made, and must not be.
    open(shm.path(), 0o777);
    fs::create_dir(shm.path().join("bliss")).unwrap();
    chown(shm.path().join("bliss"), Some(NOBODY), None).unwrap();
    let squatted = format!("directory: {}: may be written by others", shm.path().display());
    assert!(run().unwrap().contains(&squatted), "{}", run().unwrap());
    open(shm.path(), 0o1777);
    fs::write(path("bliss.toml"), text.replace("group = 0", "group = 65534")).unwrap();
    let found = run().unwrap();
    assert!(!found.contains("error: ") && found.contains("good: "), "{found}");
}
