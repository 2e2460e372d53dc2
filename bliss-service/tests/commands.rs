//! Two programs: the daemon, and `blissctl`, whose commands were the daemon's once.

use std::process::{Command, Output};

const SERVICE: &str = env!("CARGO_BIN_EXE_bliss-service");
const CTL: &str = env!("CARGO_BIN_EXE_blissctl");

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn old_spellings_do_the_same_and_name_the_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let line = r#"192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0""#;
    std::fs::write(path("some.log"), format!("{line}\n{line}\n")).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.cbm");
    let log = path("some.log");
    for arguments in [
        ["model", "inspect", model].as_slice(),
        &["features", "--log", &log, "--out", "-"],
        &["features", "--log", &path("absent.log"), "--out", "-"],
        &["demo", "--log", &path("absent.log"), "--scorer", "none"],
    ] {
        let (old, new) = (run(SERVICE, arguments), run(CTL, arguments));
        assert_eq!(old.status, new.status, "{arguments:?}");
        assert_eq!(old.stdout, new.stdout, "{arguments:?}");
        assert_eq!(old.stderr, new.stderr, "{arguments:?}");
        assert_eq!(new.status.success(), !arguments.contains(&path("absent.log").as_str()), "{new:?}");
    }
    let help = String::from_utf8(run(SERVICE, &["--help"]).stdout).unwrap();
    for command in ["demo", "features", "model"] {
        assert!(help.contains(&format!("Now `blissctl {command}`")), "{help}");
    }
}

/// Output that nobody takes is a quiet end or an error, never a panic (exit code 101).
#[test]
fn output_to_a_closed_pipe_or_a_full_disk_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("some.log");
    let line = r#"192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0""#;
    std::fs::write(&log, format!("{line}\n").repeat(2000)).unwrap();
    let config = dir.path().join("bliss.toml");
    let text =
        "directory = \"/dev/shm/never-made\"\n[[origin.access_log]]\nname = \"l\"\npath = \"some.log\"\n";
    std::fs::write(&config, text).unwrap();
    let (log, config) = (log.to_str().unwrap(), config.to_str().unwrap());
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.cbm");
    let commands: [(&str, &[&str]); 4] = [
        (CTL, &["model", "inspect", model]),
        (CTL, &["model", "compile", model]),
        (CTL, &["features", "--log", log, "--out", "-"]),
        (SERVICE, &["check", "--config", config]),
    ];
    for (program, arguments) in commands {
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stderr(full());
        let code = command.stdout(full()).status().unwrap().code();
        assert_eq!(code, Some(1), "{arguments:?} to a full disk");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?} to a closed pipe: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    }
}

#[test]
fn rows_that_find_no_room_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("some.log");
    let line = r#"192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0""#;
    std::fs::write(&log, format!("{line}\n")).unwrap();
    for name in ["rows.csv", "rows.parquet"] {
        let out = dir.path().join(name);
        std::os::unix::fs::symlink("/dev/full", &out).unwrap();
        let output = run(CTL, &["features", "--log", log.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(name) && error.contains("No space left on device"), "{error}");
        assert!(!error.contains("requests with"), "nothing was written: {error}");
    }
}

#[test]
fn features_of_a_log_of_which_nothing_can_be_read_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("some.log");
    std::fs::write(&log, "nothing of this\nis a log\n").unwrap();
    let output = run(CTL, &["features", "--log", log.to_str().unwrap(), "--out", "-"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("none of 2 lines can be read; the first, line 1: "), "{error}");
}

#[test]
fn the_daemon_is_not_a_command_of_blissctl() {
    for command in ["run", "check"] {
        assert!(!run(CTL, &[command, "--config", "x"]).status.success());
        assert!(run(SERVICE, &[command, "--help"]).status.success());
    }
}
